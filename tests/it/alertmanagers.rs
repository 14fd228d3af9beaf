//! The real Alertmanager behind TLS and a password, found by discovery that changes while we run.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::process::{Server, installed, request};

const PEMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scraper/src/testdata");

/// A running Alertmanager that is answered over TLS only to who knows the password, with a client's certificate.
struct Alertmanager {
    child: Child,
    address: String,
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Alertmanager {
    fn start(dir: &std::path::Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let write = |name: &str, text: String| {
            std::fs::write(dir.join(name), text).unwrap();
            dir.join(name).display().to_string()
        };
        let config = write("am.yml", "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n".to_owned());
        let hash = bcrypt::hash("open sesame", 4).unwrap();
        let web = write(
            "web.yml",
            format!(
                "basic_auth_users:\n  alice: {hash}\ntls_server_config:\n  cert_file: {PEMS}/server.pem\n  key_file: {PEMS}/server.key\n  \
                 client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {PEMS}/ca.pem\n"
            ),
        );
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={config}"))
            .arg(format!("--web.config.file={web}"))
            .arg(format!("--storage.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    /// The names of the alerts it has; none while it does not answer.
    fn alerts(&self) -> Vec<String> {
        let answer = Command::new("curl")
            .args([
                "-s",
                "--max-time",
                "5",
                "--user",
                "alice:open sesame",
                "--cacert",
                &format!("{PEMS}/ca.pem"),
            ])
            .args(["--cert", &format!("{PEMS}/client.pem"), "--key", &format!("{PEMS}/client.key")])
            .args(["--connect-to", &format!("target.test:443:{}", self.address)])
            .arg("https://target.test/api/v2/alerts")
            .output()
            .unwrap();
        let alerts: Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
        let name = |alert: &Value| alert["labels"]["alertname"].as_str().map(str::to_owned);
        alerts.as_array().into_iter().flatten().filter_map(name).collect()
    }
}

/// The URLs of the Alertmanagers that the server knows, and of those that were dropped.
fn known(server: &Server) -> (Vec<String>, Vec<String>) {
    let answer = server.json("/api/v1/alertmanagers");
    let urls = |key: &str| {
        let all = answer["data"][key].as_array().unwrap().iter();
        all.map(|one| one["url"].as_str().unwrap().to_owned()).collect()
    };
    (urls("activeAlertmanagers"), urls("droppedAlertmanagers"))
}

#[test]
fn alerts_reach_alertmanagers_that_are_found_by_files_and_want_a_password_and_a_certificate() {
    if !(installed("prometheus-alertmanager") && installed("curl")) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| Alertmanager::start(&dir.path().join(name)));
    let (config, found) = (dir.path().join("prom.yml"), dir.path().join("found.yml"));
    std::fs::write(
        dir.path().join("up.rules"),
        "groups:\n- name: g\n  interval: 1s\n  rules: [{alert: Up, expr: 'vector(1)'}]\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("secret"), "open sesame\n").unwrap();
    let text = format!(
        "rule_files: ['*.rules']\nalerting:\n  alertmanagers:\n  - scheme: https\n    file_sd_configs: [{{files: [found.yml]}}]\n    \
         basic_auth: {{username: alice, password_file: secret}}\n    relabel_configs: [{{source_labels: [zone], regex: far, action: drop}}]\n    \
         tls_config: {{ca_file: {PEMS}/ca.pem, cert_file: {PEMS}/client.pem, key_file: {PEMS}/client.key, server_name: target.test}}\n"
    );
    std::fs::write(&config, &text).unwrap();
    std::fs::write(
        &found,
        format!("- targets: ['{}']\n- targets: ['127.0.0.1:9']\n  labels: {{zone: far}}\n", one.address),
    )
    .unwrap();
    let flag = format!("--config.file={}", config.display());
    let flags = ["--kubernetes=off", "--web.enable-lifecycle", "--rules.alert.resend-delay=1s", &flag];
    let server = Server::start(&dir.path().join("own"), &flags);

    server.wait_for("the alert at the first", |_| one.alerts().contains(&"Up".to_owned()).then_some(()));
    let url = |of: &Alertmanager| format!("https://{}/api/v2/alerts", of.address);
    assert_eq!(known(&server), (vec![url(&one)], vec!["https://127.0.0.1:9/api/v2/alerts".to_owned()]));
    assert!(two.alerts().is_empty());

    // The file names another one.
    std::fs::write(&found, format!("- targets: ['{}', '{}']\n", one.address, two.address)).unwrap();
    server.wait_for("the alert at the second", |_| two.alerts().contains(&"Up".to_owned()).then_some(()));
    assert_eq!(known(&server), (vec![url(&one), url(&two)], Vec::new()));

    // A reload with the same section leaves its counters alone; with a wrong password nothing is taken.
    let counter = |server: &Server, name: &str| -> f64 {
        let (_, page) = server.get("/metrics");
        let line = page.lines().find(|line| line.starts_with(name) && line.contains(&one.address));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    };
    let sent = counter(&server, "prometheus_notifications_sent_total");
    let reload = || request("POST", &format!("{}/-/reload", server.url), &[], "").0;
    assert_eq!(reload(), 200);
    assert!(sent > 0.0 && counter(&server, "prometheus_notifications_sent_total") >= sent);
    std::fs::write(dir.path().join("secret"), "wrong\n").unwrap();
    server.wait_for("refusals", |server| {
        (counter(server, "prometheus_notifications_errors_total") > 0.0).then_some(())
    });

    // Without the section nobody is told.
    std::fs::write(&config, "rule_files: ['*.rules']\n").unwrap();
    assert_eq!(reload(), 200);
    assert_eq!(known(&server), (Vec::new(), Vec::new()));
}
