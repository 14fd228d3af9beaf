//! A scripted autoscaler: the requests of the controller, and what it decides by their answers.

use serde_json::{Value, json};

use crate::cluster::{Cluster, MEMORY, Secured, millicores};
use crate::process::{escape, installed};

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

/// The controller's client, through the front proxy.
struct Controller<'a>(&'a Secured);

impl Controller<'_> {
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

    /// CPU of each pod in thousandths: the sum over its containers.
    fn resource(&self, selector: &str) -> Result<Vec<i64>, String> {
        let path = format!(
            "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector={}",
            escape(selector)
        );
        let list = self.get(&path)?;
        let items = list["items"].as_array().unwrap();
        if items.is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        Ok(items
            .iter()
            .map(|pod| {
                pod["containers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|c| milli(c["usage"]["cpu"].as_str().unwrap()))
                    .sum()
            })
            .collect())
    }

    fn pods(&self, metric: &str, selector: &str) -> Result<Vec<i64>, String> {
        let root = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/%2A";
        let list = self.get(&format!("{root}/{metric}?labelSelector={}", escape(selector)))?;
        Ok(list["items"].as_array().unwrap().iter().map(|it| milli(it["value"].as_str().unwrap())).collect())
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

/// How many replicas the controller wants of `replicas` ready ones of which `values` have a value: missing pods count as at
/// their target when there is less to do, and as idle when there is more; if that turns the direction, nothing changes.
fn wanted(values: &[i64], target: i64, replicas: i64) -> i64 {
    let ratio = |sum: i64, count: i64| sum as f64 / (count * target) as f64;
    let have = i64::try_from(values.len()).unwrap();
    let sum: i64 = values.iter().sum();
    let first = ratio(sum, have);
    let missing = replicas - have;
    let with = if missing == 0 {
        first
    } else if first < 1.0 {
        ratio(sum + missing * target, replicas)
    } else {
        ratio(sum, replicas)
    };
    if (with - 1.0).abs() <= 0.1 || (first < 1.0) != (with < 1.0) {
        return replicas;
    }
    let exact = with * replicas as f64;
    (0..1_000).find(|count| *count as f64 >= exact).unwrap()
}

#[test]
fn all_five_kinds_of_metric_and_what_is_decided_by_them() {
    if !installed("openssl") {
        return;
    }
    let cluster = Cluster::start();
    cluster.fake.world.permit(HPA);
    let pyrometer = cluster.pyrometer("p", &[]);
    pyrometer.wait_until_ready();
    pyrometer
        .wait_for("/apis/metrics.k8s.io/v1beta1/pods", |list| list["items"].as_array().unwrap().len() == 6);
    let controller = Controller(&pyrometer);
    // Pods 0 and 1 of each node, 250m and 500m.
    let cpu = controller.resource("app=web").unwrap();
    assert_eq!(cpu, [250, 500, 250, 500]);
    assert_eq!(wanted(&cpu, 150, 4), 10, "375m on average for 150m");
    assert_eq!(wanted(&cpu, 375, 4), 4);
    assert_eq!(wanted(&cpu, 1500, 4), 1);
    assert!(controller.resource("app=none").unwrap_err().starts_with("no metrics returned"));

    let rate = "http_requests_per_second";
    let requests = pyrometer.server.wait_for("rates of three pods", |_| {
        controller.pods(rate, "app=web").ok().filter(|values| values.len() == 3)
    });
    // Scrapes are not at even distances, and so rates are not exact.
    assert!(requests.iter().all(|value| (8_000..=12_000).contains(value)), "{requests:?}");
    // One of four pods has no value: half the load would halve the replicas, but the missing one counts as at its target.
    let exact = [10_000; 3];
    assert_eq!(wanted(&exact, 20_000, 4), 3);
    assert_eq!(wanted(&exact, 20_000, 3), 2);
    assert_eq!(wanted(&exact, 9_000, 4), 4, "with the missing one as idle it is no more than now");
    let value = controller.object(&format!("services/web/{rate}")).unwrap();
    assert!((24_000..=36_000).contains(&value), "{value}");
    assert_eq!(controller.object("metrics/queue_depth").unwrap(), 12_500);
    assert_eq!(controller.object("pods/web-n1-0/queue_depth").unwrap(), 12_500);
    assert_eq!(controller.external("queue_messages", "queue in (a,b)").unwrap(), 37_000);
    assert_eq!(controller.external("queue_messages", "queue=a").unwrap(), 30_000);

    // What is not there is an error that says why; it is never 0.
    for (outcome, expected) in [
        (controller.object("pods/web-n1-0/ratio"), "its value is NaN"),
        (controller.object("pods/web-n1-2/queue_depth"), "series queue_depth exist, but none with"),
        (controller.object("pods/web-n1-0/nothing"), "no rule makes it"),
        (controller.external("queue_messages", "queue=z"), "none with queue=\"z\""),
    ] {
        let message = outcome.unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
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
