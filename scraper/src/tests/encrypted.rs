//! Targets behind TLS. The certificates are valid for `target.test`, from 2020 to 2120.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::{Bench, job};
use crate::config::{Config, Identity, Pins, Scheme, Secret, TargetGroup, TlsOptions};

const CA: &str = include_str!("../testdata/ca.pem");
const SERVER_CERT: &str = include_str!("../testdata/server.pem");
const SERVER_KEY: &str = include_str!("../testdata/server.key");
const CLIENT_CERT: &str = include_str!("../testdata/client.pem");
const CLIENT_KEY: &str = include_str!("../testdata/client.key");

/// A target that serves one request a connection, and the address at which it does until the test ends.
fn serve(clients_only: bool) -> String {
    serve_as(SERVER_CERT, SERVER_KEY, clients_only)
}

fn serve_as(certificate: &str, key: &str, clients_only: bool) -> String {
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
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
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

const NODE_CA: &str = include_str!("../testdata/node-ca.pem");
const NODE_CERT: &str = include_str!("../testdata/node.pem");
const NODE_KEY: &str = include_str!("../testdata/node.key");

/// The error of the first scrape of a kubelet, which is known to be that of `node`.
async fn scrape_kubelet(address: &str, node: &str, tls: TlsOptions, pins: Option<Arc<Pins>>) -> String {
    let mut job = job("j", &[address]);
    (job.interval_ms, job.timeout_ms) = (10_000, 10_000);
    job.scheme = Scheme::Https;
    let labels = model::Labels::from_pairs([("__meta_kubernetes_node_name", node)]);
    job.targets = vec![TargetGroup::of_addresses([address], labels)];
    job.http.tls = TlsOptions { identity: Identity::Node, ..tls };
    let bench = Bench::start_with(Config { kubelet_pins: pins, ..super::config(vec![job]) });
    bench.until("a scrape", |bench| bench.handle.targets().active[0].last_scrape.is_some()).await;
    bench.error()
}

#[tokio::test]
async fn a_kubelet_is_known_by_its_node_s_name() {
    let address = serve_as(NODE_CERT, NODE_KEY, false);
    let trusting = || TlsOptions { ca: inline(NODE_CA), ..TlsOptions::default() };
    assert_eq!(scrape_kubelet(&address, "n1", trusting(), None).await, "");
    // The address alone, which is in the certificate too, says nothing about the node.
    let error = scrape_kubelet(&address, "n2", trusting(), None).await;
    assert!(error.contains("the kubelet of node n2 shows a certificate for another name"), "{error}");
    // One with the node's DNS name will do as well.
    let by_name = serve(false);
    let trusting_other = TlsOptions { ca: inline(CA), ..TlsOptions::default() };
    assert_eq!(scrape_kubelet(&by_name, "target.test", trusting_other.clone(), None).await, "");
    let error = scrape_kubelet(&address, "n1", trusting_other, None).await;
    for help in ["is not trusted", "serverTLSBootstrap", "--kubelet-pins=FILE", "--kubelet-insecure-tls"] {
        assert!(error.contains(help), "{error}");
    }
    let insecure = TlsOptions { insecure_skip_verify: true, ..TlsOptions::default() };
    assert_eq!(scrape_kubelet(&address, "n7", insecure, None).await, "");
}

#[tokio::test]
async fn a_kubelet_that_nobody_vouches_for_is_pinned() {
    let (address, other) = (serve_as(NODE_CERT, NODE_KEY, false), serve(false));
    let dir = tempfile::tempdir().unwrap();
    let pins = || Some(Arc::new(Pins::open(&dir.path().join("pins")).unwrap()));
    assert_eq!(scrape_kubelet(&address, "n1", TlsOptions::default(), pins()).await, "");
    let error = scrape_kubelet(&other, "n1", TlsOptions::default(), pins()).await;
    assert!(error.contains("the kubelet of node n1 shows another certificate than before"), "{error}");
    assert_eq!(scrape_kubelet(&other, "n2", TlsOptions::default(), pins()).await, "");
}
