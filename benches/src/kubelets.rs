//! A cluster that is only talked to: an API server and kubelets, all on loopback.
//!
//! The API server lists nodes and pods, holds watches open without an event, and knows one token, whose user may do
//! everything. Kubelets are behind one address with TLS; a node's annotation says which path is its page.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::now_ms;

/// The size of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Pods of each node.
    pub pods: usize,
    /// Containers of each pod.
    pub containers: usize,
}

/// The token of the user who may do everything.
pub const TOKEN: &str = "bench";

/// A running cluster.
pub struct Kubelets {
    /// The API server, without TLS.
    pub api_server: SocketAddr,
    served: Arc<Served>,
}

/// What kubelets have shown.
#[derive(Default)]
struct Served {
    pages: AtomicU64,
    bytes: AtomicU64,
}

impl Kubelets {
    /// Starts the cluster on the current runtime.
    ///
    /// # Errors
    /// There is no free port, or no certificate can be made.
    pub async fn start(size: Size) -> Result<Self, Box<dyn std::error::Error>> {
        let served = Arc::<Served>::default();
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let noted = Arc::clone(&served);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, noted) = (acceptor.clone(), Arc::clone(&noted));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let _ = serve(stream, |path| {
                        let node = path.split('/').nth(1)?.parse().ok()?;
                        let page = page(size, node);
                        noted.pages.fetch_add(1, Ordering::Relaxed);
                        noted.bytes.fetch_add(page.len() as u64, Ordering::Relaxed);
                        Some(("text/plain; version=0.0.4", page))
                    })
                    .await;
                });
            }
        });
        let api = TcpListener::bind("127.0.0.1:0").await?;
        let api_server = api.local_addr()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = api.accept().await {
                tokio::spawn(async move {
                    let _ = serve(stream, |path| Some(("application/json", object(size, port, path)?))).await;
                });
            }
        });
        Ok(Self { api_server, served })
    }

    /// Pages shown so far, and their bytes.
    #[must_use]
    pub fn served(&self) -> (u64, u64) {
        (self.served.pages.load(Ordering::Relaxed), self.served.bytes.load(Ordering::Relaxed))
    }

    /// The text of a kubeconfig file for the API server.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n",
            self.api_server
        )
    }
}

/// The name of a pod.
fn pod(node: usize, at: usize) -> String {
    format!("app-{}-{:08x}", at % 97, (node * 1_000 + at) * 2_654_435_761 % 0xffff_ffff)
}

fn namespace(at: usize) -> String {
    format!("namespace-{}", at % 31)
}

/// A kubelet's `/metrics/resource`: samples up to nine seconds old, as a kubelet's are.
fn page(size: Size, node: usize) -> String {
    let now = now_ms();
    let mut out = String::with_capacity(64 << 10);
    let seconds = now as f64 / 1000.0 - 1.7e9;
    let _ = write!(
        out,
        "# TYPE node_cpu_usage_seconds_total counter\nnode_cpu_usage_seconds_total {:.6} {now}\n\
         # TYPE node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes 4.000001e+09 {now}\n",
        seconds * 2.0
    );
    for (name, kind) in [
        ("container_start_time_seconds", "gauge"),
        ("container_cpu_usage_seconds_total", "counter"),
        ("container_memory_working_set_bytes", "gauge"),
    ] {
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for at in 0..size.pods {
            for container in 0..size.containers {
                let age = i64::try_from((node * 7 + at * 3 + container) % 9_000).unwrap_or(0);
                let ts = now / 10_000 * 10_000 - age;
                let _ = write!(
                    out,
                    "{name}{{container=\"c{container}\",namespace=\"{}\",pod=\"{}\"}} ",
                    namespace(at),
                    pod(node, at)
                );
                let _ = match name {
                    "container_start_time_seconds" => writeln!(out, "1.700000001e+09"),
                    "container_cpu_usage_seconds_total" => {
                        let run = ts as f64 / 1000.0 - 1.7e9;
                        writeln!(out, "{:.6} {ts}", run * 0.001 * (at % 50 + 1) as f64)
                    }
                    _ => writeln!(out, "{} {ts}", 50_000_000 + at * 4096),
                };
            }
        }
    }
    for at in 0..size.pods {
        let _ = writeln!(
            out,
            "pod_cpu_usage_seconds_total{{namespace=\"{}\",pod=\"{}\"}} 1 {now}",
            namespace(at),
            pod(node, at)
        );
    }
    out
}

/// What the API server has at a path; none for a watch, which goes on without an event.
fn object(size: Size, port: u16, path: &str) -> Option<String> {
    if path.contains("watch=") {
        return None;
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let skip: usize = parameter("continue").and_then(|text| text.parse().ok()).unwrap_or(0);
    let limit: usize = parameter("limit").and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
    let list = |all: usize, one: &dyn Fn(usize) -> String| {
        let end = all.min(skip.saturating_add(limit));
        let items: Vec<String> = (skip..end).map(one).collect();
        let next = if end < all { end.to_string() } else { String::new() };
        format!(
            "{{\"metadata\":{{\"resourceVersion\":\"1\",\"continue\":\"{next}\"}},\"items\":[{}]}}",
            items.join(",")
        )
    };
    Some(match path {
        "/version" => "{\"gitVersion\":\"v1.36.2\"}".to_owned(),
        "/api/v1/nodes" => list(size.nodes, &|at| {
            format!(
                "{{\"metadata\":{{\"name\":\"node-{at}\",\"labels\":{{\"kubernetes.io/hostname\":\"node-{at}\"}},\
                 \"annotations\":{{\"metrics.k8s.io/resource-metrics-path\":\"/{at}/metrics/resource\"}}}},\
                 \"status\":{{\"addresses\":[{{\"type\":\"InternalIP\",\"address\":\"127.0.0.1\"}}],\
                 \"daemonEndpoints\":{{\"kubeletEndpoint\":{{\"Port\":{port}}}}},\"allocatable\":{{\"cpu\":\"8\",\"memory\":\"32Gi\"}}}}}}"
            )
        }),
        "/api/v1/pods" => list(size.nodes * size.pods, &|index| {
            let (node, at) = (index / size.pods, index % size.pods);
            let app = at % 97;
            format!(
                "{{\"metadata\":{{\"namespace\":\"{}\",\"name\":\"{}\",\"labels\":{{\"app.kubernetes.io/name\":\"app-{app}\",\
                 \"app.kubernetes.io/instance\":\"app-{app}\",\"pod-template-hash\":\"{:08x}\",\"tier\":\"backend\"}}}}}}",
                namespace(at),
                pod(node, at),
                app * 7_919
            )
        }),
        path if path.ends_with("/tokenreviews") => format!(
            "{{\"status\":{{\"authenticated\":true,\"user\":{{\"username\":\"{TOKEN}\",\"groups\":[\"system:masters\"]}}}}}}"
        ),
        _ => "{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[],\"resources\":[],\"groups\":[],\"data\":{}}".to_owned(),
    })
}

/// Answers requests one after the other; a path without an answer is left open.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    answer: impl Fn(&str) -> Option<(&'static str, String)>,
) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(4_096);
    loop {
        request.clear();
        let head = loop {
            if let Some(at) = request.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&request[..head]).into_owned();
        let length = text.to_ascii_lowercase();
        let length = length.split("content-length:").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        while request.len() < head + length {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let path = text.split_whitespace().nth(1).unwrap_or_default();
        match answer(path) {
            Some((kind, body)) => {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(body.as_bytes()).await?;
                stream.flush().await?;
            }
            None => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
                stream.write_all(head.as_bytes()).await?;
                stream.flush().await?;
                // A watch without an event ends when the client goes.
                while stream.read_buf(&mut request).await? > 0 {
                    request.clear();
                }
                return Ok(());
            }
        }
    }
}
