//! Remote write 1.0 and 2.0: the same requests to us and to the real Prometheus, whose answers ours are compared with,
//! and samples from us to it and back.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use serde_json::Value;

use crate::process::{Server, escape, get, installed};
use crate::prometheus::{Prometheus, newer, now_s};

/// Fields of protobuf messages, as few as a test needs.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
    out
}

pub(crate) fn bytes(number: u64, content: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

pub(crate) fn int(number: u64, value: i64) -> Vec<u8> {
    [varint(number << 3), varint(value.cast_unsigned())].concat()
}

pub(crate) fn double(number: u64, value: f64) -> Vec<u8> {
    [varint(number << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

pub(crate) fn samples(all: &[(i64, f64)]) -> Vec<u8> {
    all.iter().flat_map(|(ts, value)| bytes(2, &[double(1, *value), int(2, *ts)].concat())).collect()
}

/// A series of 1.0.
pub(crate) fn first(labels: &[(&str, &[u8])], more: &[u8]) -> Vec<u8> {
    let label =
        |(name, value): &(&str, &[u8])| bytes(1, &[bytes(1, name.as_bytes()), bytes(2, value)].concat());
    bytes(1, &[labels.iter().flat_map(label).collect(), more.to_vec()].concat())
}

/// A series of 2.0.
fn second(refs: &[u64], more: &[u8]) -> Vec<u8> {
    let refs: Vec<u8> = refs.iter().flat_map(|at| varint(*at)).collect();
    bytes(5, &[bytes(1, &refs), more.to_vec()].concat())
}

fn symbols() -> Vec<u8> {
    ["", "__name__", "c", "x", "1", "Says c."].iter().flat_map(|text| bytes(4, text.as_bytes())).collect()
}

/// An integer histogram of two buckets with an observation and two.
fn histogram(ts: i64) -> Vec<u8> {
    let span = [int(1, 0), int(2, 2)].concat();
    [
        int(1, 3),
        double(3, 5.0),
        double(5, 0.001),
        int(6, 0),
        bytes(11, &span),
        bytes(12, &[2, 2]),
        int(15, ts),
    ]
    .concat()
}

fn exemplar(number: u64, ts: i64) -> Vec<u8> {
    bytes(number, &[bytes(1, &[3, 4]), double(2, 1.0), int(3, ts)].concat())
}

/// Snappy's block format without compression.
pub(crate) fn snappy(message: &[u8]) -> Vec<u8> {
    let mut out = varint(message.len() as u64);
    for part in message.chunks(60_000) {
        out.push(61 << 2);
        out.extend_from_slice(&u16::try_from(part.len() - 1).unwrap().to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// What is compared of an answer: its status, and what it says was written, by kind.
type Answer = (u16, Vec<String>);

fn post(url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(
        stream,
        "POST /api/v1/write HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    // Who refuses by the headers may not read on.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    let status = answer.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let mut written: Vec<String> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("x-prometheus-remote-write-"))
        .map(str::to_owned)
        .collect();
    written.sort();
    (status, written)
}

const CONTENT: &str = "Content-Type";
const ENCODING: &str = "Content-Encoding";
const FIRST: &str = "application/x-protobuf";
const SECOND: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

type Case = (&'static str, Vec<(&'static str, &'static str)>, Vec<u8>);

/// Requests of 1.0, one after the other.
fn first_cases(now: i64) -> Vec<Case> {
    let usual = || vec![(CONTENT, FIRST), (ENCODING, "snappy")];
    let a = |all: &[(i64, f64)]| first(&[("__name__", b"a")], &samples(all));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("good", a(&[(now, 1.0)])),
        ("the same again", a(&[(now, 1.0)])),
        ("another value", a(&[(now, 2.0)])),
        ("out of order", a(&[(now - 9_000, 1.0)])),
        ("too old", first(&[("__name__", b"b")], &samples(&[(now - 10_000_000, 1.0)]))),
        ("too far ahead", first(&[("__name__", b"b")], &samples(&[(now + 3_600_000, 1.0)]))),
        ("unsorted", first(&[("x", b"1"), ("__name__", b"b")], &samples(&[(now, 1.0)]))),
        ("empty", Vec::new()),
        ("metadata", bytes(3, &[int(1, 1), bytes(2, b"a"), bytes(4, b"Says a.")].concat())),
        ("histogram", first(&[("__name__", b"h")], &bytes(4, &histogram(now)))),
        (
            "exemplar",
            first(&[("__name__", b"a")], &[samples(&[(now + 1, 1.0)]), bytes(3, &int(3, now))].concat()),
        ),
        ("garbage", vec![0xff; 4]),
        ("message of 2.0", [symbols(), second(&[1, 2], &samples(&[(now, 1.0)]))].concat()),
    ];
    let mut cases: Vec<Case> =
        cases.into_iter().map(|(what, message)| (what, usual(), snappy(&message))).collect();
    let good = |ts| snappy(&a(&[(ts, 1.0)]));
    cases.push(("no headers", Vec::new(), good(now + 2)));
    cases.push(("not compressed", usual(), vec![0xff; 4]));
    cases
}

/// Requests whose headers alone decide.
fn header_cases(now: i64) -> Vec<Case> {
    let body = |ts| snappy(&first(&[("__name__", b"a")], &samples(&[(ts, 1.0)])));
    vec![
        ("text", vec![(CONTENT, "text/plain"), (ENCODING, "snappy")], body(now)),
        ("no such message", vec![(CONTENT, "application/x-protobuf;proto=x")], body(now)),
        ("no value", vec![(CONTENT, "application/x-protobuf;charset")], body(now)),
        ("another parameter", vec![(CONTENT, "application/x-protobuf;charset=utf-8")], body(now + 3)),
        ("a space", vec![(CONTENT, "application/x-protobuf; proto=prometheus.WriteRequest")], body(now + 4)),
        ("capitals", vec![(CONTENT, "Application/X-Protobuf")], body(now)),
        ("gzip", vec![(CONTENT, FIRST), (ENCODING, "gzip")], body(now)),
        ("a capital", vec![(CONTENT, FIRST), (ENCODING, "Snappy")], body(now + 5)),
    ]
}

/// Requests of 2.0, one after the other.
fn second_cases(now: i64) -> Vec<Case> {
    let c = |more: Vec<u8>| second(&[1, 2], &more);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("good", c([samples(&[(now, 1.0)]), bytes(5, &[int(1, 1), int(3, 5)].concat())].concat())),
        ("the same again", c(samples(&[(now, 1.0)]))),
        ("another value", c(samples(&[(now, 2.0)]))),
        ("created", c([samples(&[(now + 1, 1.0)]), int(6, now - 1000)].concat())),
        ("partly late", c(samples(&[(now - 9_000, 2.0), (now + 2, 1.0)]))),
        ("no name", [second(&[3, 4], &samples(&[(now, 1.0)])), c(samples(&[(now + 3, 1.0)]))].concat()),
        ("a label twice", second(&[1, 2, 3, 4, 3, 4], &samples(&[(now, 1.0)]))),
        ("unsorted", second(&[3, 4, 1, 2], &samples(&[(now, 1.0)]))),
        ("too far ahead", c(samples(&[(now + 3_600_000, 1.0)]))),
        ("too old", second(&[1, 4], &samples(&[(now - 10_000_000, 1.0)]))),
        ("nothing in it", c(Vec::new())),
        ("exemplar alone", c(exemplar(4, now))),
        ("exemplar beside", c([samples(&[(now + 4, 1.0)]), exemplar(4, now + 4)].concat())),
        ("late exemplar", c([samples(&[(now + 5, 1.0)]), exemplar(4, now - 9_000)].concat())),
        ("histogram", second(&[1, 3], &bytes(3, &histogram(now)))),
        ("both", second(&[1, 4], &[samples(&[(now, 1.0)]), bytes(3, &histogram(now + 1))].concat())),
        ("empty", Vec::new()),
        ("garbage", vec![0xff; 4]),
    ];
    let symbols = symbols();
    let usual = || vec![(CONTENT, SECOND), (ENCODING, "snappy")];
    let mut all: Vec<Case> = cases
        .into_iter()
        .map(|(what, message)| {
            let with = !matches!(what, "empty" | "garbage");
            let symbols = if with { symbols.as_slice() } else { &[] };
            (what, usual(), snappy(&[symbols, &message].concat()))
        })
        .collect();
    all.push(("message of 1.0", usual(), snappy(&first(&[("__name__", b"a")], &samples(&[(now, 1.0)])))));
    all
}

/// Where we differ, with our status and theirs: a request of 1.0 that repeats what is there is taken by us, since
/// senders repeat; and 2.42 did not look at the future yet.
const DIFFERENT: [(&str, u16, u16); 2] = [("the same again", 204, 400), ("too far ahead", 400, 204)];

fn compare(ours: &Server, theirs: &Prometheus, cases: Vec<Case>) {
    for (what, headers, body) in cases {
        let (mine, real) = (post(&ours.url, &headers, &body), post(&theirs.url, &headers, &body));
        if mine != real {
            assert!(DIFFERENT.contains(&(what, mine.0, real.0)), "{what}: {mine:?}, {real:?}");
        }
    }
}

fn ours(dir: &Path, flags: &[&str]) -> Server {
    let flags: Vec<&str> =
        ["--kubernetes=off", "--web.enable-remote-write-receiver"].iter().chain(flags).copied().collect();
    Server::start(dir, &flags)
}

const THEIR_FLAGS: [&str; 2] =
    ["--web.enable-remote-write-receiver", "--enable-feature=exemplar-storage,native-histograms"];

#[test]
fn requests_are_answered_as_prometheus_answers_them() {
    let installed = installed("prometheus").then(|| "prometheus".to_owned());
    for program in installed.into_iter().chain(newer()) {
        let dir = tempfile::tempdir().unwrap();
        let theirs = Prometheus::start_of(&program, &dir.path().join("theirs"), "", &THEIR_FLAGS);
        let ours = ours(dir.path(), &[]);
        let now = now_s() * 1000;
        compare(&ours, &theirs, first_cases(now));
        // 2.42 looks at no header and knows no 2.0.
        if program != "prometheus" {
            compare(&ours, &theirs, header_cases(now));
            compare(&ours, &theirs, second_cases(now));
        }
    }
}

#[test]
fn messages_that_are_not_accepted_are_415() {
    let dir = tempfile::tempdir().unwrap();
    let flag = "--web.remote-write-receiver.accepted-protobuf-messages=prometheus.WriteRequest";
    let server = ours(dir.path(), &[flag]);
    let now = now_s() * 1000;
    let answers: Vec<u16> = [first_cases(now).remove(0), second_cases(now).remove(0)]
        .iter()
        .map(|(_, headers, body)| post(&server.url, headers, body).0)
        .collect();
    assert_eq!(answers, [204, 415]);
}

/// Rows of a query, sorted.
fn rows(url: &str, query: &str) -> Vec<Value> {
    let (_, body) = get(&format!("{url}/api/v1/query?query={}", escape(query)), &[]);
    let answer: Value = serde_json::from_str(&body).unwrap_or_default();
    let mut rows = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    rows.sort_by_key(|row| row["metric"].to_string());
    rows
}

fn config(sender: &str, receiver: &str, target: &str) -> String {
    format!(
        "global: {{external_labels: {{from: {sender}}}}}\nscrape_configs:\n- job_name: it\n  scrape_interval: 1s\n  \
         static_configs: [{{targets: ['{target}']}}]\nremote_write:\n- url: {receiver}/api/v1/write\n  \
         protobuf_message: io.prometheus.write.v2.Request\n  send_native_histograms: true\n  \
         send_exemplars: true\n  queue_config: {{batch_send_deadline: 200ms}}\n"
    )
}

/// 2.0 from us to Prometheus and to ourselves, and from Prometheus to us, all of it, with what metrics mean.
#[test]
fn the_second_version_goes_both_ways() {
    let Some(program) = newer() else { return };
    let dir = tempfile::tempdir().unwrap();
    let receiver = ours(&dir.path().join("receiver"), &[]);
    let theirs = Prometheus::start_of(&program, &dir.path().join("theirs"), "", &THEIR_FLAGS);
    let target = theirs.url.strip_prefix("http://").unwrap();
    let path = dir.path().join("sender.yml");
    let both = config("us", &receiver.url, target)
        + &format!(
            "- url: {}/api/v1/write\n  protobuf_message: io.prometheus.write.v2.Request\n",
            theirs.url
        );
    std::fs::write(&path, both).unwrap();
    let flag = format!("--config.file={}", path.display());
    let flags = ["--kubernetes=off", "--enable-feature=metadata-wal-records", &flag];
    let sender = Server::start(&dir.path().join("sender"), &flags);
    let text = config("them", &receiver.url, target);
    let metadata = ["--enable-feature=metadata-wal-records"];
    let second = Prometheus::start_of(&program, &dir.path().join("second"), &text, &metadata);

    let all = "count({job=\"it\", from=";
    receiver.wait_for_rows(&format!("{all}\"us\"}}) > 100"));
    receiver.wait_for_rows(&format!("{all}\"them\"}}) > 100"));
    sender.wait_for("samples at Prometheus", |_| {
        (!rows(&theirs.url, &format!("{all}\"us\"}}) > 100")).is_empty()).then_some(())
    });
    for from in ["us", "them"] {
        let query = format!("prometheus_build_info{{from=\"{from}\"}}");
        assert_eq!(rows(&receiver.url, &query).len(), 1, "{from}");
    }
    // Every series of a scrape is there, with its name and labels.
    let names = |url: &str, from: &str| -> Vec<String> {
        let labels = |row: &Value| {
            let mut labels = row["metric"].as_object().unwrap().clone();
            labels.remove("from");
            serde_json::to_string(&labels).unwrap()
        };
        rows(url, &format!("{{__name__=~\"go_.+|process_.+\", job=\"it\"{from}}}"))
            .iter()
            .map(labels)
            .collect()
    };
    let own = names(&sender.url, "");
    assert!(own.len() > 30);
    for url in [&receiver.url, &theirs.url] {
        assert_eq!(names(url, ", from=\"us\""), own, "{url}");
    }
    let (_, metrics) = sender.get("/metrics");
    let failed =
        metrics.lines().filter(|line| line.starts_with("prometheus_remote_storage_samples_failed_total{"));
    assert!(failed.clone().count() == 2 && failed.clone().all(|line| line.ends_with(" 0")), "{metrics}");
    // Prometheus counts what we say that we have written.
    let (_, metrics) = get(&format!("{}/metrics", second.url), &[]);
    let failed =
        metrics.lines().find(|line| line.starts_with("prometheus_remote_storage_samples_failed_total{"));
    assert!(failed.unwrap().ends_with(" 0"), "{failed:?}");
    assert_eq!(sender.interrupt(), Some(0));
    theirs.stop();
    second.stop();
}

/// What comes late is sent on, too.
#[test]
fn late_samples_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    let late = "storage: {tsdb: {out_of_order_time_window: 1h}}\n";
    let path = dir.path().join("receiver.yml");
    std::fs::write(&path, late).unwrap();
    let flag = format!("--config.file={}", path.display());
    let receiver = ours(&dir.path().join("receiver"), &[&flag]);
    let path = dir.path().join("sender.yml");
    let text = format!(
        "{late}remote_write:\n- url: {}/api/v1/write\n  queue_config: {{batch_send_deadline: 200ms}}\n",
        receiver.url
    );
    std::fs::write(&path, text).unwrap();
    let flag = format!("--config.file={}", path.display());
    let sender = ours(&dir.path().join("sender"), &[&flag]);
    let now = now_s() * 1000;
    let headers = [(CONTENT, FIRST), (ENCODING, "snappy")];
    let labels: &[(&str, &[u8])] = &[("__name__", b"late"), ("instance", b"a")];
    for ts in [now, now - 600_000] {
        let body = snappy(&first(labels, &samples(&[(ts, 7.0)])));
        let answer = post(&sender.url, &headers, &body);
        assert_eq!(answer.0, 204, "{answer:?}");
    }
    receiver.wait_for_rows("count_over_time(late{instance=\"a\"}[15m]) == 2");
    assert_eq!(sender.interrupt(), Some(0));
}

/// A receiver that wants to know who sends: the certificate is another one without a restart.
#[test]
fn certificates_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let pems = concat!(env!("CARGO_MANIFEST_DIR"), "/scraper/src/testdata");
    let web = dir.path().join("web.yml");
    let text = format!(
        "tls_server_config:\n  cert_file: {pems}/server.pem\n  key_file: {pems}/server.key\n  \
         client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {pems}/ca.pem\n"
    );
    std::fs::write(&web, text).unwrap();
    let receiver = ours(&dir.path().join("receiver"), &[&format!("--web.config.file={}", web.display())]);
    let give = |name: &str| {
        for kind in ["pem", "key"] {
            let to = dir.path().join(format!("own.{kind}"));
            std::fs::copy(format!("{pems}/{name}.{kind}"), to).unwrap();
        }
    };
    // Nobody that the receiver trusts has signed this one.
    give("node");
    let config = dir.path().join("sender.yml");
    let text = format!(
        "global: {{external_labels: {{from: sender}}}}\nremote_write:\n- url: {}/api/v1/write\n  tls_config: {{cert_file: own.pem, key_file: own.key, \
         insecure_skip_verify: true}}\n  queue_config: {{batch_send_deadline: 100ms, max_backoff: 200ms}}\n",
        receiver.url
    );
    std::fs::write(&config, text).unwrap();
    let flag = format!("--config.file={}", config.display());
    let sender =
        Server::start(&dir.path().join("sender"), &["--kubernetes=off", "--scrape.built-in=on", &flag]);
    let figure = |server: &Server, name: &str| -> f64 {
        let (_, page) = server.get("/metrics");
        let line = page.lines().find(|line| line.starts_with(&format!("{name}{{")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    };
    let taken = "prometheus_remote_storage_samples_total";
    sender.wait_for("refusals", |server| {
        (figure(server, "prometheus_remote_storage_samples_retried_total") > 0.0).then_some(())
    });
    assert_eq!(figure(&sender, taken), 0.0);
    give("client");
    sender.wait_for("samples to be taken", |server| (figure(server, taken) > 0.0).then_some(()));
    assert_eq!(figure(&sender, "prometheus_remote_storage_samples_failed_total"), 0.0);
}
