//! Clients that mean harm: they say nothing, or say it slowly, hang up by half, or send more than anybody wants. Others
//! go on being answered.
//!
//! A thousand connections are opened; more by `PYROMETER_HOSTILE=10000 cargo test --test it hostile`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::process::{PATIENCE, Server, request};

/// What clients do besides saying nothing.
const KINDS: usize = 5;

fn count() -> usize {
    std::env::var("PYROMETER_HOSTILE").map_or(1_000, |text| text.parse().unwrap())
}

/// Lets this process have so many connections, as far as it may.
fn allow_files(count: usize) {
    let (id, limit) = (std::process::id().to_string(), format!("--nofile={count}:"));
    let _ = Command::new("prlimit").args(["--pid", &id, &limit]).status();
}

/// A connection of which nothing good comes.
fn harm(address: &str, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let said = match number % KINDS {
        0 => "",
        // A head that does not end, a form that does not come, half of a request.
        1 => "GET /api/v1/query?query=1 HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        2 => {
            "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
              Content-Length: 1000000\r\n\r\nquery="
        }
        3 => "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nabc",
        _ => "\u{16}\u{3}\u{1}no TLS here",
    };
    // The server may have closed it already, to make room.
    let _ = stream.write_all(said.as_bytes());
    if number.is_multiple_of(7) {
        let _ = stream.shutdown(Shutdown::Write);
    }
    stream
}

/// Whether the server has not closed a connection.
fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

#[test]
fn clients_that_mean_harm_keep_nobody_from_being_answered() {
    let count = count();
    allow_files(count + 2_000);
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--kubernetes=off", "--web.enable-remote-write-receiver"]);
    server.wait_for_history();
    let address = server.url.trim_start_matches("http://").to_owned();
    let good = |when: &str| {
        let answer = server.query("1 + 1");
        assert_eq!(answer[1], "2", "{when}");
    };
    let mut streams: Vec<TcpStream> = Vec::with_capacity(count);
    for number in 0..count {
        streams.push(harm(&address, number));
        if number % 100 == 99 {
            good(&format!("beside {number}"));
        }
    }
    good("beside all");
    // Those that were there first have made room, for there are places for half of them; the last ones stay.
    let open: Vec<bool> = streams.iter_mut().step_by(KINDS).map(is_open).collect();
    assert!(!open[0] && open.iter().filter(|open| **open).count() <= 512, "{open:?}");
    drop(streams);
    good("after them");

    // More than anybody wants to read.
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let (status, body) =
        request("POST", &format!("{}/api/v1/query", server.url), &form, &"a".repeat(1 << 20));
    assert_eq!(status, 400, "{body}");
    for path in ["query", "series", "labels", "write", "read", "otlp/v1/metrics"] {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "POST /api/v1/{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Encoding: snappy\r\nContent-Length: 9000000000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let piece = vec![b'a'; 1 << 20];
        // It is refused long before all of it is there: the server stops reading, and says why or hangs up.
        let taken = (0..200).take_while(|_| stream.write_all(&piece).is_ok()).count();
        assert!(taken < 200, "{path}: {taken} MiB are taken");
        good(path);
    }
    let (_, page) = server.get("/metrics");
    assert!(page.contains("prometheus_build_info"), "{page:.200}");
}

#[test]
fn a_client_that_has_been_answered_goes_on_with_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--kubernetes=off", "--web.max-connections=64"]);
    server.wait_for_history();
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut good = TcpStream::connect(&address).unwrap();
    let mut ask = || {
        good.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = [0; 4096];
        let length = good.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    };
    ask();
    // Whoever asks now and then is never the one that has been idle for longest.
    for number in 0..300 {
        let stream = harm(&address, number);
        if number % 4 == 3 {
            ask();
        }
        std::mem::forget(stream);
    }
}

#[test]
fn silent_clients_of_the_secure_listener_keep_nobody_from_being_answered() {
    let cluster = crate::cluster::Cluster::start();
    let pyrometer = cluster.pyrometer("p", &[]);
    pyrometer.wait_until_ready();
    let address = pyrometer.url.trim_start_matches("https://").to_owned();
    allow_files(4_000);
    // More than there are places for: no greeting of TLS, or half of one.
    let mut streams = Vec::new();
    for number in 0..700 {
        let mut stream = TcpStream::connect(&address).unwrap();
        if number % 2 == 0 {
            let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01");
        }
        streams.push(stream);
        if number % 100 == 99 {
            assert_eq!(pyrometer.ask(None, "/livez", &[]).0, 200, "beside {number}");
        }
    }
    assert!(!is_open(&mut streams[0]), "who came first has made room");
    assert_eq!(pyrometer.get("/apis/metrics.k8s.io/v1beta1/nodes").0, 200);
    cluster.stop();
}
