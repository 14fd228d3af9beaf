//! TLS towards servers: which certificates are trusted, and for whom.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::dial::Roots;
use super::pins::Pins;
use crate::config::{Identity, Secret, TlsOptions};

macro_rules! verify_signatures {
    ($field:tt) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls12_signature(
                message,
                cert,
                dss,
                &self.$field.signature_verification_algorithms,
            )
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(
                message,
                cert,
                dss,
                &self.$field.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.$field.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// The TLS configuration of a job; reads its files.
pub(super) fn client_config(
    options: &TlsOptions,
    roots: &Roots,
    http2: bool,
) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[_] = match options.versions {
        (_, true) => &[&rustls::version::TLS12],
        (true, _) => &[&rustls::version::TLS13],
        _ => rustls::DEFAULT_VERSIONS,
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let verifier = verifier(options, roots, provider)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let certificates = certificates(&read(cert)?)?;
            let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| format!("key: {error}"))?;
            builder.with_client_auth_cert(certificates, key).map_err(|error| error.to_string())?
        }
        _ => builder.with_no_client_auth(),
    };
    if http2 {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    // Connections stay open: a session to resume would be kept for nothing.
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    Ok(config)
}

fn read(secret: &Secret) -> Result<Vec<u8>, String> {
    match secret {
        Secret::Inline(text) => Ok(text.clone().into_bytes()),
        Secret::File(path) => std::fs::read(path).map_err(|error| format!("{secret:?}: {error}")),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("certificate: {error}"))
}

fn verifier(
    options: &TlsOptions,
    roots: &Roots,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if options.insecure_skip_verify {
        return Ok(Arc::new(AnyCertificate(provider)));
    }
    let mut trusted = RootCertStore::empty();
    match &options.ca {
        Some(ca) => {
            for certificate in certificates(&read(ca)?)? {
                trusted.add(certificate).map_err(|error| format!("ca: {error}"))?;
            }
        }
        // Of the system's many roots some may be of a kind that is not understood.
        None => {
            trusted.add_parsable_certificates(certificates(&roots.system_pem)?);
        }
    }
    if options.identity == Identity::Node {
        return Ok(Arc::new(KubeletCertificate { provider, trusted, pins: roots.pins.clone() }));
    }
    if trusted.is_empty() {
        return Ok(Arc::new(NoCertificate(provider)));
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(trusted), provider).build();
    Ok(verifier.map_err(|error| error.to_string())?)
}

/// What a handshake that failed says of a kubelet begins with that, so that the reason is recognised.
const KUBELET: &str = "the kubelet of node ";

/// The part of a TLS failure that says what to do, where there is one.
pub(super) fn explain(failure: &str) -> String {
    match failure.find(KUBELET) {
        Some(at) => failure[at..].to_owned(),
        None => format!("tls: {failure}"),
    }
}

/// A kubelet is dialled by its address, but known by its node's name: a certificate counts if a trusted authority
/// signed it, and it is for that name, either as a DNS name or as the user `system:node:<name>`.
#[derive(Debug)]
struct KubeletCertificate {
    provider: Arc<CryptoProvider>,
    trusted: RootCertStore,
    pins: Option<Arc<Pins>>,
}

impl KubeletCertificate {
    /// Checks chain and name; the error names what would help.
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), String> {
        let parsed = ParsedCertificate::try_from(end_entity).map_err(|error| error.to_string())?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.trusted, intermediates, now, algorithms)
            .map_err(|error| {
                format!(
                    "shows a certificate that is not trusted ({error}): let the cluster sign it (serverTLSBootstrap: \
                     true in the kubelet's configuration, and approve its certificate signing request), or set \
                     the authority that did sign it"
                )
            })?;
        let node = name.to_str();
        let is_node = super::pins::common_name(end_entity)
            .is_some_and(|common| common.strip_prefix("system:node:") == Some(&*node));
        if is_node || verify_server_name(&parsed, name).is_ok() {
            return Ok(());
        }
        Err("shows a certificate for another name: it needs the node's name as a DNS name, or system:node:<name> as \
             its common name"
            .to_owned())
    }
}

impl ServerCertVerifier for KubeletCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let node = server_name.to_str();
        let why = match self.verify(end_entity, intermediates, server_name, now) {
            Ok(()) => return Ok(ServerCertVerified::assertion()),
            Err(why) => why,
        };
        let refuse = |what: String| Err(rustls::Error::General(format!("{KUBELET}{node} {what}")));
        match &self.pins {
            None => refuse(format!(
                "{why}; or trust each certificate from its first use on (--kubelet-pins=FILE); or, as the last \
                 resort, take any (--kubelet-insecure-tls)"
            )),
            Some(pins) => match pins.check(&node, end_entity) {
                Ok(()) => Ok(ServerCertVerified::assertion()),
                Err(what) => {
                    tracing::error!("{KUBELET}{node} {what}");
                    refuse(what)
                }
            },
        }
    }

    verify_signatures!(provider);
}

/// `insecure_skip_verify`: takes any certificate, but still checks that the peer holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

/// There are no roots, so nothing can be trusted; says so when that is asked for.
#[derive(Debug)]
struct NoCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!(0);
}

impl ServerCertVerifier for NoCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Err(rustls::Error::General("no certificate authorities are configured or known".to_owned()))
    }

    verify_signatures!(0);
}
