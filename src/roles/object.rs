//! The slot map in a cluster: a config map, which every process of the cell follows into its file, and which only the
//! one that holds a lease writes by itself.
//!
//! The file stays what routers and queriers read. So an API server that does not answer changes nothing for them, and
//! after a restart they go on with the map they had.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use k8s::{Client, ConfigMap};
use remote::slots::SlotMap;
use scraper::Shutdown;

use super::command;

/// The key of the map within the config map.
const KEY: &str = "slot-map.json";

/// How often somebody who waits for a map looks for it.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Where a config map is: `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(format!("{text:?} is not NAMESPACE/NAME")),
        }
    }
}

/// The config map.
#[derive(Clone)]
pub(super) struct Object {
    pub(super) client: Client,
    pub(super) name: Name,
}

impl Object {
    /// The object as it is now, to be written over, and the map in it.
    pub(super) async fn read(&self) -> anyhow::Result<(ConfigMap, Option<SlotMap>)> {
        let Name { namespace, name } = &self.name;
        match self.client.config_map(namespace, name).await {
            Ok(found) => {
                let map = self.parse(&found)?;
                Ok((found, map))
            }
            Err(error) if error.is_not_found() => {
                let mut fresh = ConfigMap::default();
                fresh.meta.namespace = namespace.as_str().into();
                fresh.meta.name = name.as_str().into();
                Ok((fresh, None))
            }
            Err(error) => Err(error).with_context(|| self.to_string()),
        }
    }

    fn parse(&self, found: &ConfigMap) -> anyhow::Result<Option<SlotMap>> {
        found.data.get(KEY).map(|text| SlotMap::parse(text)).transpose().with_context(|| self.to_string())
    }

    /// Writes a map over what was read; false if somebody else has written meanwhile.
    pub(super) async fn write(&self, mut read: ConfigMap, map: &SlotMap) -> anyhow::Result<bool> {
        read.data.insert(KEY.to_owned(), map.to_json());
        match self.client.write_config_map(&read).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error).with_context(|| self.to_string()),
        }
    }

    /// Takes a router out of the map, which its file has then as well: when it is back, it waits until it is in the map
    /// again, since queriers would not ask it before.
    pub(super) async fn leave(&self, file: &Path, router: &str) -> anyhow::Result<()> {
        loop {
            let (read, map) = self.read().await?;
            let Some(map) = map else { return Ok(()) };
            let staying = map.routers().iter().filter(|place| place.name != router).cloned().collect();
            let Some(next) = map.with_places(&[], staying)? else { return Ok(()) };
            // Whatever happens here, it does not go on by a map that it is no longer in.
            std::fs::remove_file(file).with_context(|| file.display().to_string())?;
            let written = self.write(read, &next).await;
            command::write(file, if matches!(written, Ok(true)) { &next } else { &map })?;
            if written? {
                return Ok(());
            }
        }
    }

    /// Keeps the file that of the newest map, until the process ends.
    pub(super) async fn follow(self, file: PathBuf, stop: Shutdown) {
        let store = self.client.watch_config_map(&self.name.namespace, &self.name.name);
        let changes = store.subscribe();
        let key = format!("{}/{}", self.name.namespace, self.name.name);
        loop {
            tokio::select! {
                _ = changes.take() => {}
                () = stop.cancelled() => return,
            }
            let Some(found) = store.get(&key) else { continue };
            if let Err(error) = self.parse(&found).and_then(|map| keep(&file, map)) {
                tracing::error!("the slot map in force stays: {}", crate::describe(&error));
            }
        }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "config map {}/{}", self.name.namespace, self.name.name)
    }
}

/// Writes the file, unless it has this map or a newer one.
fn keep(file: &Path, map: Option<SlotMap>) -> anyhow::Result<()> {
    let Some(map) = map else { return Ok(()) };
    let known = SlotMap::read(file).map_or(0, |known| known.epoch());
    if map.epoch() > known {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        command::write(file, &map)?;
    }
    Ok(())
}

/// Waits until the file has a map, and one with the router `name` if that is given; false if the process ends before.
pub(super) async fn has_come(file: &Path, router: Option<&str>, stop: &Shutdown) -> bool {
    let is_there = || {
        let map = SlotMap::read(file).ok()?;
        router.is_none_or(|name| map.routers().iter().any(|router| router.name == name)).then_some(())
    };
    let mut told = false;
    while is_there().is_none() {
        if !told {
            let who = router.map(|name| format!(" with router {name:?}")).unwrap_or_default();
            tracing::info!("waiting for a slot map{who}");
            told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = Name { namespace: "a".to_owned(), name: "b".to_owned() };
        assert_eq!("a/b".parse(), Ok(name));
        for bad in ["", "a", "/b", "a/", "a/b/c"] {
            assert_eq!(bad.parse::<Name>(), Err(format!("{bad:?} is not NAMESPACE/NAME")));
        }
    }
}
