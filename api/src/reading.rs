//! Where queries read: this process' own store and the servers that are read from, or the shards of a cell.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Cell, Question};
use model::{Exemplar, Labels, Matcher, Querier, StorageError, TimeRange, Timestamp};
use promql::{Engine, Expr, Outcome, QueryError, QueryOptions};
use remote::read::Endpoints;
use tsdb::Db;

use crate::envelope::{ApiError, ErrorKind};
use crate::params::Params;
use crate::{Running, State};

/// Looking labels up in shards may take so long.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a query reads.
#[derive(Clone)]
pub(crate) struct Reading {
    store: Arc<Db>,
    cell: Option<Arc<Cell>>,
    /// None if there are none.
    others: Option<Arc<Endpoints>>,
    strict: bool,
    now: Timestamp,
}

/// When to evaluate; a step of 0 is an instant query.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) start: model::Timestamp,
    pub(crate) end: model::Timestamp,
    pub(crate) step_ms: i64,
}

impl Reading {
    /// As the request wants it: `partial_response=false` makes an answer that is not complete an error.
    pub(crate) fn new(state: &State, params: &Params) -> Result<Self, ApiError> {
        let running = state.running()?;
        let strict = matches!(params.get("partial_response"), Some("false" | "0"));
        let others = (!running.others.is_empty()).then(|| Arc::clone(&running.others));
        Ok(Self {
            store: Arc::clone(&running.store),
            cell: running.cell.clone(),
            others,
            strict,
            now: state.now(),
        })
    }

    /// Where there is no place for a warning: an answer that is not complete is an error. Other servers are not read
    /// from: what is served to others is our own, and two servers that read from each other would not end.
    pub(crate) fn strict(running: &Running) -> Self {
        Self {
            store: Arc::clone(&running.store),
            cell: running.cell.clone(),
            others: None,
            strict: true,
            now: 0,
        }
    }

    /// Runs `read` on all samples. Blocks.
    pub(crate) fn on<T, E: From<StorageError>>(
        &self,
        read: impl FnOnce(&dyn Querier) -> Result<T, E>,
    ) -> Result<T, E> {
        match &self.cell {
            Some(cell) => read(&cell.view(self.strict, LOOK_UP_TIMEOUT)?),
            None => read(&self.store.snapshot()),
        }
    }

    /// Evaluates a query. Blocks.
    pub(crate) fn evaluate(
        &self,
        engine: &Engine,
        (text, expr): (&str, &Expr),
        times: Times,
        options: &QueryOptions<'_>,
    ) -> Result<Outcome, QueryError> {
        let Times { start, end, step_ms } = times;
        if let Some(cell) = &self.cell {
            let (range, options, strict) = (TimeRange::new(start, end), *options, self.strict);
            return cell.query(engine, &Question { text, expr, range, step_ms, options, strict });
        }
        let snapshot = self.store.snapshot();
        let run = |querier: &dyn Querier| {
            if step_ms == 0 {
                engine.instant(querier, expr, start, options)
            } else {
                engine.range(querier, expr, start, end, step_ms, options)
            }
        };
        let Some(others) = &self.others else { return run(&snapshot) };
        let merged = others.beside(&snapshot, self.covered_from(), self.strict);
        let mut outcome = run(&merged)?;
        outcome.warnings.extend(merged.warnings());
        Ok(outcome)
    }

    fn covered_from(&self) -> Timestamp {
        remote::read::covered_from(&self.store, self.now)
    }

    /// Runs `read` on all samples, off the asynchronous threads; gives what they lack, in words, besides.
    pub(crate) async fn read<T: Send + 'static>(
        self,
        read: impl FnOnce(&dyn Querier) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<(T, Vec<String>), ApiError> {
        let outcome = tokio::task::spawn_blocking(move || match &self.cell {
            Some(cell) => {
                let view = cell.view(self.strict, LOOK_UP_TIMEOUT)?;
                Ok((read(&view)?, view.warnings()))
            }
            None => {
                let snapshot = self.store.snapshot();
                let Some(others) = &self.others else { return Ok((read(&snapshot)?, Vec::new())) };
                let merged = others.beside(&snapshot, self.covered_from(), self.strict);
                Ok((read(&merged)?, merged.warnings()))
            }
        });
        joined(outcome.await)
    }

    /// The exemplars of series that fulfil all matchers of one of `selectors`; and what they lack, in words.
    pub(crate) async fn exemplars(
        self,
        selectors: Vec<Vec<Matcher>>,
        range: TimeRange,
    ) -> Result<(Vec<(Labels, Vec<Exemplar>)>, Vec<String>), ApiError> {
        let outcome = tokio::task::spawn_blocking(move || {
            let Some(cell) = &self.cell else {
                return Ok((self.store.exemplars(&selectors, range), Vec::new()));
            };
            let view = cell.view(self.strict, LOOK_UP_TIMEOUT)?;
            Ok((view.exemplars(&selectors, range)?, view.warnings()))
        });
        joined(outcome.await)
    }
}

fn joined<T>(outcome: Result<Result<T, StorageError>, tokio::task::JoinError>) -> Result<T, ApiError> {
    Ok(outcome.map_err(|error| ApiError::new(ErrorKind::Internal, error.to_string()))??)
}
