//! A shard that can be down or late: a store behind the smallest HTTP server that will do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, MatchOp, Matcher, Querier as _, Samples, Selection, TimeRange};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tsdb::Db;
use tsdb::disk::memory::Memory;

use super::super::{Admission, Fence, Origin};
use super::V1;
use crate::receive::{ReceiveError, Receiver, Written};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mode {
    Up,
    /// Answers 503.
    Down,
    /// Stores, and answers after a while.
    Late(Duration),
}

struct Inner {
    db: Arc<Db>,
    receiver: Receiver,
    fence: Fence,
    mode: Mutex<Mode>,
    requests: Mutex<(usize, usize)>,
}

pub(super) struct FakeShard {
    pub(super) url: String,
    inner: Arc<Inner>,
}

impl FakeShard {
    pub(super) async fn start() -> Self {
        let options = tsdb::Options { out_of_order_window_ms: 3_000, ..tsdb::Options::default() };
        let db = Db::open_on(Arc::new(Memory::new()), "/data".as_ref(), options, &mut |_| {}).unwrap();
        let db = Arc::new(db);
        let inner = Arc::new(Inner {
            receiver: Receiver::new(Arc::clone(&db), [1, 2]),
            db,
            fence: Fence::default(),
            mode: Mutex::new(Mode::Up),
            requests: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = Arc::clone(&inner);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&serving), stream));
            }
        });
        Self { url, inner }
    }

    pub(super) fn set(&self, mode: Mode) {
        *self.inner.mode.lock() = mode;
    }

    pub(super) fn hear(&self, epoch: u64) {
        self.inner.fence.hear(epoch);
    }

    pub(super) fn requests(&self) -> usize {
        self.inner.requests.lock().0
    }

    pub(super) fn repeated(&self) -> usize {
        self.inner.requests.lock().1
    }

    /// Times by series.
    pub(super) fn stored(&self) -> BTreeMap<Labels, Vec<i64>> {
        let snapshot = self.inner.db.snapshot();
        let all = [Matcher::new("__name__", MatchOp::Regex, ".+").unwrap()];
        let set = snapshot.select(&Selection::new(&all, TimeRange::ALL)).unwrap();
        let mut samples = Samples::default();
        (0..set.len())
            .map(|at| {
                set.samples(at, TimeRange::ALL, &mut samples).unwrap();
                (set.labels(at), samples.ts.clone())
            })
            .collect()
    }
}

async fn serve(inner: Arc<Inner>, mut stream: TcpStream) {
    let mut bytes = Vec::new();
    loop {
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            }
        };
        let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
        let header = |name: &str| {
            head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
        };
        let length: usize = header("content-length").unwrap().parse().unwrap();
        while bytes.len() < head_end + length {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap_or(0);
            bytes.extend_from_slice(&buffer[..read]);
        }
        let body: Vec<u8> = bytes[head_end..head_end + length].to_vec();
        bytes.drain(..head_end + length);
        let number = |name: &str| header(name).unwrap().parse().unwrap();
        let router = header(super::super::ROUTER_HEADER).unwrap();
        let origin = Origin {
            router: &router,
            epoch: number(super::super::EPOCH_HEADER),
            seq: number(super::super::SEQ_HEADER),
        };
        let mode = *inner.mode.lock();
        let (status, written, text) = answer(&inner, mode, origin, &body);
        if let Mode::Late(pause) = mode {
            tokio::time::sleep(pause).await;
        }
        let kinds = [
            ("samples", written.samples),
            ("histograms", written.histograms),
            ("exemplars", written.exemplars),
        ];
        let headers =
            kinds.map(|(kind, count)| format!("x-prometheus-remote-write-{kind}-written: {count}\r\n"));
        let answer = format!(
            "HTTP/1.1 {status} X\r\n{}content-length: {}\r\n\r\n{text}",
            headers.concat(),
            text.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn answer(inner: &Inner, mode: Mode, origin: Origin<'_>, body: &[u8]) -> (u16, Written, String) {
    if mode == Mode::Down {
        return (503, Written::default(), "down".to_owned());
    }
    match inner.fence.admit(origin) {
        Admission::Stale(epoch) => return (409, Written::default(), format!("epoch {epoch}")),
        Admission::Repeated(written) => {
            inner.requests.lock().1 += 1;
            return (204, written, String::new());
        }
        Admission::New => {}
    }
    inner.requests.lock().0 += 1;
    match inner.receiver.receive(V1, body) {
        Ok(written) => {
            inner.fence.stored(origin, written);
            (204, written, String::new())
        }
        Err(ReceiveError::Partial { written, first, .. }) => (400, written, first),
        Err(error) => (500, Written::default(), error.to_string()),
    }
}
