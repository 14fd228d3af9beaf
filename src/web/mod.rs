//! How HTTP is served: the accept loop, TLS, and basic authentication, under limits.

mod auth;
mod body;
mod config;
mod idle;
mod serve;
mod stall;
mod tls;

use std::path::Path;

pub(crate) use config::Guard;
pub(crate) use serve::{Limits, serve, serve_delegated};

/// `check web-config`: says of each file whether it can be used.
pub(crate) fn check(files: &[std::path::PathBuf]) -> anyhow::Result<()> {
    let mut failed = 0;
    for path in files {
        match Guard::load(path) {
            Ok(_) => println!("{} SUCCESS", path.display()),
            Err(error) => {
                eprintln!("{} FAILED: {error}", path.display());
                failed += 1;
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} files cannot be used", files.len());
    Ok(())
}

/// A path in a file is relative to the file's folder.
fn beside(file: &Path, path: &str) -> std::path::PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}
