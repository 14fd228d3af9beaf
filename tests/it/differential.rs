//! Random expressions, asked of Pyrometer and of Prometheus over one block.
//!
//! A few hundred run with every `cargo test`, beside the `prometheus` on the path. A long run beside another:
//! ```text
//! PYROMETER_PROMETHEUS=path/to/prometheus PYROMETER_DIFFERENTIAL=10000 PYROMETER_SEED=1 \
//!     cargo test --test it differential -- --nocapture
//! ```
//! What a release of Prometheus lacks, and where 3.14 answers otherwise, is data in `language.rs`.

mod generate;
mod language;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::answers::difference;
use crate::process::{PATIENCE, Server, escape, get, installed, request};
use generate::{Generator, Random};
use language::{Kind, Known, Language};

/// The time that the block covers, in seconds.
const FROM: usize = 1_795_236_505;
const SPAN: usize = 464;

/// Cases of an ordinary run.
const CASES: usize = 400;

/// A query and its times.
pub(crate) struct Case {
    number: usize,
    query: String,
    /// `time`, or `start`, `end` and `step`.
    times: Vec<(&'static str, String)>,
}

impl Case {
    fn is_range(&self) -> bool {
        self.times.len() > 1
    }

    fn has_subquery(&self) -> bool {
        ["s:", "m:"].iter().any(|part| self.query.contains(part))
    }

    fn new(number: usize, seed: u64, language: &Language) -> Self {
        let random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        let mut generator = Generator { random, language };
        let is_range = generator.random.below(3) == 0;
        let random = &mut generator.random;
        // Beyond both ends of the block too.
        let second = FROM + random.below(SPAN + 350) - 5;
        let ms = if language.has(language::SUBQUERIES_OF_V3) {
            [0, 0, 370, random.below(1000)][random.below(4)]
        } else {
            // No sample lies on the edge of a window.
            random.below(100) * 10 + 7
        };
        let start = format!("{second}.{ms:03}");
        let times = if is_range {
            let step = random.one_of(&[1000, 5000, 7300, 15_000, 30_000, 37_000, 60_000]);
            let span_ms = step * (1 + random.below(25)) + random.below(2) * 500;
            let end_ms = second * 1000 + ms + span_ms;
            vec![
                ("start", start),
                ("end", format!("{}.{:03}", end_ms / 1000, end_ms % 1000)),
                ("step", format!("{}.{:03}", step / 1000, step % 1000)),
            ]
        } else {
            vec![("time", start)]
        };
        let query = loop {
            let query = generator.query(is_range);
            if !language.avoids.iter().any(|word| query.contains(word)) {
                break query;
            }
        };
        Self { number, query, times }
    }

    /// The answer of the server at `url`: its status and its body.
    fn ask(&self, url: &str) -> (u16, Value) {
        let path = if self.is_range() { "query_range" } else { "query" };
        let mut form = format!("query={}", escape(&self.query));
        for (key, value) in &self.times {
            form.push_str(&format!("&{key}={value}"));
        }
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        let (status, body) = request("POST", &format!("{url}/api/v1/{path}"), &headers, &form);
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }
}

/// A Prometheus under test. Dropping it kills it.
struct Prometheus {
    child: Child,
    url: String,
    language: &'static Language,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Starts the program on a copy of the blocks in `dir`.
    fn start(program: &str, dir: &Path) -> Self {
        let version = Command::new(program).arg("--version").output().unwrap();
        let language = Language::of(&String::from_utf8_lossy(&[version.stdout, version.stderr].concat()));
        let config = dir.join("prometheus.yml");
        std::fs::write(&config, "scrape_configs: []\n").unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("theirs").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--storage.tsdb.retention.time=100y")
            .args(language.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, url: format!("http://{address}"), language };
        let since = Instant::now();
        while get(&format!("{}/-/ready", server.url), &[]).0 != 200 {
            assert!(since.elapsed() < PATIENCE, "{program} does not become ready");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        server
    }
}

fn blocks() -> Option<PathBuf> {
    let shared = std::env::var_os("PYROMETER_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let blocks = shared.join("data/tsdb-blocks");
    if blocks.exists() {
        return Some(blocks);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is absent", blocks.display());
    eprintln!("SKIPPED: {} is absent", blocks.display());
    None
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn random_expressions_have_the_values_that_prometheus_gives() {
    let program = std::env::var("PYROMETER_PROMETHEUS").unwrap_or_else(|_| "prometheus".to_owned());
    let Some(blocks) = blocks() else { return };
    if !installed(&program) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for copy in ["data", "theirs"] {
        let copied = Command::new("cp").arg("-r").arg(&blocks).arg(dir.path().join(copy)).status().unwrap();
        assert!(copied.success());
    }
    let theirs = Prometheus::start(&program, dir.path());
    let features = "--enable-feature=promql-experimental-functions";
    let ours = Server::start(dir.path(), &["--kubernetes=off", features]);
    ours.wait_for_history();
    let (count, seed) = (number("PYROMETER_DIFFERENTIAL", CASES), number("PYROMETER_SEED", 1));
    let first = number("PYROMETER_FIRST", 0);
    let mut tally = Tally::default();
    for number in first..first + count {
        let case = Case::new(number, seed as u64, theirs.language);
        tally.count(&case, case.ask(&ours.url), case.ask(&theirs.url), theirs.language);
    }
    println!("{program}: {tally:?}");
    for Known { name, reason, .. } in theirs.language.known {
        println!("known {} times: {name}: {reason}", tally.known.get(name).unwrap_or(&0));
    }
    assert!(tally.values > count / 4, "too few of {count} cases have a value: {tally:?}");
    assert!(tally.wrong.is_empty(), "{} of {count} differ:\n{}", tally.wrong.len(), tally.wrong.join("\n"));
}

#[derive(Debug, Default)]
struct Tally {
    /// Equal answers: with a value, empty, errors.
    values: usize,
    empty: usize,
    errors: usize,
    /// Differences that are known, by name.
    known: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

impl Tally {
    fn count(&mut self, case: &Case, ours: (u16, Value), theirs: (u16, Value), language: &Language) {
        let ((our_status, ours), (status, theirs)) = (ours, theirs);
        let fault = if our_status != status || ours["errorType"] != theirs["errorType"] {
            let fault =
                format!("status {our_status} for {status}: {} for {}", ours["error"], theirs["error"]);
            self.unknown(case, &ours, &theirs, language).then_some(fault)
        } else {
            self.remarks_fault(case, &ours, &theirs, language).or_else(|| {
                let fault = answer_fault(case, &ours, &theirs, language.tolerance)?;
                self.unknown(case, &ours, &theirs, language).then_some(fault)
            })
        };
        if let Some(fault) = fault {
            let Case { number, query, times } = case;
            self.wrong.push(format!("#{number} {query}  {times:?}: {fault}"));
        } else if our_status != 200 {
            self.errors += 1;
        } else if ours["data"]["result"].as_array().is_some_and(Vec::is_empty) {
            self.empty += 1;
        } else {
            self.values += 1;
        }
    }

    /// Whether a difference between answers is none that is known.
    fn unknown(&mut self, case: &Case, ours: &Value, theirs: &Value, language: &Language) -> bool {
        let explains = |known: &&Known| matches!(known.kind, Kind::Answer(is) if is(case, ours, theirs));
        let known = language.known.iter().find(explains);
        known.inspect(|known| *self.known.entry(known.name).or_default() += 1).is_none()
    }

    /// What is wrong with our warnings and infos.
    fn remarks_fault(
        &mut self,
        case: &Case,
        ours: &Value,
        theirs: &Value,
        language: &Language,
    ) -> Option<String> {
        if !language.has_annotations {
            return None;
        }
        for kind in ["warnings", "infos"] {
            let (mut ours, mut theirs) = (texts(&ours[kind]), texts(&theirs[kind]));
            for known in language.known {
                let Kind::Remark(rewrite) = known.kind else { continue };
                if ours == theirs {
                    break;
                }
                for side in [&mut ours, &mut theirs] {
                    *side = side.iter().filter_map(|text| rewrite(case, text)).collect();
                }
                if ours == theirs {
                    *self.known.entry(known.name).or_default() += 1;
                }
            }
            // Of more than ten only ten are listed, and nobody says which.
            let is_cut = ours.len() > 10 || theirs.iter().any(|text| text.ends_with("omitted"));
            if ours != theirs && !is_cut {
                return Some(format!("{kind}: {ours:?} for {theirs:?}"));
            }
        }
        None
    }
}

/// What is wrong with our answer, warnings and infos apart.
fn answer_fault(case: &Case, ours: &Value, theirs: &Value, tolerance: f64) -> Option<String> {
    if ours["data"]["resultType"] != theirs["data"]["resultType"] {
        return Some(format!("type {}", ours["data"]["resultType"]));
    }
    let (mut ours, mut theirs) = (ours["data"]["result"].clone(), theirs["data"]["result"].clone());
    if !case.is_range() && ["sort(", "sort_desc("].iter().any(|sort| case.query.starts_with(sort)) {
        // In order of values; the order of equal ones is that of a sort that is not stable.
        let values = |rows: &Value| -> Vec<Value> {
            rows.as_array().into_iter().flatten().map(|row| row["value"].clone()).collect()
        };
        let fault = difference(&values(&ours).into(), &values(&theirs).into(), tolerance);
        if let Some(fault) = fault {
            return Some(format!("order: {fault}"));
        }
    }
    for rows in [&mut ours, &mut theirs].into_iter().filter_map(Value::as_array_mut) {
        if rows.first().is_some_and(Value::is_object) {
            rows.sort_by_key(|row| row["metric"].to_string());
        }
    }
    difference(&ours, &theirs, tolerance)
}

fn both_succeed(ours: &Value, theirs: &Value) -> bool {
    [ours, theirs].iter().all(|answer| answer["status"] == "success")
}

fn texts(remarks: &Value) -> BTreeSet<String> {
    remarks.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
