//! The whole scraper against small servers on the loopback interface.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use model::{Matcher, Querier as _, Samples, Selection, TimeRange, is_stale_nan};

mod discovered;
mod encrypted;

use super::*;
use crate::config::{Auth, Secret, TargetGroup};

const INTERVAL_MS: i64 = 160;
const TEXT: &str = "text/plain; version=0.0.4";

/// A target whose page can be changed.
struct Page {
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
    gzip: bool,
    delay: Duration,
}

struct Exporter {
    address: String,
    page: Arc<Mutex<Page>>,
    requests: Arc<Mutex<Vec<HeaderMap>>>,
    connections: Arc<AtomicUsize>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Shown = (Arc<Mutex<Page>>, Arc<Mutex<Vec<HeaderMap>>>);

async fn show(State((page, requests)): State<Shown>, headers: HeaderMap) -> Response {
    requests.lock().push(headers);
    let delay = page.lock().delay;
    tokio::time::sleep(delay).await;
    let page = page.lock();
    let mut response =
        (page.status, [("content-type", page.content_type)], page.body.clone()).into_response();
    if page.gzip {
        response.headers_mut().insert("content-encoding", axum::http::HeaderValue::from_static("gzip"));
    }
    response
}

impl Exporter {
    async fn start(body: &str) -> Self {
        let page = Page {
            status: StatusCode::OK,
            content_type: TEXT,
            body: body.as_bytes().to_vec(),
            gzip: false,
            delay: Duration::ZERO,
        };
        let (page, requests) = (Arc::new(Mutex::new(page)), Arc::default());
        let router =
            Router::new().route("/metrics", get(show)).with_state((Arc::clone(&page), Arc::clone(&requests)));
        Self::serve(router, page, requests).await
    }

    async fn serve(router: Router, page: Arc<Mutex<Page>>, requests: Arc<Mutex<Vec<HeaderMap>>>) -> Self {
        use axum::serve::ListenerExt as _;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let listener = listener.tap_io(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { address, page, requests, connections, server }
    }

    fn set(&self, body: &str) {
        self.page.lock().body = body.as_bytes().to_vec();
    }

    fn requests(&self) -> usize {
        self.requests.lock().len()
    }
}

/// A scraper with a store of its own.
struct Bench {
    _dir: tempfile::TempDir,
    db: Arc<tsdb::Db>,
    handle: Handle,
}

fn clock() -> config::Clock {
    Arc::new(|| i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

fn job(name: &str, addresses: &[&str]) -> ScrapeJob {
    let mut job = ScrapeJob::new(name);
    (job.interval_ms, job.timeout_ms) = (INTERVAL_MS, INTERVAL_MS - 10);
    job.targets = vec![TargetGroup::of_addresses(addresses, model::Labels::empty())];
    job
}

fn config(jobs: Vec<ScrapeJob>) -> Config {
    Config { jobs, first_scrape_within_ms: 1, ..Config::new(clock()) }
}

impl Bench {
    fn start(jobs: Vec<ScrapeJob>) -> Self {
        Self::start_with(config(jobs))
    }

    fn start_with(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keeps = if config.stores_start_times { tsdb::FloatChunks::Xor2 } else { tsdb::FloatChunks::Xor };
        let options = tsdb::Options { float_chunks: keeps, ..tsdb::Options::default() };
        let db = Arc::new(tsdb::Db::open(dir.path(), options).unwrap());
        let handle = start(config, Arc::clone(&db), Shutdown::new()).unwrap();
        Self { _dir: dir, db, handle }
    }

    /// All samples of the series with this name, by labels without the name.
    fn read(&self, name: &str) -> BTreeMap<String, Vec<(i64, f64)>> {
        let snapshot = self.db.snapshot();
        let matchers = [Matcher::equal("__name__", name)];
        let set = snapshot.select(&Selection::new(&matchers, TimeRange::ALL)).unwrap();
        let mut out = BTreeMap::new();
        for at in 0..set.len() {
            let mut samples = Samples::default();
            set.samples(at, TimeRange::ALL, &mut samples).unwrap();
            let points = samples.ts.iter().copied().zip(samples.values.iter().copied()).collect();
            out.insert(
                set.labels(at).filtered(|label| !["__name__", "instance"].contains(&label)).to_string(),
                points,
            );
        }
        out
    }

    /// Values of the only series with this name; a staleness marker is `None`.
    fn values(&self, name: &str) -> Vec<Option<f64>> {
        let all = self.read(name);
        assert!(all.len() <= 1, "{all:?}");
        let points = all.into_values().next().unwrap_or_default();
        points.into_iter().map(|(_, value)| (!is_stale_nan(value)).then_some(value)).collect()
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..500 {
            if done(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "{what} did not come; targets: {:#?}, stats {:#?}",
            self.handle.targets(),
            self.handle.stats()
        );
    }

    async fn until_scraped(&self, more: u64) {
        let before = self.handle.stats().scrapes;
        self.until("a scrape", |bench| bench.handle.stats().scrapes >= before + more).await;
    }

    fn error(&self) -> String {
        self.handle.targets().active[0].last_error.clone().unwrap_or_default()
    }
}

#[tokio::test]
async fn samples_are_stored_with_the_target_s_labels() {
    let exporter = Exporter::start("# TYPE a counter\n# HELP a An a.\na{job=\"x\",b=\"c\"} 1\n").await;
    let bench = Bench::start(vec![job("j", &[&exporter.address])]);
    bench.until_scraped(3).await;
    let a = bench.read("a");
    assert_eq!(a.keys().collect::<Vec<_>>(), [r#"{b="c", exported_job="x", job="j"}"#]);
    let points = a.into_values().next().unwrap();
    assert!(points.len() >= 3 && points.iter().all(|(_, value)| *value == 1.0));
    assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(bench.values("up").iter().all(|value| *value == Some(1.0)));
    assert_eq!(bench.values("scrape_samples_scraped")[0], Some(1.0));
    assert_eq!(bench.values("scrape_samples_post_metric_relabeling")[0], Some(1.0));
    assert_eq!(bench.values("scrape_series_added")[..2], [Some(1.0), Some(0.0)]);
    assert!(bench.values("scrape_duration_seconds")[0].unwrap() < 1.0);
    assert!(bench.values("scrape_body_size_bytes").is_empty());
    let target = bench.handle.targets().active.remove(0);
    assert_eq!((target.health, target.last_samples, target.series), (Health::Up, 1, 1));
    assert_eq!(target.url, format!("http://{}/metrics", exporter.address));
    let metadata = bench.handle.metadata().remove(0).families.remove(0);
    assert_eq!((metadata.family.as_str(), metadata.help.as_str()), ("a", "An a."));
    // One connection for all scrapes, and the headers that targets expect.
    assert_eq!(exporter.connections.load(Ordering::Relaxed), 1);
    let headers = exporter.requests.lock()[0].clone();
    assert_eq!(headers["x-prometheus-scrape-timeout-seconds"], "0.15");
    assert_eq!(headers["accept-encoding"], "zstd,gzip;q=0.9");
    assert!(headers["accept"].to_str().unwrap().starts_with("application/openmetrics-text;version=1.0.0"));
    bench.handle.stop().await;
    let requests = exporter.requests();
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(exporter.requests(), requests);
    assert!(bench.values("up").iter().all(Option::is_some), "no markers on shutdown");
}

#[tokio::test]
async fn series_that_are_gone_are_marked_stale() {
    let exporter = Exporter::start("a 1\nb 2\nc 3 1000\n").await;
    let bench = Bench::start(vec![job("j", &[&exporter.address])]);
    bench.until_scraped(2).await;
    exporter.set("b 2\n");
    bench.until("a marker", |bench| bench.values("a").last() == Some(&None)).await;
    bench.until_scraped(2).await;
    assert_eq!(bench.values("a").iter().filter(|value| value.is_none()).count(), 1);
    assert!(bench.values("b").iter().all(Option::is_some));
    assert!(bench.values("c").iter().all(Option::is_some), "a series with timestamps is not marked");
    exporter.set("b 2\na 5\n");
    bench.until("the series", |bench| bench.values("a").last() == Some(&Some(5.0))).await;
}

#[tokio::test]
async fn a_failed_scrape_ends_all_series_and_is_recorded() {
    let exporter = Exporter::start("a 1\n").await;
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("failures.log");
    let bench =
        Bench::start(vec![ScrapeJob { failure_log: Some(log.clone()), ..job("j", &[&exporter.address]) }]);
    bench.until_scraped(2).await;
    assert!(!log.exists());
    exporter.page.lock().status = StatusCode::INTERNAL_SERVER_ERROR;
    let expected = "server returned HTTP status 500 Internal Server Error";
    bench.until("the error", |bench| bench.error() == expected).await;
    assert_eq!(bench.values("up").last(), Some(&Some(0.0)));
    assert_eq!(bench.values("a").last(), Some(&None));
    assert_eq!(bench.handle.targets().active[0].health, Health::Down);
    let logged = std::fs::read_to_string(&log).unwrap();
    let line: serde_json::Value = serde_json::from_str(logged.lines().next().unwrap()).unwrap();
    assert_eq!((&line["msg"], &line["job_name"]), (&expected.into(), &"j".into()));
    exporter.page.lock().status = StatusCode::OK;
    bench.until("up = 1", |bench| bench.values("up").last() == Some(&Some(1.0))).await;
    assert_eq!(bench.values("a").last(), Some(&Some(1.0)));
}

#[tokio::test]
async fn nothing_of_a_garbage_page_is_stored() {
    let exporter = Exporter::start("a 1\nb 2\nnot a metric\n").await;
    let bench = Bench::start(vec![job("j", &[&exporter.address])]);
    bench.until_scraped(1).await;
    assert!(bench.error().starts_with("line 3: "), "{}", bench.error());
    assert!(bench.read("a").is_empty() && bench.read("b").is_empty());
    assert_eq!(bench.values("up")[0], Some(0.0));
    exporter.set("a 1\na{x=\"1\",x=\"2\"} 1\n");
    bench.until("the error", |bench| bench.error().contains("is not unique")).await;
    assert!(bench.read("a").is_empty());
    exporter.page.lock().content_type = "text/html";
    bench.until("the error", |bench| bench.error().contains("unsupported Content-Type")).await;
}

#[tokio::test]
async fn limits_refuse_whole_pages() {
    let exporter = Exporter::start("a 1\nb{c=\"dddd\"} 2\n").await;
    let limited = |name: &str, set: fn(&mut config::Limits)| {
        let mut job = job(name, &[&exporter.address]);
        set(&mut job.limits);
        job
    };
    let bench = Bench::start(vec![
        limited("fits", |limits| (limits.samples_max, limits.labels_max, limits.body_bytes_max) = (2, 4, 19)),
        limited("samples", |limits| limits.samples_max = 1),
        limited("body", |limits| limits.body_bytes_max = 17),
        limited("labels", |limits| limits.labels_max = 3),
        limited("value", |limits| limits.label_value_bytes_max = 3),
    ]);
    bench
        .until("all", |bench| bench.handle.targets().active.iter().all(|it| it.health != Health::Unknown))
        .await;
    let errors: Vec<String> =
        bench.handle.targets().active.iter().map(|it| it.last_error.clone().unwrap_or_default()).collect();
    for (error, expected) in errors.iter().zip([
        "",
        "sample limit exceeded",
        "body size limit exceeded",
        "label_limit exceeded",
        "label_value_length_limit exceeded",
    ]) {
        assert!(error.starts_with(expected) && error.is_empty() == expected.is_empty(), "{errors:?}");
    }
    assert_eq!(bench.read("a").keys().collect::<Vec<_>>(), [r#"{job="fits"}"#]);
    assert_eq!(bench.read("up").len(), 5);
    let stats = bench.handle.stats();
    assert!(
        stats.exceeded_sample_limit > 0 && stats.exceeded_body_size > 0 && stats.exceeded_label_limit > 0
    );
}

#[tokio::test]
async fn beyond_the_limit_known_series_can_be_kept() {
    let exporter = Exporter::start("a 1\nb 2\n").await;
    let mut job = job("j", &[&exporter.address]);
    (job.limits.samples_max, job.limits.keeps_known) = (3, true);
    let bench = Bench::start(vec![job]);
    bench.until_scraped(2).await;
    exporter.set("a 1\nnew1 1\nnew2 2\nb 2\nnew3 3\n");
    bench.until("the first new series", |bench| !bench.read("new1").is_empty()).await;
    bench.until_scraped(2).await;
    assert!(bench.read("new2").is_empty() && bench.read("new3").is_empty());
    assert_eq!(bench.values("b").last(), Some(&Some(2.0)));
    assert_eq!(bench.values("up").last(), Some(&Some(1.0)));
    assert!(bench.handle.stats().exceeded_sample_limit > 0);
    // Room that becomes free is used.
    exporter.set("a 1\nnew2 2\nb 2\n");
    bench.until("the second new series", |bench| !bench.read("new2").is_empty()).await;
}

#[tokio::test]
async fn what_pages_say_of_families_is_stored_where_that_is_wanted() {
    let page =
        "# TYPE a counter\n# HELP a An a.\na_total 5\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nb 2\n";
    let exporter = Exporter::start(page).await;
    let bench =
        Bench::start_with(Config { stores_metadata: true, ..config(vec![job("j", &[&exporter.address])]) });
    bench.until_scraped(2).await;
    let of = |name: &str| {
        let found = bench.db.metadata(&[Matcher::equal("__name__", name)]);
        found.into_iter().map(|(_, metadata)| (metadata.kind, metadata.help)).next()
    };
    assert_eq!(of("a_total"), Some((tsdb::MetricKind::Counter, "An a.".to_owned())));
    assert_eq!(of("h_bucket"), Some((tsdb::MetricKind::Histogram, String::new())));
    assert_eq!(of("b"), None);
}

#[tokio::test]
async fn start_times_are_stored_instead_of_series_where_that_is_wanted() {
    let page = "# TYPE a counter\na_total{x=\"1\"} 5\na_created{x=\"1\"} 1000.5\na_total{x=\"2\"} 6\n# EOF\n";
    let exporter = Exporter::start(page).await;
    exporter.page.lock().content_type = "application/openmetrics-text; version=1.0.0";
    let jobs = || vec![job("j", &[&exporter.address])];
    let with = Bench::start_with(Config { stores_start_times: true, ..config(jobs()) });
    with.until_scraped(2).await;
    let without = Bench::start_with(config(jobs()));
    without.until_scraped(2).await;
    assert_eq!((with.read("a_created").len(), without.read("a_created").len()), (0, 1));
    let starts = |bench: &Bench| {
        let snapshot = bench.db.snapshot();
        let matchers = [Matcher::equal("__name__", "a_total"), Matcher::equal("x", "1")];
        let set = snapshot.select(&Selection::new(&matchers, TimeRange::ALL)).unwrap();
        let mut samples = Samples::default();
        set.samples(0, TimeRange::ALL, &mut samples).unwrap();
        samples.start_ts
    };
    assert!(starts(&without).is_empty());
    assert!(starts(&with).iter().all(|start| *start == 1_000_500), "{:?}", starts(&with));
    assert!(starts(&with).len() >= 2);
}

#[tokio::test]
async fn examples_are_stored() {
    let exporter = Exporter::start(
        "# TYPE a counter\na_total{x=\"1\"} 5 # {trace_id=\"t1\"} 0.5 1000.5\na_total{x=\"2\"} 6 # {trace_id=\"t2\"} 0.7\n# EOF\n",
    )
    .await;
    exporter.page.lock().content_type = "application/openmetrics-text; version=1.0.0";
    let bench = Bench::start(vec![job("j", &[&exporter.address])]);
    bench.until_scraped(2).await;
    let selector = vec![vec![Matcher::equal("__name__", "a_total")]];
    let found = bench.db.exemplars(&selector, TimeRange::ALL);
    assert_eq!(found.len(), 2, "{found:?}");
    let of = |x: &str| found.iter().find(|(labels, _)| labels.get("x") == Some(x)).unwrap().1.clone();
    let first = of("1");
    assert_eq!((first.len(), first[0].ts, first[0].value), (1, 1_000_500, 0.5));
    assert_eq!(first[0].labels.get("trace_id"), Some("t1"));
    // Without a time of its own it has that of its sample.
    let sample =
        bench.read("a_total").into_iter().find(|(labels, _)| labels.contains("x=\"2\"")).unwrap().1[0];
    assert_eq!((of("2")[0].ts, of("2")[0].value), (sample.0, 0.7));
}

/// A `Histogram` message with a native bucket and examples, as `(value, seconds)`.
fn native_page(own: &[(f64, Option<i64>)], of_bucket: (f64, Option<i64>)) -> Vec<u8> {
    fn length(bytes: &[u8]) -> [u8; 2] {
        [u8::try_from(bytes.len() & 0x7f | 0x80).unwrap(), u8::try_from(bytes.len() >> 7).unwrap()]
    }
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2][..], &length(bytes), bytes].concat()
    }
    fn double(number: u8, value: f64) -> Vec<u8> {
        [&[number << 3 | 1], &value.to_le_bytes()[..]].concat()
    }
    let example = |(value, seconds): (f64, Option<i64>)| {
        let label = [field(1, b"trace_id"), field(2, value.to_string().as_bytes())].concat();
        let seconds = seconds.map(|seconds| field(3, &[8, u8::try_from(seconds).unwrap()]));
        [field(1, &label), double(2, value), seconds.unwrap_or_default()].concat()
    };
    let bucket = [vec![8, 1], double(2, 1.0), field(3, &example(of_bucket))].concat();
    let mut histogram = [vec![8, 1], double(2, 0.5), field(3, &bucket), vec![5 << 3, 0]].concat();
    histogram.extend([field(12, &[8, 0, 16, 1]), field(13, &[2])].concat());
    // Fields beyond 15 have keys of two bytes.
    histogram.extend(own.iter().flat_map(|it| [&[0x82, 0x01], &field(0, &example(*it))[1..]].concat()));
    let family = [field(1, b"h"), vec![3 << 3, 4], field(4, &field(7, &histogram))].concat();
    [&length(&family)[..], &family].concat()
}

#[tokio::test]
async fn examples_of_native_histograms_are_stored() {
    let kind = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    let classic = "# TYPE h histogram\nh_bucket{le=\"1\"} 1 # {trace_id=\"7\"} 7 100\nh_bucket{le=\"+Inf\"} 2 # {a=\"b\"} 9\nh_count 2\nh_sum 3\n# EOF\n";
    let open_metrics = "application/openmetrics-text; version=1.0.0";
    // Those without a time are left out; the others are brought into the order of their times.
    let own = native_page(&[(3.0, Some(120)), (2.0, None), (1.0, Some(110))], (9.0, Some(100)));
    for (page, kind, convert, wanted) in [
        (own, kind, false, vec![(110_000, 1.0), (120_000, 3.0)]),
        (native_page(&[], (9.0, Some(100))), kind, false, vec![(100_000, 9.0)]),
        (native_page(&[], (9.0, None)), kind, false, vec![]),
        (classic.as_bytes().to_vec(), open_metrics, true, vec![(100_000, 7.0)]),
    ] {
        let exporter = Exporter::start("").await;
        {
            let mut shown = exporter.page.lock();
            (shown.body, shown.content_type) = (page, kind);
        }
        let mut job = job("j", &[&exporter.address]);
        (job.histograms.native, job.histograms.convert_classic) = (true, convert);
        let bench = Bench::start(vec![job]);
        bench.until_scraped(2).await;
        let selector = vec![vec![Matcher::equal("__name__", "h")]];
        let found = bench.db.exemplars(&selector, TimeRange::ALL);
        let found: Vec<_> =
            found.iter().flat_map(|(_, all)| all.iter().map(|it| (it.ts, it.value))).collect();
        assert_eq!(found, wanted, "{kind}");
    }
}

/// Tiny lines cost more memory than bytes: their number is bounded too, and nothing of such a page is stored.
#[tokio::test]
async fn a_page_of_endless_tiny_lines_is_refused() {
    let exporter = Exporter::start(&"a 1\n".repeat(4_000_001)).await;
    let mut job = job("j", &[&exporter.address]);
    (job.interval_ms, job.timeout_ms) = (60_000, 60_000);
    let bench = Bench::start(vec![job]);
    // Without optimization it takes a while to get that far.
    for _ in 0..6_000 {
        if !bench.error().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(bench.error().contains("samples on one page"), "{}", bench.error());
    assert!(bench.read("a").is_empty());
}

#[tokio::test]
async fn too_many_targets_fail_all() {
    let exporter = Exporter::start("a 1\n").await;
    let mut job = job("j", &[&exporter.address, "127.0.0.1:1"]);
    job.limits.targets_max = 1;
    let bench = Bench::start(vec![job]);
    bench.until_scraped(2).await;
    assert!(bench.error().starts_with("target_limit exceeded (number of targets: 2, limit: 1)"));
    assert_eq!(exporter.requests(), 0);
}

#[tokio::test]
async fn of_dropped_targets_so_many_are_shown_as_are_wanted() {
    let mut job = job("j", &["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
    let drop = relabel::RuleSpec { action: relabel::Action::Drop, ..relabel::RuleSpec::default() };
    job.relabel = vec![relabel::Rule::new(drop, config::NameScheme::Utf8).unwrap()];
    for (kept_max, shown) in [(2, 2), (0, 3)] {
        job.limits.dropped_targets_kept_max = kept_max;
        let targets = Bench::start(vec![job.clone()]).handle.targets();
        // All of them are counted in any case.
        assert_eq!((targets.dropped.len(), &targets.dropped_counts[..]), (shown, &[("j".to_owned(), 3)][..]));
    }
}

#[tokio::test]
async fn a_slow_or_endless_target_harms_only_itself() {
    let slow = Exporter::start("a 1\n").await;
    slow.page.lock().delay = Duration::from_secs(30);
    let page = Arc::clone(&slow.page);
    let endless = Router::new().route(
        "/metrics",
        get(|| async {
            let lines = futures::stream::repeat_with(|| Ok::<_, std::io::Error>("a 1\n".repeat(100)));
            ([("content-type", TEXT)], Body::from_stream(lines)).into_response()
        }),
    );
    let endless = Exporter::serve(endless, page, Arc::default()).await;
    let good = Exporter::start("good 1\n").await;
    let bench = Bench::start(vec![
        job("slow", &[&slow.address]),
        job("endless", &[&endless.address]),
        job("dead", &["127.0.0.1:1"]),
        job("good", &[&good.address]),
    ]);
    bench
        .until("all", |bench| bench.handle.targets().active.iter().all(|it| it.health != Health::Unknown))
        .await;
    let targets = bench.handle.targets().active;
    assert!(targets[0].last_error.as_deref().unwrap().contains("context deadline exceeded"));
    assert!(targets[1].last_error.as_deref().unwrap().contains("deadline"));
    assert!(targets[2].last_error.as_deref().unwrap().contains("refused"));
    bench.until("the good one", |bench| bench.handle.targets().active[3].health == Health::Up).await;
    bench.until("good ones", |bench| bench.values("good").len() > 3).await;
    assert!(bench.read("a").is_empty());
}

#[tokio::test]
async fn compressed_pages_are_read() {
    use std::io::Write as _;
    let exporter = Exporter::start("").await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"a 7\n").unwrap();
    exporter.page.lock().body = encoder.finish().unwrap();
    exporter.page.lock().gzip = true;
    let mut job = job("j", &[&exporter.address]);
    job.extra_metrics = true;
    let bench = Bench::start(vec![job]);
    bench.until_scraped(2).await;
    assert_eq!(bench.values("a")[..2], [Some(7.0), Some(7.0)]);
    assert_eq!(bench.values("scrape_body_size_bytes")[0], Some(4.0));
    assert_eq!(bench.values("scrape_timeout_seconds")[0], Some(0.15));
    exporter.page.lock().body = b"no gzip".to_vec();
    bench.until("the error", |bench| bench.error().starts_with("gzip: ")).await;
}

#[tokio::test]
async fn timestamps_are_honoured_or_not() {
    let now = clock()() - 5_000;
    let exporter = Exporter::start(&format!("a 1 {now}\nb 1 {}\n", now + 3_600_000)).await;
    let ignoring = ScrapeJob { honor_timestamps: false, ..job("ignoring", &[&exporter.address]) };
    let bench = Bench::start(vec![job("honoring", &[&exporter.address]), ignoring]);
    bench.until("both", |bench| bench.read("b").len() == 1 && bench.read("a").len() == 2).await;
    bench.until_scraped(4).await;
    let a = bench.read("a");
    assert_eq!(a[r#"{job="honoring"}"#], [(now, 1.0)]);
    assert!(a[r#"{job="ignoring"}"#].len() > 1);
    assert!(bench.read("b").contains_key(r#"{job="ignoring"}"#), "too far ahead for the other");
    assert!(bench.handle.stats().samples_out_of_bounds > 0);
}

#[tokio::test]
async fn metric_relabelling_drops_and_renames() {
    use crate::relabel::{Action, Rule, RuleSpec};
    let exporter = Exporter::start("a 1\nb 2\n").await;
    let rule = |action, regex: &str, target: &str, replacement: Option<&str>| {
        let spec = RuleSpec {
            source_labels: vec!["__name__".into()],
            regex: Some(regex.into()),
            target_label: target.into(),
            replacement: replacement.map(str::to_owned),
            action,
            ..RuleSpec::default()
        };
        Rule::new(spec, config::NameScheme::Utf8).unwrap()
    };
    let mut job = job("j", &[&exporter.address]);
    job.metric_relabel =
        vec![rule(Action::Drop, "a", "", None), rule(Action::Replace, "b", "__name__", Some("c"))];
    let bench = Bench::start(vec![job]);
    bench.until_scraped(2).await;
    assert!(bench.read("a").is_empty() && bench.read("b").is_empty());
    assert_eq!(bench.values("c")[0], Some(2.0));
    assert_eq!(bench.values("scrape_samples_scraped")[1], Some(2.0));
    assert_eq!(bench.values("scrape_samples_post_metric_relabeling")[1], Some(1.0));
}

#[tokio::test]
async fn a_reload_leaves_unchanged_targets_alone_and_ends_removed_ones() {
    let (kept, removed) = (Exporter::start("a 1\n").await, Exporter::start("b 1\n").await);
    let keep = job("keep", &[&kept.address]);
    let bench = Bench::start(vec![keep.clone(), job("remove", &[&removed.address])]);
    bench.until_scraped(4).await;
    bench.handle.reload(config(vec![keep, job("new", &[&kept.address])])).unwrap();
    assert_eq!(bench.handle.targets().active.len(), 2);
    bench.until("the marker", |bench| bench.values("b").last() == Some(&None)).await;
    let up = bench.read("up");
    let (last, value) = *up[r#"{job="remove"}"#].last().unwrap();
    assert!(is_stale_nan(value));
    let before = up[r#"{job="remove"}"#].iter().rev().nth(1).unwrap().0;
    assert_eq!(last - before, INTERVAL_MS, "one interval after the last scrape");
    assert!(up[r#"{job="keep"}"#].iter().all(|(_, value)| *value == 1.0));
    assert_eq!(kept.connections.load(Ordering::Relaxed), 2, "one for each job");
    assert_eq!(
        bench.handle.reload(config(vec![job("x", &[]), job("x", &[])])),
        Err(ConfigError::DuplicateJob("x".into()))
    );
    assert_eq!(bench.handle.stats().reloads, 1);
}

#[tokio::test]
async fn a_reload_changes_relabelling_and_interval_of_running_targets() {
    use crate::relabel::{Action, Rule, RuleSpec};
    let exporter = Exporter::start("a 1\nb 2\n").await;
    let mut job = job("j", &[&exporter.address]);
    let bench = Bench::start(vec![job.clone()]);
    bench.until_scraped(2).await;
    let spec = RuleSpec {
        source_labels: vec!["__name__".into()],
        regex: Some("a".into()),
        action: Action::Drop,
        ..RuleSpec::default()
    };
    job.metric_relabel = vec![Rule::new(spec, config::NameScheme::Utf8).unwrap()];
    job.interval_ms = 3_600_000;
    bench.handle.reload(config(vec![job.clone()])).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = exporter.requests();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(exporter.requests() <= before + 1, "an interval of an hour");
    job.interval_ms = INTERVAL_MS;
    bench.handle.reload(config(vec![job])).unwrap();
    bench.until("a marker", |bench| bench.values("a").last() == Some(&None)).await;
    assert!(bench.values("b").iter().all(Option::is_some));
    assert_eq!(exporter.connections.load(Ordering::Relaxed), 1);
    assert_eq!(bench.handle.pools()[0].targets, 1);
}

#[tokio::test]
async fn series_with_timestamps_are_tracked_if_asked_for() {
    let exporter = Exporter::start("").await;
    let now = clock()();
    exporter.set(&format!("a 1 {now}\n"));
    let tracking = ScrapeJob { track_timestamps_staleness: true, ..job("j", &[&exporter.address]) };
    let bench = Bench::start(vec![tracking]);
    bench.until_scraped(1).await;
    exporter.set("");
    bench.until("a marker", |bench| bench.values("a") == [Some(1.0), None]).await;
}

#[tokio::test]
async fn the_store_s_series_limit_refuses_new_series_and_keeps_known_ones() {
    let exporter = Exporter::start("a 1\n").await;
    let dir = tempfile::tempdir().unwrap();
    // The target's series and the five about its scrapes.
    let options = tsdb::Options { series_max: Some(6), ..tsdb::Options::default() };
    let db = Arc::new(tsdb::Db::open(dir.path(), options).unwrap());
    let handle =
        start(config(vec![job("j", &[&exporter.address])]), Arc::clone(&db), Shutdown::new()).unwrap();
    let bench = Bench { _dir: dir, db, handle };
    bench.until_scraped(1).await;
    exporter.set("a 2\nb 1\n");
    bench.until("a refusal", |bench| bench.handle.stats().samples_series_limit > 0).await;
    bench.until("the known one", |bench| bench.values("a").last() == Some(&Some(2.0))).await;
    assert!(bench.read("b").is_empty());
    assert_eq!(bench.handle.targets().active[0].health, Health::Up);
}

#[tokio::test]
async fn credentials_are_sent_to_the_target_s_host_only() {
    let other = Exporter::start("a 1\n").await;
    let to = format!("http://{}/metrics", other.address);
    let page = Arc::clone(&other.page);
    let requests: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let seen = Arc::clone(&requests);
    let router = Router::new().route(
        "/metrics",
        get(move |headers: HeaderMap| {
            seen.lock().push(headers);
            let to = to.clone();
            async move { (StatusCode::FOUND, [("location", to)]) }
        }),
    );
    let first = Exporter::serve(router, page, Arc::clone(&requests)).await;
    let mut job = job("j", &[&first.address]);
    let inline = |text: &str| Secret::Inline(text.into());
    job.http.auth = Auth::Basic { username: inline("u"), password: inline("p") };
    job.http.headers = vec![("X-Tenant".into(), inline("t"))];
    let bench = Bench::start(vec![job]);
    bench.until_scraped(1).await;
    assert_eq!(bench.values("a")[0], Some(1.0));
    let sent = requests.lock()[0].clone();
    assert_eq!(
        (&sent["authorization"], &sent["x-tenant"]),
        (&"Basic dTpw".parse().unwrap(), &"t".parse().unwrap())
    );
    assert!(!other.requests.lock()[0].contains_key("authorization"));
    assert!(!other.requests.lock()[0].contains_key("x-tenant"));
}

#[tokio::test]
async fn native_histograms_are_stored() {
    let Some(body) = corpus::read("data/exposition/app_native.1.pb") else { return };
    let exporter = Exporter::start("").await;
    {
        let mut page = exporter.page.lock();
        page.body = body;
        page.content_type =
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    }
    let mut native = job("native", &[&exporter.address]);
    native.histograms.native = true;
    let mut limited = ScrapeJob { name: "limited".to_owned(), ..native.clone() };
    limited.histograms.native_buckets_max = 1;
    let bench = Bench::start(vec![native, job("classic", &[&exporter.address]), limited]);
    bench.until_scraped(9).await;
    let error = bench.handle.targets().active[2].last_error.clone();
    assert_eq!(error.as_deref(), Some("histogram bucket limit exceeded"));
    let snapshot = bench.db.snapshot();
    let matchers = [Matcher::equal("__name__", "app_native_latency_seconds")];
    let set = snapshot.select(&Selection::new(&matchers, TimeRange::ALL)).unwrap();
    assert_eq!(set.len(), 4);
    let mut samples = Samples::default();
    set.samples(0, TimeRange::ALL, &mut samples).unwrap();
    assert!(samples.ts.is_empty() && samples.histogram_ts.len() > 1);
    assert!(samples.histograms[0].count > 500.0);
    let classic = bench.read("app_native_latency_seconds_count");
    assert!(classic.len() == 4 && classic.keys().all(|labels| labels.contains("classic")));
    assert!(bench.handle.targets().active[..2].iter().all(|target| target.health == Health::Up));
    assert_eq!(bench.handle.stats().samples_invalid_histogram, 0);
    assert_eq!(bench.read("app_pb_classic_seconds_bucket").len(), 24);
}
