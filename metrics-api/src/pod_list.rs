//! Lists of pods as plain JSON, written without objects in between: the answer that the largest clusters are asked for.

use rapidhash::RapidHashMap;

use crate::quantity;
use crate::usage::PodUsage;

/// Chosen pods, to be written.
pub(crate) struct PodList<'a> {
    usage: &'a [PodUsage],
    by_name: RapidHashMap<(&'a str, &'a str), usize>,
    /// Labels of pods as JSON, and where those of each pod are; none of a pod that is not chosen.
    labels: Vec<u8>,
    chosen: Vec<Option<(usize, usize)>>,
}

impl<'a> PodList<'a> {
    /// Of `usage`, in the order of namespaces and names, none is chosen yet.
    pub(crate) fn new(usage: &'a [PodUsage]) -> Self {
        let by_name =
            usage.iter().enumerate().map(|(at, pod)| ((pod.namespace.as_str(), pod.name.as_str()), at));
        Self {
            by_name: by_name.collect(),
            labels: Vec::with_capacity(usage.len() * 128),
            chosen: vec![None; usage.len()],
            usage,
        }
    }

    /// Chooses a pod, if it has usage.
    pub(crate) fn choose(&mut self, namespace: &str, name: &str, labels: &[(&str, &str)]) {
        let Some(&at) = self.by_name.get(&(namespace, name)) else { return };
        let start = self.labels.len();
        for (index, (name, value)) in labels.iter().enumerate() {
            self.labels.push(if index == 0 { b'{' } else { b',' });
            push_text(&mut self.labels, name);
            self.labels.push(b':');
            push_text(&mut self.labels, value);
        }
        if !labels.is_empty() {
            self.labels.push(b'}');
        }
        self.chosen[at] = Some((start, self.labels.len()));
    }

    /// The list from behind `after`, at most `limit` pods of it (0: all).
    pub(crate) fn write(&self, now: i64, after: Option<&(String, String)>, limit: usize) -> Vec<u8> {
        let behind = |pod: &PodUsage| {
            after.is_none_or(|(namespace, name)| (&pod.namespace, &pod.name) > (namespace, name))
        };
        let all = || {
            let both = self.usage.iter().zip(&self.chosen);
            both.filter_map(|(pod, labels)| Some((pod, (*labels)?))).filter(|(pod, _)| behind(pod))
        };
        let (count, limit) = (all().count(), if limit == 0 { usize::MAX } else { limit });
        let mut out = Vec::with_capacity(512 + count.min(limit) * 512);
        out.extend_from_slice(
            br#"{"kind":"PodMetricsList","apiVersion":"metrics.k8s.io/v1beta1","metadata":{"#,
        );
        if count > limit
            && let Some((last, _)) = all().nth(limit - 1)
        {
            out.extend_from_slice(br#""continue":"#);
            push_text(&mut out, &format!("{}/{}", last.namespace, last.name));
            out.extend_from_slice(format!(r#","remainingItemCount":{}"#, count - limit).as_bytes());
        }
        out.extend_from_slice(br#"},"items":["#);
        let mut times = Times { created: quantity::time(now), last: None };
        for (index, (pod, (from, to))) in all().take(limit).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            push_pod(&mut out, pod, &self.labels[from..to], &mut times);
        }
        out.extend_from_slice(b"]}");
        out
    }
}

/// Times as text; most pods of a node share one second.
struct Times {
    created: String,
    last: Option<(i64, String)>,
}

impl Times {
    fn push(&mut self, out: &mut Vec<u8>, ts: i64) {
        let second = ts.div_euclid(1000);
        if self.last.as_ref().is_none_or(|(last, _)| *last != second) {
            self.last = Some((second, quantity::time(ts)));
        }
        if let Some((_, text)) = &self.last {
            out.extend_from_slice(text.as_bytes());
        }
    }
}

fn push_pod(out: &mut Vec<u8>, pod: &PodUsage, labels: &[u8], times: &mut Times) {
    out.extend_from_slice(br#"{"metadata":{"name":"#);
    push_text(out, &pod.name);
    out.extend_from_slice(br#","namespace":"#);
    push_text(out, &pod.namespace);
    out.extend_from_slice(br#","creationTimestamp":""#);
    out.extend_from_slice(times.created.as_bytes());
    out.push(b'"');
    if !labels.is_empty() {
        out.extend_from_slice(br#","labels":"#);
        out.extend_from_slice(labels);
    }
    let earliest = pod.earliest();
    out.extend_from_slice(br#"},"timestamp":""#);
    times.push(out, earliest.timestamp);
    out.extend_from_slice(br#"","window":""#);
    out.extend_from_slice(quantity::duration(earliest.window_ms).as_bytes());
    out.extend_from_slice(br#"","containers":["#);
    for (index, container) in pod.containers.iter().enumerate() {
        out.extend_from_slice(if index > 0 { &b",{\"name\":"[..] } else { b"{\"name\":" });
        push_text(out, &container.name);
        out.extend_from_slice(br#","usage":{"cpu":""#);
        quantity::push_cpu(out, container.usage.cpu_nanocores);
        out.extend_from_slice(br#"","memory":""#);
        quantity::push_memory(out, container.usage.memory_bytes);
        out.extend_from_slice(br#""}}"#);
    }
    out.extend_from_slice(b"]}");
}

/// A JSON string. Names of objects and labels need no escapes, but nothing depends on that.
fn push_text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::objects::{List, ListMeta, Metrics};
    use crate::{ContainerUsage, PodInfo, Usage};

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

    proptest! {
        /// The same text as the objects give, byte for byte.
        #[test]
        fn it_is_the_list_of_the_objects(
            pods in prop::collection::btree_map(("[a-c]{1,2}", "[a-z\"]{1,4}"), (prop::collection::vec(container(), 0..3), prop::collection::btree_map("[a-z/]{1,3}", "[a-z\n]{0,3}", 0..3), any::<bool>()), 0..8),
            limit in 0usize..4,
        ) {
            let usage: Vec<PodUsage> = pods.iter().map(|((namespace, name), (containers, _, _))| PodUsage {
                namespace: namespace.clone(), name: name.clone(), containers: containers.clone(),
            }).collect();
            let mut list = PodList::new(&usage);
            let mut items = Vec::new();
            for (pod, (_, labels, chosen)) in usage.iter().zip(pods.values()) {
                if *chosen {
                    let pairs: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                    list.choose(&pod.namespace, &pod.name, &pairs);
                    let info = PodInfo { labels: labels.clone(), ..PodInfo::default() };
                    items.push(Metrics::pod(&info, pod, 1_795_236_760_000));
                }
            }
            list.choose("nobody", "knows", &[]);
            let mut metadata = ListMeta::default();
            if limit > 0 && items.len() > limit {
                metadata.remaining_item_count = Some(items.len() - limit);
                items.truncate(limit);
                let (namespace, name) = items[limit - 1].key();
                metadata.continue_token = format!("{namespace}/{name}");
            }
            let expected = List { kind: "PodMetricsList", api_version: crate::objects::GROUP_VERSION, metadata, items };
            let written = String::from_utf8(list.write(1_795_236_760_000, None, limit)).unwrap();
            prop_assert_eq!(written, serde_json::to_string(&expected).unwrap());
        }
    }
}
