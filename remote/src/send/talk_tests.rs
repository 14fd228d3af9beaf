//! How a sender talks to receivers: its headers, and what it makes of their answers.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use model::Labels;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use tsdb::{Db, Metadata, MetricKind};

use super::metadata::{FamilyMetadata, MetadataOptions};
use super::post::retry_after;
use super::{Destination, QueueOptions, Sender, SenderStats};
use crate::receive::{Compression, Encoding, Protocol, Receiver};

const PATIENCE: Duration = Duration::from_secs(30);

/// A request as it came: its head in lower case, and its body.
type Came = (String, Vec<u8>);

/// Answers requests one after the other, each with what `answer` makes of it.
fn serve(answer: impl Fn(usize, &Came) -> String + Send + 'static) -> (String, mpsc::Receiver<Came>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/write", listener.local_addr().unwrap());
    let (give, came) = mpsc::channel();
    std::thread::spawn(move || {
        for (nth, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let mut bytes = Vec::new();
            let mut buffer = [0; 4096];
            let head_end = loop {
                if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at + 4;
                }
                let read = stream.read(&mut buffer).unwrap_or(0);
                if read == 0 {
                    return;
                }
                bytes.extend_from_slice(&buffer[..read]);
            };
            let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.unwrap().parse().unwrap();
            while bytes.len() < head_end + length {
                let read = stream.read(&mut buffer).unwrap();
                bytes.extend_from_slice(&buffer[..read]);
            }
            let request = (head, bytes[head_end..].to_vec());
            let answer = answer(nth, &request);
            let _ = write!(stream, "HTTP/1.1 {answer}connection: close\r\ncontent-length: 0\r\n\r\n");
            if give.send(request).is_err() {
                return;
            }
        }
    });
    (url, came)
}

struct Bench {
    _dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    db: Arc<Db>,
    destination: Destination,
}

impl Bench {
    fn new(url: String, protocol: Protocol) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Arc::new(Db::open(&dir.path().join("data"), tsdb::Options::default()).unwrap());
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let destination = Destination {
            name: "one".into(),
            url,
            protocol,
            transport: crate::send::carry_by(client),
            headers: HeaderMap::new(),
            timeout: PATIENCE,
            external_labels: Labels::from_pairs([("dc", "here")]),
            relabel: None,
            exemplars: true,
            histograms: true,
            metadata: None,
            queue: QueueOptions {
                deadline: Duration::from_millis(10),
                backoff_min: Duration::from_millis(1),
                backoff_max: Duration::from_millis(2),
                ..QueueOptions::default()
            },
            cursor_path: dir.path().join("one.cursor"),
            now: || 1_000,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { _dir: dir, runtime: runtime.unwrap(), db, destination }
    }

    /// Starts when the log says what the metric is, which otherwise comes behind the first samples.
    fn start(&self) -> Sender {
        let mut appender = self.db.appender();
        let series = appender.series(&Labels::from_pairs([("__name__", "a")])).unwrap();
        let metadata = Metadata { kind: MetricKind::Gauge, help: "Says a.".into(), unit: String::new() };
        appender.metadata(series, &metadata).unwrap();
        appender.commit().unwrap();
        let _entered = self.runtime.enter();
        Sender::start(&self.db, self.destination.clone()).unwrap()
    }

    /// So many samples of one series, from a time on.
    fn append(&self, count: i64, from: i64) {
        let mut appender = self.db.appender();
        let series = appender.series(&Labels::from_pairs([("__name__", "a")])).unwrap();
        for ts in from..from + count {
            appender.append(series, ts, 1.0).unwrap();
        }
        appender.commit().unwrap();
    }
}

fn until(sender: &Sender, done: impl Fn(&SenderStats) -> bool) -> SenderStats {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats = sender.stats();
        if done(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn written(samples: u64) -> String {
    format!("204 No Content\r\nx-prometheus-remote-write-samples-written: {samples}\r\n")
}

#[test]
fn the_headers_are_those_of_the_protocol() {
    for (protocol, content_type, version) in [
        (Protocol::V1, "application/x-protobuf\r", "0.1.0"),
        (Protocol::V2, "application/x-protobuf;proto=io.prometheus.write.v2.request\r", "2.0.0"),
    ] {
        let (url, came) = serve(|nth, _| match nth {
            0 => "503 Busy\r\n".to_owned(),
            _ => written(2),
        });
        let bench = Bench::new(url, protocol);
        let sender = bench.start();
        bench.append(2, 100);
        let (head, body) = came.recv_timeout(PATIENCE).unwrap();
        assert!(head.contains(&format!("content-type: {content_type}")), "{head}");
        assert!(head.contains("content-encoding: snappy\r"), "{head}");
        assert!(head.contains(&format!("x-prometheus-remote-write-version: {version}\r")), "{head}");
        assert!(head.contains("user-agent: pyrometer/") && !head.contains("retry-attempt"), "{head}");
        let (head, again) = came.recv_timeout(PATIENCE).unwrap();
        assert!(head.contains("retry-attempt: 1\r") && again == body, "{head}");
        let stats = until(&sender, |stats| stats.samples == 2);
        assert_eq!((stats.retried, stats.failed), (2, 0));

        // What was sent is stored by our receiver, with what is said of it where the version has a place for that.
        let db = Arc::new(Db::open(&bench._dir.path().join("other"), tsdb::Options::default()).unwrap());
        let encoding = Encoding { protocol, compression: Compression::Snappy };
        assert_eq!(Receiver::new(Arc::clone(&db), [1, 2]).receive(encoding, &body).unwrap().samples, 2);
        let said = db.metadata(&[]);
        assert_eq!(said.len(), usize::from(protocol == Protocol::V2));
        sender.stop(PATIENCE);
    }
}

#[test]
fn what_a_receiver_of_2_0_says_that_it_stored_is_counted() {
    for (answer, samples) in [
        (written(3), 3),
        (written(2), 2),
        // It took all, and says nothing, or nothing stored: it has not understood.
        ("204 No Content\r\n".to_owned(), 0),
        (written(0), 0),
        (written(1).replace("204 No Content", "400 Bad"), 1),
        // These are final, and nothing else is tried.
        ("415 Unsupported\r\n".to_owned(), 0),
        ("404 Not Found\r\n".to_owned(), 0),
        ("429 Slow\r\n".to_owned(), 0),
    ] {
        let told = answer.clone();
        let (url, came) = serve(move |_, _| told.clone());
        let bench = Bench::new(url, Protocol::V2);
        let sender = bench.start();
        bench.append(3, 100);
        let stats = until(&sender, |stats| stats.samples + stats.failed == 3);
        assert_eq!((stats.samples, stats.retried), (samples, 0), "{answer}");
        sender.stop(PATIENCE);
        assert_eq!(came.try_iter().count(), 1, "{answer}");
    }
}

#[test]
fn a_receiver_of_1_0_says_nothing_of_what_it_stored() {
    let (url, _came) = serve(|_, _| "200 OK\r\n".to_owned());
    let bench = Bench::new(url, Protocol::V1);
    let sender = bench.start();
    bench.append(3, 100);
    assert_eq!(until(&sender, |stats| stats.samples + stats.failed == 3).samples, 3);
}

#[test]
fn too_many_requests_pass_if_that_is_wanted() {
    let (url, _came) = serve(|nth, _| if nth < 3 { "429 Slow\r\n".to_owned() } else { written(3) });
    let mut bench = Bench::new(url, Protocol::V2);
    bench.destination.queue.retry_on_429 = true;
    let sender = bench.start();
    bench.append(3, 100);
    let stats = until(&sender, |stats| stats.samples + stats.failed == 3);
    assert_eq!((stats.samples, stats.retried), (3, 9));
}

#[test]
fn metadata_is_told_to_receivers_of_1_0_only() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let (url, came) =
            serve(|nth, _| if nth == 0 { "500 No\r\n".to_owned() } else { "204 OK\r\n".to_owned() });
        let mut bench = Bench::new(url, protocol);
        let one = |family: &str| FamilyMetadata {
            family: family.to_owned(),
            metadata: Metadata { kind: MetricKind::Counter, help: "Helps.".into(), unit: String::new() },
        };
        let all = vec![one("c"), one("a"), one("b"), one("a")];
        bench.destination.metadata = Some(MetadataOptions {
            source: Arc::new(move || all.clone()),
            every: Duration::from_millis(5),
            per_request: 2,
        });
        let sender = bench.start();
        if protocol == Protocol::V2 {
            assert!(came.recv_timeout(Duration::from_millis(100)).is_err());
            continue;
        }
        let stats = until(&sender, |stats| stats.metadata >= 6);
        assert_eq!((stats.metadata_failed, stats.metadata_retried), (0, 2));
        // Each once, by name, two to a request; the first was sent twice.
        let bodies: Vec<Vec<u8>> = came.iter().take(3).map(|(_, body)| body).collect();
        assert_eq!(bodies[0], bodies[1]);
        assert_eq!(bodies[0], super::metadata::request(&[one("a"), one("b")]));
        assert_eq!(bodies[2], super::metadata::request(&[one("c")]));
    }
}

#[test]
fn a_receiver_says_when_to_come_back() {
    let wait = |text: &'static str, now| {
        retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]), now)
    };
    // RFC 9110's example.
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(wait("17", 0), Some(Duration::from_secs(17)));
    assert_eq!(wait(date, 784_111_770_000), Some(Duration::from_secs(7)));
    assert_eq!(wait(date, 784_111_776_500), Some(Duration::from_millis(500)));
    assert_eq!(wait(date, 784_111_800_000), None, "it is past");
    assert_eq!(wait("soon", 0), None);
    assert_eq!(wait("-5", 0), None);
}
