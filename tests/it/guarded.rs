//! A web configuration file: TLS, passwords, headers; and the paths under which a server answers.

use crate::process::{Server, escape, get, request};

/// "open sesame" at bcrypt's lowest cost.
fn users() -> String {
    let hash = bcrypt::hash("open sesame", 4).unwrap();
    format!("basic_auth_users:\n  alice: {hash}\n")
}

#[test]
fn only_who_knows_the_password_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("web.yml");
    std::fs::write(&config, users() + "http_server_config:\n  headers:\n    X-Frame-Options: deny\n")
        .unwrap();
    let flag = format!("--web.config.file={}", config.display());
    let server = Server::start(dir.path(), &["--kubernetes=off", &flag]);
    let url = format!("{}/api/v1/query?query=1", server.url);
    assert_eq!(get(&url, &[]), (401, "Unauthorized\n".to_owned()));
    let alice = ("Authorization", "Basic YWxpY2U6b3BlbiBzZXNhbWU=");
    assert_eq!(get(&url, &[alice]).0, 200);
    assert_eq!(get(&url, &[("Authorization", "Basic YWxpY2U6b3Blbg==")]).0, 401);

    // It still scrapes itself, under its own address.
    let instance = server.url.trim_start_matches("http://");
    let up = escape(&format!("up{{job=\"pyrometer\",instance=\"{instance}\"}} == 1"));
    server.wait_for("its own scrape", |server| {
        let (_, body) = get(&format!("{}/api/v1/query?query={up}", server.url), &[alice]);
        body.contains("\"value\"").then_some(())
    });

    // Without users in the file, everybody is answered, without a restart.
    std::fs::write(&config, "http_server_config: {http2: true}\n").unwrap();
    server.wait_for("the new file", |_| (get(&url, &[]).0 == 200).then_some(()));
}

#[test]
fn tls_is_spoken_and_scraped() {
    let dir = tempfile::tempdir().unwrap();
    let pems = concat!(env!("CARGO_MANIFEST_DIR"), "/scraper/src/testdata");
    let web = dir.path().join("web.yml");
    let client = "client_auth_type: RequireAndVerifyClientCert";
    let text = format!(
        "{}tls_server_config:\n  cert_file: {pems}/server.pem\n  key_file: {pems}/server.key\n  {client}\n  \
         client_ca_file: {pems}/ca.pem\n",
        users()
    );
    std::fs::write(&web, text).unwrap();
    let flag = format!("--web.config.file={}", web.display());
    let guarded = Server::start(&dir.path().join("guarded"), &["--kubernetes=off", &flag]);
    let target = guarded.url.strip_prefix("https://").expect("a URL with TLS").to_owned();
    let (status, _) = get(&format!("http://{target}/-/healthy"), &[]);
    assert_eq!(status, 0, "plain HTTP is not answered");

    let config = dir.path().join("prom.yml");
    let job = |name: &str, more: &str| {
        format!(
            "- job_name: {name}\n  scheme: https\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
             basic_auth: {{username: alice, password: open sesame}}\n  tls_config:\n    ca_file: {pems}/ca.pem\n    \
             server_name: target.test\n{more}  static_configs: [{{targets: ['{target}']}}]\n"
        )
    };
    let certificate = format!("    cert_file: {pems}/client.pem\n    key_file: {pems}/client.key\n");
    let text = format!("scrape_configs:\n{}{}", job("known", &certificate), job("unknown", ""));
    std::fs::write(&config, text).unwrap();
    let flag = format!("--config.file={}", config.display());
    let scraping = Server::start(&dir.path().join("scraping"), &["--kubernetes=off", &flag]);
    scraping.wait_for_rows("up{job=\"known\"} == 1");
    scraping.wait_for_rows("up{job=\"unknown\"} == 0");
}

#[test]
fn everything_is_below_the_prefix_of_the_external_url() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--kubernetes=off",
        "--web.external-url=http://metrics.example/prom/",
        "--web.cors.origin=https://a.+",
    ];
    let server = Server::start(dir.path(), &flags);
    assert!(server.url.ends_with("/prom"), "{}", server.url);
    server.wait_for_rows("up{job=\"pyrometer\"} == 1");
    let root = server.url.trim_end_matches("/prom").to_owned();
    assert_eq!(get(&format!("{root}/api/v1/query?query=1"), &[]).0, 404);
    assert_eq!(get(&root, &[]).0, 302);
    assert_eq!(get(&server.url, &[]).0, 302);
    assert_eq!(get(&format!("{}/nothing", server.url), &[]), (404, "404 page not found\n".to_owned()));
    // Links of alerts lead to the page, whatever is before it, and compressed answers say both of what they depend on.
    let port = root.rsplit(':').next().unwrap().to_owned();
    let raw = |path: &str, header: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).to_lowercase()
    };
    let moved = raw("/prom/graph?g0.expr=up+%3D%3D+0&g0.tab=1", "");
    assert!(
        moved.starts_with("http/1.1 302") && moved.contains("location: ./?g0.expr=up+%3d%3d+0&g0.tab=1\r\n"),
        "{moved}"
    );
    assert!(raw("/prom/?g0.expr=up", "").starts_with("http/1.1 200"));
    let both = raw("/prom/api/v1/query?query=1", "Accept-Encoding: gzip\r\n");
    assert!(both.contains("vary: accept-encoding\r\n") && both.contains("vary: origin\r\n"), "{both:.600}");
    // The cluster's APIs stay where a cluster looks for them.
    assert_eq!(get(&format!("{root}/apis/metrics.k8s.io/v1beta1"), &[]).0, 200);
    let refused =
        request("OPTIONS", &format!("{}/api/v1/query", server.url), &[("Origin", "https://b.example")], "");
    assert_eq!(refused.0, 204);
}
