//! CPU and memory by `resourceRules`, for objects that no kubelet has told us of.

use std::collections::BTreeMap;

use super::rules::{Labelling, ResourceRule, Subject, query};
use super::template::Text;
use super::values::{Missing, Question, View};
use super::{Resolved, rules::QueryRefused};
use crate::selector::LabelSelector;
use crate::usage::{ContainerUsage, NodeUsage, PodUsage, Usage};

/// A value with the time of its samples.
type Measured = (f64, i64);

/// CPU and memory.
type Both = (Option<Measured>, Option<Measured>);

impl Resolved {
    fn label(&self, labelling: &Labelling, resource: &str) -> Result<String, Missing> {
        let found = labelling.resolve(&self.kinds).into_iter();
        let label = found.into_iter().find(|(_, kind)| kind.group.is_empty() && kind.resource == resource);
        let missing = || Missing::Query(format!("resourceRules.resources: no label for {resource}"));
        label.map(|(label, _)| label).ok_or_else(missing)
    }

    /// Values by the labels that name them.
    fn measure(
        &self,
        view: View<'_>,
        text: &Text,
        subject: Subject<'_>,
    ) -> Result<BTreeMap<Vec<String>, Measured>, Missing> {
        let everything = LabelSelector::default();
        let asked = query(text, "", subject, &everything, &[]).map_err(|refused| match refused {
            QueryRefused::Selector(error) => Missing::Selector(error),
            QueryRefused::Template(what) => Missing::Query(format!("resourceRules: {what}")),
        })?;
        let question = Question::of_text("resourceRules", asked)?;
        let mut labels: Vec<String> = subject.object.iter().map(|(label, _)| (*label).to_owned()).collect();
        labels.extend(subject.group_by.iter().cloned());
        let mut ascending = labels.clone();
        ascending.sort_unstable();
        let moments = question.moments(view, &ascending)?;
        let mut out = BTreeMap::new();
        for row in question.rows(view)? {
            let of = |label: &String| row.labels.get(label).unwrap_or_default();
            let ts = moments.of(ascending.iter().map(of)).unwrap_or(row.ts);
            if let model::Value::Float(value) = row.value
                && value.is_finite()
            {
                out.insert(labels.iter().map(|label| of(label).to_owned()).collect(), (value, ts));
            }
        }
        Ok(out)
    }

    /// Usage of nodes by the rules, if there are such.
    pub(crate) fn node_usage(&self, view: View<'_>, names: &[String]) -> Result<Vec<NodeUsage>, Missing> {
        let Some(rules) = &self.rules.resource else { return Ok(Vec::new()) };
        let one = |rule: &ResourceRule| {
            let label = self.label(&rule.labelling, "nodes")?;
            self.measure(
                view,
                &rule.node_query,
                Subject { object: Some((&label, names)), namespace: None, group_by: &[] },
            )
        };
        let (cpu, memory) = (one(&rules.cpu)?, one(&rules.memory)?);
        let mut out = Vec::new();
        for (key, cpu) in cpu {
            if let (Some(memory), [name]) = (memory.get(&key), key.as_slice()) {
                out.push(NodeUsage { name: name.clone(), usage: usage(cpu, *memory, rules.window_ms) });
            }
        }
        Ok(out)
    }

    /// Usage of some pods of a namespace by the rules, if there are such. As in the adapter a container of which one of
    /// the two is missing has 0 of it, and a pod that has only one of them is left out.
    pub(crate) fn pod_usage(
        &self,
        view: View<'_>,
        namespace: &str,
        names: &[String],
    ) -> Result<Vec<PodUsage>, Missing> {
        let Some(rules) = &self.rules.resource else { return Ok(Vec::new()) };
        let one = |rule: &ResourceRule| {
            let pod = self.label(&rule.labelling, "pods")?;
            let within = self.label(&rule.labelling, "namespaces")?;
            let subject = Subject {
                object: Some((&pod, names)),
                namespace: Some((&within, namespace)),
                group_by: std::slice::from_ref(&rule.container_label),
            };
            self.measure(view, &rule.container_query, subject)
        };
        let (cpu, memory) = (one(&rules.cpu)?, one(&rules.memory)?);
        let mut pods: BTreeMap<&str, BTreeMap<&str, Both>> = BTreeMap::new();
        for (values, is_cpu) in [(&cpu, true), (&memory, false)] {
            for (key, value) in values {
                let [pod, container] = key.as_slice() else { continue };
                if container.is_empty() {
                    continue;
                }
                let slot = pods.entry(pod).or_default().entry(container).or_default();
                *(if is_cpu { &mut slot.0 } else { &mut slot.1 }) = Some(*value);
            }
        }
        let complete = pods.into_iter().filter(|(_, containers)| {
            containers.values().any(|(cpu, _)| cpu.is_some())
                && containers.values().any(|(_, memory)| memory.is_some())
        });
        let window_ms = rules.window_ms;
        let container = |(name, (cpu, memory)): (&str, Both)| {
            let ts = cpu.or(memory).map_or(view.now, |(_, ts)| ts);
            let (cpu, memory) = (cpu.unwrap_or((0.0, ts)), memory.unwrap_or((0.0, ts)));
            ContainerUsage { name: name.to_owned(), usage: usage(cpu, memory, window_ms) }
        };
        Ok(complete
            .map(|(name, containers)| PodUsage {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                containers: containers.into_iter().map(container).collect(),
            })
            .collect())
    }
}

fn usage(cpu: Measured, memory: Measured, window_ms: i64) -> Usage {
    Usage {
        cpu_nanocores: crate::usage::to_u64(cpu.0 * 1e9),
        memory_bytes: crate::usage::to_u64(memory.0),
        timestamp: cpu.1,
        window_ms,
    }
}
