//! `install-ca-bundle` against an API server: what a client that trusts the bundle alone sees, before and after a renewal.

use std::process::Output;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::process::command;

const SERVICES: [&str; 2] = ["v1beta1.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"];

fn decode(value: &Value) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

struct Installer<'a>(&'a Cluster);

impl Installer<'_> {
    fn new(cluster: &Cluster) -> Installer<'_> {
        for name in SERVICES {
            cluster.fake.world.put(
                "apiservices",
                json!({"metadata": {"name": name}, "spec": {"insecureSkipTLSVerify": true, "groupPriorityMinimum": 100}}),
            );
        }
        Installer(cluster)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let kubeconfig = self.0.path("kubeconfig-of-installer");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: '{}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n",
            self.0.fake.server()
        );
        std::fs::write(&kubeconfig, text).unwrap();
        let mut command = command();
        command.env("KUBECONFIG", &kubeconfig).arg("install-ca-bundle").args(arguments).args(SERVICES);
        command.output().unwrap()
    }

    fn install(&self, more: &[&str]) -> String {
        let own = ["--secret=pyrometer/pyrometer-tls", "--name=pyrometer.pyrometer.svc", "--name=127.0.0.1"];
        let output = self.run(&own.into_iter().chain(more.iter().copied()).collect::<Vec<_>>());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn spec(&self, service: &str) -> Value {
        self.0.fake.world.object("apiservices", service).unwrap()["spec"].clone()
    }

    fn secret(&self) -> Value {
        self.0.fake.world.object("secrets", "pyrometer/pyrometer-tls").unwrap()
    }

    /// Writes the secret where servers mount it.
    fn mount(&self) {
        for (key, file) in [("tls.crt", "mounted.crt"), ("tls.key", "mounted.key")] {
            std::fs::write(self.0.path(file), decode(&self.secret()["data"][key])).unwrap();
        }
    }
}

#[test]
fn the_api_server_can_verify_before_and_after_a_renewal() {
    let cluster = Cluster::start();
    let installer = Installer::new(&cluster);
    // Somebody else changes the objects at the same time.
    cluster.fake.world.overtake(3);
    let said = installer.install(&[]);
    assert!(said.contains("a new certificate"), "{said}");
    let first = installer.spec(SERVICES[0]);
    assert_eq!(installer.spec(SERVICES[1])["caBundle"], first["caBundle"]);
    assert_eq!(
        (&first["insecureSkipTLSVerify"], &first["groupPriorityMinimum"]),
        (&Value::Null, &json!(100))
    );
    assert_eq!(installer.secret()["type"], "kubernetes.io/tls");

    installer.mount();
    let file = |name: &str| cluster.path(name).display().to_string();
    let pyrometer = cluster.pyrometer(
        "p",
        &[
            &format!("--kubernetes-api.tls-cert-file={}", file("mounted.crt")),
            &format!("--kubernetes-api.tls-private-key-file={}", file("mounted.key")),
        ],
    );
    pyrometer.wait_until_ready();
    let asks = |bundle: &Value| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pem = decode(bundle);
        let authorities = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).unwrap();
        let client = reqwest::blocking::Client::builder().tls_certs_only(authorities).build().unwrap();
        client.get(format!("{}/livez", pyrometer.url)).send().map(|answer| answer.status())
    };
    assert_eq!(asks(&first["caBundle"]).unwrap(), 200);

    // A second run changes nothing.
    let before = (installer.secret(), installer.spec(SERVICES[0]));
    let said = installer.install(&[]);
    assert_eq!(said.matches("right already").count(), 2, "{said}");
    assert_eq!((installer.secret(), installer.spec(SERVICES[0])), before);

    // It ends soon: a new one, and for as long as servers use the one before, that is verified too.
    let said = installer.install(&["--renew-before=400"]);
    assert!(said.contains("a new certificate"), "{said}");
    let second = installer.spec(SERVICES[0])["caBundle"].clone();
    assert_ne!(second, first["caBundle"]);
    assert_ne!(installer.secret()["data"]["tls.crt"], before.0["data"]["tls.crt"]);
    assert_eq!(asks(&second).unwrap(), 200, "the server still has the old certificate");
    installer.mount();
    pyrometer.server.wait_for("the new certificate", |_| asks(&first["caBundle"]).is_err().then_some(()));
    assert_eq!(asks(&second).unwrap(), 200, "the server has the new certificate");
    // Other names are another certificate.
    let said = installer.install(&["--name=pyrometer"]);
    assert!(said.contains("a new certificate"), "{said}");
    cluster.stop();
}

#[test]
fn an_authority_of_somebody_else_is_taken_as_it_is() {
    let cluster = Cluster::start();
    let installer = Installer::new(&cluster);
    let ca = cluster.path("ca.crt");
    let output = installer.run(&[&format!("--ca-file={}", ca.display())]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let authority = std::fs::read_to_string(&ca).unwrap();
    assert_eq!(decode(&installer.spec(SERVICES[0])["caBundle"]), authority);
    let key = cluster.path("ca.key");
    let refused = installer.run(&[&format!("--ca-file={}", key.display())]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("ca.key: there is no certificate in it"), "{said}");

    // A secret that is kept by somebody else is not touched.
    let own = ["--secret=pyrometer/pyrometer-tls", "--name=a"];
    let secret =
        json!({"metadata": {"namespace": "pyrometer", "name": "pyrometer-tls"}, "data": {"tls.crt": "QQ=="}});
    cluster.fake.world.put("secrets", secret);
    let refused = installer.run(&own);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("was not made here, and has no ca.crt"), "{said}");
    cluster.fake.world.delete("apiservices", SERVICES[1]);
    let refused = installer.run(&[&format!("--ca-file={}", ca.display())]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(SERVICES[1]), "{said}");
    cluster.stop();
}
