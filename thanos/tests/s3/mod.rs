//! As much of S3 as a writer needs: objects, and uploads in parts. It notes what it was asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};

/// What somebody asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authorization: String,
    pub(crate) token: String,
    pub(crate) encryption: String,
}

#[derive(Default)]
struct Content {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// By path and number.
    parts: Mutex<BTreeMap<(String, u32), Vec<u8>>>,
    asked: Mutex<Vec<Asked>>,
    refuses: AtomicBool,
}

pub(crate) struct Server {
    pub(crate) address: String,
    content: Arc<Content>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let content = Arc::new(Content::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let app = axum::Router::new().fallback(answer).layer(DefaultBodyLimit::disable());
        let app = app.with_state(Arc::clone(&content));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, content }
    }

    pub(crate) fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.content.objects.lock().unwrap().clone()
    }

    pub(crate) fn requests(&self) -> Vec<Asked> {
        self.content.asked.lock().unwrap().clone()
    }

    pub(crate) fn refuse(&self) {
        self.content.refuses.store(true, Ordering::Relaxed);
    }
}

async fn answer(
    State(content): State<Arc<Content>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let path = uri.path().trim_start_matches('/').to_owned();
    let query = uri.query().unwrap_or_default().to_owned();
    content.asked.lock().unwrap().push(Asked {
        path: path.clone(),
        query: query.clone(),
        authorization: header("authorization"),
        token: header("x-amz-security-token"),
        encryption: header("x-amz-server-side-encryption"),
    });
    if content.refuses.load(Ordering::Relaxed) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let mut objects = content.objects.lock().unwrap();
    let mut parts = content.parts.lock().unwrap();
    let pairs: BTreeMap<&str, &str> =
        query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    match (method.as_str(), pairs.get("partNumber"), pairs.get("uploadId")) {
        ("HEAD" | "GET", _, _) => match objects.get(&path) {
            Some(object) => {
                let length = object.len().to_string();
                let headers = [
                    ("content-length", length.as_str()),
                    ("etag", "\"e\""),
                    ("last-modified", "Tue, 14 Nov 2023 22:13:20 GMT"),
                ];
                (headers, Bytes::from(if method == Method::HEAD { Vec::new() } else { object.clone() }))
                    .into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
        ("PUT", Some(number), Some(_)) => {
            let number: u32 = number.parse().unwrap();
            let length = body.len();
            parts.insert((path, number), body.to_vec());
            ([("etag", format!("\"{number}-{length}\""))], "").into_response()
        }
        ("PUT", _, _) => {
            objects.insert(path, body.to_vec());
            ([("etag", "\"e\"")], "").into_response()
        }
        ("POST", _, None) => {
            "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
                .into_response()
        }
        ("POST", _, Some(_)) => {
            let all: Vec<_> = parts.extract_if(.., |(object, _), _| *object == path).collect();
            objects.insert(path, all.into_iter().flat_map(|(_, part)| part).collect());
            "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>"
                .into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}
