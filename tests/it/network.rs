//! A cell whose processes are hosts of a network of their own: each in a network namespace, all on one bridge. Cables
//! are pulled and routes lead nowhere, so that connections are neither closed nor refused: packets vanish.
//!
//! Needs the rights to make namespaces, and `ip`. Nothing leaves the machine: the bridge has no other member, and its
//! addresses are those that are set aside for tests of networks (RFC 2544).

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::process::{output, run};
use crate::shards::{Cell, Log, Process, Site, check, watch, write};

/// Any port will do on a host of one's own.
const PORT: u16 = 9090;

fn ip(arguments: &[&str]) -> String {
    run("ip", arguments)
}

/// A bridge with hosts on it. All of it goes when this is dropped.
struct Network {
    /// Unlike that of any other network of this machine.
    name: String,
    /// The first three numbers of its addresses.
    prefix: String,
    hosts: Vec<String>,
}

impl Network {
    /// `None` where none can be made; in CI that is a failure.
    fn new() -> Option<Self> {
        let id = std::process::id();
        let prefix = format!("198.{}.{}", 18 + id / 256 % 2, id % 256);
        let network = Self { name: format!("pyro{id}"), prefix, hosts: Vec::new() };
        let made = Command::new("ip").args(["link", "add", &network.bridge(), "type", "bridge"]).output();
        let refusal = match made {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(refusal) = refusal {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "no network can be made: {refusal}");
            eprintln!("SKIPPED: no network can be made: {refusal}");
            return None;
        }
        ip(&["address", "add", &format!("{}.1/24", network.prefix), "dev", &network.bridge()]);
        ip(&["link", "set", &network.bridge(), "up"]);
        Some(network)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.name)
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// The end of a host's cable that is plugged into the bridge.
    fn plug(&self, host: &str) -> String {
        format!("{}{host}", self.name)
    }

    fn address(&self, host: &str) -> String {
        let at = self.hosts.iter().position(|other| other == host).unwrap();
        format!("{}.{}", self.prefix, at + 2)
    }

    fn add(&mut self, host: &str) -> Site {
        self.hosts.push(host.to_owned());
        let (namespace, plug) = (self.namespace(host), self.plug(host));
        ip(&["netns", "add", &namespace]);
        ip(&["link", "add", &plug, "type", "veth", "peer", "name", "eth0", "netns", &namespace]);
        ip(&["link", "set", &plug, "master", &self.bridge(), "up"]);
        let address = self.address(host);
        ip(&["-n", &namespace, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
        for device in ["lo", "eth0"] {
            ip(&["-n", &namespace, "link", "set", device, "up"]);
        }
        Site { address: format!("{address}:{PORT}"), namespace: Some(namespace) }
    }

    /// Pulls a host's cable, or plugs it in again.
    fn plug_in(&self, host: &str, is_in: bool) {
        ip(&["link", "set", &self.plug(host), if is_in { "up" } else { "down" }]);
    }

    /// What one host sends to another vanishes, or no longer does. The other's packets arrive.
    fn swallow(&self, from: &str, to: &str, is_swallowed: bool) {
        let (namespace, verb) = (self.namespace(from), if is_swallowed { "add" } else { "del" });
        ip(&["-n", &namespace, "route", verb, "blackhole", &format!("{}/32", self.address(to))]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in &self.hosts {
            // The cable goes with the host.
            output("ip", &["netns", "del", &self.namespace(host)]);
        }
        output("ip", &["link", "del", &self.bridge()]);
    }
}

#[test]
fn hosts_that_cannot_reach_each_other_lose_nothing_and_have_nothing_twice() {
    let Some(mut network) = Network::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let cell = Cell::start_at(dir.path(), (3, 2, 2), &[], (&mut |host| network.add(host), &mut Process::url));
    let (log, stop) = (Mutex::new(Log::default()), AtomicBool::new(false));
    let routers: Vec<String> = cell.routers.iter().map(|router| router.address.clone()).collect();
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| write(&routers, &log, &stop, 23));
        scope.spawn(|| {
            let wait = |ms| std::thread::sleep(Duration::from_millis(ms));
            wait(1_000);
            // A shard is cut off from everybody, for longer than a router waits for an answer.
            network.plug_in("s1", false);
            wait(2_500);
            network.plug_in("s1", true);
            wait(1_000);
            // One router cannot reach a shard that the other one reaches.
            network.swallow("r0", "s2", true);
            wait(2_000);
            network.swallow("r0", "s2", false);
            wait(800);
            // A shard hears its routers, and its answers vanish: what it took is sent again.
            network.swallow("s0", "r0", true);
            network.swallow("s0", "r1", true);
            wait(2_000);
            network.swallow("s0", "r0", false);
            network.swallow("s0", "r1", false);
            wait(800);
            // The querier sees one shard less than there are.
            network.swallow("q", "s1", true);
            wait(1_500);
            network.swallow("q", "s1", false);
        });
        let seen = watch(&cell, &log, Instant::now(), Duration::from_secs(14));
        stop.store(true, Ordering::Relaxed);
        seen
    });
    check(&cell, &log);
    println!("{} complete answers, {} with warnings", seen.0, seen.1);
    assert!(seen.0 > 5, "{seen:?}");
    drop(cell);
}
