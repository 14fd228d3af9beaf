//! The Alertmanagers that are found, and how they are reached.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{Labels, LabelsBuilder};
use rules::{Alertmanager, Delivery, Posting};
use scraper::config::TargetGroup;
use scraper::{Client, Finder, Shutdown, relabel};

use crate::config::AlertmanagerOptions;
use crate::jobs::system_roots;
use crate::sigv4::Signer;

/// After a change further changes wait for so long, and come at once then.
const SETTLE: Duration = Duration::from_secs(1);

/// Tells the rules which Alertmanagers there are.
pub(crate) struct Alertmanagers {
    scraper: Arc<scraper::Handle>,
    rules: Arc<rules::Handle>,
    stop: Shutdown,
    sets: Mutex<Vec<Arc<Set>>>,
}

/// Those of one section of the configuration.
struct Set {
    options: AlertmanagerOptions,
    delivery: Arc<Delivery>,
    finder: Finder,
    /// Cancelled when another set stands for it.
    gone: Shutdown,
}

impl Alertmanagers {
    /// None yet.
    pub(crate) fn new(scraper: Arc<scraper::Handle>, rules: Arc<rules::Handle>, stop: Shutdown) -> Arc<Self> {
        Arc::new(Self { scraper, rules, stop, sets: Mutex::default() })
    }

    /// Follows these and no others. To be called on the runtime, after the scraper has its configuration. What
    /// waits for an Alertmanager whose section is as before goes on waiting.
    pub(crate) fn apply(self: &Arc<Self>, wanted: &[AlertmanagerOptions]) {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut *sets);
        old.iter().for_each(|set| set.gone.cancel());
        // Until the end, so that discoveries which go on are not begun anew.
        let mut replaced = Vec::new();
        for options in wanted {
            let known = old.iter().position(|set| set.options == *options).map(|at| old.swap_remove(at));
            let delivery = known.as_ref().map_or_else(|| delivery(options), |set| Arc::clone(&set.delivery));
            replaced.extend(known);
            let finder = self.scraper.find(&options.targets, &options.discoveries);
            let (options, gone) = (options.clone(), self.stop.child_token());
            let set = Arc::new(Set { options, delivery, finder, gone });
            if !set.options.discoveries.is_empty() {
                tokio::spawn(Arc::clone(self).follow(Arc::clone(&set)));
            }
            sets.push(set);
        }
        self.tell(&sets);
    }

    /// Looks again whenever discovery has found something else.
    async fn follow(self: Arc<Self>, set: Arc<Set>) {
        loop {
            tokio::select! {
                () = set.gone.cancelled() => return,
                () = set.finder.changed() => {}
            }
            {
                let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
                self.tell(&sets);
            }
            tokio::select! {
                () = set.gone.cancelled() => return,
                () = tokio::time::sleep(SETTLE) => {}
            }
        }
    }

    fn tell(&self, sets: &[Arc<Set>]) {
        let (mut active, mut dropped) = (Vec::new(), Vec::new());
        for set in sets {
            for group in set.finder.groups() {
                match resolve(&set.options, &group) {
                    Ok((urls, others)) => {
                        let to = |url| Alertmanager { url, delivery: Arc::clone(&set.delivery) };
                        active.extend(urls.into_iter().map(to));
                        dropped.extend(others);
                    }
                    Err(error) => tracing::error!("an Alertmanager cannot be used: {error}"),
                }
            }
        }
        self.rules.set_alertmanagers(active, dropped);
    }
}

/// How alerts get to the Alertmanagers of a section.
fn delivery(options: &AlertmanagerOptions) -> Arc<Delivery> {
    let client = Arc::new(Client::new(&options.http, system_roots()));
    let timeout = options.timeout;
    // What is wrong with it is said at each attempt: alerts wait meanwhile.
    let signer = options.sigv4.as_ref().map(|sigv4| Signer::new(sigv4).map_err(|error| format!("{error:#}")));
    let signer = Arc::new(signer);
    let post = move |url: String, body: axum::body::Bytes| {
        let (client, signer) = (Arc::clone(&client), Arc::clone(&signer));
        Box::pin(async move {
            let request = http::Request::post(&url)
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(body)
                .map_err(|error| format!("{url:?}: {error}"))?;
            let request = match &*signer {
                None => request,
                Some(Ok(signer)) => signer.sign(request).await?,
                Some(Err(error)) => return Err(error.clone()),
            };
            let (parts, body) = request.into_parts();
            let request = http::Request::from_parts(parts, &body[..]);
            let status = client.send(request, timeout).await?.status();
            if status.is_success() { Ok(()) } else { Err(format!("bad response status {status}")) }
        }) as Posting
    };
    let steps = options.alert_relabel.clone();
    let change = move |labels: &Labels| {
        let mut builder = labels.to_builder();
        relabel::apply(&steps, &mut builder).then(|| builder.build())
    };
    let relabel = (!options.alert_relabel.is_empty()).then(|| Arc::new(change) as rules::Relabel);
    Arc::new(Delivery { post: Arc::new(post), relabel })
}

/// The URLs of a group's targets, and of those that relabelling drops. One that cannot be used spoils its group.
fn resolve(options: &AlertmanagerOptions, group: &TargetGroup) -> Result<(Vec<String>, Vec<String>), String> {
    let (mut active, mut dropped) = (Vec::new(), Vec::new());
    for target in &group.targets {
        let mut labels = target.to_builder();
        labels.set("__scheme__", options.scheme.as_str()).set("__alerts_path__", &options.path);
        for (name, value) in group.labels.iter().filter(|(name, _)| target.get(name).is_none()) {
            labels.set(name, value);
        }
        let before = url(&labels);
        if !relabel::apply(&options.relabel, &mut labels) {
            dropped.push(before);
            continue;
        }
        let address = labels.get("__address__").unwrap_or_default();
        if address.is_empty() || address.contains('/') {
            return Err(format!("{address:?} is not a valid hostname"));
        }
        active.push(url(&labels));
    }
    Ok((active, dropped))
}

fn url(labels: &LabelsBuilder) -> String {
    let value = |name: &str| labels.get(name).unwrap_or_default();
    let path = value("__alerts_path__");
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{}://{}{slash}{path}", value("__scheme__"), value("__address__"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What becomes of the fixed targets of the only section of a file.
    fn urls(section: &str) -> Result<(Vec<String>, Vec<String>), String> {
        let text = format!("alerting:\n  alertmanagers:\n  - {section}\n");
        let loaded = crate::config::parse(Path::new("/p.yml"), &text, rules::Dialect::default()).unwrap();
        let options = &loaded.alertmanagers[0];
        resolve(options, &options.targets[0])
    }

    #[test]
    fn a_url_is_made_of_labels_that_relabelling_may_change() {
        let made = |section| urls(section).unwrap();
        let plain = made("static_configs: [{targets: ['a:1', 'b']}]");
        assert_eq!(plain.0, ["http://a:1/api/v2/alerts", "http://b/api/v2/alerts"]);
        let (active, dropped) = made(
            "{scheme: https, path_prefix: /am/x/, static_configs: [{targets: ['a:1', 'b:2'], labels: {zone: z, __scheme__: ftp}}],
               relabel_configs: [{source_labels: [__address__], regex: 'b.*', action: drop},
                                 {source_labels: [__scheme__, zone], target_label: __alerts_path__, replacement: '/$1'},
                                 {target_label: __address__, replacement: 'c:3'}]}",
        );
        assert_eq!(
            (active, dropped),
            (vec!["ftp://c:3/ftp;z".to_owned()], vec!["ftp://b:2/am/x/api/v2/alerts".to_owned()])
        );
        let section = "{static_configs: [{targets: ['a:1', 'b:2']}], relabel_configs: [{target_label: __address__, replacement: ''}]}";
        assert_eq!(urls(section).unwrap_err(), "\"\" is not a valid hostname");
    }
}
