//! Scrapes targets and hands their samples to the store.
//!
//! This crate is *not* a query engine and knows no PromQL; it reads no configuration file and no
//! environment, and takes the wall clock from its [`Config`].
//!
//! ```no_run
//! # async fn example(db: std::sync::Arc<tsdb::Db>, config: scraper::Config) -> Result<(), scraper::ConfigError> {
//! let shutdown = scraper::Shutdown::new();
//! let handle = scraper::start(config, db, shutdown.clone())?;
//! for target in handle.targets().active {
//!     println!("{} {}", target.url, target.health.as_str());
//! }
//! handle.stop().await;
//! # Ok(()) }
//! ```
//!
//! The hard decision is where labels are looked at: only for new series. A known series is recognised by
//! the bytes in front of its value, which are compared with what stood at that place of the page
//! before; only an unknown series is split into labels, relabelled and looked up in the store.

pub mod cache;
pub mod config;
mod counters;
mod custom;
mod discovery;
pub mod exposition;
mod failure_log;
mod fetch;
mod finder;
#[doc(hidden)]
pub mod hostile;
mod http;
mod inflate;
mod ingest;
mod page;
mod pool;
pub mod relabel;
mod resolution;
mod schedule;
mod series;
mod sink;
pub mod status;
mod target;

#[cfg(test)]
mod corpus;
#[cfg(test)]
#[path = "../../k8s/tests/fake/mod.rs"]
#[expect(dead_code, reason = "k8s tests more of it")]
mod fake;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;

pub use config::{Config, ConfigError, ScrapeJob};
pub use finder::{Finder, Judged, judge};
pub use http::{Client, transport};
pub use sink::{Sink, SinkPage};
pub use status::{Health, PoolStatus, Stats, TargetMetadata, TargetStatus, Targets};
pub use tokio_util::sync::CancellationToken as Shutdown;

use ingest::Store;
use pool::{Pools, Shared};

/// Starts scraping on the current tokio runtime.
///
/// # Errors
/// The configuration cannot be run.
#[expect(clippy::needless_pass_by_value, reason = "the configuration in force belongs to the scraper")]
pub fn start(config: Config, db: Arc<tsdb::Db>, shutdown: Shutdown) -> Result<Handle, ConfigError> {
    config.validate()?;
    let store = Arc::new(Store::new(db, &config));
    let shared = Arc::new(Shared::new(store, Arc::clone(&config.clock), shutdown));
    let pools = Arc::<Mutex<Pools>>::default();
    Pools::apply(&pools, &config, &shared);
    Ok(Handle { pools, shared })
}

/// A running scraper. Dropping it ends the scrapes and marks their series stale as if all targets had
/// been removed; [`Handle::stop`] ends them without.
pub struct Handle {
    pools: Arc<Mutex<Pools>>,
    shared: Arc<Shared>,
}

impl Handle {
    /// All targets, now.
    #[must_use]
    pub fn targets(&self) -> Targets {
        Pools::targets(&self.pools)
    }

    /// Type, help and unit of each family of each target, as last scraped.
    #[must_use]
    pub fn metadata(&self) -> Vec<TargetMetadata> {
        self.pools.lock().metadata()
    }

    /// The relabelling rules of a job's targets, if there is such a job.
    #[must_use]
    pub fn relabel_rules(&self, pool: &str) -> Option<Vec<relabel::Rule>> {
        self.pools.lock().relabel_rules(pool)
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.store.counters.stats()
    }

    /// Each job as a whole, now.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolStatus> {
        self.pools.lock().statuses()
    }

    /// Follows targets for somebody else than a job. Discoveries that a job has, too, run once, and connections
    /// to clusters are shared. To be called on the runtime, and again after [`Handle::reload`].
    #[must_use]
    pub fn find(&self, targets: &[config::TargetGroup], discoveries: &[config::Discovery]) -> Finder {
        Finder::start(targets, discoveries, &self.pools.lock().discovery())
    }

    /// Replaces the configuration; its clock stays the one of the start. Targets that stay as they were
    /// are not disturbed. With an error the old configuration goes on. To be called on the runtime.
    ///
    /// # Errors
    /// The configuration cannot be run.
    #[expect(clippy::needless_pass_by_value, reason = "the configuration in force belongs to the scraper")]
    pub fn reload(&self, config: Config) -> Result<(), ConfigError> {
        config.validate()?;
        Pools::apply(&self.pools, &config, &self.shared);
        self.shared.store.counters.reloads.add(1);
        Ok(())
    }

    /// Ends all scrapes without staleness markers and waits for what is being stored.
    pub async fn stop(&self) {
        self.shared.stop().await;
    }
}
