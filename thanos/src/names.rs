//! `LabelNames` and `LabelValues`, for completion.

use model::{Labels, Querier as _, Selection};
use tonic::Status;
use tsdb::Snapshot;

use crate::proto::{LabelNamesRequest, LabelValuesRequest};
use crate::request::{self, Conditions, Naming};
use crate::series::failure;

/// The names of labels, ascending.
pub(crate) fn label_names(
    snapshot: &Snapshot,
    request: &LabelNamesRequest,
    external: &Labels,
) -> Result<Vec<String>, Status> {
    let conditions = Conditions::new(&request.matchers, external)?;
    let naming = Naming::new(external, &request.without_replica_labels);
    let range = request::range(request.start, request.end).filter(|_| conditions.possible);
    let Some(range) = range else { return Ok(Vec::new()) };
    let mut names = snapshot.label_names(&conditions.matchers, range, 0).map_err(|error| failure(&error))?;
    if names.is_empty() {
        return Ok(names);
    }
    names.retain(|name| !naming.removes(name));
    names.extend(naming.external_names().map(str::to_owned));
    names.sort_unstable();
    names.dedup();
    names.truncate(request::limit(request.limit).unwrap_or(usize::MAX));
    Ok(names)
}

/// The values of a label, ascending.
pub(crate) fn label_values(
    snapshot: &Snapshot,
    request: &LabelValuesRequest,
    external: &Labels,
) -> Result<Vec<String>, Status> {
    if request.label.is_empty() {
        return Err(Status::invalid_argument("label name parameter cannot be empty"));
    }
    let conditions = Conditions::new(&request.matchers, external)?;
    let is_removed = request.without_replica_labels.contains(&request.label);
    let range = request::range(request.start, request.end).filter(|_| conditions.possible && !is_removed);
    let Some(range) = range else { return Ok(Vec::new()) };
    let matchers = &conditions.matchers;
    if let Some(value) = external.get(&request.label).filter(|value| !value.is_empty()) {
        let any = if matchers.is_empty() {
            true
        } else {
            let selection = Selection::new(matchers, range);
            !snapshot.select_unordered(&selection).map_err(|error| failure(&error))?.is_empty()
        };
        return Ok(if any { vec![value.to_owned()] } else { Vec::new() });
    }
    let limit = request::limit(request.limit).unwrap_or(0);
    snapshot.label_values(&request.label, matchers, range, limit).map_err(|error| failure(&error))
}
