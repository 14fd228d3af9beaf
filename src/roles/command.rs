//! `pyrometer slots`: makes a slot map and moves slots between shards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use remote::slots::{Place, SLOTS, SlotMap};

use super::SHARD_WINDOW_MS;
use super::object::Object;
use crate::cli::{Milliseconds, duration_ms};
use crate::wire::now;

/// A router answers in this time.
const ROUTER_TIMEOUT: Duration = Duration::from_secs(5);

/// Whoever does not say in this time which map it knows is taken to know none, as one that is being started.
const EPOCH_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes and changes slot maps: a file, or `configmap:NAMESPACE/NAME`. It is replaced at once; routers and queriers
/// see it within a second.
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
    let map = match command {
        Slots::Create { map, shards, routers, replication } => Home::open(&map)?.change(|known| {
            anyhow::ensure!(known.is_none(), "{} is there already", map.display());
            Ok(SlotMap::first(shards.clone(), routers.clone(), replication)?)
        })?,
        Slots::Add { map, shard, lead } => {
            Home::open(&map)?.change_known(|known| Ok(known.with_shard(shard.clone(), soon(lead))?))?
        }
        Slots::Remove { map, shard, lead } => {
            Home::open(&map)?.change_known(|known| Ok(known.without_shard(&shard, soon(lead))?))?
        }
        Slots::Finish { map, window } => Home::open(&map)?.change_known(|moving| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let begun = moving.begun(runtime.block_on(known_since(moving))?);
            Ok(begun.finished(now(), window.map_or(SHARD_WINDOW_MS, |window| window.0))?)
        })?,
        Slots::Forget { map, older_than } => {
            let age = duration_ms(&older_than).map_err(anyhow::Error::msg)?;
            Home::open(&map)?.change_known(|known| Ok(known.forgotten(now().saturating_sub(age.0))?))?
        }
        Slots::Show { map } => return show(&Home::open(&map)?.known()?),
    };
    show(&map)
}

/// Where a map is kept: a file, or a config map of the cluster that kubectl would reach.
enum Home {
    File(PathBuf),
    Object(Box<Object>, tokio::runtime::Runtime),
}

impl Home {
    fn open(at: &Path) -> anyhow::Result<Self> {
        let Some(name) = at.to_str().and_then(|text| text.strip_prefix("configmap:")) else {
            return Ok(Self::File(at.to_owned()));
        };
        let name = name.parse().map_err(anyhow::Error::msg)?;
        let access = k8s::find(k8s::Mode::Auto, &crate::config::cluster::environment())?;
        let access = access.context("there is no cluster: neither a kubeconfig nor a service account")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(access.connect())?;
        Ok(Self::Object(Box::new(Object { client, name }), runtime))
    }

    fn known(&self) -> anyhow::Result<SlotMap> {
        match self {
            Self::File(path) => Ok(SlotMap::read(path)?),
            Self::Object(object, runtime) => {
                let (_, map) = runtime.block_on(object.read())?;
                map.with_context(|| format!("{object}: there is no slot map in it"))
            }
        }
    }

    /// Writes the map that `change` makes of the one before. Of a config map that somebody else has written meanwhile
    /// it is made anew.
    fn change(&self, change: impl Fn(Option<SlotMap>) -> anyhow::Result<SlotMap>) -> anyhow::Result<SlotMap> {
        match self {
            Self::File(path) => {
                let known = path.exists().then(|| SlotMap::read(path)).transpose()?;
                let next = change(known)?;
                write(path, &next)?;
                Ok(next)
            }
            Self::Object(object, runtime) => loop {
                let (read, known) = runtime.block_on(object.read())?;
                let next = change(known)?;
                if runtime.block_on(object.write(read, &next))? {
                    return Ok(next);
                }
            },
        }
    }

    fn change_known(&self, change: impl Fn(&SlotMap) -> anyhow::Result<SlotMap>) -> anyhow::Result<SlotMap> {
        // What is missing is named.
        self.known()?;
        self.change(|known| change(known.as_ref().context("the slot map is gone")?))
    }
}

/// Since when all routers go by the map. Each is asked: what one of them sent by an older map is not in the
/// places that slots move to.
pub(super) async fn known_since(map: &SlotMap) -> anyhow::Result<i64> {
    let client = super::client(ROUTER_TIMEOUT)?;
    let mut since = 0;
    for router in map.routers() {
        let url = format!("{}{}", router.url, cluster::BACKLOG_PATH);
        let asked = async {
            let answer = client.get(&url).timeout(ROUTER_TIMEOUT).send().await?.error_for_status()?;
            answer.json::<remote::router::Backlogs>().await
        };
        let told = asked
            .await
            .with_context(|| format!("router {} is to say since when it knows the map", router.name))?;
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

/// The newest maps that any of these routers, and any of these shards, say that they know; 0 if none answers.
pub(super) async fn epochs(routers: &[Place], shards: &[Place]) -> anyhow::Result<(u64, u64)> {
    let client = super::client(EPOCH_TIMEOUT)?;
    let text = async |place: &Place, path: &str| {
        let asked = client.get(format!("{}{path}", place.url)).timeout(EPOCH_TIMEOUT).send().await;
        asked.and_then(reqwest::Response::error_for_status).ok()?.text().await.ok()
    };
    let of_router = async |place: &Place| {
        let told = text(place, cluster::BACKLOG_PATH).await?;
        Some(serde_json::from_str::<remote::router::Backlogs>(&told).ok()?.epoch)
    };
    let of_shard = async |place: &Place| text(place, cluster::SHARD_QUERY_PATH).await?.parse::<u64>().ok();
    let (routers, shards) = tokio::join!(
        futures::future::join_all(routers.iter().map(of_router)),
        futures::future::join_all(shards.iter().map(of_shard))
    );
    let newest = |all: Vec<Option<u64>>| all.into_iter().flatten().max().unwrap_or(0);
    Ok((newest(routers), newest(shards)))
}

/// Replaces the file, so that whoever reads it finds the old map or the new one.
pub(super) fn write(path: &Path, map: &SlotMap) -> anyhow::Result<()> {
    let beside = path.with_extension("tmp");
    let put = || {
        std::fs::write(&beside, map.to_json())?;
        std::fs::File::open(&beside)?.sync_all()?;
        std::fs::rename(&beside, path)
    };
    put().with_context(|| path.display().to_string())
}

fn show(map: &SlotMap) -> anyhow::Result<()> {
    use std::io::Write as _;
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
