//! Latency distributions as a picture (SVG). The horizontal axis has percentiles, where each step is a tenth of the
//! remaining requests; the vertical axis has milliseconds. Both are logarithmic.

use std::fmt::Write as _;

/// A distribution.
#[derive(Clone, Debug)]
pub struct Curve {
    /// The name in the picture.
    pub name: String,
    /// Points as [`Latencies::curve`](crate::measure::Latencies::curve) returns them: nines of the percentile, and
    /// milliseconds.
    pub points: Vec<(f64, f64)>,
    /// Whether the line is dashed.
    pub is_dashed: bool,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 540.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 720.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 476.0;

/// Colours that colour-blind readers can distinguish (Okabe and Ito).
const COLORS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a5195", "#b8860b", "#56b4e9", "#555555"];

const PERCENTILES: [(&str, f64); 7] =
    [("10", 0.1), ("50", 0.5), ("90", 0.9), ("95", 0.95), ("99", 0.99), ("99.9", 0.999), ("99.99", 0.9999)];

/// Draws the picture, with a line at `limit` milliseconds.
#[must_use]
pub fn svg(title: &str, subtitle: &str, curves: &[Curve], limit: f64) -> String {
    let nines = curves.iter().flat_map(|curve| &curve.points).map(|point| point.0).fold(1.0, f64::max);
    let values = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.1).filter(|value| *value > 0.0);
    let scale = Scale {
        nines,
        low: step_below(values().fold(limit / 2.0, f64::min)),
        high: step_above(values().fold(limit * 1.5, f64::max)),
    };
    let mut picture = String::new();
    // Writing to a `String` does not fail.
    let _ = draw(&mut picture, title, subtitle, curves, limit, &scale);
    picture
}

fn draw(
    out: &mut String,
    title: &str,
    subtitle: &str,
    curves: &[Curve],
    limit: f64,
    scale: &Scale,
) -> Result<(), std::fmt::Error> {
    write!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="13" fill="#444">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>
<text x="{LEFT}" y="34" font-size="19" font-weight="600" fill="#111">{}</text>
<text x="{LEFT}" y="56">{}</text>
"##,
        escaped(title),
        escaped(subtitle)
    )?;
    for value in steps(scale.low, scale.high) {
        let y = scale.y(value);
        writeln!(
            out,
            r##"<path d="M{LEFT} {y:.1}H{RIGHT}" stroke="#e4e4e4"/><text x="{:.1}" y="{:.1}" text-anchor="end">{value}</text>"##,
            LEFT - 8.0,
            y + 4.5
        )?;
    }
    for (label, share) in PERCENTILES {
        let nines = -(1.0 - share).log10();
        if nines > scale.nines + 0.05 {
            continue;
        }
        let x = scale.x(nines);
        // The percentile of the limit.
        let color = if label == "95" { "#999" } else { "#e4e4e4" };
        writeln!(
            out,
            r#"<path d="M{x:.1} {TOP}V{BOTTOM}" stroke="{color}"/><text x="{x:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#,
            BOTTOM + 20.0
        )?;
    }
    let middle = f64::midpoint(LEFT, RIGHT);
    writeln!(out, r#"<text x="{middle}" y="{:.1}" text-anchor="middle">percentile</text>"#, BOTTOM + 44.0)?;
    writeln!(out, r#"<text x="{LEFT}" y="{:.1}" text-anchor="end">ms</text>"#, TOP - 10.0)?;
    let ends: Vec<_> = curves.iter().map(|curve| curve.points.last().map_or(BOTTOM, |last| scale.y(last.1))).collect();
    let labels = spaced(&ends, 19.0, TOP, BOTTOM);
    for (index, (curve, label)) in curves.iter().zip(labels).enumerate() {
        let color = COLORS[index % COLORS.len()];
        let dashes = if curve.is_dashed { r#" stroke-dasharray="7 4""# } else { "" };
        let mut path = String::new();
        for (index, (nines, value)) in curve.points.iter().enumerate() {
            let letter = if index == 0 { 'M' } else { 'L' };
            write!(path, "{letter}{:.1} {:.1}", scale.x(*nines), scale.y(*value))?;
        }
        writeln!(
            out,
            r#"<path d="{path}" fill="none" stroke="{color}" stroke-width="2.2" stroke-linejoin="round"{dashes}/>"#
        )?;
        if let Some(last) = curve.points.last() {
            let (x, y) = (scale.x(last.0), scale.y(last.1));
            writeln!(
                out,
                r#"<path d="M{x:.1} {y:.1}L{:.1} {label:.1}" stroke="{color}" stroke-opacity=".5" fill="none"/>"#,
                RIGHT + 14.0
            )?;
        }
        writeln!(
            out,
            r#"<text x="{:.1}" y="{:.1}" fill="{color}" font-weight="600">{}</text>"#,
            RIGHT + 19.0,
            label + 4.5,
            escaped(&curve.name)
        )?;
    }
    // Last, so that no curve covers it.
    let y = scale.y(limit);
    writeln!(
        out,
        r##"<path d="M{LEFT} {y:.1}H{RIGHT}" stroke="#c00" stroke-dasharray="2 4"/><text x="{:.1}" y="{:.1}" fill="#c00" stroke="#fff" stroke-width="4" paint-order="stroke">{limit} ms</text>"##,
        LEFT + 6.0,
        y - 6.0
    )?;
    writeln!(out, "</svg>")
}

struct Scale {
    nines: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, nines: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * nines / self.nines
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        BOTTOM - (BOTTOM - TOP) * share
    }
}

/// 1, 2, 5, 10, 20, 50 and so on.
fn steps(low: f64, high: f64) -> Vec<f64> {
    let all = (-3..6).flat_map(|power| [1.0, 2.0, 5.0].map(|digit: f64| digit * 10_f64.powi(power)));
    // 0.1 is not exactly a tenth.
    let all = all.map(|value| (value * 1000.0).round() / 1000.0);
    all.filter(|value| *value >= low * 0.999 && *value <= high * 1.001).collect()
}

fn step_below(value: f64) -> f64 {
    steps(0.0, value.max(0.001)).last().copied().unwrap_or(0.001)
}

fn step_above(value: f64) -> f64 {
    steps(value, f64::INFINITY).first().copied().unwrap_or(1e6)
}

/// Heights of labels, close to the wanted heights, at least `distance` apart, in the same order from top to bottom, and
/// within the bounds as long as there is space.
fn spaced(wanted: &[f64], distance: f64, top: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<_> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut heights = wanted.to_vec();
    let mut least = top;
    for index in &order {
        heights[*index] = heights[*index].max(least);
        least = heights[*index] + distance;
    }
    let mut greatest = bottom;
    for index in order.iter().rev() {
        heights[*index] = heights[*index].min(greatest);
        greatest = heights[*index] - distance;
    }
    heights
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenth_of_the_remaining_requests_has_the_same_width() {
        let scale = Scale { nines: 4.0, low: 1.0, high: 1000.0 };
        let x: Vec<_> = [0.0, 0.9, 0.99, 0.999].map(|share: f64| scale.x(-(1.0 - share).log10())).into();
        assert!((x[0] - LEFT).abs() < 0.01);
        assert!((x[1] - x[0] - (x[2] - x[1])).abs() < 0.01 && (x[2] - x[1] - (x[3] - x[2])).abs() < 0.01);
        assert!((scale.y(1.0) - BOTTOM).abs() < 0.01 && (scale.y(1000.0) - TOP).abs() < 0.01);
        assert!((scale.y(10.0) - scale.y(100.0) - (scale.y(100.0) - TOP)).abs() < 0.01);
    }

    #[test]
    fn the_axis_covers_all_values_and_the_limit() {
        assert_eq!((step_below(3.7), step_above(3.7)), (2.0, 5.0));
        assert_eq!((step_below(200.0), step_above(200.0)), (200.0, 200.0));
        assert_eq!(steps(1.0, 20.0), [1.0, 2.0, 5.0, 10.0, 20.0]);
        let curve = Curve { name: "a & b".into(), points: vec![(0.0, 3.0), (2.0, 60.0)], is_dashed: false };
        let picture = svg("title", "<sub>", &[curve], 200.0);
        assert!(picture.contains(">200 ms<") && picture.contains(">2<") && !picture.contains(">1000<"), "{picture}");
        assert!(picture.contains("a &amp; b") && picture.contains("&lt;sub&gt;"));
        assert!(picture.contains(">99<") && !picture.contains(">99.9<"));
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
    }

    #[test]
    fn a_picture_without_curves_is_valid() {
        let empty = Curve { name: "none".into(), points: Vec::new(), is_dashed: true };
        let zero = Curve { name: "zero".into(), points: vec![(0.0, 0.0)], is_dashed: true };
        for curves in [&[][..], &[empty, zero]] {
            let picture = svg("title", "", curves, 200.0);
            assert!(!picture.contains("NaN") && !picture.contains("inf") && picture.ends_with("</svg>\n"));
        }
    }

    #[test]
    fn labels_keep_their_distance_and_their_order() {
        let heights = spaced(&[100.0, 101.0, 99.0, 470.0, 475.0], 19.0, 84.0, 476.0);
        assert!(heights[2] < heights[0] && heights[0] < heights[1] && heights[3] < heights[4]);
        let mut sorted = heights.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] >= 18.99), "{heights:?}");
        assert!(sorted[0] >= 84.0 && sorted[4] <= 476.0);
    }
}
