//! The servers that are measured, one after the other.

use std::path::{Path, PathBuf};

use crate::sibling;

/// A server that takes remote write.
#[derive(Clone)]
pub struct Rival {
    /// As it is printed.
    pub name: &'static str,
    /// Its program.
    pub program: PathBuf,
    /// Where it takes remote write.
    pub write_path: &'static str,
    /// What answers 200 once it is ready.
    pub ready_path: &'static str,
    /// Its arguments for an address and a data directory.
    pub arguments: fn(&str, &Path) -> Vec<String>,
}

/// Pyrometer as built beside the measuring program, and those named as `RIVAL=PROGRAM`.
#[must_use]
pub fn rivals(extra: &[String]) -> Vec<Rival> {
    let mut rivals = vec![ours("pyrometer", sibling("pyrometer"), own_arguments)];
    for text in extra {
        match text.split_once('=') {
            Some(("pyrometer-zstd", program)) => {
                rivals.push(ours("pyrometer-zstd", program.into(), |address, dir| {
                    let zstd = "--storage.tsdb.wal-compression-type=zstd".to_owned();
                    own_arguments(address, dir).into_iter().chain([zstd]).collect()
                }));
            }
            Some(("prometheus", program)) => rivals.push(Rival {
                name: "prometheus",
                program: program.into(),
                write_path: "/api/v1/write",
                ready_path: "/-/ready",
                arguments: |address, dir| {
                    let config = dir.with_extension("yml");
                    let _ = std::fs::write(&config, "scrape_configs: []\n");
                    vec![
                        format!("--web.listen-address={address}"),
                        format!("--storage.tsdb.path={}", dir.display()),
                        format!("--config.file={}", config.display()),
                        "--web.enable-remote-write-receiver".to_owned(),
                        "--web.enable-admin-api".to_owned(),
                        "--web.enable-lifecycle".to_owned(),
                    ]
                },
            }),
            Some(("victoria-metrics", program)) => rivals.push(Rival {
                name: "victoria-metrics",
                program: program.into(),
                write_path: "/api/v1/write",
                ready_path: "/health",
                arguments: |address, dir| {
                    vec![
                        format!("-httpListenAddr={address}"),
                        format!("-storageDataPath={}", dir.display()),
                        // Show what has been acknowledged, without the usual half minute's delay.
                        "-search.latencyOffset=0s".to_owned(),
                        "-search.maxQueueDuration=60s".to_owned(),
                    ]
                },
            }),
            _ => eprintln!("{text:?} is not RIVAL=PROGRAM"),
        }
    }
    rivals
}

fn ours(name: &'static str, program: PathBuf, arguments: fn(&str, &Path) -> Vec<String>) -> Rival {
    Rival { name, program, write_path: "/api/v1/write", ready_path: "/-/ready", arguments }
}

fn own_arguments(address: &str, dir: &Path) -> Vec<String> {
    vec![
        format!("--web.listen-address={address}"),
        format!("--storage.tsdb.path={}", dir.display()),
        "--web.enable-remote-write-receiver".to_owned(),
        "--web.enable-admin-api".to_owned(),
        "--web.enable-lifecycle".to_owned(),
        "--kubernetes=off".to_owned(),
    ]
}
