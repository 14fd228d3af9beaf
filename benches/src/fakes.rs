//! Fake targets on loopback: pages of a chosen size, and when they were asked for.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::now_ms;

/// Every target shows these in turn.
const VARIANTS: usize = 4;

/// What all targets show.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    /// Series of one target.
    pub series: usize,
    /// Whether pages are compressed.
    pub gzip: bool,
}

/// Running targets, all behind one address; the n-th has the path `/metrics/n`.
pub struct Fakes {
    /// Where they are.
    pub address: SocketAddr,
    arrivals: Arc<Mutex<HashMap<usize, Vec<i64>>>>,
}

/// A page as a busy service shows it: eleven labels a series, 302 bytes of text a sample.
#[must_use]
pub fn page(target: usize, series: usize, variant: usize) -> String {
    let mut out = String::with_capacity(series * 302);
    for n in 0..series {
        let value = (n * 7_919 + variant * (n % 13 + 1)) % 1_000_003;
        let line = format!(
            "http_server_request_duration_seconds_bucket_{}{{cluster=\"production-eu-west-1\",namespace=\"team-{}\",\
             pod=\"checkout-service-{target:05}-7d9f8b6c5\",container=\"main\",method=\"POST\",route=\"/api/v2/orders/{}\",\
             status=\"200\",protocol=\"HTTP/1.1\",zone=\"eu-west-1b\",version=\"v2.117.4\"",
            n % 40,
            target % 7,
            n / 40
        );
        out.push_str(&line);
        // The last label fills the line up.
        let tail = format!("\"}} {value}\n");
        let filler = 302usize.saturating_sub(line.len() + tail.len() + ",le=\"".len());
        out.push_str(",le=\"");
        out.extend(std::iter::repeat_n('x', filler));
        out.push_str(&tail);
    }
    out
}

fn answer(body: &[u8], gzip: bool) -> Vec<u8> {
    let packed;
    let (body, coding) = if gzip {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Writing to memory does not fail.
        let _ = encoder.write_all(body);
        packed = encoder.finish().unwrap_or_default();
        (packed.as_slice(), "Content-Encoding: gzip\r\n")
    } else {
        (body, "")
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n{coding}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

impl Fakes {
    /// Starts `count` targets on the current runtime.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(count: usize, pages: Pages) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let variants = if pages.series == 0 { 1 } else { VARIANTS };
        let answers: Vec<Vec<Arc<[u8]>>> = (0..count)
            .map(|target| {
                let made =
                    |variant| answer(page(target, pages.series, variant).as_bytes(), pages.gzip).into();
                (0..variants).map(made).collect()
            })
            .collect();
        let (answers, arrivals) = (Arc::new(answers), Arc::<Mutex<HashMap<usize, Vec<i64>>>>::default());
        let noted = Arc::clone(&arrivals);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, noted) = (Arc::clone(&answers), Arc::clone(&noted));
                tokio::spawn(async move {
                    let _ = serve(stream, &answers, &noted).await;
                });
            }
        });
        Ok(Self { address, arrivals })
    }

    /// When each target was asked, in milliseconds since the epoch.
    #[must_use]
    pub fn arrivals(&self) -> HashMap<usize, Vec<i64>> {
        self.arrivals.lock().map(|arrivals| arrivals.clone()).unwrap_or_default()
    }

    /// A configuration file that has all of them scraped.
    #[must_use]
    pub fn config(&self, count: usize, interval: &str) -> String {
        let mut text = format!(
            "global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\nscrape_configs:\n- job_name: fakes\n  \
             static_configs:\n"
        );
        for target in 0..count {
            text.push_str(&format!(
                "  - targets: ['{}']\n    labels: {{__metrics_path__: /metrics/{target}, instance: 'target-{target}'}}\n",
                self.address
            ));
        }
        text
    }
}

async fn serve(
    mut stream: TcpStream,
    answers: &[Vec<Arc<[u8]>>],
    arrivals: &Mutex<HashMap<usize, Vec<i64>>>,
) -> std::io::Result<()> {
    let (mut request, mut turn) = (Vec::with_capacity(1_024), 0);
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let at = now_ms();
        let text = String::from_utf8_lossy(&request);
        let path = text.split_whitespace().nth(1).unwrap_or_default();
        let target = path.rsplit('/').next().and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
        if let Ok(mut arrivals) = arrivals.lock() {
            arrivals.entry(target).or_default().push(at);
        }
        let Some(variants) = answers.get(target) else { return Ok(()) };
        stream.write_all(&variants[turn % variants.len()]).await?;
        turn += 1;
    }
}
