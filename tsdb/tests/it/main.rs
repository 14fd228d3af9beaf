//! The store from outside: through its public face, on the real disk and on the failing one.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the way to fail")]

mod basics;
mod chunks;
mod concurrency;
mod early;
mod extras;
mod faults;
mod follower;
mod kill;
mod late_names;
mod log_only;
mod log_simulation;
mod model;
mod prometheus;
mod promtool;
mod reading;
mod replay_memory;
mod sha256;
mod simulation;
mod starts;
mod tail;
mod truth;
mod values;
