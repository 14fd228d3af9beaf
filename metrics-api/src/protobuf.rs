//! The same objects in Kubernetes' protobuf envelope.
//!
//! Source: the `.proto` files of `k8s.io/metrics` and `k8s.io/apimachinery`. An answer is the magic
//! `k8s\0` and a `runtime.Unknown`: type meta (field 1: apiVersion, kind) and the object (field 2).
//! Absent fields are left out; readers take them for empty.

use crate::objects::{GROUP_VERSION, ListMeta, Metrics, ObjectMeta};
use crate::quantity;
use crate::usage::ListedPod;

const MAGIC: &[u8] = b"k8s\0";

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn push_number(out: &mut Vec<u8>, field: u8, value: i64) {
    out.push(field << 3);
    push_varint(out, value.cast_unsigned());
}

fn push_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn push_text(out: &mut Vec<u8>, field: u8, text: &str) {
    if !text.is_empty() {
        push_bytes(out, field, text.as_bytes());
    }
}

/// Appends a message written by `fill`.
fn push_message(out: &mut Vec<u8>, field: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut message = Vec::with_capacity(64);
    fill(&mut message);
    push_bytes(out, field, &message);
}

fn push_time(out: &mut Vec<u8>, field: u8, seconds: i64) {
    push_message(out, field, |time| push_number(time, 1, seconds));
}

/// One entry of a map from strings: key 1, value 2.
fn push_entry(out: &mut Vec<u8>, field: u8, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
    push_message(out, field, |entry| {
        push_bytes(entry, 1, key.as_bytes());
        value(entry);
    });
}

fn push_object_meta(out: &mut Vec<u8>, field: u8, meta: &ObjectMeta, created_s: i64) {
    push_message(out, field, |message| {
        push_text(message, 1, &meta.name);
        push_text(message, 3, &meta.namespace);
        push_text(message, 5, &meta.uid);
        push_time(message, 8, created_s);
        for (name, value) in &meta.labels {
            push_label(message, name.as_bytes(), value.as_bytes());
        }
    });
}

/// A label as it stands in an object's metadata.
pub(crate) fn push_label(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    nest(out, 11, |entry| {
        push_bytes(entry, 1, name);
        push_bytes(entry, 2, value);
    });
}

/// A resource list: quantities are messages with their text in field 1.
fn push_usage(out: &mut Vec<u8>, field: u8, cpu: &str, memory: &str) {
    for (resource, quantity) in [("cpu", cpu), ("memory", memory)] {
        push_entry(out, field, resource, |entry| {
            push_message(entry, 2, |message| push_text(message, 1, quantity));
        });
    }
}

fn push_metrics(out: &mut Vec<u8>, metrics: &Metrics) {
    push_object_meta(out, 1, metrics.metadata(), metrics.created_ms.div_euclid(1000));
    push_time(out, 2, metrics.total().timestamp.div_euclid(1000));
    // A duration is in nanoseconds.
    push_message(out, 3, |window| {
        push_number(window, 1, metrics.total().window_ms.saturating_mul(1_000_000));
    });
    if let Some(usage) = metrics.usage() {
        push_usage(out, 4, usage.cpu(), usage.memory());
    }
    for container in metrics.containers() {
        push_message(out, 4, |message| {
            push_text(message, 1, container.name());
            push_usage(message, 2, container.usage().cpu(), container.usage().memory());
        });
    }
}

fn envelope(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = prefix(kind, object.len());
    out.extend_from_slice(object);
    out
}

/// What stands before an object of so many bytes.
pub(crate) fn prefix(kind: &str, bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(MAGIC);
    push_message(&mut out, 1, |meta| {
        push_text(meta, 1, GROUP_VERSION);
        push_text(meta, 2, kind);
    });
    out.push(2 << 3 | 2);
    push_varint(&mut out, bytes as u64);
    out
}

fn push_list_meta(out: &mut Vec<u8>, metadata: &ListMeta) {
    push_message(out, 1, |meta| {
        push_text(meta, 3, &metadata.continue_token);
        if let Some(count) = metadata.remaining_item_count {
            push_number(meta, 4, i64::try_from(count).unwrap_or(i64::MAX));
        }
    });
}

/// Writes a list of pods without objects in between, and with no allocation for a pod: a message is written behind what it
/// belongs to, and moved when its length is known.
pub(crate) struct PodListWriter {
    out: Vec<u8>,
    created_s: i64,
    quantity: Vec<u8>,
}

impl PodListWriter {
    /// A list that is made at `now` and taken in pieces of so many bytes at most.
    pub(crate) fn new(metadata: &ListMeta, now: i64, piece_bytes: usize) -> Self {
        let mut out = Vec::with_capacity(piece_bytes);
        push_list_meta(&mut out, metadata);
        Self { out, created_s: now.div_euclid(1000), quantity: Vec::with_capacity(32) }
    }

    /// Bytes since the last piece was taken.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// Takes what is written so far.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let capacity = self.out.capacity();
        std::mem::replace(&mut self.out, Vec::with_capacity(capacity))
    }

    /// Adds a pod, whose labels `labels` adds ([`push_label`]).
    pub(crate) fn push(&mut self, pod: ListedPod<'_>, labels: impl FnOnce(&mut Vec<u8>)) {
        let Self { out, created_s, quantity } = self;
        nest(out, 2, |out| {
            nest(out, 1, |out| {
                push_bytes(out, 1, pod.name);
                push_bytes(out, 3, pod.namespace);
                nest(out, 8, |out| push_number(out, 1, *created_s));
                labels(out);
            });
            let earliest = pod.earliest();
            nest(out, 2, |out| push_number(out, 1, earliest.timestamp.div_euclid(1000)));
            nest(out, 3, |out| push_number(out, 1, earliest.window_ms.saturating_mul(1_000_000)));
            for (name, usage) in pod.containers() {
                nest(out, 4, |out| {
                    push_bytes(out, 1, name);
                    quantity.clear();
                    quantity::push_cpu(quantity, usage.cpu_nanocores);
                    push_resource(out, b"cpu", quantity);
                    quantity.clear();
                    quantity::push_memory(quantity, usage.memory_bytes);
                    push_resource(out, b"memory", quantity);
                });
            }
        });
    }
}

fn push_resource(out: &mut Vec<u8>, name: &[u8], quantity: &[u8]) {
    nest(out, 2, |out| {
        push_bytes(out, 1, name);
        nest(out, 2, |out| push_bytes(out, 1, quantity));
    });
}

/// Appends a message written by `fill` behind one byte, which is its length, or the first of it.
fn nest(out: &mut Vec<u8>, field: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[field << 3 | 2, 0]);
    let from = out.len();
    fill(out);
    let length = out.len() - from;
    match u8::try_from(length).ok().filter(|length| *length < 0x80) {
        Some(length) => out[from - 1] = length,
        None => {
            let mut prefix = Vec::with_capacity(10);
            push_varint(&mut prefix, length as u64);
            out.splice(from - 1..from, prefix);
        }
    }
}

/// One object.
pub(crate) fn object(metrics: &Metrics) -> Vec<u8> {
    let mut object = Vec::with_capacity(256);
    push_metrics(&mut object, metrics);
    envelope(metrics.kind(), &object)
}

/// A list.
pub(crate) fn list(kind: &str, metadata: &ListMeta, items: &[Metrics]) -> Vec<u8> {
    let mut list = Vec::with_capacity(items.len() * 200 + 32);
    push_list_meta(&mut list, metadata);
    for item in items {
        push_message(&mut list, 2, |message| push_metrics(message, item));
    }
    envelope(kind, &list)
}
