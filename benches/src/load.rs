//! Remote-write load: series with twelve labels as a cluster has them, and requests that carry them.
//!
//! The encoder is written here, by hand, so that what it costs is known and the same for every server:
//! label bytes are encoded once a series, a request is the concatenation of its series.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

/// Series of one request, as Prometheus' own sender sends them by default.
pub const SERIES_PER_REQUEST: usize = 2_000;

/// One series: its encoded labels and where its value stands.
struct Series {
    /// The label fields of the `TimeSeries` message.
    labels: Vec<u8>,
    value: f64,
    /// How the value moves: counters by whole steps, gauges around a level.
    step: f64,
}

/// A set of series that all get a sample at each step.
pub struct Load {
    series: Vec<Series>,
    random: u64,
}

pub(crate) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

pub(crate) fn push_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

impl Load {
    /// `count` series of twelve labels, numbered from `first`.
    #[must_use]
    pub fn new(first: usize, count: usize) -> Self {
        let series = (first..first + count).map(Series::new).collect();
        Self { series, random: 0x9e37_79b9_7f4a_7c15 ^ first as u64 }
    }

    /// How many series there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The bodies of the requests that carry one sample of every series at `ts`, one after the other.
    pub fn requests(&mut self, ts: i64) -> impl Iterator<Item = Vec<u8>> + '_ {
        requests(&mut self.series, &mut self.random, ts)
    }
}

/// A series that makes up its values.
pub(crate) trait Generated {
    /// The label fields of its `TimeSeries` message.
    fn labels(&self) -> &[u8];
    /// Its next value.
    fn next(&mut self, random: u64) -> f64;
}

/// The bodies of the requests that carry one sample of every series at `ts`, one after the other.
pub(crate) fn requests<'a, S: Generated>(
    series: &'a mut [S],
    random: &'a mut u64,
    ts: i64,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    let mut encoder = snap::raw::Encoder::new();
    series.chunks_mut(SERIES_PER_REQUEST).map(move |chunk| {
        let mut message = Vec::with_capacity(chunk.len() * 320);
        let (mut inner, mut sample) = (Vec::new(), Vec::new());
        for series in chunk {
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            sample.clear();
            sample.push(1 << 3 | 1);
            sample.extend_from_slice(&series.next(*random).to_le_bytes());
            sample.push(2 << 3);
            push_varint(&mut sample, ts.cast_unsigned());
            inner.clear();
            inner.extend_from_slice(series.labels());
            push_bytes(&mut inner, 2, &sample);
            push_bytes(&mut message, 1, &inner);
        }
        encoder.compress_vec(&message).unwrap_or_default()
    })
}

/// The labels of series `id`, ascending by name.
#[must_use]
pub fn labels(id: usize) -> [(&'static str, String); 12] {
    let pod = id / 100;
    [
        ("__name__", format!("container_metric_{}_total", id % 100)),
        ("app", format!("app-{}", pod % 97)),
        ("cluster", "production-1".to_owned()),
        ("container", "main".to_owned()),
        ("endpoint", "https-metrics".to_owned()),
        ("image", format!("registry.example/app-{}:v1.{}", pod % 97, pod % 7)),
        ("instance", format!("10.{}.{}.{}:10250", pod / 65_536, pod / 256 % 256, pod % 256)),
        ("job", "kubelet".to_owned()),
        ("namespace", format!("namespace-{}", pod % 31)),
        ("node", format!("node-{}", pod / 70)),
        ("pod", format!("app-{}-{:08x}", pod % 97, pod * 2_654_435_761 % 0xffff_ffff)),
        ("service", format!("service-{}", pod % 97)),
    ]
}

impl Series {
    fn new(id: usize) -> Self {
        let text = labels(id);
        let mut labels = Vec::with_capacity(300);
        for (name, value) in &text {
            let mut label = Vec::with_capacity(64);
            push_bytes(&mut label, 1, name.as_bytes());
            push_bytes(&mut label, 2, value.as_bytes());
            push_bytes(&mut labels, 1, &label);
        }
        // A third counts slowly, a third counts fast, a third moves around.
        let step = [1.0, 1000.0, 0.0][id % 3];
        Self { labels, value: (id % 1000) as f64, step }
    }
}

impl Generated for Series {
    fn labels(&self) -> &[u8] {
        &self.labels
    }

    fn next(&mut self, random: u64) -> f64 {
        let noise = (random >> 40) as f64 / f64::from(1 << 24);
        if self.step > 0.0 {
            self.value += (noise * self.step).floor();
        } else {
            self.value = (self.value * 0.9 + noise * 100.0 * 0.1 * 1000.0).round() / 1000.0;
        }
        self.value
    }
}

/// A keep-alive connection that posts requests and reads the status of each answer.
pub struct Sender {
    stream: BufReader<TcpStream>,
    head: String,
}

impl Sender {
    /// Connects to `address`; requests go to `path`.
    ///
    /// # Errors
    /// The server does not listen.
    pub fn connect(address: &str, path: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-protobuf\r\n\
             Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n"
        );
        Ok(Self { stream: BufReader::new(stream), head })
    }

    /// Posts one body; the status of the answer.
    ///
    /// # Errors
    /// The connection broke.
    pub fn post(&mut self, body: &[u8]) -> std::io::Result<u16> {
        let mut request = format!("{}Content-Length: {}\r\n\r\n", self.head, body.len()).into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request)?;
        let (mut line, mut status, mut length) = (String::new(), 0, 0);
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end();
            if let Some(rest) = text.strip_prefix("HTTP/1.1 ") {
                status = rest.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(0);
            } else if let Some((name, value)) = text.split_once(':') {
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().unwrap_or(0);
                }
            } else if text.is_empty() {
                break;
            }
        }
        let mut rest = vec![0; length];
        self.stream.read_exact(&mut rest)?;
        Ok(status)
    }
}
