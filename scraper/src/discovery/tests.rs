//! Discoverers against small servers and files, and pools that follow them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::RawQuery;
use axum::http::HeaderMap;
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::config::{Auth, Secret};
use crate::fake::Fake;

fn shared() -> Shared {
    Shared::new(Arc::new(Roots::default()), "test".to_owned())
}

/// Addresses of all targets, with the value of one label each.
fn found(discoverer: &Discoverer, label: &str) -> BTreeSet<(String, String)> {
    let mut out = BTreeSet::new();
    for group in discoverer.sources().iter().filter_map(|source| discoverer.group(source)) {
        for target in &group.targets {
            let value = target.get(label).or(group.labels.get(label)).unwrap_or("-");
            out.insert((target.get("__address__").unwrap_or("-").to_owned(), value.to_owned()));
        }
    }
    out
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

/// Waits, in the test's own patience, until the targets are these.
async fn until(discoverer: &Discoverer, label: &str, expected: &[(&str, &str)]) {
    for _ in 0..2_000 {
        if found(discoverer, label) == pairs(expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(found(discoverer, label), pairs(expected));
}

#[tokio::test]
async fn files_are_followed_through_a_swap_of_links() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    // As the kubelet lays out a ConfigMap: a link to a link to a directory.
    for (version, target) in [("v1", "a:1"), ("v2", "a:2")] {
        std::fs::create_dir(path(version)).unwrap();
        std::fs::write(path(version).join("t.yml"), format!("- targets: ['{target}']\n  labels: {{x: y}}\n"))
            .unwrap();
    }
    std::os::unix::fs::symlink("v1", path("..data")).unwrap();
    std::os::unix::fs::symlink("..data/t.yml", path("t.yml")).unwrap();
    let options = FileDiscovery { files: vec![path("*.yml"), path("more.json")], refresh_ms: 20 };
    let discoverer = Discoverer::start(&Discovery::File(options), &shared());
    until(&discoverer, "x", &[("a:1", "y")]).await;
    std::os::unix::fs::symlink("v2", path("..new")).unwrap();
    std::fs::rename(path("..new"), path("..data")).unwrap();
    until(&discoverer, "x", &[("a:2", "y")]).await;
    std::fs::write(path("more.json"), r#"[{"targets": ["b:1", "b:2"]}]"#).unwrap();
    let name = path("more.json").display().to_string();
    let first = path("t.yml").display().to_string();
    until(&discoverer, "__meta_filepath", &[("a:2", &first), ("b:1", &name), ("b:2", &name)]).await;
    // A file that is broken stands for what it held; one that is gone, for nothing.
    std::fs::write(path("more.json"), "[{").unwrap();
    std::fs::remove_file(path("t.yml")).unwrap();
    until(&discoverer, "x", &[("b:1", "-"), ("b:2", "-")]).await;
}

#[tokio::test]
async fn a_server_lists_targets() {
    let answer = Arc::new(Mutex::new(json!([{"targets": ["a:1"], "labels": {"x": "y"}}])));
    let (seen, shown) = (Arc::new(Mutex::new(HeaderMap::new())), Arc::clone(&answer));
    let noted = Arc::clone(&seen);
    let handler = move |headers: HeaderMap| async move {
        *noted.lock() = headers;
        Json(shown.lock().clone())
    };
    let address = serve(Router::new().route("/sd", get(handler))).await;
    let auth = Auth::Authorization { kind: "Bearer".into(), credentials: Secret::Inline("s3cret".into()) };
    let http = HttpOptions { auth, ..HttpOptions::default() };
    let options = HttpDiscovery { url: format!("http://{address}/sd"), refresh_ms: 20, http };
    let discoverer = Discoverer::start(&Discovery::Http(Box::new(options)), &shared());
    until(&discoverer, "x", &[("a:1", "y")]).await;
    assert_eq!(seen.lock()["authorization"], "Bearer s3cret");
    assert_eq!(seen.lock()["x-prometheus-refresh-interval-seconds"], "0.02");
    *answer.lock() = json!("no list");
    tokio::time::sleep(Duration::from_millis(60)).await;
    until(&discoverer, "x", &[("a:1", "y")]).await;
    *answer.lock() = json!([]);
    until(&discoverer, "x", &[]).await;
}

async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// A DNS server that knows a few names; answers to `long.test` come by TCP only.
async fn serve_dns() -> SocketAddr {
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = tokio::net::UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut query).await {
            let mut answer = dns_answer(&query[..length]);
            if answer.windows(5).any(|part| part == b"\x04long") {
                answer.truncate(12);
                answer[2] |= 2;
            }
            let _ = udp.send_to(&answer, from).await;
        }
    });
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut query).await.unwrap();
            let answer = dns_answer(&query);
            stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    address
}

fn dns_answer(query: &[u8]) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap();
    let name: Vec<u8> = query[12..end].to_vec();
    let kind = u16::from_be_bytes([query[end + 1], query[end + 2]]);
    let records: Vec<Vec<u8>> = match (name.as_slice(), kind) {
        (b"\x03web\x04test" | b"\x04long\x04test", 1) => vec![vec![10, 0, 0, 1], vec![10, 0, 0, 2]],
        (b"\x03web\x04test", 28) => vec![[vec![0xfd], vec![0; 14], vec![7]].concat()],
        // The target's last part is a pointer to the question's.
        (b"\x04_web\x04_tcp\x04test", 33) => vec![[&[0, 1, 0, 2, 0, 80, 2][..], b"h1", &[0xc0, 22]].concat()],
        (b"\x04mail\x04test", 15) => vec![[&[0, 5, 2][..], b"mx", &[0xc0, 17]].concat()],
        _ => Vec::new(),
    };
    let mut out = query[..2].to_vec();
    out.extend([
        0x81,
        if records.is_empty() { 0x83 } else { 0x80 },
        0,
        1,
        0,
        u8::try_from(records.len()).unwrap(),
        0,
        0,
        0,
        0,
    ]);
    out.extend(&query[12..end + 5]);
    for record in records {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 9]);
        out.extend(u16::try_from(record.len()).unwrap().to_be_bytes());
        out.extend(record);
    }
    out
}

#[tokio::test]
async fn names_are_looked_up() {
    let server = serve_dns().await;
    let dir = tempfile::tempdir().unwrap();
    let resolv_conf = dir.path().join("resolv.conf");
    std::fs::write(&resolv_conf, format!("nameserver {server}\nsearch nothing.local test\n")).unwrap();
    let start = |name: &str, record| {
        let names = vec![name.to_owned()];
        let resolv_conf: PathBuf = resolv_conf.clone();
        Discoverer::start(
            &Discovery::Dns(DnsDiscovery { names, record, port: 9100, refresh_ms: 20, resolv_conf }),
            &shared(),
        )
    };
    let a = start("web.test", DnsRecord::A);
    until(&a, "__meta_dns_name", &[("10.0.0.1:9100", "web.test"), ("10.0.0.2:9100", "web.test")]).await;
    let searched = start("web", DnsRecord::A);
    until(&searched, "__meta_dns_name", &[("10.0.0.1:9100", "web"), ("10.0.0.2:9100", "web")]).await;
    let long = start("long.test", DnsRecord::A);
    until(&long, "__meta_dns_name", &[("10.0.0.1:9100", "long.test"), ("10.0.0.2:9100", "long.test")]).await;
    let aaaa = start("web.test", DnsRecord::Aaaa);
    until(&aaaa, "__meta_dns_name", &[("[fd00::7]:9100", "web.test")]).await;
    let srv = start("_web._tcp.test", DnsRecord::Srv);
    until(&srv, "__meta_dns_srv_record_target", &[("h1.test:80", "h1.test.")]).await;
    let mx = start("mail.test", DnsRecord::Mx);
    until(&mx, "__meta_dns_mx_record_target", &[("mx.test:9100", "mx.test.")]).await;
    // A server that fails leaves what was found.
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1:1\n").unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(found(&a, "-").len(), 2);
}

#[tokio::test]
async fn consul_is_followed() {
    let services = Arc::new(Mutex::new(json!({"web": ["v1", "canary"], "db": []})));
    let (shown, queries) = (Arc::clone(&services), Arc::new(Mutex::new(Vec::<String>::new())));
    let noted = Arc::clone(&queries);
    let entry = |id: &str| {
        json!({
            "Node": {"Node": "n1", "Address": "10.0.0.9", "Datacenter": "dc1", "Meta": {"rack-no": "7"}, "TaggedAddresses": null},
            "Service": {"ID": id, "Service": "web", "Address": "", "Port": 8080, "Tags": ["v1", "canary"], "Meta": null,
                        "TaggedAddresses": {"lan": {"Address": "1.2.3.4", "Port": 5}}},
            "Checks": [{"Status": "passing"}, {"Status": "warning"}],
        })
    };
    let health = json!([entry("web-1")]);
    let router = Router::new()
        .route("/v1/agent/self", get(|| async { Json(json!({"Config": {"Datacenter": "dc1"}})) }))
        .route(
            "/v1/catalog/services",
            get(move || async move { ([("x-consul-index", "5")], Json(shown.lock().clone())) }),
        )
        .route(
            "/v1/health/service/{name}",
            get(move |RawQuery(query): RawQuery| async move {
                noted.lock().push(query.unwrap_or_default());
                ([("x-consul-index", "7")], Json(health))
            }),
        );
    let address = serve(router).await;
    let options = ConsulDiscovery {
        server: format!("http://{address}"),
        parameters: vec![("stale".into(), String::new())],
        services: Vec::new(),
        tags: vec!["canary".into()],
        node_meta: vec![("rack".into(), "7".into())],
        filter: String::new(),
        health_filter: "Service.Tags contains \"v1\"".into(),
        tag_separator: ",".into(),
        refresh_ms: 20,
        http: HttpOptions::default(),
    };
    let discoverer = Discoverer::start(&Discovery::Consul(Box::new(options)), &shared());
    until(&discoverer, "__meta_consul_tags", &[("10.0.0.9:8080", ",v1,canary,")]).await;
    for (label, value) in [
        ("__meta_consul_dc", "dc1"),
        ("__meta_consul_health", "warning"),
        ("__meta_consul_metadata_rack_no", "7"),
        ("__meta_consul_service_id", "web-1"),
        ("__meta_consul_service_tagged_address_lan", "1.2.3.4:5"),
    ] {
        assert_eq!(found(&discoverer, label), pairs(&[("10.0.0.9:8080", value)]));
    }
    // The second question waits for a change.
    for _ in 0..1_000 {
        if queries.lock().len() > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let second = queries.lock()[1].clone();
    for part in [
        "dc=dc1",
        "index=7",
        "wait=120s",
        "tag=canary",
        "node-meta=rack%3A7",
        "filter=Service.Tags%20contains",
    ] {
        assert!(second.contains(part), "{second}");
    }
    *services.lock() = json!({"db": []});
    until(&discoverer, "-", &[]).await;
}

fn kubernetes(fake: &Fake, role: KubernetesRole) -> KubernetesDiscovery {
    KubernetesDiscovery {
        role,
        access: Ok(k8s::Access { origin: k8s::Origin::Given, server: fake.server() }),
        namespaces: Vec::new(),
        own_namespace: false,
        selectors: Vec::new(),
        attach: crate::config::Attach { node: true, namespace: true, ..Default::default() },
        http: None,
    }
}

fn start(options: KubernetesDiscovery) -> Discoverer {
    Discoverer::start(&Discovery::Kubernetes(Box::new(options)), &shared())
}

pub(crate) fn pod(name: &str, ip: &str, port: u16) -> Value {
    json!({
        "metadata": {"namespace": "ns", "name": name, "uid": name, "labels": {"app.kubernetes.io/name": "web"},
                     "annotations": {"prometheus.io/scrape": "true"},
                     "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5", "controller": true}]},
        "spec": {"nodeName": "n1", "containers": [
            {"name": "c", "image": "i:1", "ports": [{"name": "http", "containerPort": port}]},
            {"name": "side", "image": "i:2"}]},
        "status": {"phase": "Running", "podIP": ip, "hostIP": "192.168.0.1",
                   "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn populate(fake: &Fake) {
    fake.world.put("nodes", json!({
        "metadata": {"name": "n1", "labels": {"zone": "z1"}}, "spec": {"providerID": "p://1"},
        "status": {"addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "192.168.0.1"}],
                   "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                   "conditions": [{"type": "Ready", "status": "True"}]},
    }));
    fake.world.put("namespaces", json!({"metadata": {"name": "ns", "labels": {"team": "a"}}}));
    fake.world.put("pods", pod("web-5-x", "10.0.0.1", 8080));
    fake.world.put(
        "services",
        json!({
            "metadata": {"namespace": "ns", "name": "web", "labels": {"tier": "front"}},
            "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]},
        }),
    );
    fake.world.put("endpointslices", json!({
        "metadata": {"namespace": "ns", "name": "web-abc", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "n1", "zone": "z1",
                       "targetRef": {"kind": "Pod", "name": "web-5-x", "namespace": "ns"}}],
        "ports": [{"name": "admin", "port": 9000, "protocol": "TCP", "appProtocol": "http"}],
    }));
    fake.world.put("endpoints", json!({
        "metadata": {"namespace": "ns", "name": "web"},
        "subsets": [{"addresses": [{"ip": "10.0.0.1", "nodeName": "n1", "targetRef": {"kind": "Pod", "name": "web-5-x", "namespace": "ns"}}],
                     "notReadyAddresses": [{"ip": "10.0.0.3"}],
                     "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}],
    }));
    fake.world.put("ingresses", json!({
        "metadata": {"namespace": "ns", "name": "site"},
        "spec": {"ingressClassName": "nginx", "tls": [{"hosts": ["*.example.com"]}],
                 "rules": [{"host": "a.example.com", "http": {"paths": [{"path": "/x"}]}}, {"host": "b.org"}]},
    }));
}

/// Names of what pods were made for, beyond what is in the pod itself.
#[tokio::test]
async fn pods_are_named_after_their_deployments_and_cron_jobs() {
    let fake = Fake::start().await;
    populate(&fake);
    let mut of_job = pod("backup-7-x", "10.0.0.2", 9090);
    of_job["metadata"]["ownerReferences"] = json!([{"kind": "Job", "name": "backup-7", "controller": true}]);
    fake.world.put("pods", of_job);
    let owned = |name: &str, kind: &str, owner: &str| {
        let owner = json!([{"kind": kind, "name": owner, "controller": true}]);
        json!({"metadata": {"namespace": "ns", "name": name, "ownerReferences": owner}})
    };
    fake.world.put("replicasets", owned("web-5", "Deployment", "web"));
    let label = |name: &str| format!("__meta_kubernetes_pod_{name}_name");
    let attach = crate::config::Attach { deployment: true, cronjob: true, ..Default::default() };
    let discoverer = start(KubernetesDiscovery { attach, ..kubernetes(&fake, KubernetesRole::Pod) });
    let (web, bare) = ("10.0.0.1:8080", "10.0.0.1");
    let (backup, bare_backup) = ("10.0.0.2:9090", "10.0.0.2");
    let all =
        |of_web, of_backup| [(web, of_web), (bare, of_web), (backup, of_backup), (bare_backup, of_backup)];
    until(&discoverer, &label("deployment"), &all("web", "-")).await;
    // One that is seen later is told of, too.
    until(&discoverer, &label("cronjob"), &all("-", "-")).await;
    fake.world.put("jobs", owned("backup-7", "CronJob", "backup"));
    until(&discoverer, &label("cronjob"), &all("-", "backup")).await;
    until(&discoverer, &label("job"), &all("-", "-")).await;
    let attach = crate::config::Attach { job: true, ..Default::default() };
    let discoverer = start(KubernetesDiscovery { attach, ..kubernetes(&fake, KubernetesRole::Pod) });
    until(&discoverer, &label("job"), &all("-", "backup-7")).await;
    until(&discoverer, &label("deployment"), &all("-", "-")).await;
    // What stands behind a service is named alike, and a pod on an unknown node is no target of its own.
    let attach = crate::config::Attach { deployment: true, node: true, ..Default::default() };
    let behind = KubernetesDiscovery { attach, ..kubernetes(&fake, KubernetesRole::EndpointSlice) };
    until(&start(behind), &label("deployment"), &[("10.0.0.1:9000", "web"), (web, "web")]).await;
    let mut elsewhere = pod("web-5-y", "10.0.0.3", 8080);
    elsewhere["spec"]["nodeName"] = json!("n2");
    fake.world.put("pods", elsewhere);
    let discoverer = start(KubernetesDiscovery { attach, ..kubernetes(&fake, KubernetesRole::Pod) });
    until(&discoverer, &label("deployment"), &all("web", "-")).await;
    fake.world.put("nodes", json!({"metadata": {"name": "n2"}}));
    let more = [("10.0.0.3:8080", "web"), ("10.0.0.3", "web")];
    until(&discoverer, &label("deployment"), &[&all("web", "-")[..], &more].concat()).await;
}

/// An API server is reached as any other server may be: here through a proxy, with a token that is asked for.
#[tokio::test]
async fn an_api_server_is_reached_with_every_option() {
    use crate::config::{Grant, OAuth2, Proxy};
    let fake = Fake::start().await;
    populate(&fake);
    fake.world.accept_tokens(&["t0k3n"]);
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy_url = format!("http://{}", proxy.local_addr().unwrap());
    let behind = fake.address;
    tokio::spawn(async move {
        while let Ok((mut from, _)) = proxy.accept().await {
            let mut to = tokio::net::TcpStream::connect(behind).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    let token = || async { Json(json!({"access_token": "t0k3n", "token_type": "bearer"})) };
    let server = serve(Router::new().route("/token", axum::routing::post(token))).await;
    let oauth2 = OAuth2 {
        client_id: "me".into(),
        grant: Grant::Credentials(Some(Secret::Inline("s".into()))),
        token_url: format!("http://{server}/token"),
        scopes: Vec::new(),
        endpoint_params: Vec::new(),
        http: HttpOptions::default(),
    };
    let http = HttpOptions {
        auth: Auth::OAuth2(Box::new(oauth2)),
        proxy: Proxy { http: Some(proxy_url), ..Proxy::default() },
        ..HttpOptions::default()
    };
    let mut options = kubernetes(&fake, KubernetesRole::Node);
    // Nobody but the proxy knows where that is.
    options.access = Ok(k8s::Access { origin: k8s::Origin::Given, server: "http://api.test:1".to_owned() });
    options.http = Some(Box::new(http));
    let discoverer = start(options);
    until(&discoverer, "instance", &[("192.168.0.1:10250", "n1")]).await;
    fake.world.delete("nodes", "n1");
    until(&discoverer, "instance", &[]).await;
}

async fn check(fake: &Fake, role: KubernetesRole, expected: &[(&str, &[(&str, &str)])]) {
    let discoverer = start(kubernetes(fake, role));
    for (label, targets) in expected {
        let label = if label.starts_with("__") || *label == "instance" {
            (*label).to_owned()
        } else {
            format!("__meta_kubernetes_{label}")
        };
        until(&discoverer, &label, targets).await;
    }
}

#[tokio::test]
async fn every_role_names_its_targets() {
    let fake = Fake::start().await;
    populate(&fake);
    let kubelet = "192.168.0.1:10250";
    check(
        &fake,
        KubernetesRole::Node,
        &[
            ("node_name", &[(kubelet, "n1")]),
            ("instance", &[(kubelet, "n1")]),
            ("node_provider_id", &[(kubelet, "p://1")]),
            ("node_address_Hostname", &[(kubelet, "n1")]),
            ("node_condition_Ready", &[(kubelet, "true")]),
            ("node_labelpresent_zone", &[(kubelet, "true")]),
        ],
    )
    .await;
    let (port, bare) = ("10.0.0.1:8080", "10.0.0.1");
    check(
        &fake,
        KubernetesRole::Pod,
        &[
            ("pod_container_name", &[(port, "c"), (bare, "side")]),
            ("pod_container_port_name", &[(port, "http"), (bare, "-")]),
            ("pod_label_app_kubernetes_io_name", &[(port, "web"), (bare, "web")]),
            ("pod_annotation_prometheus_io_scrape", &[(port, "true"), (bare, "true")]),
            ("pod_controller_name", &[(port, "web-5"), (bare, "web-5")]),
            ("pod_ready", &[(port, "true"), (bare, "true")]),
            ("node_label_zone", &[(port, "z1"), (bare, "z1")]),
            ("namespace_label_team", &[(port, "a"), (bare, "a")]),
        ],
    )
    .await;
    let service = "web.ns.svc:80";
    check(
        &fake,
        KubernetesRole::Service,
        &[
            ("service_name", &[(service, "web")]),
            ("service_cluster_ip", &[(service, "10.96.0.1")]),
            ("service_label_tier", &[(service, "front")]),
            ("service_port_number", &[(service, "80")]),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_behind_services_is_named_with_its_pods() {
    let fake = Fake::start().await;
    populate(&fake);
    let port = "10.0.0.1:8080";
    // The slice lists another port than the pod declares: both are targets.
    let listed = "10.0.0.1:9000";
    check(
        &fake,
        KubernetesRole::EndpointSlice,
        &[
            ("pod_name", &[(listed, "web-5-x"), (port, "web-5-x")]),
            ("endpointslice_port_name", &[(listed, "admin"), (port, "-")]),
            ("endpointslice_endpoint_conditions_ready", &[(listed, "true"), (port, "-")]),
            ("endpointslice_endpoint_zone", &[(listed, "z1"), (port, "-")]),
            ("service_label_tier", &[(listed, "front"), (port, "front")]),
            ("pod_container_port_name", &[(listed, "-"), (port, "http")]),
            ("node_label_zone", &[(listed, "z1"), (port, "z1")]),
        ],
    )
    .await;
    check(
        &fake,
        KubernetesRole::Endpoints,
        &[
            ("endpoint_ready", &[(port, "true"), ("10.0.0.3:8080", "false")]),
            ("pod_container_name", &[(port, "c"), ("10.0.0.3:8080", "-")]),
            ("endpoints_name", &[(port, "web"), ("10.0.0.3:8080", "web")]),
        ],
    )
    .await;
    check(
        &fake,
        KubernetesRole::Ingress,
        &[
            ("ingress_scheme", &[("a.example.com", "https"), ("b.org", "http")]),
            ("ingress_path", &[("a.example.com", "/x"), ("b.org", "/")]),
            ("ingress_class_name", &[("a.example.com", "nginx"), ("b.org", "nginx")]),
        ],
    )
    .await;
}

#[tokio::test]
async fn changes_of_other_objects_show_in_a_slice() {
    let fake = Fake::start().await;
    populate(&fake);
    let mut options = kubernetes(&fake, KubernetesRole::EndpointSlice);
    options.namespaces = vec!["ns".into()];
    options.selectors = vec![KubernetesSelector {
        role: KubernetesRole::EndpointSlice,
        labels: "x=y".into(),
        fields: String::new(),
    }];
    let discoverer = start(options);
    until(
        &discoverer,
        "__meta_kubernetes_pod_ready",
        &[("10.0.0.1:8080", "true"), ("10.0.0.1:9000", "true")],
    )
    .await;
    let mailbox = PoolMailbox::new();
    discoverer.subscribe(3, &mailbox);
    let mut changed = pod("web-5-x", "10.0.0.1", 8080);
    changed["status"]["conditions"][0]["status"] = json!("False");
    fake.world.put("pods", changed);
    // The first may be an echo of the beginning.
    let key = (3, Source::from("ns/web-abc"));
    while mailbox.take().await.get(&key) != Some(&Changed::Put)
        || !found(&discoverer, "__meta_kubernetes_pod_ready").iter().all(|(_, ready)| ready == "false")
    {}
    let requests = fake.world.requests();
    let wanted = "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices?labelSelector=x%3Dy";
    assert!(requests.iter().any(|request| request.contains(wanted)), "{requests:?}");
}

#[tokio::test]
async fn equal_options_share_a_discoverer() {
    let fake = Fake::start().await;
    let shared = shared();
    let options = Discovery::Kubernetes(Box::new(kubernetes(&fake, KubernetesRole::Pod)));
    let first = shared.discoverer(&options);
    assert!(Arc::ptr_eq(&first, &shared.discoverer(&options.clone())));
    let other = Discovery::Kubernetes(Box::new(kubernetes(&fake, KubernetesRole::Node)));
    assert!(!Arc::ptr_eq(&first, &shared.discoverer(&other)));
}
