//! `pyrometer slots`: makes a slot map and moves slots between shards.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use remote::slots::{Place, SLOTS, SlotMap};

use super::SHARD_WINDOW_MS;
use crate::cli::{Milliseconds, duration_ms};
use crate::wire::now;

/// Stands for standard input and output in place of a map's file.
const STANDARD: &str = "-";
/// A router answers in this time.
const ROUTER_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes and changes slot maps. A file is replaced at once; routers and queriers see it within a second. Where the file
/// is "-", the map comes from standard input, and the next one goes to standard output.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Slots {
    /// Make the first map.
    Create {
        /// The map's file, which must not be there yet.
        map: PathBuf,
        /// A shard: NAME=URL.
        #[arg(long = "shard", required = true, value_name = "NAME=URL", value_parser = place)]
        shards: Vec<Place>,
        /// A router, which queriers ask what it still holds: NAME=URL.
        #[arg(long = "router", value_name = "NAME=URL", value_parser = place)]
        routers: Vec<Place>,
        /// How many shards have each series: 1 to 3.
        #[arg(long, default_value_t = 1)]
        replication: usize,
    },
    /// Add a shard: from now on its slots are written to it and to where they were.
    Add {
        /// The map's file.
        map: PathBuf,
        /// The shard: NAME=URL.
        #[arg(value_parser = place)]
        shard: Place,
        /// Time until all routers know the map.
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration_ms)]
        lead: Milliseconds,
    },
    /// Remove a shard: from now on its slots are written to it and to where they go.
    Remove {
        /// The map's file.
        map: PathBuf,
        /// The shard's name.
        shard: String,
        /// Time until all routers know the map.
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration_ms)]
        lead: Milliseconds,
    },
    /// End adding or removing: shards that slots have left are no longer written to.
    Finish {
        /// The map's file.
        map: PathBuf,
        /// How late samples may come.
        #[arg(long, value_name = "DURATION", value_parser = duration_ms)]
        window: Option<Milliseconds>,
    },
    /// Forget who had samples that are older than this, and shards that have no others.
    Forget {
        /// The map's file.
        map: PathBuf,
        /// The age; usually the retention.
        older_than: String,
    },
    /// Show who owns how many slots.
    Show {
        /// The map's file.
        map: PathBuf,
    },
}

fn place(text: &str) -> Result<Place, String> {
    let (name, url) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=URL"))?;
    Ok(Place { name: name.to_owned(), url: url.trim_end_matches('/').to_owned() })
}

/// Carries a command out.
pub(crate) fn run(command: Slots) -> anyhow::Result<()> {
    let soon = |lead: Milliseconds| now().saturating_add(lead.0);
    let (path, map) = match command {
        Slots::Create { map, shards, routers, replication } => {
            anyhow::ensure!(!map.exists(), "{} is there already", map.display());
            (map, SlotMap::first(shards, routers, replication)?)
        }
        Slots::Add { map, shard, lead } => {
            let next = read(&map)?.with_shard(shard, soon(lead))?;
            (map, next)
        }
        Slots::Remove { map, shard, lead } => {
            let next = read(&map)?.without_shard(&shard, soon(lead))?;
            (map, next)
        }
        Slots::Finish { map, window } => {
            let moving = read(&map)?;
            let begun = moving.begun(known_since(&moving)?);
            let next = begun.finished(now(), window.map_or(SHARD_WINDOW_MS, |window| window.0))?;
            (map, next)
        }
        Slots::Forget { map, older_than } => {
            let age = duration_ms(&older_than).map_err(anyhow::Error::msg)?;
            let next = read(&map)?.forgotten(now().saturating_sub(age.0))?;
            (map, next)
        }
        Slots::Show { map } => return show(&read(&map)?),
    };
    if path == Path::new(STANDARD) {
        return Ok(std::io::stdout().write_all(map.to_json().as_bytes())?);
    }
    write(&path, &map)?;
    show(&map)
}

fn read(path: &Path) -> anyhow::Result<SlotMap> {
    if path != Path::new(STANDARD) {
        return Ok(SlotMap::read(path)?);
    }
    let text = std::io::read_to_string(std::io::stdin()).context("standard input")?;
    Ok(SlotMap::parse(&text)?)
}

/// Since when all routers go by the map. Each is asked: what one of them sent by an older map is not in the
/// places that slots move to.
fn known_since(map: &SlotMap) -> anyhow::Result<i64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = super::client(ROUTER_TIMEOUT)?;
    let mut since = 0;
    for router in map.routers() {
        let url = format!("{}{}", router.url, cluster::BACKLOG_PATH);
        let told = runtime.block_on(async {
            let answer = client.get(&url).timeout(ROUTER_TIMEOUT).send().await?.error_for_status()?;
            answer.json::<remote::router::Backlogs>().await
        });
        let told =
            told.with_context(|| format!("router {} is to say since when it knows the map", router.name))?;
        anyhow::ensure!(
            told.epoch >= map.epoch(),
            "router {} goes by slot map {}, not yet by {}",
            router.name,
            told.epoch,
            map.epoch()
        );
        since = since.max(told.since);
    }
    Ok(since)
}

/// Replaces the file, so that whoever reads it finds the old map or the new one.
fn write(path: &Path, map: &SlotMap) -> anyhow::Result<()> {
    let beside = path.with_extension("tmp");
    let put = || {
        std::fs::write(&beside, map.to_json())?;
        std::fs::File::open(&beside)?.sync_all()?;
        std::fs::rename(&beside, path)
    };
    put().with_context(|| path.display().to_string())
}

fn show(map: &SlotMap) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let moving = if map.is_moving() { ", slots are moving" } else { "" };
    writeln!(out, "epoch {}, replication {}{moving}", map.epoch(), map.replication())?;
    for (at, shard) in map.shards().iter().enumerate() {
        let count = |wanted: fn(&remote::slots::Holder) -> bool| {
            let has =
                |slot: &u16| map.holders(*slot).iter().any(|holder| holder.shard == at && wanted(holder));
            (0..SLOTS).filter(has).count()
        };
        let owned = count(|holder| holder.is_written() && !holder.leaving);
        let leaving = count(|holder| holder.leaving);
        let past = count(|holder| !holder.is_written());
        writeln!(out, "{} {}: {owned} slots, {leaving} leaving, {past} of the past", shard.name, shard.url)?;
    }
    Ok(())
}
