//! Who asks, and whether they may: authentication and authorization delegated to the cluster's API server.
//!
//! In this order: a front proxy's certificate with its headers, a client's certificate, a bearer token, nobody. What an
//! unverified client says of itself in headers counts for nothing. Those who may ask everything (`system:masters`) are let
//! in here; for all others the API server is asked, and its answers are good for ten seconds.

mod cache;
mod der;
mod request;
mod trust;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures::future::BoxFuture;
use k8s::{AccessRequest, User, Verdict};
use model::Timestamp;
use tokio::sync::Semaphore;

use cache::Cache;
pub use der::user as certificate_user;
use trust::Bearer;
pub use trust::{PeerCertificates, Trust};

use crate::errors::ApiError;

/// How long an answer of the API server is good.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Answers that are remembered at once.
const REMEMBERED_MAX: usize = 4096;
/// Requests that are answered at once; more are told to come back.
const REQUESTS_MAX: usize = 200;
/// How long an answer may take to be made.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whoever knows users and what they may do.
pub trait Reviewer: Send + Sync {
    /// Whose token it is; none if nobody's.
    fn token<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<User>, String>>;
    /// Whether a user may do something.
    fn access<'a>(
        &'a self,
        user: &'a User,
        request: &'a AccessRequest,
    ) -> BoxFuture<'a, Result<Verdict, String>>;
}

impl Reviewer for k8s::Client {
    fn token<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<User>, String>> {
        Box::pin(async move { self.review_token(token).await.map_err(|error| error.to_string()) })
    }

    fn access<'a>(
        &'a self,
        user: &'a User,
        request: &'a AccessRequest,
    ) -> BoxFuture<'a, Result<Verdict, String>> {
        Box::pin(async move { self.review_access(user, request).await.map_err(|error| error.to_string()) })
    }
}

/// Stands before the APIs.
pub struct Gatekeeper {
    reviewer: Arc<dyn Reviewer>,
    now: fn() -> Timestamp,
    trust: RwLock<Option<Arc<Trust>>>,
    /// By the token's digest.
    tokens: Cache<Vec<u8>, Option<User>>,
    verdicts: Cache<(User, AccessRequest), Verdict>,
    places: Semaphore,
}

impl Gatekeeper {
    /// Asks `reviewer`; knows no certificate authorities yet.
    #[must_use]
    pub fn new(reviewer: Arc<dyn Reviewer>, now: fn() -> Timestamp) -> Self {
        Self {
            reviewer,
            now,
            trust: RwLock::new(None),
            tokens: Cache::new(REMEMBERED, REMEMBERED_MAX),
            verdicts: Cache::new(REMEMBERED, REMEMBERED_MAX),
            places: Semaphore::new(REQUESTS_MAX),
        }
    }

    /// Puts certificate authorities and header names into force.
    pub fn set_trust(&self, trust: Trust) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(trust));
    }

    /// Whether it knows whom to trust.
    #[must_use]
    pub fn has_trust(&self) -> bool {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    async fn authenticate(&self, request: &Parts) -> Result<User, ApiError> {
        let trust = self.trust.read().unwrap_or_else(PoisonError::into_inner).clone();
        let bearer =
            trust.map_or(Bearer::Nobody, |trust| trust.bearer(&request.peer, &request.headers, (self.now)()));
        if let Bearer::User(user) = bearer {
            return Ok(known(user));
        }
        if let Some(token) = token(&request.headers) {
            return match self.user_of(token).await {
                Ok(Some(user)) => Ok(known(user)),
                Ok(None) => Err(ApiError::unauthorized()),
                Err(what) => {
                    tracing::warn!("a token could not be reviewed: {what}");
                    Err(ApiError::unauthorized())
                }
            };
        }
        if matches!(bearer, Bearer::Unknown) {
            return Err(ApiError::unauthorized());
        }
        let (name, groups) = ("system:anonymous".to_owned(), vec!["system:unauthenticated".to_owned()]);
        Ok(User { name, groups, ..User::default() })
    }

    async fn user_of(&self, token: &str) -> Result<Option<User>, String> {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref().to_vec();
        if let Some(user) = self.tokens.get(&digest, Instant::now()) {
            return Ok(user);
        }
        let user = self.reviewer.token(token).await?;
        self.tokens.put(digest, user.clone(), Instant::now());
        Ok(user)
    }

    async fn authorize(&self, user: User, request: AccessRequest, path: &str) -> Result<(), ApiError> {
        let free = matches!(path, "/healthz" | "/livez" | "/readyz");
        if free || user.groups.iter().any(|group| group == "system:masters") {
            return Ok(());
        }
        let key = (user, request);
        let verdict = match self.verdicts.get(&key, Instant::now()) {
            Some(verdict) => verdict,
            None => {
                let verdict = self.reviewer.access(&key.0, &key.1).await.map_err(|what| {
                    tracing::warn!("access could not be reviewed: {what}");
                    ApiError::internal(format!(
                        "Internal Server Error: {path:?}: the API server could not be asked: {what}"
                    ))
                })?;
                self.verdicts.put(key.clone(), verdict.clone(), Instant::now());
                verdict
            }
        };
        if verdict.allowed { Ok(()) } else { Err(forbidden(&key.0, &key.1, &verdict.reason)) }
    }
}

/// What of a request decides who asks.
struct Parts {
    peer: PeerCertificates,
    headers: axum::http::HeaderMap,
}

fn known(mut user: User) -> User {
    const EVERYBODY: &str = "system:authenticated";
    if user.groups.iter().all(|group| group != EVERYBODY) {
        user.groups.push(EVERYBODY.to_owned());
    }
    user
}

fn token(headers: &axum::http::HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn forbidden(user: &User, request: &AccessRequest, reason: &str) -> ApiError {
    let mut what = request::described(request, &user.name);
    if !reason.is_empty() {
        what.push_str(": ");
        what.push_str(reason);
    }
    match request {
        AccessRequest::Path { .. } => ApiError::forbidden(format!("forbidden: {what}"), None),
        AccessRequest::Resource { group, resource, name, .. } => {
            let of = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
            let named = if name.is_empty() { String::new() } else { format!(" {name:?}") };
            let details = (name.clone(), group.clone(), resource.clone());
            ApiError::forbidden(format!("{of}{named} is forbidden: {what}"), Some(details))
        }
    }
}

/// Lets a request pass, or refuses it.
pub(crate) async fn guard(State(keeper): State<Arc<Gatekeeper>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let is_probe = ["/healthz", "/livez", "/readyz"].iter().any(|probe| path.starts_with(probe));
    // Probes have a place of their own: a busy server is not a dead one.
    let place = if is_probe { None } else { Some(keeper.places.try_acquire()) };
    if matches!(place, Some(Err(_))) {
        return ApiError::too_many().into_response();
    }
    let parts = Parts {
        peer: request.extensions().get::<PeerCertificates>().cloned().unwrap_or_default(),
        headers: request.headers().clone(),
    };
    let wanted = request::attributes(request.method(), request.uri());
    let admitted = async {
        let user = keeper.authenticate(&parts).await?;
        keeper.authorize(user, wanted, &path).await
    };
    let answer = async {
        match admitted.await {
            Ok(()) => next.run(request).await,
            Err(error) => error.into_response(),
        }
    };
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(response) => response,
        Err(_) => ApiError::late(PATIENCE).into_response(),
    }
}
