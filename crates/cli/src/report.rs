//! What `prima paint` says when it has painted.

use crate::out::{note, say};
use prima_pipeline::{Medians, Response};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// What the pipeline cannot see of the time that passed.
pub struct Times {
    pub load: Duration,
    pub encode: Duration,
    pub total: Duration,
    pub warm: Option<Medians>,
}

/// Warnings and times on stderr, the files on stdout.
pub fn print(response: &Response, files: &[&Path], times: &Times) -> anyhow::Result<()> {
    for warning in &response.warnings {
        note!("warning: {warning}");
    }
    let steps = response.timesteps.len();
    let plural = if steps == 1 { "" } else { "s" };
    note!(
        "seed {}, {steps} step{plural}, {:.2} s",
        response.seed,
        times.total.as_secs_f64()
    );
    if let Some(warm) = &times.warm {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        note!(
            "warm, median of {}: {:.1} ms (text {:.1}, steps {:.1}, decode {:.1}, encode {:.1})",
            warm.paintings,
            ms(warm.total),
            ms(warm.text),
            ms(warm.steps),
            ms(warm.decode),
            ms(warm.encode)
        );
    }
    for file in files {
        say!("{}", file.display());
    }
    Ok(())
}

/// The same and more in one object.
pub fn json(response: &Response, files: &[&Path], model: &str, times: &Times) -> Value {
    let ms = |d: &Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
    let t = &response.timings;
    let steps: Vec<f64> = t.steps.iter().map(ms).collect();
    let files: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    let size = response
        .pictures
        .first()
        .map(|p| (p.width, p.height))
        .unwrap_or_default();
    json!({
        "file": files.first(),
        "files": files,
        "model": model,
        "seed": response.seed,
        "width": size.0,
        "height": size.1,
        "num_inference_steps": response.num_inference_steps,
        "guidance_scale": response.guidance_scale,
        "scheduler": response.scheduler.class_name(),
        "timestep_spacing": response.timestep_spacing,
        "strength": response.strength,
        "timesteps": response.timesteps,
        "sigmas": response.sigmas,
        "timings_ms": {
            "load": ms(&times.load),
            "text": ms(&t.text),
            "init_image": ms(&t.init_image),
            "steps": steps,
            "decode": ms(&t.decode),
            "encode": ms(&times.encode),
            "total": ms(&times.total),
        },
        "warm_ms": times.warm.as_ref().map(|w| json!({
            "pictures": w.paintings,
            "text": ms(&w.text),
            "steps": ms(&w.steps),
            "decode": ms(&w.decode),
            "encode": ms(&w.encode),
            "total": ms(&w.total),
        })),
        "warnings": response.warnings,
    })
}
