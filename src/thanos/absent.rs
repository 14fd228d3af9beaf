//! Stands for the parts that Thanos needs where the binary is built without them.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tsdb::Db;

use crate::cli::Cli;
use crate::config::Loaded;
use scraper::Shutdown;

/// No flags: they are not known then.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "thanos")]
pub(crate) struct Flags {}

impl Flags {
    pub(crate) fn ships(&self) -> bool {
        false
    }

    pub(crate) fn check(&self, _: &Cli, _: &Loaded) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Nothing.
pub(crate) struct Thanos;

impl Thanos {
    pub(crate) async fn start(
        _: &Cli,
        _: &Loaded,
        _: &Arc<Db>,
        _: (&api::State, &Shutdown),
    ) -> anyhow::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        Ok((Arc::new(Self), Vec::new()))
    }

    pub(crate) fn reload(&self, _: &Loaded) -> anyhow::Result<()> {
        Ok(())
    }
}
