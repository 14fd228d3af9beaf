//! `check service-discovery`: which targets a job finds, and what relabelling makes of them.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use model::Labels;
use scraper::Finder;
use serde_json::{Map, Value, json};

use crate::jobs::system_roots;

/// Looks for so long, but not at all where all targets are fixed.
pub(super) fn check(file: &Path, name: &str, patience: Duration) -> anyhow::Result<()> {
    let loaded = crate::config::load_syntax(file)?;
    let known = || loaded.jobs.iter().map(|job| format!("\t{}\n", job.name)).collect::<String>();
    let job = loaded.jobs.iter().find(|job| job.name == name);
    let job = job.with_context(|| format!("Job {name} not found. Select one of:\n{}", known().trim_end()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let groups = runtime.block_on(async {
        let finder = Finder::alone(&job.targets, &job.discoveries, system_roots());
        if !job.discoveries.is_empty() {
            tokio::time::sleep(patience).await;
        }
        finder.groups()
    });
    let mut found: Vec<Value> = Vec::new();
    for target in groups.iter().flat_map(|group| scraper::judge(job, group)) {
        let mut one =
            json!({"discoveredLabels": object(&target.discovered), "labels": object(&target.labels)});
        if let Some(error) = target.error {
            one["error"] = json!(error);
        }
        if !found.contains(&one) {
            found.push(one);
        }
    }
    say!("{}", serde_json::to_string_pretty(&found)?);
    Ok(())
}

fn object(labels: &Labels) -> Map<String, Value> {
    labels.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
}
