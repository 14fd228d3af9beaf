//! Where the metrics APIs read: the store of this process, or the shards that a querier asks.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cluster::Cell;
use metrics_api::Unavailable;
use model::Querier;
use tsdb::Db;

/// Reading from shards may take so long: the API server gives up after a minute, the autoscaler after less.
const SHARDS_TIMEOUT: Duration = Duration::from_secs(10);

/// The store, once it is open, or the shards.
#[derive(Clone)]
pub(crate) struct Samples {
    store: Arc<OnceLock<Arc<Db>>>,
    cell: Option<Arc<Cell>>,
}

impl Samples {
    pub(crate) fn new(store: &Arc<OnceLock<Arc<Db>>>, cell: Option<Arc<Cell>>) -> Self {
        Self { store: Arc::clone(store), cell }
    }

    /// A view as of now. Shards that do not answer are an error: the autoscaler would take what is left of a
    /// sum for the sum. Blocks.
    pub(crate) fn querier(&self) -> Result<Box<dyn Querier>, Unavailable> {
        if let Some(cell) = &self.cell {
            let view = cell.view(true, SHARDS_TIMEOUT).map_err(|error| Unavailable(error.to_string()))?;
            return Ok(Box::new(view));
        }
        let store = self.store.get().ok_or_else(|| Unavailable("the store is being opened".to_owned()))?;
        Ok(Box::new(store.snapshot()))
    }
}
