//! How long reading an expression takes: one of a dashboard, and each line of a file.
//!
//! ```text
//! cargo run --release -p benches --bin parse -- [FILE]
//! ```

use std::time::Instant;

use benches::served::Failure;
use promql::{ParseOptions, parse};

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
    Ok(())
}

fn report(what: &str, expressions: &[&str], options: &ParseOptions) {
    let (since, mut rounds) = (Instant::now(), 0_u32);
    while since.elapsed().as_millis() < 1000 {
        for expression in expressions {
            std::hint::black_box(parse(std::hint::black_box(expression), options).is_ok());
        }
        rounds += 1;
    }
    let count = f64::from(rounds) * expressions.len() as f64;
    let bytes =
        expressions.iter().map(|expression| expression.len()).sum::<usize>() / expressions.len().max(1);
    println!("{what} ({bytes} bytes): {:.2} us each", since.elapsed().as_secs_f64() * 1e6 / count);
}
