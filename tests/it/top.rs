//! `pyrometer top` of a cluster, by a kubeconfig, and where there is no screen to draw on.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;

use serde_json::json;

use crate::cluster::fake::Fake;
use crate::process::{PATIENCE, command, installed};

/// A cluster whose API server answers what a metrics API behind it would.
struct Cluster {
    fake: Fake,
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let fake = runtime.block_on(Fake::start());
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("kubeconfig"),
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
                 clusters: [{{name: c, cluster: {{server: '{}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n",
                fake.server()
            ),
        )
        .unwrap();
        let this = Self { fake, runtime, dir };
        // The same object under both paths: the node, and what it uses.
        this.fake.world.put(
            "nodes",
            json!({
                "metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi"}},
                "usage": {"cpu": "1", "memory": "2Gi"}, "timestamp": "2026-11-21T04:51:40Z", "window": "15s",
            }),
        );
        this.pod("web", "250m");
        this
    }

    fn pod(&self, name: &str, cpu: &str) {
        self.fake.world.put(
            "pods",
            json!({
                "metadata": {"name": name, "namespace": "shop"}, "timestamp": "2026-11-21T04:51:40Z", "window": "15s",
                "containers": [{"name": "main", "usage": {"cpu": cpu, "memory": "64Mi"}}],
            }),
        );
    }

    fn top(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = command();
        command.arg("top").args(arguments).arg("--kubeconfig").arg(self.dir.path().join("kubeconfig"));
        command
    }
}

#[test]
fn a_cluster_is_asked_by_its_kubeconfig() {
    let cluster = Cluster::start();
    let top = |arguments: &[&str]| {
        let output = cluster.top(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let words = |text: &str, line: usize| -> Vec<String> {
        text.lines().nth(line).unwrap().split_whitespace().map(str::to_owned).collect()
    };
    let nodes = top(&["nodes", "--once"]);
    assert_eq!(words(&nodes, 0), ["NAME", "CPU", "CPU%", "MEMORY", "MEMORY%"]);
    let node = words(&nodes, 1).join(" ");
    assert!(node.starts_with("n1 ") && node.matches("25%").count() == 2, "{nodes}");
    assert!(top(&["pods", "--once"]).contains("web"));
    assert!(top(&["containers", "--once", "-n", "shop"]).contains("main"));
    assert_eq!(top(&["pods", "--once", "-n", "elsewhere"]).lines().count(), 1);
    let asked = cluster.fake.world.requests();
    let has = |wanted: &str| asked.iter().any(|request| request == wanted);
    assert!(has("GET /apis/metrics.k8s.io/v1beta1/nodes"), "{asked:?}");
    assert!(has("GET /apis/metrics.k8s.io/v1beta1/namespaces/shop/pods"), "{asked:?}");
    top(&["pods", "--once", "-l", "app in (a, b)"]);
    let asked = cluster.fake.world.requests();
    assert!(asked.last().unwrap().ends_with("/pods?labelSelector=app%20in%20%28a%2C%20b%29"), "{asked:?}");

    let refused = cluster.top(&["pods", "--at", "1000"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--at needs --url"));
    let nowhere = command().args(["top", "pods", "--once", "--kubeconfig", "/nonexistent"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("/nonexistent"));
    cluster.runtime.shutdown_background();
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines(stream: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
    });
    lines
}

/// The next line that has a text.
fn next(lines: &mpsc::Receiver<String>, wanted: &str) -> String {
    loop {
        let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{wanted}: {error}"));
        if line.contains(wanted) {
            return line;
        }
    }
}

#[test]
fn without_a_screen_tables_follow_each_other() {
    let cluster = Cluster::start();
    // Once to a pipe; once to a terminal that can do nothing, if there is a program that makes one.
    for terminal in [false, true] {
        if terminal && !installed("script") {
            continue;
        }
        let top = cluster.top(&["pods", "--interval=100ms"]);
        let mut command = if terminal {
            let whole = std::iter::once(top.get_program()).chain(top.get_args());
            let whole: Vec<_> = whole.map(|word| word.to_string_lossy().into_owned()).collect();
            let mut script = std::process::Command::new("script");
            script.args(["-qfec", &format!("exec {}", whole.join(" ")), "/dev/null"]).env("TERM", "dumb");
            script
        } else {
            top
        };
        let name = format!("late-{terminal}");
        let child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut running = Running(child);
        let seen = lines(running.0.stdout.take().unwrap());
        assert!(next(&seen, "NAMESPACE").starts_with("NAMESPACE"), "no escape before it");
        assert!(next(&seen, "web").contains("shop"));
        cluster.pod(&name, "500m");
        // The next table, with the busier one first.
        let line = next(&seen, &name);
        assert!(!line.contains('\u{1b}') && line.contains("500m"), "{line:?}");
        assert!(running.0.try_wait().unwrap().is_none());
    }
    // The cluster goes away: that is said, and the next one is awaited.
    let mut running = Running(
        cluster
            .top(&["pods", "--interval=100ms"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let seen = lines(running.0.stdout.take().unwrap());
    let said = lines(running.0.stderr.take().unwrap());
    next(&seen, "web");
    cluster.fake.world.accept_tokens(&["nobody has it"]);
    next(&said, "401");
    cluster.fake.world.accept_tokens(&[]);
    while seen.try_recv().is_ok() {}
    next(&seen, "web");
    cluster.runtime.shutdown_background();
}
