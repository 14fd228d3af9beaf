//! What taking a remote-write request costs, without HTTP: CPU nanoseconds a sample.
//!
//! ```text
//! cargo run --release -p benches --bin receive -- [SERIES] [STEPS]
//! ```
//! CPU time is that of the process, from the kernel. The requests are built beforehand, one step after
//! the other, outside of what is measured.

use std::sync::Arc;
use std::time::Duration;

use benches::cpu_seconds;
use benches::load::Load;
use remote::receive::{Compression, Encoding, Protocol, Receiver};
use tsdb::{Db, Options};

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STEP_MS: i64 = 15_000;
const START_MS: i64 = 1_790_000_000_000;
const BODY_BYTES_MAX: usize = 128 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1);
    let series: usize = numbers.next().map_or(Ok(50_000), |text| text.parse())?;
    let steps: i64 = numbers.next().map_or(Ok(60), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let options = Options { wal_sync_interval: Duration::from_secs(1), ..Options::default() };
    let db = Arc::new(Db::open(dir.path(), options)?);
    let receiver = Receiver::new(Arc::clone(&db), [1, 2]);
    let mut buffer = Vec::new();
    let mut load = Load::new(0, series);
    let encoding = Encoding { protocol: Protocol::V1, compression: Compression::Snappy };
    let (mut unpack, mut whole, mut first, mut bytes) = (0.0, 0.0, 0.0, 0);
    for step in 0..steps {
        let bodies: Vec<Vec<u8>> = load.requests(START_MS + step * STEP_MS).collect();
        let began = cpu_seconds();
        for body in &bodies {
            bytes += encoding.compression.decompress_into(body, BODY_BYTES_MAX, &mut buffer)?;
        }
        let middle = cpu_seconds();
        for body in &bodies {
            receiver.receive(encoding, body)?;
        }
        let ended = cpu_seconds();
        unpack += middle - began;
        if step == 0 {
            first += ended - middle;
        } else {
            whole += ended - middle;
        }
    }
    let samples = (series as i64 * steps) as f64;
    println!(
        "{series} series x {steps} steps, {:.0} bytes a sample once decompressed",
        bytes as f64 / samples
    );
    println!("decompress                    {:>8.1} ns/sample", unpack / samples * 1e9);
    println!("receive, series known         {:>8.1} ns/sample", whole / (samples - series as f64) * 1e9);
    println!("receive, series new           {:>8.1} ns/series", first / series as f64 * 1e9);
    Ok(())
}
