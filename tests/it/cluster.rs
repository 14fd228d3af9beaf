//! A small cluster: an API server, kubelets, certificates, and a Pyrometer among them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::Path as Parameter;
use axum::routing::get;
use serde_json::{Value, json};

use crate::process::{PATIENCE, Server};

#[allow(dead_code, reason = "k8s tests more of it")]
#[path = "../../k8s/tests/fake/mod.rs"]
pub(crate) mod fake;

use fake::Fake;

/// What runs beside Pyrometer. Dropping it ends it.
pub(crate) struct Cluster {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) fake: Fake,
    kubelets: String,
    runtime: tokio::runtime::Runtime,
}

/// Thousandths of a core that the containers of pod `at` use.
pub(crate) fn millicores(at: u32) -> [(&'static str, i64); 2] {
    [("main", 250 * i64::from(at + 1)), ("side", 0)]
}

/// Memory of each container of a pod.
pub(crate) const MEMORY: u64 = 64 << 20;

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// When all counters stood at zero.
const BEGIN_MS: i64 = 1_700_000_000_000;

/// A kubelet's page. Counters rise exactly, and so the rate is known.
fn page(node: &str) -> String {
    // The kubelet's samples are of whole steps a quarter of a second apart, and a little old.
    let ms = now_ms() / 250 * 250 - 250;
    let run = (ms - BEGIN_MS) as f64 / 1000.0;
    let mut out = format!(
        "node_cpu_usage_seconds_total {} {ms}\nnode_memory_working_set_bytes 4000001000 {ms}\n",
        run * 2.0
    );
    for pod in 0..3 {
        for (container, millicores) in millicores(pod) {
            let used = run * millicores as f64 / 1000.0;
            let labels = format!("container=\"{container}\",namespace=\"default\",pod=\"web-{node}-{pod}\"");
            out.push_str(&format!("container_cpu_usage_seconds_total{{{labels}}} {used} {ms}\n"));
            out.push_str(&format!("container_memory_working_set_bytes{{{labels}}} {MEMORY} {ms}\n"));
            out.push_str(&format!("container_start_time_seconds{{{labels}}} 1.7e+09\n"));
        }
    }
    out
}

/// An application's page: one target for each pod.
fn application(pod: &str) -> String {
    let total = (now_ms() - BEGIN_MS) as f64 / 100.0;
    format!(
        "http_requests_total{{verb=\"GET\",pod=\"{pod}\",namespace=\"default\",service=\"web\"}} {total}\n\
         queue_depth{{namespace=\"default\",pod=\"{pod}\"}} 12.5\n\
         queue_messages{{namespace=\"default\",queue=\"a\"}} 30\nqueue_messages{{namespace=\"default\",queue=\"b\"}} 7\n\
         ratio{{namespace=\"default\",pod=\"{pod}\"}} NaN\n"
    )
}

pub(crate) const RULES: &str = r#"
rules:
- seriesQuery: '{__name__="http_requests_total",namespace!="",pod!=""}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}, service: {resource: service}}}
  name: {matches: "^(.*)_total$", as: "${1}_per_second"}
  metricsQuery: 'sum(irate(<<.Series>>{<<.LabelMatchers>>}[20s])) by (<<.GroupBy>>)'
- seriesQuery: '{__name__=~"queue_depth|ratio"}'
  resources: {template: "<<.Resource>>"}
  metricsQuery: 'max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
- seriesQuery: '{__name__="container_cpu_usage_seconds_total",metrics_path="/metrics/resource"}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {as: cpu_cores}
  metricsQuery: 'sum(irate(<<.Series>>{<<.LabelMatchers>>,metrics_path="/metrics/resource"}[2m])) by (<<.GroupBy>>)'
externalRules:
- seriesQuery: queue_messages
  metricsQuery: 'max(<<.Series>>{<<.LabelMatchers>>}) by (queue)'
"#;

impl Cluster {
    pub(crate) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (fake, kubelets) = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let router = axum::Router::new()
                .route(
                    "/{node}/metrics/resource",
                    get(async |Parameter(node): Parameter<String>| page(&node)),
                )
                .route("/{pod}/metrics", get(async |Parameter(pod): Parameter<String>| application(&pod)));
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            (Fake::start().await, address)
        });
        let dir = tempfile::tempdir().unwrap();
        let this = Self { dir, fake, kubelets, runtime };
        this.populate();
        this.certify();
        this
    }

    fn populate(&self) {
        for node in ["n1", "n2"] {
            let labels = json!({"kubernetes.io/hostname": node, "zone": node});
            self.fake.world.put(
                "nodes",
                json!({
                    "metadata": {"name": node, "labels": labels},
                    "status": {"allocatable": {"cpu": "4", "memory": "16Gi"}},
                }),
            );
            for pod in 0..3 {
                let app = if pod == 2 { "other" } else { "web" };
                self.fake.world.put("pods", json!({
                    "metadata": {"namespace": "default", "name": format!("web-{node}-{pod}"), "labels": {"app": app}},
                    "spec": {"nodeName": node, "containers": [{"name": "main"}, {"name": "side"}]},
                    "status": {"phase": "Running"},
                }));
            }
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").current_dir(self.dir.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A certificate `name`.crt with its key, signed by `authority`.
    pub(crate) fn sign(&self, name: &str, subject: &str, authority: &str, extensions: &str) {
        let (key, request, crt) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let mut new = vec!["req", "-new", "-subj", subject, "-keyout", &key, "-out", &request];
        new.extend(ec);
        self.openssl(&new);
        std::fs::write(self.path(&format!("{name}.ext")), extensions).unwrap();
        let (ca, ca_key, ext) =
            (format!("{authority}.crt"), format!("{authority}.key"), format!("{name}.ext"));
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            &ext,
            "-out",
            &crt,
        ]);
    }

    fn authority(&self, name: &str) {
        let (key, crt, subject) = (format!("{name}.key"), format!("{name}.crt"), format!("/CN={name}"));
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &subject,
            "-keyout",
            &key,
            "-out",
            &crt,
        ]);
    }

    fn certify(&self) {
        for name in ["ca", "fp", "stranger"] {
            self.authority(name);
        }
        let client = "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n";
        self.sign(
            "server",
            "/CN=pyrometer",
            "ca",
            "subjectAltName=DNS:pyrometer.kube-system.svc,IP:127.0.0.1\n",
        );
        self.sign("admin", "/O=system:masters/CN=admin", "ca", client);
        self.sign("viewer", "/O=readers/O=staff/CN=viewer", "ca", client);
        self.sign("proxy", "/CN=front-proxy-client", "fp", client);
        self.sign("other-proxy", "/CN=somebody", "fp", client);
        self.sign("outsider", "/O=system:masters/CN=outsider", "stranger", client);
        self.trust(&["front-proxy-client"]);
    }

    /// Writes the config map that says whom to trust.
    pub(crate) fn trust(&self, names: &[&str]) {
        let read = |name: &str| std::fs::read_to_string(self.path(name)).unwrap();
        self.fake.world.put(
            "configmaps",
            json!({
                "metadata": {"namespace": "kube-system", "name": "extension-apiserver-authentication"},
                "data": {
                    "client-ca-file": read("ca.crt"),
                    "requestheader-client-ca-file": read("fp.crt"),
                    "requestheader-allowed-names": json!(names).to_string(),
                    "requestheader-username-headers": "[\"X-Remote-User\"]",
                    "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
                    "requestheader-group-headers": "[\"X-Remote-Group\"]",
                    "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
                },
            }),
        );
    }

    /// Runs something beside Pyrometer.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A Pyrometer that scrapes the kubelets and serves the APIs, on a secure port of its own.
    pub(crate) fn pyrometer(&self, name: &str, arguments: &[&str]) -> Secured {
        self.pyrometer_of(name, (&self.config(), RULES), arguments)
    }

    /// The same with a configuration and rules of its own.
    pub(crate) fn pyrometer_of(
        &self,
        name: &str,
        (config, rules): (&str, &str),
        arguments: &[&str],
    ) -> Secured {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let write = |name: &str, text: &str| {
            std::fs::write(self.path(name), text).unwrap();
            self.path(name).display().to_string()
        };
        let kubeconfig = write(
            "kubeconfig",
            &format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: '{}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n",
                self.fake.server()
            ),
        );
        let config = write("config.yml", config);
        let rules = write("rules.yaml", rules);
        let own = [
            format!("--config.file={config}"),
            format!("--kubernetes-api.listen-address=127.0.0.1:{port}"),
            format!("--kubernetes-api.adapter-rules={rules}"),
            "--kubernetes=kubeconfig".to_owned(),
        ];
        let all: Vec<&str> = own.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        let dir = self.path(name);
        std::fs::create_dir_all(&dir).unwrap();
        let server = Server::start_among(&dir, &all, &[("KUBECONFIG", &kubeconfig)]);
        Secured { server, url: format!("https://127.0.0.1:{port}"), dir: self.dir.path().to_owned() }
    }

    fn config(&self) -> String {
        let nodes = ["n1", "n2"].map(|node| {
            format!("  - targets: ['{}']\n    labels: {{node: {node}, __metrics_path__: /{node}/metrics/resource, metrics_path: /metrics/resource}}\n", self.kubelets)
        });
        let pods = ["web-n1-0", "web-n1-1", "web-n2-0"].map(|pod| {
            format!(
                "  - targets: ['{}']\n    labels: {{instance: {pod}, __metrics_path__: /{pod}/metrics}}\n",
                self.kubelets
            )
        });
        format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: kubelets\n  honor_labels: true\n  \
             static_configs:\n{}- job_name: web\n  honor_labels: true\n  static_configs:\n{}",
            nodes.concat(),
            pods.concat()
        )
    }

    /// Files of flags for a certificate that is given.
    pub(crate) fn given(&self) -> [String; 2] {
        [
            format!("--kubernetes-api.tls-cert-file={}", self.path("server.crt").display()),
            format!("--kubernetes-api.tls-private-key-file={}", self.path("server.key").display()),
        ]
    }

    pub(crate) fn stop(self) {
        self.runtime.shutdown_timeout(Duration::from_millis(100));
    }
}

/// A Pyrometer with its secure listener.
pub(crate) struct Secured {
    pub(crate) server: Server,
    pub(crate) url: String,
    dir: PathBuf,
}

/// Who asks: a client's certificate, if any.
pub(crate) fn client(dir: &Path, name: Option<&str>) -> reqwest::blocking::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // What the server shows is checked where a test is about that.
    let mut builder =
        reqwest::blocking::Client::builder().danger_accept_invalid_certs(true).timeout(PATIENCE);
    if let Some(name) = name {
        let mut pem = std::fs::read(dir.join(format!("{name}.crt"))).unwrap();
        pem.extend(std::fs::read(dir.join(format!("{name}.key"))).unwrap());
        builder = builder.identity(reqwest::Identity::from_pem(&pem).unwrap());
    }
    builder.build().unwrap()
}

impl Secured {
    /// Status and JSON of a path, asked for as somebody and with headers.
    pub(crate) fn ask(&self, who: Option<&str>, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        let mut request = client(&self.dir, who).get(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// As the administrator.
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Some("admin"), path, &[])
    }

    /// Waits until the process says that it is ready.
    pub(crate) fn wait_until_ready(&self) {
        self.server.wait_for("readyz", |_| (self.ask(None, "/readyz", &[]).0 == 200).then_some(()));
    }

    pub(crate) fn wait_for(&self, path: &str, mut fits: impl FnMut(&Value) -> bool) -> Value {
        self.server.wait_for(path, |_| {
            let (status, answer) = self.get(path);
            (status == 200 && fits(&answer)).then_some(answer)
        })
    }
}
