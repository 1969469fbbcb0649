//! The table for people.

use comfy_table::{CellAlignment, Table, presets};

use crate::results::{Figure, Op, Results, Row, Summary};
use crate::system::System;

/// Both tables, one for each kind of connection between peers.
pub fn render(results: &Results) -> String {
    let mut text = String::new();
    for peer_tls in [false, true] {
        let rows: Vec<Row> = results.rows().into_iter().filter(|row| row.peer_tls == peer_tls).collect();
        let figures: Vec<Figure> = results.figures().into_iter().filter(|figure| figure.peer_tls == peer_tls).collect();
        if rows.is_empty() && figures.is_empty() {
            continue;
        }
        text += if peer_tls { "\nPeers with mTLS\n\n" } else { "\nPeers without TLS\n\n" };
        if !rows.is_empty() {
            text += &format!("{}\n", loads(results, &rows));
        }
        if !figures.is_empty() {
            text += &format!("\n{}\n", singles(results, &figures));
        }
    }
    text
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn loads(results: &Results, rows: &[Row]) -> Table {
    let mut table = table(&[
        "operation, in flight",
        "etcd/s",
        "spread",
        "p50 ms",
        "p99 ms",
        "flush/op",
        "CPU us",
        "coterie/s",
        "spread",
        "p50 ms",
        "p99 ms",
        "flush/op",
        "CPU us",
        "times as many",
        "p99 part",
    ]);
    for row in rows {
        let (etcd, coterie) = (results.summary(*row, System::Etcd), results.summary(*row, System::Coterie));
        let mut cells = vec![format!("{} {}", row.op.label(), row.in_flight)];
        cells.extend(of(row.op, etcd));
        cells.extend(of(row.op, coterie));
        let ratios = coterie.zip(results.reference(*row)).map(|(coterie, etcd)| {
            let p99 = if etcd.p99_us > 0.0 { coterie.p99_us / etcd.p99_us } else { f64::NAN };
            [format!("{:.1}", coterie.ops_per_s / etcd.ops_per_s), format!("{p99:.2}")]
        });
        cells.extend(ratios.unwrap_or_default());
        table.add_row(cells);
    }
    table
}

fn of(op: Op, summary: Option<Summary>) -> [String; 6] {
    let Some(summary) = summary else { return Default::default() };
    let flushes = match summary.is_durable(op) {
        Some(false) => "NOT DURABLE".to_owned(),
        Some(true) => format!("{:.3}", summary.flushes_per_op),
        None => "-".to_owned(),
    };
    let failed = if summary.failed > 0 { format!(" ({} FAILED)", summary.failed) } else { String::new() };
    [
        format!("{}{failed}", thousands(summary.ops_per_s)),
        format!("{}-{}", thousands(summary.least_ops_per_s), thousands(summary.most_ops_per_s)),
        format!("{:.3}", summary.p50_us / 1_000.0),
        format!("{:.3}", summary.p99_us / 1_000.0),
        flushes,
        format!("{:.0}", summary.cpu_us_per_op),
    ]
}

fn singles(results: &Results, figures: &[Figure]) -> Table {
    let mut table = table(&["figure", "unit", "etcd", "p99", "coterie", "p99", "part of etcd's"]);
    for figure in figures {
        let [etcd, coterie] = [System::Etcd, System::Coterie].map(|system| results.figure(*figure, system));
        let cells = |values: Option<(f64, f64)>| {
            values.map_or_else(Default::default, |(median, p99)| [format!("{median:.1}"), format!("{p99:.1}")])
        };
        let ratio = coterie.zip(etcd).filter(|(_, etcd)| etcd.0 > 0.0);
        let ratio = ratio.map(|(coterie, etcd)| format!("{:.2}", coterie.0 / etcd.0)).unwrap_or_default();
        let mut row = vec![figure.what.label().to_owned(), figure.what.unit().to_owned()];
        row.extend(cells(etcd).into_iter().chain(cells(coterie)).chain([ratio]));
        table.add_row(row);
    }
    table
}

/// 12345.6 as `12,346`.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0.4, 999.0, 1_000.0, 1_234_567.8].map(thousands), ["0", "999", "1,000", "1,234,568"]);
    }
}
