//! Answers that are good for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A map whose entries are forgotten after a time, and all of them if they are too many.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    entries: Mutex<HashMap<K, (Instant, V)>>,
    age_max: Duration,
    entries_max: usize,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub(crate) fn new(age_max: Duration, entries_max: usize) -> Self {
        Self { entries: Mutex::default(), age_max, entries_max }
    }

    pub(crate) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, value) = entries.get(key)?;
        (now.saturating_duration_since(*since) < self.age_max).then(|| value.clone())
    }

    pub(crate) fn put(&self, key: K, value: V, now: Instant) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.entries_max {
            entries.retain(|_, (since, _)| now.saturating_duration_since(*since) < self.age_max);
            if entries.len() >= self.entries_max {
                entries.clear();
            }
        }
        entries.insert(key, (now, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_age_and_are_few() {
        let cache = Cache::new(Duration::from_secs(10), 2);
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        cache.put(1, 'a', at(0));
        assert_eq!(cache.get(&1, at(9)), Some('a'));
        cache.put(2, 'b', at(9));
        assert_eq!((cache.get(&1, at(10)), cache.get(&2, at(10))), (None, Some('b')));
        cache.put(3, 'c', at(10));
        assert_eq!((cache.get(&2, at(10)), cache.get(&3, at(10))), (Some('b'), Some('c')));
        cache.put(4, 'd', at(10));
        let left = [2, 3, 4].map(|key| cache.get(&key, at(10)));
        assert_eq!(left, [None, None, Some('d')]);
    }
}
