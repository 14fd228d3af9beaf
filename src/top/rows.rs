//! What uses how much: rows of the table, their order, and numbers as people read them.

use serde::Serialize;

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Nodes.
    Nodes,
    /// Pods, their containers together.
    Pods,
    /// Containers one by one.
    Containers,
}

/// What a list is sorted by; names ascending, the rest descending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Order {
    /// CPU.
    Cpu,
    /// Memory.
    Memory,
    /// Namespace and name.
    Name,
}

/// Something that uses CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Row {
    /// Empty for a node.
    pub(crate) namespace: String,
    /// Of the node or pod.
    pub(crate) name: String,
    /// Empty but for a container.
    pub(crate) container: String,
    /// In cores.
    pub(crate) cpu_cores: f64,
    pub(crate) memory_bytes: f64,
    /// What a node has to give, if that is known.
    pub(crate) cpu_capacity_cores: Option<f64>,
    pub(crate) memory_capacity_bytes: Option<f64>,
    /// When it was measured, milliseconds since the epoch.
    pub(crate) timestamp_ms: i64,
    /// Over which time CPU was measured, in milliseconds.
    pub(crate) window_ms: i64,
}

impl Row {
    /// What tells it from the others.
    pub(crate) fn key(&self) -> (&str, &str, &str) {
        (&self.namespace, &self.name, &self.container)
    }
}

pub(crate) fn sort(rows: &mut [Row], order: Order, reversed: bool) {
    rows.sort_by(|one, other| {
        let by_name = one.key().cmp(&other.key());
        let ordering = match order {
            Order::Cpu => other.cpu_cores.total_cmp(&one.cpu_cores).then(by_name),
            Order::Memory => other.memory_bytes.total_cmp(&one.memory_bytes).then(by_name),
            Order::Name => by_name,
        };
        if reversed { ordering.reverse() } else { ordering }
    });
}

/// Those whose namespace, name or container holds the text.
pub(crate) fn filtered(rows: Vec<Row>, text: &str) -> Vec<Row> {
    let holds =
        |row: &Row| [&row.namespace, &row.name, &row.container].iter().any(|part| part.contains(text));
    rows.into_iter().filter(holds).collect()
}

/// Cores in thousandths, as `kubectl top` shows them.
pub(crate) fn cores(cores: f64) -> String {
    format!("{:.0}m", (cores * 1000.0).ceil())
}

/// Bytes in the unit that leaves one to four digits.
pub(crate) fn bytes(bytes: f64) -> String {
    let units = ["B", "Ki", "Mi", "Gi", "Ti"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 10_000.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.0}{}", units[unit])
}

/// A part of a whole in percent.
pub(crate) fn percent(part: f64, whole: Option<f64>) -> String {
    match whole.filter(|whole| *whole > 0.0) {
        Some(whole) => format!("{:.0}%", part / whole * 100.0),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, cpu_cores: f64, memory_bytes: f64) -> Row {
        Row { name: name.to_owned(), cpu_cores, memory_bytes, ..Row::default() }
    }

    #[test]
    fn the_greediest_come_first_and_equal_ones_by_name() {
        let mut rows = vec![row("b", 1.0, 1.0), row("a", 1.0, 2.0), row("c", 2.0, 0.0)];
        let names = |rows: &[Row]| rows.iter().map(|row| row.name.clone()).collect::<String>();
        for (order, reversed, wanted) in [
            (Order::Cpu, false, "cab"),
            (Order::Memory, false, "abc"),
            (Order::Name, false, "abc"),
            (Order::Cpu, true, "bac"),
        ] {
            sort(&mut rows, order, reversed);
            assert_eq!(names(&rows), wanted, "{order:?}");
        }
        assert_eq!(names(&filtered(rows, "b")), "b");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            (cores(0.0123), bytes(1_048_576.0), bytes(9999.0)),
            ("13m".into(), "1024Ki".into(), "9999B".into())
        );
        assert_eq!((percent(1.0, Some(4.0)), percent(1.0, None)), ("25%".into(), "-".into()));
    }
}
