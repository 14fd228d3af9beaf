//! What Thanos is served, over real connections: the StoreAPI with and without TLS. Its messages are written and read
//! by hand, see `thanos/tests/wire`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::{Samples, TimeRange};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tsdb::{ChunkEncoding, RawChunk};

use crate::process::{Server, command, installed, run};
use wire::{Answer, Message, answer, framed, labels, series_request, texts, unframed};

#[path = "../../thanos/tests/wire/mod.rs"]
mod wire;

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A call over a connection: the messages, and the status.
async fn call(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    path: &str,
    message: &Message,
) -> Result<(Vec<Vec<u8>>, String), hyper::Error> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("http://store{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(framed(&message.0))))
        .unwrap();
    let response = sender.send_request(request).await?;
    let head = response.headers().clone();
    let body = response.into_body().collect().await?;
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status")).or(head.get("grpc-status"));
    let status = status.map_or("none", |status| status.to_str().unwrap()).to_owned();
    connection.abort();
    Ok((unframed(&body.to_bytes()), status))
}

fn plain(address: &str, path: &str, message: &Message) -> Vec<Vec<u8>> {
    block_on(async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (messages, status) = call(stream, path, message).await.unwrap();
        assert_eq!(status, "0");
        messages
    })
}

fn config(dir: &Path, labels: &str, target: &str) -> String {
    let path = dir.join("prom.yml");
    let job =
        format!("{{job_name: pyrometer, scrape_interval: 1s, static_configs: [{{targets: ['{target}']}}]}}");
    let text = format!("global: {{external_labels: {{{labels}}}}}\nscrape_configs: [{job}]\n");
    std::fs::write(&path, text).unwrap();
    format!("--config.file={}", path.display())
}

#[test]
fn a_thanos_querier_finds_what_the_api_answers() {
    let dir = tempfile::tempdir().unwrap();
    let (web, address) = (free_address(), free_address());
    let flags = [
        "--kubernetes=off".to_owned(),
        "--web.enable-lifecycle".to_owned(),
        config(dir.path(), "cluster: c1, replica: a", &web),
        format!("--grpc-address={address}"),
    ];
    let server = Server::start_at(&web, dir.path(), &flags.each_ref().map(String::as_str));
    let rows = server.wait_for("samples", |server| {
        let rows = server.query("up{job=\"pyrometer\"}[1m]");
        rows.first().filter(|row| row["values"].as_array().unwrap().len() >= 3).cloned()
    });

    let info = plain(&address, "/thanos.info.Info/Info", &Message::default());
    let external =
        [("cluster", "c1"), ("replica", "a")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (field, set) = &wire::fields(&info[0])[0];
    assert_eq!((*field, labels(set.bytes())), (1, external.to_vec()));

    let request = series_request(0, i64::MAX)
        .matcher(3, 0, "job", "pyrometer")
        .matcher(3, 0, "__name__", "up")
        .matcher(3, 2, "cluster", "c.")
        .text(14, "replica");
    let found: Answer = answer(&plain(&address, "/thanos.Store/Series", &request));
    let [series] = &found.series[..] else { panic!("{found:?}") };
    let mut expected: Vec<(String, String)> =
        serde_json::from_value::<BTreeMap<_, _>>(rows["metric"].clone())
            .unwrap()
            .into_iter()
            .chain([("cluster".to_owned(), "c1".to_owned())])
            .collect();
    expected.sort();
    assert_eq!(series.labels, expected);
    let mut samples = Samples::default();
    for chunk in &series.chunks {
        assert_eq!(chunk.kind, 0);
        let raw = RawChunk {
            min_ts: chunk.min,
            max_ts: chunk.max,
            encoding: ChunkEncoding::Xor,
            bytes: &chunk.data,
        };
        raw.decode(TimeRange::ALL, &mut samples).unwrap();
    }
    for row in rows["values"].as_array().unwrap() {
        let at =
            samples.ts.iter().position(|ts| (*ts as f64 / 1000.0 - row[0].as_f64().unwrap()).abs() < 1e-6);
        assert_eq!(samples.values[at.unwrap()], row[1].as_str().unwrap().parse::<f64>().unwrap());
    }

    let names = Message::default().number(3, 0).number(4, i64::MAX);
    let names = texts(&plain(&address, "/thanos.Store/LabelNames", &names)[0], 1);
    assert!(
        ["__name__", "cluster", "job", "replica"].iter().all(|name| names.iter().any(|other| other == name))
    );

    // Labels that the configuration gets are those that series get.
    config(dir.path(), "cluster: c2", &web);
    assert_eq!(crate::process::request("POST", &format!("{}/-/reload", server.url), &[], "").0, 200);
    let request = series_request(0, i64::MAX).matcher(3, 0, "__name__", "up").matcher(3, 0, "cluster", "c2");
    assert!(!answer(&plain(&address, "/thanos.Store/Series", &request)).series.is_empty());
    let (_, metrics) = server.get("/metrics");
    assert!(metrics.contains("\npyrometer_store_requests_total 2\n"), "{metrics}");
    assert_eq!(server.interrupt(), Some(0));
}

/// A connection with TLS, with or without a certificate of ours.
async fn secure(
    address: &str,
    pems: &Path,
    with_certificate: bool,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let read = |name: &str| std::fs::read(pems.join(name)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&read("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = if with_certificate {
        let chain = vec![CertificateDer::from_pem_slice(&read("client.pem")).unwrap()];
        builder
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&read("client.key")).unwrap())
            .unwrap()
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("target.test").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, TcpStream::connect(address).await?).await
}

#[test]
fn with_a_client_authority_only_known_clients_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let pems = Path::new(env!("CARGO_MANIFEST_DIR")).join("scraper/src/testdata");
    let address = free_address();
    let flags = [
        "--kubernetes=off".to_owned(),
        format!("--grpc-address={address}"),
        format!("--grpc-server-tls-cert={}", pems.join("server.pem").display()),
        format!("--grpc-server-tls-key={}", pems.join("server.key").display()),
        format!("--grpc-server-tls-client-ca={}", pems.join("ca.pem").display()),
    ];
    let server = Server::start(dir.path(), &flags.each_ref().map(String::as_str));
    let health = "/grpc.health.v1.Health/Check";
    block_on(async {
        let stream = secure(&address, &pems, true).await.unwrap();
        let (messages, status) = call(stream, health, &Message::default()).await.unwrap();
        assert_eq!((messages, status.as_str()), (vec![vec![8, 1]], "0"));
        // With TLS 1.3 a client learns that it is refused when it reads.
        if let Ok(stream) = secure(&address, &pems, false).await {
            assert!(call(stream, health, &Message::default()).await.is_err());
        }
        let stream = TcpStream::connect(&address).await.unwrap();
        assert!(call(stream, health, &Message::default()).await.is_err());
    });
    drop(server);
}

/// Every file below a directory, with its length.
fn files(dir: &Path) -> BTreeMap<String, u64> {
    let mut folders = vec![dir.to_path_buf()];
    let mut all = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()) {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(dir).unwrap().display().to_string();
                all.insert(name, entry.metadata().unwrap().len());
            }
        }
    }
    all
}

#[test]
fn blocks_are_sent_to_the_bucket_once() {
    const HOUR: i64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("bucket");
    {
        let db = tsdb::Db::open(&dir.path().join("data"), tsdb::Options::default()).unwrap();
        let mut batch = db.appender();
        let series = batch.series(&model::Labels::from_pairs([("__name__", "old")])).unwrap();
        for minute in 0..240 {
            batch.append(series, 1_700_006_400_000 + minute * HOUR / 60, 1.0).unwrap();
        }
        batch.commit().unwrap();
        db.cut_head().unwrap();
        assert_eq!(db.blocks().len(), 2);
        db.close().unwrap();
    }
    let config = config(dir.path(), "cluster: '${PYROMETER_TEST_CLUSTER}'", "127.0.0.1:1");
    let text = format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", bucket.display());
    let objstore = dir.path().join("bucket.yml");
    std::fs::write(&objstore, &text).unwrap();
    let from_file = format!("--objstore.config-file={}", objstore.display());
    let flags = ["--kubernetes=off", &config, "--shipper.interval=100ms"];
    let environment = [("PYROMETER_TEST_CLUSTER", "c1")];
    let start = |more: &str| Server::start_among(dir.path(), &[&flags[..], &[more]].concat(), &environment);
    let rounds = |server: &Server| {
        server.wait_for("a round", |server| {
            let (_, metrics) = server.get("/metrics");
            let of = |name: &str| {
                let line = metrics.lines().find(|line| line.starts_with(name))?;
                line.rsplit(' ').next()?.parse::<u32>().ok()
            };
            let (done, sent) = (of("thanos_shipper_dir_syncs_total ")?, of("thanos_shipper_uploads_total ")?);
            (done >= 2).then_some(sent)
        })
    };
    let server = start(&from_file);
    // They are older than the retention, and stay until they are in the bucket.
    assert_eq!(rounds(&server), 2);
    let sent = files(&bucket);
    assert_eq!(sent.len(), 6, "{sent:?}");
    let metas: Vec<&String> = sent.keys().filter(|name| name.ends_with("/meta.json")).collect();
    for name in &metas {
        let meta: serde_json::Value =
            serde_json::from_slice(&std::fs::read(bucket.join(name)).unwrap()).unwrap();
        assert_eq!(
            (&meta["thanos"]["labels"]["cluster"], &meta["compaction"]["level"]),
            (&"c1".into(), &1.into())
        );
        assert_eq!(meta["thanos"]["files"].as_array().unwrap().len(), 3);
    }
    assert_eq!(server.interrupt(), Some(0));
    if installed("promtool") {
        let list = run("promtool", &["tsdb", "list", &bucket.display().to_string()]);
        assert!(metas.iter().all(|name| list.contains(name.split('/').next().unwrap())), "{list}");
    }

    // As text, and again: nothing is sent twice, and nobody is told what the text was.
    let server = start(&format!("--objstore.config={text}"));
    assert_eq!(rounds(&server), 0);
    assert_eq!(files(&bucket), sent);
    assert_eq!(server.json("/api/v1/status/flags")["data"]["objstore.config"], "<secret>");
    drop(server);
    let data = format!("--storage.tsdb.path={}", dir.path().join("data").display());
    let refused = refusal(&[&data, "--kubernetes=off", "--web.listen-address=127.0.0.1:0", &from_file]);
    assert!(refused.contains("external_labels"), "{refused}");
    std::fs::write(&objstore, "type: GCS\nconfig: {}\n").unwrap();
    let refused =
        refusal(&[&data, "--kubernetes=off", "--web.listen-address=127.0.0.1:0", &config, &from_file]);
    assert!(refused.contains("GCS") && refused.contains("bucket.yml"), "{refused}");
}

fn refusal(flags: &[&str]) -> String {
    let output = command().args(flags).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_makes_no_sense_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let data = format!("--storage.tsdb.path={}", dir.path().join("data").display());
    let common = [data.as_str(), "--kubernetes=off", "--web.listen-address=127.0.0.1:0"];
    let with = |more: &[&str]| refusal(&[&common[..], more].concat());
    assert!(with(&["--grpc-address=nowhere"]).contains("--grpc-address=nowhere"));
    let agent = data.replace("--storage.tsdb.path", "--storage.agent.path");
    let text = refusal(&[agent.as_str(), common[1], common[2], "--agent", "--grpc-address=127.0.0.1:0"]);
    assert!(text.contains("keeps no samples"), "{text}");
    let text = with(&["--grpc-address=127.0.0.1:0", "--grpc-server-tls-cert=x"]);
    assert!(text.contains("--grpc-server-tls-key"), "{text}");
    let text = with(&["--grpc-address=127.0.0.1:0", "--grpc-server-tls-cert=x", "--grpc-server-tls-key=y"]);
    assert!(text.contains("x: "), "{text}");
}
