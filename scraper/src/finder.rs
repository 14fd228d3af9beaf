//! Targets that somebody else than a scrape pool wants: Alertmanagers, or whoever looks what discovery finds.

use std::sync::Arc;

use k8s::Mailbox;
use model::Labels;

use crate::config::{Discovery, ScrapeJob, TargetGroup};
use crate::discovery::{self, Discoverer, PoolMailbox};
use crate::http::Roots;
use crate::relabel;
use crate::target::{Outcome, resolve};

/// What some fixed targets and some discoveries come to. Dropping it ends discoveries that nobody else follows.
pub struct Finder {
    discoverers: Vec<Arc<Discoverer>>,
    mailbox: Arc<PoolMailbox>,
}

impl Finder {
    /// Looks for targets on the current tokio runtime, on its own. Servers that are asked are judged by the
    /// authorities of `system_roots_pem` where their options name none.
    #[must_use]
    pub fn alone(targets: &[TargetGroup], discoveries: &[Discovery], system_roots_pem: Vec<u8>) -> Self {
        let roots = Arc::new(Roots { system_pem: system_roots_pem, pins: None });
        let agent = concat!("Pyrometer/", env!("CARGO_PKG_VERSION")).to_owned();
        Self::start(targets, discoveries, &discovery::Shared::new(roots, agent))
    }

    pub(crate) fn start(
        targets: &[TargetGroup],
        discoveries: &[Discovery],
        shared: &discovery::Shared,
    ) -> Self {
        let mailbox = Mailbox::new();
        let mut discoverers = vec![Discoverer::fixed(targets)];
        discoverers.extend(discoveries.iter().map(|options| shared.discoverer(options)));
        for (place, discoverer) in discoverers.iter().enumerate() {
            discoverer.subscribe(place, &mailbox);
        }
        Self { discoverers, mailbox }
    }

    /// All groups there are now: the fixed ones first, then those of each discovery in the order of their sources.
    #[must_use]
    pub fn groups(&self) -> Vec<Arc<TargetGroup>> {
        let of = |discoverer: &Arc<Discoverer>| {
            let mut sources = discoverer.sources();
            sources.sort_unstable();
            sources.into_iter().filter_map(|source| discoverer.group(&source)).collect::<Vec<_>>()
        };
        self.discoverers.iter().flat_map(of).collect()
    }

    /// Waits until something has changed since this was last called, or since the start.
    pub async fn changed(&self) {
        self.mailbox.take().await;
    }
}

/// What relabelling makes of a target that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its labels before, defaults included.
    pub discovered: Labels,
    /// Its labels after relabelling, as promtool shows them: with those that say how it is scraped, but not with what
    /// discovery said. None if it is dropped or cannot be scraped.
    pub labels: Labels,
    /// Why it cannot be scraped.
    pub error: Option<String>,
}

/// What becomes of the targets of a group in a job.
#[must_use]
pub fn judge(job: &ScrapeJob, group: &TargetGroup) -> Vec<Judged> {
    let judged = |outcome| match outcome {
        Outcome::Active(target) => {
            let mut labels = target.discovered.to_builder();
            // It has not dropped the target before.
            let _ = relabel::apply(&job.relabel, &mut labels);
            labels.retain(|name, _| !name.starts_with("__meta_"));
            for (name, value) in &target.labels {
                labels.set(name, value);
            }
            Judged { discovered: target.discovered, labels: labels.build(), error: None }
        }
        Outcome::Dropped(discovered) => Judged { discovered, labels: Labels::empty(), error: None },
        Outcome::Invalid { discovered, error } => {
            Judged { discovered, labels: Labels::empty(), error: Some(error) }
        }
    };
    resolve(job, group).map(judged).collect()
}
