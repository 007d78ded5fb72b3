//! What the models of a table are worth, and the page that says so.

use super::{Args, Trained, read_json, said, write_json, write_whole};
use crate::run;
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// A model at a number of steps.
#[derive(Serialize)]
pub struct Measured {
    name: String,
    steps: usize,
    /// Of training: CPU minutes, steps, and CPU seconds a step.
    minutes: Option<f64>,
    training_steps: Option<u64>,
    cpu_s_a_step: Option<f64>,
    latency_ms: Option<f64>,
    frechet: Option<f64>,
    kernel: Option<f64>,
    diversity: Option<f64>,
    /// Per cent of all that the judge was asked.
    accuracy: Option<f64>,
}

/// Measures what was not measured before.
pub fn measured(trained: &Trained, args: &Args, prima: &Path) -> Result<Vec<Measured>> {
    let steps: Vec<String> = trained.steps.iter().map(usize::to_string).collect();
    let steps = steps.join(",");
    let report = trained.folder.join("report.json");
    if !report.exists() {
        let mut eval = Command::new(prima);
        eval.args([
            "eval",
            "report",
            "--steps",
            &steps,
            "--prompts",
            &args.prompts,
            "--model",
        ])
        .arg(&trained.model)
        .args([
            "--count",
            &args.count.to_string(),
            "--seeds",
            &args.seeds.to_string(),
            "--features",
        ])
        .arg(&args.features)
        .arg("-o")
        .arg(trained.folder.join("report.html"));
        if let Some(real) = &args.real {
            eval.arg("--real").arg(real);
        }
        run(&mut eval)?;
    }
    let quality = trained.folder.join("quality.json");
    if let Some(judge) = args.judge.as_ref().filter(|_| !quality.exists()) {
        let mut eval = Command::new(prima);
        eval.args([
            "eval", "quality", "--json", "--seeds", "1", "--steps", &steps, "--judge",
        ])
        .arg(judge)
        .arg("--features")
        .arg(&args.features)
        .arg("--model")
        .arg(&trained.model);
        write_whole(&quality, &said(&mut eval)?)?;
    }
    let report = read_json(&report)?;
    let quality = if quality.exists() {
        read_json(&quality)?
    } else {
        Value::Null
    };
    let results = report["results"].as_array().context("a report has no results")?;
    Ok(results.iter().map(|result| row(trained, result, &quality)).collect())
}

fn row(trained: &Trained, result: &Value, quality: &Value) -> Measured {
    let steps = result["steps"].as_u64().unwrap_or_default();
    let judged = quality["results"].as_array().into_iter().flatten();
    let mut judged = judged.filter(|judged| judged["steps"].as_u64() == Some(steps));
    let plan = trained.plan.as_ref();
    Measured {
        name: trained.name.clone(),
        steps: steps as usize,
        minutes: plan.map(|plan| plan.minutes),
        training_steps: plan.map(|plan| plan.steps),
        cpu_s_a_step: plan.map(|plan| plan.cpu_s_a_step),
        latency_ms: result["latency_ms"].as_f64(),
        frechet: result["distances"]["frechet"].as_f64(),
        kernel: result["distances"]["kernel"][0].as_f64(),
        diversity: result["diversity"].as_f64(),
        accuracy: judged.find_map(accuracy),
    }
}

fn accuracy(judged: &Value) -> Option<f64> {
    let (mut right, mut pictures) = (0.0, 0.0);
    for question in judged["questions"].as_array()? {
        let count = question["pictures"].as_f64()?;
        right += question["right"].as_f64()? * count;
        pictures += count;
    }
    (pictures > 0.0).then(|| right / pictures)
}

/// The page, and the numbers beside it.
pub fn write(rows: &[Measured], args: &Args) -> Result<()> {
    let numbers = json!({
        "cpu_minutes": args.minutes, "prompts": args.count, "seeds": args.seeds, "real": args.real.is_some(), "rows": rows,
    });
    write_json(&args.output.with_extension("json"), &numbers)?;
    write_whole(&args.output, page(rows, args.minutes).as_bytes())
}

fn page(rows: &[Measured], minutes: f64) -> String {
    let mut page = format!(
        "# Students of one teacher\n\nMade by `cargo xtask table`: {minutes} CPU minutes of training for each student, its steps settled \
         by a short run over the method's whole schedule. Distances are in the features that `prima eval report` was given; accuracy \
         is the share of all answers that the judge finds right, diversity the mean distance of two seeds of a prompt. A dash is \
         what was not measured. Latency is that of the machine as it was.\n\n\
         | model | steps | training steps | Frechet | kernel | accuracy % | diversity | ms a picture |\n\
         |---|---|---|---|---|---|---|---|\n"
    );
    let of = |value: Option<f64>, digits: usize| value.map_or("–".to_owned(), |v| format!("{v:.digits$}"));
    for row in rows {
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            row.steps,
            row.training_steps.map_or("–".to_owned(), |steps| steps.to_string()),
            of(row.frechet, 4),
            of(row.kernel, 5),
            of(row.accuracy, 1),
            of(row.diversity, 4),
            of(row.latency_ms, 1),
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_answers_of_its_number_of_steps_and_dashes_for_the_rest() {
        let trained = Trained {
            name: "lcm".to_owned(),
            folder: "x".into(),
            model: "y".into(),
            steps: vec![1, 2],
            plan: None,
        };
        let quality = json!({ "results": [
            { "steps": 1, "questions": [{ "pictures": 3, "right": 100.0 }, { "pictures": 1, "right": 20.0 }] },
            { "steps": 2, "questions": [{ "pictures": 4, "right": 50.0 }] },
        ] });
        let result = json!({ "steps": 1, "latency_ms": 12.34, "distances": null, "diversity": 0.5 });
        let row = row(&trained, &result, &quality);
        assert_eq!(row.accuracy, Some(80.0));
        let page = page(&[row], 3.0);
        assert!(
            page.ends_with("| lcm | 1 | – | – | – | 80.0 | 0.5000 | 12.3 |\n"),
            "{page}"
        );
    }
}
