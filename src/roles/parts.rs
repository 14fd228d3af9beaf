//! What roles add to a server: started with it, mounted over its own paths.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use cluster::Cell;
use promql::Engine;
use remote::receive::Receiver;
use remote::router::Router;
use scraper::Shutdown;
use tsdb::Db;

use super::keeper::{Keeper, Wanted};
use super::object::{self, Object};
use super::{Role, querier, router, shard};
use crate::cli::Cli;
use crate::terminal::Greeting;

/// A router that ends waits so long for the API server.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a shard answers with, once its store is open.
pub(super) struct Store {
    pub(super) db: Arc<Db>,
    pub(super) receiver: Arc<Receiver>,
    pub(super) engine: Arc<Engine>,
}

/// What roles add.
pub(crate) struct Parts {
    router: Option<Arc<Router>>,
    cell: Option<Arc<Cell>>,
    store: Arc<OnceLock<Store>>,
    /// Where the cluster has the slot map, the file that has it here, and this router's name in it.
    map: Option<(Object, PathBuf, String)>,
}

impl Parts {
    /// Starts what needs no store. Where the slot map is in the cluster, waits until there is one.
    pub(crate) async fn start(
        cli: &Cli,
        host_name: &str,
        cluster: Option<&k8s::Access>,
        stop: &Shutdown,
    ) -> anyhow::Result<Self> {
        let (flags, data_dir) = (&cli.cluster, &cli.storage.path);
        let (is_router, is_querier) = (flags.has(Role::Router), flags.has(Role::Querier));
        let mut followed = None;
        if is_router || is_querier {
            let name = flags.router_name.as_deref().unwrap_or(host_name);
            followed = Self::follow_map(cli, name, cluster, stop).await?;
        }
        let router = is_router.then(|| router::start(flags, host_name, data_dir, stop));
        let map = || flags.map_file(data_dir);
        let cell = is_querier.then(|| querier::start(map()?, stop));
        Ok(Self {
            router: router.transpose().context("--role=router")?,
            cell: cell.transpose().context("--role=querier")?,
            store: Arc::default(),
            map: followed,
        })
    }

    /// Begins to follow the slot map of a cluster, and to keep it, and waits for it.
    async fn follow_map(
        cli: &Cli,
        name: &str,
        cluster: Option<&k8s::Access>,
        stop: &Shutdown,
    ) -> anyhow::Result<Option<(Object, PathBuf, String)>> {
        let flags = &cli.cluster;
        let Some(object) = flags.map_object.clone() else { return Ok(None) };
        let access = cluster.context("--cluster.slot-map-object needs a cluster: see --kubernetes")?;
        let object = Object { client: access.connect().await?, name: object };
        let file = flags.map_file(&cli.storage.path)?;
        tokio::spawn(object.clone().follow(file.clone(), stop.clone()));
        let is_router = flags.has(Role::Router);
        if let (true, Some(shards), Some(routers)) = (is_router, &flags.shard_service, &flags.router_service)
        {
            let wanted = Wanted {
                shards: shards.clone(),
                routers: routers.clone(),
                replication: flags.replication,
                shards_min: flags.shards_min,
            };
            tokio::spawn(Keeper::new(object.clone(), file.clone(), wanted, name).run(stop.clone()));
        }
        let come = object::has_come(&file, is_router.then_some(name), stop).await;
        anyhow::ensure!(come, "stopped before there was a slot map");
        Ok(Some((object, file, name.to_owned())))
    }

    /// A router that takes nothing any more, and holds nothing, is no longer to be asked.
    pub(crate) async fn leave(&self) {
        let (Some(router), Some((object, file, name))) = (&self.router, &self.map) else { return };
        if !router.backlog().shards.is_empty() {
            return;
        }
        let left = tokio::time::timeout(LEAVE_TIMEOUT, object.leave(file, name)).await;
        if let Err(error) = left.map_err(anyhow::Error::from).flatten() {
            tracing::warn!("this router stays in the slot map: {}", crate::describe(&error));
        }
    }

    /// The roles' paths before those of `rest`.
    pub(crate) fn mount(&self, cli: &Cli, rest: axum::Router, stop: &Shutdown) -> axum::Router {
        let mut routes = axum::Router::new();
        if let Some(router) = &self.router {
            routes = routes.merge(router::routes(Arc::clone(router), cli.cluster.is_router_alone()));
        }
        if cli.cluster.has(Role::Shard) {
            routes = routes.merge(shard::routes(&cli.cluster, Arc::clone(&self.store), stop));
        }
        let rest = if cli.cluster.has(Role::Agent) { super::refuse_queries(rest) } else { rest };
        routes.fallback_service(rest)
    }

    /// From now on a shard takes samples and answers; gives the receiver back.
    pub(crate) fn attach(
        &self,
        db: &Arc<Db>,
        receiver: Option<Arc<Receiver>>,
        engine: &Arc<Engine>,
    ) -> Option<Arc<Receiver>> {
        if let Some(receiver) = receiver.clone() {
            let (db, engine) = (Arc::clone(db), Arc::clone(engine));
            let _ = self.store.set(Store { db, receiver, engine });
        }
        receiver
    }

    /// The shards that a querier asks.
    pub(crate) fn cell(&self) -> Option<Arc<Cell>> {
        self.cell.clone()
    }

    /// Greets for a router that is nothing else.
    pub(crate) fn greet(&self, url: String, spool_dir: &std::path::Path) {
        let shards = self.router.as_ref().map_or(0, |router| router.map().shards().len());
        let scrapes = format!("nothing: this is a router, its samples go to {shards} shards");
        let kept = format!("samples are kept in {}", spool_dir.display());
        Greeting { version: env!("CARGO_PKG_VERSION"), scrapes, url, kept }.print();
    }
}
