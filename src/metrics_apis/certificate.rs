//! The certificate of the secure listener: given as files and read again as they change, or made here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio_rustls::TlsAcceptor;

/// Files are looked at no more often than this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A certificate made here is good for a year, and another one is made after this time.
const OWN_AGE_MAX: Duration = Duration::from_secs(30 * 86_400);
const OWN_DAYS: i64 = 365;

/// Where the certificate comes from.
pub(crate) enum Origin {
    /// PEM files of the certificate chain and its key.
    Files(PathBuf, PathBuf),
    /// Made here for these names and addresses, and signed by itself.
    Own(Vec<String>),
}

/// The certificate in force.
pub(crate) struct Certificate {
    origin: Origin,
    current: Mutex<Current>,
}

struct Current {
    acceptor: TlsAcceptor,
    made: Instant,
    looked: Instant,
    seen: Vec<Option<SystemTime>>,
}

impl Certificate {
    /// Reads or makes the certificate.
    pub(crate) fn new(origin: Origin) -> anyhow::Result<Self> {
        let now = Instant::now();
        let seen = origin.seen();
        let acceptor = origin.acceptor()?;
        Ok(Self { origin, current: Mutex::new(Current { acceptor, made: now, looked: now, seen }) })
    }

    /// What answers handshakes now. Looks at the files, so it may wait for the disk.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_AGAIN {
            current.looked = Instant::now();
            let seen = self.origin.seen();
            let is_old = match &self.origin {
                Origin::Files(..) => seen != current.seen,
                Origin::Own(_) => current.made.elapsed() >= OWN_AGE_MAX,
            };
            if is_old {
                match self.origin.acceptor() {
                    Ok(acceptor) => {
                        tracing::info!("the Kubernetes APIs have a new certificate");
                        (current.acceptor, current.made) = (acceptor, Instant::now());
                        current.seen = seen;
                    }
                    // The two files are not replaced at the same moment: look again.
                    Err(error) => tracing::warn!("the certificate before stays in force: {error:#}"),
                }
            }
        }
        current.acceptor.clone()
    }
}

impl Origin {
    /// When the files were last changed.
    fn seen(&self) -> Vec<Option<SystemTime>> {
        let changed = |path: &PathBuf| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        match self {
            Self::Files(certificate, key) => vec![changed(certificate), changed(key)],
            Self::Own(_) => Vec::new(),
        }
    }

    fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let (chain, key) = match self {
            Self::Files(certificate, key) => read(certificate, key)?,
            Self::Own(names) => make(names)?,
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(AnyClient))
            .with_single_cert(chain, key)
            .context("the certificate and its key")?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read(certificate: &Path, key: &Path) -> anyhow::Result<Pair> {
    let at = |path: &Path| path.display().to_string();
    let pem = std::fs::read(certificate).with_context(|| at(certificate))?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().with_context(|| at(certificate))?;
    anyhow::ensure!(!chain.is_empty(), "{}: there is no certificate in it", at(certificate));
    let pem = std::fs::read(key).with_context(|| at(key))?;
    let key = PrivateKeyDer::from_pem_slice(&pem).with_context(|| at(key))?;
    Ok((chain, key))
}

fn make(names: &[String]) -> anyhow::Result<Pair> {
    let made = Made::new(names, OWN_DAYS)?;
    let key = PrivatePkcs8KeyDer::from(made.key.serialize_der()).into();
    Ok((vec![made.certificate.der().clone()], key))
}

/// A certificate that has been made here, and signed by itself.
pub(super) struct Made {
    pub(super) certificate: rcgen::Certificate,
    pub(super) key: rcgen::KeyPair,
}

impl Made {
    /// For these names and addresses, good from yesterday on and for `days` from today.
    pub(super) fn new(names: &[String], days: i64) -> anyhow::Result<Self> {
        let mut parameters = rcgen::CertificateParams::new(names.to_vec())?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "pyrometer");
        let today =
            jiff::Timestamp::from_millisecond(crate::wire::now())?.to_zoned(jiff::tz::TimeZone::UTC).date();
        let day = |days: i64| -> anyhow::Result<_> {
            let date = today.checked_add(jiff::Span::new().try_days(days)?)?;
            let number = |n: i8| u8::try_from(n).unwrap_or(1);
            Ok(rcgen::date_time_ymd(i32::from(date.year()), number(date.month()), number(date.day())))
        };
        (parameters.not_before, parameters.not_after) = (day(-1)?, day(days)?);
        parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let key = rcgen::KeyPair::generate()?;
        Ok(Self { certificate: parameters.self_signed(&key)?, key })
    }
}

/// Asks clients for a certificate, and verifies that they have its key. Who has signed it is judged at each request,
/// by authorities that may have changed since the handshake.
#[derive(Debug)]
struct AnyClient;

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_for_names_and_addresses() {
        let names = ["pyrometer.kube-system.svc", "127.0.0.1", "::1"].map(str::to_owned);
        let (chain, _) = make(&names).unwrap();
        assert_eq!(chain.len(), 1);
        assert!(Certificate::new(Origin::Own(names.into())).is_ok());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tls.crt");
        std::fs::write(&path, "nothing").unwrap();
        let error = Certificate::new(Origin::Files(path.clone(), path.clone())).err().unwrap();
        assert!(format!("{error:#}").contains(&path.display().to_string()), "{error:#}");
    }
}
