//! `prima models quantize`: a model to the same model in 8 bits.

use crate::bar::Bar;
use crate::out::{note, say};
use crate::{Usage, source};
use anyhow::Result;
use prima_pipeline::{LayerReport, Quantization, QuantizeStage, quantize};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

#[derive(clap::Args)]
pub struct Args {
    /// `embedded`, a diffusers folder, or a single-file checkpoint
    from: String,
    /// The folder to write, which must not be there yet or be empty
    to: PathBuf,
    /// Weights and activations of 8 bits
    #[arg(long, required = true)]
    int8: bool,
    /// A layer whose products are further off than this, in parts of their own size, stays in bf16
    #[arg(long, value_name = "X", default_value_t = Quantization::default().max_error)]
    max_error: f64,
    /// Print one JSON object: every layer and its error
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    if !(0.0..=1.0).contains(&args.max_error) {
        return Err(Usage(format!("--max-error {} is not possible: use 0 to 1", args.max_error)).into());
    }
    let taken = std::fs::read_dir(&args.to).is_ok_and(|mut entries| entries.next().is_some());
    if taken || args.to.is_file() {
        let message = format!("{} is there already: name a new folder", args.to.display());
        return Err(Usage(message).into());
    }
    let source = source::open(Some(&args.from))?;
    let bar = Bar::new();
    let asked = Quantization {
        max_error: args.max_error,
    };
    let layers = quantize(&source, &args.to, asked, &mut |stage| {
        bar.say(match stage {
            QuantizeStage::Reading(_) => "reading",
            QuantizeStage::Measuring => "measuring",
            QuantizeStage::Writing(_) => "writing",
        });
    })?;
    bar.finish();
    if args.json {
        let kept = |int8: bool| layers.iter().filter(|layer| layer.int8 == int8).count();
        let report = json!({
            "model": args.to,
            "int8": kept(true),
            "bf16": kept(false),
            "seconds": start.elapsed().as_secs_f64(),
            "layers": layers,
        });
        say!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    tell(&layers);
    say!("{}", args.to.display());
    Ok(())
}

/// The layers that stayed as they were, and how far off the others are.
fn tell(layers: &[LayerReport]) {
    for layer in layers.iter().filter(|layer| !layer.int8) {
        let error = layer.error.unwrap_or(0.0);
        note!(
            "{}/{} stays in bf16: in 8 bits it is {:.1} % off",
            layer.component,
            layer.key,
            100.0 * error
        );
    }
    let mut errors: Vec<f64> = layers
        .iter()
        .filter(|layer| layer.int8)
        .filter_map(|layer| layer.error)
        .collect();
    errors.sort_by(f64::total_cmp);
    if let Some(median) = errors.get(errors.len() / 2) {
        let worst = errors.last().unwrap_or(median);
        note!(
            "{} of {} layers in 8 bits, {:.1} % off in the median and {:.1} % at most",
            layers.iter().filter(|layer| layer.int8).count(),
            layers.len(),
            100.0 * median,
            100.0 * worst
        );
    }
}
