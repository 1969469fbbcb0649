//! The results as an SVG: rates and 99th percentiles, on logarithmic scales, a pair of bars for each row.

use std::fmt::Write as _;

use crate::results::{Results, Row};
use crate::system::System;
use crate::table::thousands;

const WIDTH: f64 = 1_120.0;
const LABELS: f64 = 250.0;
const PANEL: f64 = 330.0;
const GAP: f64 = 95.0;
const ROW: f64 = 40.0;
const BAR: f64 = 14.0;
const TOP: f64 = 74.0;
const ETCD: &str = "#9aa5b1";
const COTERIE: &str = "#0b7285";

struct Bar {
    value: f64,
    text: String,
}

/// The plot of all rows; `machine` says where and when.
pub fn render(results: &Results, machine: &str) -> String {
    let rows = results.rows();
    let height = TOP + ROW * rows.len() as f64 + 20.0;
    let mut svg = String::new();
    let mut line = |text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(svg, "{text}");
    };
    line(format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="12" y="22" font-size="16" font-weight="bold">Coterie and etcd, the same load in the same run</text>
<text x="12" y="40" fill="#555555">{}</text>
<rect x="{LABELS}" y="48" width="10" height="10" fill="{COTERIE}"/><text x="{}" y="57">Coterie</text>
<rect x="{}" y="48" width="10" height="10" fill="{ETCD}"/><text x="{}" y="57">etcd</text>
<text x="{}" y="57" font-weight="bold">per second: more is better</text>
<text x="{}" y="57" font-weight="bold">99th percentile, ms: less is better</text>"##,
        escape(machine),
        LABELS + 14.0,
        LABELS + 70.0,
        LABELS + 84.0,
        LABELS + 130.0,
        LABELS + PANEL + GAP,
    ));
    let rate = |row: &Row, system| {
        let summary = results.summary(*row, system)?;
        Some(Bar { value: summary.ops_per_s, text: thousands(summary.ops_per_s) })
    };
    let tail = |row: &Row, system| {
        let summary = results.summary(*row, system)?;
        Some(Bar { value: summary.p99_us, text: format!("{:.2}", summary.p99_us / 1_000.0) })
    };
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + ROW * number as f64;
        let tls = if row.peer_tls { ", mTLS" } else { "" };
        line(format!(r#"<text x="12" y="{}">{} {}{tls}</text>"#, y + 18.0, row.op.label(), row.in_flight));
    }
    line(panel(&rows, LABELS, rate));
    line(panel(&rows, LABELS + PANEL + GAP, tail));
    line("</svg>".to_owned());
    svg
}

fn panel(rows: &[Row], x: f64, value: impl Fn(&Row, System) -> Option<Bar>) -> String {
    let bars: Vec<[Option<Bar>; 2]> =
        rows.iter().map(|row| [value(row, System::Coterie), value(row, System::Etcd)]).collect();
    let values = || bars.iter().flatten().flatten().map(|bar| bar.value).filter(|value| *value > 0.0);
    // Whole decades, so that the bars' lengths can be compared between plots.
    let least = values().fold(f64::MAX, f64::min).log10().floor();
    let most = values().fold(0.0, f64::max).log10().ceil();
    let width = |value: f64| {
        let share = (value.log10() - least) / (most - least).max(1.0);
        (PANEL * share).clamp(1.0, PANEL)
    };
    let mut svg = String::new();
    for (number, pair) in bars.iter().enumerate() {
        for (place, (bar, colour)) in pair.iter().zip([COTERIE, ETCD]).enumerate() {
            let Some(bar) = bar.as_ref().filter(|bar| bar.value > 0.0) else { continue };
            let (y, width) = (TOP + ROW * number as f64 + BAR * place as f64, width(bar.value));
            // Writing to a String cannot fail.
            let _ = writeln!(
                svg,
                r#"<rect x="{x}" y="{y}" width="{width:.1}" height="{}" fill="{colour}"/><text x="{:.1}" y="{}">{}</text>"#,
                BAR - 1.0,
                x + width + 4.0,
                y + 11.0,
                bar.text,
            );
        }
    }
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
