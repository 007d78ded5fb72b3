//! How long LoRAs take to come and go on a model: `loras MODEL [ROUNDS]`, for instance a full-size SDXL. Writes two random LoRAs
//! of rank 64 for all attentions and feed-forwards of the UNet and the text encoders into a temporary folder, changes from one to
//! the other again and again, and looks that neither memory nor the plain picture is another at the end.

use anyhow::{Context, Result};
use prima_checkpoint::lora::Network;
use prima_checkpoint::write_safetensors_with;
use prima_pipeline::{LoadOptions, LoraOptions, ModelSource, Pipeline, Request, ScheduleOptions};
use prima_tensor::{DType, Param, Philox, Tensor};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

const RANK: usize = 64;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().context("usage: loras MODEL [ROUNDS]")?;
    let rounds: usize = arguments.next().map_or(Ok(50), |text| text.parse())?;
    let folder = std::env::temp_dir().join(format!("prima-bench-loras-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let measured = measure(&model, &folder, rounds);
    std::fs::remove_dir_all(&folder)?;
    measured
}

fn measure(model: &str, folder: &Path, rounds: usize) -> Result<()> {
    let options = LoadOptions {
        loras: LoraOptions {
            folder: Some(folder.to_path_buf()),
            standing: Vec::new(),
        },
        ..LoadOptions::of(DType::BF16)
    };
    let pipeline = Pipeline::load(&ModelSource::open(model)?, &options)?;
    for (seed, name) in [(1, "one"), (2, "two")] {
        let bytes = write(&pipeline, seed, &folder.join(format!("{name}.safetensors")))?;
        println!("{name}: rank {RANK}, {:.0} MB in f16", bytes as f64 / 1e6);
    }
    pipeline.refresh_loras();
    let request = |prompt: &str| Request {
        prompt: prompt.to_owned(),
        width: Some(64),
        height: Some(64),
        schedule: ScheduleOptions::steps(1),
        ..Request::default()
    };
    let paint = |prompt: &str| pipeline.paint(&request(prompt), &mut |_| ControlFlow::Continue(()));
    let timed = |prompt: &str| -> Result<f64> {
        let start = Instant::now();
        pipeline.make_ready(&request(prompt))?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let plain = paint("a cat")?.pictures;
    for name in ["one", "two"] {
        println!(
            "{name}, from its file: {:.0} ms",
            timed(&format!("a cat <lora:{name}>"))?
        );
    }
    paint("a cat <lora:one>")?;
    let before = resident_mb()?;
    let mut slowest = 0f64;
    for round in 0..rounds {
        let name = if round % 2 == 0 { "two" } else { "one" };
        slowest = slowest.max(timed(&format!("a cat <lora:{name}:{}>", 0.5 + round as f64 / 100.0))?);
    }
    println!("{rounds} changes, each of another LoRA at another weight: {slowest:.2} ms at most");
    println!("resident: {before:.0} MB before, {:.0} MB after them", resident_mb()?);
    anyhow::ensure!(
        paint("a cat")?.pictures == plain,
        "the plain picture is another after {rounds} changes"
    );
    println!("the plain picture is the same to the bit");
    Ok(())
}

/// A random LoRA for every attention and feed-forward; its bytes.
fn write(pipeline: &Pipeline, seed: u64, path: &Path) -> Result<usize> {
    let mut tensors = Vec::new();
    let parts = pipeline.parts();
    for (network, start) in [
        (Network::Unet, "lora_unet"),
        (Network::TextEncoder, "lora_te1"),
        (Network::TextEncoder2, "lora_te2"),
    ] {
        let component = parts.components.iter().find(|(name, _)| name == network.component());
        for (key, param) in component.into_iter().flat_map(|(_, params)| params) {
            let Some(module) = key.strip_suffix(".weight") else {
                continue;
            };
            let is_target = [".attn1.", ".attn2.", ".ff.net.", ".self_attn.", ".mlp.fc"]
                .iter()
                .any(|part| key.contains(part));
            let &[outputs, inputs] = &param.shape()[..] else {
                continue;
            };
            if is_target {
                let key = format!("{start}_{}", module.replace('.', "_"));
                for (end, shape) in [("lora_down", [RANK, inputs]), ("lora_up", [outputs, RANK])] {
                    let noise = Philox {
                        seed,
                        image: tensors.len() as u32,
                        purpose: 0,
                        step: 0,
                    };
                    let values = noise
                        .normal(shape[0] * shape[1])
                        .into_iter()
                        .map(|x| 0.01 * x)
                        .collect();
                    tensors.push((
                        format!("{key}.{end}.weight"),
                        Param::new(Tensor::from_vec(values, &shape)),
                    ));
                }
            }
        }
    }
    write_safetensors_with(path, &tensors, DType::F16, &[])?;
    Ok(tensors.iter().map(|(_, param)| 2 * param.numel()).sum())
}

/// Memory of this process.
fn resident_mb() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(kilobytes.parse::<f64>()? / 1e3)
}
