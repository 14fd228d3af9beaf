use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fake::Fake;
use crate::{
    Access, AccessRequest, Changed, Client, ConfigMap, EndpointSlice, Ingress, Lease, LeaseState, Mailbox,
    Node, Origin, Pod, Query, Service, Store, User,
};

async fn client_of(fake: &Fake) -> Client {
    Access { origin: Origin::Given, server: fake.server() }.connect().await.unwrap()
}

fn pod(namespace: &str, name: &str) -> Value {
    json!({
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("uid-{name}"),
            "creationTimestamp": "2026-11-21T09:00:00Z",
            "labels": {"app": "web", "tier": "front"}, "annotations": null,
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5", "controller": true, "uid": "x"}],
        },
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "c", "image": "i:1", "ports": [{"name": "http", "containerPort": 8080}]}],
            "initContainers": [{"name": "setup", "image": "i:0"}],
        },
        "status": {
            "phase": "Running", "podIP": "10.0.0.7", "hostIP": "192.168.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "containerID": "containerd://abc"}],
        },
    })
}

/// Waits, in the test's own patience, until `check` holds.
async fn until(mut check: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain");
}

async fn changes(mailbox: &Mailbox<Arc<str>>) -> HashMap<Arc<str>, Changed> {
    loop {
        let changes = mailbox.take().await;
        if !changes.is_empty() {
            return changes;
        }
    }
}

#[tokio::test]
async fn a_store_lists_in_pages_and_follows_events() {
    let fake = Fake::start().await;
    for n in 0..600 {
        fake.world.put("pods", pod("a", &format!("p{n}")));
    }
    let client = client_of(&fake).await;
    let store: Arc<Store<Pod>> = client.store(Query::default());
    store.synced().await;
    assert_eq!(store.len(), 600);
    let lists = fake.world.requests().iter().filter(|request| request.contains("limit=250")).count();
    assert_eq!(lists, 3);

    let mailbox = store.subscribe();
    assert_eq!(changes(&mailbox).await.len(), 600);
    assert!(mailbox.is_complete());
    fake.world.delete("pods", "a/p0");
    assert_eq!(changes(&mailbox).await, HashMap::from([(Arc::from("a/p0"), Changed::Gone)]));
    let mut changed = pod("a", "p1");
    changed["status"]["phase"] = json!("Failed");
    fake.world.put("pods", changed);
    assert_eq!(changes(&mailbox).await, HashMap::from([(Arc::from("a/p1"), Changed::Put)]));
    assert_eq!(&*store.get("a/p1").unwrap().phase, "Failed");
    // Those who ask for the same share one watch.
    let again: Arc<Store<Pod>> = client.store(Query::default());
    assert!(Arc::ptr_eq(&store, &again));
}

#[tokio::test]
async fn a_watch_goes_on_from_its_bookmark_and_lists_again_after_410() {
    let fake = Fake::start().await;
    fake.world.put("pods", pod("a", "p0"));
    fake.world.put("pods", pod("a", "p1"));
    let client = client_of(&fake).await;
    let store: Arc<Store<Pod>> = client.store(Query::default());
    store.synced().await;
    let mailbox = store.subscribe();
    changes(&mailbox).await;
    let watches = |fake: &Fake| -> Vec<String> {
        let requests = fake.world.requests();
        requests.into_iter().filter(|request| request.contains("watch=1")).collect()
    };
    until(|| !watches(&fake).is_empty()).await;
    fake.world.bookmark("pods");
    // The bookmark has arrived once a later event has.
    fake.world.put("pods", pod("a", "p2"));
    changes(&mailbox).await;
    fake.world.bookmark("pods");
    fake.world.put("pods", pod("a", "p3"));
    changes(&mailbox).await;
    fake.world.end_watches();
    until(|| watches(&fake).len() == 2).await;
    assert!(watches(&fake)[1].contains("resourceVersion=6"), "{:?}", watches(&fake));

    fake.world.compact(&[("pods", "a/p0")]);
    let gone = changes(&mailbox).await;
    assert_eq!(gone.get("a/p0"), Some(&Changed::Gone), "{gone:?}");
    assert_eq!(store.len(), 3);
}

#[tokio::test]
async fn a_server_that_is_away_leaves_the_last_state() {
    let fake = Fake::start().await;
    fake.world.put("pods", pod("a", "p0"));
    let client = client_of(&fake).await;
    let store: Arc<Store<Pod>> = client.store(Query::default());
    store.synced().await;
    drop(fake);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(store.len(), 1);
}

#[tokio::test]
async fn a_token_file_is_read_and_refusals_are_retried() {
    let fake = Fake::start().await;
    fake.world.put("pods", pod("a", "p0"));
    fake.world.accept_tokens(&["new"]);
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "old").unwrap();
    let path = dir.path().join("config");
    let file = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": fake.server()}}],
        "users": [{"name": "u", "user": {"tokenFile": token}}],
    });
    std::fs::write(&path, file.to_string()).unwrap();
    let client = Access::of_kubeconfig(&path).unwrap().connect().await.unwrap();
    let error = client.version().await.unwrap_err().to_string();
    assert!(error.contains("401"), "{error}");
    let store: Arc<Store<Pod>> = client.store(Query::default());
    until(|| fake.world.requests().len() > 2).await;
    assert!(!store.is_synced());
    // The server comes to accept it, as it does when a rotated key is known everywhere.
    fake.world.accept_tokens(&["old"]);
    store.synced().await;
}

#[tokio::test]
async fn queries_select() {
    let fake = Fake::start().await;
    fake.world.put("pods", pod("a", "p0"));
    fake.world.put("pods", pod("b", "p1"));
    let client = client_of(&fake).await;
    let query = Query {
        namespace: Some("b".to_owned()),
        labels: "app in (web, x)".to_owned(),
        fields: "spec.nodeName=n1".to_owned(),
    };
    let store: Arc<Store<Pod>> = client.store(query);
    store.synced().await;
    assert_eq!(store.all().len(), 1);
    let requests = fake.world.requests();
    let wanted = "/api/v1/namespaces/b/pods?labelSelector=app%20in%20%28web%2C%20x%29&fieldSelector=spec.nodeName%3Dn1&limit=250";
    assert!(requests.iter().any(|request| request.contains(wanted)), "{requests:?}");
}

#[test]
fn objects_are_reduced_to_what_is_used() {
    let pod: Pod = serde_json::from_value(pod("ns", "web-5-x")).unwrap();
    assert_eq!(pod.meta.key(), "ns/web-5-x");
    assert_eq!(pod.meta.created_ms, 1_795_251_600_000);
    assert_eq!(pod.meta.labels.iter().collect::<Vec<_>>(), [("app", "web"), ("tier", "front")]);
    assert_eq!(pod.meta.controller.as_ref().map(|owner| &*owner.name), Some("web-5"));
    assert_eq!((&*pod.ready, &*pod.phase, &*pod.ip), ("true", "Running", "10.0.0.7"));
    let [main, setup] = &*pod.containers else { panic!("{pod:?}") };
    assert_eq!((&*main.id, &*main.ports[0].protocol, setup.is_init), ("containerd://abc", "TCP", true));

    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": "n"}, "spec": {"providerID": "p://x"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "10.1.1.1"}],
            "conditions": [{"type": "Ready", "status": "Unknown"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "allocatable": {"cpu": "3920m", "memory": "7Gi"},
            "nodeInfo": {"kernelVersion": "6.1"},
        },
    }))
    .unwrap();
    assert_eq!((node.kubelet_port, node.cpu_millicores, node.memory_bytes), (10250, 3_920, 7 << 30));
    assert_eq!(node.conditions.get("Ready"), Some("unknown"));
    assert_eq!(node.info.get("kernelVersion"), Some("6.1"));

    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "s", "namespace": "ns"}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.7"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "x"}}],
        "ports": null,
    }))
    .unwrap();
    assert_eq!((slice.endpoints[0].ready, slice.endpoints[0].serving), (Some(true), None));
    assert!(slice.ports.is_empty());

    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "s"},
        "spec": {"type": "ClusterIP", "clusterIP": "None", "ports": [{"name": "a", "port": 80}]},
    }))
    .unwrap();
    assert_eq!((&*service.cluster_ip, service.ports[0].port), ("None", 80));

    let ingress: Ingress = serde_json::from_value(json!({
        "metadata": {"name": "i"},
        "spec": {"tls": [{"hosts": ["a"]}], "rules": [{"host": "a", "http": {"paths": [{"path": "/x"}, {}]}}, {"host": "b"}]},
    }))
    .unwrap();
    assert_eq!(ingress.rules[0].paths.as_ref(), ["/x".into(), "/".into()]);
    assert_eq!(ingress.rules[1].paths.as_ref(), ["/".into()]);
}

/// What counts is the heap; a pod with a usual number of labels must stay far below 3 KB.
#[test]
fn a_pod_is_small() {
    let mut value = pod("monitoring", "prometheus-node-exporter-7d9f8b6c5-x2x4q");
    for n in 0..10 {
        value["metadata"]["labels"][format!("app.kubernetes.io/label-{n}")] = json!("some-value-of-it");
    }
    let pod: Pod = serde_json::from_value(value).unwrap();
    let text: usize = pod.meta.labels.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    let containers = pod.containers.len() * size_of::<crate::Container>();
    let bytes = size_of::<Pod>() + text + containers;
    assert!(bytes < 1_500, "{bytes} bytes");
}

#[tokio::test]
async fn reviews_ask_the_server() {
    let fake = Fake::start().await;
    fake.world.know_user("t", json!({"username": "jane", "groups": ["dev"], "extra": {"a": ["b"]}}));
    let client = client_of(&fake).await;
    let user = client.review_token("t").await.unwrap().unwrap();
    assert_eq!((user.name.as_str(), user.groups.as_slice()), ("jane", &["dev".to_owned()][..]));
    assert_eq!(client.review_token("wrong").await.unwrap(), None);
    let request = AccessRequest::Path { path: "/metrics".into(), verb: "get".into() };
    assert!(!client.review_access(&user, &request).await.unwrap().allowed);
    fake.world.permit("jane");
    assert!(client.review_access(&user, &request).await.unwrap().allowed);
    assert!(!client.review_access(&User::default(), &request).await.unwrap().allowed);
    let asked = fake.world.reviews().pop().unwrap();
    assert_eq!(asked["nonResourceAttributes"], json!({"path": "/metrics", "verb": "get"}));
    fake.world.allow(true);
    let request = AccessRequest::Resource {
        group: "metrics.k8s.io".into(),
        version: "v1beta1".into(),
        resource: "pods".into(),
        subresource: String::new(),
        namespace: "ns".into(),
        name: String::new(),
        verb: "list".into(),
    };
    let verdict = client.review_access(&User::default(), &request).await.unwrap();
    assert!(verdict.allowed);
    assert!(verdict.reason.contains("asked"));
}

#[tokio::test]
async fn kinds_and_names_are_those_of_the_cluster() {
    let fake = Fake::start().await;
    for name in ["gouda", "cheddar"] {
        fake.world.put("brands", json!({"metadata": {"namespace": "ns", "name": name}}));
    }
    let client = client_of(&fake).await;
    let kinds = client.resource_kinds(&["metrics.k8s.io"]).await.unwrap();
    let shown: Vec<String> =
        kinds.iter().map(|kind| format!("{} {}", kind.qualified(), kind.api_version())).collect();
    assert_eq!(
        shown,
        ["namespaces v1", "nodes v1", "pods v1", "services v1", "brands.cheese.io cheese.io/v2"]
    );
    let brand = kinds.last().unwrap();
    assert_eq!((brand.singular.as_str(), brand.namespaced), ("brand", true));
    assert_eq!(client.object_names(brand, Some("ns"), "a=b").await.unwrap(), ["cheddar", "gouda"]);
    let asked = fake.world.requests().pop().unwrap();
    assert_eq!(asked, "GET /apis/cheese.io/v2/namespaces/ns/brands?labelSelector=a%3Db");
}

#[tokio::test]
async fn labels_of_pods_are_kept_alone() {
    let fake = Fake::start().await;
    fake.world.put("pods", pod("ns", "a"));
    let client = client_of(&fake).await;
    let pods: std::sync::Arc<Store<crate::PodLabels>> = client.store(Query::default());
    pods.synced().await;
    let kept = pods.get("ns/a").unwrap();
    assert!(!kept.meta.labels.is_empty());
    assert!(kept.meta.annotations.is_empty() && kept.meta.uid.is_empty());
}

#[tokio::test]
async fn a_lease_has_one_holder() {
    let fake = Fake::start().await;
    let client = client_of(&fake).await;
    let mut a = Lease::new("ns", "router", "a", 15_000);
    let mut b = Lease::new("ns", "router", "b", 15_000);
    assert_eq!(a.hold(&client, 0).await.unwrap(), LeaseState::Held);
    assert_eq!(b.hold(&client, 1_000_000).await.unwrap(), LeaseState::Other("a".to_owned()));
    assert_eq!(a.hold(&client, 10_000).await.unwrap(), LeaseState::Held);
    // Renewed since: the time begins anew.
    assert_eq!(b.hold(&client, 1_020_000).await.unwrap(), LeaseState::Other("a".to_owned()));
    assert_eq!(b.hold(&client, 1_034_000).await.unwrap(), LeaseState::Other("a".to_owned()));
    assert_eq!(b.hold(&client, 1_036_000).await.unwrap(), LeaseState::Held);
    assert_eq!(a.hold(&client, 20_000).await.unwrap(), LeaseState::Other("b".to_owned()));
    b.release(&client).await.unwrap();
    assert_eq!(a.hold(&client, 21_000).await.unwrap(), LeaseState::Held);
}

#[tokio::test]
async fn a_config_map_is_written_over_the_state_that_was_read() {
    let fake = Fake::start().await;
    let client = client_of(&fake).await;
    assert!(client.config_map("ns", "slots").await.unwrap_err().is_not_found());
    let mut map = ConfigMap::default();
    (map.meta.namespace, map.meta.name) = ("ns".into(), "slots".into());
    map.data.insert("epoch".to_owned(), "1".to_owned());
    client.write_config_map(&map).await.unwrap();
    assert!(client.write_config_map(&map).await.unwrap_err().is_conflict());
    let store = client.watch_config_map("ns", "slots");
    store.synced().await;
    let (mut mine, theirs) =
        (client.config_map("ns", "slots").await.unwrap(), client.config_map("ns", "slots").await.unwrap());
    mine.data.insert("epoch".to_owned(), "2".to_owned());
    client.write_config_map(&mine).await.unwrap();
    assert!(client.write_config_map(&theirs).await.unwrap_err().is_conflict());
    let epoch_is = |epoch: &str| store.get("ns/slots").is_some_and(|map| map.data["epoch"] == epoch);
    until(|| epoch_is("2")).await;
    let revision = store.revision();
    // Somebody is faster between reading and writing; the object stays what it was.
    let mut mine = client.config_map("ns", "slots").await.unwrap();
    fake.world.overtake(1);
    assert!(client.write_config_map(&mine).await.unwrap_err().is_conflict());
    assert_eq!(fake.world.object("configmaps", "ns/slots").unwrap()["data"]["epoch"], "2");
    mine = client.config_map("ns", "slots").await.unwrap();
    mine.data.insert("epoch".to_owned(), "3".to_owned());
    client.write_config_map(&mine).await.unwrap();
    until(|| epoch_is("3")).await;
    assert_eq!(store.revision(), revision + 1, "only what has changed is another revision");
}

proptest::proptest! {
    /// What comes out of the packed form is what went in.
    #[test]
    fn pairs_round_trip(pairs: Vec<(String, String)>) {
        let packed: crate::Pairs = pairs.iter().map(|(name, value)| (name, value)).collect();
        let out: Vec<(String, String)> =
            packed.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        proptest::prop_assert_eq!(out, pairs);
    }
}
