//! What is kept of one list for the next one, names and labels, never shows in an answer.
#![allow(clippy::unwrap_used, reason = "a test ends where its assumptions do")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use metrics_api::{NodeInfo, PodInfo, Source, State, Unavailable, router};
use model::{Querier, Timestamp};
use proptest::prelude::*;
use tower::ServiceExt as _;

#[expect(dead_code, reason = "other tests use more of it")]
mod store;

use store::Series;

const NOW: Timestamp = 1_795_236_760_000;

#[derive(Default)]
struct Moment {
    series: Series,
    pods: Vec<PodInfo>,
    revision: u64,
}

#[derive(Default)]
struct World(Mutex<Moment>);

impl Source for World {
    fn querier(&self) -> Result<Box<dyn Querier>, Unavailable> {
        Ok(Box::new(self.0.lock().unwrap().series.clone()))
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        Vec::new()
    }

    fn pods(&self) -> Vec<PodInfo> {
        self.0.lock().unwrap().pods.clone()
    }

    fn pods_revision(&self) -> Option<u64> {
        Some(self.0.lock().unwrap().revision)
    }

    fn now(&self) -> Timestamp {
        NOW
    }
}

/// A container by the numbers of its pod and itself: whether it has two points of CPU, ended, started lately, and on how
/// many nodes it is.
type Container = ((u8, u8), (bool, bool, bool, bool));

impl World {
    fn become_one_of(&self, containers: &[Container], labels: u8) {
        let mut moment = self.0.lock().unwrap();
        moment.series = Series::default();
        let mut pods = BTreeSet::new();
        for ((pod, container), (complete, ended, fresh, moved)) in containers {
            pods.insert(*pod);
            let (pod, container) = (format!("p{pod}"), format!("c{container}"));
            let name = [("namespace", "ns"), ("pod", pod.as_str()), ("container", container.as_str())];
            let last = if *ended { model::stale_nan() } else { 60.0 };
            let before = complete.then_some((NOW - 20_000, 30.0));
            let points: Vec<_> = before.into_iter().chain([(NOW - 5_000, last)]).collect();
            let mut put = |metric, node, points: &[(Timestamp, f64)]| {
                let labels: Vec<_> = name.into_iter().chain([("__name__", metric), ("node", node)]).collect();
                moment.series.add(&labels, points);
            };
            put("container_cpu_usage_seconds_total", "n", &points);
            put("container_memory_working_set_bytes", "n", &[(NOW - 5_000, 4096.0)]);
            if *fresh {
                let started = (NOW - 50_000) as f64 / 1000.0;
                put("container_start_time_seconds", "n", &[(NOW - 5_000, started)]);
            }
            if *moved {
                put("container_cpu_usage_seconds_total", "m", &[(NOW - 60_000, 1.0), (NOW - 40_000, 2.0)]);
                put("container_memory_working_set_bytes", "m", &[(NOW - 40_000, 1.0)]);
            }
        }
        let labels = BTreeMap::from([("version".to_owned(), labels.to_string())]);
        let info = |pod: &u8| PodInfo {
            namespace: "ns".to_owned(),
            name: format!("p{pod}"),
            labels: labels.clone(),
            ..PodInfo::default()
        };
        let pods: Vec<PodInfo> = pods.iter().map(info).collect();
        if pods != moment.pods {
            moment.revision += 1;
            moment.pods = pods;
        }
    }
}

fn list(state: &State, path: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let request =
            Request::get(format!("/apis/metrics.k8s.io/v1beta1/{path}")).body(Body::empty()).unwrap();
        let answer = router(state.clone()).oneshot(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_server_that_has_answered_before_answers_as_one_that_has_not(
        moments in prop::collection::vec(
            (prop::collection::btree_map((0..12_u8, 0..4_u8), any::<(bool, bool, bool, bool)>(), 0..40), 0..2_u8),
            1..6,
        ),
    ) {
        let world = Arc::new(World::default());
        let kept = State::new(Arc::<World>::clone(&world));
        for (containers, labels) in moments {
            let containers: Vec<Container> = containers.into_iter().collect();
            world.become_one_of(&containers, labels);
            // Twice: a lane is known after the first, and used at the second.
            for _ in 0..2 {
                let fresh = State::new(Arc::<World>::clone(&world));
                prop_assert_eq!(list(&kept, "pods"), list(&fresh, "pods"));
            }
            let whole = list(&kept, "pods");
            prop_assert_eq!(list(&kept, "namespaces/ns/pods"), whole);
        }
    }
}
