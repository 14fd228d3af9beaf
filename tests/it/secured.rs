//! The secure listener: real kubectl, certificates made by openssl, and who may ask what.

use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::{Cluster, client};
use crate::process::{installed, newer, output, run};

const M: &str = "/apis/metrics.k8s.io/v1beta1";

/// Every kubectl that is installed.
fn kubectls() -> Vec<String> {
    ["kubectl".to_owned()].into_iter().chain(newer("kubectl")).collect()
}

/// What kubectl is told to ask as the administrator.
fn as_admin(cluster: &Cluster, url: &str, cache: &Path, trust: String) -> [String; 5] {
    let file = |name: &str| cluster.path(name).display().to_string();
    [
        format!("--cache-dir={}", cache.display()),
        format!("--server={url}"),
        trust,
        format!("--client-certificate={}", file("admin.crt")),
        format!("--client-key={}", file("admin.key")),
    ]
}

#[test]
fn kubectl_sees_all_three_groups() {
    if !installed("kubectl") || !installed("openssl") {
        return;
    }
    let cluster = Cluster::start();
    let given = cluster.given();
    let pyrometer = cluster.pyrometer("p", &given.each_ref().map(String::as_str));
    pyrometer.wait_until_ready();
    pyrometer.wait_for(&format!("{M}/pods"), |list| {
        list["items"].as_array().is_some_and(|items| items.len() == 6)
    });
    for program in kubectls() {
        let cache = tempfile::tempdir().unwrap();
        let trust = format!("--certificate-authority={}", cluster.path("ca.crt").display());
        let arguments = as_admin(&cluster, &pyrometer.url, cache.path(), trust);
        let kubectl = |more: &[&str]| {
            let all: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
            run(&program, &all)
        };
        let pods = kubectl(&["top", "pods", "-n", "default"]);
        let rows: Vec<Vec<&str>> =
            pods.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        let expected: Vec<[String; 3]> = ["n1", "n2"]
            .iter()
            .flat_map(|node| {
                (0..3).map(move |at| {
                    [format!("web-{node}-{at}"), format!("{}m", 250 * (at + 1)), "128Mi".to_owned()]
                })
            })
            .collect();
        assert_eq!(rows, expected, "{pods}");
        let containers = kubectl(&["top", "pod", "web-n1-0", "-n", "default", "--containers"]);
        assert!(containers.contains("main") && containers.contains("side"), "{containers}");
        let selected = kubectl(&["top", "pods", "-n", "default", "-l", "app=other"]);
        assert_eq!(selected.lines().count(), 3, "{selected}");

        let table = kubectl(&["get", "nodes.metrics.k8s.io"]);
        assert!(table.starts_with("NAME") && table.contains("n1") && table.contains("WINDOW"), "{table}");
        let yaml = kubectl(&["get", "pods.metrics.k8s.io", "-n", "default", "web-n1-0", "-o", "yaml"]);
        assert!(yaml.contains("kind: PodMetrics") && yaml.contains("memory: 64Mi"), "{yaml}");
        let resources = kubectl(&["api-resources", "--no-headers"]);
        assert!(resources.contains("metrics.k8s.io/v1beta1"), "{resources}");
        let versions = kubectl(&["api-versions"]);
        for version in [
            "custom.metrics.k8s.io/v1beta1",
            "custom.metrics.k8s.io/v1beta2",
            "external.metrics.k8s.io/v1beta1",
            "metrics.k8s.io/v1beta1",
        ] {
            assert!(versions.lines().any(|line| line == version), "{version}: {versions}");
        }
        let explained =
            kubectl(&["explain", "podmetrics.containers.usage", "--api-version=metrics.k8s.io/v1beta1"]);
        assert!(explained.contains("averaged over the window"), "{explained}");
        let raw = kubectl(&[
            "get",
            "--raw",
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue_messages",
        ]);
        assert!(raw.contains("ExternalMetricValueList"), "{raw}");
        let all: Vec<&str> =
            arguments.iter().map(String::as_str).chain(["top", "pod", "-n", "default", "nope"]).collect();
        assert!(String::from_utf8_lossy(&output(&program, &all).stderr).contains("not found"));
    }
    cluster.stop();
}

const PODS_KIND: &str = "pods.metrics.k8s.io";

/// Sums, sorting, selectors, pages, other forms of output, and what is refused, as a user meets them.
#[test]
fn kubectl_in_its_other_forms() {
    if !installed("kubectl") || !installed("openssl") {
        return;
    }
    let cluster = Cluster::start();
    let pyrometer = cluster.pyrometer("p", &[]);
    pyrometer.wait_until_ready();
    pyrometer.wait_for(&format!("{M}/pods"), |list| {
        list["items"].as_array().is_some_and(|items| items.len() == 6)
    });
    for program in kubectls() {
        let cache = tempfile::tempdir().unwrap();
        let trust = "--insecure-skip-tls-verify".to_owned();
        let arguments = as_admin(&cluster, &pyrometer.url, cache.path(), trust);
        let with = |line: &str| -> Vec<String> {
            arguments.iter().cloned().chain(line.split(' ').map(str::to_owned)).collect()
        };
        let kubectl = |line: &str| run(&program, &with(line).iter().map(String::as_str).collect::<Vec<_>>());
        let refused = |line: &str| {
            let output = output(&program, &with(line).iter().map(String::as_str).collect::<Vec<_>>());
            assert!(!output.status.success(), "{line}: {output:?}");
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        let count = |line: &str| kubectl(line).lines().count();

        let sum = kubectl("top pods -A --sum --no-headers");
        assert_eq!(sum.lines().last().unwrap().split_whitespace().collect::<Vec<_>>(), ["3000m", "768Mi"]);
        let sorted = kubectl("top pods -A --sort-by=cpu --no-headers");
        let used: Vec<&str> = sorted.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
        assert_eq!(used, ["750m", "750m", "500m", "500m", "250m", "250m"]);
        assert_eq!(count("top pods -n default --field-selector=metadata.name=web-n1-1 --no-headers"), 1);
        assert_eq!(count("top pods -n default -l app!=other --no-headers"), 4);
        assert_eq!(count("top pods -A --containers --no-headers"), 12);

        assert_eq!(count(&format!("get {PODS_KIND} -A -o wide --no-headers")), 6);
        assert_eq!(
            count(&format!("get {PODS_KIND} -n default --chunk-size=1 --no-headers")),
            6,
            "pages of a table"
        );
        let json = kubectl(&format!("get {PODS_KIND} -A -o json --chunk-size=4"));
        let list: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(list["items"].as_array().unwrap().len(), 6, "pages of a list");
        assert_eq!(list["items"][0]["kind"], "PodMetrics");
        let page = kubectl(&format!("get --raw {M}/namespaces/default/pods?limit=2"));
        assert!(page.contains("\"continue\":\"default/web-n1-1\",\"remainingItemCount\":4"), "{page}");
        assert_eq!(kubectl("get nodes.metrics.k8s.io n1 -o jsonpath={.usage.memory}"), "4000001000");
        assert!(kubectl("get nodes.metrics.k8s.io --show-labels").contains("zone=n1"));
        let yaml = kubectl("get nodes.metrics.k8s.io -o yaml");
        assert!(yaml.contains("kind: NodeMetrics") && yaml.contains("memory: \"4000001000\""), "{yaml}");
        let described = kubectl("describe nodes.metrics.k8s.io n1");
        assert!(described.contains("Kind:         NodeMetrics"), "{described}");
        let verbs = kubectl("api-resources --api-group=metrics.k8s.io -o wide --no-headers");
        assert!(verbs.lines().count() == 2 && verbs.lines().all(|line| line.contains("get,list")), "{verbs}");
        for line in ["explain nodemetrics", "explain podmetrics --recursive", "explain podmetrics.window"] {
            let text = kubectl(&format!("{line} --api-version=metrics.k8s.io/v1beta1"));
            assert!(text.contains("metrics.k8s.io"), "{line}: {text}");
        }

        assert!(refused(&format!("get {PODS_KIND} nope -n default")).contains("pods \"nope\" not found"));
        let no_watch = refused(&format!("get --raw {M}/pods?watch=true"));
        assert!(no_watch.contains("MethodNotAllowed"), "{no_watch}");
        let no_delete = refused(&format!("delete {PODS_KIND} web-n1-0 -n default"));
        assert!(no_delete.contains("MethodNotAllowed"), "{no_delete}");
        let unknown = refused("top pods -A --field-selector=spec.nodeName=n1");
        assert!(unknown.contains("\"spec.nodeName\" is not a known field selector"), "{unknown}");
    }
    cluster.stop();
}

#[test]
fn discovery_in_its_three_forms_and_openapi() {
    let cluster = Cluster::start();
    let pyrometer = cluster.pyrometer("p", &[]);
    pyrometer.wait_until_ready();
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let v2beta1 = v2.replace("v=v2", "v=v2beta1");
    for (accept, kind, version) in [
        (format!("{v2},{v2beta1},application/json"), "APIGroupDiscoveryList", "apidiscovery.k8s.io/v2"),
        (format!("{v2beta1},application/json"), "APIGroupDiscoveryList", "apidiscovery.k8s.io/v2beta1"),
        ("application/json".to_owned(), "APIGroupList", "v1"),
    ] {
        let (status, answer) = pyrometer.ask(Some("admin"), "/apis", &[("Accept", &accept)]);
        assert_eq!((status, &answer["kind"], &answer["apiVersion"]), (200, &json!(kind), &json!(version)));
        let groups = answer["items"].as_array().or(answer["groups"].as_array()).unwrap();
        assert_eq!(groups.len(), 3, "{answer}");
    }
    let response = client(cluster.dir.path(), Some("admin"))
        .get(format!("{}/openapi/v2", pyrometer.url))
        .send()
        .unwrap();
    let tag = response.headers()["etag"].clone();
    assert!(response.json::<Value>().unwrap()["definitions"].as_object().unwrap().len() > 12);
    let again = client(cluster.dir.path(), Some("admin"))
        .get(format!("{}/openapi/v2", pyrometer.url))
        .header("If-None-Match", tag)
        .send()
        .unwrap();
    assert_eq!(again.status(), 304);
    let (_, index) = pyrometer.get("/openapi/v3");
    for (path, document) in index["paths"].as_object().unwrap() {
        let (status, answer) = pyrometer.get(document["serverRelativeURL"].as_str().unwrap());
        assert_eq!(status, 200, "{path}");
        assert!(answer["components"]["schemas"].as_object().unwrap().len() > 5, "{path}");
    }
    cluster.stop();
}

const HPA: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
const PODS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";
/// As the front proxy sends them for the autoscaler.
const REMOTE: [(&str, &str); 5] = [
    ("X-Remote-User", HPA),
    ("X-Remote-Uid", "42"),
    ("X-Remote-Group", "system:serviceaccounts"),
    ("X-Remote-Group", "system:authenticated"),
    ("X-Remote-Extra-Authentication.kubernetes.io%2fcredential-Id", "X509SHA256=1"),
];

#[test]
fn who_may_ask_is_the_cluster_s_to_say() {
    let cluster = Cluster::start();
    let world = &cluster.fake.world;
    world.know_user("good", json!({"username": "alice", "uid": "7", "groups": ["dev"]}));
    world.permit("alice");
    world.permit("viewer");
    world.permit(HPA);
    let pyrometer = cluster.pyrometer("p", &[]);
    pyrometer.wait_until_ready();
    let code = |who: Option<&str>, headers: &[(&str, &str)]| pyrometer.ask(who, PODS, headers);
    // Without credentials, and with headers that anybody can send.
    let (status, body) = code(None, &[]);
    assert_eq!((status, &body["reason"]), (403, &json!("Forbidden")), "{body}");
    let message = body["message"].as_str().unwrap();
    assert!(message.starts_with("pods.metrics.k8s.io is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"metrics.k8s.io\" in the namespace \"default\""), "{message}");
    assert_eq!(code(None, &REMOTE).0, 403);
    assert_eq!(code(Some("outsider"), &REMOTE).0, 401, "a certificate that nobody vouches for");
    assert_eq!(code(Some("other-proxy"), &REMOTE).0, 401, "a proxy whose name is not allowed");
    // Tokens.
    assert_eq!(code(None, &[("Authorization", "Bearer good")]).0, 200);
    let (status, body) = code(None, &[("Authorization", "Bearer bad")]);
    assert_eq!((status, &body["message"]), (401, &json!("Unauthorized")));
    // Certificates of clients, and of the front proxy.
    assert_eq!(code(Some("admin"), &[]).0, 200);
    assert_eq!(code(Some("viewer"), &REMOTE).0, 200);
    assert_eq!(code(Some("proxy"), &REMOTE).0, 200);
    assert_eq!(code(Some("proxy"), &[("X-Remote-User", "nobody")]).0, 403);
    assert_eq!(
        code(
            Some("proxy"),
            &[("X-Remote-User", "system:kube-aggregator"), ("X-Remote-Group", "system:masters")]
        )
        .0,
        200
    );
    // Without groups, as the aggregator asks for OpenAPI: a user who has signed in all the same.
    let (status, body) =
        pyrometer.ask(Some("proxy"), "/openapi/v2", &[("X-Remote-User", "system:aggregator")]);
    assert_eq!(status, 403);
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .starts_with("forbidden: User \"system:aggregator\" cannot get path \"/openapi/v2\""),
        "{body}"
    );
    reviewed(&world.reviews());
    // Answers are remembered.
    let count = world.reviews().len();
    for _ in 0..5 {
        assert_eq!(code(None, &[("Authorization", "Bearer good")]).0, 200);
    }
    assert!(world.reviews().len() <= count + 2, "at most once more, had ten seconds passed");
    // The config map is watched: another proxy becomes the one.
    cluster.trust(&["somebody"]);
    pyrometer
        .server
        .wait_for("the new trust", |_| (code(Some("other-proxy"), &REMOTE).0 == 200).then_some(()));
    assert_eq!(code(Some("proxy"), &REMOTE).0, 401);
    cluster.stop();
}

/// What the API server was asked.
fn reviewed(reviews: &[Value]) {
    let of = |user: &str| {
        reviews.iter().find(|review| review["user"] == user).unwrap_or_else(|| panic!("{user}: {reviews:#?}"))
    };
    let hpa = of(HPA);
    assert_eq!(hpa["uid"], "42");
    assert_eq!(hpa["groups"], json!(["system:serviceaccounts", "system:authenticated"]));
    assert_eq!(hpa["extra"], json!({"authentication.kubernetes.io/credential-id": ["X509SHA256=1"]}));
    assert_eq!(
        hpa["resourceAttributes"],
        json!({"group": "metrics.k8s.io", "version": "v1beta1", "resource": "pods",
        "subresource": "", "namespace": "default", "name": "", "verb": "list"})
    );
    assert_eq!(of("viewer")["groups"], json!(["readers", "staff", "system:authenticated"]));
    assert_eq!(of("alice")["groups"], json!(["dev", "system:authenticated"]));
    assert_eq!(of("system:aggregator")["groups"], json!(["system:authenticated"]));
    assert_eq!(
        of("system:aggregator")["nonResourceAttributes"],
        json!({"path": "/openapi/v2", "verb": "get"})
    );
    assert!(reviews.iter().all(|review| review["user"] != "admin"), "masters are let in here");
}

#[test]
fn probes_are_open_and_say_what_holds() {
    let cluster = Cluster::start();
    let pyrometer = cluster.pyrometer("p", &[]);
    pyrometer.wait_until_ready();
    assert_eq!(pyrometer.ask(None, "/livez", &[]), (200, json!("ok")));
    let (_, text) = pyrometer.ask(None, "/livez?verbose", &[]);
    assert_eq!(text, "[+]ping ok\n[+]store-upkeep ok\nlivez check passed\n");
    let (_, text) = pyrometer.ask(None, "/livez?verbose&exclude=store-upkeep&exclude=nope", &[]);
    assert_eq!(text, "[+]ping ok\n[+]store-upkeep excluded: ok\nlivez check passed\n");
    let (status, text) = pyrometer.ask(None, "/readyz?exclude=metric-storage-ready&verbose=1", &[]);
    let text = text.as_str().unwrap();
    assert!(status == 200 && text.contains("[+]metric-storage-ready excluded: ok\n"), "{text}");
    let (_, text) = pyrometer.ask(None, "/readyz?verbose", &[]);
    let expected = "[+]ping ok\n[+]metric-storage-ready ok\n[+]metric-informer-sync ok\n[+]metadata-informer-sync ok\n\
                    [+]authentication-sync ok\n[+]shutdown ok\nreadyz check passed\n";
    assert_eq!(text, expected);
    assert_eq!(pyrometer.ask(None, "/healthz", &[]).0, 200);
    assert_eq!(pyrometer.get("/readyz/metric-informer-sync"), (200, json!("ok")));
    assert_eq!(pyrometer.get("/readyz/nope").0, 404);
    assert_eq!(
        pyrometer.ask(None, "/readyz/ping", &[]).0,
        403,
        "as in an API server, single checks are not for everybody"
    );
    cluster.stop();
}

#[test]
fn a_certificate_is_replaced_without_a_restart() {
    let cluster = Cluster::start();
    let given = cluster.given();
    let pyrometer = cluster.pyrometer("p", &given.each_ref().map(String::as_str));
    let shown = || {
        let port = pyrometer.url.rsplit(':').next().unwrap();
        let script = format!(
            "openssl s_client -connect 127.0.0.1:{port} -alpn h2 </dev/null 2>/dev/null | tee /dev/stderr | openssl x509 -noout -subject 2>/dev/null"
        );
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (subject, session) = shown();
    assert!(subject.contains("pyrometer") && session.contains("ALPN protocol: h2"), "{subject} {session}");
    // The file's time is what tells, so it must be another one.
    std::thread::sleep(std::time::Duration::from_millis(20));
    cluster.sign("server", "/CN=renewed", "ca", "subjectAltName=IP:127.0.0.1\n");
    pyrometer.server.wait_for("the new certificate", |_| shown().0.contains("renewed").then_some(()));
    cluster.stop();
}

#[test]
fn a_listener_without_a_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = crate::process::command()
        .args([
            "--kubernetes-api.listen-address=127.0.0.1:0",
            "--web.listen-address=127.0.0.1:0",
            "--storage.tsdb.path",
        ])
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("needs a cluster"), "{output:?}");
}
