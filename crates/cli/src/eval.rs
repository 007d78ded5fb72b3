//! `prima eval`: writes an evaluation suite from a data set, and measures a model, or what it learnt from, with it.

use crate::{Usage, source};
use anyhow::{Context, Result};
use clap::{Args as ClapArgs, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use prima_eval::classes::ClassMeans;
use prima_eval::colours::{Hue, main_hue};
use prima_eval::suite::ColourPrompt;
use prima_eval::{Class, FeatureNet, Suite};
use prima_pipeline::{LoadOptions, Picture, Pipeline, Request};
use prima_schedulers::ScheduleOptions;
use prima_train::data::{Composer, caption};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum Command {
    /// Write an evaluation suite: held-back renders of the most common nouns, and colour prompts
    Suite(SuiteArgs),
    /// Measure a model: class and colour accuracy at each number of steps
    Quality(QualityArgs),
    /// Measure the drawings that a model learnt from, as they are and after its autoencoder: the ceiling for `quality`
    Ceiling(CeilingArgs),
}

#[derive(ClapArgs)]
pub struct SuiteArgs {
    /// Data set made by `prima data build`
    #[arg(long)]
    data: PathBuf,
    /// Folder to write
    #[arg(short, long)]
    out: PathBuf,
    /// Renders per class; half from the held-back sprite, half from the others on their own placement
    #[arg(long, default_value_t = 12)]
    pictures: usize,
    /// Only sprites that training never saw (one drawing style a class: a harder, narrower mean)
    #[arg(long)]
    held_back_only: bool,
    /// Language of the class prompts: en, or one that the data set has names in (de, es, fr, it, ja, pt, zh)
    #[arg(long, default_value = "en")]
    language: String,
}

#[derive(ClapArgs)]
pub struct QualityArgs {
    /// Suite made by `prima eval suite`
    #[arg(long)]
    suite: PathBuf,
    /// EfficientNet-lite0 weights made by scripts/eval/convert_efficientnet.py
    #[arg(long)]
    features: PathBuf,
    /// `embedded`, a folder or a file
    #[arg(long)]
    model: Option<String>,
    /// Numbers of steps to measure
    #[arg(long, value_delimiter = ',', default_value = "4,1")]
    steps: Vec<usize>,
    /// Pictures per prompt
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Contact sheet to write for each number of steps: `sheet.png` becomes `sheet-4.png`
    #[arg(long)]
    sheet: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(ClapArgs)]
pub struct CeilingArgs {
    /// Suite made by `prima eval suite`
    #[arg(long)]
    suite: PathBuf,
    /// EfficientNet-lite0 weights made by scripts/eval/convert_efficientnet.py
    #[arg(long)]
    features: PathBuf,
    /// The data set the suite was made from
    #[arg(long)]
    data: PathBuf,
    /// `embedded`, a folder or a file
    #[arg(long)]
    model: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Suite(args) => write_suite(&args),
        Command::Quality(args) => quality(&args),
        Command::Ceiling(args) => ceiling(&args),
    }
}

fn write_suite(args: &SuiteArgs) -> Result<()> {
    if args.pictures == 0 {
        return Err(Usage("--pictures 0 leaves nothing to compare with: use 1 or more".to_owned()).into());
    }
    let composer = Composer::open(&args.data, 0)?;
    let nouns = composer.evaluation_nouns();
    let bar = bar(nouns.len(), "classes");
    let mut classes = Vec::new();
    for &noun in &nouns {
        let mut pictures = Vec::new();
        for k in 0..args.pictures {
            let held_back = args.held_back_only || k % 2 == 0;
            let rgb = if held_back {
                composer.held_back(noun, k / 2)?
            } else {
                composer.reference(noun, k / 2)?
            };
            let name = format!("{noun:04}/{k:02}.png");
            let path = args.out.join(&name);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            }
            image::save_buffer(&path, &rgb, 128, 128, image::ColorType::Rgb8)?;
            pictures.push(name);
        }
        let prompt = composer.prompt(noun);
        classes.push(Class {
            name: caption::without_article(prompt).to_owned(),
            prompt: match args.language.as_str() {
                "en" => prompt.to_owned(),
                code => name_in(&composer, noun, code)?,
            },
            pictures,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let description = if args.held_back_only {
        "one held-back drawing style a class, jittered, on white"
    } else {
        "half of the held-back drawing style, half of the other styles in placements of their own, on white"
    };
    let colours = colour_prompts(&composer, &nouns);
    let suite = Suite::new(description.to_owned(), classes, colours);
    let path = args.out.join("suite.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&suite)?).with_context(|| path.display().to_string())?;
    println!("{}", path.display());
    Ok(())
}

fn name_in(composer: &Composer, noun: usize, code: &str) -> Result<String> {
    let names = &composer.dataset().nouns[noun].names;
    let name = names.get(code).ok_or_else(|| {
        let known: Vec<&str> = names.keys().map(String::as_str).collect();
        Usage(format!(
            "--language {code}: {:?} has names in {} only",
            composer.prompt(noun),
            known.join(", ")
        ))
    });
    Ok(name?.clone())
}

/// Every hue for the common nouns most of whose sprites can be repainted.
fn colour_prompts(composer: &Composer, nouns: &[usize]) -> Vec<ColourPrompt> {
    let sprites = &composer.dataset().sprites;
    let tints = |noun: usize| {
        let own = sprites.iter().filter(|s| s.noun == noun);
        own.clone().filter(|s| s.hue_shiftable).count() * 2 > own.count()
    };
    nouns
        .iter()
        .filter(|noun| tints(**noun))
        .take(15)
        .flat_map(|noun| {
            Hue::ALL.map(|hue| ColourPrompt {
                prompt: caption::with_adjective(composer.prompt(*noun), hue.name()),
                colour: hue.name().to_owned(),
            })
        })
        .collect()
}

fn quality(args: &QualityArgs) -> Result<()> {
    if args.seeds == 0 || args.steps.is_empty() {
        return Err(Usage("--seeds and --steps want at least one value".to_owned()).into());
    }
    let suite = Suite::open(&args.suite)?;
    let net = FeatureNet::open(&args.features)?;
    let pipeline = Pipeline::load(&source::open(args.model.as_deref())?, &LoadOptions::default())?;
    let means = ClassMeans::of_suite(&suite, &net)?;
    let mut rows = Vec::new();
    for &steps in &args.steps {
        let pictures = class_pictures(&pipeline, &suite, steps, args.seeds)?;
        if let Some(sheet) = &args.sheet {
            write_sheet(sheet, steps, &pictures, args.seeds as usize)?;
        }
        let classes = means.accuracy(&net, &pictures);
        let colours = colour_accuracy(&pipeline, &suite, steps)?;
        if !args.json {
            println!(
                "{steps} steps: top-1 {:.1} %, top-5 {:.1} % of {} pictures; colours {:.1} % of {}",
                100.0 * classes.top1,
                100.0 * classes.top5,
                classes.pictures,
                100.0 * colours,
                suite.colours.len()
            );
        }
        rows.push(serde_json::json!({ "steps": steps, "classes": classes, "colours": colours }));
    }
    if args.json {
        let report = serde_json::json!({
            "model": pipeline.name(), "suite": suite.description, "features": "EfficientNet-lite0, nearest class mean, cosine",
            "results": rows,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    Ok(())
}

/// By drawing style: the drawings of the suite's nouns, and what the model's autoencoder makes of them.
fn ceiling(args: &CeilingArgs) -> Result<()> {
    let suite = Suite::open(&args.suite)?;
    let net = FeatureNet::open(&args.features)?;
    let pipeline = Pipeline::load(&source::open(args.model.as_deref())?, &LoadOptions::default())?;
    let composer = Composer::open(&args.data, 0)?;
    let means = ClassMeans::of_suite(&suite, &net)?;
    let mut styles: BTreeMap<String, [Vec<(usize, Picture)>; 2]> = BTreeMap::new();
    let bar = bar(suite.classes.len(), "nouns");
    for noun in composer.evaluation_nouns() {
        let prompt = composer.prompt(noun);
        let name = caption::without_article(prompt);
        let class = suite.classes.iter().position(|c| c.name == name);
        let class = class.with_context(|| format!("the suite has no class {prompt:?}: make it from this data set"))?;
        for (style, rgb) in composer.drawings(noun)? {
            let drawing = Picture {
                width: 128,
                height: 128,
                rgb,
            };
            let reconstruction = pipeline.reconstruct(&drawing)?;
            let [drawings, reconstructions] = styles.entry(style.to_owned()).or_default();
            drawings.push((class, drawing));
            reconstructions.push((class, reconstruction));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut rows = Vec::new();
    for (style, [drawings, reconstructions]) in &styles {
        let (drawn, decoded) = (means.accuracy(&net, drawings), means.accuracy(&net, reconstructions));
        if !args.json {
            println!(
                "{style}: {} drawings, top-1 {:.1} %, top-5 {:.1} %; after the autoencoder {:.1} %, {:.1} %",
                drawn.pictures,
                100.0 * drawn.top1,
                100.0 * drawn.top5,
                100.0 * decoded.top1,
                100.0 * decoded.top5
            );
        }
        rows.push(serde_json::json!({ "style": style, "drawings": drawn, "autoencoder": decoded }));
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    }
    Ok(())
}

fn paint(pipeline: &Pipeline, prompt: &str, steps: usize, seed: u64) -> Result<Picture> {
    let request = Request {
        prompt: prompt.to_owned(),
        seed,
        schedule: ScheduleOptions::steps(steps),
        ..Request::default()
    };
    let mut response = pipeline.paint(&request, &mut |_| ControlFlow::Continue(()))?;
    response.pictures.pop().context("the pipeline returned no picture")
}

fn class_pictures(pipeline: &Pipeline, suite: &Suite, steps: usize, seeds: u64) -> Result<Vec<(usize, Picture)>> {
    let bar = bar(suite.classes.len(), "prompts");
    let mut pictures = Vec::new();
    for (i, class) in suite.classes.iter().enumerate() {
        for seed in 0..seeds {
            pictures.push((i, paint(pipeline, &class.prompt, steps, seed)?));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(pictures)
}

fn colour_accuracy(pipeline: &Pipeline, suite: &Suite, steps: usize) -> Result<f64> {
    let mut obeyed = 0;
    for prompt in &suite.colours {
        let picture = paint(pipeline, &prompt.prompt, steps, 0)?;
        obeyed += usize::from(main_hue(&picture).is_some_and(|hue| hue.name() == prompt.colour));
    }
    Ok(obeyed as f64 / suite.colours.len().max(1) as f64)
}

/// One row of ten prompts' pictures after another, seeds side by side.
fn write_sheet(path: &Path, steps: usize, pictures: &[(usize, Picture)], seeds: usize) -> Result<()> {
    let Some((_, first)) = pictures.first() else {
        return Ok(());
    };
    let (width, height) = (first.width as u32, first.height as u32);
    let columns = (12 / seeds).max(1) * seeds;
    let rows = pictures.len().div_ceil(columns) as u32;
    let mut sheet = image::RgbImage::from_pixel(columns as u32 * width, rows * height, image::Rgb([255; 3]));
    for (i, (_, picture)) in pictures.iter().enumerate() {
        let tile = image::RgbImage::from_raw(width, height, picture.rgb.clone()).context("pictures differ in size")?;
        let (x, y) = ((i % columns) as u32 * width, (i / columns) as u32 * height);
        image::imageops::replace(&mut sheet, &tile, i64::from(x), i64::from(y));
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let out = path.with_file_name(format!("{stem}-{steps}.png"));
    sheet.save(&out).with_context(|| out.display().to_string())
}

fn bar(len: usize, what: &'static str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {eta}").unwrap_or(ProgressStyle::default_bar());
    ProgressBar::new(len as u64).with_style(style).with_message(what)
}
