//! `prima models quantize`: a model to the same model in 8 or 4 bits.

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
    /// Weights of 8 bits
    #[arg(long, required_unless_present = "int4", conflicts_with = "int4")]
    int8: bool,
    /// Weights of 4 bits, the autoencoder's of 8
    #[arg(long)]
    int4: bool,
    /// A layer whose products are further off than this, in parts of their own size, stays in more bits [default: 0.04, of 4
    /// bits 0.16]
    #[arg(long, value_name = "X")]
    max_error: Option<f64>,
    /// Print one JSON object: every layer and its error
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let mut asked = Quantization::of_bits(if args.int4 { 4 } else { 8 });
    if let Some(max_error) = args.max_error {
        if !(0.0..=1.0).contains(&max_error) {
            return Err(Usage(format!("--max-error {max_error} is not possible: use 0 to 1")).into());
        }
        asked.max_error = max_error;
    }
    let taken = std::fs::read_dir(&args.to).is_ok_and(|mut entries| entries.next().is_some());
    if taken || args.to.is_file() {
        let message = format!("{} is there already: name a new folder", args.to.display());
        return Err(Usage(message).into());
    }
    let source = source::open(Some(&args.from))?;
    let bar = Bar::new();
    let layers = quantize(&source, &args.to, asked, &mut |stage| {
        bar.say(match stage {
            QuantizeStage::Reading => "reading",
            QuantizeStage::Measuring => "measuring",
            QuantizeStage::Writing(_) => "writing",
        });
    })?;
    bar.finish();
    if args.json {
        let of = |bits: u8| layers.iter().filter(|layer| layer.bits == bits).count();
        let report = json!({
            "model": args.to,
            "int4": of(4),
            "int8": of(8),
            "bf16": of(16),
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

/// The layers that stayed in bf16, and how far off the others are.
fn tell(layers: &[LayerReport]) {
    for layer in layers.iter().filter(|layer| layer.bits == 16) {
        let error = 100.0 * layer.error.unwrap_or(0.0);
        note!(
            "{}/{} stays in bf16: in 8 bits it is {error:.1} % off",
            layer.component,
            layer.key
        );
    }
    for bits in [4, 8] {
        let those = layers.iter().filter(|layer| layer.bits == bits);
        let count = those.clone().count();
        let mut errors: Vec<f64> = those.filter_map(|layer| layer.error).collect();
        errors.sort_by(f64::total_cmp);
        if let (Some(median), Some(worst)) = (errors.get(errors.len() / 2), errors.last()) {
            let [median, worst] = [median, worst].map(|error| 100.0 * error);
            note!(
                "{count} of {} layers in {bits} bits; as they were tried, {median:.1} % off in the median, {worst:.1} % at most",
                layers.len()
            );
        }
    }
}
