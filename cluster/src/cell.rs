//! A cell: its map, and queries over its shards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{Matcher, Querier, Selection, SeriesSet, StorageError, TimeRange, Timestamp};
use parking_lot::{Mutex, RwLock};
use promql::{Engine, Expr, Outcome, QueryError, QueryOptions};
use remote::router::ReadMap;
use remote::slots::{MapError, SlotMap, SlotSet};

use crate::plan::{Mean, PART_LABEL, Plan, Pushed, part_name};
use crate::series::Held;
use crate::shard::{self, Evaluation};
use crate::transport::Transport;
use crate::view::{Unanswered, View};
use crate::wire::{Answer, Ask, Part, Row, Table};

/// A query over a cell.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The text that `expr` was parsed from, to which positions in remarks refer; may be empty.
    pub text: &'a str,
    /// The expression.
    pub expr: &'a Expr,
    /// The first and the last step.
    pub range: TimeRange,
    /// Milliseconds from step to step; 0 for the first alone.
    pub step_ms: i64,
    /// As for any engine.
    pub options: QueryOptions<'a>,
    /// Whether an answer that is not complete is an error.
    pub strict: bool,
}

/// The shards that answer together, and how to reach them.
pub struct Cell {
    map: RwLock<Arc<SlotMap>>,
    read_map: ReadMap,
    transport: Box<dyn Transport>,
    bytes: AtomicU64,
    pushed: AtomicU64,
}

impl Cell {
    /// A cell by the map that `read_map` gives.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn new(read_map: ReadMap, transport: Box<dyn Transport>) -> Result<Arc<Self>, MapError> {
        let map = RwLock::new(Arc::new(read_map()?));
        Ok(Arc::new(Self { map, read_map, transport, bytes: AtomicU64::new(0), pushed: AtomicU64::new(0) }))
    }

    /// The map in force.
    #[must_use]
    pub fn map(&self) -> Arc<SlotMap> {
        Arc::clone(&self.map.read())
    }

    /// Reads the map again; whether it is newer than the one before.
    pub fn reload(&self) -> bool {
        match (self.read_map)() {
            Ok(map) => {
                let mut known = self.map.write();
                let newer = map.epoch() > known.epoch();
                if newer {
                    *known = Arc::new(map);
                }
                newer
            }
            Err(error) => {
                tracing::error!("the slot map in force stays: {error}");
                false
            }
        }
    }

    /// Bytes that shards have answered.
    #[must_use]
    pub fn bytes_moved(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Parts of queries that shards have evaluated.
    #[must_use]
    pub fn parts_pushed(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed)
    }

    pub(crate) fn count_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn transport(&self) -> &dyn Transport {
        &*self.transport
    }

    /// All shards as one store, as they are now. Blocks.
    ///
    /// # Errors
    /// It is to be strict, and a router does not answer.
    pub fn view(self: &Arc<Self>, strict: bool, timeout: Duration) -> Result<View, StorageError> {
        View::new(self, strict, timeout)
    }

    /// Answers a query. Blocks.
    ///
    /// # Errors
    /// As an engine over one store; also if it is to be strict and not everything can be reached.
    pub fn query(self: &Arc<Self>, engine: &Engine, question: &Question<'_>) -> Result<Outcome, QueryError> {
        let timeout = timeout(engine, &question.options);
        let view = self.view(question.strict, timeout)?;
        let features = engine.options().features;
        let plan = Plan::new(question.expr);
        // A name that goes only at the end would have to be marked in what shards send.
        let pushes = !features.delayed_name_removal && !features.start_timestamps && !plan.parts.is_empty();
        let planned = if pushes { Planned::gather(engine, view, &plan, question)? } else { Err(view) };
        let (mut outcome, view) = match planned {
            Ok(planned) => {
                self.pushed.fetch_add(plan.parts.len() as u64, Ordering::Relaxed);
                let mut outcome = ask(engine, &planned, &plan.expr, question)?;
                extend(&mut outcome.warnings, planned.warnings);
                extend(&mut outcome.infos, planned.infos);
                (outcome, planned.view)
            }
            Err(view) => (ask(engine, &view, question.expr, question)?, view),
        };
        extend(&mut outcome.warnings, view.warnings());
        Ok(outcome)
    }
}

fn timeout(engine: &Engine, options: &QueryOptions<'_>) -> Duration {
    let most = engine.options().limits.timeout;
    options.timeout.map_or(most, |timeout| timeout.min(most))
}

fn ask(
    engine: &Engine,
    querier: &dyn Querier,
    expr: &Expr,
    question: &Question<'_>,
) -> Result<Outcome, QueryError> {
    let TimeRange { start, end } = question.range;
    if question.step_ms == 0 {
        engine.instant(querier, expr, start, &question.options)
    } else {
        engine.range(querier, expr, start, end, question.step_ms, &question.options)
    }
}

/// Adds remarks. One that is made at several places of a query is told once, of the place that comes last in the text. An
/// engine that evaluates all of it names the one that it evaluates last: another only where one place is within the other.
fn extend(texts: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for text in more {
        let (remark, place) = placed(&text);
        match texts.iter_mut().find(|known| placed(known).0 == remark) {
            Some(known) if placed(known).1 < place => *known = text,
            Some(_) => {}
            None => texts.push(text),
        }
    }
}

/// A remark without the line and column at its end, and these.
fn placed(text: &str) -> (&str, Option<(u32, u32)>) {
    let split = || {
        let (remark, place) = text.strip_suffix(')')?.rsplit_once(" (")?;
        let (line, column) = place.split_once(':')?;
        Some((remark, (line.parse().ok()?, column.parse().ok()?)))
    };
    split().map_or((text, None), |(remark, place)| (remark, Some(place)))
}

/// A view in which the results of parts can be selected.
struct Planned {
    view: View,
    /// By name, as the plan selects them.
    parts: Vec<(String, Held)>,
    warnings: BTreeSet<String>,
    infos: BTreeSet<String>,
}

impl Planned {
    /// Lets shards evaluate all parts; gives the view back if that would not do.
    fn gather(
        engine: &Engine,
        view: View,
        plan: &Plan,
        question: &Question<'_>,
    ) -> Result<Result<Self, View>, QueryError> {
        let mut planned = Self { view, parts: Vec::new(), warnings: BTreeSet::new(), infos: BTreeSet::new() };
        for (at, part) in plan.parts.iter().enumerate() {
            let rows = planned.evaluate(engine, part, question)?;
            // A sum that overflows has lost the mean.
            let finite = |row: &Row| row.samples.values.iter().all(|value| value.is_finite());
            if part.sums == Some(Mean::Yes) && !rows.iter().all(finite) {
                return Ok(Err(planned.view));
            }
            let (counts, values): (Vec<Row>, Vec<Row>) =
                rows.into_iter().partition(|row| row.part == Part::Counts);
            let held = |rows: Vec<Row>| {
                Held(rows.into_iter().map(|row| (row.labels, on_every_step(row.samples, question))).collect())
            };
            planned.parts.push((part_name(at, false), held(values)));
            if part.sums == Some(Mean::Yes) {
                planned.parts.push((part_name(at, true), held(counts)));
            }
        }
        Ok(Ok(planned))
    }

    /// What all shards make of a part, each of its slots.
    fn evaluate(
        &mut self,
        engine: &Engine,
        part: &Pushed,
        question: &Question<'_>,
    ) -> Result<Vec<Row>, QueryError> {
        let range = reads(engine, &part.expr, question)?;
        let text = text_of(&part.expr, question.text);
        let limits = timeout(engine, &question.options);
        let evaluation = Evaluation {
            slots: &SlotSet::full(),
            sums: part.sums.is_some(),
            range: question.range,
            step_ms: question.step_ms,
            lookback_ms: question.options.lookback_ms.unwrap_or(engine.options().lookback_ms),
            timeout_ms: u64::try_from(limits.as_millis()).unwrap_or(u64::MAX),
            text: &text,
        };
        let view = &self.view;
        let tables = view.with_newest_map(|| gather(engine, view, range, &evaluation, question));
        let tables = tables.map_err(|unanswered| match unanswered {
            Unanswered::Store(error) => error.into(),
            Unanswered::Query(why) => QueryError::Execution(why),
            Unanswered::Stale => QueryError::Execution("the slot map is stale".to_owned()),
        })?;
        let mut rows = Vec::new();
        for table in tables {
            self.warnings.extend(table.warnings);
            self.infos.extend(table.infos);
            rows.extend(table.rows);
        }
        // The order of shards is no order.
        rows.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(rows)
    }
}

/// Tables that together are of all slots.
fn gather(
    engine: &Engine,
    view: &View,
    range: TimeRange,
    evaluation: &Evaluation<'_>,
    question: &Question<'_>,
) -> Result<Vec<Table>, Unanswered> {
    let mut tables = Vec::new();
    let mut pending = SlotSet::full();
    while !pending.is_empty() {
        let assignment = view.assign(&pending, range)?;
        pending = SlotSet::empty();
        let whole: Vec<(usize, SlotSet)> = assignment.whole.into_iter().collect();
        let asks = whole.iter().map(|(shard, slots)| {
            let ask = Ask::Evaluate {
                slots: slots.clone(),
                sums: evaluation.sums,
                range: evaluation.range,
                step_ms: evaluation.step_ms,
                lookback_ms: evaluation.lookback_ms,
                timeout_ms: evaluation.timeout_ms,
                text: evaluation.text.to_owned(),
            };
            (*shard, ask)
        });
        for (answer, (_, slots)) in view.ask(asks.collect())?.into_iter().zip(&whole) {
            match answer {
                Some(Answer::Table(table)) => tables.push(table),
                _ => pending.extend(slots),
            }
        }
        // Slots that no shard has whole are put together here, and evaluated as a shard would.
        if let Some(slots) = &assignment.pieced {
            let own = Evaluation { slots, ..*evaluation };
            let pieced = Restricted { view, slots };
            let message = shard::evaluate(engine, &pieced, &own, question.options.cancelled);
            let message = message.map_err(|error| match error {
                QueryError::Storage(error) => Unanswered::Store(error),
                error => Unanswered::Query(error.to_string()),
            })?;
            if let Ok(Answer::Table(table)) = Answer::decode(&message) {
                tables.push(table);
            }
        }
    }
    Ok(tables)
}

/// The text of a part: of the query itself if it is there, moved to where it stood, so that remarks name the same
/// positions.
fn text_of(part: &Expr, whole: &str) -> String {
    let written = whole.get(part.span.start..part.span.end).unwrap_or_default();
    let parsed = promql::parse(written, &promql::ParseOptions::experimental());
    if parsed.is_ok_and(|parsed| parsed == *part) {
        let lines = part.position.line.saturating_sub(1) as usize;
        let columns = part.position.column.saturating_sub(1) as usize;
        return format!("{}{}{written}", "\n".repeat(lines), " ".repeat(columns));
    }
    part.to_string()
}

/// The times that an expression reads, as the engine itself asks for them.
fn reads(engine: &Engine, expr: &Expr, question: &Question<'_>) -> Result<TimeRange, QueryError> {
    let recorder = Recorder(Mutex::new(None));
    ask(engine, &recorder, expr, question)?;
    Ok(recorder.0.into_inner().unwrap_or(question.range))
}

/// A store of nothing that remembers what it was asked for.
struct Recorder(Mutex<Option<TimeRange>>);

impl Querier for Recorder {
    fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        let mut all = self.0.lock();
        let TimeRange { start, end } = selection.range;
        *all =
            Some(all.map_or(selection.range, |all| TimeRange::new(all.start.min(start), all.end.max(end))));
        Ok(Box::new(Held::default()))
    }

    fn label_names(&self, _: &[Matcher], _: TimeRange, _: usize) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }

    fn label_values(
        &self,
        _: &str,
        _: &[Matcher],
        _: TimeRange,
        _: usize,
    ) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }
}

/// A view of some slots only.
struct Restricted<'a> {
    view: &'a View,
    slots: &'a SlotSet,
}

impl Querier for Restricted<'_> {
    fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        self.view.select_in(self.slots, selection).map(|set| set as Box<dyn SeriesSet + '_>)
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        self.view.label_names(matchers, range, limit)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        self.view.label_values(name, matchers, range, limit)
    }
}

impl Querier for Planned {
    fn select(&self, selection: &Selection<'_>) -> Result<Box<dyn SeriesSet + '_>, StorageError> {
        if let [matcher] = selection.matchers
            && &*matcher.name == PART_LABEL
        {
            let part = self.parts.iter().find(|(name, _)| **name == *matcher.value);
            return Ok(Box::new(part.map(|(_, held)| held.clone()).unwrap_or_default()));
        }
        self.view.select(selection)
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        self.view.label_names(matchers, range, limit)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        self.view.label_values(name, matchers, range, limit)
    }
}

/// A sample at every step: staleness markers where there was none, so that look-back finds nothing else.
fn on_every_step(samples: model::Samples, question: &Question<'_>) -> model::Samples {
    let TimeRange { start, end } = question.range;
    if question.step_ms <= 0 {
        return samples;
    }
    let mut full = model::Samples::default();
    let mut floats = samples.ts.iter().zip(&samples.values).peekable();
    let mut histograms = samples.histogram_ts.iter().peekable();
    let mut at: Timestamp = start;
    loop {
        if let Some((ts, value)) = floats.next_if(|(ts, _)| **ts == at) {
            full.push_float(*ts, *value);
        } else if histograms.next_if(|ts| **ts == at).is_none() {
            full.push_float(at, model::stale_nan());
        }
        match at.checked_add(question.step_ms).filter(|next| *next <= end) {
            Some(next) => at = next,
            None => break,
        }
    }
    (full.histogram_ts, full.histograms) = (samples.histogram_ts, samples.histograms);
    full
}
