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

/// Nothing.
pub(crate) struct Thanos;

#[expect(clippy::unused_self, clippy::unused_async, reason = "the face of what is not there")]
impl Thanos {
    pub(crate) async fn start(
        _: &Cli,
        _: &Loaded,
        _: &Arc<Db>,
        _: (&api::State, &Shutdown),
    ) -> anyhow::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        Ok((Arc::new(Self), Vec::new()))
    }

    pub(crate) fn reload(&self, _: &Loaded) {}
}
