//! The manifests of `deploy/`: they can be rendered, hang together, ask for no more rights than the restricted
//! profile allows, and start the server with flags that it has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use gotmpl::{FuncMap, Template, Value as Data};
use serde_json::{Value, json};

use crate::process::{Server, command, installed, run};

fn deploy() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---\n").map(|part| part.trim().trim_start_matches("---"));
    let parts =
        parts.filter(|part| part.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')));
    parts.map(|part| serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{error}\n{part}"))).collect()
}

fn kustomize(folder: &str) -> Vec<Value> {
    documents(&run("kubectl", &["kustomize", &deploy().join(folder).display().to_string()]))
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("{path} of {object:.300}"))
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().unwrap().iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// What must hold of any set of manifests.
fn check(objects: &[Value]) {
    let mut names = BTreeSet::new();
    for object in objects {
        let kind = text(object, "/kind");
        let scope = object["metadata"]["namespace"].as_str().unwrap_or("");
        assert!(names.insert((kind, scope, text(object, "/metadata/name"))), "twice: {object:.200}");
        assert!(!text(object, "/apiVersion").contains("beta"), "{object:.200}");
    }
    for object in objects {
        match text(object, "/kind") {
            "StatefulSet" | "Deployment" => {
                let labels = &object["spec"]["template"]["metadata"]["labels"];
                assert!(selects(&object["spec"]["selector"]["matchLabels"], labels));
                workload(objects, &object["spec"]);
            }
            "Job" => workload(objects, &object["spec"]),
            "CronJob" => workload(objects, &object["spec"]["jobTemplate"]["spec"]),
            "APIService" => api_service(objects, object),
            "ClusterRoleBinding" | "RoleBinding" => binding(objects, object),
            "PodDisruptionBudget" => {
                let selector = &object["spec"]["selector"]["matchLabels"];
                assert!(workloads(objects).any(|pods| selects(selector, &pods["metadata"]["labels"])));
            }
            "NetworkPolicy" => {
                let selector = &object["spec"]["podSelector"]["matchLabels"];
                assert!(workloads(objects).any(|pods| selects(selector, &pods["metadata"]["labels"])));
            }
            "Service" => {
                let selector = &object["spec"]["selector"];
                let pods = workloads(objects).find(|pods| selects(selector, &pods["metadata"]["labels"]));
                let pods = pods.unwrap_or_else(|| panic!("nothing behind {object:.300}"));
                for port in object["spec"]["ports"].as_array().unwrap() {
                    let all = pods["spec"]["containers"][0]["ports"].as_array().unwrap();
                    assert!(all.iter().any(|other| other["name"] == port["targetPort"]), "{port}");
                }
            }
            "ClusterRole" | "Role" | "ConfigMap" | "Namespace" | "ServiceAccount" => {}
            other => panic!("a kind that nobody expects: {other}"),
        }
    }
}

fn workloads(objects: &[Value]) -> impl Iterator<Item = &Value> {
    let kinds = ["StatefulSet", "Deployment"];
    objects
        .iter()
        .filter(move |object| kinds.iter().any(|kind| object["kind"] == *kind))
        .map(|object| &object["spec"]["template"])
}

/// What holds of the pods of a workload, of which this is the `spec`.
fn workload(objects: &[Value], spec: &Value) {
    let template = &spec["template"];
    named(objects, "ServiceAccount", text(template, "/spec/serviceAccountName"));
    let pod = &template["spec"]["securityContext"];
    assert_eq!(
        (&pod["runAsNonRoot"], &pod["seccompProfile"]["type"]),
        (&json!(true), &json!("RuntimeDefault"))
    );
    assert!(pod["runAsUser"].as_u64().unwrap() > 0);
    for container in template["spec"]["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
        assert!(!text(container, "/image").ends_with(":latest") && text(container, "/image").contains(':'));
        flags(container);
        let mut volumes: BTreeSet<&str> = BTreeSet::new();
        let claims = spec["volumeClaimTemplates"].as_array().into_iter().flatten();
        volumes.extend(claims.map(|claim| text(claim, "/metadata/name")));
        let others = template["spec"]["volumes"].as_array().into_iter().flatten();
        for volume in others {
            volumes.insert(text(volume, "/name"));
            if let Some(name) = volume.pointer("/configMap/name").and_then(Value::as_str) {
                named(objects, "ConfigMap", name);
            }
        }
        for mount in container["volumeMounts"].as_array().unwrap() {
            assert!(volumes.contains(text(mount, "/name")), "{mount}");
        }
    }
}

/// The binary knows the flags of a container. Asked for help it does nothing else.
fn flags(container: &Value) {
    let arguments = container["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
    let output = command().args(arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn api_service(objects: &[Value], object: &Value) {
    let spec = &object["spec"];
    assert_eq!(
        text(object, "/metadata/name"),
        format!("{}.{}", text(spec, "/version"), text(spec, "/group"))
    );
    let service = named(objects, "Service", text(spec, "/service/name"));
    assert_eq!(service["metadata"]["namespace"], spec["service"]["namespace"]);
    let ports = service["spec"]["ports"].as_array().unwrap();
    assert!(ports.iter().any(|port| port["port"] == spec["service"]["port"]));
    // The two exclude each other; where there is neither, a job knows of this object and may write it.
    let name = json!(text(object, "/metadata/name"));
    let has = |list: &Value| list.as_array().is_some_and(|list| list.contains(&name));
    let installed = objects.iter().filter(|job| job["kind"] == "Job").any(|job| {
        let template = &job["spec"]["template"];
        let role = named(objects, "ClusterRole", text(template, "/spec/serviceAccountName"));
        has(&template["spec"]["containers"][0]["args"]) && has(&role["rules"][0]["resourceNames"])
    });
    let ways = [spec["insecureSkipTLSVerify"] == true, spec["caBundle"].is_string(), installed];
    assert_eq!(ways.iter().filter(|way| **way).count(), 1, "{object}");
}

fn binding(objects: &[Value], object: &Value) {
    let role = text(object, "/roleRef/name");
    if role != "system:auth-delegator" {
        named(objects, text(object, "/roleRef/kind"), role);
    }
    for subject in object["subjects"].as_array().unwrap() {
        if subject["namespace"] != "kube-system" {
            named(objects, "ServiceAccount", text(subject, "/name"));
        }
    }
}

fn data(value: &Value) -> Data {
    match value {
        Value::Null => Data::Nil,
        Value::Bool(value) => Data::Bool(*value),
        Value::Number(value) => Data::Int(value.as_i64().unwrap()),
        Value::String(value) => Data::from(value.as_str()),
        Value::Array(items) => Data::from(items.iter().map(data).collect::<Vec<_>>()),
        Value::Object(map) => {
            Data::from(map.iter().map(|(key, value)| (key.clone(), data(value))).collect::<BTreeMap<_, _>>())
        }
    }
}

fn plain(value: &Data) -> Value {
    match value {
        Data::Bool(value) => json!(value),
        Data::Int(value) => json!(value),
        Data::String(value) => json!(&**value),
        Data::List(items) => items.iter().map(plain).collect(),
        Data::Map(map) => map.iter().map(|(key, value)| (key.to_string(), plain(value))).collect(),
        _ => Value::Null,
    }
}

/// The chart with `changed` in place of some of its values. Its templates use Go's language and `toJson`.
fn chart(changed: &[(&str, Value)]) -> Vec<Value> {
    let chart = deploy().join("helm/pyrometer");
    let read = |name: &str| std::fs::read_to_string(chart.join(name)).unwrap();
    let mut values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    for (path, value) in changed {
        *values.pointer_mut(path).unwrap_or_else(|| panic!("no value {path}")) = value.clone();
    }
    let about: Value = serde_saphyr::from_str(&read("Chart.yaml")).unwrap();
    let root = data(&json!({
        "Values": values,
        "Release": {"Name": "pyrometer", "Namespace": "pyrometer", "Revision": 1},
        "Chart": {"AppVersion": about["appVersion"]},
    }));
    let mut all = Vec::new();
    for file in std::fs::read_dir(chart.join("templates")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let mut functions = FuncMap::new();
        functions
            .insert("toJson".into(), Arc::new(|given: &[Data]| Ok(Data::from(plain(&given[0]).to_string()))));
        let template = Template::new("chart").funcs(functions).parse(&text).unwrap();
        all.extend(documents(&template.execute_to_string(&root).unwrap()));
    }
    all
}

fn kinds(objects: &[Value]) -> BTreeSet<(String, String)> {
    let name = |object: &Value| (text(object, "/kind").to_owned(), text(object, "/metadata/name").to_owned());
    objects.iter().map(name).collect()
}

#[test]
fn the_chart_and_the_kustomization_install_the_same() {
    if !installed("kubectl") {
        return;
    }
    let base = kustomize("");
    check(&base);
    let from_chart = chart(&[]);
    check(&from_chart);
    let mut kustomized = kinds(&base);
    // Helm makes the namespace itself.
    assert!(kustomized.remove(&("Namespace".to_owned(), "pyrometer".to_owned())));
    assert_eq!(kustomized, kinds(&from_chart));
    let arguments = |all: &[Value]| {
        named(all, "StatefulSet", "pyrometer").pointer("/spec/template/spec/containers/0/args").cloned()
    };
    assert_eq!(arguments(&base), arguments(&from_chart));
    let rules = |all: &[Value]| named(all, "ClusterRole", "pyrometer")["rules"].clone();
    assert_eq!(rules(&base), rules(&from_chart));
    assert_eq!(named(&kustomize("kustomize/ha"), "StatefulSet", "pyrometer")["spec"]["replicas"], 2);
    check(&kustomize("kustomize/ha"));
}

#[test]
fn the_api_server_can_be_made_to_verify_the_certificate() {
    if !installed("kubectl") {
        return;
    }
    let from_chart = chart(&[("/tls/install", json!(true)), ("/apiServices/externalMetrics", json!(false))]);
    for all in [kustomize("kustomize/verified"), from_chart] {
        check(&all);
        let server = named(&all, "StatefulSet", "pyrometer");
        let volumes = server.pointer("/spec/template/spec/volumes").unwrap().as_array().unwrap();
        let secret = volumes.iter().find_map(|volume| volume.pointer("/secret/secretName")).unwrap();
        let jobs = || all.iter().filter(|object| object["kind"] == "Job" || object["kind"] == "CronJob");
        assert_eq!(jobs().count(), 2);
        for job in jobs() {
            let template = job.pointer("/spec/jobTemplate/spec/template").unwrap_or(&job["spec"]["template"]);
            let arguments = template.pointer("/spec/containers/0/args").unwrap().as_array().unwrap();
            let wanted = format!("--secret=pyrometer/{}", secret.as_str().unwrap());
            assert!(arguments.contains(&json!(wanted)), "{arguments:?}");
            assert!(arguments.contains(&json!("--name=pyrometer.pyrometer.svc")), "{arguments:?}");
            let services = arguments.iter().filter_map(Value::as_str).filter(|it| it.ends_with(".k8s.io"));
            let given = all.iter().filter(|object| object["kind"] == "APIService");
            let given: BTreeSet<&str> = given.map(|object| text(object, "/metadata/name")).collect();
            assert_eq!(services.collect::<BTreeSet<_>>(), given);
        }
        for verb in ["get", "update", "create"] {
            assert!(may(&all, "pyrometer-installer", verb, "secrets"), "{verb}");
        }
        assert!(!may(&all, "pyrometer-installer", "list", "secrets"));
    }
}

#[test]
fn every_value_of_the_chart_arrives() {
    let all = chart(&[
        ("/replicas", json!(2)),
        ("/config", json!("scrape_configs: []\n# \"quoted\"\n")),
        ("/retention/time", json!("30d")),
        ("/retention/size", json!("45GB")),
        ("/tls/secretName", json!("cert")),
        ("/extraArgs", json!(["--log.level=debug"])),
        ("/persistence/enabled", json!(false)),
        ("/apiServices/customMetrics", json!(false)),
        ("/apiServices/caBundle", json!("QQ==")),
        ("/networkPolicy/enabled", json!(false)),
        ("/podDisruptionBudget/enabled", json!(false)),
        ("/image/tag", json!("x")),
        ("/nodeSelector", json!({"a": "b"})),
    ]);
    check(&all);
    let set = named(&all, "StatefulSet", "pyrometer");
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    for flag in [
        "--storage.tsdb.retention.time=30d",
        "--log.level=debug",
        "--config.file=/etc/pyrometer/prometheus.yml",
    ] {
        assert!(container["args"].as_array().unwrap().contains(&json!(flag)), "{flag}");
    }
    assert_eq!((&set["spec"]["replicas"], &container["image"]), (&json!(2), &json!("pyrometer:x")));
    assert_eq!(set["spec"]["template"]["spec"]["nodeSelector"]["a"], "b");
    let config = named(&all, "ConfigMap", "pyrometer");
    assert_eq!(config["data"]["prometheus.yml"], "scrape_configs: []\n# \"quoted\"\n");
    assert_eq!(named(&all, "APIService", "v1beta1.metrics.k8s.io")["spec"]["caBundle"], "QQ==");
    for gone in ["v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"] {
        assert!(!kinds(&all).contains(&("APIService".to_owned(), gone.to_owned())));
    }
    assert!(
        !all.iter()
            .any(|object| object["kind"] == "NetworkPolicy" || object["kind"] == "PodDisruptionBudget")
    );
}

#[test]
fn probes_ask_for_pages_that_the_server_has() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--kubernetes=off"]);
    for object in chart(&[]).iter().filter(|object| object["kind"] == "StatefulSet") {
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let path = text(container, &format!("/{probe}/httpGet/path"));
            server.wait_for(probe, |server| (server.get(path).0 == 200).then_some(()));
        }
    }
}

/// A flag of a workload's container.
fn flag<'a>(workload: &'a Value, name: &str) -> &'a str {
    let arguments = workload["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
    let found =
        arguments.iter().find_map(|argument| argument.as_str()?.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} of {workload:.200}"))
}

/// Whether a service account may do something in its namespace.
fn may(objects: &[Value], account: &str, verb: &str, resource: &str) -> bool {
    let bindings = objects.iter().filter(|object| object["kind"] == "RoleBinding");
    let bound = bindings.filter(|object| object["subjects"][0]["name"] == account);
    let mut rules = bound.flat_map(|binding| {
        named(objects, "Role", text(binding, "/roleRef/name"))["rules"].as_array().unwrap()
    });
    rules.any(|rule| {
        let has = |list: &str, wanted: &str| rule[list].as_array().unwrap().contains(&json!(wanted));
        has("resources", resource) && has("verbs", verb)
    })
}

#[test]
fn the_parts_of_the_sharded_cell_find_each_other() {
    if installed("kubectl") {
        let objects = kustomize("kustomize/sharded");
        check(&objects);
        cell(&objects);
    }
    let objects = chart(&[("/cell/enabled", json!(true))]);
    check(&objects);
    cell(&objects);
}

#[test]
fn the_charts_cell_is_that_of_the_kustomization() {
    if !installed("kubectl") {
        return;
    }
    let without = kinds(&chart(&[]));
    assert!(!without.iter().any(|(_, name)| name.contains("shard")), "{without:?}");
    let all = chart(&[("/cell/enabled", json!(true))]);
    let ours: BTreeSet<_> = kinds(&all).difference(&without).cloned().collect();
    let sharded = kustomize("kustomize/sharded");
    let named_plainly = |(kind, name): (String, String)| match kind.as_str() {
        "Namespace" => None,
        // Its name ends with a hash.
        "ConfigMap" => Some((kind, "pyrometer-cell".to_owned())),
        _ => Some((kind, name)),
    };
    assert_eq!(ours, kinds(&sharded).into_iter().filter_map(named_plainly).collect());
    for (kind, name) in &ours {
        let find = |all| -> &Value { named(all, kind, name) };
        match kind.as_str() {
            "Role" | "ClusterRole" => assert_eq!(find(&all)["rules"], find(&sharded)["rules"], "{name}"),
            "StatefulSet" | "Deployment" => {
                let container = |all| find(all).pointer("/spec/template/spec/containers/0").unwrap();
                let (ours, theirs) = (container(&all), container(&sharded));
                let arguments = |of: &Value| of["args"].to_string().replace("pyrometer-cell/", "pyrometer/");
                assert_eq!(arguments(ours), arguments(theirs), "{name}");
                for key in ["resources", "ports", "env", "volumeMounts", "livenessProbe", "startupProbe"] {
                    assert_eq!(ours[key], theirs[key], "{name} {key}");
                }
                let spec = |of: &Value, path: &str| of.pointer(path).cloned();
                let claim = "/spec/volumeClaimTemplates/0/spec";
                for path in ["/spec/replicas", claim, "/spec/template/spec/securityContext"] {
                    assert_eq!(spec(find(&all), path), spec(find(&sharded), path), "{name} {path}");
                }
            }
            _ => {}
        }
    }
}

#[test]
fn every_value_of_the_charts_cell_arrives() {
    let all = chart(&[
        ("/cell/enabled", json!(true)),
        ("/cell/name", json!("east: 1")),
        ("/cell/replication", json!(3)),
        ("/cell/shards/replicas", json!(5)),
        ("/cell/shards/storage", json!("1Ti")),
        ("/cell/shards/resources", json!({"limits": {"memory": "9Gi"}})),
        ("/cell/routers/replicas", json!(4)),
        ("/cell/routers/spool", json!("80GB")),
        ("/cell/routers/storage", json!("100Gi")),
        ("/cell/queriers/replicas", json!(6)),
        ("/cell/agents/enabled", json!(false)),
        ("/retention/time", json!("30d")),
        ("/retention/size", json!("45GB")),
        ("/persistence/storageClass", json!("fast")),
        ("/tolerations", json!([{"operator": "Exists"}])),
        ("/podDisruptionBudget/enabled", json!(false)),
    ]);
    check(&all);
    let (shard, router) =
        (named(&all, "StatefulSet", "pyrometer-shard"), named(&all, "StatefulSet", "pyrometer-router"));
    for (set, name, value) in [
        (router, "--cluster.replication", "3"),
        (router, "--cluster.shards-min", "5"),
        (router, "--router.spool-size", "80GB"),
        (shard, "--storage.tsdb.retention.time", "30d"),
        (shard, "--storage.tsdb.retention.size", "45GB"),
    ] {
        assert_eq!(flag(set, name), value);
    }
    let querier = named(&all, "Deployment", "pyrometer-querier");
    let replicas = [shard, router, querier].map(|set| set["spec"]["replicas"].as_u64().unwrap());
    assert_eq!(replicas, [5, 4, 6]);
    for (set, storage) in [(shard, "1Ti"), (router, "100Gi")] {
        let claim = &set["spec"]["volumeClaimTemplates"][0]["spec"];
        assert_eq!(claim["storageClassName"], "fast");
        assert_eq!(claim["resources"]["requests"]["storage"], storage);
        assert_eq!(set["spec"]["template"]["spec"]["tolerations"][0]["operator"], "Exists");
    }
    assert_eq!(shard["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"], "9Gi");
    let config: Value =
        serde_saphyr::from_str(text(named(&all, "ConfigMap", "pyrometer-cell"), "/data/shard.yml")).unwrap();
    assert_eq!(config["global"]["external_labels"]["cell"], "east: 1");
    let kinds = kinds(&all);
    let has = |kind: &str, name: &str| kinds.contains(&(kind.to_owned(), name.to_owned()));
    assert!(!has("StatefulSet", "pyrometer-agent") && !has("NetworkPolicy", "pyrometer-agent"));
    assert!(
        has("NetworkPolicy", "pyrometer-shard")
            && !kinds.iter().any(|(kind, _)| kind == "PodDisruptionBudget")
    );
}

/// What must hold of a sharded cell.
fn cell(objects: &[Value]) {
    // The slot map is made of the pods behind two services, which give them names that stay.
    let (shard, router) =
        (named(objects, "StatefulSet", "pyrometer-shard"), named(objects, "StatefulSet", "pyrometer-router"));
    let querier = named(objects, "Deployment", "pyrometer-querier");
    for (set, flag_name) in [(shard, "--cluster.shard-service"), (router, "--cluster.router-service")] {
        let service = flag(router, flag_name);
        assert_eq!(text(set, "/spec/serviceName"), service);
        let behind = named(objects, "Service", service);
        assert_eq!(
            (&behind["spec"]["clusterIP"], &behind["spec"]["ports"][0]["name"]),
            (&json!("None"), &json!("http"))
        );
        assert!(selects(&behind["spec"]["selector"], &set["spec"]["template"]["metadata"]["labels"]));
    }
    let object = flag(router, "--cluster.slot-map-object");
    assert_eq!(object, flag(querier, "--cluster.slot-map-object"));
    assert_eq!(object.split('/').next().unwrap(), text(router, "/metadata/namespace"));
    assert_eq!(
        json!(flag(router, "--cluster.shards-min").parse::<u64>().unwrap()),
        shard["spec"]["replicas"]
    );
    for (account, verb, resource) in [
        ("pyrometer-router", "create", "configmaps"),
        ("pyrometer-router", "update", "configmaps"),
        ("pyrometer-router", "update", "leases"),
        ("pyrometer-router", "watch", "endpointslices"),
        ("pyrometer-querier", "watch", "configmaps"),
    ] {
        assert!(may(objects, account, verb, resource), "{account} {verb} {resource}");
    }
    assert!(!may(objects, "pyrometer-querier", "update", "configmaps"));
    let dir = tempfile::tempdir().unwrap();
    // Configurations can be used, and the shards' labels differ from pod to pod.
    let is_ours = |object: &&Value| {
        object["kind"] == "ConfigMap" && text(object, "/metadata/name").starts_with("pyrometer-cell")
    };
    let files = objects.iter().find(is_ours).unwrap()["data"].as_object().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        std::fs::write(&path, content.as_str().unwrap()).unwrap();
        let checked = command().args(["check", "config", path.to_str().unwrap()]).output().unwrap();
        assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
    }
    assert!(files["shard.yml"].as_str().unwrap().contains("pyrometer_replica: ${POD_NAME}"));
    let environment = &shard["spec"]["template"]["spec"]["containers"][0]["env"][0];
    assert_eq!(
        (&environment["name"], text(environment, "/valueFrom/fieldRef/fieldPath")),
        (&json!("POD_NAME"), "metadata.name")
    );
    // The agent writes to where routers are.
    let writers = named(objects, "Service", "pyrometer-router");
    let url = format!("http://pyrometer-router:{}/api/v1/write", writers["spec"]["ports"][0]["port"]);
    assert!(files["agent.yml"].as_str().unwrap().contains(&url));
    for set in ["pyrometer-shard", "pyrometer-router", "pyrometer-querier"] {
        named(objects, "PodDisruptionBudget", set);
        named(objects, "NetworkPolicy", set);
    }
}
