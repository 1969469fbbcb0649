//! How much memory members have over a long load and after it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use crate::load::Work;
use crate::measure::{self, Means};
use crate::system::{Cluster, System};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(5);
/// In flight: as many as the largest load of the table.
const IN_FLIGHT: usize = 256;

const WIDTH: f64 = 1_120.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 40.0;

/// The largest resident memory of a member, over time.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Whose.
    pub system: System,
    /// Seconds from the beginning of the load, and MiB.
    pub samples: Vec<(f64, f64)>,
    /// When the load ended, in seconds.
    pub idle_from: f64,
    /// Writes that were done.
    pub writes: f64,
}

impl Curve {
    /// Writes without a pause for `load`, then nothing for half as long.
    pub async fn draw(system: System, cluster: &dyn Cluster, means: &Means, load: Duration) -> Result<Self> {
        let means = Means { warm_up: Duration::ZERO, length: load, ..means.clone() };
        let begun = Instant::now();
        let mut samples = Vec::new();
        let mut loaded = std::pin::pin!(measure::throughput(cluster, &means, Work::Write, IN_FLIGHT, 0));
        let mut written = None;
        let mut idle_from = load.as_secs_f64();
        while written.is_none() || begun.elapsed().as_secs_f64() < idle_from * 1.5 {
            samples.push((begun.elapsed().as_secs_f64(), measure::rss_mib(cluster)?));
            tokio::select! {
                run = &mut loaded, if written.is_none() => {
                    written = Some(run?.ops_per_s * load.as_secs_f64());
                    idle_from = begun.elapsed().as_secs_f64();
                }
                // plays somebody who looks now and then
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        Ok(Self { system, samples, idle_from, writes: written.unwrap_or_default() })
    }

    /// The largest value while there was load, the last one, and by how much it grew in the last third, which is idle.
    pub fn figures(&self) -> (f64, f64, f64) {
        let largest = self.samples.iter().map(|(_, mib)| *mib).fold(0.0, f64::max);
        let last = self.samples.last().map_or(0.0, |(_, mib)| *mib);
        // What the load has left to do (a snapshot) is not growth of an idle member.
        let settled = self.idle_from + (self.samples.last().map_or(0.0, |(at, _)| *at) - self.idle_from) * 0.1;
        let first_idle = self.samples.iter().find(|(at, _)| *at >= settled).map_or(last, |(_, mib)| *mib);
        (largest, last, last - first_idle)
    }

    /// For `memory.json`.
    pub fn to_json(&self) -> Value {
        let (largest, last, growth) = self.figures();
        json!({
            "op": "memory", "system": self.system.label(), "unit": "MiB", "largest": largest, "last": last,
            "growth_while_idle": growth, "idle_from_s": self.idle_from, "writes": self.writes.round(),
            "samples": self.samples,
        })
    }
}

/// The curves as an SVG.
pub fn render(curves: &[Curve], machine: &str) -> String {
    let points = || curves.iter().flat_map(|curve| &curve.samples);
    let end = points().map(|(at, _)| *at).fold(1.0, f64::max);
    let most = (points().map(|(_, mib)| *mib).fold(64.0, f64::max) / 16.0).ceil() * 16.0;
    let x = |at: f64| LEFT + (WIDTH - LEFT - 120.0) * at / end;
    let y = |mib: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * mib / most;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="12" y="22" font-size="16" font-weight="bold">Resident memory of the largest member: {IN_FLIGHT} writes in flight, then none</text>
<text x="12" y="40" fill="#555555">{machine}</text>
"##
    );
    // Writing to a String cannot fail.
    for step in 0..=4 {
        let mib = most * f64::from(step) / 4.0;
        let at = y(mib);
        let _ = writeln!(
            svg,
            r##"<line x1="{LEFT}" x2="{}" y1="{at}" y2="{at}" stroke="#dddddd"/><text x="8" y="{}">{mib:.0} MiB</text>"##,
            x(end),
            at + 4.0
        );
    }
    for (number, curve) in curves.iter().enumerate() {
        let colour = ["#0b7285", "#9aa5b1"][number % 2];
        let line: Vec<String> = curve.samples.iter().map(|(at, mib)| format!("{:.1},{:.1}", x(*at), y(*mib))).collect();
        let (_, last, _) = curve.figures();
        let idle = x(curve.idle_from);
        let _ = writeln!(
            svg,
            r##"<polyline fill="none" stroke="{colour}" stroke-width="2" points="{}"/>
<line x1="{idle}" x2="{idle}" y1="{TOP}" y2="{}" stroke="{colour}" stroke-dasharray="4 4"/>
<text x="{}" y="{}" fill="{colour}">{} {last:.0} MiB</text>"##,
            line.join(" "),
            HEIGHT - BOTTOM,
            x(end) + 6.0,
            y(last) + 4.0,
            curve.system.label(),
        );
    }
    let _ = writeln!(svg, r#"<text x="{}" y="{}">{:.0} s</text>"#, x(end) - 20.0, HEIGHT - BOTTOM + 18.0, end);
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_that_of_an_idle_member() {
        let samples = vec![(0.0, 10.0), (50.0, 60.0), (100.0, 40.0), (120.0, 30.0), (150.0, 31.0)];
        let curve = Curve { system: System::Coterie, samples, idle_from: 100.0, writes: 1.0 };
        assert_eq!(curve.figures(), (60.0, 31.0, 1.0));
        let svg = render(&[curve], "here");
        assert!(svg.contains("<polyline") && svg.contains("31 MiB") && svg.ends_with("</svg>\n"), "{svg}");
    }
}
