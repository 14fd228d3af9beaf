//! Pairs of writers that send the same: one of each pair is listened to.
//!
//! A writer of a pair (two Prometheus servers that scrape the same targets) says who it is with the labels
//! `cluster` and `__replica__`. The first replica of a cluster that is heard is listened to; another one
//! only when the first has been silent for 30 seconds. What the others send is left out and counts as
//! written, and `__replica__` does not reach the shards.
//!
//! What is elected is known to this router alone and forgotten at its end; the pairs of one cluster should write
//! to the same router, or both routers will elect for themselves.

use hashbrown::HashMap;
use model::Timestamp;
use parking_lot::Mutex;

/// Another replica is listened to after so long a silence.
const SILENCE_MS: i64 = 30_000;

/// More clusters than this are not kept apart: their samples are all taken.
const CLUSTERS_MAX: usize = 10_000;

struct Elected {
    replica: String,
    heard: Timestamp,
}

/// Who is listened to.
#[derive(Default)]
pub(super) struct Pairs(Mutex<HashMap<String, Elected>>);

impl Pairs {
    /// Whether the samples of a replica are wanted now.
    pub(super) fn elect(&self, cluster: &str, replica: &str, now: Timestamp) -> bool {
        let mut all = self.0.lock();
        if let Some(elected) = all.get_mut(cluster) {
            if elected.replica == replica {
                elected.heard = now;
                return true;
            }
            if now.saturating_sub(elected.heard) <= SILENCE_MS {
                return false;
            }
            tracing::info!(cluster, from = elected.replica, to = replica, "another replica is listened to");
            *elected = Elected { replica: replica.to_owned(), heard: now };
            return true;
        }
        if all.len() < CLUSTERS_MAX {
            all.insert(cluster.to_owned(), Elected { replica: replica.to_owned(), heard: now });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_listened_to_until_it_is_silent() {
        let pairs = Pairs::default();
        assert!(pairs.elect("c", "a", 0));
        assert!(!pairs.elect("c", "b", 10_000));
        assert!(pairs.elect("d", "b", 10_000));
        assert!(pairs.elect("c", "a", 20_000));
        assert!(!pairs.elect("c", "b", 50_000));
        assert!(pairs.elect("c", "b", 50_001));
        assert!(!pairs.elect("c", "a", 50_002));
    }
}
