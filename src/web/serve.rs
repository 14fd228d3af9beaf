//! The accept loop: hyper connections under limits, drained on shutdown.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use metrics_api::PeerCertificates;

use super::auth::Users;
use super::body;
use super::config::{Guard, Settings};
use super::idle::{Doing, IdleConnections, until_answered};
use super::stall::Impatient;
use crate::metrics_apis::Certificate;

/// A client must have sent its request head within this time, or less if the read timeout is shorter.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests under way may take this long once the server is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// What connections may take.
#[derive(Clone)]
pub(crate) struct Limits {
    /// Those open at once; for one more the one that has been idle for longest is closed, and if none is idle it waits
    /// to be accepted.
    pub(crate) connections: Arc<Semaphore>,
    idle: Arc<IdleConnections>,
    /// A request must have been sent within this time, and an idle connection is closed after it.
    pub(crate) read_timeout: Duration,
}

impl Limits {
    pub(crate) fn new(connections_max: usize, read_timeout: Duration) -> Self {
        let connections = Arc::new(Semaphore::new(connections_max.max(1)));
        Self { connections, idle: Arc::default(), read_timeout }
    }

    /// A place for one more connection.
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.connections).try_acquire_owned() {
            return Some(slot);
        }
        let mut slot = pin!(Arc::clone(&self.connections).acquire_owned());
        loop {
            if self.idle.close_oldest() {
                // Its place is free in a moment.
                return slot.await.ok();
            }
            tokio::select! {
                slot = &mut slot => return slot.ok(),
                () = self.idle.added() => {}
            }
        }
    }
}

/// What all connections of a listener share.
struct Shared {
    router: Router,
    front: Front,
    read_timeout: Duration,
    idle: Arc<IdleConnections>,
}

/// What stands between a connection and the router.
enum Front {
    Open,
    Guarded(Arc<Guard>),
    /// TLS whose clients' certificates go to the router, which judges them.
    Delegated(Arc<Certificate>),
}

/// Serves `router` on `listener` until `stop` is cancelled, then drains.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    guard: Option<Arc<Guard>>,
    limits: Limits,
    stop: CancellationToken,
) {
    let front = guard.map_or(Front::Open, Front::Guarded);
    accept(listener, (router, front), limits, stop).await;
}

/// As [`serve`], with TLS; requests carry the [`PeerCertificates`] of their connection.
pub(crate) async fn serve_delegated(
    listener: TcpListener,
    router: Router,
    certificate: Arc<Certificate>,
    limits: Limits,
    stop: CancellationToken,
) {
    let front = Front::Delegated(certificate);
    accept(listener, (router, front), limits, stop).await;
}

async fn accept(
    listener: TcpListener,
    (router, front): (Router, Front),
    limits: Limits,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let idle = Arc::clone(&limits.idle);
    let shared = Arc::new(Shared { router, front, read_timeout: limits.read_timeout, idle });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, typically: wait for some to be closed.
                tracing::warn!("accepting a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Only now that somebody is there: room is not made for nobody.
        let slot = tokio::select! {
            slot = limits.slot() => slot,
            () = stop.cancelled() => break,
        };
        let Some(slot) = slot else { break };
        let _ = stream.set_nodelay(true);
        let (shared, watcher) = (Arc::clone(&shared), graceful.watcher());
        // Known from here on, so that those who came later do not seem to have come first.
        let doing = Doing::new(&shared.idle);
        tokio::spawn(async move {
            tokio::select! {
                () = shared.connection((stream, peer), &doing, watcher) => {}
                () = doing.closed() => tracing::debug!(%peer, "an idle connection is closed for another one"),
            }
            drop(slot);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await;
}

/// What all requests of a connection share.
#[derive(Clone)]
struct About {
    /// Where it comes from.
    address: SocketAddr,
    settings: Option<Arc<Settings>>,
    peer: Option<PeerCertificates>,
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(tls: &TlsAcceptor, stream: S) -> Option<TlsStream<S>> {
    match tokio::time::timeout(HEADER_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => tracing::debug!("TLS handshake: {error}"),
        Err(_) => tracing::debug!("TLS handshake: the client took too long"),
    }
    None
}

impl Shared {
    async fn connection(
        &self,
        (stream, address): (TcpStream, SocketAddr),
        doing: &Arc<Doing>,
        watcher: Watcher,
    ) {
        let stream = Impatient::new(stream, self.read_timeout);
        let about = About { address, settings: None, peer: None };
        let guard = match &self.front {
            Front::Open => return self.http(stream, (about, doing), watcher).await,
            Front::Guarded(guard) => Arc::clone(guard),
            Front::Delegated(certificate) => {
                let certificate = Arc::clone(certificate);
                let Ok(tls) = tokio::task::spawn_blocking(move || certificate.acceptor()).await else {
                    return;
                };
                let Some(stream) = handshake(&tls, stream).await else { return };
                let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let peer = Some(PeerCertificates(shown.iter().map(|der| der.clone().into_owned()).collect()));
                return self.http(stream, (About { peer, ..about }, doing), watcher).await;
            }
        };
        let Ok(settings) = tokio::task::spawn_blocking(move || guard.settings()).await else { return };
        let about = About { settings: Some(Arc::clone(&settings)), ..about };
        match &settings.tls {
            None => self.http(stream, (about, doing), watcher).await,
            Some(tls) => {
                if let Some(stream) = handshake(tls, stream).await {
                    self.http(stream, (about, doing), watcher).await;
                }
            }
        }
    }

    async fn http<S>(&self, stream: S, (about, doing): (About, &Arc<Doing>), watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        let header_timeout = HEADER_TIMEOUT.min(self.read_timeout);
        builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout).max_headers(128);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(100)
            .keep_alive_interval(Some(self.read_timeout));
        let http1_only = about.settings.as_ref().is_some_and(|settings| !settings.http2);
        let builder = if http1_only { builder.http1_only() } else { builder };
        let (router, read_timeout, doing) = (self.router.clone(), self.read_timeout, Arc::clone(doing));
        let service = tower::service_fn(move |request: Request<hyper::body::Incoming>| {
            let (router, about) = (router.clone(), about.clone());
            let expected = doing.expect();
            async move {
                let mut request = request.map(|body| body::until(body, read_timeout, Arc::clone(&expected)));
                request.extensions_mut().insert(ConnectInfo(about.address));
                if let Some(peer) = about.peer {
                    request.extensions_mut().insert(peer);
                }
                let response = answer(router, about.settings, request).await;
                Ok::<_, std::convert::Infallible>(until_answered(response, expected))
            }
        });
        let service = TowerToHyperService::new(service);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        // A client that breaks off is no event.
        let _ = watcher.watch(connection).await;
    }
}

/// Asks the router, if the client may.
async fn answer(router: Router, settings: Option<Arc<Settings>>, request: Request<Body>) -> Response {
    let Some(settings) = settings else {
        return into_response(router.oneshot(request).await);
    };
    let allowed = match &settings.users {
        Some(users) => authenticated(Arc::clone(users), request.headers().clone()).await,
        None => true,
    };
    let mut response = if allowed {
        into_response(router.oneshot(request).await)
    } else {
        let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"))];
        (StatusCode::UNAUTHORIZED, challenge, "Unauthorized\n").into_response()
    };
    response.headers_mut().extend(settings.headers.clone());
    response
}

fn into_response(outcome: Result<Response, std::convert::Infallible>) -> Response {
    match outcome {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn authenticated(users: Arc<Users>, headers: HeaderMap) -> bool {
    // A password that was not seen before costs tens of milliseconds of CPU.
    tokio::task::spawn_blocking(move || users.allow(&headers)).await.unwrap_or(false)
}
