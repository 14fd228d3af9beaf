//! Stopping, killing and starting again: no committed sample is lost.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{Server, escape};

/// All samples of a selector up to a time.
fn samples(server: &Server, selector: &str, until: f64) -> Value {
    let path = format!("/api/v1/query?query={}&time={until}", escape(&format!("{selector}[1h]")));
    server.json(&path)["data"]["result"].clone()
}

fn newest(server: &Server) -> f64 {
    let rows = server.wait_for_rows("max(timestamp(up))");
    rows[0]["value"][1].as_str().unwrap().parse().unwrap()
}

#[test]
fn every_committed_sample_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    server.wait_for_rows("count(up) == 3");
    let until = newest(&server);
    let selector = "{__name__=~\".+\"}";
    let before = samples(&server, selector, until);
    assert!(before.as_array().unwrap().len() > 50, "{} series", before.as_array().unwrap().len());
    server.kill();

    let server = Server::start(dir.path(), &[]);
    server.wait_for_history();
    assert_eq!(samples(&server, selector, until), before);
    server.wait_for("a scrape after the restart", |server| (newest(server) > until).then_some(()));
}

#[test]
fn ctrl_c_stops_within_a_second_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    server.wait_for_rows("count(up) == 3");
    let until = newest(&server);
    let before = samples(&server, "up", until);
    let started = Instant::now();
    assert_eq!(server.interrupt(), Some(0));
    // The promise is one second; a loaded machine gets some more.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

    let server = Server::start(dir.path(), &[]);
    server.wait_for_history();
    assert_eq!(samples(&server, "up", until), before);
}
