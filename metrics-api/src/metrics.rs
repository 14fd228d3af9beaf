//! `nodes` and `pods` of `metrics.k8s.io/v1beta1`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use axum::body::Body;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::accept::{self, Shape};
use crate::adapter::Resolved;
use crate::adapter::values::{Missing, View};
use crate::errors::ApiError;
use crate::objects::{GROUP_VERSION, List, ListMeta, Metrics, PartialObjectMetadata, Table};
use crate::pod_list::{Form, LabelTexts, PodList};
use crate::selector::{FieldSelector, LabelSelector};
use crate::usage::{ListedPod, NodeUsage, PodScope, PodTable, PodUsage};
use crate::{PodInfo, Source, State, protobuf};

/// Parameters that every list and get understands.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Parameters {
    label_selector: String,
    field_selector: String,
    limit: Option<String>,
    r#continue: String,
    watch: Option<String>,
    pretty: Option<String>,
}

/// A request after its parameters have been checked.
struct Request {
    shape: Shape,
    pretty: bool,
    labels: LabelSelector,
    fields: FieldSelector,
    limit: usize,
    after: Option<(String, String)>,
}

impl Request {
    fn new(headers: &HeaderMap, parameters: &Parameters, kind: &'static str) -> Result<Self, ApiError> {
        if matches!(parameters.watch.as_deref(), Some("true" | "1")) {
            return Err(ApiError::no_watch(kind, "metrics.k8s.io"));
        }
        let limit = match parameters.limit.as_deref() {
            None | Some("") => 0,
            Some(text) => text.parse().map_err(|_| {
                ApiError::bad_request(format!("limit: {text:?} is not a non-negative whole number"))
            })?,
        };
        Ok(Self {
            shape: accept::shape(headers)?,
            pretty: accept::wants_pretty(headers, parameters.pretty.as_deref()),
            labels: LabelSelector::parse(&parameters.label_selector)?,
            fields: FieldSelector::parse(&parameters.field_selector, kind == "pods")?,
            limit,
            after: continue_position(&parameters.r#continue)?,
        })
    }

    /// Cuts `items`, sorted by key, down to the page asked for.
    fn page(&self, mut items: Vec<Metrics>) -> (ListMeta, Vec<Metrics>) {
        if let Some((namespace, name)) = &self.after {
            items.retain(|item| item.key() > (namespace.as_str(), name.as_str()));
        }
        let mut meta = ListMeta::default();
        if self.limit > 0 && items.len() > self.limit {
            meta.remaining_item_count = Some(items.len() - self.limit);
            items.truncate(self.limit);
            if let Some(last) = items.last() {
                let (namespace, name) = last.key();
                meta.continue_token = format!("{namespace}/{name}");
            }
        }
        (meta, items)
    }

    fn list(&self, kind: &'static str, items: Vec<Metrics>) -> Response {
        let (metadata, items) = self.page(items);
        match self.shape {
            Shape::Object => self.json(&List { kind, api_version: GROUP_VERSION, metadata, items }),
            Shape::Yaml => yaml(&List { kind, api_version: GROUP_VERSION, metadata, items }),
            Shape::Protobuf => binary(protobuf::list(kind, &metadata, &items)),
            Shape::Table(version) => self.json(&Table::new(version, metadata, &items)),
            Shape::PartialObjectMetadata => self.json(&List {
                kind: "PartialObjectMetadataList",
                api_version: "meta.k8s.io/v1",
                metadata,
                items: items.iter().map(PartialObjectMetadata::from).collect(),
            }),
        }
    }

    fn one(&self, item: Metrics) -> Response {
        match self.shape {
            Shape::Object => self.json(&item.standalone()),
            Shape::Yaml => yaml(&item.standalone()),
            Shape::Protobuf => binary(protobuf::object(&item)),
            Shape::Table(version) => self.json(&Table::new(version, ListMeta::default(), &[item])),
            Shape::PartialObjectMetadata => self.json(&PartialObjectMetadata::from(&item)),
        }
    }

    fn json<T: Serialize>(&self, value: &T) -> Response {
        json(value, self.pretty)
    }
}

fn binary(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, accept::PROTOBUF)], body).into_response()
}

/// A YAML answer with its keys in order, as from an API server.
fn yaml<T: Serialize>(value: &T) -> Response {
    let sorted = serde_json::to_value(value).unwrap_or_default();
    let body = serde_saphyr::to_string(&sorted).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/yaml")], body).into_response()
}

/// A JSON answer, indented if a person reads it.
pub(crate) fn json<T: Serialize>(value: &T, pretty: bool) -> Response {
    let body = if pretty { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) };
    ([(header::CONTENT_TYPE, "application/json")], body.unwrap_or_default()).into_response()
}

/// Reads a continue token: the key of the last item of the page before. Keys are stable, so a list
/// taken in pages shows each object that exists throughout exactly once.
fn continue_position(token: &str) -> Result<Option<(String, String)>, ApiError> {
    if token.is_empty() {
        return Ok(None);
    }
    let (namespace, name) = token.split_once('/').ok_or_else(|| ApiError::expired(token))?;
    Ok(Some((namespace.to_owned(), name.to_owned())))
}

/// Runs `read` off the async threads: it decodes chunks.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let outcome = tokio::task::spawn_blocking(read).await;
    outcome.unwrap_or_else(|_| Err(crate::Unavailable("reading the store failed".to_owned()).into()))
}

pub(crate) async fn list_nodes(
    Shared(state): Shared<State>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let request = Request::new(&headers, &parameters, "nodes")?;
    let (request, items) = blocking(move || {
        let items = nodes(&state, None, |name, labels| {
            request.fields.matches("", name) && request.labels.matches(labels)
        })?;
        Ok((request, items))
    })
    .await?;
    Ok(request.list("NodeMetricsList", items))
}

pub(crate) async fn get_node(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let request = Request::new(&headers, &parameters, "nodes")?;
    if !state.source.nodes().iter().any(|node| node.name == name) {
        return Err(ApiError::not_found("node", &name));
    }
    let wanted = name.clone();
    let items = blocking(move || nodes(&state, Some(&wanted), |_, _| true)).await?;
    let item = items.into_iter().next().ok_or_else(|| ApiError::no_metrics("nodemetrics", &name))?;
    Ok(request.one(item))
}

type LabelMap = std::collections::BTreeMap<String, String>;

fn nodes(
    state: &State,
    name: Option<&str>,
    keep: impl Fn(&str, &LabelMap) -> bool,
) -> Result<Vec<Metrics>, ApiError> {
    let now = state.source.now();
    let mut usage = node_usage(state, now, name)?;
    let infos: HashMap<String, _> = state.source.nodes().into_iter().map(|n| (n.name.clone(), n)).collect();
    if let Some(adapter) = &state.adapter {
        let mut others: Vec<String> =
            infos.keys().filter(|node| name.is_none_or(|name| name == *node)).cloned().collect();
        others.retain(|node| usage.iter().all(|known| known.name != *node));
        others.sort_unstable();
        if !others.is_empty() && adapter.current().rules.resource.is_some() {
            let querier = state.source.querier()?;
            let view = View { engine: adapter.engine(), querier: &*querier, now };
            usage.extend(adapter.current().node_usage(view, &others).map_err(by_rules)?);
            usage.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }
    let known = usage.iter().filter_map(|node| Some((infos.get(&node.name)?, node)));
    let kept = known.filter(|(info, node)| keep(&node.name, &info.labels));
    Ok(kept.map(|(info, node)| Metrics::node(info, node, now)).collect())
}

fn by_rules(missing: Missing) -> ApiError {
    crate::custom::missing(missing, "cpu or memory", "resourceRules")
}

/// The usage of pods that no kubelet has told us of, where rules say where else it is found.
fn pods_by_rules(
    resolved: &Resolved,
    view: View<'_>,
    scope: PodScope<'_>,
    source: &dyn Source,
    table: &PodTable,
) -> Result<Vec<PodUsage>, ApiError> {
    let known: HashSet<[&str; 2]> = table.iter().map(ListedPod::key).collect();
    let mut others: BTreeMap<String, Vec<String>> = BTreeMap::new();
    source.visit_pods(scope.namespace, &mut |pod| {
        let wanted = scope.name.is_none_or(|name| name == pod.name);
        if wanted && !known.contains(&[pod.namespace, pod.name]) {
            others.entry(pod.namespace.to_owned()).or_default().push(pod.name.to_owned());
        }
    });
    let mut usage = Vec::new();
    for (namespace, names) in others {
        usage.extend(resolved.pod_usage(view, &namespace, &names).map_err(by_rules)?);
    }
    Ok(usage)
}

pub(crate) async fn list_all_pods(
    shared: Shared<State>,
    parameters: Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    pod_list(shared.0, None, &parameters.0, &headers).await
}

pub(crate) async fn list_pods(
    shared: Shared<State>,
    Path(namespace): Path<String>,
    parameters: Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    pod_list(shared.0, Some(namespace), &parameters.0, &headers).await
}

async fn pod_list(
    state: State,
    namespace: Option<String>,
    parameters: &Parameters,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let request = Request::new(headers, parameters, "pods")?;
    let (lister, all) = (Arc::clone(&state.lister), namespace.is_none());
    let read = move || {
        let scope = PodScope { namespace: namespace.as_deref(), name: None };
        match request.shape {
            Shape::Object if !request.pretty => return plain_list(&state, scope, &request, Form::Json),
            Shape::Protobuf => return plain_list(&state, scope, &request, Form::Protobuf),
            _ => {}
        }
        let items = pods(&state, scope, |namespace, name, labels| {
            request.fields.matches(namespace, name) && request.labels.matches_pairs(labels)
        })?;
        Ok(request.list("PodMetricsList", items))
    };
    if all { lister.run(read).await } else { blocking(read).await }
}

/// The list without objects in between; as JSON it is written while it is sent.
fn plain_list(
    state: &State,
    scope: PodScope<'_>,
    request: &Request,
    form: Form,
) -> Result<Response, ApiError> {
    let (now, table) = pod_table(state, scope)?;
    let labels = labels(state, &table, scope.namespace, request);
    let list = PodList::new(table, labels, now, request.after.as_ref(), request.limit);
    Ok(match form {
        Form::Json => streamed("application/json", list.json()),
        Form::Protobuf => streamed(accept::PROTOBUF, list.protobuf()),
    })
}

fn streamed(media_type: &'static str, pieces: impl Iterator<Item = Vec<u8>> + Send + 'static) -> Response {
    let pieces = futures::stream::iter(pieces.map(Ok::<_, std::convert::Infallible>));
    ([(header::CONTENT_TYPE, media_type)], Body::from_stream(pieces)).into_response()
}

/// The labels of the pods that are listed: those of the last list of all, if they still are what they were.
fn labels(state: &State, table: &PodTable, namespace: Option<&str>, request: &Request) -> Arc<LabelTexts> {
    let source = &*state.source;
    if !request.fields.is_empty() || !request.labels.is_empty() || namespace.is_some() {
        return Arc::new(LabelTexts::new(table, source, namespace, |namespace, name, labels| {
            request.fields.matches(namespace, name) && request.labels.matches_pairs(labels)
        }));
    }
    let last = || state.labels.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(labels) = last().clone().filter(|labels| labels.fit(table, source)) {
        return labels;
    }
    let labels = Arc::new(LabelTexts::new(table, source, None, |_, _, _| true));
    *last() = Some(Arc::clone(&labels));
    labels
}

pub(crate) async fn get_pod(
    Shared(state): Shared<State>,
    Path((namespace, name)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let request = Request::new(&headers, &parameters, "pods")?;
    if !state.source.has_pod(&namespace, &name) {
        return Err(ApiError::not_found("pods", &name));
    }
    let key = format!("{namespace}/{name}");
    let items = blocking(move || {
        let scope = PodScope { namespace: Some(&namespace), name: Some(&name) };
        pods(&state, scope, |_, _, _| true)
    })
    .await?;
    let item = items.into_iter().next().ok_or_else(|| ApiError::no_metrics("podmetrics", &key))?;
    Ok(request.one(item))
}

/// Usage of all nodes, or of one, as kubelets tell it.
pub(crate) fn node_usage(
    state: &State,
    now: model::Timestamp,
    name: Option<&str>,
) -> Result<Vec<NodeUsage>, ApiError> {
    match state.source.newest() {
        Some(newest) => Ok(newest.nodes(now, name)),
        None => Ok(state.reader.nodes(&*state.source.querier()?, now, name)?),
    }
}

/// Usage of the pods in `scope`, as kubelets tell it.
pub(crate) fn pod_usage(
    state: &State,
    now: model::Timestamp,
    scope: PodScope<'_>,
) -> Result<PodTable, ApiError> {
    match state.source.newest() {
        Some(newest) => Ok(newest.pods(now, scope)),
        None => Ok(state.reader.pods(&*state.source.querier()?, now, scope)?),
    }
}

/// The time of the request, and the usage of the pods in `scope` in the order of lists.
fn pod_table(state: &State, scope: PodScope<'_>) -> Result<(model::Timestamp, PodTable), ApiError> {
    let now = state.source.now();
    let table = pod_usage(state, now, scope)?;
    let rules = state.adapter.as_ref().map(|adapter| (adapter, adapter.current()));
    let Some((adapter, current)) = rules.filter(|(_, current)| current.rules.resource.is_some()) else {
        return Ok((now, table));
    };
    let querier = state.source.querier()?;
    let view = View { engine: adapter.engine(), querier: &*querier, now };
    let added = pods_by_rules(&current, view, scope, &*state.source, &table)?;
    if added.is_empty() {
        return Ok((now, table));
    }
    let mut usage = table.to_usage();
    usage.extend(added);
    usage.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok((now, PodTable::of(&usage)))
}

fn pods(
    state: &State,
    scope: PodScope<'_>,
    keep: impl Fn(&str, &str, &[(&str, &str)]) -> bool,
) -> Result<Vec<Metrics>, ApiError> {
    let (now, table) = pod_table(state, scope)?;
    let usage = table.to_usage();
    let by_name: HashMap<(&str, &str), usize> =
        usage.iter().enumerate().map(|(at, pod)| ((pod.namespace.as_str(), pod.name.as_str()), at)).collect();
    let mut kept: Vec<Option<Metrics>> = usage.iter().map(|_| None).collect();
    state.source.visit_pods(scope.namespace, &mut |view| {
        let Some(&at) = by_name.get(&(view.namespace, view.name)) else { return };
        if keep(view.namespace, view.name, view.labels) {
            let labels = view.labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let info = PodInfo { labels, ..PodInfo::default() };
            kept[at] = Some(Metrics::pod(&info, &usage[at], now));
        }
    });
    Ok(kept.into_iter().flatten().collect())
}
