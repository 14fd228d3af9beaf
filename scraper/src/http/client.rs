//! A client for whatever is no scrape: discovery servers, Alertmanagers, other servers that are asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use parking_lot::Mutex;

use super::{Authorizer, Dialer, Outgoing, Peer, Roots, Session};
use crate::config::HttpOptions;
use crate::fetch::follow;

/// An answer larger than this is refused.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// Servers to which a connection is kept between requests.
const IDLE_MAX: usize = 32;

/// Sends requests with the options that scrapes know: TLS, credentials, proxies, headers.
pub struct Client {
    dialer: Dialer,
    authorizer: Authorizer,
    user_agent: String,
    follows_redirects: bool,
    /// Connections that nobody uses, one a server.
    idle: Mutex<HashMap<String, Session>>,
}

impl Client {
    /// A client that trusts the authorities of `system_roots_pem` where `options` name none.
    #[must_use]
    pub fn new(options: &HttpOptions, system_roots_pem: Vec<u8>) -> Self {
        let roots = Arc::new(Roots { system_pem: system_roots_pem, pins: None });
        Self::with_roots(options, &roots, concat!("Pyrometer/", env!("CARGO_PKG_VERSION")).to_owned())
    }

    pub(crate) fn with_roots(options: &HttpOptions, roots: &Arc<Roots>, user_agent: String) -> Self {
        Self {
            dialer: Dialer::new(options.clone(), Arc::clone(roots)),
            authorizer: Authorizer::new(options, roots),
            user_agent,
            follows_redirects: options.follow_redirects,
            idle: Mutex::default(),
        }
    }

    /// Sends a request and reads the answer, whatever its status. Files with secrets are read anew.
    ///
    /// # Errors
    /// There is no whole answer in `patience`; the text says why.
    pub async fn send(
        &self,
        request: Request<&[u8]>,
        patience: Duration,
    ) -> Result<Response<Vec<u8>>, String> {
        let (mut parts, body) = request.into_parts();
        if !parts.headers.contains_key(header::USER_AGENT) {
            let agent = HeaderValue::from_str(&self.user_agent).map_err(|error| error.to_string())?;
            parts.headers.insert(header::USER_AGENT, agent);
        }
        let server = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
        let what = format!("{} {:?}", parts.method, parts.uri.to_string());
        let outgoing = Outgoing {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body,
            wanted: |_| true,
            limit: ANSWER_BYTES_MAX,
        };
        let mut session = self.idle.lock().remove(&server).unwrap_or_default();
        let mut read = Vec::new();
        let exchanged = tokio::time::timeout(patience, async {
            let secret = self.authorizer.headers().await?;
            let order = (outgoing, &secret, self.follows_redirects);
            let answer = follow(&mut session, (&self.dialer, Peer::default()), order, &mut read).await;
            answer.map_err(|error| error.to_string())
        });
        let answer = exchanged.await.map_err(|_| format!("{what}: no answer in time"))??;
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.authorizer.distrust().await;
        }
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.insert(server, session);
        }
        Ok(answer.map(|()| read))
    }
}
