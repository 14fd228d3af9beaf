//! What cannot work ends with exit code 1 and one line that names what is wrong, and where.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use crate::process::{PATIENCE, Server, command};

fn refused(dir: &Path, arguments: &[&str]) -> String {
    let mut child = command()
        .arg("--web.listen-address=127.0.0.1:0")
        .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success() && status.code().is_some(), "{arguments:?}: {status}: {text}");
    text
}

fn one_line(text: &str) -> &str {
    let line = text.trim_end();
    assert!(!line.contains('\n') && line.starts_with("pyrometer: "), "not one line: {text}");
    line
}

#[test]
fn a_configuration_is_refused_by_file_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prom.yml");
    let argument = format!("--config.file={}", path.display());
    for (text, place, what) in [
        ("global:\n  scrape_intervall: 15s\n", ":2:3: ", "scrape_intervall"),
        ("scrape_configs:\n- job_name: a\n  scrape_interval: soon\n", ":3:", "soon"),
        (
            "scrape_configs:\n- job_name: a\n- job_name: a\n",
            ":3:",
            "multiple scrape configs with job name \"a\"",
        ),
        (
            "scrape_configs:\n- job_name: a\n  ec2_sd_configs: [{}]\n",
            ":3:",
            "ec2_sd_configs is not supported",
        ),
        ("scrape_configs:\n- job_name: a\n  relabel_configs:\n  - action: nope\n", ":4:", "nope"),
        ("scrape_configs: [\n", "", "prom.yml"),
        ("", "", "the file is empty"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = refused(dir.path(), &[&argument]);
        let line = one_line(&error);
        assert!(line.contains(&format!("{}{place}", path.display())), "{line}");
        assert!(line.contains(what), "{line}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(one_line(&refused(dir.path(), &[&argument])).contains(&path.display().to_string()));
}

#[test]
fn a_port_that_cannot_be_listened_on_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = refused(dir.path(), &[&format!("--web.listen-address={address}")]);
    assert!(one_line(&error).contains(&address), "{error}");
    let error = refused(dir.path(), &["--web.listen-address=127.0.0.1:99999"]);
    assert!(one_line(&error).contains("127.0.0.1:99999"), "{error}");
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data"), "not a directory").unwrap();
    let error = refused(dir.path(), &[]);
    assert!(one_line(&error).contains(&dir.path().join("data").display().to_string()), "{error}");
}

#[test]
fn kubelets_are_verified_in_one_way_only() {
    let dir = tempfile::tempdir().unwrap();
    for other in ["--kubelet-certificate-authority=ca.pem", "--kubelet-pins=pins"] {
        let text = refused(dir.path(), &["--kubelet-insecure-tls", other]);
        assert!(text.contains("--kubelet-insecure-tls") && text.contains("cannot be used with"), "{text}");
    }
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let error = refused(dir.path(), &[]);
    assert!(one_line(&error).contains("lock"), "{error}");
    assert_eq!(server.get("/-/healthy").0, 200, "the first one goes on");
}

#[test]
fn check_config_judges_without_starting() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good.yml"), dir.path().join("bad.yml"));
    std::fs::write(
        &good,
        "scrape_configs:\n- job_name: a\n  static_configs:\n  - targets: ['127.0.0.1:1']\n",
    )
    .unwrap();
    std::fs::write(&bad, "nope: 1\n").unwrap();
    let check = |files: &[&Path]| command().args(["check", "config"]).args(files).output().unwrap();
    assert!(check(&[&good]).status.success());
    let output = check(&[&good, &bad]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("bad.yml:1:1: unknown field `nope`"),
        "{output:?}"
    );
    assert!(!dir.path().join("data").exists());
}
