//! A curve a model, as SVG: what a picture costs to the right, how far it is from real ones upwards.

use std::fmt::Write;

const WIDTH: f64 = 680.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 48.0;
/// Colours that the colour-blind tell apart (Okabe and Ito).
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
];

/// A model's points: cost, value, and what stands beside it.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64, String)>,
}

/// `curves` over a logarithmic axis of costs in milliseconds; empty where there is no point.
pub(super) fn svg(curves: &[Curve], value_name: &str) -> String {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    if points().next().is_none() {
        return String::new();
    }
    let (x_low, x_high) = extent(points().map(|(cost, ..)| cost.max(1e-3).log10()), 0.1);
    let (y_low, y_high) = extent(points().map(|(_, value, _)| *value), 0.0);
    let x = |cost: f64| LEFT + (cost.max(1e-3).log10() - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} against latency\">\n",
        escaped(value_name)
    );
    for step in 0..=4 {
        let part = f64::from(step) / 4.0;
        let (value, cost) = (
            y_low + part * (y_high - y_low),
            10f64.powf(x_low + part * (x_high - x_low)),
        );
        let (across, down) = (y(value), x(cost));
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{across:.1}\" y2=\"{across:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{down:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            across + 4.0,
            short(value),
            HEIGHT - BOTTOM + 18.0,
            short(cost)
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">milliseconds a picture</text>\
         <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 8.0,
        (TOP + HEIGHT - BOTTOM) / 2.0,
        escaped(value_name)
    );
    for (number, curve) in curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let line: Vec<String> = curve
            .points
            .iter()
            .map(|(cost, value, _)| format!("{:.1},{:.1}", x(*cost), y(*value)))
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        for (cost, value, label) in &curve.points {
            let (at, up) = (x(*cost), y(*value));
            let _ = writeln!(
                out,
                "<circle cx=\"{at:.1}\" cy=\"{up:.1}\" r=\"4\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                at + 7.0,
                up - 6.0,
                escaped(label)
            );
        }
        let line = TOP + 16.0 + 20.0 * number as f64;
        let _ = writeln!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{line:.1}\">{}</text>",
            WIDTH - RIGHT + 20.0,
            line - 4.0,
            WIDTH - RIGHT + 30.0,
            escaped(&curve.name)
        );
    }
    out.push_str("</svg>\n");
    out
}

/// The range of `values` with some room around it.
fn extent(values: impl Iterator<Item = f64>, least: f64) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    let room = (0.08 * (high - low)).max(least).max(1e-3 * high.abs()).max(1e-9);
    (low - room, high + room)
}

/// Three figures.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// As text of a page.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_drawn_within_the_picture_and_names_are_escaped() {
        let curves = [
            Curve {
                name: "a & b".to_owned(),
                points: vec![(10.0, 0.5, "1".to_owned()), (1000.0, 0.2, "4".to_owned())],
            },
            Curve {
                name: "c".to_owned(),
                points: vec![(50.0, 0.9, "1".to_owned())],
            },
        ];
        let svg = svg(&curves, "distance");
        assert_eq!(
            (svg.matches("<circle").count(), svg.matches("<polyline").count()),
            (5, 2)
        );
        assert!(svg.contains("a &amp; b") && !svg.contains("NaN") && !svg.contains("inf"));
        let ups: Vec<f64> = svg
            .split("cy=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert!(ups.iter().all(|up| (0.0..=HEIGHT).contains(up)), "{ups:?}");
        // The nearest to real ones lies lowest.
        assert!(ups[1] > ups[0]);
        assert!(super::svg(&[], "x").is_empty());
        let one = [Curve {
            name: "c".to_owned(),
            points: vec![(50.0, 0.0, "1".to_owned())],
        }];
        assert!(!super::svg(&one, "x").contains("NaN"));
    }
}
