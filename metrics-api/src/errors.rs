//! Failures as Kubernetes `Status` objects.

use std::borrow::Cow;

use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use model::StorageError;
use serde::Serialize;

use crate::{SelectorError, Unavailable};

/// A refusal, in the API server's shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Option<Box<Details>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: Cow<'static, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: crate::objects::ListMeta,
    status: &'static str,
    message: &'a str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Details>,
    code: u16,
}

/// Details are rare, and errors are handed around.
#[expect(clippy::unnecessary_wraps, reason = "it is what a field takes")]
fn boxed(details: Details) -> Option<Box<Details>> {
    Some(Box::new(details))
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: String) -> Self {
        Self { code, reason, message, details: None }
    }

    pub(crate) fn bad_request(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// The object itself is not known.
    pub(crate) fn not_found(kind: &'static str, name: &str) -> Self {
        Self {
            details: boxed(Details { name: name.to_owned(), kind: kind.into(), ..Details::default() }),
            ..Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{kind} {name:?} not found"))
        }
    }

    /// The object is known, but there is no usage of it. `kind` is `nodemetrics` or `podmetrics`.
    pub(crate) fn no_metrics(kind: &'static str, name: &str) -> Self {
        let message = format!("{kind}.metrics.k8s.io {name:?} not found");
        Self {
            details: boxed(Details {
                name: name.to_owned(),
                group: "metrics.k8s.io".into(),
                kind: kind.into(),
                ..Details::default()
            }),
            ..Self::new(StatusCode::NOT_FOUND, "NotFound", message)
        }
    }

    pub(crate) fn no_watch(kind: &'static str, group: &'static str) -> Self {
        let of = if kind.is_empty() { group.to_owned() } else { format!("{kind}.{group}") };
        let message = format!("watch is not supported on resources of kind \"{of}\"");
        Self {
            details: boxed(Details { group: group.into(), kind: kind.into(), ..Details::default() }),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
        }
    }

    pub(crate) fn not_acceptable() -> Self {
        let message = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf".to_owned();
        Self {
            details: boxed(Details::default()),
            ..Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
        }
    }

    /// There is no value; the message says why.
    pub(crate) fn metric_not_found(message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", message.to_owned())
    }

    /// Nothing is at this path.
    pub(crate) fn unknown(path: &str) -> Self {
        let message = format!("the server could not find the requested resource ({path})");
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub(crate) fn internal(message: String) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// Whoever asks has not said who they are, or nobody can confirm it.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized".to_owned())
    }

    /// Whoever asks may not; of objects with their name, group and resource.
    pub(crate) fn forbidden(message: String, details: Option<(String, String, String)>) -> Self {
        let details = details.map(|(name, group, kind)| Details {
            name,
            group: group.into(),
            kind: kind.into(),
            ..Details::default()
        });
        let details = boxed(details.unwrap_or_default());
        Self { details, ..Self::new(StatusCode::FORBIDDEN, "Forbidden", message) }
    }

    /// Too many requests are under way.
    pub(crate) fn too_many() -> Self {
        let message = "too many requests, please try again later".to_owned();
        Self {
            details: boxed(Details { retry_after_seconds: Some(1), ..Details::default() }),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
        }
    }

    /// The answer took too long.
    pub(crate) fn late(patience: std::time::Duration) -> Self {
        let message = format!("the request did not complete within {} s", patience.as_secs());
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    pub(crate) fn expired(token: &str) -> Self {
        let message = format!("the continue token {token:?} was not issued by this server");
        Self::new(StatusCode::GONE, "Expired", message)
    }
}

impl From<SelectorError> for ApiError {
    fn from(error: SelectorError) -> Self {
        Self::bad_request(error.0)
    }
}

impl From<Unavailable> for ApiError {
    fn from(error: Unavailable) -> Self {
        Self {
            details: boxed(Details { retry_after_seconds: Some(1), ..Details::default() }),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", error.0)
        }
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Unavailable(what) => Unavailable(what).into(),
            other => Self::internal(other.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = Status {
            kind: "Status",
            api_version: "v1",
            metadata: crate::objects::ListMeta::default(),
            status: "Failure",
            message: &self.message,
            reason: self.reason,
            details: self.details.as_deref(),
            code: self.code.as_u16(),
        };
        let body = serde_json::to_vec(&status).unwrap_or_default();
        let mut response = (self.code, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if self.details.is_some_and(|details| details.retry_after_seconds.is_some()) {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

/// Any path under `/apis` that no route knows.
pub(crate) async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::unknown(uri.path())
}

/// A method other than GET and HEAD.
pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let message = format!("the server does not allow {method} on {}; metrics are read-only", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
}
