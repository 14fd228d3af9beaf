//! Connections to servers, through proxies and TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::Uri;
use http::header::HeaderMap;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::chain;
use super::exchange::ExchangeError;
use super::pins::Pins;
use super::proxy;
use super::stream::Stream;
use super::tls;
use crate::config::{HttpOptions, Identity, Secret, TlsOptions};

/// Whom a connection is expected to reach, beyond its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer<'a> {
    /// The node whose kubelet it is, if it is one.
    pub(crate) node: Option<&'a str>,
}

/// What certificates are checked against if a job says nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Roots {
    /// PEM of the system's authorities.
    pub(crate) system_pem: Vec<u8>,
    /// Certificates of kubelets seen before, if they are to be remembered.
    pub(crate) pins: Option<Arc<Pins>>,
}

/// Opens connections to the servers of one job. They share it, and with it the certificates, which would
/// otherwise be the largest thing about an idle target.
pub(crate) struct Dialer {
    options: HttpOptions,
    roots: Arc<Roots>,
    tls: Mutex<Option<Made>>,
}

/// A TLS configuration with the state of its files when they were read.
struct Made {
    config: Arc<ClientConfig>,
    seen: Seen,
}

/// When the files of the TLS settings were last changed, and their sizes.
type Seen = [Option<(SystemTime, u64)>; 3];

fn seen(options: &TlsOptions) -> Seen {
    [&options.ca, &options.cert, &options.key].map(|secret| {
        let Some(Secret::File(path)) = secret else { return None };
        let about = std::fs::metadata(path).ok()?;
        Some((about.modified().ok()?, about.len()))
    })
}

/// A new connection.
pub(crate) struct Dialed {
    pub(crate) stream: Stream,
    /// Headers for a proxy that is sent whole URLs.
    pub(crate) proxy: Option<HeaderMap>,
}

impl Dialer {
    pub(crate) fn new(options: HttpOptions, roots: Arc<Roots>) -> Self {
        Self { options, roots, tls: Mutex::default() }
    }

    /// Connects to the server of a URL.
    pub(crate) async fn dial(&self, uri: &Uri, peer: Peer<'_>) -> Result<Dialed, ExchangeError> {
        let is_https = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let Some(proxy) = proxy::proxy_for(&self.options.proxy, uri) else {
            let stream = Stream::Plain(connect(host, port).await.map_err(ExchangeError::Failed)?);
            let stream = if is_https { self.encrypt(stream, host, peer).await? } else { stream };
            return Ok(Dialed { stream, proxy: None });
        };
        let proxy: Uri =
            proxy.parse().map_err(|error| ExchangeError::Config(format!("proxy_url: {error}")))?;
        let stream = self.dial_proxy(&proxy).await?;
        self.pass(stream, &proxy, uri, (host, port), peer).await
    }

    async fn dial_proxy(&self, proxy: &Uri) -> Result<Stream, ExchangeError> {
        let host = proxy.host().unwrap_or_default().trim_matches(['[', ']']);
        let default = match proxy.scheme_str() {
            Some("https") => 443,
            Some("http") => 80,
            Some("socks5" | "socks5h") => 1080,
            _ => return Err(ExchangeError::Config(format!("proxy_url: unsupported scheme in {proxy}"))),
        };
        let stream = connect(host, proxy.port_u16().unwrap_or(default)).await;
        let stream = Stream::Plain(stream.map_err(|error| ExchangeError::Failed(format!("proxy: {error}")))?);
        if proxy.scheme_str() == Some("https") {
            self.encrypt(stream, host, Peer::default()).await
        } else {
            Ok(stream)
        }
    }

    /// Goes through the proxy that `stream` leads to.
    async fn pass(
        &self,
        mut stream: Stream,
        proxy: &Uri,
        uri: &Uri,
        (host, port): (&str, u16),
        peer: Peer<'_>,
    ) -> Result<Dialed, ExchangeError> {
        let headers = proxy::headers(&self.options.proxy, proxy).await.map_err(ExchangeError::Config)?;
        let is_https = uri.scheme_str() == Some("https");
        if matches!(proxy.scheme_str(), Some("socks5" | "socks5h")) {
            proxy::connect_socks(&mut stream, (host, port), proxy).await.map_err(ExchangeError::Failed)?;
        } else if is_https {
            let authority =
                if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            proxy::connect(&mut stream, &authority, &headers).await.map_err(ExchangeError::Failed)?;
        } else {
            return Ok(Dialed { stream, proxy: Some(headers) });
        }
        let stream = if is_https { self.encrypt(stream, host, peer).await? } else { stream };
        Ok(Dialed { stream, proxy: None })
    }

    async fn encrypt(&self, stream: Stream, host: &str, peer: Peer<'_>) -> Result<Stream, ExchangeError> {
        let by_node = peer.node.filter(|_| self.options.tls.identity != Identity::Server);
        let name = match (&self.options.tls.server_name, by_node) {
            (Some(name), _) => name.clone(),
            (None, Some(node)) => node.to_owned(),
            (None, None) => host.to_owned(),
        };
        let name = ServerName::try_from(name)
            .map_err(|error| ExchangeError::Config(format!("server name: {error}")))?;
        let config = self.config().await.map_err(ExchangeError::Config)?;
        match TlsConnector::from(config).connect(name, stream).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(error) => Err(ExchangeError::Failed(tls::explain(&chain(&error)))),
        }
    }

    /// The TLS configuration; its files are read if they have not been as they are now. Connections are rare, so
    /// looking costs nothing.
    async fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let seen = seen(&self.options.tls);
        if let Some(made) = self.tls.lock().as_ref().filter(|made| made.seen == seen) {
            return Ok(Arc::clone(&made.config));
        }
        let (options, roots, http2) = (self.options.tls.clone(), Arc::clone(&self.roots), self.options.http2);
        let made = tokio::task::spawn_blocking(move || tls::client_config(&options, &roots, http2));
        let config = Arc::new(made.await.map_err(|error| error.to_string())??);
        *self.tls.lock() = Some(Made { config: Arc::clone(&config), seen });
        Ok(config)
    }
}

/// Connects to the first address of a host that answers.
async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses: Vec<SocketAddr> = match tokio::net::lookup_host((host, port)).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => return Err(format!("lookup {host}: {error}")),
    };
    let mut failure = format!("lookup {host}: no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => failure = format!("connect {address}: {error}"),
        }
    }
    Err(failure)
}
