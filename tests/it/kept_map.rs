//! The slot map of a cluster: routers make and change it by themselves, with real processes and a small API server.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use model::Labels;
use serde_json::{Value, json};

use crate::cluster::fake::Fake;
use crate::process::{Server, command, get};

const PATIENCE: Duration = Duration::from_secs(40);

struct Cell {
    dir: tempfile::TempDir,
    kubeconfig: String,
    fake: Fake,
    /// Runs the API server.
    runtime: tokio::runtime::Runtime,
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Cell {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let fake = runtime.block_on(Fake::start());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: '{}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n",
            fake.server()
        );
        std::fs::write(&path, text).unwrap();
        Self { dir, kubeconfig: path.display().to_string(), fake, runtime }
    }

    /// Says that a pod is behind a service.
    fn put(&self, service: &str, pod: &str, address: &str, ready: bool) {
        self.say(service, pod, address, &json!({"ready": ready}));
    }

    /// Says that a pod of a service is in this condition.
    fn say(&self, service: &str, pod: &str, address: &str, conditions: &Value) {
        let (host, port) = address.rsplit_once(':').unwrap();
        let labels = json!({"kubernetes.io/service-name": service});
        self.fake.world.put("endpointslices", json!({
            "metadata": {"namespace": "n", "name": format!("{service}-{pod}"), "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "grpc", "port": 1}, {"name": "http", "port": port.parse::<u16>().unwrap()}],
            "endpoints": [{
                "addresses": [host],
                "conditions": conditions,
                "targetRef": {"kind": "Pod", "namespace": "n", "name": pod},
            }],
        }));
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn shard(&self, name: &str, address: &str) -> Server {
        Server::start_at(address, &self.dir(name), &["--kubernetes=off", "--role=shard"])
    }

    fn among(&self, name: &str, address: &str, flags: &[&str]) -> Server {
        let own = ["--kubernetes=kubeconfig", "--cluster.slot-map-object=n/slots"];
        let flags: Vec<&str> = own.iter().chain(flags).copied().collect();
        Server::launch(address, &self.dir(name), &flags, &[("KUBECONFIG", &self.kubeconfig)])
    }

    fn router(&self, name: &str, address: &str) -> Server {
        let named = format!("--router.name={name}");
        let flags = [
            "--role=router",
            "--cluster.shard-service=shards",
            "--cluster.router-service=routers",
            "--cluster.shards-min=2",
            &named,
        ];
        self.among(name, address, &flags)
    }

    /// `pyrometer slots`, as an operator would run it.
    fn slots(&self, arguments: &[&str]) -> String {
        let output =
            command().env("KUBECONFIG", &self.kubeconfig).arg("slots").args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.slots(&["show", "configmap:n/slots"]);
            if holds(&shown) {
                return shown;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}: {shown}");
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

fn post(url: &str, number: usize) -> u16 {
    let labels = Labels::from_pairs([("__name__", "x"), ("number", &number.to_string())]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let now = i64::try_from(now).unwrap();
    let address = url.strip_prefix("http://").unwrap();
    crate::shards::post(address, &remote::send::request([(labels, now, 1.0)])).unwrap().0
}

fn counted(querier: &Server) -> (Value, Value) {
    let answer = querier.json("/api/v1/query?query=count(x)");
    (answer["data"]["result"][0]["value"][1].clone(), answer["warnings"].clone())
}

#[test]
fn routers_keep_the_slot_map_of_a_cluster() {
    let cell = Cell::start();
    let addresses: Vec<String> = (0..3).map(|_| free_address()).collect();
    let _shards: Vec<Server> = (0..3).map(|at| cell.shard(&format!("s-{at}"), &addresses[at])).collect();
    let places = [free_address(), free_address()];
    cell.put("shards", "s-0", &addresses[0], true);
    cell.put("shards", "s-1", &addresses[1], false);
    cell.put("routers", "r-0", &places[0], false);
    cell.put("routers", "r-1", &places[1], false);
    // The router waits for its map, and makes it when the second shard is ready.
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| cell.router("r-0", &places[0]));
        std::thread::sleep(Duration::from_secs(3));
        let none = cell.slots(&["show", "configmap:n/slots"]);
        assert!(none.contains("there is no slot map in it"), "{none}");
        cell.put("shards", "s-1", &addresses[1], true);
        let first = starting.join().unwrap();
        let shown = cell.slots(&["show", "configmap:n/slots"]);
        assert!(shown.contains("epoch 1, replication 1\n"), "{shown}");
        assert!(shown.contains(&format!("s-1 http://{}: 8192 slots", addresses[1])), "{shown}");

        let second = cell.router("r-1", &places[1]);
        let querier = cell.among("q", "127.0.0.1:0", &["--role=querier"]);
        for number in 0..20 {
            assert_eq!(post(if number % 2 == 0 { &first.url } else { &second.url }, number), 204);
        }
        assert_eq!(counted(&querier), (json!("20"), Value::Null));

        // A new shard gets its part; everything is there meanwhile, and operators use the same map.
        cell.put("shards", "s-2", &addresses[2], true);
        let moving = cell.until("a third shard", |shown| shown.contains("s-2 http://"));
        assert!(moving.contains("epoch 2, replication 1, slots are moving"), "{moving}");
        let early = cell.slots(&["finish", "configmap:n/slots"]);
        let reasons =
            ["could still be from before", "not yet by", "can be taken from the leaving shard from"];
        assert!(reasons.iter().any(|reason| early.contains(reason)), "{early}");
        (20..40).for_each(|number| assert_eq!(post(&second.url, number), 204));
        assert_eq!(counted(&querier), (json!("40"), Value::Null));

        // The keeper dies; the other one takes over, and sees that a shard has moved.
        first.kill();
        let elsewhere = free_address();
        cell.put("shards", "s-2", &elsewhere, true);
        let moved = cell.until("the new address", |shown| shown.contains(&elsewhere));
        assert!(moved.contains("epoch 3"), "{moved}");
        // Whoever is started now begins with the map that it finds, also where the API server is away.
        assert_eq!(get(&format!("{}/-/ready", second.url), &[]).0, 200);
    });
    cell.runtime.shutdown_timeout(Duration::from_millis(100));
}

/// The map in the config map.
fn map_of(cell: &Cell) -> Option<Value> {
    let object = cell.fake.world.object("configmaps", "n/slots")?;
    serde_json::from_str(object["data"]["slot-map.json"].as_str()?).ok()
}

fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_map_that_is_deleted_is_put_back_and_a_router_that_ends_leaves_it() {
    let cell = Cell::start();
    let addresses: Vec<String> = (0..2).map(|_| free_address()).collect();
    let shards: Vec<Server> = (0..2).map(|at| cell.shard(&format!("s-{at}"), &addresses[at])).collect();
    let places: Vec<String> = (0..2).map(|_| free_address()).collect();
    for at in 0..2 {
        cell.put("shards", &format!("s-{at}"), &addresses[at], true);
        cell.put("routers", &format!("r-{at}"), &places[at], true);
    }
    let (first, second) = (cell.router("r-0", &places[0]), cell.router("r-1", &places[1]));
    let querier = cell.among("q", "127.0.0.1:0", &["--role=querier"]);
    (0..20).for_each(|number| assert_eq!(post(&second.url, number), 204));
    assert_eq!(counted(&querier), (json!("20"), Value::Null));
    let map = map_of(&cell).unwrap();
    assert_eq!(map["epoch"], 1);

    // It comes back as it was, with a number that everybody takes.
    cell.fake.world.delete("configmaps", "n/slots");
    let restored = eventually("the map to be put back", || map_of(&cell));
    assert_eq!((&restored["epoch"], &restored["slots"]), (&json!(2), &map["slots"]));

    // One that somebody puts in its place counts, though its number is smaller.
    let mut object = cell.fake.world.object("configmaps", "n/slots").unwrap();
    let mut other = map.clone();
    other["slots"][0]["holders"][0]["from"] = json!(5);
    object["data"]["slot-map.json"] = json!(other.to_string());
    cell.fake.world.put("configmaps", object);
    let lifted = eventually("the map to be lifted", || map_of(&cell).filter(|map| map["epoch"] == 3));
    assert_eq!(lifted["slots"], other["slots"]);
    eventually("a router to know it", || {
        let (_, told) = get(&format!("{}/api/v1/router/backlog", second.url), &[]);
        told.contains("\"epoch\":3").then_some(())
    });
    (20..40).for_each(|number| assert_eq!(post(&second.url, number), 204));

    // A router that ends holds nothing: nobody misses it, and it is back in the map before it takes anything.
    cell.say("routers", "r-1", &places[1], &json!({"ready": false, "serving": true, "terminating": true}));
    assert_eq!(second.interrupt(), Some(0));
    let left = map_of(&cell).unwrap();
    assert_eq!((left["epoch"].as_u64(), left["routers"].as_array().unwrap().len()), (Some(4), 1), "{left}");
    eventually("answers without a warning", || {
        (counted(&querier) == (json!("40"), Value::Null)).then_some(())
    });
    cell.put("routers", "r-1", &places[1], false);
    let second = cell.router("r-1", &places[1]);
    assert_eq!(map_of(&cell).unwrap()["routers"].as_array().unwrap().len(), 2);
    assert_eq!(post(&second.url, 40), 204);
    assert_eq!(counted(&querier), (json!("41"), Value::Null));

    // One that holds samples stays in it.
    let mut shards = shards.into_iter();
    shards.next().unwrap().kill();
    (40..60).for_each(|number| assert_eq!(post(&second.url, number), 204));
    assert_eq!(second.interrupt(), Some(0));
    assert_eq!(map_of(&cell).unwrap()["routers"].as_array().unwrap().len(), 2);
    let warnings = counted(&querier).1.to_string();
    assert!(warnings.contains("router r-1 does not answer"), "{warnings}");
    drop(first);
    cell.runtime.shutdown_timeout(Duration::from_millis(100));
}
