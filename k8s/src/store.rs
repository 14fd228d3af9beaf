//! The objects of one kind, kept up to date by a watch.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::client::{Client, Object, Query};
use crate::mailbox::{Changed, Mailbox};
use crate::watch::{Change, follow};

/// A copy of all objects that fulfil a query. The copy is as old as the API server's last event; while it
/// cannot be reached the last known state stays.
#[derive(Debug)]
pub struct Store<T> {
    state: Mutex<State<T>>,
    is_synced: watch::Sender<bool>,
}

/// An object with the listing that last showed it: what a listing does not show is gone.
#[derive(Debug)]
struct Entry<T> {
    object: Arc<T>,
    listing: u32,
}

#[derive(Debug)]
struct State<T> {
    objects: HashMap<Arc<str>, Entry<T>>,
    listing: u32,
    revision: u64,
    subscribers: Vec<Weak<Mailbox<Arc<str>>>>,
}

impl<T: Object> Store<T> {
    pub(crate) fn start(client: Client, query: Query) -> Arc<Self> {
        let state = State { objects: HashMap::new(), listing: 0, revision: 0, subscribers: Vec::new() };
        let store = Arc::new(Self { state: Mutex::new(state), is_synced: watch::Sender::new(false) });
        let weak = Arc::downgrade(&store);
        tokio::spawn(async move {
            let gone = store_gone(Weak::clone(&weak));
            let sink = |change| match weak.upgrade() {
                Some(store) => store.apply(change),
                None => false,
            };
            tokio::select! {
                () = follow(client, query, sink) => {}
                () = gone => {}
            }
        });
        store
    }

    /// Waits for the first complete listing.
    pub async fn synced(&self) {
        let mut synced = self.is_synced.subscribe();
        // The sender lives as long as `self`.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Whether there has been a complete listing.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.is_synced.borrow()
    }

    /// The object of a key: `namespace/name`, or `name` for what belongs to the cluster.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Arc<T>> {
        self.state.lock().objects.get(key).map(|entry| Arc::clone(&entry.object))
    }

    /// All objects, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<T>> {
        self.state.lock().objects.values().map(|entry| Arc::clone(&entry.object)).collect()
    }

    /// The keys of all objects, in no order.
    #[must_use]
    pub fn keys(&self) -> Vec<Arc<str>> {
        self.state.lock().objects.keys().cloned().collect()
    }

    /// The number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().objects.len()
    }

    /// A number that changes whenever an object does.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.state.lock().revision
    }

    /// Whether there is no object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys of objects as they change from now on; those that are there are in it from the beginning.
    #[must_use]
    pub fn subscribe(&self) -> Arc<Mailbox<Arc<str>>> {
        let mailbox = Mailbox::new();
        self.subscribe_to(&mailbox);
        mailbox
    }

    /// As [`Store::subscribe`], into a mailbox that may have other sources.
    pub fn subscribe_to(&self, mailbox: &Arc<Mailbox<Arc<str>>>) {
        let mut state = self.state.lock();
        for key in state.objects.keys() {
            mailbox.put(Arc::clone(key), Changed::Put);
        }
        state.subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        state.subscribers.push(Arc::downgrade(mailbox));
        if *self.is_synced.borrow() {
            mailbox.complete();
        }
    }

    /// Takes over a change; says whether more are wanted.
    fn apply(&self, change: Change<T>) -> bool {
        let mut state = self.state.lock();
        match change {
            Change::Listing => state.listing += 1,
            Change::Put(object) => state.put(object),
            Change::Gone(key) => state.remove(&key),
            Change::Listed => {
                let listing = state.listing;
                let old = state.objects.iter().filter(|(_, entry)| entry.listing != listing);
                let old: Vec<Arc<str>> = old.map(|(key, _)| Arc::clone(key)).collect();
                for key in old {
                    state.remove(&key);
                }
                state.objects.shrink_to_fit();
                self.is_synced.send_replace(true);
                state.each_subscriber(Mailbox::complete);
            }
        }
        true
    }
}

impl<T: Object> State<T> {
    fn put(&mut self, object: T) {
        let listing = self.listing;
        let name = object.meta().key();
        let key = match self.objects.get_key_value(name.as_str()) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(name),
        };
        let before = self.objects.get(&key);
        if before.is_none_or(|entry| *entry.object != object) {
            self.revision += 1;
        }
        self.objects.insert(Arc::clone(&key), Entry { object: Arc::new(object), listing });
        self.each_subscriber(|mailbox| mailbox.put(Arc::clone(&key), Changed::Put));
    }

    fn remove(&mut self, key: &str) {
        if let Some((key, _)) = self.objects.remove_entry(key) {
            self.revision += 1;
            self.each_subscriber(|mailbox| mailbox.put(Arc::clone(&key), Changed::Gone));
        }
    }

    fn each_subscriber(&self, mut tell: impl FnMut(&Mailbox<Arc<str>>)) {
        self.subscribers.iter().filter_map(Weak::upgrade).for_each(|mailbox| tell(&mailbox));
    }
}

/// Returns once nobody holds the store any more.
async fn store_gone<T>(store: Weak<Store<T>>) {
    let Some(mut synced) = store.upgrade().map(|store| store.is_synced.subscribe()) else { return };
    // The other end of the channel goes with the store.
    while synced.changed().await.is_ok() {}
}
