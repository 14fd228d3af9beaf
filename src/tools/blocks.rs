//! `tsdb list` and `tsdb analyze`: what is in a data directory.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::Context as _;
use model::{Querier as _, Samples, Selection, TimeRange};
use tsdb::{BlockMeta, Db, Options};

use super::dump::selectors;

/// The blocks of a directory, ascending by time.
fn blocks(dir: &Path) -> anyhow::Result<Vec<BlockMeta>> {
    let mut blocks: Vec<BlockMeta> = Vec::new();
    let entries = std::fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    for entry in entries {
        let path = entry?.path().join("meta.json");
        let is_block = path.parent().and_then(Path::file_name).is_some_and(|name| name.len() == 26);
        if is_block && path.is_file() {
            let text = std::fs::read_to_string(&path)?;
            blocks.push(serde_json::from_str(&text).with_context(|| path.display().to_string())?);
        }
    }
    blocks.sort_by_key(|block| (block.min_time, block.ulid));
    Ok(blocks)
}

/// `tsdb list`
pub(super) fn list(dir: &Path, human: bool) -> anyhow::Result<()> {
    say!(
        "{:<26}  {:<20}  {:<20}  {:<12}  {:<11}  {:<10}  {:<10}  SIZE",
        "BLOCK ULID",
        "MIN TIME",
        "MAX TIME",
        "DURATION",
        "NUM SAMPLES",
        "NUM CHUNKS",
        "NUM SERIES"
    );
    for block in blocks(dir)? {
        let bytes = directory_bytes(&dir.join(block.ulid.to_string()));
        let time = |ms: i64| {
            if human { rfc3339(ms) } else { ms.to_string() }
        };
        say!(
            "{:<26}  {:<20}  {:<20}  {:<12}  {:<11}  {:<10}  {:<10}  {}",
            block.ulid.to_string(),
            time(block.min_time),
            time(block.max_time),
            model::duration::format_ms(block.max_time - block.min_time),
            block.stats.num_samples,
            block.stats.num_chunks,
            block.stats.num_series,
            if human { human_bytes(bytes) } else { bytes.to_string() },
        );
    }
    Ok(())
}

fn rfc3339(ms: i64) -> String {
    let time = jiff::Timestamp::from_second(ms.div_euclid(1000));
    time.map_or_else(|_| ms.to_string(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power =
        (0..UNITS.len() - 1).find(|power| bytes >> (10 * (power + 1)) == 0).unwrap_or(UNITS.len() - 1);
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let value = bytes as f64 / f64::from(1u32 << (10 * power.min(3))) / if power == 4 { 1024.0 } else { 1.0 };
    format!("{value:.3}{}", UNITS[power])
}

fn directory_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(size).sum()
}

/// Counts by key, the highest first.
fn top(counts: HashMap<String, u64>, limit: usize) -> Vec<(String, u64)> {
    let mut list: Vec<_> = counts.into_iter().collect();
    list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    list.truncate(limit);
    list
}

/// What is counted over the series of a block.
#[derive(Default)]
struct Counted {
    series: u64,
    pairs: HashMap<String, u64>,
    value_bytes: HashMap<String, u64>,
    values: HashMap<String, u64>,
    metrics: HashMap<String, u64>,
    /// How much of the block's time a series of this label pair or name is absent, in milliseconds.
    churn_pairs: HashMap<String, u64>,
    churn_names: HashMap<String, u64>,
    entries: u64,
}

/// `tsdb analyze`: a block, and which of its series are looked at.
pub(super) struct Analyzed {
    block: BlockMeta,
    db: Db,
    matchers: Vec<model::Matcher>,
    _alone: Alone,
}

impl Analyzed {
    /// The newest block of `dir`, or that of a name.
    pub(super) fn new(dir: &Path, ulid: Option<&str>, selector: Option<&str>) -> anyhow::Result<Self> {
        let mut blocks = blocks(dir)?;
        let at = match ulid {
            Some(ulid) => blocks.iter().position(|block| block.ulid.to_string() == ulid),
            None => blocks.len().checked_sub(1),
        };
        let at = at.with_context(|| match ulid {
            Some(ulid) => format!("block {ulid} not found in {}", dir.display()),
            None => format!("there are no blocks in {}", dir.display()),
        })?;
        let block = blocks.swap_remove(at);
        // The block alone, so that others of the same time are not counted.
        let alone = Alone::new(dir, &block.ulid.to_string())?;
        let db = Db::open(&alone.0, Options { retention_ms: None, ..Options::default() })?;
        let matchers = selectors(&[selector.unwrap_or("{__name__=~'(?s:.*)'}").to_owned()])?.remove(0);
        Ok(Self { block, db, matchers, _alone: alone })
    }

    fn range(&self) -> TimeRange {
        TimeRange::new(self.block.min_time, self.block.max_time - 1)
    }

    /// How full chunks are.
    pub(super) fn print_chunks(&self) -> anyhow::Result<()> {
        let snapshot = self.db.snapshot();
        let all = snapshot.select_chunks(&Selection::new(&self.matchers, self.range()))?;
        let mut of_kind: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
        for index in 0..all.len() {
            all.chunks(index, self.range(), &mut |chunk| {
                let count = chunk.bytes.first_chunk().map_or(0, |count| u16::from_be_bytes(*count));
                let is_float = chunk.encoding == tsdb::ChunkEncoding::Xor;
                let kind = if is_float { "float" } else { "histogram" };
                of_kind.entry(kind).or_default().push((usize::from(count), chunk.bytes.len()));
            })?;
        }
        say!("\nCompaction analysis:");
        for (kind, chunks) in of_kind {
            let (counts, sizes) = chunks.into_iter().unzip();
            spread(&format!("samples per {kind} chunk"), counts)?;
            spread(&format!("bytes per {kind} chunk"), sizes)?;
        }
        Ok(())
    }

    /// What is most numerous.
    pub(super) fn print(&self, limit: usize) -> anyhow::Result<()> {
        let block = &self.block;
        let counted = count(&self.db, &self.matchers, self.range())?;
        say!("Block ID: {}", block.ulid);
        say!("Duration: {}", model::duration::format_ms(block.max_time - block.min_time));
        say!("Total Series: {}", counted.series);
        say!("Label names: {}", counted.values.len());
        say!("Postings (unique label pairs): {}", counted.pairs.len());
        say!("Postings entries (total label pairs): {}", counted.entries);
        let lists = [
            ("Label pairs most involved in churning:", counted.churn_pairs),
            ("Label names most involved in churning:", counted.churn_names),
            ("Most common label pairs:", counted.pairs),
            ("Label names with highest cumulative label value length:", counted.value_bytes),
            ("Highest cardinality labels:", counted.values),
            ("Highest cardinality metric names:", counted.metrics),
        ];
        let span_ms = (block.max_time - block.min_time).max(1).unsigned_abs();
        for (at, (title, counts)) in lists.into_iter().enumerate() {
            say!("\n{title}");
            for (name, count) in top(counts, limit) {
                // Churn is told in series that were there for none of the time.
                say!("{} {name}", if at < 2 { count / span_ms } else { count });
            }
        }
        Ok(())
    }
}

/// Prints how many there are, and the least, those in between, and the greatest.
fn spread(what: &str, mut numbers: Vec<usize>) -> std::io::Result<()> {
    numbers.sort_unstable();
    let at = |percent: usize| numbers.get((numbers.len().saturating_sub(1)) * percent / 100).copied();
    let shown = [0, 25, 50, 75, 99, 100].map(|percent| at(percent).unwrap_or_default());
    let mut out = std::io::stdout();
    std::io::Write::write_fmt(
        &mut out,
        format_args!(
            "{what} ({} chunks): min {} p25 {} p50 {} p75 {} p99 {} max {}\n",
            numbers.len(),
            shown[0],
            shown[1],
            shown[2],
            shown[3],
            shown[4],
            shown[5]
        ),
    )
}

fn count(db: &Db, matchers: &[model::Matcher], range: TimeRange) -> anyhow::Result<Counted> {
    let snapshot = db.snapshot();
    let set = snapshot.select(&Selection::new(matchers, range))?;
    let mut counted = Counted::default();
    let mut values: BTreeMap<String, std::collections::HashSet<String>> = BTreeMap::new();
    let mut samples = Samples::default();
    for index in 0..set.len() {
        set.samples(index, range, &mut samples)?;
        let times = || samples.ts.iter().chain(&samples.histogram_ts);
        let (Some(first), Some(last)) = (times().min(), times().max()) else { continue };
        let absent = ((first - range.start) + (range.end - last)).max(0).unsigned_abs();
        counted.series += 1;
        set.visit_labels(index, &mut |name, value| {
            let pair = format!("{name}={value}");
            counted.entries += 1;
            *counted.churn_pairs.entry(pair.clone()).or_default() += absent;
            *counted.churn_names.entry(name.to_owned()).or_default() += absent;
            *counted.pairs.entry(pair).or_default() += 1;
            if name == model::METRIC_NAME {
                *counted.metrics.entry(value.to_owned()).or_default() += 1;
            }
            if values.entry(name.to_owned()).or_default().insert(value.to_owned()) {
                *counted.value_bytes.entry(name.to_owned()).or_default() += value.len() as u64;
            }
        });
    }
    counted.values = values.into_iter().map(|(name, values)| (name, values.len() as u64)).collect();
    Ok(counted)
}

/// A directory with one block of another, whose files are linked; gone when this is dropped.
struct Alone(std::path::PathBuf);

impl Alone {
    fn new(dir: &Path, ulid: &str) -> anyhow::Result<Self> {
        // The name is one that a server which is killed here removes at its next start.
        let this = Self(dir.join(format!("analyze-{}.tmp-for-creation", std::process::id())));
        link(&dir.join(ulid), &this.0.join(ulid))?;
        Ok(this)
    }
}

fn link(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link(&entry.path(), &target)?;
        } else {
            std::fs::hard_link(entry.path(), &target).with_context(|| target.display().to_string())?;
        }
    }
    Ok(())
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
