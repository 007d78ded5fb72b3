//! Lines over logarithmic axes, as SVG.

use std::fmt::Write as _;

pub struct Plot<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
    /// Name and points of each line.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
    /// The x axis counts in tens, as the y axis always does.
    pub log_x: bool,
}

const WIDTH_PX: f64 = 640.0;
const HEIGHT_PX: f64 = 400.0;
const LEFT_PX: f64 = 70.0;
const RIGHT_PX: f64 = 150.0;
const TOP_PX: f64 = 40.0;
const BOTTOM_PX: f64 = 50.0;
/// Okabe and Ito's colours, which most people tell apart.
const COLOURS: [&str; 7] = [
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555",
];

impl Plot<'_> {
    pub fn svg(&self) -> String {
        let points = || {
            self.lines
                .iter()
                .flat_map(|(_, points)| points)
                .filter(|(_, y)| y.is_finite())
        };
        let to_x = |x: f64| if self.log_x { x.log10() } else { x };
        let span = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)))
        };
        let (x0, x1) = span(&mut points().map(|(x, _)| to_x(*x)));
        let (y0, y1) = span(&mut points().map(|(_, y)| y.log10()));
        let (y0, y1) = (y0.floor(), y1.ceil());
        let px = |x: f64| LEFT_PX + (to_x(x) - x0) / (x1 - x0) * (WIDTH_PX - LEFT_PX - RIGHT_PX);
        let py = |y: f64| HEIGHT_PX - BOTTOM_PX - (y.log10() - y0) / (y1 - y0) * (HEIGHT_PX - TOP_PX - BOTTOM_PX);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH_PX} {HEIGHT_PX}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{LEFT_PX}\" y=\"24\" font-size=\"15\">{}</text>\n",
            self.title
        );
        for tens in y0 as i32..=y1 as i32 {
            let (value, y) = (10f64.powi(tens), py(10f64.powi(tens)));
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT_PX} {y:.1}H{}\" stroke=\"#ccc\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                WIDTH_PX - RIGHT_PX,
                LEFT_PX - 6.0,
                y + 4.0
            );
        }
        let mut ticks: Vec<f64> = points().map(|(x, _)| *x).collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        let mut last = f64::NEG_INFINITY;
        for x in ticks {
            // As many as have room.
            if px(x) - last < 36.0 {
                continue;
            }
            last = px(x);
            let _ = writeln!(
                out,
                "<text x=\"{last:.1}\" y=\"{}\" text-anchor=\"middle\">{x}</text>",
                HEIGHT_PX - BOTTOM_PX + 18.0
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(18 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT_PX, WIDTH_PX - RIGHT_PX),
            HEIGHT_PX - 10.0,
            self.x,
            HEIGHT_PX / 2.0,
            self.y
        );
        for (i, (name, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let places = points.iter().filter(|(_, y)| y.is_finite());
            let places: Vec<String> = places.map(|(x, y)| format!("{:.1},{:.1}", px(*x), py(*y))).collect();
            let y = TOP_PX + 10.0 + 20.0 * i as f64;
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
                 <path d=\"M{} {y}h18\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{}\" y=\"{}\">{name}</text>",
                places.join(" "),
                WIDTH_PX - RIGHT_PX + 12.0,
                WIDTH_PX - RIGHT_PX + 36.0,
                y + 4.0
            );
        }
        out + "</svg>\n"
    }
}
