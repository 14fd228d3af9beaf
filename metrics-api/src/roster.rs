//! The containers of a cluster by number, and what was read of each: kept from one list to the next, so that a list looks
//! at samples and not at names.
//!
//! Arithmetic. A container takes 66 bytes of names (its own, its pod's and its namespace's), 12 of a row, 17 in the table
//! by hash, 4 in the order and 12 in the three lanes: 110 bytes, 1.6 MB for 14,000. Where the store says that a metric's
//! series are those of the last list ([`SeriesSet::fingerprint`], 5 ns a series), a series costs its newest sample (80 ns;
//! of a counter the decoding of one open chunk too, 400 ns). Where some came or went, one whose place is about that of
//! the last list costs a comparison of its names besides (100 ns), and a stranger is hashed and sorted in (500 ns).

use std::ops::Range;
use std::sync::Arc;

use model::{SeriesSet, Timestamp};
use rapidhash::RapidHashMap;

use crate::pod_list::is_plain_text;

/// Stands in no name of an object, and so ends one.
const END: char = '\u{1f}';
/// In a lane, a series that was not looked at; in tables, nothing.
const NOBODY: u32 = u32::MAX;
/// So far around its place of the last time a series is looked for before its name is hashed.
const AROUND: usize = 8;

/// Names by number, and the order of lists.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// The values of all rows' labels, one after the other, each ended by [`END`].
    texts: String,
    rows: Vec<Row>,
    /// Rows by the hash of their texts.
    by_key: RapidHashMap<u64, u32>,
    /// Rows in the order of namespace, pod and container.
    order: Vec<u32>,
    /// Where in the order each pod begins.
    pods: Vec<u32>,
    has_escapes: bool,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    start: u32,
    /// Where each value ends, counted from `start`.
    ends: [u16; 3],
}

impl Names {
    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    fn key(&self, row: u32) -> Option<&str> {
        let row = self.rows.get(row as usize)?;
        let start = row.start as usize;
        self.texts.get(start..=start + usize::from(row.ends[2]))
    }

    /// The values of a row's labels in the order of the labels' names: of a container its own, its namespace and its pod;
    /// of a node its name.
    pub(crate) fn values(&self, row: u32) -> [&str; 3] {
        let Some(row) = self.rows.get(row as usize) else { return [""; 3] };
        let text = &self.texts[row.start as usize..];
        let [first, second, third] = row.ends.map(usize::from);
        [&text[..first], &text[first + 1..second], &text[second + 1..third]]
    }

    /// The same as bytes, for a writer of many.
    pub(crate) fn bytes(&self, row: u32) -> [&[u8]; 3] {
        let Some(row) = self.rows.get(row as usize) else { return [b""; 3] };
        let text = &self.texts.as_bytes()[row.start as usize..];
        let [first, second, third] = row.ends.map(usize::from);
        [&text[..first], &text[first + 1..second], &text[second + 1..third]]
    }

    /// Whether no value of those in place needs an escape in JSON.
    pub(crate) fn is_plain(&self) -> bool {
        !self.has_escapes
    }

    fn find(&self, key: &str) -> Option<u32> {
        let row = *self.by_key.get(&hash(key))?;
        (self.key(row)? == key).then_some(row)
    }

    /// The row of a key, which is added if it is new. None for what is too long to be a name.
    fn intern(&mut self, key: &str) -> Option<u32> {
        if let Some(row) = self.find(key) {
            return Some(row);
        }
        let mut ends = [0_u16; 3];
        for (slot, (end, _)) in ends.iter_mut().zip(key.match_indices(END)) {
            *slot = u16::try_from(end).ok()?;
        }
        let start = u32::try_from(self.texts.len()).ok()?;
        let row = u32::try_from(self.rows.len()).ok().filter(|row| *row != NOBODY)?;
        self.texts.push_str(key);
        self.rows.push(Row { start, ends });
        self.by_key.insert(hash(key), row);
        Some(row)
    }

    /// The row of a container, which is added if it is new. None for what is too long to be a name.
    pub(crate) fn add(&mut self, names: [&str; 3]) -> Option<u32> {
        self.intern(&key_of(names))
    }

    /// The row of a container, if it has one.
    pub(crate) fn row(&self, names: [&str; 3]) -> Option<u32> {
        self.find(&key_of(names))
    }

    /// Puts what was added in its place.
    pub(crate) fn sort(&mut self) {
        let from = self.order.len();
        self.order.extend((from..self.rows.len()).filter_map(|row| u32::try_from(row).ok()));
        let mut order = std::mem::take(&mut self.order);
        let key = |row: u32| {
            let [container, namespace, pod] = self.values(row);
            (namespace, pod, container)
        };
        order.sort_by(|a, b| key(*a).cmp(&key(*b)));
        self.texts.shrink_to_fit();
        self.has_escapes = !self.texts.split(END).all(is_plain_text);
        self.pods.clear();
        for at in 0..order.len() {
            let pod = |at: usize| {
                let [_, namespace, pod] = self.values(*order.get(at)?);
                Some((namespace, pod))
            };
            if at == 0 || pod(at - 1) != pod(at) {
                self.pods.extend(u32::try_from(at));
            }
        }
        self.order = order;
    }

    /// Whether all that was added is in its place.
    pub(crate) fn is_sorted(&self) -> bool {
        self.order.len() == self.rows.len()
    }

    /// The rows of each pod, in the order of lists.
    pub(crate) fn pods(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        (0..self.pods.len()).map(|at| self.pod(at))
    }

    fn pod(&self, at: usize) -> &[u32] {
        let end = self.pods.get(at + 1).map_or(self.order.len(), |end| *end as usize);
        self.pods.get(at).and_then(|from| self.order.get(*from as usize..end)).unwrap_or_default()
    }

    /// Which pods are of this namespace and have this name, if they are given.
    pub(crate) fn pods_in(&self, namespace: Option<&str>, name: Option<&str>) -> Range<usize> {
        let Some(namespace) = namespace else { return 0..self.pods.len() };
        let place = |is_before: &dyn Fn(&str, &str) -> bool| {
            self.pods.partition_point(|from| {
                let row = self.order.get(*from as usize);
                row.is_some_and(|row| {
                    let [_, namespace, pod] = self.values(*row);
                    is_before(namespace, pod)
                })
            })
        };
        match name {
            Some(name) => {
                place(&|ns, pod| (ns, pod) < (namespace, name))..place(&|ns, pod| {
                    (ns, pod) <= (namespace, name)
                })
            }
            None => place(&|ns, _| ns < namespace)..place(&|ns, _| ns <= namespace),
        }
    }
}

fn key_of([container, namespace, pod]: [&str; 3]) -> String {
    format!("{container}{END}{namespace}{END}{pod}{END}")
}

/// Of two keys with one hash only the later one is found: a container of 2^64.
fn hash(key: &str) -> u64 {
    rapidhash::v3::rapidhash_v3(key.as_bytes())
}

/// The names, and which row each series of each metric had in the order of the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    pub(crate) names: Arc<Names>,
    pub(crate) lanes: [Arc<Vec<u32>>; 3],
    /// Of the series of each lane.
    pub(crate) fingerprints: [Option<u64>; 3],
}

/// What is kept of the newest samples of a series.
pub(crate) trait Point: Copy {
    /// Of a row without samples.
    const NONE: Self;
    /// Of these samples.
    fn new(counter: Counter) -> Self;
    /// The time of the newest.
    fn time(&self) -> Timestamp;
}

/// The newest points of a counter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counter {
    pub(crate) last: (Timestamp, f64),
    pub(crate) previous: Option<(Timestamp, f64)>,
}

impl Point for Counter {
    const NONE: Self = Self { last: (Timestamp::MIN, 0.0), previous: None };

    fn new(counter: Counter) -> Self {
        counter
    }

    fn time(&self) -> Timestamp {
        self.last.0
    }
}

/// The newest point of a gauge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauge {
    ts: Timestamp,
    value: f64,
}

impl Gauge {
    /// The value, if there is one.
    pub(crate) fn value(self) -> Option<f64> {
        (self.ts != Timestamp::MIN).then_some(self.value)
    }
}

impl Point for Gauge {
    const NONE: Self = Self { ts: Timestamp::MIN, value: 0.0 };

    fn new(counter: Counter) -> Self {
        Self { ts: counter.last.0, value: counter.last.1 }
    }

    fn time(&self) -> Timestamp {
        self.ts
    }
}

/// The points of one metric by row, as they are read.
pub(crate) struct Lane<P> {
    points: Vec<P>,
    /// What tells the series from others.
    fingerprint: Option<u64>,
    seen: Seen,
    /// The number of series looked at.
    series: usize,
    strangers: Vec<Stranger<P>>,
    /// Names of strangers.
    texts: String,
    /// Where in the lane of the last time the next series is expected.
    at: usize,
    key: String,
}

/// The row of each series.
enum Seen {
    /// The series are those of the last time: these have another row than they had then.
    Changes(Vec<(usize, u32)>),
    /// Of all, and whether they are others than the last time.
    All(Vec<u32>, bool),
}

impl Seen {
    /// Series `index`, which follows those seen, has `row`, and had `before`.
    fn push(&mut self, index: usize, row: u32, before: Option<u32>) {
        match self {
            Self::All(rows, changed) => {
                *changed |= before != Some(row);
                rows.push(row);
            }
            Self::Changes(changes) if before != Some(row) => changes.push((index, row)),
            Self::Changes(_) => {}
        }
    }

    /// Series `index`, which was seen, has `row`.
    fn set(&mut self, index: usize, row: u32) {
        match self {
            Self::All(rows, _) => rows[index] = row,
            Self::Changes(changes) => changes.push((index, row)),
        }
    }
}

/// A series whose name is in no row.
struct Stranger<P> {
    series: usize,
    start: usize,
    point: P,
}

impl<P: Point> Lane<P> {
    /// To be filled with the points of `series`, in their order.
    pub(crate) fn new((roster, lane): (&Roster, usize), series: &dyn SeriesSet) -> Self {
        let fingerprint = series.fingerprint();
        let same = fingerprint.is_some()
            && fingerprint == roster.fingerprints[lane]
            && series.len() == roster.lanes[lane].len();
        Self {
            points: vec![P::NONE; roster.names.len()],
            fingerprint,
            seen: match same {
                true => Seen::Changes(Vec::new()),
                false => Seen::All(Vec::with_capacity(series.len()), false),
            },
            series: 0,
            strangers: Vec::new(),
            texts: String::new(),
            at: 0,
            key: String::with_capacity(128),
        }
    }

    pub(crate) fn point(&self, row: u32) -> P {
        self.points.get(row as usize).copied().unwrap_or(P::NONE)
    }

    /// The number of rows with a point.
    pub(crate) fn alive(&self) -> usize {
        self.points.iter().filter(|point| point.time() != Timestamp::MIN).count()
    }

    /// The next series has no point that counts.
    pub(crate) fn pass(&mut self, roster: &Roster, lane: usize) {
        // Of a series that is the same whose it is stays known.
        if let Seen::All(..) = self.seen {
            self.seen.push(self.series, NOBODY, roster.lanes[lane].get(self.at).copied());
        }
        (self.series, self.at) = (self.series + 1, self.at + 1);
    }

    /// The next series has this point. Of two series of one container (it moved to another node) the newer one counts.
    pub(crate) fn take(
        &mut self,
        series: &dyn SeriesSet,
        labels: &[String],
        counter: Counter,
        (roster, lane): (&Roster, usize),
    ) {
        let index = self.series;
        self.series += 1;
        let (names, before, point) = (&*roster.names, &*roster.lanes[lane], P::new(counter));
        if let Seen::Changes(_) = self.seen {
            self.at = index;
            if let Some(row) = before.get(index).copied().filter(|row| *row != NOBODY) {
                self.at += 1;
                return self.put(row, point);
            }
        }
        self.read_key(series, index, labels);
        let fits = |at: usize| {
            let row = *before.get(at)?;
            (names.key(row)? == self.key).then_some((at, row))
        };
        let around = || (self.at.saturating_sub(AROUND)..self.at + AROUND).find_map(fits);
        if let Some((at, row)) = fits(self.at).or_else(around) {
            self.seen.push(index, row, (at == self.at).then_some(row));
            self.at = at + 1;
            return self.put(row, point);
        }
        self.at += 1;
        let row = names.find(&self.key);
        self.seen.push(index, row.unwrap_or(NOBODY), None);
        match row {
            Some(row) => self.put(row, point),
            None => {
                let start = self.texts.len();
                self.texts.push_str(&self.key);
                self.strangers.push(Stranger { series: index, start, point });
            }
        }
    }

    fn read_key(&mut self, series: &dyn SeriesSet, index: usize, labels: &[String]) {
        let key = &mut self.key;
        key.clear();
        let mut next = 0;
        series.visit_some_labels(index, labels, &mut |name, value| {
            while labels.get(next).is_some_and(|label| label != name) {
                key.push(END);
                next += 1;
            }
            key.push_str(value);
            key.push(END);
            next += 1;
        });
        (next..3).for_each(|_| key.push(END));
    }

    fn put(&mut self, row: u32, point: P) {
        if let Some(known) = self.points.get_mut(row as usize)
            && point.time() > known.time()
        {
            *known = point;
        }
    }

    /// Adds strangers to the names.
    pub(crate) fn introduce(&mut self, names: &mut Arc<Names>) {
        if self.strangers.is_empty() {
            return;
        }
        let all = Arc::make_mut(names);
        self.welcome(|key| all.intern(key));
        all.sort();
    }

    /// Finds strangers among the names, to which others have been added.
    pub(crate) fn recognise(&mut self, names: &Names) {
        self.welcome(|key| names.find(key));
    }

    fn welcome(&mut self, mut row_of: impl FnMut(&str) -> Option<u32>) {
        let (strangers, texts) = (std::mem::take(&mut self.strangers), std::mem::take(&mut self.texts));
        let ends = strangers.iter().skip(1).map(|stranger| stranger.start).chain([texts.len()]);
        for (stranger, end) in strangers.iter().zip(ends) {
            let Some(row) = row_of(&texts[stranger.start..end]) else { continue };
            self.seen.set(stranger.series, row);
            if self.points.len() <= row as usize {
                self.points.resize(row as usize + 1, P::NONE);
            }
            self.put(row, stranger.point);
        }
    }

    /// Whether the series or their rows are not those of the last time.
    pub(crate) fn is_changed(&self, (roster, lane): (&Roster, usize)) -> bool {
        let rows = match &self.seen {
            Seen::Changes(changes) => !changes.is_empty(),
            Seen::All(rows, changed) => *changed || rows.len() != roster.lanes[lane].len(),
        };
        rows || self.fingerprint != roster.fingerprints[lane]
    }

    /// Keeps for the next time whose each series is.
    pub(crate) fn keep(self, roster: &mut Roster, lane: usize) {
        roster.fingerprints[lane] = self.fingerprint;
        match self.seen {
            Seen::All(rows, _) => roster.lanes[lane] = Arc::new(rows),
            Seen::Changes(changes) if changes.is_empty() => {}
            Seen::Changes(changes) => {
                let rows = Arc::make_mut(&mut roster.lanes[lane]);
                for (series, row) in changes {
                    rows[series] = row;
                }
            }
        }
    }
}
