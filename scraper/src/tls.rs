//! TLS towards targets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::{Secret, TlsOptions};
use crate::target::Client;

/// The TLS configuration of a job; reads its files.
fn client_config(options: &TlsOptions, system_roots: &[u8]) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let verifier = verifier(options, system_roots, provider)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let certificates = certificates(&read(cert)?)?;
            let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| format!("key: {error}"))?;
            builder.with_client_auth_cert(certificates, key).map_err(|error| error.to_string())
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn read(secret: &Secret) -> Result<Vec<u8>, String> {
    secret.read().map(String::into_bytes).map_err(|error| format!("{secret:?}: {error}"))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("certificate: {error}"))
}

fn verifier(
    options: &TlsOptions,
    system_roots: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if options.insecure_skip_verify {
        return Ok(Arc::new(AnyCertificate(provider)));
    }
    let mut roots = RootCertStore::empty();
    match &options.ca {
        Some(ca) => {
            for certificate in certificates(&read(ca)?)? {
                roots.add(certificate).map_err(|error| format!("ca: {error}"))?;
            }
        }
        // Of the system's many roots some may be of a kind that is not understood.
        None => {
            roots.add_parsable_certificates(certificates(system_roots)?);
        }
    }
    if roots.is_empty() {
        return Ok(Arc::new(NoCertificate(provider)));
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    Ok(verifier.map_err(|error| error.to_string())?)
}

/// Opens connections to the targets of one job. They share it, and with it the certificates, which would
/// otherwise be the largest thing about an idle target.
pub(crate) struct Dialer {
    options: TlsOptions,
    client: Arc<Client>,
    https: Mutex<Option<Made>>,
}

/// A connector with the time at which its files were read.
struct Made {
    connector: HttpsConnector<HttpConnector>,
    at: Instant,
}

/// After a failure certificates and keys are read again, but no more often than this.
const REREAD_AFTER: Duration = Duration::from_secs(10);

impl Dialer {
    pub(crate) fn new(options: TlsOptions, client: Arc<Client>) -> Self {
        Self { options, client, https: Mutex::default() }
    }

    /// A connector for `http`.
    pub(crate) fn http() -> HttpConnector {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http
    }

    /// A connector for `https`. Reads the files it needs if they have not been read.
    pub(crate) fn https(&self) -> Result<HttpsConnector<HttpConnector>, String> {
        let mut made = self.https.lock();
        if let Some(made) = &*made {
            return Ok(made.connector.clone());
        }
        let config = client_config(&self.options, &self.client.system_roots_pem)?;
        let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
        let builder = match &self.options.server_name {
            Some(name) => {
                let name =
                    ServerName::try_from(name.clone()).map_err(|error| format!("server_name: {error}"))?;
                builder.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
            None => builder,
        };
        let connector = builder.enable_http1().wrap_connector(Self::http());
        *made = Some(Made { connector: connector.clone(), at: Instant::now() });
        Ok(connector)
    }

    /// To be called when a connection could not be made: the files may have changed.
    pub(crate) fn distrust(&self) {
        self.https.lock().take_if(|made| made.at.elapsed() >= REREAD_AFTER);
    }
}

/// `insecure_skip_verify`: takes any certificate, but still checks that the peer holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

/// There are no roots, so nothing can be trusted; says so when that is asked for.
#[derive(Debug)]
struct NoCertificate(Arc<CryptoProvider>);

macro_rules! verify_signatures {
    () => {
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
                &self.0.signature_verification_algorithms,
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
                &self.0.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    };
}

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

    verify_signatures!();
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

    verify_signatures!();
}
