//! How a querier reaches shards and routers.

use std::time::Duration;

use bytes::Bytes;
use remote::router::Backlogs;
use remote::slots::Place;
use tokio::runtime::Handle;

/// The path below a shard's address at which it answers queriers.
pub const SHARD_QUERY_PATH: &str = "/api/v1/shard/query";

/// The path below a router's address at which it tells what waits for which shard.
pub const BACKLOG_PATH: &str = "/api/v1/router/backlog";

/// A router that does not tell in this time is unknown.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(1);

/// A shard that has not answered yet is asked this often whether it is alive, and is to say so in that time.
const LIVE_EVERY: Duration = Duration::from_secs(1);
const LIVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a shard did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskError {
    /// It knows a newer map.
    Stale,
    /// It cannot be reached, or not in time, or makes no sense.
    Failed(String),
}

/// Reaches shards and routers. Called on threads that may block.
pub trait Transport: Send + Sync {
    /// Asks several shards at once; answers in order.
    fn ask(&self, asks: Vec<(Place, Vec<u8>)>, timeout: Duration) -> Vec<Result<Bytes, AskError>>;

    /// Asks routers what they hold for which shard.
    fn backlogs(&self, routers: &[Place]) -> Vec<Result<Backlogs, String>>;
}

/// Over HTTP.
pub struct Http {
    client: reqwest::Client,
    runtime: Handle,
}

impl Http {
    /// Speaks with `client`, on the runtime of the caller.
    #[must_use]
    pub fn new(client: reqwest::Client) -> Self {
        Self { client, runtime: Handle::current() }
    }

    async fn ask_one(&self, place: &Place, body: Vec<u8>, timeout: Duration) -> Result<Bytes, AskError> {
        let mut answer = std::pin::pin!(self.answer(place, body, timeout));
        // A long evaluation and a process that hangs look the same, but for this.
        loop {
            match tokio::time::timeout(LIVE_EVERY, &mut answer).await {
                Ok(answer) => return answer,
                Err(_) if self.is_alive(place).await => {}
                Err(_) => return Err(AskError::Failed("it hangs".to_owned())),
            }
        }
    }

    async fn answer(&self, place: &Place, body: Vec<u8>, timeout: Duration) -> Result<Bytes, AskError> {
        let failed = |error: reqwest::Error| {
            use std::error::Error as _;
            let error = error.without_url();
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            AskError::Failed(format!("{error}{cause}"))
        };
        let request =
            self.client.post(format!("{}{SHARD_QUERY_PATH}", place.url)).timeout(timeout).body(body);
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        if status == reqwest::StatusCode::CONFLICT {
            return Err(AskError::Stale);
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > crate::wire::ANSWER_BYTES_MAX {
                return Err(AskError::Failed("the answer is too long".to_owned()));
            }
        }
        if status.is_success() {
            return Ok(body.into());
        }
        let text = String::from_utf8_lossy(&body);
        Err(AskError::Failed(format!("{status}: {}", text.lines().next().unwrap_or_default())))
    }

    async fn is_alive(&self, place: &Place) -> bool {
        let request = self.client.get(format!("{}/-/healthy", place.url)).timeout(LIVE_TIMEOUT);
        request.send().await.is_ok()
    }

    async fn backlog(&self, place: &Place) -> Result<Backlogs, String> {
        let request = self.client.get(format!("{}{BACKLOG_PATH}", place.url)).timeout(BACKLOG_TIMEOUT);
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        let answer = answer.map_err(|error| error.without_url().to_string())?;
        let body = answer.bytes().await.map_err(|error| error.without_url().to_string())?;
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }
}

impl Transport for Http {
    fn ask(&self, asks: Vec<(Place, Vec<u8>)>, timeout: Duration) -> Vec<Result<Bytes, AskError>> {
        let asked =
            asks.into_iter().map(|(place, body)| async move { self.ask_one(&place, body, timeout).await });
        self.runtime.block_on(futures::future::join_all(asked))
    }

    fn backlogs(&self, routers: &[Place]) -> Vec<Result<Backlogs, String>> {
        self.runtime.block_on(futures::future::join_all(routers.iter().map(|place| self.backlog(place))))
    }
}
