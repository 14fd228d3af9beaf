//! A scripted autoscaler: the requests of the controller, and what it decides by their answers.

mod controller;

use serde_json::{Value, json};

use crate::cluster::{Cluster, MEMORY, RULES, Secured, millicores};
use crate::kubelets::{self, Kubelets, now_ms};
use crate::process::{PATIENCE, escape, installed};
use controller::{Autoscaler, Measured, Phase, Pod, Target, Values, by_pods, by_share};

const HPA: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
const ACCEPT: &str = "application/vnd.kubernetes.protobuf, */*";

/// A quantity in thousandths, rounded up as the controller does.
fn milli(quantity: &str) -> i64 {
    let digits = quantity.find(|c: char| !c.is_ascii_digit()).unwrap_or(quantity.len());
    let number: i128 = quantity[..digits].parse().unwrap();
    let (up, down): (i128, i128) = match &quantity[digits..] {
        "n" => (1, 1_000_000),
        "u" => (1, 1_000),
        "m" => (1, 1),
        "" => (1_000, 1),
        "k" => (1_000_000, 1),
        "Ki" => (1_024_000, 1),
        "Mi" => (1_024 * 1_024_000, 1),
        other => panic!("{other}"),
    };
    i64::try_from((number * up + down - 1) / down).unwrap()
}

/// Milliseconds of a duration in Go's form.
fn duration_ms(text: &str) -> i64 {
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        let end = rest[unit..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |end| unit + end);
        let scale = match &rest[unit..end] {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1_000.0,
            "ms" => 1.0,
            other => panic!("{other}"),
        };
        sum += rest[..unit].parse::<f64>().unwrap() * scale;
        rest = &rest[end..];
    }
    format!("{sum:.0}").parse().unwrap()
}

fn time_ms(value: &Value) -> i64 {
    value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// The controller's client, through the front proxy.
struct Client<'a>(&'a Secured);

impl Client<'_> {
    fn get(&self, path: &str) -> Result<Value, String> {
        // Resource metrics would come as protobuf, which is read elsewhere.
        let accept = if path.starts_with("/apis/metrics.k8s.io") { "application/json" } else { ACCEPT };
        let headers =
            [("Accept", accept), ("X-Remote-User", HPA), ("X-Remote-Group", "system:serviceaccounts")];
        let (status, answer) = self.0.ask(Some("proxy"), path, &headers);
        if status == 200 {
            Ok(answer)
        } else {
            Err(answer["message"].as_str().unwrap_or_default().to_owned())
        }
    }

    /// CPU of one container of each pod, or of all together. A pod without that container has no value.
    fn resource(&self, selector: &str, only: Option<&str>) -> Result<Values, String> {
        let path = format!(
            "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector={}",
            escape(selector)
        );
        let list = self.get(&path)?;
        let items = list["items"].as_array().unwrap();
        if items.is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        let mut values = Values::new();
        for pod in items {
            let containers = pod["containers"].as_array().unwrap().iter();
            let wanted = containers.filter(|it| only.is_none_or(|only| it["name"] == only));
            let used: Vec<i64> = wanted.map(|it| milli(it["usage"]["cpu"].as_str().unwrap())).collect();
            if !used.is_empty() {
                let measured = Measured {
                    value: used.iter().sum(),
                    timestamp_ms: time_ms(&pod["timestamp"]),
                    window_ms: duration_ms(pod["window"].as_str().unwrap()),
                };
                values.insert(pod["metadata"]["name"].as_str().unwrap().to_owned(), measured);
            }
        }
        Ok(values)
    }

    fn pods(&self, metric: &str, selector: &str) -> Result<Values, String> {
        let root = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/%2A";
        let list = self.get(&format!("{root}/{metric}?labelSelector={}", escape(selector)))?;
        let items = list["items"].as_array().unwrap().iter();
        Ok(items
            .map(|it| {
                let measured = Measured {
                    value: milli(it["value"].as_str().unwrap()),
                    timestamp_ms: time_ms(&it["timestamp"]),
                    window_ms: it["windowSeconds"].as_i64().unwrap_or(60) * 1000,
                };
                (it["describedObject"]["name"].as_str().unwrap().to_owned(), measured)
            })
            .collect())
    }

    /// Of an object exactly one item is taken.
    fn object(&self, path: &str) -> Result<i64, String> {
        let list = self.get(&format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/{path}"))?;
        match list["items"].as_array().unwrap().as_slice() {
            [item] => Ok(milli(item["value"].as_str().unwrap())),
            items => Err(format!(
                "the custom metrics API server returned {} results when we asked for exactly one",
                items.len()
            )),
        }
    }

    fn external(&self, metric: &str, selector: &str) -> Result<i64, String> {
        let root = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default";
        let list =
            self.get(&format!("{root}/{metric}?labelSelector={}", escape(selector).replace("%20", "+")))?;
        Ok(list["items"].as_array().unwrap().iter().map(|it| milli(it["value"].as_str().unwrap())).sum())
    }
}

fn plain(values: &Values) -> Vec<i64> {
    values.values().map(|measured| measured.value).collect()
}

#[test]
fn all_five_kinds_of_metric_and_what_is_said_instead_of_a_value() {
    if !installed("openssl") {
        return;
    }
    let cluster = Cluster::start();
    cluster.fake.world.permit(HPA);
    let pyrometer = cluster.pyrometer("p", &[]);
    pyrometer.wait_until_ready();
    pyrometer
        .wait_for("/apis/metrics.k8s.io/v1beta1/pods", |list| list["items"].as_array().unwrap().len() == 6);
    let client = Client(&pyrometer);
    // Pods 0 and 1 of each node, 250m and 500m.
    assert_eq!(plain(&client.resource("app=web", None).unwrap()), [250, 500, 250, 500]);
    assert_eq!(plain(&client.resource("app=web", Some("side")).unwrap()), [0; 4]);
    assert_eq!(plain(&client.resource("app=web", Some("other")).unwrap()), [0; 0]);
    assert!(client.resource("app=none", None).unwrap_err().starts_with("no metrics returned"));

    let rate = "http_requests_per_second";
    let requests = pyrometer.server.wait_for("rates of three pods", |_| {
        client.pods(rate, "app=web").ok().map(|values| plain(&values)).filter(|values| values.len() == 3)
    });
    // Scrapes are not at even distances, and so rates are not exact.
    assert!(requests.iter().all(|value| (8_000..=12_000).contains(value)), "{requests:?}");
    let value = client.object(&format!("services/web/{rate}")).unwrap();
    assert!((24_000..=36_000).contains(&value), "{value}");
    assert_eq!(client.object("metrics/queue_depth").unwrap(), 12_500);
    assert_eq!(client.object("pods/web-n1-0/queue_depth").unwrap(), 12_500);
    assert_eq!(client.external("queue_messages", "queue in (a,b)").unwrap(), 37_000);
    assert_eq!(client.external("queue_messages", "queue=a").unwrap(), 30_000);

    // What is not there is an error that says why; it is never 0.
    for (outcome, expected) in [
        (client.object("pods/web-n1-0/ratio"), "its value is NaN"),
        (client.object("pods/web-n1-2/queue_depth"), "series queue_depth exist, but none with"),
        (client.object("pods/web-n1-0/nothing"), "no rule makes it"),
        (client.external("queue_messages", "queue=z"), "none with queue=\"z\""),
    ] {
        let message = outcome.unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
    cluster.stop();
}

/// A workload whose replicas share a load, in units of what one replica is to bear: 300m of CPU in container `main`, 10
/// requests a second and 5 messages of a queue.
struct Workload<'a> {
    cluster: &'a Cluster,
    kubelets: Kubelets,
    client: Client<'a>,
    /// As the controller's watch shows them.
    pods: Vec<Pod>,
    load: f64,
}

impl Workload<'_> {
    fn share(&self) -> f64 {
        self.load / self.pods.len() as f64
    }

    fn set_load(&mut self, load: f64) {
        self.load = load;
        let share = self.share();
        let mut contents = self.kubelets.contents();
        contents.queues.insert("jobs".to_owned(), 5.0 * load);
        contents.pods.values_mut().for_each(|pod| pod.set_load(0.3 * share, 10.0 * share));
    }

    fn key(at: usize) -> (String, String) {
        (if at.is_multiple_of(2) { "n1" } else { "n2" }.to_owned(), format!("hpa-{at}"))
    }

    /// As the controllers of a deployment do, with pods that are not ready yet.
    fn scale(&mut self, replicas: usize) {
        let world = &self.cluster.fake.world;
        for at in replicas..self.pods.len() {
            let (node, name) = Self::key(at);
            world.delete("pods", &format!("default/{name}"));
            self.kubelets.contents().pods.remove(&(node, name));
        }
        self.pods.truncate(replicas);
        for at in self.pods.len()..replicas {
            let (node, name) = Self::key(at);
            let pod = kubelets::Pod::new(&[("main", 0.0), ("side", 0.0)], 0.0);
            world.put(
                "pods",
                json!({
                    "metadata": {"namespace": "default", "name": name, "labels": {"app": "hpa"}},
                    "spec": {"nodeName": node, "containers": [{"name": "main"}, {"name": "side"}]},
                    "status": {"phase": "Running"},
                }),
            );
            self.pods.push(Pod {
                name: name.clone(),
                phase: Phase::Running,
                deleted: false,
                started_ms: Some(pod.started_ms),
                ready: Some((false, pod.started_ms)),
                requests: vec![("main", Some(500)), ("side", Some(100))],
            });
            self.kubelets.contents().pods.insert((node, name), pod);
        }
        self.set_load(self.load);
    }

    fn set_ready(&mut self) {
        let now = now_ms();
        self.pods.iter_mut().filter(|pod| matches!(pod.ready, Some((false, _)))).for_each(|pod| {
            pod.ready = Some((true, now));
        });
    }

    fn show(&self, at: usize, shown: bool) {
        self.kubelets.contents().pods.get_mut(&Self::key(at)).unwrap().shown = shown;
    }

    /// What each of the five kinds of metric asks for.
    fn asked(&self, now: i64) -> Vec<Result<i64, String>> {
        let (pods, current) = (&self.pods, i64::try_from(self.pods.len()).unwrap());
        let by = |values: Result<Values, String>, target| by_pods(pods, &values?, (target, current), now);
        let rate = "http_requests_per_second";
        vec![
            by(self.client.resource("app=hpa", None), Target::Utilisation(50, None)),
            by(self.client.resource("app=hpa", Some("main")), Target::Utilisation(60, Some("main"))),
            by(self.client.pods(rate, "app=hpa"), Target::Average(10_000, false)),
            self.client.object(&format!("services/web/{rate}")).map(|it| by_share(it, 10_000, current)),
            self.client.external("queue_messages", "queue=jobs").map(|it| by_share(it, 5_000, current)),
        ]
    }

    fn wait_for(&self, expected: [i64; 5]) {
        let mut last = Vec::new();
        let expected = expected.map(Ok::<i64, String>);
        let deadline = std::time::Instant::now() + PATIENCE;
        while last != expected {
            assert!(
                std::time::Instant::now() < deadline,
                "waited for {expected:?}, in the end it is {last:?}"
            );
            std::thread::sleep(std::time::Duration::from_millis(200));
            last = self.asked(now_ms());
        }
    }

    fn cpu_groups(&self) -> controller::Groups {
        let values = self.client.resource("app=hpa", None).unwrap_or_default();
        controller::group(&self.pods, &values, true, now_ms())
    }
}

#[test]
fn replicas_follow_the_load_by_all_five_kinds_of_metric() {
    if !installed("openssl") {
        return;
    }
    let cluster = Cluster::start();
    cluster.fake.world.permit(HPA);
    let kubelets = cluster.run(Kubelets::start());
    let config = kubelets.config(&["n1", "n2"], "900ms");
    let pyrometer = cluster.pyrometer_of("p", (&config, RULES), &[]);
    let client = Client(&pyrometer);
    let mut workload = Workload { cluster: &cluster, kubelets, client, pods: Vec::new(), load: 2.0 };
    workload.scale(2);
    workload.pods.iter_mut().for_each(|pod| (pod.started_ms, pod.ready) = (Some(0), Some((true, 0))));
    let mut scaler = Autoscaler::new(2, (1, 10));
    workload.wait_for([2; 5]);

    // 2.3 times the load: 4.6 replicas. New ones are not ready, and of one the kubelet does not tell.
    workload.set_load(4.6);
    workload.wait_for([5; 5]);
    assert_eq!(scaler.step(5, now_ms()), 5);
    workload.scale(5);
    workload.show(4, false);

    // CPU: 86 % of what two request, and 34 % if three more do nothing, so it is not known to be too much. Requests: four
    // pods have 17.2 of 10 each, and the one without a value none, which makes 6.9. Messages: 43, of 5 each.
    workload.set_load(8.6);
    workload.wait_for([5, 5, 7, 7, 9]);
    pyrometer.server.wait_for("two that are not ready", |_| {
        let groups = workload.cpu_groups();
        (groups.counted.len() == 2 && groups.unready.len() == 2 && groups.missing == ["hpa-4"]).then_some(())
    });
    assert_eq!(workload.asked(now_ms())[..2], [5; 2].map(Ok::<i64, String>));

    // Once ready their CPU counts, though only from a window on that begins when they were. The one without a value is at
    // 100 % where less is used than wanted: 56 of 50 %, which turns the direction. Its requests are not in the sum.
    workload.set_ready();
    workload.set_load(4.6);
    pyrometer.server.wait_for("four that count", |_| {
        let groups = workload.cpu_groups();
        (groups.counted.len() == 4 && groups.missing.len() == 1).then_some(())
    });
    workload.wait_for([5, 5, 5, 4, 5]);
    let begun = now_ms();
    let asked = scaler.together(&workload.asked(begun)).unwrap();
    assert_eq!(scaler.step(asked, begun), 5);

    // Less to do: 1.7 replicas. A metric that cannot be had keeps all of them.
    workload.show(4, true);
    workload.set_load(1.7);
    workload.wait_for([2; 5]);
    workload.kubelets.contents().queues.clear();
    let broken = pyrometer
        .server
        .wait_for("no messages", |_| Some(workload.asked(now_ms())).filter(|asked| asked[4].is_err()));
    assert!(scaler.together(&broken).is_err(), "{broken:?}");
    workload.set_load(1.7);
    workload.wait_for([2; 5]);

    // For five minutes the most that was asked for counts.
    let asked = scaler.together(&workload.asked(now_ms())).unwrap();
    for second in [100, 200, 299] {
        assert_eq!(scaler.step(asked, begun + second * 1000), 5, "{second} s later");
    }
    let later = begun + 301_000;
    assert_eq!(workload.asked(later), [2; 5].map(Ok::<i64, String>), "they have run for five minutes");
    assert_eq!(scaler.step(asked, later), 2);
    workload.scale(2);
    workload.wait_for([2; 5]);
    cluster.stop();
}

#[test]
fn one_scrape_is_one_truth_and_two_replicas_agree() {
    if !installed("openssl") {
        return;
    }
    let cluster = Cluster::start();
    let replicas = [cluster.pyrometer("a", &[]), cluster.pyrometer("b", &[])];
    for replica in &replicas {
        replica.wait_until_ready();
        let list = replica.wait_for("/apis/metrics.k8s.io/v1beta1/pods", |list| {
            list["items"].as_array().unwrap().len() == 6
        });
        for pod in list["items"].as_array().unwrap() {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let at: u32 = name[name.len() - 1..].parse().unwrap();
            for (container, (expected, used)) in
                pod["containers"].as_array().unwrap().iter().zip(millicores(at))
            {
                assert_eq!(container["name"], expected);
                let cpu = milli(container["usage"]["cpu"].as_str().unwrap());
                assert!((cpu - used).abs() <= 1, "{name} {expected}: {cpu}");
                let memory = milli(container["usage"]["memory"].as_str().unwrap());
                assert_eq!(memory, i64::try_from(MEMORY * 1000).unwrap());
            }
            // The same by a rule over the same series, and by the query itself.
            let path =
                format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/{name}/cpu_cores");
            let used: i64 = millicores(at).iter().map(|(_, used)| used).sum();
            let (_, custom) = replica.get(&path);
            let value = milli(custom["items"][0]["value"].as_str().unwrap());
            assert!((value - used).abs() <= 1, "{custom}");
            let query = format!(
                "sum(irate(container_cpu_usage_seconds_total{{pod=\"{name}\",metrics_path=\"/metrics/resource\"}}[2m]))"
            );
            let rows = replica.server.query(&query);
            let stated: f64 = rows[0]["value"][1].as_str().unwrap().parse().unwrap();
            assert!((stated * 1000.0 - used as f64).abs() < 1e-3, "{name}: {stated}");
        }
    }
    let names = |replica: &Secured, path: &str| {
        let (_, list) = replica.get(path);
        let items = list["resources"].as_array().or(list["items"].as_array()).unwrap().clone();
        items
            .iter()
            .map(
                |it| if it["name"].is_string() { it["name"].clone() } else { it["metadata"]["name"].clone() },
            )
            .collect::<Vec<_>>()
    };
    for path in [
        "/apis/custom.metrics.k8s.io/v1beta2",
        "/apis/external.metrics.k8s.io/v1beta1",
        "/apis/metrics.k8s.io/v1beta1/nodes",
    ] {
        let of = |replica| {
            replicas[0]
                .server
                .wait_for(path, |_| Some(names(replica, path)).filter(|names| !names.is_empty()))
        };
        assert_eq!(of(&replicas[0]), of(&replicas[1]), "{path}");
    }
    let (_, node) = replicas[0].get("/apis/metrics.k8s.io/v1beta1/nodes/n1");
    assert_eq!(node["usage"]["memory"], json!("4000001000"));
    cluster.stop();
}
