//! Scrape pools: the targets of each job, as discovery finds them.

mod departed;
mod task;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use k8s::{Changed, Mailbox};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ScrapeJob, Seed};
use crate::discovery::{self, Discoverer, PoolMailbox, Source};
use crate::fetch::Access;
use crate::http::Roots;
use crate::relabel::Rule;
use crate::status::{DroppedTarget, PoolStatus, TargetMetadata, Targets};
use crate::target::{Outcome, Target, resolve};

pub(crate) use task::Shared;
use task::{Order, Task};

/// After targets have changed, further changes wait for so long, and come at once then.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(1);

/// What makes a target another one: two of a job with the same labels and URL are one.
#[derive(Clone)]
struct Identity(Arc<Target>);

impl Identity {
    fn parts(&self) -> impl PartialEq + Hash + '_ {
        let Target { labels, scheme, address, path, .. } = &*self.0;
        (labels, scheme, address, path)
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

/// What the targets of a job have in common.
struct Common {
    /// Without targets: tasks need none but their own.
    job: Arc<ScrapeJob>,
    access: Arc<Access>,
    seed: Seed,
    first_within_ms: i64,
}

/// What a source has become.
#[derive(Default)]
struct Found {
    targets: Vec<Identity>,
    dropped: u64,
}

/// The targets of one job.
struct Pool {
    common: Common,
    discoverers: Vec<Arc<Discoverer>>,
    /// By place of the discoverer and source.
    found: BTreeMap<(usize, Source), Found>,
    /// With the number of sources that have it.
    tasks: HashMap<Identity, (Task, usize)>,
    /// Why no target of the job must be scraped.
    refusal: Option<String>,
    /// What has changed since.
    mailbox: Arc<PoolMailbox>,
    /// Ends the task that keeps the pool up to date.
    following: CancellationToken,
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.following.cancel();
    }
}

/// All jobs.
#[derive(Default)]
pub(crate) struct Pools {
    pools: Vec<Pool>,
    discovery: Option<Arc<discovery::Shared>>,
}

/// The part of a job that says how its targets are reached.
fn without_targets(job: &ScrapeJob) -> ScrapeJob {
    ScrapeJob { targets: Vec::new(), discoveries: Vec::new(), ..job.clone() }
}

impl Pools {
    /// Starts, changes and ends tasks until they are what the configuration wants. Targets that stay keep
    /// their connection, their cache and their moments.
    pub(crate) fn apply(this: &Arc<Mutex<Self>>, config: &Config, shared: &Arc<Shared>) {
        let mut pools = this.lock();
        let roots = Roots { system_pem: config.system_roots_pem.clone(), pins: config.kubelet_pins.clone() };
        let roots = match &pools.discovery {
            Some(known) if *known.roots == roots => Arc::clone(&known.roots),
            _ => Arc::new(roots),
        };
        let agent = config.user_agent.clone();
        let discovery = Arc::new(match &pools.discovery {
            Some(known) => known.changed(Arc::clone(&roots), agent),
            None => discovery::Shared::new(Arc::clone(&roots), agent),
        });
        let mut old: HashMap<String, Pool> =
            pools.pools.drain(..).map(|pool| (pool.common.job.name.clone(), pool)).collect();
        let mut new = Vec::with_capacity(config.jobs.len());
        for job in &config.jobs {
            let known = old.get_mut(&job.name);
            new.push(Pool::build(job, config, (&discovery, shared), known));
        }
        // Discoverers that both configurations have run on: the old pools are dropped only now.
        for task in old.into_values().flat_map(|mut pool| std::mem::take(&mut pool.tasks)) {
            task.1.0.remove();
        }
        for (at, pool) in new.iter().enumerate().filter(|(_, pool)| !pool.discoverers.is_empty()) {
            pool.follow(at, this, shared);
        }
        pools.pools = new;
        pools.discovery = Some(discovery);
    }

    pub(crate) fn targets(this: &Mutex<Self>) -> Targets {
        let mut targets = Targets::default();
        let mut sources = Vec::new();
        {
            let pools = this.lock();
            for pool in &pools.pools {
                let name = &pool.common.job.name;
                targets.active.extend(pool.in_order().map(|task| task.status(name)));
                let dropped = pool.found.values().map(|found| found.dropped).sum();
                targets.dropped_counts.push((name.clone(), dropped));
                let with_dropped = pool.found.iter().filter(|(_, found)| found.dropped > 0);
                let with_dropped: Vec<_> = with_dropped.map(|(key, _)| key.clone()).collect();
                sources.push((Arc::clone(&pool.common.job), pool.discoverers.clone(), with_dropped));
            }
        }
        for (job, discoverers, keys) in sources {
            targets.dropped.extend(dropped_of(&job, &discoverers, &keys));
        }
        targets
    }

    /// What discoverers share.
    pub(crate) fn discovery(&self) -> Arc<discovery::Shared> {
        let new = || Arc::new(discovery::Shared::new(Arc::default(), String::new()));
        self.discovery.clone().unwrap_or_else(new)
    }

    /// The targets of nodes.
    fn nodes(&self) -> departed::Nodes {
        let of_nodes = |pool: &&Pool| pool.discoverers.iter().any(|discoverer| discoverer.finds_nodes());
        let tasks = self.pools.iter().filter(of_nodes).flat_map(|pool| pool.tasks.values());
        let named = |(task, _): &(Task, usize)| {
            let target = task.target();
            let label = |name: &str| target.labels.get(name).unwrap_or_default().to_owned();
            ((label("job"), label("instance")), task.inbox())
        };
        tasks.map(named).collect()
    }

    pub(crate) fn metadata(&self) -> Vec<TargetMetadata> {
        let of = |pool: &Pool, task: &Task| TargetMetadata {
            pool: pool.common.job.name.clone(),
            labels: task.target().labels.clone(),
            families: task.families(),
        };
        self.pools.iter().flat_map(|pool| pool.in_order().map(move |task| of(pool, task))).collect()
    }

    pub(crate) fn relabel_rules(&self, name: &str) -> Option<Vec<Rule>> {
        let pool = self.pools.iter().find(|pool| pool.common.job.name == name)?;
        Some(pool.common.job.relabel.clone())
    }

    /// Each job as a whole.
    pub(crate) fn statuses(&self) -> Vec<PoolStatus> {
        let status = |pool: &Pool| PoolStatus {
            name: pool.common.job.name.clone(),
            targets: pool.tasks.len() as u64,
            targets_max: pool.common.job.limits.targets_max,
            dropped: pool.found.values().map(|found| found.dropped).sum(),
            cached_series: pool.tasks.values().map(|(task, _)| task.series()).sum(),
            discoveries: pool.discoverers.iter().filter_map(|discoverer| discoverer.failures()).collect(),
        };
        self.pools.iter().map(status).collect()
    }
}

/// What relabelling drops is not kept: it is found again when somebody wants to see it.
fn dropped_of(
    job: &ScrapeJob,
    discoverers: &[Arc<Discoverer>],
    keys: &[(usize, Source)],
) -> Vec<DroppedTarget> {
    let kept_max = usize::try_from(job.limits.dropped_targets_kept_max).unwrap_or(usize::MAX);
    let kept_max = if kept_max == 0 { usize::MAX } else { kept_max };
    let mut dropped = Vec::new();
    for (place, source) in keys {
        let Some(group) = discoverers.get(*place).and_then(|discoverer| discoverer.group(source)) else {
            continue;
        };
        for outcome in resolve(job, &group) {
            if let Outcome::Dropped(discovered_labels) = outcome {
                dropped.push(DroppedTarget { pool: job.name.clone(), discovered_labels });
            }
        }
        if dropped.len() >= kept_max {
            dropped.truncate(kept_max);
            break;
        }
    }
    dropped
}

impl Pool {
    /// A pool of what is known already; tasks that `old` has are taken over, and the others of it end.
    fn build(
        job: &ScrapeJob,
        config: &Config,
        (discovery, shared): (&Arc<discovery::Shared>, &Arc<Shared>),
        old: Option<&mut Pool>,
    ) -> Self {
        let mut discoverers = vec![Discoverer::fixed(&job.targets)];
        discoverers.extend(job.discoveries.iter().map(|options| discovery.discoverer(options)));
        let stripped = without_targets(job);
        // A way to reach targets that has not changed keeps its certificates and tokens.
        let (mut tasks, mut access) = (HashMap::new(), None);
        if let Some(old) = old {
            tasks = std::mem::take(&mut old.tasks);
            let is_same = old.common.job.http == job.http
                && old.common.job.formats == job.formats
                && old.common.job.escaping == job.escaping
                && old.common.job.compression == job.compression
                && old.common.access.is_of(&discovery.roots, &discovery.user_agent);
            access = is_same.then(|| Arc::clone(&old.common.access));
        }
        let access =
            access.unwrap_or_else(|| Arc::new(Access::new(job, &discovery.roots, &discovery.user_agent)));
        let common = Common {
            job: Arc::new(stripped),
            access,
            seed: config.seed.clone(),
            first_within_ms: config.first_scrape_within_ms,
        };
        let mut pool = Self {
            common,
            discoverers,
            found: BTreeMap::new(),
            tasks: HashMap::new(),
            refusal: None,
            mailbox: Mailbox::new(),
            following: shared.child_token(),
        };
        let mut known: HashMap<Identity, Task> =
            tasks.into_iter().map(|(id, (task, _))| (id, task)).collect();
        for place in 0..pool.discoverers.len() {
            // First, so that no change is missed.
            pool.discoverers[place].subscribe(place, &pool.mailbox);
            for source in pool.discoverers[place].sources() {
                pool.find(place, &source);
            }
        }
        pool.refusal = pool.judge();
        pool.start_found(&mut known, shared);
        // Those that stay get their new orders.
        pool.give_orders();
        known.into_values().for_each(Task::remove);
        pool
    }

    /// Resolves a source anew; returns what it was before.
    fn find(&mut self, place: usize, source: &Source) -> Found {
        let key = (place, Arc::clone(source));
        let Some(group) = self.discoverers[place].group(source) else {
            return self.found.remove(&key).unwrap_or_default();
        };
        let (mut found, mut seen) = (Found::default(), HashSet::new());
        for outcome in resolve(&self.common.job, &group) {
            match outcome {
                Outcome::Active(target) => {
                    let target = Identity(Arc::from(target));
                    if seen.insert(target.clone()) {
                        found.targets.push(target);
                    }
                }
                Outcome::Dropped(_) => found.dropped += 1,
                Outcome::Invalid { error, .. } => {
                    tracing::error!(job = self.common.job.name, %error, "a target cannot be scraped");
                }
            }
        }
        self.found.insert(key, found).unwrap_or_default()
    }

    /// Why the job's targets must not be scraped.
    fn judge(&self) -> Option<String> {
        let limit = self.common.job.limits.targets_max;
        let distinct: HashSet<&Identity> = self.found.values().flat_map(|found| &found.targets).collect();
        let count = distinct.len() as u64;
        (limit > 0 && count > limit)
            .then(|| format!("target_limit exceeded (number of targets: {count}, limit: {limit})"))
    }

    /// Makes tasks of all targets that have none, out of those that are known or new.
    fn start_found(&mut self, known: &mut HashMap<Identity, Task>, shared: &Arc<Shared>) {
        self.tasks.clear();
        let all: Vec<Identity> =
            self.found.values().flat_map(|found| found.targets.iter().cloned()).collect();
        for target in all {
            if let Some((_, sources)) = self.tasks.get_mut(&target) {
                *sources += 1;
                continue;
            }
            let task = known.remove(&target).unwrap_or_else(|| Task::spawn(self.order(&target), shared));
            self.tasks.insert(target, (task, 1));
        }
    }

    fn order(&self, target: &Identity) -> Order {
        Order {
            job: Arc::clone(&self.common.job),
            access: Arc::clone(&self.common.access),
            offset_ms: target.0.offset_ms(&self.common.seed),
            target: Arc::clone(&target.0),
            first_within_ms: self.common.first_within_ms,
            refusal: self.refusal.clone(),
        }
    }

    /// Tells all tasks what holds now. Where nothing has changed for one, it notices nothing. The target of the
    /// last source that has it counts.
    fn give_orders(&self) {
        let all = self.found.values().flat_map(|found| &found.targets);
        for target in all {
            if let Some((task, _)) = self.tasks.get(target) {
                task.change(self.order(target));
            }
        }
    }

    /// Takes over what has become of some sources.
    fn update(&mut self, changes: HashMap<(usize, Source), Changed>, shared: &Arc<Shared>) {
        let mut lost: Vec<(Identity, bool)> = Vec::new();
        let mut gained: Vec<Identity> = Vec::new();
        for ((place, source), changed) in changes {
            let at_once = changed == Changed::Gone && self.discoverers[place].ends_at_once();
            let old = self.find(place, &source);
            let new = self.found.get(&(place, source));
            gained.extend(new.iter().flat_map(|found| found.targets.iter().cloned()));
            lost.extend(old.targets.into_iter().map(|target| (target, at_once)));
        }
        for target in gained {
            match self.tasks.get_mut(&target) {
                Some((task, sources)) => {
                    *sources += 1;
                    let order = Order { target: Arc::clone(&target.0), ..task.order() };
                    task.change(order);
                }
                None => {
                    let task = Task::spawn(self.order(&target), shared);
                    self.tasks.insert(target, (task, 1));
                }
            }
        }
        for (target, at_once) in lost {
            let Some((_, sources)) = self.tasks.get_mut(&target) else { continue };
            *sources -= 1;
            if *sources == 0
                && let Some((task, _)) = self.tasks.remove(&target)
            {
                if at_once { task.end() } else { task.remove() }
            }
        }
        let refusal = self.judge();
        if refusal != self.refusal {
            self.refusal = refusal;
            self.give_orders();
        }
    }

    /// The pods of which the API server says that they are no more.
    fn departed(&self, changes: &HashMap<(usize, Source), Changed>) -> Vec<Source> {
        let gone = changes.iter().filter(|(_, changed)| **changed == Changed::Gone);
        let pods = gone.filter(|((place, _), _)| self.discoverers[*place].tells_of_pods());
        pods.map(|((_, source), _)| Arc::clone(source)).collect()
    }

    /// Keeps the pool up to date until it is dropped.
    fn follow(&self, at: usize, pools: &Arc<Mutex<Pools>>, shared: &Arc<Shared>) {
        let mailbox = Arc::clone(&self.mailbox);
        let (following, weak) = (self.following.clone(), Arc::downgrade(pools));
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            loop {
                let changes = tokio::select! {
                    () = following.cancelled() => return,
                    changes = mailbox.take() => changes,
                };
                let Some(pools) = weak.upgrade() else { return };
                {
                    let mut pools = pools.lock();
                    // Under the lock: a pool that has been replaced meanwhile is not touched.
                    if following.is_cancelled() {
                        return;
                    }
                    let departed = pools.pools.get(at).map(|pool| pool.departed(&changes));
                    if let Some(pool) = pools.pools.get_mut(at) {
                        pool.update(changes, &shared);
                    }
                    if let Some(departed) = departed.filter(|departed| !departed.is_empty()) {
                        let (nodes, shared) = (pools.nodes(), Arc::clone(&shared));
                        tokio::task::spawn_blocking(move || departed::end_series(&departed, &nodes, &shared));
                    }
                }
                drop(pools);
                tokio::select! {
                    () = following.cancelled() => return,
                    () = tokio::time::sleep(SETTLE) => {}
                }
            }
        });
    }

    /// Tasks in the order of their sources, each once.
    fn in_order(&self) -> impl Iterator<Item = &Task> {
        let mut seen = HashSet::new();
        let all = self.found.values().flat_map(|found| &found.targets);
        all.filter(move |target| seen.insert((*target).clone()))
            .filter_map(|target| self.tasks.get(target))
            .map(|(task, _)| task)
    }
}
