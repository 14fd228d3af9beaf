//! The tasks that evaluate groups, and the handle to them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::Timestamp;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::group::GroupState;
use crate::notifier::{Alertmanager, Notifier};
use crate::query::{Environment, count};
use crate::rule::Group;
use crate::schedule;
use crate::status::{AlertStatus, GroupStatus, Stats};
use crate::{Clock, StartError};

/// The series of a removed group end after this many of its intervals: its rules may have moved.
const FAREWELL_INTERVALS: i64 = 2;

/// What all tasks share.
pub(crate) struct Shared {
    pub(crate) env: Environment,
    pub(crate) clock: Clock,
    pub(crate) notifier: Notifier,
    pub(crate) begin: Option<CancellationToken>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) interval_ms: i64,
    pub(crate) query_offset_ms: i64,
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    fn state(&self, group: Arc<Group>, must_restore: bool) -> GroupState {
        let interval_ms = group.interval_ms.unwrap_or(self.interval_ms);
        let query_offset_ms = group.query_offset_ms.unwrap_or(self.query_offset_ms);
        GroupState::new(group, (interval_ms, query_offset_ms), must_restore)
    }
}

/// The running task of one group.
struct Task {
    group: Arc<Group>,
    live: Arc<Mutex<GroupStatus>>,
    /// Ends the task when it is dropped.
    removed: DropGuard,
    /// Gives the group back when it is removed.
    state: JoinHandle<GroupState>,
}

impl Task {
    fn start(shared: &Arc<Shared>, state: GroupState) -> Self {
        let removed = shared.shutdown.child_token();
        let (group, live) = (Arc::clone(&state.group), Arc::clone(&state.live));
        let state = shared.tasks.spawn(run(Arc::clone(shared), state, removed.clone()));
        Self { group, live, removed: removed.drop_guard(), state }
    }
}

/// Evaluates a group at its moments until it is removed.
async fn run(shared: Arc<Shared>, mut state: GroupState, removed: CancellationToken) -> GroupState {
    if let Some(begin) = &shared.begin {
        tokio::select! {
            biased;
            () = removed.cancelled() => return state,
            () = begin.cancelled() => {}
        }
    }
    let interval_ms = state.interval_ms;
    let offset_ms = schedule::offset_ms(&state.group.file, &state.group.name, interval_ms);
    let mut due = schedule::next_slot(shared.now(), interval_ms, offset_ms);
    loop {
        let wait = Duration::from_millis(u64::try_from(due - shared.now()).unwrap_or(0));
        tokio::select! {
            biased;
            () = removed.cancelled() => return state,
            () = tokio::time::sleep(wait) => {}
        }
        state = evaluate(&shared, state, due).await;
        let (next, missed) = schedule::advance(due, shared.now(), interval_ms);
        due = next;
        count(&shared.env.counters.iterations, 1 + missed);
        count(&shared.env.counters.missed, missed);
        let mut live = state.live.lock();
        live.iterations += missed;
        live.iterations_missed += missed;
    }
}

/// One evaluation on a thread that may block. A panic costs the group's memory, not the process.
async fn evaluate(shared: &Arc<Shared>, mut state: GroupState, ts: Timestamp) -> GroupState {
    let (group, live) = (Arc::clone(&state.group), Arc::clone(&state.live));
    let here = Arc::clone(shared);
    let work = tokio::task::spawn_blocking(move || {
        let alerts = state.evaluate(&here.env, ts);
        (state, alerts)
    });
    match work.await {
        Ok((state, alerts)) => {
            shared.notifier.send(&alerts);
            state
        }
        Err(error) => {
            tracing::error!(file = %group.file, group = %group.name, %error, "evaluating a group failed");
            count(&shared.env.counters.failures, 1);
            let mut fresh = shared.state(group, true);
            fresh.live = live;
            fresh
        }
    }
}

/// Ends the series of a removed group after a while.
async fn farewell(shared: Arc<Shared>, state: GroupState) {
    let wait = u64::try_from(state.interval_ms * FAREWELL_INTERVALS).unwrap_or(0);
    tokio::select! {
        biased;
        () = shared.shutdown.cancelled() => {}
        () = tokio::time::sleep(Duration::from_millis(wait)) => {
            let here = Arc::clone(&shared);
            let _ = tokio::task::spawn_blocking(move || state.end(&here.env, here.now())).await;
        }
    }
}

/// Running rules. Dropping it ends them as [`Handle::stop`] does, but nobody waits.
pub struct Handle {
    shared: Arc<Shared>,
    tasks: tokio::sync::Mutex<Vec<Task>>,
    live: Mutex<Vec<Arc<Mutex<GroupStatus>>>>,
}

impl Handle {
    pub(crate) fn start(shared: Arc<Shared>, groups: Vec<Group>) -> Self {
        let tasks: Vec<_> = groups
            .into_iter()
            .map(|group| Task::start(&shared, shared.state(Arc::new(group), true)))
            .collect();
        let live = tasks.iter().map(|task| Arc::clone(&task.live)).collect();
        Self { shared, tasks: tokio::sync::Mutex::new(tasks), live: Mutex::new(live) }
    }

    /// All groups, now.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupStatus> {
        self.live.lock().iter().map(|live| live.lock().clone()).collect()
    }

    /// All pending and firing alerts, now.
    #[must_use]
    pub fn alerts(&self) -> Vec<AlertStatus> {
        let mut alerts = Vec::new();
        for live in self.live.lock().iter() {
            let live = live.lock();
            let rules = live.rules.iter().filter_map(|rule| rule.alerting.as_ref());
            alerts.extend(rules.flat_map(|alerting| alerting.alerts.iter().cloned()));
        }
        alerts
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.env.counters;
        Stats {
            evaluations: counters.evaluations.load(Ordering::Relaxed),
            evaluation_failures: counters.failures.load(Ordering::Relaxed),
            iterations: counters.iterations.load(Ordering::Relaxed),
            iterations_missed: counters.missed.load(Ordering::Relaxed),
            samples_written: counters.written.load(Ordering::Relaxed),
            samples_refused: counters.refused.load(Ordering::Relaxed),
            alertmanagers: self.shared.notifier.stats(),
            dropped_alertmanagers: self.shared.notifier.dropped(),
        }
    }

    /// Replaces the groups. Those that stay as they were are not disturbed; in one that changed, the rules
    /// of the same name and labels keep their alerts and series. The series of all others end. Waits for
    /// the evaluations under way in groups that changed; whoever drops it before it is done ends all
    /// groups it had not come to.
    ///
    /// # Errors
    /// The groups cannot be run; the old ones go on.
    pub async fn reload(&self, groups: Vec<Group>) -> Result<(), StartError> {
        crate::check_groups(&groups)?;
        let mut tasks = self.tasks.lock().await;
        let mut old = std::mem::take(&mut *tasks);
        for group in groups {
            let known =
                old.iter().position(|task| task.group.file == group.file && task.group.name == group.name);
            let task = match known.map(|at| old.swap_remove(at)) {
                Some(task) if *task.group == group => task,
                Some(task) => {
                    let mut state = self.shared.state(Arc::new(group), false);
                    drop(task.removed);
                    if let Ok(before) = task.state.await {
                        state.inherit(before);
                    }
                    Task::start(&self.shared, state)
                }
                None => Task::start(&self.shared, self.shared.state(Arc::new(group), false)),
            };
            tasks.push(task);
        }
        *self.live.lock() = tasks.iter().map(|task| Arc::clone(&task.live)).collect();
        for task in old {
            drop(task.removed);
            let shared = Arc::clone(&self.shared);
            self.shared.tasks.spawn(async move {
                if let Ok(state) = task.state.await {
                    farewell(shared, state).await;
                }
            });
        }
        Ok(())
    }

    /// Alerts go to these from now on; what waits for one that stays goes on waiting. `dropped` are the URLs of those
    /// that relabelling dropped, for display.
    pub fn set_alertmanagers(&self, alertmanagers: Vec<Alertmanager>, dropped: Vec<String>) {
        self.shared.notifier.replace(alertmanagers, dropped);
    }

    /// Ends all evaluations without staleness markers, gives up the queries under way, and delivers the
    /// alerts that wait.
    pub async fn stop(&self) {
        self.shared.shutdown.cancel();
        self.shared.env.cancelled.set();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.notifier.stop().await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.shutdown.cancel();
        self.shared.env.cancelled.set();
    }
}
