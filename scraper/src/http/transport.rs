//! Requests to API servers and to other databases, with all that a configuration file may say about how a server is
//! reached.
//!
//! Answers may have no end, and several requests are under way at a time: so here hyper's client speaks, over
//! connections that are dialled as those of scrapes are.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s::{Answering, Transport};

use super::dial::{Dialer, Peer, Roots};
use super::{Authorizer, Stream, chain, proxy};
use crate::config::{HttpOptions, Proxy};
use crate::fetch::{REDIRECTS_MAX, is_same_server, redirect};

/// A connection that nobody uses is closed after that time.
const IDLE: Duration = Duration::from_secs(90);

/// What carries requests as `options` say. `system_roots_pem` are the authorities where they name none.
#[must_use]
pub fn transport(options: &HttpOptions, system_roots_pem: Vec<u8>) -> Transport {
    let roots = Arc::new(Roots { system_pem: system_roots_pem, pins: None });
    transport_with(options, &roots, concat!("Pyrometer/", env!("CARGO_PKG_VERSION")))
}

pub(crate) fn transport_with(options: &HttpOptions, roots: &Arc<Roots>, user_agent: &str) -> Transport {
    let dialer = Arc::new(Dialer::new(options.clone(), Arc::clone(roots)));
    let authorizer = Arc::new(Authorizer::new(options, roots));
    let agent = HeaderValue::from_str(user_agent).ok();
    let connector = tower::service_fn(move |uri: Uri| {
        let dialer = Arc::clone(&dialer);
        Box::pin(async move {
            let dialed = dialer.dial(&uri, Peer::default()).await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(Link { io: TokioIo::new(dialed.stream), is_to_proxy: dialed.proxy.is_some() })
        })
    });
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .build::<_, Full<Bytes>>(connector);
    let through = options.proxy.clone();
    let redirects_max = if options.follow_redirects { REDIRECTS_MAX } else { 0 };
    Arc::new(move |request| {
        let (client, authorizer) = (client.clone(), Arc::clone(&authorizer));
        let (through, agent) = (through.clone(), agent.clone());
        Box::pin(async move {
            let (mut plain, body) = request.into_parts();
            if let Some(agent) = agent {
                plain.headers.entry(header::USER_AGENT).or_insert(agent);
            }
            let (secret, origin) = (authorizer.headers().await?, plain.uri.clone());
            let mut redirects = 0;
            loop {
                let mut parts = plain.clone();
                // Credentials are for the server that is meant, not for one that it points to.
                if is_same_server(&parts.uri, &origin) {
                    parts.headers.extend(secret.clone());
                }
                parts.headers.extend(for_proxy(&through, &parts.uri).await?);
                let sent = client.request(Request::from_parts(parts, Full::new(body.clone()))).await;
                let answer = sent.map_err(|error| chain(&error))?;
                if answer.status() == StatusCode::UNAUTHORIZED {
                    authorizer.distrust().await;
                }
                // Other redirections would change the method.
                let keeps = matches!(answer.status().as_u16(), 307 | 308) || plain.method == Method::GET;
                match redirect(&answer, &plain.uri).filter(|_| keeps && redirects < redirects_max) {
                    Some(next) => (plain.uri, redirects) = (next, redirects + 1),
                    None => return Ok(answer.map(|body| body.map_err(io::Error::other).boxed_unsync())),
                }
            }
        }) as Answering
    })
}

/// A proxy that is sent whole URLs reads its headers beside those for the server.
async fn for_proxy(through: &Proxy, uri: &Uri) -> Result<HeaderMap, String> {
    match proxy::proxy_for(through, uri).filter(|_| uri.scheme_str() == Some("http")) {
        Some(url) => {
            let url: Uri = url.parse().map_err(|error| format!("proxy_url: {error}"))?;
            proxy::headers(through, &url).await
        }
        None => Ok(HeaderMap::new()),
    }
}

/// A connection as hyper wants it.
struct Link {
    io: TokioIo<Stream>,
    is_to_proxy: bool,
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.is_to_proxy);
        if self.io.inner().is_http2() { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
