//! How fast prima is on a GPU: SDXL's networks at full size with random weights, and a training step of the shipped model's
//! teacher. One program that can be carried to a machine without cargo; bench/gpu/bench.py runs it beside PyTorch.
//!
//! `gpu [--device cuda:N] [--dtype bf16|f32] [--tf32] [--tiny] [--only turbo,lightning,train] [--runs N] [--warmup N]`
//! prints one JSON object; `gpu --layouts [--tiny]` prints what would be measured. Exit codes: 0, 1 failed, 2 bad
//! arguments, 3 there is no GPU and nothing ran.

mod layout;
mod model;
mod training;

use anyhow::Result;
use layout::{Layout, Painting};
use prima_models::UnetCond;
use prima_pipeline::{Pipeline, Reading, Request, ScheduleOptions};
use prima_tensor::{DType, Device, DeviceChoice, Philox, Tensor, no_grad};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Instant;

const PROMPT: &str = "a photograph of an astronaut riding a horse through a city of glass";

pub struct Options {
    pub device: DeviceChoice,
    pub dtype: DType,
    pub tf32: bool,
    pub tiny: bool,
    pub layouts: bool,
    pub only: Vec<String>,
    pub runs: usize,
    pub warmup: usize,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        device: DeviceChoice::Cuda(0),
        dtype: DType::BF16,
        tf32: false,
        tiny: false,
        layouts: false,
        only: ["turbo", "lightning", "train"].map(String::from).to_vec(),
        runs: 20,
        warmup: 4,
    };
    let known = options.only.clone();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        let number = |text: String| text.parse::<usize>().map_err(|_| format!("{text} is not a number"));
        match arg.as_str() {
            "--tiny" => options.tiny = true,
            "--layouts" => options.layouts = true,
            "--tf32" => options.tf32 = true,
            "--device" => options.device = value()?.parse().map_err(|e| format!("{e}"))?,
            "--dtype" => {
                options.dtype = match value()?.as_str() {
                    "f32" => DType::F32,
                    "bf16" => DType::BF16,
                    other => return Err(format!("--dtype {other} is not known: use f32 or bf16")),
                }
            }
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            "--runs" => options.runs = number(value()?)?.max(1),
            "--warmup" => options.warmup = number(value()?)?,
            _ => return Err(format!("{arg} is not known")),
        }
    }
    match options.only.iter().find(|name| !known.contains(name)) {
        Some(name) => Err(format!("--only {name} is not known: use {}", known.join(", "))),
        None => Ok(options),
    }
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    if options.layouts {
        return finish(Layout::new(options.tiny).map(|layout| layout.json()));
    }
    let device = match prima_cuda::open(options.device, options.dtype, options.tf32) {
        Ok((device, None)) => device,
        Ok((_, Some(error))) | Err(error) => {
            eprintln!("no GPU here, nothing ran: {error}");
            return ExitCode::from(3);
        }
    };
    device.make_default();
    finish(measure(&options, &device))
}

fn finish(result: Result<Value>) -> ExitCode {
    match result {
        Ok(value) => {
            println!("{value}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options, device: &Device) -> Result<Value> {
    let layout = Layout::new(options.tiny)?;
    let report = prima_cuda::report();
    let mut out = json!({
        "device": if device.is_gpu() { json!(report.gpus.first().map(|gpu| &gpu.name)) } else { json!("cpu") },
        "dtype": if options.dtype == DType::F32 { "f32" } else { "bf16" },
        "tf32": options.tf32,
        "runs": options.runs,
    });
    let wanted = |name: &str| options.only.iter().any(|only| only == name);
    let paintings: Vec<&Painting> = layout.paintings.iter().filter(|p| wanted(p.name)).collect();
    let mut pipeline: Option<Pipeline> = None;
    for painting in paintings {
        let ready = match pipeline.take() {
            Some(pipeline) => model::with_scheduler(pipeline, painting)?,
            None => Pipeline::new(model::parts(&layout, painting, options.dtype)?)?,
        };
        out[painting.name] = paint(options, device, &ready, painting)?;
        pipeline = Some(ready);
    }
    drop(pipeline);
    if wanted("train") {
        out["train"] = training::measure(options, device, &layout.training)?;
    }
    Ok(out)
}

/// The median of `runs` runs in milliseconds after some to warm up, each waited for.
pub fn median_ms(options: &Options, device: &Device, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    for run in 0..options.warmup + options.runs {
        device.synchronize()?;
        let start = Instant::now();
        work()?;
        device.synchronize()?;
        if run >= options.warmup {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn paint(options: &Options, device: &Device, pipeline: &Pipeline, painting: &Painting) -> Result<Value> {
    // Those of another size would count as memory of this one.
    device.forget_recordings();
    device.reset_usage();
    let encoders = &pipeline.parts().text_encoders;
    let reading = Reading {
        prompt: PROMPT.to_owned(),
        ..Reading::default()
    };
    let encode = || {
        encoders.forget_prompts();
        no_grad(|| prima_tensor::device::catch(|| encoders.encode(&reading)))
    };
    let text_ms = median_ms(options, device, || {
        encode()??;
        Ok(())
    })?;
    let (conditioning, _) = encode()??;
    let side = painting.size_px / pipeline.parts().vae.scale_factor();
    let shape = [1, side, side, pipeline.parts().vae.latent_channels()];
    let latents: Tensor = Philox {
        seed: 2,
        image: 0,
        purpose: 0xbe9c,
        step: 0,
    }
    .normal_batch(&shape);
    let px = painting.size_px as f32;
    let cond = UnetCond {
        encoder_hidden_states: conditioning.prompt_embeds.clone(),
        text_embeds: conditioning.pooled_prompt_embeds.clone(),
        time_ids: vec![[px, px, 0.0, 0.0, px, px]],
        timestep_cond: None,
    };
    let unet = &pipeline.parts().unet;
    let unet_ms = median_ms(options, device, || {
        let step = || no_grad(|| unet.step(&latents, &[999.0], &cond, &mut || true));
        prima_tensor::device::catch(step)??;
        Ok(())
    })?;
    let vae_ms = median_ms(options, device, || {
        pipeline.preview(&latents)?;
        Ok(())
    })?;
    let request = Request {
        prompt: PROMPT.into(),
        guidance_scale: Some(0.0),
        width: Some(painting.size_px),
        height: Some(painting.size_px),
        schedule: ScheduleOptions::steps(painting.steps),
        ..Request::default()
    };
    let end_to_end_ms = median_ms(options, device, || {
        encoders.forget_prompts();
        pipeline.paint(&request, &mut |_| ControlFlow::Continue(()))?;
        Ok(())
    })?;
    let (usage, recordings) = (device.usage(), device.recordings());
    Ok(json!({
        "size_px": painting.size_px,
        "steps": painting.steps,
        "text_ms": text_ms,
        "unet_ms": unet_ms,
        "vae_ms": vae_ms,
        "end_to_end_ms": end_to_end_ms,
        "peak_bytes": usage.peak,
        "most_reserved_bytes": usage.most_reserved,
        "recordings": {"recorded": recordings.recorded, "replayed": recordings.replayed, "failed": recordings.failed},
    }))
}
