//! Rows as lines of text, and as JSON.

use super::rows::{Kind, Row, bytes, cores, percent};

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// A table.
    Table,
    /// A table that says too when and over which time was measured.
    Wide,
    /// A JSON list.
    Json,
}

/// The titles of the columns.
pub(crate) fn titles(kind: Kind, wide: bool) -> Vec<&'static str> {
    let mut titles = match kind {
        Kind::Nodes => vec!["NAME", "CPU", "CPU%", "MEMORY", "MEMORY%"],
        Kind::Pods => vec!["NAMESPACE", "NAME", "CPU", "MEMORY"],
        Kind::Containers => vec!["NAMESPACE", "POD", "NAME", "CPU", "MEMORY"],
    };
    if wide {
        titles.extend(["MEASURED", "WINDOW"]);
    }
    titles
}

/// A row's texts, one for each title.
pub(crate) fn cells(row: &Row, kind: Kind, wide: bool) -> Vec<String> {
    let (cpu, memory) = (cores(row.cpu_cores), bytes(row.memory_bytes));
    let mut cells = match kind {
        Kind::Nodes => vec![
            row.name.clone(),
            cpu,
            percent(row.cpu_cores, row.cpu_capacity_cores),
            memory,
            percent(row.memory_bytes, row.memory_capacity_bytes),
        ],
        Kind::Pods => vec![row.namespace.clone(), row.name.clone(), cpu, memory],
        Kind::Containers => {
            vec![row.namespace.clone(), row.name.clone(), row.container.clone(), cpu, memory]
        }
    };
    if wide {
        let measured = jiff::Timestamp::from_millisecond(row.timestamp_ms).unwrap_or_default();
        cells.extend([measured.to_string(), model::duration::format_ms(row.window_ms)]);
    }
    cells
}

/// All rows as text that ends with a line feed.
pub(crate) fn text(rows: &[Row], kind: Kind, output: Output) -> String {
    if output == Output::Json {
        return serde_json::to_string_pretty(rows).unwrap_or_default() + "\n";
    }
    let wide = output == Output::Wide;
    let mut lines = vec![titles(kind, wide).into_iter().map(str::to_owned).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| cells(row, kind, wide)));
    let columns = lines[0].len();
    let widths: Vec<usize> =
        (0..columns).map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for line in lines {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(padded.join("   ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |name: &str, cpu_cores: f64| Row {
            name: name.to_owned(),
            cpu_cores,
            memory_bytes: 2_097_152.0,
            cpu_capacity_cores: Some(2.0),
            ..Row::default()
        };
        let rows = [row("a-node", 0.5), row("b", 0.0)];
        let wanted = "NAME     CPU    CPU%   MEMORY   MEMORY%\na-node   500m   25%    2048Ki   -\n\
                      b        0m     0%     2048Ki   -\n";
        assert_eq!(text(&rows, Kind::Nodes, Output::Table), wanted);
        let json: Vec<serde_json::Value> =
            serde_json::from_str(&text(&rows, Kind::Nodes, Output::Json)).unwrap();
        assert_eq!((json.len(), &json[0]["cpu_cores"]), (2, &0.5.into()));
        let wide = text(&rows[..1], Kind::Nodes, Output::Wide);
        assert!(wide.ends_with("1970-01-01T00:00:00Z   0s\n"), "{wide}");
    }
}
