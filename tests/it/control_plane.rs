//! A real control plane: etcd, kube-apiserver and kube-controller-manager, which asks Pyrometer through the aggregation
//! layer and scales by all five kinds of metric, up and down.
//!
//! `PYROMETER_CONTROL_PLANE_DIR` names the folder with `kube-apiserver` and `kube-controller-manager`; etcd is the
//! installed one. No run depends on it: there is no package of these. What stands in is the kubelet: a thread that says
//! of every pod that it runs, and a page that shows what its containers use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::routing::get;
use base64::Engine as _;
use serde_json::{Value, json};

use crate::cluster::{Cluster, RULES, client};
use crate::process::{PATIENCE, Server, command, installed, output, run};
use crate::shards::free_address;

/// What scales, each by a metric of another kind.
const KINDS: [&str; 5] = ["resource", "container", "pods", "object", "external"];
/// Replicas that the loads below ask for.
const FEW: i64 = 1;
const MANY: i64 = 4;
/// Thousandths of a core that all pods of a workload use together, and so on for what the other metrics count: a
/// replica is to bear 50.
const LOW: i64 = 20;
const HIGH: i64 = 190;

/// Ends a process when it is dropped.
struct Running(Child);

impl Running {
    fn start(program: &Path, log: &Path, arguments: &[String]) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display())))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What pods have done. A workload's load is shared by its pods.
#[derive(Default)]
struct Work {
    load: AtomicI64,
    /// Core milliseconds of each pod so far.
    done: Mutex<BTreeMap<String, f64>>,
}

fn workload(pod: &str) -> &str {
    pod.split('-').next().unwrap_or_default()
}

impl Work {
    fn load(&self) -> f64 {
        self.load.load(Ordering::Relaxed) as f64
    }

    fn advance(&self, elapsed: Duration) {
        let mut done = self.done.lock().unwrap();
        let mut pods: BTreeMap<String, f64> = BTreeMap::new();
        for pod in done.keys() {
            *pods.entry(workload(pod).to_owned()).or_default() += 1.0;
        }
        for (pod, total) in &mut *done {
            *total += self.load() * elapsed.as_secs_f64() / pods[workload(pod)];
        }
    }

    /// Both the kubelet's page and those of applications.
    fn page(&self) -> String {
        let ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let mut out = format!(
            "node_cpu_usage_seconds_total {} {ms}\nnode_memory_working_set_bytes 4000001000 {ms}\n\
             queue_messages{{namespace=\"default\",queue=\"a\"}} {}\n",
            ms as f64 / 1000.0,
            self.load()
        );
        for (pod, total) in &*self.done.lock().unwrap() {
            let labels = format!("namespace=\"default\",pod=\"{pod}\"");
            let kubelet = format!("container=\"main\",{labels}");
            out.push_str(&format!(
                "container_cpu_usage_seconds_total{{{kubelet}}} {} {ms}\n\
                 container_memory_working_set_bytes{{{kubelet}}} 67108864 {ms}\n\
                 container_start_time_seconds{{{kubelet}}} 1.7e+09\n\
                 http_requests_total{{verb=\"GET\",service=\"{}\",{labels}}} {total}\n",
                total / 1000.0,
                workload(pod),
            ));
        }
        out
    }
}

/// Everything that runs, the last started the first to end.
struct ControlPlane {
    admin: reqwest::blocking::Client,
    url: String,
    kubeconfig: String,
    _processes: Vec<Running>,
}

fn programs() -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("PYROMETER_CONTROL_PLANE_DIR") else {
        eprintln!("SKIPPED: PYROMETER_CONTROL_PLANE_DIR names no control plane");
        return None;
    };
    (installed("openssl") && installed("etcd") && installed("kubectl")).then(|| PathBuf::from(folder))
}

fn flags(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

/// Metrics of single containers have to be switched on before 1.27; later there is no switch any more.
fn gate(program: &Path) -> Option<String> {
    let version = run(&program.display().to_string(), &["--version"]);
    let minor: u32 = version.trim().split('.').nth(1).unwrap().parse().unwrap();
    (minor < 27).then(|| "--feature-gates=HPAContainerMetrics=true".to_owned())
}

/// A kubeconfig file for a client's certificate.
fn kubeconfig(cluster: &Cluster, url: &str, name: &str) -> String {
    let file = |name: String| cluster.path(&name).display().to_string();
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority": file("ca.crt".to_owned())}}],
        "users": [{"name": "u", "user": {
            "client-certificate": file(format!("{name}.crt")), "client-key": file(format!("{name}.key")),
        }}],
    });
    let path = file(format!("{name}.kubeconfig"));
    std::fs::write(&path, text.to_string()).unwrap();
    path
}

/// Certificates and keys beside those that every cluster of the tests has.
fn certify(cluster: &Cluster) {
    let client_only = "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n";
    cluster.sign("apiserver", "/CN=apiserver", "ca", "subjectAltName=IP:127.0.0.1,DNS:localhost\n");
    cluster.sign("manager", "/CN=system:kube-controller-manager", "ca", client_only);
    let account = "/O=system:serviceaccounts/O=system:serviceaccounts:pyrometer/\
                   CN=system:serviceaccount:pyrometer:pyrometer";
    cluster.sign("account", account, "ca", client_only);
    cluster.sign("installer", &format!("{account}-installer"), "ca", client_only);
    let file = |name: &str| cluster.path(name).display().to_string();
    run("openssl", &["genrsa", "-out", &file("sa.key"), "2048"]);
    run("openssl", &["rsa", "-in", &file("sa.key"), "-pubout", "-out", &file("sa.pub")]);
}

/// The controllers that scale, and those that make pods of what is scaled.
fn manager(folder: &Path, cluster: &Cluster, url: &str, port: &str) -> Running {
    let file = |name: &str| cluster.path(name).display().to_string();
    let own = kubeconfig(cluster, url, "manager");
    let program = folder.join("kube-controller-manager");
    Running::start(
        &program,
        &cluster.path("manager.log"),
        &flags(&[
            ("kubeconfig", &own),
            ("authentication-kubeconfig", &own),
            ("authorization-kubeconfig", &own),
            ("bind-address", "127.0.0.1"),
            ("secure-port", port),
            ("leader-elect", "false"),
            ("use-service-account-credentials", "true"),
            ("service-account-private-key-file", &file("sa.key")),
            ("root-ca-file", &file("ca.crt")),
            (
                "controllers",
                "horizontalpodautoscaling,serviceaccount,serviceaccount-token,deployment,replicaset",
            ),
            ("horizontal-pod-autoscaler-sync-period", "2s"),
            ("horizontal-pod-autoscaler-downscale-stabilization", "4s"),
        ])
        .into_iter()
        .chain(gate(&program))
        .collect::<Vec<_>>(),
    )
}

impl ControlPlane {
    fn start(folder: &Path, cluster: &Cluster) -> Self {
        certify(cluster);
        let file = |name: &str| cluster.path(name).display().to_string();
        let [store, peers, secure, managed] = [(); 4].map(|()| free_address());
        let port = |address: &str| address.rsplit(':').next().unwrap().to_owned();
        let (store, peers) = (format!("http://{store}"), format!("http://{peers}"));
        let url = format!("https://{secure}");
        let etcd = Running::start(
            Path::new("etcd"),
            &cluster.path("etcd.log"),
            &flags(&[
                ("data-dir", &file("etcd")),
                ("listen-client-urls", &store),
                ("advertise-client-urls", &store),
                ("listen-peer-urls", &peers),
                ("initial-advertise-peer-urls", &peers),
                ("initial-cluster", &format!("default={peers}")),
            ]),
        );
        let program = folder.join("kube-apiserver");
        let server = Running::start(
            &program,
            &cluster.path("apiserver.log"),
            &flags(&[
                ("etcd-servers", &store),
                ("bind-address", "127.0.0.1"),
                ("advertise-address", "127.0.0.1"),
                ("secure-port", &port(&secure)),
                ("endpoint-reconciler-type", "none"),
                ("service-cluster-ip-range", "10.96.0.0/24"),
                ("service-account-issuer", "https://kubernetes.default.svc"),
                ("service-account-key-file", &file("sa.pub")),
                ("service-account-signing-key-file", &file("sa.key")),
                ("client-ca-file", &file("ca.crt")),
                ("tls-cert-file", &file("apiserver.crt")),
                ("tls-private-key-file", &file("apiserver.key")),
                ("authorization-mode", "RBAC"),
                ("disable-admission-plugins", "ServiceAccount"),
                ("requestheader-client-ca-file", &file("fp.crt")),
                ("requestheader-allowed-names", "front-proxy-client"),
                ("requestheader-username-headers", "X-Remote-User"),
                ("requestheader-group-headers", "X-Remote-Group"),
                ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
                ("proxy-client-cert-file", &file("proxy.crt")),
                ("proxy-client-key-file", &file("proxy.key")),
            ])
            .into_iter()
            .chain(gate(&program))
            .collect::<Vec<_>>(),
        );
        let admin = client(cluster.dir.path(), Some("admin"));
        wait("the API server", || {
            admin.get(format!("{url}/readyz")).send().is_ok_and(|it| it.status() == 200)
        });
        let manager = manager(folder, cluster, &url, &port(&managed));
        let kubeconfig = kubeconfig(cluster, &url, "admin");
        Self { admin, url, kubeconfig, _processes: vec![manager, server, etcd] }
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let own = format!("--kubeconfig={}", self.kubeconfig);
        run("kubectl", &[&[own.as_str()], arguments].concat())
    }

    fn apply(&self, cluster: &Cluster, name: &str, objects: &[Value]) {
        self.offer(cluster, name, objects, "none");
    }

    fn offer(&self, cluster: &Cluster, name: &str, objects: &[Value], dry_run: &str) {
        let path = cluster.path(name);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        std::fs::write(&path, list.to_string()).unwrap();
        // Some kinds are served a moment after the server is ready.
        let own = format!("--kubeconfig={}", self.kubeconfig);
        let (path, dry_run) = (path.display().to_string(), format!("--dry-run={dry_run}"));
        wait(&format!("kubectl apply of {name}"), || {
            let output = output("kubectl", &[&own, "apply", &dry_run, "-f", &path]);
            println!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
            output.status.success()
        });
    }

    fn get(&self, path: &str) -> Value {
        let answer =
            self.admin.get(format!("{}{path}", self.url)).send().and_then(reqwest::blocking::Response::text);
        answer.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    fn send(&self, method: reqwest::Method, path: &str, media: &str, body: &Value) {
        let request = self.admin.request(method, format!("{}{path}", self.url)).header("Content-Type", media);
        // A pod may be gone again.
        let _ = request.body(body.to_string()).send();
    }

    /// What kubelet and scheduler do: every pod gets its node, and runs, and has done so for long.
    fn run_pods(&self, work: &Work) {
        let list = self.get("/api/v1/namespaces/default/pods");
        let mut pods = Vec::new();
        for pod in list["items"].as_array().into_iter().flatten() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let path = format!("/api/v1/namespaces/default/pods/{name}");
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                let now = json!({"gracePeriodSeconds": 0});
                self.send(reqwest::Method::DELETE, &path, "application/json", &now);
                continue;
            }
            if pod["spec"]["nodeName"].is_null() {
                let binding = json!({
                    "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"},
                });
                self.send(reqwest::Method::POST, &format!("{path}/binding"), "application/json", &binding);
            }
            if pod["status"]["phase"] != "Running" {
                let long_ago = "2024-01-01T00:00:00Z";
                let status = json!({"status": {
                    "phase": "Running", "startTime": long_ago,
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": long_ago}],
                }});
                self.send(
                    reqwest::Method::PATCH,
                    &format!("{path}/status"),
                    "application/merge-patch+json",
                    &status,
                );
            }
            pods.push(name);
        }
        let mut done = work.done.lock().unwrap();
        done.retain(|pod, _| pods.contains(pod));
        pods.into_iter().for_each(|pod| {
            done.entry(pod).or_default();
        });
    }

    fn replicas(&self) -> BTreeMap<&'static str, i64> {
        let of = |kind| self.get(&format!("/apis/apps/v1/namespaces/default/deployments/{kind}"));
        KINDS.map(|kind| (kind, of(kind)["spec"]["replicas"].as_i64().unwrap_or_default())).into()
    }

    fn wait_for_replicas(&self, wanted: i64) {
        let deadline = Instant::now() + 3 * PATIENCE;
        while self.replicas().values().any(|replicas| *replicas != wanted) {
            if Instant::now() > deadline {
                let events = self.kubectl(&["describe", "hpa", "-n", "default"]);
                panic!("{:?}, want {wanted}\n{events}", self.replicas());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        println!("all have {wanted} replicas");
    }
}

/// Serves the page of all pods; gives the address.
async fn serve(work: Arc<Work>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let page = get(async move || work.page());
    let router = axum::Router::new().route("/metrics", page);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

fn wait(what: &str, mut probe: impl FnMut() -> bool) {
    let deadline = Instant::now() + 2 * PATIENCE;
    while !probe() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// A deployment, its service, and what scales it.
fn workloads(autoscaling: &str) -> Vec<Value> {
    let mut objects = Vec::new();
    for kind in KINDS {
        let labels = json!({"app": kind});
        let cpu = json!({"requests": {"cpu": "100m"}});
        let containers = json!([{"name": "main", "image": "none", "resources": cpu}]);
        objects.push(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": kind, "namespace": "default"},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "containers": containers, "tolerations": [{"operator": "Exists"}],
                        "automountServiceAccountToken": false,
                    },
                },
            },
        }));
        objects.push(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": kind, "namespace": "default"},
            "spec": {"selector": labels, "ports": [{"port": 80}]},
        }));
        let half = json!({"type": "Utilization", "averageUtilization": 50});
        let each = json!({"type": "AverageValue", "averageValue": "50"});
        let requests = json!({"name": "http_requests_per_second"});
        let target = json!({"apiVersion": "v1", "kind": "Service", "name": "object"});
        let metric = match kind {
            "resource" => json!({"type": "Resource", "resource": {"name": "cpu", "target": half}}),
            "container" => json!({
                "type": "ContainerResource",
                "containerResource": {"name": "cpu", "container": "main", "target": half},
            }),
            "pods" => json!({"type": "Pods", "pods": {"metric": requests, "target": each}}),
            "object" => json!({
                "type": "Object", "object": {"describedObject": target, "metric": requests, "target": each},
            }),
            _ => json!({
                "type": "External",
                "external": {
                    "metric": {"name": "queue_messages", "selector": {"matchLabels": {"queue": "a"}}},
                    "target": each,
                },
            }),
        };
        objects.push(json!({
            "apiVersion": autoscaling, "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": kind, "namespace": "default"},
            "spec": {
                "minReplicas": 1, "maxReplicas": 10, "metrics": [metric],
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": kind},
            },
        }));
    }
    objects
}

const GROUPS: [(&str, &str); 4] = [
    ("metrics.k8s.io", "v1beta1"),
    ("custom.metrics.k8s.io", "v1beta1"),
    ("custom.metrics.k8s.io", "v1beta2"),
    ("external.metrics.k8s.io", "v1beta1"),
];

/// The service that leads to Pyrometer, and the groups that it serves, verified by an authority if one is known.
fn aggregation(authority: Option<&Path>, port: u16) -> Vec<Value> {
    let authority = authority.map(|path| std::fs::read(path).unwrap());
    let authority = authority.map(|pem| base64::engine::general_purpose::STANDARD.encode(pem));
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "pyrometer", "namespace": "kube-system"},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port, "protocol": "TCP"}]},
    })];
    for (group, version) in GROUPS {
        objects.push(json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": format!("{version}.{group}")},
            "spec": {
                "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
                "service": {"name": "pyrometer", "namespace": "kube-system", "port": port},
                "caBundle": authority,
            },
        }));
    }
    objects
}

/// Shipped manifests.
fn rendered(folder: &str) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let text = run("kubectl", &["kustomize", &root.display().to_string()]);
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

/// The rights that they give, and nothing else of them.
fn rights(folder: &str) -> Vec<Value> {
    let kinds = ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
    let mut objects = rendered(folder);
    objects.retain(|object| object["kind"].as_str().is_some_and(|kind| kinds.contains(&kind)));
    objects
}

/// Pyrometer as the account of the manifests.
fn pyrometer(
    cluster: &Cluster,
    plane: &ControlPlane,
    (pages, port): (&str, u16),
    certificate: [String; 2],
) -> Server {
    let write = |name: &str, text: &str| {
        std::fs::write(cluster.path(name), text).unwrap();
        cluster.path(name).display().to_string()
    };
    let job = |name: &str, more: &str| {
        format!(
            "- job_name: {name}\n  honor_labels: true\n  static_configs:\n  - targets: ['{pages}']\n    labels: {{{more}}}\n"
        )
    };
    let config = write(
        "plane.yml",
        &format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{}",
            job("kubelets", "node: n1, metrics_path: /metrics/resource"),
        ),
    );
    let account = kubeconfig(cluster, &plane.url, "account");
    let mut own = vec![
        format!("--config.file={config}"),
        format!("--kubernetes-api.listen-address=127.0.0.1:{port}"),
        format!("--kubernetes-api.adapter-rules={}", write("plane-rules.yaml", RULES)),
        "--kubernetes=kubeconfig".to_owned(),
    ];
    own.extend(certificate);
    let arguments: Vec<&str> = own.iter().map(String::as_str).collect();
    let dir = cluster.path("plane");
    std::fs::create_dir_all(&dir).unwrap();
    Server::start_among(&dir, &arguments, &[("KUBECONFIG", &account)])
}

#[test]
fn autoscalers_of_a_real_control_plane_scale_by_all_five_kinds_of_metric() {
    let Some(folder) = programs() else { return };
    let cluster = Cluster::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (work, stop) = (Arc::new(Work::default()), AtomicBool::new(false));
    work.load.store(HIGH, Ordering::Relaxed);
    let pages = runtime.block_on(serve(Arc::clone(&work)));
    let plane = ControlPlane::start(&folder, &cluster);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    plane.apply(&cluster, "rights.json", &[rights("deploy"), vec![node]].concat());
    let status = json!({"status": {"allocatable": {"cpu": "4", "memory": "16Gi"}}});
    let media = "application/merge-patch+json";
    plane.send(reqwest::Method::PATCH, "/api/v1/nodes/n1/status", media, &status);
    let port = free_address().rsplit(':').next().unwrap().parse().unwrap();
    let server = pyrometer(&cluster, &plane, (&pages, port), cluster.given());
    plane.apply(&cluster, "apis.json", &aggregation(Some(&cluster.path("ca.crt")), port));
    let versions = plane.kubectl(&["api-versions"]);
    let autoscaling =
        if versions.contains("autoscaling/v2\n") { "autoscaling/v2" } else { "autoscaling/v2beta2" };
    plane.apply(&cluster, "workloads.json", &workloads(autoscaling));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = Instant::now();
            for round in 0u32.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if round % 5 == 0 {
                    plane.run_pods(&work);
                }
                std::thread::sleep(Duration::from_millis(100));
                work.advance(last.elapsed());
                last = Instant::now();
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            plane.wait_for_replicas(MANY);
            let lines = 1 + KINDS.len() * usize::try_from(MANY).unwrap();
            let top = || plane.kubectl(&["top", "pods", "-n", "default"]);
            wait("kubectl top of all pods", || top().lines().count() == lines);
            println!("{}", top());
            assert!(plane.kubectl(&["top", "nodes"]).contains("n1"));
            let explained = plane.kubectl(&["explain", "podmetrics", "--api-version=metrics.k8s.io/v1beta1"]);
            assert!(explained.contains("PodMetrics"), "{explained}");
            // Who has no rights is refused by the API server, and by Pyrometer if asked by way of it as somebody else.
            let viewer = format!("--kubeconfig={}", kubeconfig(&cluster, &plane.url, "viewer"));
            let refused = output("kubectl", &[&viewer, "top", "pods", "-n", "default"]);
            let refusal = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && refusal.contains("orbidden"), "{refusal}");
            work.load.store(LOW, Ordering::Relaxed);
            plane.wait_for_replicas(FEW);
            work.load.store(HIGH, Ordering::Relaxed);
            plane.wait_for_replicas(MANY);
            println!("{}", plane.kubectl(&["get", "hpa", "-n", "default"]));
            println!("{}", plane.kubectl(&["get", "apiservices"]));
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    drop(server);
    drop(plane);
    cluster.stop();
}

#[test]
fn all_manifests_are_what_the_api_server_takes() {
    let Some(folder) = programs() else { return };
    let cluster = Cluster::start();
    let plane = ControlPlane::start(&folder, &cluster);
    let served = plane.kubectl(&["api-resources", "--no-headers"]);
    let kinds: BTreeSet<(&str, &str)> = served
        .lines()
        .map(|line| line.split_whitespace().rev().collect::<Vec<_>>())
        .map(|words| (words[2], words[0]))
        .collect();
    for (at, folder) in
        ["deploy", "deploy/kustomize/ha", "deploy/kustomize/verified", "deploy/kustomize/sharded"]
            .into_iter()
            .enumerate()
    {
        let mut objects = rendered(folder);
        let spaces: Vec<Value> =
            objects.iter().filter(|object| object["kind"] == "Namespace").cloned().collect();
        plane.apply(&cluster, &format!("spaces{at}.json"), &spaces);
        // An older API server does not know all that a newer one does.
        objects.retain(|object| {
            let of = |key: &str| object[key].as_str().unwrap();
            let kind = (of("apiVersion"), of("kind"));
            let is_served = kinds.contains(&kind);
            if !is_served {
                println!("{folder}: {kind:?} is not served and was not tried");
            }
            is_served
        });
        plane.offer(&cluster, &format!("manifests{at}.json"), &objects, "server");
        println!("{folder}: {} objects taken", objects.len());
    }
    drop(plane);
    cluster.stop();
}

#[test]
fn the_installer_has_the_rights_it_needs_and_the_api_server_verifies_what_it_made() {
    let Some(folder) = programs() else { return };
    let cluster = Cluster::start();
    let plane = ControlPlane::start(&folder, &cluster);
    plane.apply(&cluster, "rights.json", &rights("deploy/kustomize/verified"));
    let port = free_address().rsplit(':').next().unwrap().parse().unwrap();
    plane.apply(&cluster, "apis.json", &aggregation(None, port));
    let mut installer = command();
    installer.env("KUBECONFIG", kubeconfig(&cluster, &plane.url, "installer")).args([
        "install-ca-bundle",
        "--secret=pyrometer/pyrometer-tls",
        "--name=pyrometer.kube-system.svc",
    ]);
    installer.args(GROUPS.map(|(group, version)| format!("{version}.{group}")));
    let output = installer.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let secret = plane.get("/api/v1/namespaces/pyrometer/secrets/pyrometer-tls");
    let certificate = [("cert", "tls.crt"), ("private-key", "tls.key")].map(|(flag, key)| {
        let text = secret["data"][key].as_str().unwrap_or_else(|| panic!("no {key} in {secret}"));
        std::fs::write(cluster.path(key), base64::engine::general_purpose::STANDARD.decode(text).unwrap())
            .unwrap();
        format!("--kubernetes-api.tls-{flag}-file={}", cluster.path(key).display())
    });
    let server = pyrometer(&cluster, &plane, ("127.0.0.1:1", port), certificate);
    for (group, version) in GROUPS {
        let path = format!("/apis/apiregistration.k8s.io/v1/apiservices/{version}.{group}");
        assert!(plane.get(&path)["spec"]["caBundle"].is_string(), "{path}");
        wait(&path, || plane.get(&path)["status"]["conditions"][0]["status"] == "True");
    }
    drop(server);
    drop(plane);
    cluster.stop();
}
