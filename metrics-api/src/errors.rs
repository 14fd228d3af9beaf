//! Failures as Kubernetes `Status` objects.

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
    details: Option<Details>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'static str,
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
            details: Some(Details { name: name.to_owned(), kind, ..Details::default() }),
            ..Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{kind} {name:?} not found"))
        }
    }

    /// The object is known, but there is no usage of it. `kind` is `nodemetrics` or `podmetrics`.
    pub(crate) fn no_metrics(kind: &'static str, name: &str) -> Self {
        let message = format!("{kind}.metrics.k8s.io {name:?} not found");
        Self {
            details: Some(Details {
                name: name.to_owned(),
                group: "metrics.k8s.io",
                kind,
                ..Details::default()
            }),
            ..Self::new(StatusCode::NOT_FOUND, "NotFound", message)
        }
    }

    pub(crate) fn no_watch(kind: &'static str, group: &'static str) -> Self {
        let of = if kind.is_empty() { group.to_owned() } else { format!("{kind}.{group}") };
        let message = format!("watch is not supported on resources of kind \"{of}\"");
        Self {
            details: Some(Details { group, kind, ..Details::default() }),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
        }
    }

    pub(crate) fn not_acceptable() -> Self {
        let message = "406: Not Acceptable\n\nAvailable representations: application/json, application/vnd.kubernetes.protobuf".to_owned();
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
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
            details: Some(Details { retry_after_seconds: Some(1), ..Details::default() }),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", error.0)
        }
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        Self::internal(error.to_string())
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
            details: self.details.as_ref(),
            code: self.code.as_u16(),
        };
        let body = serde_json::to_vec(&status).unwrap_or_default();
        (self.code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
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
