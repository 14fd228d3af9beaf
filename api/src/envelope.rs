//! The envelope around every answer, and how failures map to it.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::StorageError;
use promql::QueryError;
use serde::Serialize;

/// A failure in the API's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    kind: ErrorKind,
    message: String,
}

/// The `errorType` of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    BadData,
    Execution,
    Canceled,
    Timeout,
    Internal,
    NotFound,
    Unavailable,
    /// What a flag would enable.
    Disabled,
}

impl ErrorKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
            Self::NotFound => "not_found",
            Self::Unavailable | Self::Disabled => "unavailable",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            // The code that nginx made known for "client closed request"; nobody is there to read it.
            Self::Canceled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::Timeout | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal | Self::Disabled => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
        }
    }
}

impl ApiError {
    pub(crate) fn new(kind: ErrorKind, message: String) -> Self {
        Self { kind, message }
    }

    /// The error, which a parameter's value has caused.
    pub(crate) fn of_parameter(self, name: &str) -> Self {
        Self { message: format!("invalid parameter {name:?}: {}", self.message), ..self }
    }

    pub(crate) fn bad_data(message: String) -> Self {
        Self::new(ErrorKind::BadData, message)
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        let kind = match error {
            StorageError::Cancelled => ErrorKind::Canceled,
            StorageError::Unavailable(_) => ErrorKind::Unavailable,
            StorageError::Corrupt { .. } | StorageError::Io { .. } => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let message = error.to_string();
        match error {
            QueryError::Storage(error) => error.into(),
            QueryError::Cancelled => Self::new(ErrorKind::Canceled, message),
            QueryError::Timeout(_) => Self::new(ErrorKind::Timeout, message),
            _ => Self::new(ErrorKind::Execution, message),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    status: &'static str,
    error_type: &'static str,
    error: &'a str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let failure = Failure { status: "error", error_type: self.kind.as_str(), error: &self.message };
        let body = serde_json::to_vec(&failure).unwrap_or_default();
        (self.kind.status(), [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

#[derive(Serialize)]
struct Success<'a, T> {
    status: &'static str,
    data: &'a T,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
}

/// A small answer, serialized at once.
pub(crate) fn success<T: Serialize>(data: &T) -> Response {
    success_with(data, &[])
}

/// A small answer with warnings.
pub(crate) fn success_with<T: Serialize>(data: &T, warnings: &[String]) -> Response {
    match serde_json::to_vec(&Success { status: "success", data, warnings }) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => ApiError::new(ErrorKind::Internal, error.to_string()).into_response(),
    }
}

/// The warning that a list was cut by `limit`.
pub(crate) fn truncated() -> String {
    "results truncated due to limit".to_owned()
}
