//! Targets that a server lists: JSON over HTTP.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Uri};
use parking_lot::Mutex;

use super::HttpDiscovery;
use super::feed::Feed;
use super::file::GroupOnDisk;
use crate::config::HttpOptions;
use crate::fetch::follow;
use crate::http::{Authorizer, Dialer, Outgoing, Peer, Roots, Session};

/// An answer larger than this is refused.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// How long a request may take, if it is not longer by intention.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks discovery servers.
pub(super) struct Requester {
    roots: Arc<Roots>,
    user_agent: String,
    /// Kept, so that tokens are.
    ways: Mutex<Option<Arc<Way>>>,
}

struct Way {
    dialer: Dialer,
    authorizer: Authorizer,
}

impl Requester {
    pub(super) fn new(roots: Arc<Roots>, user_agent: String) -> Self {
        Self { roots, user_agent, ways: Mutex::default() }
    }

    /// Fetches a URL: the answer's head and its body. Options are the same at each call.
    pub(super) async fn get(
        &self,
        url: &str,
        options: &HttpOptions,
        (headers, patience): (&[(&'static str, String)], Duration),
    ) -> Result<(Response<()>, Vec<u8>), String> {
        let way = {
            let mut way = self.ways.lock();
            Arc::clone(way.get_or_insert_with(|| {
                Arc::new(Way {
                    dialer: Dialer::new(options.clone(), Arc::clone(&self.roots)),
                    authorizer: Authorizer::new(options, &self.roots),
                })
            }))
        };
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let mut plain = HeaderMap::new();
        for (name, value) in headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain([("accept", "application/json"), (header::USER_AGENT.as_str(), self.user_agent.as_str())])
        {
            plain.insert(name, HeaderValue::from_str(value).map_err(|error| error.to_string())?);
        }
        let secret = way.authorizer.headers().await?;
        let mut request = Outgoing::get(uri, plain, ANSWER_BYTES_MAX);
        request.wanted = |_| true;
        let mut body = Vec::new();
        let mut session = Session::default();
        let answer = follow(
            &mut session,
            (&way.dialer, Peer::default()),
            (request, &secret, options.follow_redirects),
            &mut body,
        );
        let answer = tokio::time::timeout(patience, answer).await;
        let answer = answer.map_err(|_| format!("Get {url:?}: no answer in time"))?;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            way.authorizer.distrust().await;
        }
        Ok((answer, body))
    }
}

pub(super) async fn run(options: HttpDiscovery, requester: Requester, feed: Arc<Feed>) {
    let refresh = options.refresh_ms.max(1);
    let every = Duration::from_millis(refresh.unsigned_abs());
    let seconds = Duration::from_millis(refresh.unsigned_abs()).as_secs_f64().to_string();
    let headers = [("x-prometheus-refresh-interval-seconds", seconds)];
    loop {
        let answer = requester.get(&options.url, &options.http, (&headers, PATIENCE)).await;
        match answer.and_then(|(head, body)| groups(&options.url, &head, &body)) {
            Ok(groups) => feed.replace(groups),
            // What was listed last goes on.
            Err(error) => feed.fail("http", &options.url, &error),
        }
        tokio::time::sleep(every).await;
    }
}

fn groups(url: &str, head: &Response<()>, body: &[u8]) -> Result<Vec<crate::config::TargetGroup>, String> {
    if head.status() != StatusCode::OK {
        return Err(format!("server returned HTTP status {}", head.status()));
    }
    let media = head.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !media.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json") {
        return Err(format!("unsupported content type {media:?}"));
    }
    let groups: Vec<Option<GroupOnDisk>> =
        serde_json::from_slice(body).map_err(|error| format!("unmarshalling response: {error}"))?;
    let named = |(at, group): (usize, Option<GroupOnDisk>)| {
        let group = group.ok_or("a target group is null")?;
        Ok(group.with(format!("{url}:{at}"), ("__meta_url", url)))
    };
    groups.into_iter().enumerate().map(named).collect()
}
