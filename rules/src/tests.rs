//! Groups evaluated on a real store at made-up times.

use std::sync::Arc;

use model::{Labels, QueryCancelled, Timestamp, Value};
use parking_lot::Mutex;
use promql::{Engine, EngineOptions, ParseOptions};
use tsdb::Db;

use crate::group::GroupState;
use crate::notifier::Alert;
use crate::query::{Counters, Environment, Permits};
use crate::status::{AlertState, Health};
use crate::{EndedQuery, Group, Observer, parse};

const MINUTE: i64 = 60_000;

struct Bench {
    env: Environment,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Arc::new(Db::open(dir.path(), tsdb::Options::default()).unwrap());
        let engine = Arc::new(Engine::new(EngineOptions { workers: 1, ..EngineOptions::default() }));
        let env = Environment {
            engine,
            db,
            external_labels: Labels::from_pairs([("cluster", "eu"), ("job", "other")]),
            external_url: "http://here:9090".to_owned(),
            grammar: ParseOptions::default(),
            resend_delay_ms: MINUTE,
            outage_tolerance_ms: 60 * MINUTE,
            grace_period_ms: 10 * MINUTE,
            cancelled: Arc::new(QueryCancelled::new()),
            counters: Counters::default(),
            observer: None,
            beyond: None,
            beside: Permits::new(3),
        };
        Self { env, _dir: dir }
    }

    fn put(&self, series: &str, ts: Timestamp, value: f64) {
        let mut appender = self.env.db.appender();
        let series = appender.series(&labels(series)).unwrap();
        appender.append(series, ts, value).unwrap();
        appender.commit().unwrap();
    }

    /// What an expression gives, as `{labels} value`.
    fn ask(&self, text: &str, ts: Timestamp) -> Vec<String> {
        let expr = promql::parse(text, &ParseOptions::default()).unwrap();
        let mut out: Vec<String> = self
            .env
            .query(&group(""), &expr, ts)
            .unwrap()
            .into_iter()
            .map(|sample| match sample.value {
                Value::Float(value) => format!("{} {value}", sample.labels),
                Value::Histogram(_) => format!("{} histogram", sample.labels),
            })
            .collect();
        out.sort();
        out
    }
}

/// `name{a="b"}` as labels.
fn labels(text: &str) -> Labels {
    let (name, rest) = text.split_once('{').unwrap_or((text, "}"));
    let pairs = rest.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(name, value)| (name, value.trim_matches('"')));
    Labels::from_pairs(std::iter::once(("__name__", name)).chain(pairs))
}

fn group(rules: &str) -> Group {
    parse(&format!("groups:\n- name: g\n  rules:\n{rules}")).unwrap().remove(0)
}

fn state(rules: &str) -> GroupState {
    GroupState::new(Arc::new(group(rules)), (MINUTE, 0), false)
}

fn states(state: &GroupState) -> Vec<AlertState> {
    let live = state.live.lock();
    let alerting = live.rules.iter().filter_map(|rule| rule.alerting.as_ref());
    alerting.flat_map(|alerting| alerting.alerts.iter().map(|alert| alert.state)).collect()
}

#[test]
fn a_rule_reads_what_the_rules_before_it_wrote() {
    let bench = Bench::new();
    bench.put("up{job=a}", 0, 1.0);
    bench.put("up{job=b}", 0, 2.0);
    let mut state = state(
        "  - {record: one, expr: up * 2, labels: {team: x, job: ''}}\n  - {record: two, expr: sum(three)}\n  \
         - {record: three, expr: sum by (job) (up) + 1, labels: {team: x}}\n  - {record: four, expr: sum(three)}\n  \
         - {record: five, expr: '7'}\n",
    );
    state.evaluate(&bench.env, 1_000);
    assert_eq!(bench.ask("three", 1_000), [r#"three{job="a", team="x"} 2"#, r#"three{job="b", team="x"} 3"#]);
    assert_eq!(bench.ask("four", 1_000), ["four 5"]);
    assert_eq!(bench.ask("two", 1_000), [""; 0]);
    assert_eq!(bench.ask("five", 1_000), ["five 7"]);
    let live = state.live.lock().clone();
    assert_eq!(live.rules[0].health, Health::Err);
    assert_eq!(
        live.rules[0].last_error.as_deref(),
        Some("vector contains metrics with the same labelset after applying rule labels")
    );
    assert_eq!(live.rules[2].health, Health::Ok);
    assert_eq!((live.last_evaluation, live.last_samples), (Some(1_000), 4));
}

#[test]
fn series_that_vanish_end_at_once() {
    let bench = Bench::new();
    bench.put("up{job=a}", 0, 1.0);
    bench.put("up{job=b}", 0, 1.0);
    let mut state = state("  - {record: seen, expr: up}\n");
    state.evaluate(&bench.env, MINUTE);
    assert_eq!(bench.ask("seen", MINUTE).len(), 2);
    bench.put("up{job=b}", MINUTE + 1, model::stale_nan());
    state.evaluate(&bench.env, 2 * MINUTE);
    assert_eq!(bench.ask("seen", 2 * MINUTE), [r#"seen{job="a"} 1"#]);
    assert_eq!(bench.ask("seen", 2 * MINUTE - 1).len(), 2);
}

#[test]
fn over_the_limit_nothing_is_written_and_alerts_are_forgotten() {
    let bench = Bench::new();
    let mut all = group("  - {record: seen, expr: up}\n  - {alert: A, expr: up}\n");
    all.limit = 1;
    let mut state = GroupState::new(Arc::new(all), (MINUTE, 0), false);
    bench.put("up{job=a}", 0, 1.0);
    assert_eq!(state.evaluate(&bench.env, 0).len(), 1);
    assert_eq!(states(&state), [AlertState::Firing]);
    bench.put("up{job=b}", MINUTE, 1.0);
    state.evaluate(&bench.env, MINUTE);
    assert_eq!(bench.ask("seen", MINUTE).len(), 1);
    assert_eq!(states(&state), []);
    let errors: Vec<_> = state.live.lock().rules.iter().map(|rule| rule.last_error.clone()).collect();
    assert_eq!(errors[0].as_deref(), Some("exceeded limit of 1 with 2 series"));
    assert_eq!(errors[1].as_deref(), Some("exceeded limit of 1 with 2 alerts"));
}

#[test]
fn an_alert_waits_fires_lingers_and_ends() {
    let bench = Bench::new();
    let mut state = state(
        "  - {alert: Down, expr: up == 0, for: 2m, keep_firing_for: 2m, labels: {team: '{{ $labels.job }}-x'}, \
         annotations: {text: '{{ $labels.job }} is {{ $value }}'}}\n",
    );
    let mut at = |minute: i64, up: f64| -> (Vec<Arc<Alert>>, Vec<AlertState>, Vec<String>) {
        let ts = minute * MINUTE;
        bench.put("up{job=a}", ts, up);
        let due = state.evaluate(&bench.env, ts);
        (due, states(&state), bench.ask("ALERTS", ts))
    };
    let pending = r#"ALERTS{alertname="Down", alertstate="pending", job="a", team="a-x"} 1"#;
    let firing = r#"ALERTS{alertname="Down", alertstate="firing", job="a", team="a-x"} 1"#;
    let (due, states_now, series) = at(0, 0.0);
    assert_eq!((due.len(), states_now, series), (0, vec![AlertState::Pending], vec![pending.to_owned()]));
    assert_eq!(at(1, 0.0).1, [AlertState::Pending]);
    let (due, states_now, series) = at(2, 0.0);
    assert_eq!((states_now, series), (vec![AlertState::Firing], vec![firing.to_owned()]));
    let alert = &due[0];
    assert_eq!((alert.starts_at, alert.ends_at), (2 * MINUTE, 6 * MINUTE));
    assert_eq!(alert.annotations["text"], "a is 0");
    assert_eq!(alert.labels.to_string(), r#"{alertname="Down", cluster="eu", job="a", team="a-x"}"#);
    assert_eq!(alert.generator_url, "http://here:9090/graph?g0.expr=up+%3D%3D+0&g0.tab=1");
    // Told a minute ago: not yet due again.
    assert_eq!(at(3, 0.0).0.len(), 0);
    assert_eq!(
        bench.ask("ALERTS_FOR_STATE", 3 * MINUTE),
        [r#"ALERTS_FOR_STATE{alertname="Down", job="a", team="a-x"} 0"#]
    );
    let (due, states_now, _) = at(4, 1.0);
    assert_eq!((due.len(), states_now), (1, vec![AlertState::Firing]));
    assert_eq!(at(5, 1.0).1, [AlertState::Firing]);
    let (due, states_now, series) = at(6, 1.0);
    assert_eq!((states_now, series), (vec![], vec![]));
    assert_eq!(due[0].ends_at, 6 * MINUTE);
    // The end is told again for a quarter of an hour.
    let told: usize = (7..40).map(|minute| at(minute, 1.0).0.len()).sum();
    assert_eq!(told, 7);
    // It begins anew.
    assert_eq!(at(40, 0.0).1, [AlertState::Pending]);
    assert_eq!(at(41, 1.0).1, []);
}

#[test]
fn two_results_must_not_be_one_alert() {
    let bench = Bench::new();
    bench.put("up{job=a}", 0, 1.0);
    bench.put("up{job=b}", 0, 1.0);
    let mut state = state("  - {alert: A, expr: up, labels: {job: all}}\n");
    state.evaluate(&bench.env, 0);
    assert_eq!(
        state.live.lock().rules[0].last_error.as_deref(),
        Some("vector contains metrics with the same labelset after applying alert labels")
    );
}

#[test]
fn a_group_may_look_back() {
    let bench = Bench::new();
    bench.put("up", 0, 1.0);
    bench.put("up", 2 * MINUTE, 2.0);
    let group = Arc::new(group("  - {record: seen, expr: up}\n  - {alert: A, expr: up}\n"));
    let mut state = GroupState::new(group, (MINUTE, MINUTE), false);
    state.evaluate(&bench.env, 2 * MINUTE);
    assert_eq!(bench.ask("seen @ 60", 2 * MINUTE), ["seen 1"]);
    assert_eq!(bench.ask("ALERTS @ 59", 2 * MINUTE), [""; 0]);
    assert_eq!(bench.ask("ALERTS @ 60", 2 * MINUTE).len(), 1);
    assert_eq!(bench.ask("ALERTS_FOR_STATE", 2 * MINUTE), ["ALERTS_FOR_STATE{alertname=\"A\"} 120"]);
}

#[test]
fn after_a_restart_waiting_goes_on() {
    let bench = Bench::new();
    let rules = "  - {alert: Long, expr: up == 0, for: 30m}\n  - {alert: Short, expr: up == 0, for: 2m}\n";
    let mut before = state(rules);
    for minute in 0..15 {
        bench.put("up", minute * MINUTE, 0.0);
        before.evaluate(&bench.env, minute * MINUTE);
    }
    let mut after = GroupState::new(Arc::new(group(rules)), (MINUTE, 0), true);
    for minute in 24..26 {
        bench.put("up", minute * MINUTE, 0.0);
        after.evaluate(&bench.env, minute * MINUTE);
        // Until the old state is known, nothing is written over it.
        assert_eq!(bench.ask("ALERTS offset 5m", minute * MINUTE).len(), if minute < 24 { 2 } else { 0 });
    }
    // Active since minute 0, last seen in minute 14, restored in minute 25.
    bench.put("up", 26 * MINUTE, 0.0);
    after.evaluate(&bench.env, 26 * MINUTE);
    let live = after.live.lock().clone();
    let since: Vec<_> =
        live.rules.iter().map(|rule| rule.alerting.as_ref().unwrap().alerts[0].active_at / MINUTE).collect();
    assert_eq!(since, [11, 24]);
    assert_eq!(states(&after), [AlertState::Pending, AlertState::Firing]);
    assert_eq!(
        bench.ask("ALERTS_FOR_STATE{alertname=\"Long\"}", 26 * MINUTE),
        ["ALERTS_FOR_STATE{alertname=\"Long\"} 660"]
    );
}

#[test]
fn a_changed_group_keeps_what_stays_and_ends_the_rest() {
    let bench = Bench::new();
    let mut old = state(
        "  - {record: gone, expr: up}\n  - {alert: A, expr: up, for: 5m}\n  - {record: kept, expr: up}\n",
    );
    bench.put("up", 0, 1.0);
    old.evaluate(&bench.env, 0);
    let mut new = state("  - {record: kept, expr: up + 1}\n  - {alert: A, expr: up > 0, for: 3m}\n");
    new.inherit(old);
    assert_eq!(states(&new), [AlertState::Pending]);
    for minute in 1..4 {
        bench.put("up", minute * MINUTE, 1.0);
        new.evaluate(&bench.env, minute * MINUTE);
    }
    assert_eq!(states(&new), [AlertState::Firing]);
    assert_eq!(bench.ask("gone", MINUTE), [""; 0]);
    assert_eq!(bench.ask("kept", MINUTE), ["kept 2"]);
    // The whole group goes; somebody else goes on with one of its series.
    bench.put("kept", 4 * MINUTE, 9.0);
    new.end(&bench.env, 5 * MINUTE);
    assert_eq!(bench.ask("ALERTS", 5 * MINUTE), [""; 0]);
    assert_eq!(bench.ask("kept", 5 * MINUTE), ["kept 9"]);
}

#[test]
fn texts_may_ask_the_store() {
    let bench = Bench::new();
    bench.put("up{job=a}", 0, 1.0);
    bench.put("weight{job=a}", 0, 2_500.0);
    let mut state = state(
        "  - alert: A\n    expr: up\n    annotations:\n      \
         good: '{{ printf \"weight{job=%q}\" $labels.job | query | first | value | humanize }}'\n      \
         bad: '{{ query \"sum(\" }}'\n      none: '{{ with query \"nothing\" }}x{{ else }}y{{ end }}'\n      \
         outside: '{{ $externalLabels.cluster }} {{ externalURL }}'\n",
    );
    let alerts = state.evaluate(&bench.env, 0);
    let texts = &alerts[0].annotations;
    assert_eq!(texts["good"], "2.5k");
    assert_eq!(texts["none"], "y");
    assert_eq!(texts["outside"], "eu http://here:9090");
    assert!(texts["bad"].starts_with("<error expanding template: "), "{}", texts["bad"]);
    assert!(texts["bad"].contains("parse error"), "{}", texts["bad"]);
}

#[test]
fn histograms_are_recorded_and_end() {
    let bench = Bench::new();
    let histogram = model::FloatHistogram {
        count: 3.0,
        sum: 4.0,
        positive_spans: vec![model::Span { offset: 0, length: 2 }],
        positive: vec![1.0, 2.0],
        ..model::FloatHistogram::default()
    };
    let put = |ts, sum| {
        let mut appender = bench.env.db.appender();
        let series = appender.series(&labels("latency")).unwrap();
        let value = model::FloatHistogram { sum, ..histogram.clone() };
        appender.append_histogram(series, ts, &model::HistogramValue::Float(value)).unwrap();
        appender.commit().unwrap();
    };
    put(0, 4.0);
    let mut state = state("  - {record: seen, expr: latency}\n");
    state.evaluate(&bench.env, MINUTE);
    assert_eq!(state.live.lock().rules[0].last_error, None);
    assert_eq!(bench.ask("seen", MINUTE), ["seen histogram"]);
    assert_eq!(bench.ask("histogram_count(seen)", MINUTE), ["{} 3"]);
    put(MINUTE + 1, model::stale_nan());
    state.evaluate(&bench.env, 2 * MINUTE);
    assert_eq!(bench.ask("seen", 2 * MINUTE), [""; 0]);
}

#[test]
fn a_failing_query_leaves_alerts_as_they_are() {
    let bench = Bench::new();
    bench.put("up{job=a}", 0, 1.0);
    bench.put("side{job=a}", 0, 1.0);
    let mut state = state("  - {alert: A, expr: up * on(job) side}\n");
    assert_eq!(state.evaluate(&bench.env, 0).len(), 1);
    bench.put("up{job=a,other=b}", MINUTE, 1.0);
    bench.put("side{job=a,other=c}", MINUTE, 1.0);
    assert_eq!(state.evaluate(&bench.env, MINUTE).len(), 0);
    assert_eq!(state.live.lock().rules[0].health, Health::Err);
    assert_eq!(states(&state), [AlertState::Firing]);
    // Nothing was written, the state's series least of all ended.
    assert_eq!(bench.ask("ALERTS", MINUTE).len(), 1);
}

#[test]
fn rules_side_by_side_see_what_rules_one_by_one_see() {
    let rules = "  - {record: a, expr: x + 1}\n  - {record: b, expr: x + 2}\n  - {record: c, expr: a + b}\n  \
                 - {alert: D, expr: c > 4}\n  - {record: e, expr: count(ALERTS)}\n  - {record: f, expr: x}\n";
    let answers = [0, 3].map(|beside| {
        let mut bench = Bench::new();
        bench.env.beside = Permits::new(beside);
        bench.put("x", 0, 1.0);
        let mut state = GroupState::new(Arc::new(group(rules)), (MINUTE, 0), false);
        assert_eq!(state.evaluate(&bench.env, 0).len(), 1);
        assert!(bench.env.beside.take().is_some() == (beside > 0), "permits are given back");
        let live = state.live.lock();
        assert!(live.rules.iter().all(|rule| rule.health == Health::Ok && rule.last_evaluation == Some(0)));
        assert_eq!(live.last_samples, 7);
        bench.ask("{__name__=~\".+\"}", 0)
    });
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].iter().any(|line| *line == "e 1"), "{:?}", answers[0]);
}

#[test]
fn every_query_of_a_rule_is_told_with_its_group() {
    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);
    impl Observer for Seen {
        fn wants_costs(&self) -> bool {
            true
        }

        fn ended(&self, query: &EndedQuery<'_>) {
            let costs = query.result.map(|outcome| outcome.costs.is_some());
            let line = format!("{} {} at {}: {costs:?}", query.group.name, query.expr, query.at);
            self.0.lock().push(line);
        }
    }
    let mut bench = Bench::new();
    let seen = Arc::new(Seen::default());
    bench.env.observer = Some(Arc::clone(&seen) as Arc<dyn Observer>);
    let mut state = state("  - {record: a, expr: up}\n  - {record: b, expr: a * on() up}\n");
    state.evaluate(&bench.env, 5);
    assert_eq!(*seen.0.lock(), ["g up at 5: Ok(true)", "g a * on () up at 5: Ok(true)"]);
}
