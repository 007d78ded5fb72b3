//! `prima paint`: a prompt to PNG files.

use crate::{Usage, device, output, source};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use prima_picture::encode_png;
use prima_pipeline::{
    InitImage, LoadOptions, Picture, Pipeline, Progress, Request, Response, Rng, ScheduleOptions, SchedulerKind,
    TimestepSpacing,
};
use serde_json::{Value, json};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Args {
    /// What to paint
    prompt: String,
    /// The PNG to write; several pictures are numbered [default: prima-SEED.png]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// `embedded`, a diffusers folder, or a single-file SDXL checkpoint [default: embedded]
    #[arg(long, value_name = "embedded|DIR|FILE")]
    model: Option<String>,
    /// Network steps [default: the model's]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// How strongly the prompt is followed; above 1 each step costs two network evaluations [default: the model's]
    #[arg(long, value_name = "G")]
    guidance_scale: Option<f64>,
    /// What the picture should not be (needs a guidance scale above 1)
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,
    /// The same seed paints the same picture [default: random]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// philox, or torch-cpu for the seeds of diffusers
    #[arg(long, value_name = "NAME", default_value = "philox", value_parser = parse::<Rng>)]
    rng: Rng,
    /// In pixels [default: the model's]
    #[arg(long, value_name = "W")]
    width: Option<usize>,
    /// In pixels [default: the model's]
    #[arg(long, value_name = "H")]
    height: Option<usize>,
    /// How many pictures
    #[arg(long, value_name = "N", default_value_t = 1)]
    num_images: usize,
    /// euler, euler_a, ddim, lcm, tcd or dpm++_2m, or a diffusers class [default: the model's]
    #[arg(long, value_name = "NAME", value_parser = parse::<SchedulerKind>)]
    scheduler: Option<SchedulerKind>,
    /// trailing, leading, linspace, sgm_uniform, turbo, ... [default: the model's]
    #[arg(long, value_name = "NAME", value_parser = parse::<TimestepSpacing>)]
    timestep_spacing: Option<TimestepSpacing>,
    /// Explicit timesteps, descending, such as 999,749,499,249
    #[arg(long, value_name = "a,b,c", value_delimiter = ',')]
    timesteps: Option<Vec<f64>>,
    /// Share of fresh noise of DDIM and TCD, 0 to 1
    #[arg(long, value_name = "X")]
    eta: Option<f64>,
    /// Layers of the text encoders to leave out at the end, beyond the last
    #[arg(long, value_name = "N", default_value_t = 0)]
    clip_skip: usize,
    /// A picture to start from (PNG, JPEG or WebP)
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// How much of that picture is painted anew, 0 to 1 [default: the model's]
    #[arg(long, value_name = "X", requires = "image")]
    strength: Option<f64>,
    #[command(flatten)]
    device: device::Args,
    /// Print one JSON object: timings, timesteps, sigmas, seed, files, warnings
    #[arg(long)]
    json: bool,
    /// Paint N times more, with the text encoded anew each time, and print the medians: what a picture takes once the
    /// model is warm
    #[arg(long, value_name = "N", default_value_t = 0)]
    repeat: usize,
}

/// clap prints the error's own sentence behind the option's name.
fn parse<T: std::str::FromStr>(name: &str) -> Result<T, T::Err> {
    name.parse()
}

pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let request = request(args)?;
    let files = output_files(args, &request)?;
    let bar = Bar::new();
    bar.say("loading");
    args.device.choose()?;
    let options = LoadOptions {
        dtype: args.device.dtype,
    };
    let source = source::open(args.model.as_deref())?;
    prima_pipeline::check_room(&source, options.dtype, &request)?;
    let pipeline = Pipeline::load(&source, &options)?;
    let load = start.elapsed();
    let response = pipeline.paint(&request, &mut |progress| {
        bar.show(progress);
        ControlFlow::Continue(())
    })?;
    bar.finish();
    let encode = Instant::now();
    for (index, (picture, file)) in response.pictures.iter().zip(&files).enumerate() {
        let parameters = response.parameters(&request, pipeline.name(), index);
        output::write(file, &encode_png(picture, &parameters)?)?;
    }
    let mut times = Times {
        load,
        encode: encode.elapsed(),
        total: start.elapsed(),
        warm: None,
    };
    times.warm = warm(&pipeline, &request, args.repeat)?;
    report(args, &response, &files, pipeline.name(), &times)
}

fn request(args: &Args) -> Result<Request> {
    let init_image = match &args.image {
        Some(path) => Some(InitImage {
            picture: init_picture(path)?,
            strength: args.strength,
        }),
        None => None,
    };
    if args.num_images == 0 {
        return Err(Usage("num_images 0 is not possible: use 1 or more".to_owned()).into());
    }
    let request = Request {
        prompt: args.prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        guidance_scale: args.guidance_scale,
        seed: args.seed.unwrap_or_else(random_seed),
        rng: args.rng,
        width: args.width,
        height: args.height,
        num_images: args.num_images,
        schedule: ScheduleOptions {
            num_inference_steps: args.steps,
            scheduler: args.scheduler,
            spacing: args.timestep_spacing,
            timesteps: args.timesteps.clone(),
            eta: args.eta,
            ..ScheduleOptions::default()
        },
        clip_skip: args.clip_skip,
        init_image,
        ..Request::default()
    };
    request.validate()?;
    Ok(request)
}

fn init_picture(path: &Path) -> Result<Picture> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read the picture {}", path.display()))?;
    Ok(Picture::decode(&bytes, &path.display().to_string())?)
}

/// 32 bits: short to type, and all that torch's CPU generator reads.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() & u64::from(u32::MAX)
}

/// Where the pictures go; an error if one cannot be written.
fn output_files(args: &Args, request: &Request) -> Result<Vec<PathBuf>> {
    let path = args
        .output
        .clone()
        .unwrap_or_else(|| format!("prima-{}.png", request.seed).into());
    if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) {
        return Err(Usage(format!(
            "{} does not end in .png, the only format that prima writes",
            path.display()
        ))
        .into());
    }
    let files = output::numbered(&path, args.num_images);
    files.iter().try_for_each(|file| output::check_writable(file))?;
    Ok(files)
}

/// What the pipeline cannot see of the time that passed.
struct Times {
    load: Duration,
    encode: Duration,
    total: Duration,
    warm: Option<Warm>,
}

/// Medians over several paintings by a model that has painted before; PNG encoding included in the total.
struct Warm {
    pictures: usize,
    text: Duration,
    steps: Duration,
    decode: Duration,
    encode: Duration,
    total: Duration,
}

fn warm(pipeline: &Pipeline, request: &Request, repeat: usize) -> Result<Option<Warm>> {
    let mut rows: [Vec<Duration>; 5] = Default::default();
    for _ in 0..repeat {
        pipeline.parts().text_encoders.forget_prompts();
        let start = Instant::now();
        let response = pipeline.paint(request, &mut |_| ControlFlow::Continue(()))?;
        let encode = Instant::now();
        for (index, picture) in response.pictures.iter().enumerate() {
            encode_png(picture, &response.parameters(request, pipeline.name(), index))?;
        }
        let t = &response.timings;
        let row = [
            t.text,
            t.steps.iter().sum(),
            t.decode,
            encode.elapsed(),
            start.elapsed(),
        ];
        rows.iter_mut().zip(row).for_each(|(column, time)| column.push(time));
    }
    let [text, steps, decode, encode, total] = rows.map(|mut column| {
        column.sort_unstable();
        column.get(column.len() / 2).copied().unwrap_or_default()
    });
    Ok((repeat > 0).then_some(Warm {
        pictures: repeat,
        text,
        steps,
        decode,
        encode,
        total,
    }))
}

fn report(args: &Args, response: &Response, files: &[PathBuf], model: &str, times: &Times) -> Result<()> {
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&json(response, files, model, times))?
        );
        return Ok(());
    }
    for warning in &response.warnings {
        eprintln!("warning: {warning}");
    }
    let steps = response.timesteps.len();
    let plural = if steps == 1 { "" } else { "s" };
    eprintln!(
        "seed {}, {steps} step{plural}, {:.2} s",
        response.seed,
        times.total.as_secs_f64()
    );
    if let Some(warm) = &times.warm {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        eprintln!(
            "warm, median of {}: {:.1} ms (text {:.1}, steps {:.1}, decode {:.1}, encode {:.1})",
            warm.pictures,
            ms(warm.total),
            ms(warm.text),
            ms(warm.steps),
            ms(warm.decode),
            ms(warm.encode)
        );
    }
    for file in files {
        println!("{}", file.display());
    }
    Ok(())
}

fn json(response: &Response, files: &[PathBuf], model: &str, times: &Times) -> Value {
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
            "pictures": w.pictures,
            "text": ms(&w.text),
            "steps": ms(&w.steps),
            "decode": ms(&w.decode),
            "encode": ms(&w.encode),
            "total": ms(&w.total),
        })),
        "warnings": response.warnings,
    })
}

/// A progress bar on a terminal's stderr; nothing elsewhere.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{msg:8} {bar:30} {pos}/{len} {elapsed}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn say(&self, what: &'static str) {
        self.0.set_message(what);
        self.0.tick();
    }

    fn show(&self, progress: Progress) {
        match progress {
            Progress::Text => self.say("painting"),
            Progress::Step { done, total, .. } => {
                self.0.set_length(total as u64);
                self.0.set_position(done as u64);
                if done == total {
                    self.say("decoding");
                }
            }
            Progress::Decode { .. } | Progress::Tick => self.0.tick(),
        }
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}
