//! Targets behind TLS. The certificates are valid for `target.test`, from 2020 to 2120.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::{Bench, job};
use crate::config::{Scheme, Secret, TlsOptions};

const CA: &str = include_str!("../testdata/ca.pem");
const SERVER_CERT: &str = include_str!("../testdata/server.pem");
const SERVER_KEY: &str = include_str!("../testdata/server.key");
const CLIENT_CERT: &str = include_str!("../testdata/client.pem");
const CLIENT_KEY: &str = include_str!("../testdata/client.key");

/// A target that serves one request a connection, and the address at which it does until the test ends.
fn serve(clients_only: bool) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CA.as_bytes()).unwrap()).unwrap();
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = if clients_only {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.unwrap().with_client_cert_verifier(verifier)
    } else {
        builder.unwrap().with_no_client_auth()
    };
    let certificate = CertificateDer::from_pem_slice(SERVER_CERT.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(SERVER_KEY.as_bytes()).unwrap();
    let config = Arc::new(builder.with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok_and(|length| length > 0) {
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\
                              connection: close\r\n\r\na 1\n";
                let _ = stream.write_all(answer.as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    address
}

/// The error of the first scrape; empty if it succeeded.
async fn scrape(address: &str, tls: TlsOptions) -> String {
    let mut job = job("j", &[address]);
    (job.interval_ms, job.timeout_ms) = (10_000, 10_000);
    job.scheme = Scheme::Https;
    job.http.tls = tls;
    let bench = Bench::start(vec![job]);
    bench.until("a scrape", |bench| bench.handle.targets().active[0].last_scrape.is_some()).await;
    assert_eq!(bench.error().is_empty(), !bench.read("a").is_empty());
    bench.error()
}

fn inline(pem: &str) -> Option<Secret> {
    Some(Secret::Inline(pem.to_owned()))
}

fn trusting() -> TlsOptions {
    TlsOptions { ca: inline(CA), server_name: Some("target.test".to_owned()), ..TlsOptions::default() }
}

#[tokio::test]
async fn the_chain_and_the_name_are_verified() {
    let address = serve(false);
    assert_eq!(scrape(&address, trusting()).await, "");
    let error = scrape(&address, TlsOptions { server_name: None, ..trusting() }).await;
    assert!(error.contains("not valid for name"), "{error}");
    let error = scrape(&address, TlsOptions { ca: None, ..trusting() }).await;
    assert!(error.contains("no certificate authorities"), "{error}");
    let error = scrape(&address, TlsOptions { ca: inline(CLIENT_CERT), ..trusting() }).await;
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn verification_can_be_switched_off() {
    let address = serve(false);
    assert_eq!(
        scrape(&address, TlsOptions { insecure_skip_verify: true, ..TlsOptions::default() }).await,
        ""
    );
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let address = serve(true);
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, CLIENT_KEY).unwrap();
    let with = TlsOptions { cert: inline(CLIENT_CERT), key: Some(Secret::File(key.clone())), ..trusting() };
    assert_eq!(scrape(&address, with.clone()).await, "");
    assert_ne!(scrape(&address, trusting()).await, "");
    std::fs::remove_file(&key).unwrap();
    let error = scrape(&address, with).await;
    assert!(error.contains("key: No such file"), "{error}");
}
