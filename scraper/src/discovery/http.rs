//! Targets that a server lists: JSON over HTTP.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode, header};

use super::HttpDiscovery;
use super::feed::Feed;
use super::file::GroupOnDisk;
use crate::http::Client;

/// How long a request may take, if it is not longer by intention.
const PATIENCE: Duration = Duration::from_secs(30);

/// Fetches a URL: the answer's head and its body.
pub(super) async fn get(
    client: &Client,
    url: &str,
    (headers, patience): (&[(&'static str, String)], Duration),
) -> Result<Response<Vec<u8>>, String> {
    let mut request = Request::get(url).header(header::ACCEPT, "application/json");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(&[][..]).map_err(|error| format!("{url}: {error}"))?;
    client.send(request, patience).await
}

pub(super) async fn run(options: HttpDiscovery, client: Client, feed: Arc<Feed>) {
    let refresh = options.refresh_ms.max(1);
    let every = Duration::from_millis(refresh.unsigned_abs());
    let seconds = Duration::from_millis(refresh.unsigned_abs()).as_secs_f64().to_string();
    let headers = [("x-prometheus-refresh-interval-seconds", seconds)];
    loop {
        let answer = get(&client, &options.url, (&headers, PATIENCE)).await;
        match answer.and_then(|answer| groups(&options.url, &answer)) {
            Ok(groups) => feed.replace(groups),
            // What was listed last goes on.
            Err(error) => feed.fail("http", &options.url, &error),
        }
        tokio::time::sleep(every).await;
    }
}

fn groups(url: &str, answer: &Response<Vec<u8>>) -> Result<Vec<crate::config::TargetGroup>, String> {
    if answer.status() != StatusCode::OK {
        return Err(format!("server returned HTTP status {}", answer.status()));
    }
    let media =
        answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !media.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json") {
        return Err(format!("unsupported content type {media:?}"));
    }
    let groups: Vec<Option<GroupOnDisk>> =
        serde_json::from_slice(answer.body()).map_err(|error| format!("unmarshalling response: {error}"))?;
    let named = |(at, group): (usize, Option<GroupOnDisk>)| {
        let group = group.ok_or("a target group is null")?;
        Ok(group.with(format!("{url}:{at}"), ("__meta_url", url)))
    };
    groups.into_iter().enumerate().map(named).collect()
}
