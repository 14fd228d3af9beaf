//! One API server: requests, and the stores that are shared between those who ask for the same objects.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use kube::client::Body;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::meta::Meta;
use crate::store::Store;

/// A kind of object, reduced to what is needed of it. Unknown fields are skipped while it is read.
pub trait Object: DeserializeOwned + PartialEq + Send + Sync + 'static {
    /// Group and version as they stand in a path: `/api/v1`, `/apis/discovery.k8s.io/v1`.
    const API: &'static str;
    /// The resource: `pods`.
    const RESOURCE: &'static str;
    /// The parts of objects that the server sends: all of them, or their metadata alone.
    const METADATA_ONLY: bool = false;

    /// Its metadata.
    fn meta(&self) -> &Meta;
    /// Its metadata.
    fn meta_mut(&mut self) -> &mut Meta;
}

/// Which objects of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Query {
    /// Of this namespace only.
    pub namespace: Option<String>,
    /// A label selector, empty for all.
    pub labels: String,
    /// A field selector, empty for all.
    pub fields: String,
}

/// Why the API server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It answered with a failure.
    #[error("{message} ({code})")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// In its words.
        message: String,
    },
    /// It did not answer, or not in its own terms.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Whether the server said that the thing asked for is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// Whether somebody else was faster.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { code: 409, .. })
    }

    /// Whether a resource version is too old to go on from.
    pub(crate) fn is_expired(&self) -> bool {
        matches!(self, Self::Refused { code: 410, .. })
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused { code: status.code, message: status.message.clone() },
            other => Self::Failed(describe(&other)),
        }
    }
}

/// Objects reduced to their metadata, or whole from a server that cannot.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// An answer under way.
pub type Answering = BoxFuture<'static, Result<Response<UnsyncBoxBody<Bytes, std::io::Error>>, String>>;
/// Carries a request, whose URL is whole, to an API server.
pub type Transport = Arc<dyn Fn(Request<Bytes>) -> Answering + Send + Sync>;

/// A connection to an API server; copies share it.
#[derive(Clone)]
pub struct Client {
    inner: kube::Client,
    namespace: Option<Arc<str>>,
    stores: Arc<Stores>,
}

type Stores = Mutex<HashMap<(TypeId, Query), Weak<dyn Any + Send + Sync>>>;

impl Client {
    pub(crate) fn new(config: kube::Config, namespace: Option<String>) -> kube::Result<Self> {
        let inner = kube::Client::try_from(config)?;
        Ok(Self { inner, namespace: namespace.map(Arc::from), stores: Arc::default() })
    }

    /// A client of the API server at a URL, whose requests are carried by somebody else. To be called on a tokio
    /// runtime.
    ///
    /// # Errors
    /// The URL is none.
    pub fn over(server: &str, transport: Transport) -> Result<Self, String> {
        let server: http::Uri = server.parse().map_err(|error| format!("{server:?}: {error}"))?;
        let (scheme, authority) = (server.scheme().cloned(), server.authority().cloned());
        let prefix = server.path().trim_end_matches('/').to_owned();
        let carry = move |request: Request<Body>| {
            let (transport, scheme, authority) = (Arc::clone(&transport), scheme.clone(), authority.clone());
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let path = format!("{prefix}{path}");
            async move {
                let (mut parts, body) = request.into_parts();
                let mut uri = http::uri::Parts::default();
                (uri.scheme, uri.authority) = (scheme, authority);
                uri.path_and_query = Some(path.parse()?);
                parts.uri = http::Uri::from_parts(uri)?;
                let body = body.collect_bytes().await?;
                Ok::<_, tower::BoxError>(transport(Request::from_parts(parts, body)).await?)
            }
        };
        let inner = kube::Client::new(tower::service_fn(carry), "default");
        Ok(Self { inner, namespace: None, stores: Arc::default() })
    }

    /// The namespace this process runs in, if it runs in a cluster.
    #[must_use]
    pub fn own_namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The server's version: `v1.36.2`.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub async fn version(&self) -> Result<String, Error> {
        #[derive(serde::Deserialize)]
        struct Version {
            #[serde(rename = "gitVersion")]
            git_version: String,
        }
        Ok(self.get::<Version>("/version").await?.git_version)
    }

    /// The objects that fulfil `query`, kept up to date for as long as somebody holds the store. Those who
    /// ask for the same share one. To be called on a tokio runtime.
    #[must_use]
    pub fn store<T: Object>(&self, query: Query) -> Arc<Store<T>> {
        let mut stores = self.stores.lock();
        stores.retain(|_, store| store.strong_count() > 0);
        let key = (TypeId::of::<T>(), query);
        if let Some(store) = stores.get(&key).and_then(Weak::upgrade).and_then(|any| any.downcast().ok()) {
            return store;
        }
        let store = Store::<T>::start(self.clone(), key.1.clone());
        let any: Arc<dyn Any + Send + Sync> = Arc::<Store<T>>::clone(&store);
        stores.insert(key, Arc::downgrade(&any));
        store
    }

    /// Reads what lies at a path.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.ask(Method::GET, path, Vec::new()).await
    }

    /// Posts an object; the server's answer is of its own form.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, object: &impl Serialize) -> Result<T, Error> {
        self.ask(Method::POST, path, encode(object)?).await
    }

    /// Replaces an object.
    ///
    /// # Errors
    /// The server refuses it; [`Error::is_conflict`] if it was changed since it was read.
    pub async fn put<T: DeserializeOwned>(&self, path: &str, object: &impl Serialize) -> Result<T, Error> {
        self.ask(Method::PUT, path, encode(object)?).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, Error> {
        Ok(self.inner.request(request(method, path, body)?).await?)
    }

    /// One answer of a list of objects.
    pub(crate) async fn page<T: Object, L: DeserializeOwned>(&self, path: &str) -> Result<L, Error> {
        let mut request = request(Method::GET, path, Vec::new())?;
        accept::<T>(request.headers_mut(), METADATA_LIST);
        Ok(self.inner.request(request).await?)
    }

    /// The events of objects as they come.
    pub(crate) async fn events<T: Object>(&self, path: &str) -> Result<http::Response<Body>, Error> {
        let mut request = request(Method::GET, path, Vec::new())?.map(Body::from);
        accept::<T>(request.headers_mut(), METADATA);
        Ok(self.inner.send(request).await?)
    }
}

/// Asks for what is needed of objects.
fn accept<T: Object>(headers: &mut header::HeaderMap, metadata: &'static str) {
    if T::METADATA_ONLY {
        headers.insert(header::ACCEPT, header::HeaderValue::from_static(metadata));
    }
}

fn encode(object: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(object).map_err(|error| Error::Failed(error.to_string()))
}

fn request(method: Method, path: &str, body: Vec<u8>) -> Result<Request<Vec<u8>>, Error> {
    let request = Request::builder().method(method).uri(path).header(header::ACCEPT, "application/json");
    let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
    request.map_err(|error| Error::Failed(error.to_string()))
}

impl Query {
    /// The path of all these objects, with further parameters.
    pub(crate) fn path<T: Object>(&self, parameters: &[(&str, &str)]) -> String {
        let mut path = T::API.to_owned();
        if let Some(namespace) = &self.namespace {
            path.push_str("/namespaces/");
            push_encoded(&mut path, namespace);
        }
        path.push('/');
        path.push_str(T::RESOURCE);
        let own = [("labelSelector", self.labels.as_str()), ("fieldSelector", self.fields.as_str())];
        let mut separator = '?';
        for (name, value) in own.iter().chain(parameters).filter(|(_, value)| !value.is_empty()) {
            path.push(separator);
            separator = '&';
            path.push_str(name);
            path.push('=');
            push_encoded(&mut path, value);
        }
        path
    }
}

/// Appends a text as it may stand in a path or parameter.
pub(crate) fn push_encoded(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}
