//! `prima paint`: prompts to pictures.

use crate::bar::Bar;
use crate::hires::{self, Hires};
use crate::out::{note, say};
use crate::output::{Target, Wanted};
use crate::report::{self, Times};
use crate::{Usage, controlnets, device, inpainting, loras, memory, output, prompts, refiner, source};
use anyhow::Result;
use prima_picture::{QUALITY, encode};
use prima_pipeline::{
    Pipeline, PromptSyntax, Region, Request, RequestBuilder, Rng, ScheduleOptions, SchedulerKind, TimestepSpacing,
    parse_size,
};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(clap::Args)]
pub struct Args {
    /// What to paint, in quotes or without; `-` reads it from stdin
    #[arg(required_unless_present = "prompts", value_name = "PROMPT")]
    prompt: Vec<String>,
    /// Paint each line of this file (`-`: of stdin)
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompts: Option<PathBuf>,
    /// A .png, .jpg or .webp to write, a folder, or `-` for stdout; {prompt}, {seed} and {index} are filled in, several
    /// pictures are numbered [default: prima-SEED.png]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace files that are there; else the new picture's name gets a number
    #[arg(long)]
    overwrite: bool,
    /// `embedded`, a diffusers folder, a checkpoint in one file, or a model of the hub's cache [default: embedded]
    #[arg(long, value_name = "embedded|DIR|FILE")]
    model: Option<String>,
    #[command(flatten)]
    parts: source::Parts,
    /// Network steps [default: the model's]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// How strongly the prompt is followed; above 1 each step costs two network evaluations [default: the model's]
    #[arg(long, value_name = "G")]
    guidance_scale: Option<f64>,
    /// Share of guidance's extra contrast that is taken back, 0 to 1 [default: 0]
    #[arg(long, value_name = "X")]
    guidance_rescale: Option<f64>,
    /// What the picture should not be (needs a guidance scale above 1)
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,
    /// What SDXL's second text encoder reads [default: the prompt]
    #[arg(long, value_name = "TEXT")]
    prompt_2: Option<String>,
    /// The same for the negative prompt [default: the negative prompt]
    #[arg(long, value_name = "TEXT")]
    negative_prompt_2: Option<String>,
    /// Which marks of prompts count: auto (those with a number, such as (red:1.3), and BREAK, AND, [a|b]), a1111 (brackets
    /// alone too), plain (none, as diffusers reads prompts)
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = parse::<PromptSyntax>)]
    prompt_syntax: PromptSyntax,
    /// The same seed paints the same picture; -1 is a random one [default: random]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    seed: Option<i128>,
    /// philox, or torch-cpu for the seeds of diffusers
    #[arg(long, value_name = "NAME", default_value = "philox", value_parser = parse::<Rng>)]
    rng: Rng,
    /// In pixels [default: the model's]
    #[arg(long, value_name = "W")]
    width: Option<usize>,
    /// In pixels [default: the model's]
    #[arg(long, value_name = "H")]
    height: Option<usize>,
    /// A part of the picture with a prompt of its own: left, top, right and bottom as shares of the sides, such as
    /// "0,0,0.5,1:a cat"; may be given several times
    #[arg(long = "region", value_name = "L,T,R,B:PROMPT")]
    regions: Vec<Region>,
    /// How many pictures
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    num_images: usize,
    #[arg(long, value_name = "NAME", value_parser = parse::<SchedulerKind>,
        help = one_of(SchedulerKind::ALL.map(SchedulerKind::short_name), "a diffusers class"))]
    scheduler: Option<SchedulerKind>,
    #[arg(long, value_name = "NAME", value_parser = parse::<TimestepSpacing>,
        help = one_of(TimestepSpacing::ALL.map(TimestepSpacing::as_str), "a schedule type of A1111"))]
    timestep_spacing: Option<TimestepSpacing>,
    /// Explicit timesteps, descending, such as 999,749,499,249
    #[arg(long, value_name = "a,b,c", value_delimiter = ',')]
    timesteps: Option<Vec<f64>>,
    /// Share of fresh noise of DDIM and TCD, 0 to 1
    #[arg(long, value_name = "X")]
    eta: Option<f64>,
    /// Layers of the text encoders to leave out at the end, beyond the last [default: 0]
    #[arg(long, value_name = "N")]
    clip_skip: Option<usize>,
    /// SDXL's size conditioning: the picture is as if cut from an original of this size [default: the picture's]
    #[arg(long, value_name = "WxH", value_parser = size)]
    original_size: Option<[usize; 2]>,
    /// The same: where the cut begins, in pixels [default: 0,0]
    #[arg(long, value_name = "TOP,LEFT", value_parser = corner)]
    crops_coords_top_left: Option<[usize; 2]>,
    /// The same: the size that the network is told it paints [default: the picture's]
    #[arg(long, value_name = "WxH", value_parser = size)]
    target_size: Option<[usize; 2]>,
    /// A picture to start from (PNG, JPEG or WebP)
    #[arg(long, visible_alias = "init-image", value_name = "FILE")]
    image: Option<PathBuf>,
    /// How much of that picture is painted anew, 0 to 1 [default: the model's]
    #[arg(long, value_name = "X", requires = "image")]
    strength: Option<f64>,
    /// Share of the schedule that the picture to start from has behind it: it gets no noise [default: see --strength]
    #[arg(long, value_name = "X", requires = "image", conflicts_with = "strength")]
    denoising_start: Option<f64>,
    /// Share of the schedule after which to stop, with the noise that is left [default: 1]
    #[arg(long, value_name = "X")]
    denoising_end: Option<f64>,
    #[command(flatten)]
    hires: hires::Args,
    #[command(flatten)]
    inpainting: inpainting::Args,
    #[command(flatten)]
    controlnets: controlnets::Args,
    #[command(flatten)]
    refiner: refiner::Args,
    #[command(flatten)]
    loras: loras::Args,
    #[command(flatten)]
    device: device::Args,
    #[command(flatten)]
    memory: memory::Args,
    /// Print one JSON object a prompt: timings, timesteps, sigmas, seed, files, warnings
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

/// The help of an option that takes one of `names`.
fn one_of<const N: usize>(names: [&str; N], or: &str) -> String {
    format!("{}, or {or} [default: the model's]", names.join(", "))
}

/// Height and width, as diffusers orders them.
fn size(text: &str) -> Result<[usize; 2], prima_pipeline::Error> {
    parse_size("size", text).map(|(width, height)| [height, width])
}

fn corner(text: &str) -> Result<[usize; 2], &'static str> {
    let sides = text.split_once(',');
    let sides = sides.and_then(|(top, left)| Some([top.trim().parse().ok()?, left.trim().parse().ok()?]));
    sides.ok_or("use top and left in pixels such as 0,256")
}

pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let requests = requests(args)?;
    let targets = targets(args, &requests)?;
    let hires = args.hires.open()?;
    let bar = Bar::new();
    bar.say("loading");
    args.device.choose()?;
    let options = args.loras.with(args.parts.told(args.memory.options(args.device.dtype)));
    let options = args.controlnets.with(args.refiner.with(options)?);
    let source = source::open_with(
        args.model.as_deref(),
        &args.parts,
        &prima_checkpoint::Library::of_user(None),
    )?;
    let options = prima_pipeline::check_room(&source, &options, &requests[0])?;
    let pipeline = Pipeline::load_telling(&source, &options, &|loaded| bar.load(loaded))?;
    let mut started = (start, start.elapsed());
    for (request, targets) in requests.iter().zip(targets.chunks(args.num_images)) {
        paint(args, (&pipeline, hires.as_ref()), request, targets, &bar, started)?;
        // The model is there for all others.
        started = (Instant::now(), std::time::Duration::ZERO);
    }
    memory::store(&pipeline);
    Ok(())
}

/// One prompt's pictures, and what there is to say of them. `started`: when its time began, and what loading took of it.
fn paint(
    args: &Args,
    (pipeline, hires): (&Pipeline, Option<&Hires>),
    request: &Request,
    targets: &[Target],
    bar: &Bar,
    started: (Instant, std::time::Duration),
) -> Result<()> {
    let (start, load) = started;
    let mut response = pipeline.paint(request, &mut |progress| {
        bar.show(progress);
        ControlFlow::Continue(())
    })?;
    if let Some(hires) = hires {
        for picture in &mut response.pictures {
            *picture = hires.paint(pipeline, request, picture, bar)?;
        }
    }
    bar.finish();
    let encoding = Instant::now();
    for (index, (picture, target)) in response.pictures.iter().zip(targets).enumerate() {
        let mut parameters = response.parameters(request, pipeline.name(), index);
        let fields = hires.into_iter().flat_map(|hires| hires.fields(pipeline));
        parameters
            .fields
            .extend(fields.map(|(key, value)| (key.to_owned(), value)));
        target.write(&encode(picture, target.format(), QUALITY, Some(&parameters))?)?;
    }
    let mut times = Times {
        load,
        encode: encoding.elapsed(),
        total: start.elapsed(),
        warm: None,
    };
    if args.repeat > 0 {
        times.warm = Some(pipeline.measure(request, args.repeat)?);
    }
    let files: Vec<&Path> = targets.iter().filter_map(Target::path).collect();
    if args.json {
        let json = report::json(&response, &files, pipeline.name(), &times);
        say!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        if args.prompts.is_some() {
            note!("{}", request.prompt);
        }
        report::print(&response, &files, &times)?;
    }
    Ok(())
}

/// A place for each picture of each request.
fn targets(args: &Args, requests: &[Request]) -> Result<Vec<Target>> {
    if args.json && args.output.as_deref() == Some(Path::new("-")) {
        return Err(Usage("--json and -o - both want stdout: give the picture a name".to_owned()).into());
    }
    let wanted: Vec<Wanted> = requests
        .iter()
        .flat_map(|request| {
            let one = || Wanted::painted(&request.prompt, request.seed);
            std::iter::repeat_with(one).take(request.num_images)
        })
        .collect();
    output::targets(args.output.as_deref(), [output::PAINTED; 2], args.overwrite, &wanted)
}

/// A request for each prompt, all with one seed.
fn requests(args: &Args) -> Result<Vec<Request>> {
    let mut prompts = prompts::read(&args.prompt, args.prompts.as_deref())?.into_iter();
    let first = request(args, prompts.next().unwrap_or_default())?;
    let mut requests = vec![first];
    for prompt in prompts {
        requests.push(Request {
            prompt,
            ..requests[0].clone()
        });
    }
    Ok(requests)
}

fn request(args: &Args, prompt: String) -> Result<Request> {
    let image = args.image.as_deref().map(inpainting::picture).transpose()?;
    let (image, mask) = args.inpainting.over(image)?;
    let asked = RequestBuilder {
        prompt: Some(prompt),
        prompt_2: args.prompt_2.clone(),
        prompt_syntax: args.prompt_syntax,
        negative_prompt: args.negative_prompt.clone(),
        negative_prompt_2: args.negative_prompt_2.clone(),
        guidance_scale: args.guidance_scale,
        guidance_rescale: args.guidance_rescale,
        seed: args.seed,
        rng: args.rng,
        width: args.width,
        height: args.height,
        regions: args.regions.clone(),
        num_images: Some(args.num_images),
        schedule: ScheduleOptions {
            num_inference_steps: args.steps,
            scheduler: args.scheduler,
            spacing: args.timestep_spacing,
            timesteps: args.timesteps.clone(),
            eta: args.eta,
            ..ScheduleOptions::default()
        },
        clip_skip: args.clip_skip,
        original_size: args.original_size,
        crops_coords_top_left: args.crops_coords_top_left,
        target_size: args.target_size,
        denoising_start: args.denoising_start,
        denoising_end: args.denoising_end,
        image,
        mask,
        controls: args.controlnets.controls()?,
        strength: args.strength,
        refiner_switch_at: args.refiner.switch_at(),
        aesthetic_score: args.refiner.aesthetic_score,
        negative_aesthetic_score: args.refiner.negative_aesthetic_score,
        ..RequestBuilder::default()
    };
    Ok(asked.build()?)
}
