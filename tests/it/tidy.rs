//! The rules of the house that a compiler does not check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who may depend on whom inside the workspace. What is absent here is the design.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("tsdb", &["model"]),
    ("promql", &["model"]),
    ("k8s", &[]),
    ("scraper", &["model", "tsdb", "k8s"]),
    ("remote", &["model", "tsdb"]),
    ("cluster", &["model", "promql", "remote"]),
    ("thanos", &["model", "tsdb"]),
    ("rules", &["model", "tsdb", "promql"]),
    ("metrics-api", &["model", "promql", "k8s"]),
    ("api", &["model", "tsdb", "promql", "scraper", "remote", "cluster", "rules", "ui"]),
    ("node-agent", &[]),
    ("ui", &[]),
];

/// Crates that must not reach a room, directly: no HTTP, JSON or runtime in storage and engine.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("model", &["tokio", "axum", "hyper", "serde_json", "kube"]),
    ("tsdb", &["tokio", "axum", "hyper", "http", "kube", "reqwest"]),
    ("promql", &["tokio", "axum", "hyper", "http", "kube", "reqwest", "serde_json", "serde"]),
    ("scraper", &["axum"]),
];

/// Crates that must not be in the tree at all, with the reason.
const BANNED: &[(&str, &str)] = &[
    ("aws-lc-rs", "a second crypto library beside ring"),
    ("openssl", "needs a system library"),
    ("serde_yaml", "unmaintained"),
    ("serde_yml", "unsound"),
];

/// Crates that are in the tree for others' sake, and that no room of ours uses, with the reason.
const NOT_OURS: &[(&str, &str)] = &[("chrono", "jiff is the time library")];

const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Dependency names in the given table of a manifest.
fn dependencies(manifest: &str, table: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == format!("[{table}]");
        } else if inside && !line.starts_with('#') {
            names.extend(line.split(['=', '.']).next().map(|name| name.trim().to_owned()));
        }
    }
    names.remove("");
    names
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn arrows_between_crates_are_those_of_the_design() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for (name, allowed) in &arrows {
        let manifest = read(&root().join(name).join("Cargo.toml"));
        let used = dependencies(&manifest, "dependencies");
        for other in arrows.keys().filter(|other| used.contains(**other)) {
            assert!(allowed.contains(other), "{name} must not depend on {other}");
        }
        let all_uses =
            used.union(&dependencies(&manifest, "dev-dependencies")).cloned().collect::<BTreeSet<_>>();
        assert!(!all_uses.contains("pyrometer"), "{name} must not depend on the binary");
    }
}

#[test]
fn storage_and_engine_know_no_network() {
    for (name, forbidden) in FORBIDDEN {
        let used = dependencies(&read(&root().join(name).join("Cargo.toml")), "dependencies");
        for other in *forbidden {
            assert!(!used.contains(*other), "{name} must not depend on {other}");
        }
    }
}

#[test]
fn crates_of_others_are_not_ours() {
    let rooms = ARROWS.iter().map(|(name, _)| *name).chain(["", "benches"]);
    for manifest in rooms.map(|room| root().join(room).join("Cargo.toml")) {
        let text = read(&manifest);
        let used = dependencies(&text, "dependencies");
        for (name, reason) in NOT_OURS {
            assert!(!used.contains(*name), "{} uses {name}: {reason}", manifest.display());
        }
    }
}

#[test]
fn banned_crates_are_not_in_the_tree() {
    let lock = read(&root().join("Cargo.lock"));
    for (name, reason) in BANNED {
        assert!(!lock.contains(&format!("name = \"{name}\"\n")), "{name}: {reason}");
    }
}

/// Every Rust source of the workspace.
fn sources() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = ARROWS.iter().map(|(name, _)| root().join(name)).collect();
    folders.extend(["src", "tests", "benches", "fuzz"].map(|name| root().join(name)));
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.map(|entry| entry.unwrap().path()) {
            if entry.is_dir() && !entry.ends_with("target") && !entry.ends_with("corpus") {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                files.push(entry);
            }
        }
    }
    assert!(files.len() > 50, "the walk found only {} files", files.len());
    files
}

#[test]
fn no_source_file_is_long() {
    for file in sources() {
        let lines = read(&file).lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines, at most {LINES_MAX} are allowed", file.display());
    }
}

#[test]
fn every_crate_says_what_it_is_and_is_not() {
    for (name, _) in ARROWS {
        let text = read(&root().join(name).join("src/lib.rs"));
        let head: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(head.contains("*not*"), "{name}/src/lib.rs does not say what the crate is *not*");
        assert!(text.contains("//! ```"), "{name}/src/lib.rs has no example");
    }
}

/// Whether the file above declares this one for tests only.
fn is_test_module(file: &Path) -> bool {
    let (folder, stem) = (file.parent().unwrap(), file.file_stem().unwrap().to_string_lossy());
    let declaration = format!("#[cfg(test)]\nmod {stem};");
    let above = [folder.join("lib.rs"), folder.join("mod.rs"), folder.with_extension("rs")];
    let declared =
        above.iter().any(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(&declaration)));
    declared || (folder.ends_with("tests") && is_test_module(&folder.with_extension("rs")))
}

#[test]
fn only_the_binary_reads_the_environment_and_the_clock() {
    for file in sources() {
        let relative = file.strip_prefix(root()).unwrap().to_path_buf();
        let room = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let inner = relative.components().nth(1).is_some_and(|part| part.as_os_str() == "src");
        let elsewhere = matches!(room.as_str(), "src" | "tests" | "benches" | "fuzz");
        if elsewhere || !inner || is_test_module(&file) {
            continue;
        }
        let text = read(&file);
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for forbidden in ["SystemTime::now", "env::var", "Timestamp::now()"] {
            assert!(!code.contains(forbidden), "{} uses {forbidden}", relative.display());
        }
    }
}
