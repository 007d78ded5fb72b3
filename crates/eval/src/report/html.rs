//! The report as a page.

use super::chart::{Curve, escaped, svg};
use super::{Measured, Report};
use crate::Error;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prima_picture::{Format, encode};
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
table{border-collapse:collapse}td,th{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}svg{max-width:720px;width:100%}svg text{font:12px system-ui,sans-serif;fill:#222}\
.grid{stroke:#ddd}figure{margin:1.5rem 0}figure img{max-width:100%}";

/// A page with all of `report` in it: numbers, curves and contact sheets; it loads nothing.
pub fn html(report: &Report) -> Result<String, Error> {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>prima eval report</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n\
         <h1>prima eval report</h1>\n<p>{}</p>\n",
        escaped(&about(report))
    );
    page.push_str(&table(report));
    let by_distance = |m: &Measured| m.distances.map(|distances| distances.frechet);
    for (title, value) in [
        (
            "Frechet distance (less is nearer to the real pictures)",
            &by_distance as &dyn Fn(&Measured) -> Option<f64>,
        ),
        ("CLIP score (more fits the words better)", &|m: &Measured| m.clip_score),
        ("Diversity of one prompt (more is more varied)", &|m: &Measured| {
            m.diversity
        }),
    ] {
        let chart = svg(&curves(&report.results, value), title);
        if !chart.is_empty() {
            let _ = write!(page, "<h2>{title}</h2>\n{chart}");
        }
    }
    page.push_str("<h2>Pictures</h2>\n");
    for result in &report.results {
        let sheet = encode(&result.sheet, Format::Png, 90, None)?;
        let caption = format!("{}, {} steps", result.model, result.steps);
        let _ = writeln!(
            page,
            "<figure><figcaption>{0}</figcaption><img alt=\"Contact sheet of {0}\" src=\"data:image/png;base64,{1}\"></figure>",
            escaped(&caption),
            BASE64_STANDARD.encode(sheet)
        );
    }
    page.push_str("</body></html>\n");
    Ok(page)
}

fn about(report: &Report) -> String {
    let real = match &report.real {
        Some((name, count)) => format!("Distances from {count} pictures of {name}; "),
        None => String::new(),
    };
    format!(
        "{} prompts, {} seeds each. {real}features: {}. Distances depend on how many pictures there are: compare none of different \
         numbers. Latency is the median of a picture, painted alone, with its text and its decoding.",
        report.prompts, report.seeds, report.features
    )
}

fn table(report: &Report) -> String {
    let heads = [
        "model",
        "steps",
        "ms a picture",
        "Frechet",
        "kernel",
        "precision",
        "recall",
        "patch Frechet",
        "CMMD",
        "CLIP score",
        "diversity",
    ];
    let heads = heads.join("</th><th>");
    let mut rows = String::new();
    for result in &report.results {
        let of = |value: Option<f64>, digits: usize| value.map_or("–".to_owned(), |v| format!("{v:.digits$}"));
        let distances = result.distances;
        let cells = [
            escaped(&result.model),
            result.steps.to_string(),
            format!("{:.1}", result.latency_ms),
            of(distances.map(|d| d.frechet), 4),
            of(distances.map(|d| d.kernel[0]), 5),
            of(distances.map(|d| d.precision), 3),
            of(distances.map(|d| d.recall), 3),
            of(result.patch_frechet, 3),
            of(result.cmmd, 4),
            of(result.clip_score, 2),
            of(result.diversity, 4),
        ];
        let _ = writeln!(rows, "<tr><td>{}</td></tr>", cells.join("</td><td>"));
    }
    format!("<table><thead><tr><th>{heads}</th></tr></thead><tbody>\n{rows}</tbody></table>\n")
}

/// A curve a model, in the order of the results.
fn curves(results: &[Measured], value: &dyn Fn(&Measured) -> Option<f64>) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for result in results {
        let Some(value) = value(result) else { continue };
        let point = (result.latency_ms, value, result.steps.to_string());
        match curves.iter_mut().find(|curve| curve.name == result.model) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve {
                name: result.model.clone(),
                points: vec![point],
            }),
        }
    }
    for curve in &mut curves {
        curve.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    curves
}

#[cfg(test)]
mod tests {
    use crate::report::tests::report;

    #[test]
    fn the_page_has_numbers_curves_and_pictures_and_loads_nothing() {
        let page = super::html(&report()).unwrap();
        assert_eq!((page.matches("<svg").count(), page.matches("<figure>").count()), (3, 3));
        assert!(
            page.contains("one &amp; two")
                && page.contains("pictures &lt;of&gt; birds")
                && page.contains("<td>0.5000</td>")
                && page.contains("<td>12.500</td><td>–</td><td>26.25</td>")
        );
        assert!(!page.contains("http") && !page.contains("<script"));
    }
}
