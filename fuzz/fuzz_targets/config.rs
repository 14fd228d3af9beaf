//! Any text as a configuration file is taken or refused with a place in it.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the binary uses more of it")]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

#[path = "../../src/config/mod.rs"]
mod config;

/// What the configuration takes of the binary beside it.
mod wire {
    pub(crate) fn now() -> i64 {
        0
    }
}

fuzz_target!(|text: &str| {
    // Files that it names are looked for where there are none.
    match config::parse(Path::new("/nonexistent/fuzz/p.yml"), text, rules::Dialect::default()) {
        Ok(loaded) => assert!(loaded.jobs.iter().all(|job| job.timeout_ms <= job.interval_ms && !job.name.is_empty())),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
