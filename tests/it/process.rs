//! Starting the binary and its counterparts, and talking to them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing that a test waits for takes longer than this on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn command() -> Command {
    isolated(Command::new(env!("CARGO_BIN_EXE_pyrometer")))
}

/// The same on a host of a test's own, which is a network namespace.
fn command_on(namespace: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_pyrometer")]);
    isolated(command)
}

fn isolated(mut command: Command) -> Command {
    // What the developer's machine has of clusters is none of the tests' business.
    command.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST").env("HOME", "/nonexistent");
    command
}

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) greeting: Vec<String>,
}

impl Server {
    /// Starts a server on a free port with its data in `dir` and waits for its greeting.
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Self {
        Self::launch("127.0.0.1:0", dir, arguments, &[])
    }

    /// The same at an address.
    pub(crate) fn start_at(address: &str, dir: &Path, arguments: &[&str]) -> Self {
        Self::launch(address, dir, arguments, &[])
    }

    /// The same in an environment.
    pub(crate) fn start_among(dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::launch("127.0.0.1:0", dir, arguments, environment)
    }

    /// The same at an address of a network namespace.
    pub(crate) fn start_on(namespace: &str, address: &str, dir: &Path, arguments: &[&str]) -> Self {
        Self::spawn(command_on(namespace), address, dir, arguments)
    }

    pub(crate) fn launch(
        address: &str,
        dir: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = command();
        command.envs(environment.iter().copied());
        Self::spawn(command, address, dir, arguments)
    }

    fn spawn(mut command: Command, address: &str, dir: &Path, arguments: &[&str]) -> Self {
        let is_agent = arguments.iter().any(|argument| matches!(*argument, "--agent" | "--role=agent"));
        let store = if is_agent { "agent" } else { "tsdb" };
        let mut child = command
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--storage.{store}.path={}", dir.join("data").display()))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let mut greeting = Vec::new();
        while greeting.len() < 5 {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => greeting.push(line),
                Err(error) => panic!("no greeting ({error}); so far: {greeting:?}"),
            }
        }
        let url =
            greeting.iter().find_map(|line| line.strip_prefix("Open")).expect("the greeting names the URL");
        let url = url.trim().trim_end_matches('/').to_owned();
        Self { child, url, greeting }
    }

    /// A path below the server's URL.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        get(&format!("{}{path}", self.url), &[])
    }

    pub(crate) fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// The result of an instant query.
    pub(crate) fn query(&self, expression: &str) -> Vec<Value> {
        let answer = self.json(&format!("/api/v1/query?query={}", escape(expression)));
        answer["data"]["result"].as_array().expect("a list of rows").clone()
    }

    /// Repeats `probe` until it gives a value.
    pub(crate) fn wait_for<T>(&self, what: &str, mut probe: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = probe(self) {
                return value;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until queries see everything that was there before the start.
    pub(crate) fn wait_for_history(&self) {
        self.wait_for("history", |server| {
            let (status, body) = server.get("/api/v1/query?query=1");
            (status == 200 && !body.contains("warnings")).then_some(())
        });
    }

    pub(crate) fn wait_for_rows(&self, expression: &str) -> Vec<Value> {
        self.wait_for(expression, |server| Some(server.query(expression)).filter(|rows| !rows.is_empty()))
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let done = Command::new("kill").args([name, &id]).status().expect("kill runs");
        assert!(done.success());
    }

    /// Ends the process as a power button does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("the server has ended");
    }

    /// Ends the process as Ctrl-C does; gives its exit code.
    pub(crate) fn interrupt(mut self) -> Option<i32> {
        self.signal("-INT");
        self.child.wait().expect("the server has ended").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Percent-encodes everything that is not plain.
pub(crate) fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// A GET over a plain socket: status and body.
pub(crate) fn get(url: &str, headers: &[(&str, &str)]) -> (u16, String) {
    request("GET", url, headers, "")
}

pub(crate) fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let rest = url.strip_prefix("http://").expect("a plain URL");
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let Ok(mut stream) = TcpStream::connect(host) else { return (0, String::new()) };
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(head.as_bytes()).expect("the request is sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    (status, if chunked { unchunk(body) } else { body.to_owned() })
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        if length == 0 || length > rest.len() {
            break;
        }
        out.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    out
}

/// A program of the folder in `PYROMETER_NEWER_DIR`, where newer releases than those installed may lie. No run depends
/// on it.
pub(crate) fn newer(program: &str) -> Option<String> {
    let path = Path::new(&std::env::var_os("PYROMETER_NEWER_DIR")?).join(program);
    path.exists().then(|| path.display().to_string())
}

/// Whether a counterpart is there; if not, says so, and in CI fails.
pub(crate) fn installed(program: &str) -> bool {
    let there = Command::new(program)
        .arg(if program == "kubectl" { "help" } else { "--version" })
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !there {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{program} is not installed");
        eprintln!("SKIPPED: {program} is not installed");
    }
    there
}

/// Runs a counterpart; its standard output if it succeeded.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = output(program, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}{errors}");
    text
}

pub(crate) fn output(program: &str, arguments: &[&str]) -> Output {
    let result = Command::new(program).args(arguments).env("KUBECONFIG", "/nonexistent").output();
    result.unwrap_or_else(|error| panic!("{program}: {error}"))
}
