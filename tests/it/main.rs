//! The one integration-test executable: it drives the real binary beside real counterparts
//! (kubectl, promtool, Prometheus) and checks the rules of the house.
//!
//! A counterpart that is not installed makes its test say so and pass; with `CI=true` it fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its assumptions do")]

mod adapter_rules;
mod alertmanagers;
mod answers;
mod autoscaler;
mod ca_bundle;
mod chaos;
mod cluster;
mod configured;
mod control_plane;
mod deploy;
mod differential;
mod endpoints;
mod exchange;
mod first_light;
mod forwarding;
mod golden;
mod guarded;
mod hostile;
mod kept_map;
mod kubelets;
mod metrics_server;
mod neighbours;
mod network;
mod process;
mod prometheus;
mod promqltest;
mod promtool;
mod query_care;
mod refusals;
mod remote_read;
mod remote_write;
mod replays;
mod restart;
mod rule_corpus;
mod rules;
mod secured;
mod shards;
mod signed;
mod thanos;
mod tidy;
mod tools;
mod top;
