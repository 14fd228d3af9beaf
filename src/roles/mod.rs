//! What this process is for, if it is not everything: a router, a shard, a querier, an agent.

mod agent;
mod command;
mod keeper;
mod map;
mod metrics;
mod object;
mod parts;
mod querier;
mod router;
mod shard;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgAction, Args, ValueEnum};

use crate::cli::{Bytes, Milliseconds, bytes, duration_ms};
use crate::config::Loaded;

use agent::refuse_queries;
pub(crate) use command::{Slots, run as run_slots};
use object::Name as MapName;
pub(crate) use parts::Parts;

/// Late samples that a shard takes if its configuration does not say: as long as they may wait for it.
pub(crate) const SHARD_WINDOW_MS: i64 = 2 * 3_600_000;

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Scrapes, stores and answers, alone.
    All,
    /// Takes remote write and sends each series to the shards that own it.
    Router,
    /// Stores what routers send, and answers queriers.
    Shard,
    /// Answers queries from all shards.
    Querier,
    /// Scrapes and sends on by remote write; answers no queries.
    Agent,
}

/// Roles, and what they need.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Past one machine")]
pub(crate) struct Flags {
    /// What this process is for; several may be given, separated by commas.
    #[arg(long = "role", value_enum, value_name = "ROLE", value_delimiter = ',', default_value = "all")]
    pub(crate) roles: Vec<Role>,

    /// The same as --role=agent.
    #[arg(long = "agent", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", action = ArgAction::Set)]
    pub(crate) agent: bool,

    /// The slot map: which shard holds which series. It is looked at every second. Needed by routers and
    /// queriers; `pyrometer slots` makes and changes it.
    #[arg(long = "cluster.slot-map", value_name = "FILE")]
    pub(crate) map: Option<PathBuf>,

    /// A config map that has the slot map: NAMESPACE/NAME. It is followed into the file of --cluster.slot-map, by
    /// default "slot-map.json" in the data directory.
    #[arg(long = "cluster.slot-map-object", value_name = "NAMESPACE/NAME")]
    pub(crate) map_object: Option<MapName>,

    /// The service of the shards, and that of the routers, in the config map's namespace: a router that is given both
    /// keeps the map (or another one does: whoever holds the lease of the config map's name). New shards get their
    /// slots; a shard that is gone keeps them until `pyrometer slots remove`.
    #[arg(long = "cluster.shard-service", value_name = "NAME", requires_all = ["map_object", "router_service"])]
    pub(crate) shard_service: Option<String>,

    /// See --cluster.shard-service.
    #[arg(long = "cluster.router-service", value_name = "NAME", requires = "shard_service")]
    pub(crate) router_service: Option<String>,

    /// How many shards have each series, 1 to 3: in the first map that a router makes.
    #[arg(long = "cluster.replication", value_name = "N", default_value_t = 1)]
    pub(crate) replication: usize,

    /// The first map is made when so many shards are ready.
    #[arg(long = "cluster.shards-min", value_name = "N", default_value_t = 1)]
    pub(crate) shards_min: usize,

    /// The router's name in the slot map, by which queriers know whom to ask what waits; by default the machine's.
    #[arg(long = "router.name", value_name = "NAME")]
    pub(crate) router_name: Option<String>,

    /// Where a router keeps what shards cannot take; by default "spool" in the data directory.
    #[arg(long = "router.spool-dir", value_name = "DIR")]
    pub(crate) spool_dir: Option<PathBuf>,

    /// How much may wait for one shard; beyond, senders are told to wait.
    #[arg(long = "router.spool-size", value_name = "BYTES", default_value = "4GB", value_parser = bytes)]
    pub(crate) spool_bytes_max: Bytes,

    /// A shard that takes longer to store a request is sent nothing more until it is back.
    #[arg(long = "router.shard-timeout", value_name = "DURATION", default_value = "800ms", value_parser = duration_ms)]
    pub(crate) shard_timeout: Milliseconds,

    /// Of writers that differ in the label __replica__ only, with a label cluster, take one's samples.
    #[arg(long = "router.ha-pairs", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", action = ArgAction::Set)]
    pub(crate) pairs: bool,
}

impl Flags {
    pub(crate) fn has(&self, role: Role) -> bool {
        let default = role == Role::All && self.agent;
        self.roles.contains(&role) && !default || role == Role::Agent && self.agent
    }

    /// Whether there is no store and nothing to scrape.
    pub(crate) fn is_router_alone(&self) -> bool {
        !self.agent && self.roles.iter().all(|role| *role == Role::Router)
    }

    /// Whether this machine and this process are scraped without a word in the configuration.
    pub(crate) fn scrapes_itself(&self) -> bool {
        self.has(Role::All) || self.has(Role::Agent)
    }

    /// The slot map's file.
    pub(crate) fn map_file(&self, data_dir: &Path) -> anyhow::Result<PathBuf> {
        let of_object = || self.map_object.as_ref().map(|_| data_dir.join("slot-map.json"));
        self.map.clone().or_else(of_object).ok_or_else(|| {
            anyhow::anyhow!("--role=router and querier need --cluster.slot-map or --cluster.slot-map-object")
        })
    }

    /// What makes no sense together.
    pub(crate) fn check(&self, loaded: &Loaded) -> anyhow::Result<()> {
        anyhow::ensure!(
            loaded.rules.is_empty() || !self.has(Role::Querier),
            "rule_files: a querier evaluates no rules yet; let shards or another server evaluate them"
        );
        anyhow::ensure!(
            loaded.remote_read.is_empty() || !self.has(Role::Querier) && !self.has(Role::Agent),
            "remote_read: a querier reads from its shards, and an agent answers no queries"
        );
        let answers = self.has(Role::All) || self.has(Role::Querier) || self.has(Role::Shard);
        anyhow::ensure!(
            !(self.has(Role::Agent) && answers),
            "an agent answers no queries: --role=agent stands alone or with router"
        );
        anyhow::ensure!(!self.has(Role::All) || self.roles.len() == 1, "--role=all stands alone");
        if self.has(Role::Router) || self.has(Role::Querier) {
            self.map_file(Path::new(""))?;
        }
        Ok(())
    }
}

/// Connections to a process that are kept.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// What speaks to other processes of the cell.
fn client(connect_timeout: Duration) -> anyhow::Result<reqwest::Client> {
    // Only the first time; the others find it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(connect_timeout)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .tcp_nodelay(true)
        .user_agent(concat!("Pyrometer/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("a client for routers and shards")
}
