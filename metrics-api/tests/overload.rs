//! Who asks while too many are asking is told to come back; probes are answered all the same, and what a client sends
//! besides its question is not read.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its assumptions do")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use k8s::{AccessRequest, User, Verdict};
use metrics_api::{Gatekeeper, Health, NodeInfo, PodInfo, Reviewer, Source, State, Unavailable, secured};
use model::{Querier, Timestamp};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

#[expect(dead_code, reason = "other tests use more of it")]
mod store;

struct Nothing;

impl Source for Nothing {
    fn querier(&self) -> Result<Box<dyn Querier>, Unavailable> {
        Ok(Box::new(store::Series::default()))
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        Vec::new()
    }

    fn pods(&self) -> Vec<PodInfo> {
        Vec::new()
    }

    fn now(&self) -> Timestamp {
        0
    }
}

/// An API server that thinks as long as it is not told to go on.
struct Slow {
    asked: AtomicUsize,
    go_on: Semaphore,
}

impl Reviewer for Slow {
    fn token<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<User>, String>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let _held = self.go_on.acquire().await.unwrap();
            let groups = vec!["system:masters".to_owned()];
            Ok(Some(User { name: token.to_owned(), groups, ..User::default() }))
        })
    }

    fn access<'a>(&'a self, _: &'a User, _: &'a AccessRequest) -> BoxFuture<'a, Result<Verdict, String>> {
        Box::pin(async { panic!("masters may all") })
    }
}

fn asked(method: &str, path: &str, token: usize, body: Body) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request.header("Authorization", format!("Bearer t{token}")).body(body).unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn too_many_are_told_to_come_back_and_probes_are_not() {
    let slow = Arc::new(Slow { asked: AtomicUsize::new(0), go_on: Semaphore::new(0) });
    let keeper = Arc::new(Gatekeeper::new(Arc::<Slow>::clone(&slow), || 0));
    let router = secured(State::new(Arc::new(Nothing)), &Health::default(), keeper);
    let path = "/apis/metrics.k8s.io/v1beta1/nodes";
    let places = 200;
    let waiting: Vec<_> = (0..places)
        .map(|number| tokio::spawn(router.clone().oneshot(asked("GET", path, number, Body::empty()))))
        .collect();
    while slow.asked.load(Ordering::SeqCst) < places {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let one_more = router.clone().oneshot(asked("GET", path, places, Body::empty())).await.unwrap();
    assert_eq!(one_more.status(), 429);
    assert_eq!(one_more.headers()["retry-after"], "1");
    let body: serde_json::Value = serde_json::from_str(&text(one_more).await).unwrap();
    assert_eq!(
        (&body["kind"], &body["reason"], &body["details"]["retryAfterSeconds"]),
        (&"Status".into(), &"TooManyRequests".into(), &1.into())
    );
    for probe in ["/livez", "/readyz", "/healthz"] {
        let request = Request::get(probe).body(Body::empty()).unwrap();
        assert_eq!(router.clone().oneshot(request).await.unwrap().status(), 200, "{probe}");
    }
    // A client that has gone gives its place to another one.
    waiting[0].abort();
    slow.go_on.add_permits(places);
    for (number, one) in waiting.into_iter().enumerate().skip(1) {
        assert_eq!(one.await.unwrap().unwrap().status(), 200, "{number}");
    }
    let late = router.oneshot(asked("GET", path, places, Body::empty())).await.unwrap();
    assert_eq!(late.status(), 200);
}

#[tokio::test]
async fn bodies_are_not_read() {
    let slow = Arc::new(Slow { asked: AtomicUsize::new(0), go_on: Semaphore::new(9) });
    let keeper = Arc::new(Gatekeeper::new(slow, || 0));
    let router = secured(State::new(Arc::new(Nothing)), &Health::default(), keeper);
    for (method, path, status) in [
        ("GET", "/apis/metrics.k8s.io/v1beta1/nodes", 200),
        ("POST", "/apis/metrics.k8s.io/v1beta1/nodes", 405),
        ("POST", "/nowhere", 404),
        ("PUT", "/livez", 405),
    ] {
        let taken = Arc::new(AtomicUsize::new(0));
        let pieces = Arc::clone(&taken);
        // Without an end.
        let stream = futures::stream::repeat_with(move || {
            pieces.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(Bytes::from_static(&[0; 4096]))
        });
        let answer = router.clone().oneshot(asked(method, path, 1, Body::from_stream(stream))).await.unwrap();
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_eq!(taken.load(Ordering::SeqCst), 0, "{method} {path}");
    }
}
