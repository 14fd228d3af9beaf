//! Lists of pods as JSON and as protobuf, written without objects in between, in pieces of 32 KiB: the answers that the
//! largest clusters are asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use rapidhash::RapidHashMap;

use crate::objects::ListMeta;
use crate::quantity::{self, Times};
use crate::roster::Names;
use crate::usage::{ListedPod, PodTable};
use crate::{Source, protobuf};

/// A piece of an answer: two records of TLS. Allocators keep larger ones apart, in spans of megabytes.
const PIECE_BYTES: usize = 32 << 10;
/// The last pod of a piece may exceed it by this without another allocation.
const SLACK_BYTES: usize = 4 << 10;

/// What a list is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Protobuf,
}

/// The labels of pods, one after the other, for lists of either form; which pods are listed at all.
///
/// 120 bytes per pod of three labels and 12 of its place: 0.9 MB for 7,000. Kept until pods change
/// ([`Source::pods_revision`]) or containers come and go; making it takes 5 ms of the 7,000, as long as everything else in
/// a list. They are kept as JSON has them, which is read again for protobuf at 40 ns a label.
pub(crate) struct LabelTexts {
    revision: Option<u64>,
    names: Arc<Names>,
    text: Vec<u8>,
    /// Whether no text has an escape.
    is_plain: bool,
    /// Where the labels of each pod of `names` are; none of a pod that is not listed.
    places: Vec<Option<(u32, u32)>>,
}

impl LabelTexts {
    /// Of those pods of `table` that `keep` (namespace, name, labels) wants.
    pub(crate) fn new(
        table: &PodTable,
        source: &dyn Source,
        namespace: Option<&str>,
        keep: impl Fn(&str, &str, &[(&str, &str)]) -> bool,
    ) -> Self {
        // What changes from here on makes another revision.
        let revision = source.pods_revision();
        let pods = table.names().pods();
        let chosen = table.names().pods_in(namespace, None);
        let by_name = pods.enumerate().take(chosen.end).skip(chosen.start).filter_map(|(at, rows)| {
            let [_, namespace, name] = table.names().values(*rows.first()?);
            Some(((namespace, name), at))
        });
        let by_name: RapidHashMap<(&str, &str), usize> = by_name.collect();
        let mut places = vec![None; table.names().pods().count()];
        let (mut text, mut is_plain) = (Vec::with_capacity(by_name.len() * 128), true);
        source.visit_pods(namespace, &mut |pod| {
            let Some(at) = by_name.get(&(pod.namespace, pod.name)) else { return };
            if !keep(pod.namespace, pod.name, pod.labels) {
                return;
            }
            let from = text.len();
            push_labels(&mut text, pod.labels);
            is_plain &= pod.labels.iter().all(|(name, value)| is_plain_text(name) && is_plain_text(value));
            places[*at] = u32::try_from(from).ok().zip(u32::try_from(text.len()).ok());
        });
        text.shrink_to_fit();
        Self { revision, names: Arc::clone(table.names()), text, is_plain, places }
    }

    /// Whether these are all pods of `table`, as `source` knows them now.
    pub(crate) fn fit(&self, table: &PodTable, source: &dyn Source) -> bool {
        self.revision.is_some()
            && Arc::ptr_eq(&self.names, table.names())
            && self.revision == source.pods_revision()
    }

    fn get(&self, pod: ListedPod<'_>) -> Option<&[u8]> {
        let (from, to) = (*self.places.get(pod.number)?)?;
        self.text.get(from as usize..to as usize)
    }

    /// Writes labels that [`LabelTexts::get`] gave as protobuf.
    fn push_protobuf(&self, out: &mut Vec<u8>, labels: &[u8]) {
        if self.is_plain {
            // Every other piece between two quotes is what stands between names and values.
            let mut texts = labels.split(|byte| *byte == b'"').skip(1).step_by(2);
            while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
                protobuf::push_label(out, name, value);
            }
        } else if let Ok(Some(labels)) = serde_json::from_slice::<Option<BTreeMap<String, String>>>(labels) {
            labels.iter().for_each(|(name, value)| {
                protobuf::push_label(out, name.as_bytes(), value.as_bytes());
            });
        }
    }
}

/// Labels as a JSON object; nothing if there are none.
fn push_labels(out: &mut Vec<u8>, labels: &[(&str, &str)]) {
    let mut opening = b'{';
    for (name, value) in labels {
        out.push(std::mem::replace(&mut opening, b','));
        push_text(out, name);
        out.push(b':');
        push_text(out, value);
    }
    if opening == b',' {
        out.push(b'}');
    }
}

/// A list of pods that is written piece by piece, while the client reads.
pub(crate) struct PodList {
    table: PodTable,
    labels: Arc<LabelTexts>,
    now: i64,
    metadata: ListMeta,
    /// The next pod, how many are written, and how many may be.
    at: usize,
    written: usize,
    limit: usize,
}

impl PodList {
    /// The list at `now` from behind `after`, at most `limit` pods of it (0: all).
    pub(crate) fn new(
        table: PodTable,
        labels: Arc<LabelTexts>,
        now: i64,
        after: Option<&(String, String)>,
        limit: usize,
    ) -> Self {
        let before = |pod: &ListedPod<'_>| {
            after.is_some_and(|(namespace, name)| {
                (pod.namespace, pod.name) <= (namespace.as_bytes(), name.as_bytes())
            })
        };
        let at = table.iter().take_while(before).count();
        let limit = if limit == 0 { usize::MAX } else { limit };
        let mut list = Self { table, labels, now, metadata: ListMeta::default(), at, written: 0, limit };
        let count = if limit == usize::MAX { 0 } else { list.chosen().count() };
        if count > limit {
            list.metadata.remaining_item_count = Some(count - limit);
            let last = list.chosen().nth(limit - 1).map(|(pod, _)| pod.key().join("/"));
            list.metadata.continue_token = last.unwrap_or_default();
        }
        list
    }

    /// The pods that are to be listed if there were no limit, with their labels.
    fn chosen(&self) -> impl Iterator<Item = (ListedPod<'_>, &[u8])> {
        self.table.iter().skip(self.at).filter_map(|pod| Some((pod, self.labels.get(pod)?)))
    }

    /// As JSON.
    pub(crate) fn json(self) -> impl Iterator<Item = Vec<u8>> + Send {
        let mut head =
            br#"{"kind":"PodMetricsList","apiVersion":"metrics.k8s.io/v1beta1","metadata":{"#.to_vec();
        if let Some(remaining) = self.metadata.remaining_item_count {
            head.extend_from_slice(br#""continue":"#);
            push_text(&mut head, &self.metadata.continue_token);
            head.extend_from_slice(format!(r#","remainingItemCount":{remaining}"#).as_bytes());
        }
        head.extend_from_slice(br#"},"items":["#);
        Json { times: Times::new(self.now), list: self, head: Some(head) }
    }

    /// As protobuf. All of it is written before the first piece can be sent: the length stands in front.
    pub(crate) fn protobuf(self) -> impl Iterator<Item = Vec<u8>> + Send {
        let mut list = protobuf::PodListWriter::new(&self.metadata, self.now, PIECE_BYTES + SLACK_BYTES);
        let mut pieces = Vec::new();
        for (pod, labels) in self.chosen().take(self.limit) {
            list.push(pod, |out| self.labels.push_protobuf(out, labels));
            if list.len() >= PIECE_BYTES {
                pieces.push(list.take());
            }
        }
        pieces.push(list.take());
        let length = pieces.iter().map(Vec::len).sum();
        std::iter::once(protobuf::prefix("PodMetricsList", length)).chain(pieces)
    }
}

/// A list as JSON.
struct Json {
    list: PodList,
    times: Times,
    /// What the next piece begins with; none after the last piece.
    head: Option<Vec<u8>>,
}

impl Iterator for Json {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = self.head.take()?;
        out.reserve_exact(PIECE_BYTES + SLACK_BYTES);
        let list = &mut self.list;
        while out.len() < PIECE_BYTES && list.written < list.limit {
            let Some(pod) = list.table.get(list.at) else { break };
            list.at += 1;
            if let Some(labels) = list.labels.get(pod) {
                if list.written > 0 {
                    out.push(b',');
                }
                push_pod(&mut out, pod, labels, &mut self.times);
                list.written += 1;
            }
        }
        if out.len() < PIECE_BYTES {
            out.extend_from_slice(b"]}");
        } else {
            // There is another piece, if only of two bytes.
            self.head = Some(Vec::new());
        }
        Some(out)
    }
}

fn push_pod(out: &mut Vec<u8>, pod: ListedPod<'_>, labels: &[u8], times: &mut Times) {
    out.extend_from_slice(br#"{"metadata":{"name":"#);
    push_name(out, pod.name, pod.is_plain());
    out.extend_from_slice(br#","namespace":"#);
    push_name(out, pod.namespace, pod.is_plain());
    out.extend_from_slice(br#","creationTimestamp":""#);
    times.push_now(out);
    out.push(b'"');
    if !labels.is_empty() {
        out.extend_from_slice(br#","labels":"#);
        out.extend_from_slice(labels);
    }
    let earliest = pod.earliest();
    out.extend_from_slice(br#"},"timestamp":""#);
    times.push(out, earliest.timestamp);
    out.extend_from_slice(br#"","window":""#);
    quantity::push_duration(out, earliest.window_ms);
    let mut opening = &br#"","containers":[{"name":"#[..];
    for (name, usage) in pod.containers() {
        out.extend_from_slice(opening);
        push_name(out, name, pod.is_plain());
        out.extend_from_slice(br#","usage":{"cpu":""#);
        quantity::push_cpu(out, usage.cpu_nanocores);
        out.extend_from_slice(br#"","memory":""#);
        quantity::push_memory(out, usage.memory_bytes);
        opening = br#""}},{"name":"#;
    }
    out.extend_from_slice(br#""}}]}"#);
}

/// A name as a JSON string. Whether names need escapes is known of all together.
fn push_name(out: &mut Vec<u8>, name: &[u8], is_plain: bool) {
    if is_plain { push_plain(out, name) } else { push_text(out, &String::from_utf8_lossy(name)) }
}

/// A JSON string. Names of objects and labels need no escapes, but nothing depends on that.
fn push_text(out: &mut Vec<u8>, text: &str) {
    if is_plain_text(text) {
        push_plain(out, text.as_bytes());
    } else {
        out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
}

pub(crate) fn is_plain_text(text: &str) -> bool {
    text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\')
}

fn push_plain(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::objects::{List, Metrics};
    use crate::{ContainerUsage, PodInfo, PodUsage, Unavailable, Usage};

    /// Pods and nothing else.
    struct Pods(Vec<PodInfo>);

    impl Source for Pods {
        fn querier(&self) -> Result<Box<dyn model::Querier>, Unavailable> {
            Err(Unavailable::default())
        }
        fn nodes(&self) -> Vec<crate::NodeInfo> {
            Vec::new()
        }
        fn pods(&self) -> Vec<PodInfo> {
            self.0.clone()
        }
        fn now(&self) -> i64 {
            0
        }
    }

    fn container() -> impl Strategy<Value = ContainerUsage> {
        (
            "[a-z\"\\\\\u{1}ü]{1,6}",
            any::<u64>(),
            any::<u64>(),
            1_700_000_000_000..1_800_000_000_000_i64,
            1..400_000_i64,
        )
            .prop_map(|(name, cpu_nanocores, memory_bytes, timestamp, window_ms)| ContainerUsage {
                name,
                usage: Usage {
                    cpu_nanocores: cpu_nanocores >> 20,
                    memory_bytes: memory_bytes >> 4,
                    timestamp,
                    window_ms,
                },
            })
    }

    type Pod = (Vec<ContainerUsage>, BTreeMap<String, String>, bool);

    fn pod() -> impl Strategy<Value = Pod> {
        let containers = prop::collection::btree_map("[a-z]{1,3}", container(), 1..3);
        let containers = containers.prop_map(|by_name| {
            let mut all: Vec<ContainerUsage> = by_name.into_values().collect();
            all.sort_by(|a, b| a.name.cmp(&b.name));
            all.dedup_by(|a, b| a.name == b.name);
            all
        });
        (containers, prop::collection::btree_map("[a-z/]{1,3}", "[a-z\n]{0,3}", 0..3), any::<bool>())
    }

    proptest! {
        /// The same text as the objects give, byte for byte, and the same message.
        #[test]
        fn it_is_the_list_of_the_objects(
            pods in prop::collection::btree_map(("[a-c]{1,2}", "[a-z\"]{1,4}"), pod(), 0..8),
            limit in 0usize..4,
            skipped in 0usize..4,
        ) {
            let now = 1_795_236_760_000;
            let mut usage = Vec::new();
            let (mut items, mut known) = (Vec::new(), vec![PodInfo { name: "knows".to_owned(), ..PodInfo::default() }]);
            for ((namespace, name), (containers, labels, chosen)) in &pods {
                let pod = PodUsage { namespace: namespace.clone(), name: name.clone(), containers: containers.clone() };
                let info = PodInfo { namespace: namespace.clone(), name: name.clone(), labels: labels.clone(), ..PodInfo::default() };
                if *chosen {
                    items.push(Metrics::pod(&info, &pod, now));
                    known.push(info);
                }
                usage.push(pod);
            }
            let after = skipped.checked_sub(1).and_then(|at| pods.keys().nth(at).cloned());
            if let Some((namespace, name)) = &after {
                items.retain(|item| item.key() > (namespace.as_str(), name.as_str()));
            }
            let mut metadata = ListMeta::default();
            if limit > 0 && items.len() > limit {
                metadata.remaining_item_count = Some(items.len() - limit);
                items.truncate(limit);
                let (namespace, name) = items[limit - 1].key();
                metadata.continue_token = format!("{namespace}/{name}");
            }
            let list = || {
                let table = PodTable::of(&usage);
                assert_eq!(table.to_usage(), usage);
                let labels = LabelTexts::new(&table, &Pods(known.clone()), None, |_, _, _| true);
                PodList::new(table, Arc::new(labels), now, after.as_ref(), limit)
            };
            let message: Vec<u8> = list().protobuf().flatten().collect();
            prop_assert_eq!(message, protobuf::list("PodMetricsList", &metadata, &items));
            let expected = List { kind: "PodMetricsList", api_version: crate::objects::GROUP_VERSION, metadata, items };
            let written = String::from_utf8(list().json().flatten().collect()).unwrap();
            prop_assert_eq!(written, serde_json::to_string(&expected).unwrap());
        }
    }

    #[test]
    fn a_long_list_comes_in_pieces() {
        let usage = Usage { cpu_nanocores: 1, memory_bytes: 2, timestamp: 3000, window_ms: 4 };
        let pods: Vec<PodUsage> = (0..1000)
            .map(|n| PodUsage {
                namespace: "ns".to_owned(),
                name: format!("pod-{n:04}"),
                containers: vec![ContainerUsage { name: "c".to_owned(), usage }],
            })
            .collect();
        let known = pods.iter().map(|pod| PodInfo {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            ..PodInfo::default()
        });
        let (table, known) = (PodTable::of(&pods), Pods(known.collect()));
        let labels = LabelTexts::new(&table, &known, None, |_, _, _| true);
        let pieces: Vec<Vec<u8>> = PodList::new(table, Arc::new(labels), 0, None, 0).json().collect();
        assert!(pieces.len() > 2, "{}", pieces.len());
        assert!(pieces.iter().all(|piece| piece.len() < PIECE_BYTES + SLACK_BYTES));
        let list: serde_json::Value = serde_json::from_slice(&pieces.concat()).unwrap();
        assert_eq!(list["items"].as_array().unwrap().len(), 1000);
    }
}
