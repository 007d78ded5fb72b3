//! `prima eval quality`: a model measured by a judge, question by question, or by a suite.

use super::{AtSteps, suite, with_bar, write_sheet};
use crate::Usage;
use crate::out::say;
use anyhow::Result;
use clap::Args as ClapArgs;
use prima_data::world::World;
use prima_eval::questions::{Answered, Quality, VARIETY_PROMPTS, ask, prompts, sheet, sketch, sketch_row, variety};
use prima_eval::{FeatureNet, Judge, Order};
use prima_pipeline::Pipeline;
use std::path::{Path, PathBuf};

#[derive(ClapArgs)]
pub struct QualityArgs {
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    at: AtSteps,
    /// Folder with the model pack, for names in other languages and pictures to compare with
    #[arg(long, value_name = "DIR", default_value = "assets/models3d")]
    models: PathBuf,
}

#[derive(ClapArgs)]
#[group(required = true, multiple = false)]
struct ByArgs {
    /// Judge trained by `prima eval judge`: for models that learn from the scene generator
    #[arg(long)]
    judge: Option<PathBuf>,
    /// Suite made by `prima eval suite`: for models that learn from a data set of drawings
    #[arg(long)]
    suite: Option<PathBuf>,
}

pub fn run(args: &QualityArgs) -> Result<()> {
    if args.at.seeds == 0 || args.at.steps.is_empty() {
        return Err(Usage("--seeds and --steps want at least one value".to_owned()).into());
    }
    match (&args.by.judge, &args.by.suite) {
        (Some(judge), _) => measure(judge, args),
        (None, Some(folder)) => suite::measure(folder, &args.at),
        (None, None) => Err(Usage("name a --judge or a --suite".to_owned()).into()),
    }
}

fn measure(judge: &Path, args: &QualityArgs) -> Result<()> {
    let judge = Judge::open(judge)?;
    let world = World::open(&args.models)?;
    let (net, pipeline) = args.at.measure.open()?;
    let mut results = Vec::new();
    for &steps in &args.at.steps {
        let (answered, result) = at_steps(&judge, &net, &world, &pipeline, steps, args.at.seeds)?;
        if let Some(path) = &args.at.sheet {
            write_sheet(path, steps, &sheet(&answered.judged))?;
        }
        if !args.at.measure.json {
            tell(&result)?;
        }
        results.push(result);
    }
    if args.at.measure.json {
        let report = serde_json::json!({
            "model": pipeline.name(), "features": "EfficientNet-lite0, and a judge trained on renders", "results": results,
        });
        say!("{}", serde_json::to_string_pretty(&report)?);
    }
    Ok(())
}

fn at_steps(
    judge: &Judge,
    net: &FeatureNet,
    world: &World,
    pipeline: &Pipeline,
    steps: usize,
    seeds: u64,
) -> Result<(Answered, Quality)> {
    let mut paint = |order: &Order| order.paint(pipeline, steps);
    let asked = prompts(&world.catalogue, judge.answers());
    let answered = with_bar("prompts", |bar| ask(judge, net, &asked, seeds, &mut paint, bar))?;
    let kept = with_bar("sketches", |bar| sketch(judge, net, &world.catalogue, &mut paint, bar))?;
    let variety = with_bar("prompts in four seeds", |bar| {
        variety(net, world, VARIETY_PROMPTS, &mut paint, bar)
    })?;
    let mut questions = answered.rows.clone();
    questions.push(sketch_row(judge, &kept));
    let result = Quality {
        steps,
        questions,
        variety,
    };
    Ok((answered, result))
}

fn tell(result: &Quality) -> Result<()> {
    let percent = |value: Option<f64>| value.map_or(String::new(), |v| format!("{v:.1}"));
    say!(
        "{:24} {:>8} {:>8} {:>8} {:>8} {:>8} {:>11}",
        format!("{} steps, right in %", result.steps),
        "pictures",
        "right",
        "ceiling",
        "top-5",
        "ceiling",
        "of English"
    );
    for row in &result.questions {
        say!(
            "{:24} {:8} {:8.1} {:>8} {:>8} {:>8} {:>11}",
            row.question,
            row.pictures,
            row.right,
            percent(row.ceiling),
            percent(row.within_five),
            percent(row.ceiling_within_five),
            percent(row.of_english)
        );
    }
    let variety = result.variety;
    say!(
        "variety between seeds, in % of the data's: {:.1} in pixels, {:.1} in features, of {} prompts",
        variety.pixels_percent(),
        variety.features_percent(),
        variety.prompts
    );
    Ok(())
}
