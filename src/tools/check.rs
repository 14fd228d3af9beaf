//! `check config` and `check rules`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use ::rules::Dialect;
use anyhow::ensure;

use super::Ending;
use crate::cli::tools::Lint;
use crate::config;

/// Which checks are made besides those for errors.
struct Checks {
    duplicate_rules: bool,
    long_intervals: bool,
    fatal: bool,
}

impl Checks {
    fn new(lint: &Lint) -> anyhow::Result<Self> {
        for name in &lint.checks {
            let known = ["all", "duplicate-rules", "too-long-scrape-interval", "none"];
            ensure!(known.contains(&name.as_str()), "--lint={name}: not one of {}", known.join(", "));
        }
        let on = |name: &str| lint.checks.iter().any(|check| check == name || check == "all");
        Ok(Self {
            duplicate_rules: on("duplicate-rules"),
            long_intervals: on("too-long-scrape-interval"),
            fatal: lint.fatal,
        })
    }

    fn ending(&self, found: bool) -> Ending {
        if found && self.fatal { Ending::Lint } else { Ending::Well }
    }
}

/// Says of each configuration file whether it can be run.
pub(super) fn config(
    files: &[PathBuf],
    (syntax_only, agent): (bool, bool),
    (lint, dialect): (&Lint, Dialect),
    lookback_ms: i64,
) -> anyhow::Result<Ending> {
    let checks = Checks::new(lint)?;
    let (mut failed, mut found) = (0, false);
    for path in files {
        say!("Checking {}", path.display());
        let outcome = if syntax_only { config::load_syntax(path) } else { config::load(path, dialect) };
        let outcome = outcome.map_err(anyhow::Error::from).and_then(|loaded| {
            if agent {
                loaded.check_agent(path)?;
            }
            Ok(loaded)
        });
        match outcome {
            Ok(loaded) => {
                say!(" SUCCESS: {} is valid prometheus config file syntax", path.display());
                for job in
                    loaded.jobs.iter().filter(|job| checks.long_intervals && job.interval_ms >= lookback_ms)
                {
                    found = true;
                    say!(
                        "  LINT: job {:?}: a scrape interval of {} or more loses samples in queries",
                        job.name,
                        model::duration::format_ms(lookback_ms)
                    );
                }
                let mut by_file: BTreeMap<&str, Vec<rules::Group>> = BTreeMap::new();
                for group in &loaded.rules {
                    by_file.entry(&group.file).or_default().push(group.clone());
                }
                for (file, groups) in by_file {
                    say!("\nChecking {file}");
                    found |= report(&groups, &checks)?;
                }
            }
            Err(error) => {
                eprintln!("  FAILED: {error}");
                failed += 1;
            }
        }
        say!();
    }
    ensure!(failed == 0, "{failed} of {} files cannot be used", files.len());
    Ok(checks.ending(found))
}

/// Says of each rule file how many rules it has.
pub(super) fn rules(files: &[PathBuf], lint: &Lint, dialect: Dialect) -> anyhow::Result<Ending> {
    let checks = Checks::new(lint)?;
    let (mut failed, mut found) = (0, false);
    let mut checked = |name: &str, outcome: anyhow::Result<Vec<rules::Group>>| -> anyhow::Result<()> {
        say!("Checking {name}");
        match outcome {
            Ok(groups) => found |= report(&groups, &checks)?,
            Err(error) => {
                eprintln!("  FAILED:\n{error}");
                failed += 1;
            }
        }
        say!();
        Ok(())
    };
    if files.is_empty() {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        let parsed = ::rules::parse_with(&text, dialect);
        checked("standard input", parsed.map_err(|fault| mistakes("standard input", &fault)))?;
    }
    for path in files {
        let name = path.display().to_string();
        let loaded = config::load_rules(path, dialect).map_err(|error| match error {
            config::ConfigError::Rules { fault, .. } => mistakes(&name, &fault),
            error => error.into(),
        });
        checked(&name, loaded)?;
    }
    ensure!(failed == 0, "{failed} of {} files cannot be used", files.len().max(1));
    Ok(checks.ending(found))
}

/// All that is wrong with a rule file, a line each.
fn mistakes(name: &str, fault: &::rules::FileError) -> anyhow::Error {
    let lines: Vec<String> = fault.all().map(|fault| format!("{name}:{fault}")).collect();
    anyhow::anyhow!(lines.join("\n"))
}

/// Prints what is in a file; returns whether lint found anything.
fn report(groups: &[rules::Group], checks: &Checks) -> anyhow::Result<bool> {
    let count: usize = groups.iter().map(|group| group.rules.len()).sum();
    say!("  SUCCESS: {count} rules found");
    if !checks.duplicate_rules {
        return Ok(false);
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for rule in groups.iter().flat_map(|group| &group.rules) {
        let labels: Vec<String> =
            rule.labels.iter().map(|(name, value)| format!("\t{name}: {value}\n")).collect();
        *seen.entry(format!("Metric: {}\nLabel(s):\n{}", rule.name, labels.concat())).or_default() += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    if twice.is_empty() {
        return Ok(false);
    }
    say!("{} duplicate rule(s) found.", twice.len());
    for (text, _) in twice {
        say!("{}", text.trim_end());
    }
    say!("Might cause inconsistency while recording expressions");
    Ok(true)
}
