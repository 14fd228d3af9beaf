//! What is kept of parts that a query names several times ([`super::sharing`]).
//!
//! Samples count as often as a query names them, for its limits and its statistics, as they do in
//! Prometheus; bytes count where they lie.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use model::Labels;
use parking_lot::Mutex;

use super::Evaluator;
use super::column::Column;
use super::grid::Grid;
use super::sharing::{Key, Sharing, Use};
use super::source::{BoxSource, Scratch, Series, Source};
use crate::ast::Expr;
use crate::engine::QueryError;
use crate::limits::Account;

/// Bytes of columns that one part keeps, at most.
const KEPT_MAX: usize = 32 << 20;

/// What the shared parts of one query keep.
#[derive(Default)]
pub(super) struct Kept<'a> {
    pub(super) sharing: Sharing<'a>,
    states: HashMap<Key, Mutex<State>>,
}

/// What is kept of one part.
struct State {
    /// How often it will be asked for.
    uses: usize,
    whole: Option<Whole>,
    columns: Option<Arc<Columns>>,
}

impl State {
    /// Counts one use; whether it is the last.
    fn use_once(&mut self) -> bool {
        self.uses = self.uses.saturating_sub(1);
        self.uses == 0
    }
}

/// All series of a part.
struct Whole {
    series: Vec<Series>,
    /// Series and samples that were read for it.
    read: (u64, u64),
    /// Samples by step, if they are counted.
    steps: Vec<u64>,
}

impl<'a> Kept<'a> {
    pub(super) fn new(sharing: Sharing<'a>) -> Self {
        let state = |uses| Mutex::new(State { uses, whole: None, columns: None });
        let states = sharing.slots.iter().map(|(key, slot)| (*key, state(slot.uses))).collect();
        Self { sharing, states }
    }

    /// What is kept of `expr`, and the part that is evaluated in its place.
    fn find(&self, expr: &Expr, grid: Grid, used: Use) -> Option<(&Mutex<State>, &'a Expr)> {
        let key = self.sharing.key(expr, grid, used)?;
        Some((self.states.get(&key)?, self.sharing.slots.get(&key)?.expr))
    }
}

impl<'a> Evaluator<'a> {
    /// The series of `expr` if it is a part that others equal.
    pub(super) fn shared_whole(&self, expr: &Expr, grid: Grid) -> Option<Result<Vec<Series>, QueryError>> {
        let (state, expr) = self.kept.find(expr, grid, Use::Whole)?;
        let (is_last, kept) = {
            let mut state = state.lock();
            (state.use_once(), state.whole.take())
        };
        Some(match kept {
            Some(whole) => self.used_again((state, expr), whole, is_last),
            None => self.first_whole((state, expr), grid, is_last),
        })
    }

    /// Computes a part, and keeps a copy if somebody will want it and there is room.
    fn first_whole(
        &self,
        (state, expr): (&Mutex<State>, &Expr),
        grid: Grid,
        is_last: bool,
    ) -> Result<Vec<Series>, QueryError> {
        let steps = || self.tally.as_ref().map_or_else(Vec::new, super::tally::Tally::steps);
        let (read, steps_before) = (self.account.read(), steps());
        let series = self.own_vector(expr, grid)?;
        if !is_last && self.account.keep(self.weight(&series)?.1) {
            let now = self.account.read();
            let read = (now.0 - read.0, now.1 - read.1);
            let steps = steps().iter().zip(steps_before).map(|(now, before)| now - before).collect();
            state.lock().whole = Some(Whole { series: self.copied(&series)?, read, steps });
        }
        Ok(series)
    }

    /// Hands out what is kept: a copy, or to the last who asks the thing itself.
    fn used_again(
        &self,
        (state, expr): (&Mutex<State>, &Expr),
        whole: Whole,
        is_last: bool,
    ) -> Result<Vec<Series>, QueryError> {
        self.account.read_again(whole.read);
        if let Some(tally) = &self.tally {
            tally.steps_again(&whole.steps);
        }
        let (samples, bytes) = self.weight(&whole.series)?;
        // The bytes of what is kept are booked already.
        self.account.hold(samples, if is_last { 0 } else { bytes }, expr)?;
        if is_last {
            return Ok(whole.series);
        }
        let series = self.copied(&whole.series)?;
        state.lock().whole = Some(whole);
        Ok(series)
    }

    fn copied(&self, series: &[Series]) -> Result<Vec<Series>, QueryError> {
        self.account.watched(series).map(|series| Ok(series?.clone())).collect()
    }

    /// The series of `expr` one by one, if it is a part that others equal.
    pub(super) fn shared_stream<'s>(
        &'s self,
        expr: &Expr,
        grid: Grid,
    ) -> Option<Result<BoxSource<'s>, QueryError>> {
        // Costs are counted where samples are read, step by step: then each reads them itself.
        let (state, expr) = self.kept.find(expr, grid, Use::Stream).filter(|_| self.tally.is_none())?;
        let (is_last, columns) = {
            let mut state = state.lock();
            (state.use_once(), state.columns.take())
        };
        Some(self.own_source(expr, grid).map(|inner| {
            let known = columns.filter(|columns| columns.cells.len() == inner.len());
            let fresh = || Some(Arc::new(Columns::new(inner.len(), self.account)?)).filter(|_| !is_last);
            let Some(columns) = known.or_else(fresh) else { return inner };
            if !is_last {
                state.lock().columns = Some(Arc::clone(&columns));
            }
            let account = self.account;
            Box::new(KeptSource { inner, columns, is_last, expr, account }) as BoxSource<'s>
        }))
    }
}

/// Columns of series, each computed by whoever comes first.
struct Columns {
    cells: Box<[OnceLock<Option<KeptColumn>>]>,
    /// Bytes that are booked for the columns.
    bytes: AtomicUsize,
}

struct KeptColumn {
    column: Column,
    /// Samples that were read for it.
    read: u64,
    /// Samples that were held while it was computed.
    held: usize,
}

impl Columns {
    /// Room for `count` columns, if there is any.
    fn new(count: usize, account: &Account<'_>) -> Option<Self> {
        let bytes = count * size_of::<OnceLock<Option<KeptColumn>>>();
        if bytes > KEPT_MAX || !account.keep(bytes) {
            return None;
        }
        let cells = (0..count).map(|_| OnceLock::new()).collect();
        Some(Self { cells, bytes: AtomicUsize::new(bytes) })
    }

    /// A copy of `column`, if there is room.
    fn keep(&self, column: &Column, account: &Account<'_>) -> Option<Column> {
        let bytes = column.heap_bytes();
        if self.bytes.load(Ordering::Relaxed) + bytes > KEPT_MAX || bytes > 0 && !account.keep(bytes) {
            return None;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(column.clone())
    }
}

/// A source whose columns are computed once for several users.
struct KeptSource<'a> {
    inner: BoxSource<'a>,
    columns: Arc<Columns>,
    /// Whether nobody comes later.
    is_last: bool,
    expr: &'a Expr,
    account: &'a Account<'a>,
}

impl Drop for KeptSource<'_> {
    fn drop(&mut self) {
        if self.is_last {
            self.account.release(0, self.columns.bytes.load(Ordering::Relaxed));
        }
    }
}

impl Source for KeptSource<'_> {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn visit_labels(&self, at: usize, visit: &mut dyn FnMut(&str, &str)) {
        self.inner.visit_labels(at, visit);
    }

    fn visit_some_labels(&self, at: usize, names: &[String], visit: &mut dyn FnMut(&str, &str)) {
        self.inner.visit_some_labels(at, names, visit);
    }

    fn labels(&self, at: usize) -> Labels {
        self.inner.labels(at)
    }

    fn drop_name(&self, at: usize) -> bool {
        self.inner.drop_name(at)
    }

    fn compute(&self, at: usize, scratch: &mut Scratch<'_>, out: &mut Column) -> Result<(), QueryError> {
        let cell = &self.columns.cells[at];
        if let Some(Some(kept)) = cell.get() {
            scratch.desk.read(usize::try_from(kept.read).unwrap_or(usize::MAX));
            scratch.desk.hold(kept.held, 0, self.expr)?;
            out.copy_from(&kept.column);
            return Ok(());
        }
        let before = scratch.desk.samples_read();
        self.inner.compute(at, scratch, out)?;
        if !self.is_last {
            let (read, held) = (scratch.desk.samples_read() - before, scratch.desk.samples_held());
            let kept = |column| KeptColumn { column, read, held };
            cell.get_or_init(|| self.columns.keep(out, self.account).map(kept));
        }
        Ok(())
    }

    fn names_unique(&self) -> bool {
        self.inner.names_unique()
    }
}
