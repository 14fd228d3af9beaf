//! Where the metrics APIs read: the store of this process, or the shards that a querier asks.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cluster::Cell;
use metrics_api::{Newest, Unavailable};
use model::{Labels, Querier, Timestamp};
use scraper::{Sink, SinkPage};
use tsdb::{Db, SeriesRef};

/// Reading from shards may take so long: the API server gives up after a minute, the autoscaler after less.
const SHARDS_TIMEOUT: Duration = Duration::from_secs(10);

/// The store, once it is open, or the shards.
#[derive(Clone)]
pub(crate) struct Samples {
    store: Arc<OnceLock<Arc<Db>>>,
    cell: Option<Arc<Cell>>,
    newest: Option<Arc<Newest>>,
}

impl Samples {
    pub(crate) fn new(store: &Arc<OnceLock<Arc<Db>>>, cell: Option<Arc<Cell>>) -> Self {
        Self { store: Arc::clone(store), cell, newest: None }
    }

    /// The same, but no more is kept of what is scraped than its newest points.
    pub(crate) fn with_newest(self) -> Self {
        Self { newest: Some(Arc::new(Newest::new())), ..self }
    }

    pub(crate) fn newest(&self) -> Option<&Newest> {
        self.newest.as_deref()
    }

    /// What scrapes write to if not to the store.
    pub(crate) fn sink(&self) -> Option<Arc<dyn Sink>> {
        self.newest.clone().map(|newest| Arc::new(NewestSink(newest)) as Arc<dyn Sink>)
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

/// The newest points as what scrapes write to.
struct NewestSink(Arc<Newest>);

impl Sink for NewestSink {
    fn page(&self) -> Box<dyn SinkPage + '_> {
        Box::new(NewestPage(self.0.page()))
    }
}

struct NewestPage<'a>(metrics_api::NewestPage<'a>);

impl SinkPage for NewestPage<'_> {
    fn series(&mut self, labels: &Labels) -> SeriesRef {
        SeriesRef(self.0.series(labels))
    }

    fn append(&mut self, series: SeriesRef, ts: Timestamp, value: f64) -> bool {
        self.0.append(series.0, ts, value)
    }
}
