//! Memory of many active series, and after some of them were replaced by new ones, beside rivals.
//!
//! ```text
//! cargo build --release
//! cargo run --release -p benches --bin churn -- [SERIES] [STEPS] [RIVAL=PROGRAM ...]
//! ```
//! `SERIES` series of twelve labels get `STEPS` samples each, 15 s apart. Then, three times, a tenth of
//! them ends, as many others begin, and all active ones get the four samples of a minute.

use std::time::{Duration, Instant};

use benches::load::{Load, Sender};
use benches::rivals::{Rival, rivals};
use benches::{Measured, free_address, get, now_ms, wait};

const SENDERS: usize = 2;
const STEP_MS: i64 = 15_000;
const PATIENCE: Duration = Duration::from_secs(300);
const ROUNDS: usize = 3;
const STEPS_OF_ROUND: i64 = 4;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (programs, numbers): (Vec<String>, Vec<String>) =
        arguments.into_iter().partition(|text| text.contains('='));
    let series: usize = numbers.first().map_or(Ok(1_000_000), |text| text.parse())?;
    let steps: i64 = numbers.get(1).map_or(Ok(20), |text| text.parse())?;
    println!("{series} series x {steps} steps, then {ROUNDS} x 10 % replaced and {STEPS_OF_ROUND} steps");
    println!("{:<17} {:>18} {:>18} {:>14}", "server", "filled B/series", "churned B/series", "CPU-s/M smpl");
    for rival in rivals(&programs) {
        measure(&rival, series, steps)?;
    }
    Ok(())
}

fn measure(rival: &Rival, series: usize, steps: i64) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let address = free_address()?;
    let server = Measured::start(&rival.program, &(rival.arguments)(&address, &dir.path().join("data")))?;
    wait(Instant::now(), PATIENCE, || get(&address, rival.ready_path).is_some()).ok_or("not ready")?;
    let (idle_cpu, idle_rss) = (server.cpu_seconds(), server.memory_bytes("VmRSS"));
    let all_steps = steps + STEPS_OF_ROUND * ROUNDS as i64;
    let mut next = now_ms() / STEP_MS * STEP_MS - all_steps * STEP_MS;
    // Each tenth of the series can be replaced on its own.
    let tenth = series / 10;
    let mut tenths: Vec<Load> = (0..10).map(|at| Load::new(at * tenth, tenth)).collect();
    let mut sent = send(rival, &address, &mut tenths, (&mut next, steps));
    let filled = server.memory_bytes("VmRSS");
    for round in 0..ROUNDS {
        tenths[round] = Load::new((10 + round) * tenth, tenth);
        sent += send(rival, &address, &mut tenths, (&mut next, STEPS_OF_ROUND));
    }
    let churned = server.memory_bytes("VmRSS");
    let per_series = |rss: u64| (rss - idle_rss.min(rss)) as f64 / (tenth * 10) as f64;
    println!(
        "{:<17} {:>18.0} {:>18.0} {:>14.3}",
        rival.name,
        per_series(filled),
        per_series(churned),
        (server.cpu_seconds() - idle_cpu) / sent * 1e6,
    );
    server.kill()?;
    Ok(())
}

/// Sends `steps` steps of all series, shared out between the senders; returns the samples sent.
fn send(rival: &Rival, address: &str, loads: &mut [Load], (next, steps): (&mut i64, i64)) -> f64 {
    let start = *next;
    *next += steps * STEP_MS;
    let counts = std::thread::scope(|scope| {
        let share = loads.len().div_ceil(SENDERS);
        let senders: Vec<_> = loads
            .chunks_mut(share)
            .map(|loads| scope.spawn(move || send_share(rival, address, loads, (start, steps))))
            .collect();
        senders.into_iter().map(|sender| sender.join().unwrap_or(0)).sum::<usize>()
    });
    counts as f64
}

fn send_share(rival: &Rival, address: &str, loads: &mut [Load], (start, steps): (i64, i64)) -> usize {
    let Ok(mut sender) = Sender::connect(address, rival.write_path) else { return 0 };
    let (mut sent, mut refused) = (0, 0);
    for step in 0..steps {
        for load in &mut *loads {
            sent += load.len();
            for body in load.requests(start + step * STEP_MS) {
                refused += u64::from(!matches!(sender.post(&body), Ok(200..=299)));
            }
        }
    }
    if refused > 0 {
        eprintln!("{}: {refused} requests were refused", rival.name);
    }
    sent
}
