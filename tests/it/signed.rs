//! `sigv4`: a server that works out every signature by hand gets samples, alerts and the request for a role's keys.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use ring::{digest, hmac};

use crate::process::{Server, command};

/// The secret of each key's name.
const KEYS: [(&str, &str); 3] =
    [("AKFILE", "of/the+file="), ("AKENV", "of the environment"), ("AKROLE", "of the role")];

/// A request that was signed well: the key's name, region and service; its path and body; and its session's token.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    scope: [String; 3],
    path: String,
    body: Vec<u8>,
    token: Option<String>,
}

type All = Arc<Mutex<Vec<Result<Seen, String>>>>;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// The signature that a request must have, step by step as AWS describes it.
fn verify(path: &str, headers: &BTreeMap<String, String>, body: Vec<u8>) -> Result<Seen, String> {
    let authorization = headers.get("authorization").ok_or("no signature")?;
    let rest = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another algorithm")?;
    let parts: BTreeMap<&str, &str> = rest.split(", ").filter_map(|part| part.split_once('=')).collect();
    let scope: Vec<&str> = parts["Credential"].split('/').collect();
    let [key, day, region, service, "aws4_request"] = scope[..] else { return Err(format!("{scope:?}")) };
    let secret = KEYS.iter().find(|(name, _)| *name == key).ok_or_else(|| format!("who is {key}?"))?.1;
    let names: Vec<&str> = parts["SignedHeaders"].split(';').collect();
    for needed in ["host", "x-amz-date", "content-type"] {
        assert!(names.contains(&needed), "{names:?}");
    }
    let lines = names.iter().map(|name| format!("{name}:{}\n", headers[*name]));
    let canonical =
        format!("POST\n{path}\n\n{}\n{}\n{}", lines.collect::<String>(), parts["SignedHeaders"], sha(&body));
    let date = &headers["x-amz-date"];
    assert!(date.starts_with(day), "{date} {day}");
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{date}\n{day}/{region}/{service}/aws4_request\n{}",
        sha(canonical.as_bytes())
    );
    let mut mac = format!("AWS4{secret}").into_bytes();
    for part in [day, region, service, "aws4_request", &to_sign] {
        mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &mac), part.as_bytes()).as_ref().to_vec();
    }
    if hex(&mac) != parts["Signature"] {
        return Err(format!("not the signature of {canonical}"));
    }
    let token = headers.get("x-amz-security-token").cloned();
    Ok(Seen { scope: [key, region, service].map(str::to_owned), path: path.to_owned(), body, token })
}

fn answer(stream: TcpStream, seen: &All) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let mut body = vec![0; headers["content-length"].parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        let one = verify(&path, &headers, body);
        let (status, text) = match &one {
            Err(_) => ("403 Forbidden", String::new()),
            Ok(_) if path == "/" => (
                "200 OK",
                "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>AKROLE</AccessKeyId>\
                 <SecretAccessKey>of the role</SecretAccessKey><SessionToken>for a while</SessionToken>\
                 <Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
                    .to_owned(),
            ),
            Ok(_) => ("200 OK", String::new()),
        };
        seen.lock().unwrap().push(one);
        let written = "X-Prometheus-Remote-Write-Samples-Written: 1000000\r\n";
        write!(stream, "HTTP/1.1 {status}\r\n{written}Content-Length: {}\r\n\r\n{text}", text.len()).ok()?;
    }
}

fn listen() -> (String, All) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = All::default();
    let all = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let all = Arc::clone(&all);
            std::thread::spawn(move || answer(stream, &all));
        }
    });
    (address, seen)
}

#[test]
fn what_is_sent_is_signed_with_the_keys_that_the_file_a_profile_or_a_role_gives() {
    let (address, seen) = listen();
    let dir = tempfile::tempdir().unwrap();
    let profiles = dir.path().join("credentials");
    std::fs::write(&profiles, "[mine]\naws_access_key_id = AKFILE\naws_secret_access_key = of/the+file=\n")
        .unwrap();
    std::fs::write(
        dir.path().join("up.rules"),
        "groups:\n- name: g\n  interval: 1s\n  rules: [{alert: Up, expr: 'vector(1)'}]\n",
    )
    .unwrap();
    let config = dir.path().join("prom.yml");
    let text = format!(
        "rule_files: ['*.rules']
alerting:
  alertmanagers:
  - sigv4: {{profile: mine, service_name: alerts}}
    static_configs: [{{targets: ['{address}']}}]
remote_write:
- url: http://{address}/key
  sigv4: {{region: far-1, access_key: AKFILE, secret_key: 'of/the+file='}}
  queue_config: {{batch_send_deadline: 100ms}}
- url: http://{address}/environment
  sigv4: {{}}
  protobuf_message: io.prometheus.write.v2.Request
  queue_config: {{batch_send_deadline: 100ms}}
- url: http://{address}/role
  sigv4: {{role_arn: 'arn:aws:iam::1:role/x', external_id: 'a b'}}
  queue_config: {{batch_send_deadline: 100ms}}
"
    );
    std::fs::write(&config, text).unwrap();
    let environment = [
        ("AWS_REGION", "near-1"),
        ("AWS_ACCESS_KEY_ID", "AKENV"),
        ("AWS_SECRET_ACCESS_KEY", "of the environment"),
        ("AWS_SHARED_CREDENTIALS_FILE", &profiles.display().to_string()),
        ("AWS_ENDPOINT_URL_STS", &format!("http://{address}")),
    ];
    let flag = format!("--config.file={}", config.display());
    let server = Server::start_among(&dir.path().join("own"), &["--kubernetes=off", &flag], &environment);
    for (path, scope, token) in [
        ("/key", ["AKFILE", "far-1", "aps"], None),
        ("/environment", ["AKENV", "near-1", "aps"], None),
        ("/", ["AKENV", "near-1", "sts"], None),
        ("/role", ["AKROLE", "near-1", "aps"], Some("for a while")),
        ("/api/v2/alerts", ["AKFILE", "near-1", "alerts"], None),
    ] {
        let one = server.wait_for(path, |_| {
            let all = seen.lock().unwrap();
            all.iter().flatten().find(|one| one.path == path).cloned()
        });
        assert_eq!((one.scope, one.token.as_deref()), (scope.map(str::to_owned), token), "{path}");
        assert!(!one.body.is_empty());
        if path == "/" {
            assert_eq!(
                String::from_utf8(one.body).unwrap(),
                "Action=AssumeRole&Version=2011-06-15&RoleSessionName=pyrometer\
                 &RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fx&ExternalId=a%20b"
            );
        }
    }
    let all = seen.lock().unwrap();
    let wrong: Vec<_> = all.iter().filter_map(|one| one.as_ref().err()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    // A role's keys are asked for once.
    assert_eq!(all.iter().flatten().filter(|one| one.path == "/").count(), 1);
    drop(all);
    let (_, shown) = server.get("/api/v1/status/config");
    assert!(shown.contains("AKFILE") && !shown.contains("of/the+file="), "{shown}");
}

#[test]
fn what_cannot_be_signed_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("prom.yml");
    let why = |text: &str| {
        std::fs::write(&config, text).unwrap();
        let mut check = command();
        check.args(["check", "config"]).arg(&config).env_remove("AWS_REGION");
        let output = check.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        String::from_utf8(output.stderr).unwrap()
    };
    let write = |section: &str| format!("remote_write:\n- url: http://x/\n  sigv4: {section}\n");
    for (text, place, what) in [
        (write("{access_key: a, secret_key: b}"), ":3:", "sigv4: no region"),
        (write("{region: r, access_key: a}"), ":3:", "must provide a AWS SigV4 Access key and Secret Key"),
        (write("{region: r, external_id: e}"), ":3:", "external_id can only be used with role_arn"),
        (write("{region: r, profile: p}"), ":3:", "/nonexistent/.aws/credentials: "),
        (
            write("{region: r}\n  basic_auth: {username: u}"),
            ":3:",
            "at most one of basic_auth, authorization, oauth2, sigv4, azuread or google_iam must be configured",
        ),
        (
            "alerting:\n  alertmanagers:\n  - sigv4: {region: r}\n    authorization: {credentials: c}\n"
                .to_owned(),
            ":3:",
            "at most one of basic_auth, authorization, oauth2, & sigv4 must be configured",
        ),
    ] {
        let said = why(&text);
        assert!(said.contains(place) && said.contains(what), "{said}");
    }
}
