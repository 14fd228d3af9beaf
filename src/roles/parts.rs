//! What roles add to a server: started with it, mounted over its own paths.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use cluster::Cell;
use promql::Engine;
use remote::receive::Receiver;
use remote::router::Router;
use scraper::Shutdown;
use tsdb::Db;

use super::{Role, querier, router, shard};
use crate::cli::Cli;
use crate::terminal::Greeting;

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
}

impl Parts {
    /// Starts what needs no store.
    pub(crate) fn start(cli: &Cli, address: SocketAddr, stop: &Shutdown) -> anyhow::Result<Self> {
        let router = cli.cluster.has(Role::Router).then(|| {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let name = format!("{}:{}", name.trim(), address.port());
            router::start(&cli.cluster, &name, &cli.storage.path, stop)
        });
        let cell = cli.cluster.has(Role::Querier).then(|| querier::start(&cli.cluster, stop));
        Ok(Self {
            router: router.transpose().context("--role=router")?,
            cell: cell.transpose().context("--role=querier")?,
            store: Arc::default(),
        })
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
    pub(crate) fn greet(&self, url: String, spool_dir: String) {
        let shards = self.router.as_ref().map_or(0, |router| router.map().shards().len());
        let scrapes = format!("nothing: this is a router, its samples go to {shards} shards");
        Greeting { version: env!("CARGO_PKG_VERSION"), scrapes, url, data_dir: spool_dir }.print();
    }
}
