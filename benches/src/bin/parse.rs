//! How long reading an expression takes (one of a dashboard, and each line of a file), and writing its result as JSON.
//!
//! ```text
//! cargo run --release -p benches --bin parse -- [FILE]
//! ```

use std::time::Instant;

use benches::cpu_seconds;
use benches::served::Failure;
use model::{Labels, Samples};
use promql::{MatrixSeries, Outcome, ParseOptions, QueryValue, Stats, parse};

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TYPICAL: &str = "sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{job=\"kubelet\", \
                       image!=\"\", container!=\"POD\", namespace=~\"$namespace\"}[5m])) / on (namespace, pod) \
                       sum by (namespace, pod) (kube_pod_container_resource_limits{resource=\"cpu\"})";

fn main() -> Result<(), Failure> {
    let options = ParseOptions::experimental();
    report("a typical expression", &[TYPICAL], &options);
    if let Some(path) = std::env::args().nth(1) {
        let text = std::fs::read_to_string(path)?;
        let lines: Vec<&str> = text.lines().filter(|line| parse(line, &options).is_ok()).collect();
        report("the expressions of the file", &lines, &options);
    }
    json();
    Ok(())
}

/// Makes a value of a number from 0 to 1.
type Kind = fn(f64) -> f64;

/// Results of 1,000 series over 240 steps.
fn json() {
    let kinds: [(&str, Kind); 3] = [
        ("counters", |noise| (noise * 1e9).floor()),
        ("rates", |noise| noise * 10.0),
        ("gauges of three decimals", |noise| (noise * 1e5).floor() / 1e3),
    ];
    for (name, value) in kinds {
        let series = |number: u32| {
            let mut samples = Samples::default();
            for step in 0..240u32 {
                let noise = f64::from((number * 240 + step).wrapping_mul(0x9e37_79b9)) / f64::from(u32::MAX);
                samples.push_float(1_795_000_000_000 + i64::from(step) * 15_000, value(noise));
            }
            MatrixSeries { labels: Labels::from_pairs([("pod", format!("pod-{number}"))]), samples }
        };
        let value = QueryValue::Matrix((0..1000).map(series).collect());
        let outcome =
            Outcome { value, warnings: Vec::new(), infos: Vec::new(), stats: Stats::default(), costs: None };
        let (mut best, mut bytes) = (f64::MAX, 0);
        for _ in 0..7 {
            let outcome = outcome.clone();
            let before = cpu_seconds();
            bytes = api::probes::json_bytes(outcome);
            best = best.min(cpu_seconds() - before);
        }
        let samples = 240_000.0;
        println!(
            "JSON of {name}: {:.1} ns a sample of {:.1} bytes",
            best * 1e9 / samples,
            bytes as f64 / samples
        );
    }
}

fn report(what: &str, expressions: &[&str], options: &ParseOptions) {
    let (since, before, mut rounds) = (Instant::now(), cpu_seconds(), 0_u32);
    while since.elapsed().as_millis() < 1000 {
        for expression in expressions {
            std::hint::black_box(parse(std::hint::black_box(expression), options).is_ok());
        }
        rounds += 1;
    }
    let count = f64::from(rounds) * expressions.len() as f64;
    let bytes =
        expressions.iter().map(|expression| expression.len()).sum::<usize>() / expressions.len().max(1);
    println!("{what} ({bytes} bytes): {:.2} us each", (cpu_seconds() - before) * 1e6 / count);
}
