//! TLS of the server, from the settings of a web configuration file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;

use super::beside;
use super::config::{WebConfigError, read};

/// `tls_server_config`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsServer {
    cert: String,
    key: String,
    cert_file: String,
    key_file: String,
    client_auth_type: ClientAuth,
    client_ca: String,
    client_ca_file: String,
    client_allowed_sans: Vec<String>,
    min_version: Version,
    max_version: Version,
    cipher_suites: Vec<String>,
    /// The preference of the server always counts, as in Go since 1.17.
    prefer_server_cipher_suites: Option<bool>,
    curve_preferences: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum ClientAuth {
    #[default]
    #[serde(rename = "", alias = "NoClientCert")]
    No,
    RequestClientCert,
    #[serde(rename = "RequireAnyClientCert", alias = "RequireClientCert")]
    RequireAnyClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum Version {
    #[default]
    #[serde(rename = "")]
    Any,
    /// Older than what is spoken: as a lower bound it excludes nothing.
    #[serde(rename = "TLS10", alias = "TLS11")]
    Old,
    #[serde(rename = "TLS12")]
    Tls12,
    #[serde(rename = "TLS13")]
    Tls13,
}

impl TlsServer {
    /// As Thanos has it: at least TLS 1.3, and clients are verified if there is something to verify them with.
    pub(super) fn of_files(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Self {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let verify = ClientAuth::RequireAndVerifyClientCert;
        Self {
            cert_file: text(cert),
            key_file: text(key),
            client_auth_type: client_ca.map_or(ClientAuth::No, |_| verify),
            client_ca_file: client_ca.map(text).unwrap_or_default(),
            min_version: Version::Tls13,
            ..Self::default()
        }
    }

    /// The files that this reads, besides the configuration itself.
    pub(super) fn files(&self, config: &Path) -> Vec<PathBuf> {
        let names = [&self.cert_file, &self.key_file, &self.client_ca_file];
        names.into_iter().filter(|name| !name.is_empty()).map(|name| beside(config, name)).collect()
    }
}

/// Builds what answers handshakes.
pub(super) fn acceptor(tls: &TlsServer, path: &Path, http2: bool) -> Result<TlsAcceptor, WebConfigError> {
    let invalid = |what: String| WebConfigError::Invalid {
        path: path.to_owned(),
        what: format!("tls_server_config: {what}"),
    };
    let cert = pem(&tls.cert, &tls.cert_file, path, "cert")?
        .ok_or_else(|| invalid("missing cert or cert_file".to_owned()))?;
    let key = pem(&tls.key, &tls.key_file, path, "key")?
        .ok_or_else(|| invalid("missing key or key_file".to_owned()))?;
    let chain = certificates(&cert).map_err(|what| invalid(format!("certificate: {what}")))?;
    let key =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| invalid(format!("key: {error}")))?;
    let builder = ServerConfig::builder_with_provider(suites(tls).map_err(invalid)?.into())
        .with_protocol_versions(&versions(tls).map_err(invalid)?)
        .map_err(|error| invalid(error.to_string()))?;
    let verifier = client_verifier(tls, path)?;
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| invalid(format!("certificate and key: {error}")))?;
    config.alpn_protocols =
        if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A text given inline or as a file, not as both.
fn pem(inline: &str, file: &str, config: &Path, name: &str) -> Result<Option<String>, WebConfigError> {
    match (inline.is_empty(), file.is_empty()) {
        (true, true) => Ok(None),
        (false, true) => Ok(Some(inline.to_owned())),
        (true, false) => read(&beside(config, file)).map(Some),
        (false, false) => Err(WebConfigError::Invalid {
            path: config.to_owned(),
            what: format!("tls_server_config: only one of {name} and {name}_file may be given"),
        }),
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| error.to_string())?;
    if all.is_empty() { Err("there is none".to_owned()) } else { Ok(all) }
}

fn versions(tls: &TlsServer) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    if tls.max_version == Version::Old {
        return Err("TLS older than 1.2 is not spoken".to_owned());
    }
    let mut versions = Vec::new();
    if tls.min_version != Version::Tls13 {
        versions.push(&rustls::version::TLS12);
    }
    if tls.max_version != Version::Tls12 {
        versions.push(&rustls::version::TLS13);
    }
    if versions.is_empty() { Err("min_version is above max_version".to_owned()) } else { Ok(versions) }
}

/// The chosen suites and curves; Go's names.
fn suites(tls: &TlsServer) -> Result<rustls::crypto::CryptoProvider, String> {
    let mut provider = provider::default_provider();
    let plain = |text: &str| text.to_ascii_lowercase().replace(['_', '-'], "");
    if !tls.cipher_suites.is_empty() {
        let mut chosen = Vec::new();
        for name in &tls.cipher_suites {
            let name_of = |suite: &rustls::SupportedCipherSuite| {
                let text = format!("{:?}", suite.suite());
                plain(&text.replace("TLS13_", "TLS_"))
            };
            let found = provider.cipher_suites.iter().find(|suite| name_of(suite) == plain(name)).copied();
            chosen.push(found.ok_or_else(|| format!("cipher suite {name:?} is not supported"))?);
        }
        // As in Go, the suites of TLS 1.3 cannot be chosen.
        chosen.extend(provider.cipher_suites.iter().filter(|suite| suite.tls13().is_some()).copied());
        provider.cipher_suites = chosen;
    }
    if !tls.curve_preferences.is_empty() {
        let mut chosen = Vec::new();
        for name in &tls.curve_preferences {
            let rustls_name = match name.as_str() {
                "CurveP256" => "secp256r1",
                "CurveP384" => "secp384r1",
                "X25519" => "X25519",
                _ => return Err(format!("curve {name:?} is not supported")),
            };
            let found = provider.kx_groups.iter().find(|group| format!("{:?}", group.name()) == rustls_name);
            chosen.push(*found.ok_or_else(|| format!("curve {name:?} is not supported"))?);
        }
        provider.kx_groups = chosen;
    }
    Ok(provider)
}

fn client_verifier(tls: &TlsServer, path: &Path) -> Result<Arc<dyn ClientCertVerifier>, WebConfigError> {
    let invalid = |what: String| WebConfigError::Invalid {
        path: path.to_owned(),
        what: format!("tls_server_config: {what}"),
    };
    let ca = pem(&tls.client_ca, &tls.client_ca_file, path, "client_ca")?;
    if !tls.client_allowed_sans.is_empty() {
        return Err(invalid("client_allowed_sans is not supported".to_owned()));
    }
    let required = match tls.client_auth_type {
        ClientAuth::No if ca.is_some() => {
            return Err(invalid("a client CA has been configured without a client auth policy".to_owned()));
        }
        ClientAuth::No => return Ok(WebPkiClientVerifier::no_client_auth()),
        ClientAuth::RequestClientCert | ClientAuth::RequireAnyClientCert => {
            return Err(invalid(
                "client certificates that nobody verifies are not supported: use VerifyClientCertIfGiven or \
                 RequireAndVerifyClientCert"
                    .to_owned(),
            ));
        }
        ClientAuth::VerifyClientCertIfGiven => false,
        ClientAuth::RequireAndVerifyClientCert => true,
    };
    let ca = ca.ok_or_else(|| invalid("client_auth_type needs client_ca or client_ca_file".to_owned()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&ca).map_err(|what| invalid(format!("client CA: {what}")))? {
        roots.add(certificate).map_err(|error| invalid(format!("client CA: {error}")))?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider::default_provider()));
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| invalid(format!("client CA: {error}")))
}
