//! Leases: one of many does something, and the others see it.

use serde::{Deserialize, Serialize};

use crate::client::{Client, Error, push_encoded};

/// A lease that is held or tried for. What decides is the API server: a write succeeds only over the
/// state that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who tries for it: unique among all that do.
    pub holder: String,
    /// How long it holds without being renewed.
    pub duration_ms: i64,
    /// The holder's state last seen, and since when by our own clock: other hosts' clocks do not count.
    seen: Option<(String, String, i64)>,
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// We do.
    Held,
    /// Somebody else does.
    Other(String),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Object {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource_version: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(deserialize_with = "crate::meta::nullable")]
    holder_identity: String,
    #[serde(deserialize_with = "crate::meta::nullable")]
    lease_duration_seconds: i64,
    #[serde(deserialize_with = "crate::meta::nullable")]
    renew_time: String,
    #[serde(deserialize_with = "crate::meta::nullable")]
    acquire_time: String,
    #[serde(deserialize_with = "crate::meta::nullable")]
    lease_transitions: i64,
}

impl Lease {
    /// A lease that is not held yet.
    #[must_use]
    pub fn new(namespace: &str, name: &str, holder: &str, duration_ms: i64) -> Self {
        let [namespace, name, holder] = [namespace, name, holder].map(str::to_owned);
        Self { namespace, name, holder, duration_ms, seen: None }
    }

    /// Takes the lease if it is free or has run out, renews it if it is ours. To be called every third of its
    /// duration or so; `now_ms` is the wall clock.
    ///
    /// # Errors
    /// The API server does not answer. The lease then holds until its duration is over, not longer.
    pub async fn hold(&mut self, client: &Client, now_ms: i64) -> Result<LeaseState, Error> {
        let path = self.path(true);
        let mut object: Object = match client.get(&path).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() => Object::default(),
            Err(error) => return Err(error),
        };
        let spec = &mut object.spec;
        let is_ours = spec.holder_identity == self.holder;
        if !is_ours && !spec.holder_identity.is_empty() && !self.has_run_out(spec, now_ms) {
            return Ok(LeaseState::Other(spec.holder_identity.clone()));
        }
        let now = micro_time(now_ms);
        if !is_ours {
            spec.lease_transitions += i64::from(!spec.holder_identity.is_empty());
            spec.acquire_time.clone_from(&now);
        }
        spec.holder_identity.clone_from(&self.holder);
        spec.lease_duration_seconds = (self.duration_ms / 1_000).max(1);
        spec.renew_time = now;
        self.write(client, object).await
    }

    /// Gives the lease up, if it is ours, so that another need not wait.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn release(&mut self, client: &Client) -> Result<(), Error> {
        let mut object: Object = client.get(&self.path(true)).await?;
        if object.spec.holder_identity == self.holder {
            object.spec.holder_identity.clear();
            self.write(client, object).await?;
        }
        Ok(())
    }

    async fn write(&self, client: &Client, mut object: Object) -> Result<LeaseState, Error> {
        (object.api_version, object.kind) = ("coordination.k8s.io/v1".to_owned(), "Lease".to_owned());
        let is_new = object.metadata.resource_version.is_empty();
        (object.metadata.name, object.metadata.namespace) = (self.name.clone(), self.namespace.clone());
        let written: Result<Object, Error> = if is_new {
            client.post(&self.path(false), &object).await
        } else {
            client.put(&self.path(true), &object).await
        };
        match written {
            Ok(_) => Ok(LeaseState::Held),
            Err(error) if error.is_conflict() => {
                let holder = client.get::<Object>(&self.path(true)).await?.spec.holder_identity;
                Ok(LeaseState::Other(holder))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the other holder has not renewed for the duration that it asked for, by our own clock.
    fn has_run_out(&mut self, spec: &Spec, now_ms: i64) -> bool {
        let state = (&spec.holder_identity, &spec.renew_time);
        match &self.seen {
            Some((holder, renewed, since)) if (holder, renewed) == state => {
                now_ms - since > spec.lease_duration_seconds.saturating_mul(1_000)
            }
            _ => {
                self.seen = Some((spec.holder_identity.clone(), spec.renew_time.clone(), now_ms));
                false
            }
        }
    }

    fn path(&self, with_name: bool) -> String {
        let mut path = "/apis/coordination.k8s.io/v1/namespaces/".to_owned();
        push_encoded(&mut path, &self.namespace);
        path.push_str("/leases");
        if with_name {
            path.push('/');
            push_encoded(&mut path, &self.name);
        }
        path
    }
}

/// The form of times in leases: RFC 3339 with microseconds.
fn micro_time(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.6}")
}
