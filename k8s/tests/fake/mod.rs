//! A small API server for tests: lists with pages, watches with bookmarks, versions that expire, tokens that
//! are refused, and conflicts.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The server. Dropping it leaves the address without an answer.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) world: Arc<World>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the server knows.
pub(crate) struct World {
    state: Mutex<Contents>,
    version: watch::Sender<u64>,
    /// Raised to end all watches.
    generation: watch::Sender<u64>,
}

#[derive(Default)]
struct Contents {
    version: u64,
    /// By resource and key.
    objects: BTreeMap<(String, String), Value>,
    events: Vec<(u64, String, Value)>,
    /// Versions up to here have been forgotten.
    expired: u64,
    /// The tokens taken; all if there is none.
    tokens: Vec<String>,
    requests: Vec<String>,
    /// Tokens and whose they are.
    users: HashMap<String, Value>,
    allowed: bool,
    /// Users who may do everything, whatever `allowed` says.
    permitted: Vec<String>,
    /// The specifications of all reviews so far.
    reviews: Vec<Value>,
    /// So many replacements come to find that somebody else was faster.
    overtaken: usize,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let world = Arc::new(World {
            state: Mutex::default(),
            version: watch::Sender::new(0),
            generation: watch::Sender::new(0),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&world));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, world, task }
    }

    pub(crate) fn server(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl World {
    /// Makes or replaces an object; `metadata` must name it.
    pub(crate) fn put(&self, resource: &str, mut object: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let key = (resource.to_owned(), key_of(&object));
        let old = state.objects.insert(key, object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        state.events.push((version, resource.to_owned(), json!({"type": kind, "object": object})));
        self.version.send_replace(version);
        object
    }

    pub(crate) fn delete(&self, resource: &str, key: &str) {
        let mut state = self.state.lock().unwrap();
        let mut object = state.objects.remove(&(resource.to_owned(), key.to_owned())).unwrap();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        state.events.push((version, resource.to_owned(), json!({"type": "DELETED", "object": object})));
        self.version.send_replace(version);
    }

    /// Sends a bookmark to the watches of a resource.
    pub(crate) fn bookmark(&self, resource: &str) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        let object = json!({"metadata": {"resourceVersion": version.to_string()}});
        state.events.push((version, resource.to_owned(), json!({"type": "BOOKMARK", "object": object})));
        self.version.send_replace(version);
    }

    /// Removes an object without telling those who watch, forgets all versions up to now, and ends all watches.
    pub(crate) fn compact(&self, gone: &[(&str, &str)]) {
        let mut state = self.state.lock().unwrap();
        for (resource, key) in gone {
            state.objects.remove(&((*resource).to_owned(), (*key).to_owned())).unwrap();
        }
        state.version += 1;
        state.expired = state.version;
        drop(state);
        self.end_watches();
    }

    pub(crate) fn end_watches(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    pub(crate) fn accept_tokens(&self, tokens: &[&str]) {
        self.state.lock().unwrap().tokens = tokens.iter().map(ToString::to_string).collect();
    }

    pub(crate) fn know_user(&self, token: &str, user: Value) {
        self.state.lock().unwrap().users.insert(token.to_owned(), user);
    }

    pub(crate) fn allow(&self, allowed: bool) {
        self.state.lock().unwrap().allowed = allowed;
    }

    pub(crate) fn permit(&self, user: &str) {
        self.state.lock().unwrap().permitted.push(user.to_owned());
    }

    /// The specifications of all reviews so far.
    pub(crate) fn reviews(&self) -> Vec<Value> {
        self.state.lock().unwrap().reviews.clone()
    }

    /// The next replacements of objects find that somebody else has changed them just before.
    pub(crate) fn overtake(&self, times: usize) {
        self.state.lock().unwrap().overtaken = times;
    }

    /// An object as it is now.
    pub(crate) fn object(&self, resource: &str, key: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(&(resource.to_owned(), key.to_owned())).cloned()
    }

    /// All requests so far: method, path and query.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

fn key_of(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().unwrap();
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) if !namespace.is_empty() => format!("{namespace}/{name}"),
        _ => name.to_owned(),
    }
}

fn status(code: u16, message: &str) -> Response {
    let body = json!({"kind": "Status", "status": "Failure", "code": code, "reason": "", "message": message});
    (StatusCode::from_u16(code).unwrap(), Json(body)).into_response()
}

/// A path in parts: namespace, resource, name.
fn parts(path: &str) -> (Option<String>, String, Option<String>) {
    let mut parts: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
    parts.drain(..if parts[0] == "api" { 2 } else { 3 });
    let namespace = (parts[0] == "namespaces" && parts.len() > 2).then(|| parts[1].clone());
    if namespace.is_some() {
        parts.drain(..2);
    }
    (namespace, parts[0].clone(), parts.get(1).cloned())
}

async fn answer(
    State(world): State<Arc<World>>,
    (method, uri): (Method, Uri),
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    {
        let mut state = world.state.lock().unwrap();
        state.requests.push(format!("{method} {uri}"));
        let token = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or("");
        if !state.tokens.is_empty() && !state.tokens.iter().any(|known| token == format!("Bearer {known}")) {
            return status(401, "Unauthorized");
        }
    }
    if uri.path() == "/version" {
        return Json(json!({"gitVersion": "v1.36.2"})).into_response();
    }
    if let Some(known) = discovery(uri.path()) {
        return Json(known).into_response();
    }
    let (namespace, resource, name) = parts(uri.path());
    match (method.as_str(), name) {
        ("POST", _) if resource.ends_with("reviews") => review(&world, &resource, &body),
        ("POST" | "PUT", name) => write(&world, &resource, name, &body),
        ("GET", Some(name)) => {
            let key = namespace.map_or(name.clone(), |namespace| format!("{namespace}/{name}"));
            match world.state.lock().unwrap().objects.get(&(resource, key)) {
                Some(object) => Json(object.clone()).into_response(),
                None => status(404, "not found"),
            }
        }
        _ if query.contains_key("watch") => follow(&world, namespace, &resource, &query),
        _ => list(&world, namespace.as_ref(), &resource, &query),
    }
}

/// The kinds of objects that there are.
fn discovery(path: &str) -> Option<Value> {
    let kind = |name: &str, kind: &str, namespaced: bool| json!({"name": name, "singularName": "", "kind": kind, "namespaced": namespaced});
    Some(match path {
        "/api/v1" => json!({"resources": [
            kind("pods", "Pod", true), kind("pods/log", "Pod", true), kind("nodes", "Node", false),
            kind("namespaces", "Namespace", false), kind("services", "Service", true),
        ]}),
        "/apis" => json!({"groups": [
            {"name": "cheese.io", "preferredVersion": {"version": "v2"}},
            {"name": "metrics.k8s.io", "preferredVersion": {"version": "v1beta1"}},
        ]}),
        "/apis/cheese.io/v2" => json!({"resources": [kind("brands", "Brand", true)]}),
        _ => return None,
    })
}

fn review(world: &World, resource: &str, body: &[u8]) -> Response {
    let mut object: Value = serde_json::from_slice(body).unwrap();
    let mut state = world.state.lock().unwrap();
    state.reviews.push(object["spec"].clone());
    object["status"] = if resource == "tokenreviews" {
        match state.users.get(object["spec"]["token"].as_str().unwrap()) {
            Some(user) => json!({"authenticated": true, "user": user}),
            None => json!({"error": "invalid bearer token"}),
        }
    } else {
        let permitted = state.permitted.iter().any(|user| object["spec"]["user"] == **user);
        json!({"allowed": state.allowed || permitted, "reason": format!("{} asked", object["spec"]["user"])})
    };
    (StatusCode::CREATED, Json(object)).into_response()
}

fn write(world: &World, resource: &str, name: Option<String>, body: &[u8]) -> Response {
    let object: Value = serde_json::from_slice(body).unwrap();
    let key = (resource.to_owned(), key_of(&object));
    let overtaken = {
        let mut state = world.state.lock().unwrap();
        let overtaken = name.is_some() && state.overtaken > 0;
        state.overtaken -= usize::from(overtaken);
        overtaken
    };
    if overtaken && let Some(known) = world.object(resource, &key.1) {
        world.put(resource, known);
    }
    let known = world.state.lock().unwrap().objects.get(&key).cloned();
    match (name, known) {
        (None, Some(_)) => return status(409, "already exists"),
        (Some(_), None) => return status(404, "not found"),
        (Some(_), Some(known))
            if known["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] =>
        {
            return status(409, "the object has been modified");
        }
        _ => {}
    }
    Json(world.put(resource, object)).into_response()
}

fn fits(object: &Value, namespace: Option<&String>, query: &HashMap<String, String>) -> bool {
    let in_namespace = namespace.is_none_or(|namespace| object["metadata"]["namespace"] == **namespace);
    let field = query.get("fieldSelector").and_then(|selector| selector.strip_prefix("metadata.name="));
    in_namespace && field.is_none_or(|name| object["metadata"]["name"] == *name)
}

fn list(
    world: &World,
    namespace: Option<&String>,
    resource: &str,
    query: &HashMap<String, String>,
) -> Response {
    let state = world.state.lock().unwrap();
    let all = state.objects.iter().filter(|((kind, _), _)| kind == resource);
    let all = all.map(|(_, object)| object).filter(|object| fits(object, namespace, query));
    let skip: usize = query.get("continue").map_or(0, |token| token.parse().unwrap());
    let limit: usize = query.get("limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
    let items: Vec<&Value> = all.clone().skip(skip).take(limit).collect();
    let more = all.count() > skip + items.len();
    let next = if more { (skip + items.len()).to_string() } else { String::new() };
    let metadata = json!({"resourceVersion": state.version.to_string(), "continue": next});
    Json(json!({"metadata": metadata, "items": items})).into_response()
}

fn follow(
    world: &Arc<World>,
    namespace: Option<String>,
    resource: &str,
    query: &HashMap<String, String>,
) -> Response {
    let from: u64 = query["resourceVersion"].parse().unwrap();
    let (world, resource, query) = (Arc::clone(world), resource.to_owned(), query.clone());
    let (mut version, mut generation) = (world.version.subscribe(), world.generation.subscribe());
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(64);
    if from < world.state.lock().unwrap().expired {
        let object = json!({"code": 410, "message": "too old resource version", "reason": "Expired"});
        return Body::from(format!("{}\n", json!({"type": "ERROR", "object": object}))).into_response();
    }
    tokio::spawn(async move {
        let mut seen = from;
        loop {
            let events: Vec<(u64, Value)> = {
                let state = world.state.lock().unwrap();
                let new = state.events.iter().filter(|(at, kind, _)| *at > seen && *kind == resource);
                new.map(|(at, _, event)| (*at, event.clone())).collect()
            };
            for (at, event) in events {
                seen = at;
                let is_bookmark = event["type"] == "BOOKMARK";
                if !is_bookmark && !fits(&event["object"], namespace.as_ref(), &query) {
                    continue;
                }
                if sender.send(Ok(format!("{event}\n"))).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                _ = version.changed() => {}
                _ = generation.changed() => return,
                () = sender.closed() => return,
            }
        }
    });
    let lines = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|line| (line, receiver))
    });
    Body::from_stream(lines).into_response()
}
