//! `/livez`, `/readyz` and `/healthz`, whole and check by check, as an API server has them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

/// Something that must hold; an error says why it does not.
pub type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks of a process, by name.
#[derive(Clone, Default)]
pub struct Health {
    /// What must hold for the process to be worth keeping.
    pub live: Vec<(&'static str, Check)>,
    /// What must hold for it to be asked.
    pub ready: Vec<(&'static str, Check)>,
}

impl Health {
    /// The routes.
    pub(crate) fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let mut router = Router::new();
        let ping: (&str, Check) = ("ping", Arc::new(|| Ok(())));
        for (name, checks) in [("healthz", &self.live), ("livez", &self.live), ("readyz", &self.ready)] {
            let checks: Arc<Vec<_>> = Arc::new(std::iter::once(&ping).chain(checks).cloned().collect());
            let one = Arc::clone(&checks);
            router = router
                .route(
                    &format!("/{name}"),
                    get(async move |RawQuery(query)| whole(name, &checks, &query.unwrap_or_default())),
                )
                .route(
                    &format!("/{name}/{{check}}"),
                    get(async move |Path(check): Path<String>| single(&one, &check)),
                );
        }
        router
    }
}

fn text(status: StatusCode, body: String) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, body).into_response()
}

/// All checks but those that `exclude` names; details if they are asked for or something is wrong.
fn whole(name: &str, checks: &[(&str, Check)], query: &str) -> Response {
    let parameters: Vec<(&str, &str)> =
        query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    let excluded = |check: &str| parameters.contains(&("exclude", check));
    let verbose = parameters.iter().any(|(key, _)| *key == "verbose");
    let (mut body, mut failed) = (String::new(), false);
    for (check, holds) in checks {
        if excluded(check) {
            body.push_str(&format!("[+]{check} excluded: ok\n"));
            continue;
        }
        match holds() {
            Ok(()) => body.push_str(&format!("[+]{check} ok\n")),
            Err(why) => {
                failed = true;
                body.push_str(&format!("[-]{check} failed: {why}\n"));
            }
        }
    }
    if failed {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{body}{name} check failed\n"));
    }
    text(StatusCode::OK, if verbose { format!("{body}{name} check passed\n") } else { "ok".to_owned() })
}

fn single(checks: &[(&str, Check)], name: &str) -> Response {
    match checks.iter().find(|(check, _)| *check == name) {
        None => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        Some((_, holds)) => match holds() {
            Ok(()) => text(StatusCode::OK, "ok".to_owned()),
            Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
        },
    }
}
