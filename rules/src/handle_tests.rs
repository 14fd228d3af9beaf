//! The whole crate at work: tasks, store and an Alertmanager of a few lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use model::{Labels, Timestamp};
use parking_lot::Mutex;
use promql::{Engine, EngineOptions};
use tsdb::Db;

use crate::{
    AlertState, Alertmanager, Delivery, Handle, Options, Posting, Shutdown, StartError, parse, start,
};

/// What was posted, request by request.
type Inbox = Arc<Mutex<Vec<serde_json::Value>>>;

/// An Alertmanager that refuses the first `refusals` requests.
async fn alertmanager(refusals: usize) -> (Alertmanager, Inbox) {
    let inbox = Inbox::default();
    let (seen, count) = (Arc::clone(&inbox), Arc::new(AtomicUsize::new(0)));
    let take = move |axum::Json(body): axum::Json<serde_json::Value>| async move {
        if count.fetch_add(1, Ordering::Relaxed) < refusals {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        seen.lock().push(body);
        StatusCode::ACCEPTED
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/am/api/v2/alerts", listener.local_addr().unwrap());
    let router = Router::new().route("/am/api/v2/alerts", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (at(&url), inbox)
}

/// An Alertmanager that is reached by plain HTTP.
fn at(url: &str) -> Alertmanager {
    let post = |url: String, body: bytes::Bytes| {
        let posting = async move {
            let client = Client::builder(TokioExecutor::new()).build_http();
            let request = http::Request::post(url).header("Content-Type", "application/json");
            let answer = client.request(request.body(http_body_util::Full::new(body)).unwrap()).await;
            let status = answer.map_err(|error| error.to_string())?.status();
            if status.is_success() { Ok(()) } else { Err(status.to_string()) }
        };
        Box::pin(posting) as Posting
    };
    Alertmanager { url: url.to_owned(), delivery: Arc::new(Delivery { post: Arc::new(post), relabel: None }) }
}

struct Bench {
    options: Options,
    _dir: tempfile::TempDir,
}

/// A store with `up 1`, and a clock that starts at the hour.
fn bench(rules: &str) -> Bench {
    const HOUR: Timestamp = 1_700_000_000_000 / 3_600_000 * 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(Db::open(dir.path(), tsdb::Options::default()).unwrap());
    let mut appender = db.appender();
    let up = appender.series(&Labels::from_pairs([("__name__", "up"), ("job", "a")])).unwrap();
    appender.append(up, HOUR, 1.0).unwrap();
    appender.commit().unwrap();
    let engine = Arc::new(Engine::new(EngineOptions { workers: 1, ..EngineOptions::default() }));
    let began = Instant::now();
    let clock = move || HOUR + Timestamp::try_from(began.elapsed().as_millis()).unwrap();
    let mut options = Options::new(engine, db, Arc::new(clock));
    options.evaluation_interval_ms = 20;
    options.groups = parse(rules).unwrap();
    Bench { options, _dir: dir }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come");
}

fn last_value(handle: &Handle) -> Option<f64> {
    handle.alerts().first().map(|alert| alert.value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_reach_an_alertmanager() {
    let (first, inbox) = alertmanager(1).await;
    let (second, other) = alertmanager(0).await;
    let mut bench = bench(
        "groups: [{name: g, rules: [{alert: Up, expr: up == 1, labels: {a: '1'}, annotations: {b: 'on {{ $labels.job }}'}}]}]",
    );
    bench.options.external_labels = Labels::from_pairs([("a", "2"), ("cluster", "eu")]);
    let handle = start(bench.options.clone(), Shutdown::new()).unwrap();
    handle.set_alertmanagers(vec![first, second], vec!["http://dropped".to_owned()]);
    until("the first alert", || !inbox.lock().is_empty() && !other.lock().is_empty()).await;
    let posted = inbox.lock()[0][0].clone();
    assert_eq!(
        posted["labels"],
        serde_json::json!({"alertname": "Up", "a": "1", "cluster": "eu", "job": "a"})
    );
    assert_eq!(posted["annotations"], serde_json::json!({"b": "on a"}));
    assert_eq!(posted["generatorURL"], "/graph?g0.expr=up+%3D%3D+1&g0.tab=1");
    let time = |key: &str| posted[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(time("endsAt").duration_since(time("startsAt")).as_secs(), 240);
    let alert = handle.alerts().remove(0);
    assert_eq!((alert.state, alert.value), (AlertState::Firing, 1.0));
    let stats = handle.stats().alertmanagers;
    assert_eq!((stats[0].sent, stats[0].errors, stats[0].dropped), (1, 1, 0));
    assert!(stats[0].url.ends_with("/am/api/v2/alerts"));
    assert_eq!(handle.stats().dropped_alertmanagers, ["http://dropped"]);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_are_relabelled_and_go_to_others_after_a_reload() {
    let (mut first, inbox) = alertmanager(0).await;
    let (second, other) = alertmanager(0).await;
    let relabel = Arc::new(|labels: &Labels| {
        let kept = labels.get("job") == Some("a");
        kept.then(|| labels.filtered(|name| name != "replica"))
    });
    first.delivery = Arc::new(Delivery { post: Arc::clone(&first.delivery.post), relabel: Some(relabel) });
    let mut bench =
        bench("groups: [{name: g, rules: [{alert: Up, expr: up == 1}, {alert: No, expr: 'vector(1)'}]}]");
    bench.options.resend_delay_ms = 50;
    bench.options.external_labels = Labels::from_pairs([("replica", "x")]);
    let handle = start(bench.options.clone(), Shutdown::new()).unwrap();
    handle.set_alertmanagers(vec![first.clone()], Vec::new());
    until("the alert", || !inbox.lock().is_empty()).await;
    let labels = inbox.lock()[0].clone();
    assert_eq!(labels.as_array().unwrap().len(), 1, "the other is dropped: {labels}");
    assert_eq!(labels[0]["labels"], serde_json::json!({"alertname": "Up", "job": "a"}));
    let sent = |handle: &Handle| handle.stats().alertmanagers[0].sent;
    let before = sent(&handle);
    // One that is named twice is told once, and one that stays goes on as it was.
    handle.set_alertmanagers(vec![first.clone(), first, second.clone()], Vec::new());
    assert!(before > 0 && sent(&handle) >= before);
    assert_eq!(handle.stats().alertmanagers.len(), 2);
    handle.set_alertmanagers(vec![second], Vec::new());
    until("the alert at the other", || !other.lock().is_empty()).await;
    assert_eq!(other.lock()[0].as_array().unwrap().len(), 2);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_is_bounded_sent_in_batches_and_drained() {
    let (address, inbox) = alertmanager(0).await;
    let notifier = crate::notifier::Notifier::new(crate::QueueOptions::default());
    notifier.replace(vec![address], Vec::new());
    let alerts: Vec<_> = (0..10_300)
        .map(|number: i32| {
            Arc::new(crate::notifier::Alert {
                labels: Labels::from_pairs([("n", number.to_string())]),
                annotations: std::collections::BTreeMap::new(),
                starts_at: 0,
                ends_at: 1,
                generator_url: String::new(),
            })
        })
        .collect();
    notifier.send(&alerts);
    notifier.stop().await;
    let stats = notifier.stats().remove(0);
    assert_eq!((stats.sent, stats.dropped, stats.queue_length), (10_000, 300, 0));
    let inbox = inbox.lock();
    assert_eq!(inbox.len(), 40);
    assert_eq!(inbox[0].as_array().unwrap().len(), 256);
    assert_eq!(inbox[0][0]["labels"]["n"], "300");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_an_alertmanager_that_is_not_there() {
    let bench = bench("groups: [{name: g, rules: [{alert: Up, expr: up}]}]");
    let handle = start(bench.options.clone(), Shutdown::new()).unwrap();
    handle.set_alertmanagers(vec![at("http://127.0.0.1:1")], Vec::new());
    until("the alert", || handle.stats().alertmanagers[0].errors > 0).await;
    handle.stop().await;
    let stats = handle.stats().alertmanagers.remove(0);
    assert_eq!((stats.sent, stats.dropped, stats.queue_length), (0, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_keeps_what_stays() {
    let text = |more: &str| {
        parse(&format!(
            "groups:\n- name: same\n  rules: [{{record: one, expr: up}}]\n- name: changed\n  rules: [{{alert: A, expr: up + 1, for: 1h}}{more}]\n"
        ))
        .unwrap()
    };
    let mut bench = bench("");
    bench.options.groups = text("");
    let handle = start(bench.options.clone(), Shutdown::new()).unwrap();
    until("an evaluation", || last_value(&handle).is_some() && handle.stats().iterations > 5).await;
    let since = handle.alerts()[0].active_at;
    let iterations = |handle: &Handle| handle.groups()[0].iterations;
    let before = iterations(&handle);
    handle.reload(text(", {record: two, expr: one}")).await.unwrap();
    assert!(iterations(&handle) >= before, "the group that stayed began anew");
    assert_eq!(handle.alerts()[0].active_at, since);
    until("the new rule", || handle.groups()[1].rules.len() == 2 && handle.groups()[1].iterations > 2).await;
    assert_eq!(handle.groups()[1].rules[1].health, crate::Health::Ok);
    handle.reload(Vec::new()).await.unwrap();
    assert_eq!((handle.groups(), handle.alerts()), (vec![], vec![]));
    // The series end two intervals later.
    let ended = || {
        let (querier, now) = (bench.options.db.snapshot(), (bench.options.clock)());
        let expr = promql::parse("one or two or ALERTS", &promql::ParseOptions::default()).unwrap();
        let found = bench.options.engine.instant(&querier, &expr, now, &promql::QueryOptions::default());
        matches!(found.unwrap().value, promql::QueryValue::Vector(found) if found.is_empty())
    };
    until("the end of the series", ended).await;
    handle.stop().await;
}

#[tokio::test]
async fn what_cannot_be_run_is_refused() {
    let bench = bench("groups: [{name: g}]");
    let refused = |change: &dyn Fn(&mut Options)| {
        let mut options = bench.options.clone();
        change(&mut options);
        start(options, Shutdown::new()).err().unwrap()
    };
    let twice = |options: &mut Options| options.groups.extend(parse("groups: [{name: g}]").unwrap());
    assert!(matches!(refused(&twice), StartError::DuplicateGroup { .. }));
    assert_eq!(refused(&|options| options.evaluation_interval_ms = 0), StartError::Interval(0));
}

/// The answer to a GET, once there is one.
async fn get(url: &str) -> Option<serde_json::Value> {
    use http_body_util::BodyExt as _;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = http::Request::get(url).body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let answer = client.request(request).await.ok()?;
    serde_json::from_slice(&answer.into_body().collect().await.ok()?.to_bytes()).ok()
}

/// Ends a process with the test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_alertmanager_takes_alerts_and_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("alertmanager.yml");
    std::fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n").unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child = std::process::Command::new("prometheus-alertmanager")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", dir.path().join("data").display()))
        .arg(format!("--web.listen-address={free}"))
        .arg("--cluster.listen-address=")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    let Ok(child) = child else {
        eprintln!("SKIPPED: prometheus-alertmanager is not installed");
        return;
    };
    let _killed = Killed(child);
    let url = format!("http://{free}/api/v2/alerts");
    for _ in 0..500 {
        if get(&url).await.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut bench =
        bench("groups: [{name: g, rules: [{alert: Up, expr: up == 1, annotations: {b: '{{ $value }}'}}]}]");
    bench.options.external_url = "http://here:9090".to_owned();
    // Alertmanager compares the times with its own clock.
    let now = jiff::Timestamp::now().as_millisecond();
    let (made_up, began) = ((bench.options.clock)(), Instant::now());
    bench.options.clock = Arc::new(move || now + Timestamp::try_from(began.elapsed().as_millis()).unwrap());
    let mut appender = bench.options.db.appender();
    assert!(made_up < now);
    let up = appender.series(&Labels::from_pairs([("__name__", "up"), ("job", "a")])).unwrap();
    appender.append(up, now, 1.0).unwrap();
    appender.commit().unwrap();
    let handle = start(bench.options.clone(), Shutdown::new()).unwrap();
    handle.set_alertmanagers(vec![at(&url)], Vec::new());
    until("the alert", || handle.stats().alertmanagers[0].sent == 1).await;
    let taken = get(&url).await.unwrap();
    assert_eq!(taken[0]["labels"], serde_json::json!({"alertname": "Up", "job": "a"}));
    assert_eq!(taken[0]["annotations"], serde_json::json!({"b": "1"}));
    assert_eq!(taken[0]["status"]["state"], "active");
    assert_eq!(taken[0]["generatorURL"], "http://here:9090/graph?g0.expr=up+%3D%3D+1&g0.tab=1");
    let mut appender = bench.options.db.appender();
    appender.append(up, (bench.options.clock)(), 0.0).unwrap();
    appender.commit().unwrap();
    until("the end", || handle.stats().alertmanagers[0].sent == 2).await;
    // Resolved alerts are not listed.
    assert_eq!(get(&url).await.unwrap(), serde_json::json!([]));
    handle.stop().await;
}
