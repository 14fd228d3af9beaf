//! Keeps the slot map of a cluster: who is there is told by the EndpointSlices of two services, and the one of all
//! routers that holds a lease brings the map up to date, by compare-and-swap.
//!
//! A map that is deleted is put back, and one that is put in its place counts, whatever its number: the keeper writes it
//! again with one above those that routers and shards know, which they would not take it without.
//!
//! What it does by itself only adds: it makes the first map once enough shards are ready, gives a new shard its slots,
//! ends a move when no sample can come late any more, and follows addresses. A shard that is gone keeps its slots, as
//! its samples wait for it in the spools: `pyrometer slots remove` takes it out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s::{Client, EndpointSlice, Lease, LeaseState, Query, Store};
use remote::slots::{MoveError, Place, SlotMap};
use scraper::Shutdown;

use super::SHARD_WINDOW_MS;
use super::command;
use super::object::Object;
use crate::wire::now;

/// How often the lease is renewed and the map looked at.
const EVERY: Duration = Duration::from_secs(2);
/// Another takes over when the holder has been silent for so long.
const LEASE_MS: i64 = 10_000;
/// Time until all routers know a map.
const LEAD_MS: i64 = 30_000;
/// A router whose address is gone is asked for what it holds for this long: it may come back with its spool. One that
/// ends in order and holds nothing takes itself out of the map.
const ROUTER_GONE_MS: i64 = 600_000;
/// The label of a slice that names its service.
const SERVICE: &str = "kubernetes.io/service-name";
/// The name of the port that serves HTTP, if there are several.
const PORT: &str = "http";

/// What the map is made of.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The service of the shards.
    pub(super) shards: String,
    /// The service of the routers.
    pub(super) routers: String,
    /// Copies of each series.
    pub(super) replication: usize,
    /// The first map has at least so many shards.
    pub(super) shards_min: usize,
}

/// Somebody who is there.
#[derive(Clone, Debug, PartialEq)]
struct Member {
    place: Place,
    ready: bool,
    /// It is about to end.
    leaves: bool,
}

/// Those who are there, by name.
#[derive(Clone, Debug, Default, PartialEq)]
struct Members {
    shards: BTreeMap<String, Member>,
    routers: BTreeMap<String, Member>,
}

/// The keeper of a map.
pub(super) struct Keeper {
    object: Object,
    /// What this process knows of it, which may be more than is left of it.
    file: PathBuf,
    wanted: Wanted,
    lease: Lease,
    slices: Arc<Store<EndpointSlice>>,
    /// Since when routers of the map are gone.
    gone: BTreeMap<String, i64>,
}

impl Keeper {
    /// One of perhaps many; `holder` is unique among them. The map is followed into `file`.
    pub(super) fn new(object: Object, file: PathBuf, wanted: Wanted, holder: &str) -> Self {
        let namespace = object.name.namespace.clone();
        let slices = object.client.store(Query { namespace: Some(namespace.clone()), ..Query::default() });
        let lease = Lease::new(&namespace, &object.name.name, holder, LEASE_MS);
        Self { object, file, wanted, lease, slices, gone: BTreeMap::new() }
    }

    /// Keeps the map until the process ends.
    pub(super) async fn run(mut self, stop: Shutdown) {
        let client = self.object.client.clone();
        let mut told = String::new();
        loop {
            let trouble = self.step(&client).await.err().map(|error| crate::describe(&error));
            let trouble = trouble.unwrap_or_default();
            // What goes on is said once.
            if !trouble.is_empty() && trouble != told {
                tracing::warn!("keeping the slot map: {trouble}");
            }
            told = trouble;
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => break,
            }
        }
        // So that the next one need not wait until it runs out.
        let _ = self.lease.release(&client).await;
    }

    async fn step(&mut self, client: &Client) -> anyhow::Result<()> {
        if self.lease.hold(client, now()).await? != LeaseState::Held || !self.slices.is_synced() {
            return Ok(());
        }
        let members = self.members();
        let (read, map) = self.object.read().await?;
        let known = self.known().map_or(0, |known| known.epoch());
        let next = match &map {
            None => self.anew(client, &members).await?,
            Some(map) if map.epoch() < known => {
                let (routers, shards) = command::epochs(&members.routers(), &members.shards()).await?;
                Some(map.clone().above(known.max(routers).max(shards)))
            }
            Some(map) => match self.moved(map, &members)? {
                Some(next) => Some(next),
                None if map.is_moving() => finished(map).await?,
                None => None,
            },
        };
        let Some(next) = next else { return Ok(()) };
        if self.object.write(read, &next).await? {
            let (epoch, shards) = (next.epoch(), next.shards().len());
            tracing::info!("{} has slot map {epoch}, of {shards} shards", self.object);
        }
        Ok(())
    }

    fn known(&self) -> Option<SlotMap> {
        SlotMap::read(&self.file).ok()
    }

    /// The map where there is none: the one that was there, as it says where samples are; or the first.
    async fn anew(&mut self, client: &Client, members: &Members) -> anyhow::Result<Option<SlotMap>> {
        let (routers, shards) = command::epochs(&members.routers(), &members.shards()).await?;
        let known = self.known();
        let own = known.as_ref().map_or(0, SlotMap::epoch);
        if own < routers {
            self.lease.release(client).await?;
            anyhow::bail!(
                "a router goes by slot map {routers}, this one knows {own}: whoever has the newest is to write it again"
            );
        }
        let map = known.map_or_else(|| first(members, &self.wanted), |known| Ok(Some(known)))?;
        Ok(map.map(|map| map.above(own.max(shards))))
    }

    fn members(&self) -> Members {
        let mut members = Members::default();
        for slice in self.slices.all() {
            let into = match slice.meta.labels.get(SERVICE) {
                Some(service) if service == self.wanted.shards => &mut members.shards,
                Some(service) if service == self.wanted.routers => &mut members.routers,
                _ => continue,
            };
            for member in read(&slice) {
                into.insert(member.place.name.clone(), member);
            }
        }
        members
    }

    /// The map with what has changed among those who are there.
    fn moved(&mut self, map: &SlotMap, members: &Members) -> anyhow::Result<Option<SlotMap>> {
        let now = now();
        let gone = map.routers().iter().filter(|router| !members.routers.contains_key(&router.name));
        self.gone = gone.map(|r| (r.name.clone(), self.gone.get(&r.name).copied().unwrap_or(now))).collect();
        let kept = |name: &str| self.gone.get(name).is_some_and(|since| now - since < ROUTER_GONE_MS);
        let routers = routers(map, members, kept);
        if let Some(next) = map.with_places(&members.shards(), routers)? {
            return Ok(Some(next));
        }
        let is_new = |member: &&Member| !map.shards().iter().any(|shard| shard.name == member.place.name);
        match members.shards.values().filter(|member| member.ready && !member.leaves).find(is_new) {
            Some(member) if !map.is_moving() => {
                Ok(Some(map.with_shard(member.place.clone(), now.saturating_add(LEAD_MS))?))
            }
            _ => Ok(None),
        }
    }
}

impl Members {
    fn shards(&self) -> Vec<Place> {
        self.shards.values().map(|member| member.place.clone()).collect()
    }

    fn routers(&self) -> Vec<Place> {
        self.routers.values().map(|member| member.place.clone()).collect()
    }
}

/// The first map, once everybody is there.
fn first(members: &Members, wanted: &Wanted) -> anyhow::Result<Option<SlotMap>> {
    let enough = members.shards.len() >= wanted.shards_min.max(wanted.replication).max(1);
    if !enough || members.routers.is_empty() || members.shards.values().any(|shard| !shard.ready) {
        return Ok(None);
    }
    Ok(Some(SlotMap::first(members.shards(), members.routers(), wanted.replication)?))
}

/// The routers that are there, and those that may come back, in the order of the map.
fn routers(map: &SlotMap, members: &Members, kept: impl Fn(&str) -> bool) -> Vec<Place> {
    let known = map.routers().iter().filter_map(|router| match members.routers.get(&router.name) {
        Some(member) => Some(member.place.clone()),
        None => kept(&router.name).then(|| router.clone()),
    });
    let is_known = |member: &Member| map.routers().iter().any(|router| router.name == member.place.name);
    let is_new = |member: &&Member| !member.leaves && !is_known(member);
    let new = members.routers.values().filter(is_new).map(|member| member.place.clone());
    known.chain(new).collect()
}

/// The map without the move under way, if no sample from before it can come any more.
async fn finished(map: &SlotMap) -> anyhow::Result<Option<SlotMap>> {
    let begun = map.begun(command::known_since(map).await?);
    match begun.finished(now(), SHARD_WINDOW_MS) {
        Ok(next) => Ok(Some(next)),
        Err(MoveError::TooEarly(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Who is in a slice. Pods of a StatefulSet have host names, which stay theirs; others are reached by their address.
fn read(slice: &EndpointSlice) -> Vec<Member> {
    let port = slice.ports.iter().find(|port| port.name.as_deref() == Some(PORT)).or(slice.ports.first());
    let Some(port) = port.and_then(|port| port.port) else { return Vec::new() };
    let service = slice.meta.labels.get(SERVICE).unwrap_or_default();
    let members = slice.endpoints.iter().filter_map(|endpoint| {
        let target = endpoint.target.as_ref().map(|target| target.name.to_string());
        let name = endpoint.hostname.as_ref().map(ToString::to_string).or(target)?;
        let host = match &endpoint.hostname {
            Some(host) => format!("{host}.{service}.{}.svc", slice.meta.namespace),
            None => {
                let address = endpoint.addresses.first()?;
                if address.contains(':') { format!("[{address}]") } else { address.to_string() }
            }
        };
        let place = Place { name, url: format!("http://{host}:{port}") };
        // Behind a service that publishes everybody, only `serving` tells who answers.
        let ready = endpoint.serving.or(endpoint.ready) != Some(false);
        Some(Member { place, ready, leaves: endpoint.terminating == Some(true) })
    });
    members.collect()
}
