//! A cell whose shards lie in memory, and can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::{AskError, Cell, Question, Request, Transport};
use model::{Exemplar, Labels, Querier, Samples, TimeRange};
use promql::{Engine, EngineOptions, Expr, Outcome, QueryError, QueryOptions};
use remote::router::{Backlog, Backlogs};
use remote::slots::{Place, SlotMap, slot_of};

/// What the shards have, and how they are.
pub struct World<Q> {
    pub map: SlotMap,
    pub shards: BTreeMap<String, Q>,
    /// What each shard has, of whatever series and time it is asked for.
    pub exemplars: BTreeMap<String, Vec<(Labels, Vec<Exemplar>)>>,
    pub down: BTreeSet<String>,
    pub backlogs: Vec<Backlog>,
    pub routers_down: bool,
    /// The newest map that shards know.
    pub epoch: u64,
    /// Questions asked, by shard.
    pub asked: BTreeMap<String, usize>,
}

pub struct InMemory<Q>(pub Arc<Mutex<World<Q>>>, Engine);

impl<Q: Querier> Transport for InMemory<Q> {
    fn ask(&self, asks: Vec<(Place, Vec<u8>)>, _: Duration) -> Vec<Result<bytes::Bytes, AskError>> {
        let mut world = self.0.lock().unwrap();
        let world = &mut *world;
        asks.into_iter()
            .map(|(place, body)| {
                *world.asked.entry(place.name.clone()).or_default() += 1;
                if world.down.contains(&place.name) {
                    return Err(AskError::Failed("down".to_owned()));
                }
                let request = Request::decode(&body).unwrap();
                if request.epoch < world.epoch {
                    return Err(AskError::Stale);
                }
                let exemplars = |_: &[_], _| world.exemplars.get(&place.name).cloned().unwrap_or_default();
                let shard = (&world.shards[&place.name] as &dyn Querier, &exemplars as _);
                Ok(cluster::answer(&self.1, shard, &request.ask, None).into())
            })
            .collect()
    }

    fn backlogs(&self, routers: &[Place]) -> Vec<Result<Backlogs, String>> {
        let world = self.0.lock().unwrap();
        let told = Backlogs { epoch: world.epoch, since: 0, shards: world.backlogs.clone() };
        routers
            .iter()
            .map(|_| if world.routers_down { Err("down".to_owned()) } else { Ok(told.clone()) })
            .collect()
    }
}

pub fn places(kind: &str, count: usize) -> Vec<Place> {
    (0..count).map(|at| Place { name: format!("{kind}{at}"), url: format!("http://{kind}{at}") }).collect()
}

/// The samples that each shard has: of every holder of a series' slot, of its time, and all that is written to it.
pub fn deal<'a>(
    map: &SlotMap,
    series: impl IntoIterator<Item = (&'a Labels, &'a Samples)>,
) -> BTreeMap<String, BTreeMap<Labels, Samples>> {
    let mut shards: BTreeMap<String, BTreeMap<Labels, Samples>> =
        map.shards().iter().map(|shard| (shard.name.clone(), BTreeMap::new())).collect();
    for (labels, samples) in series {
        for holder in map.holders(slot_of(labels)) {
            let mut own = samples.clone();
            if let Some(range) = holder.range() {
                retain(&mut own, range);
            }
            shards.get_mut(&map.shards()[holder.shard].name).unwrap().insert(labels.clone(), own);
        }
    }
    shards
}

/// Keeps the samples of a range.
pub fn retain(samples: &mut Samples, range: TimeRange) {
    let mut kept = Samples::default();
    for (at, ts) in samples.ts.iter().enumerate().filter(|(_, ts)| range.contains(**ts)) {
        kept.push_float(*ts, samples.values[at]);
        kept.start_ts.extend(samples.start_ts.get(at));
    }
    for (at, ts) in samples.histogram_ts.iter().enumerate().filter(|(_, ts)| range.contains(**ts)) {
        kept.push_histogram(*ts, samples.histograms[at].clone());
        kept.histogram_start_ts.extend(samples.histogram_start_ts.get(at));
    }
    *samples = kept;
}

pub fn cell<Q: Querier + 'static>(
    map: SlotMap,
    shards: BTreeMap<String, Q>,
    options: EngineOptions,
) -> (Arc<Cell>, Arc<Mutex<World<Q>>>) {
    let epoch = map.epoch();
    let world = World {
        map,
        shards,
        exemplars: BTreeMap::new(),
        down: BTreeSet::new(),
        backlogs: Vec::new(),
        routers_down: false,
        epoch,
        asked: BTreeMap::new(),
    };
    let world = Arc::new(Mutex::new(world));
    let read = Arc::clone(&world);
    // A map is read while no question is under way.
    let read_map = Arc::new(move || Ok(read.lock().unwrap().map.clone()));
    let transport = InMemory(Arc::clone(&world), Engine::new(EngineOptions { workers: 1, ..options }));
    (Cell::new(read_map, Box::new(transport)).unwrap(), world)
}

pub fn query(
    cell: &Arc<Cell>,
    engine: &Engine,
    (text, expr): (&str, &Expr),
    (start, end, step_ms): (i64, i64, i64),
    strict: bool,
) -> Result<Outcome, QueryError> {
    let (range, options) = (TimeRange::new(start, end), QueryOptions::default());
    cell.query(engine, &Question { text, expr, range, step_ms, options, strict })
}
