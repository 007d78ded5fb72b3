//! `prima eval judge`: trains the judge of models that learn from the scene generator.

use super::{with_bar, write_png};
use crate::Usage;
use crate::data::WorldArgs;
use crate::out::say;
use anyhow::Result;
use clap::Args as ClapArgs;
use prima_eval::questions::mistakes;
use prima_eval::{FeatureNet, Judge, Lessons};
use std::path::PathBuf;

#[derive(ClapArgs)]
pub struct JudgeArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// EfficientNet-lite0 weights made by scripts/eval/convert_efficientnet.py
    #[arg(long)]
    features: PathBuf,
    /// File to write
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Renders to learn from; a fifth as many are held out. 125 kB of memory each
    #[arg(long, value_name = "N", default_value_t = 8000)]
    pictures: usize,
    /// Contact sheet to write of held-out renders that the judge gets wrong
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
}

/// Mistakes on the sheet.
const SHOWN: usize = 320;

pub fn run(args: &JudgeArgs) -> Result<()> {
    if args.pictures < 40 {
        return Err(Usage("--pictures: use 40 or more, so that each kind of picture is there".to_owned()).into());
    }
    prima_checkpoint::whole_file::check_writable(&args.out)?;
    let world = args.world.open()?;
    let net = FeatureNet::open(&args.features)?;
    let lessons = with_bar("renders", |bar| Lessons::render(&world, &net, args.pictures, bar))?;
    let (judge, wrong) = with_bar("steps", |bar| Judge::learn(&lessons, bar))?;
    judge.save(&args.out)?;
    if let Some(sheet) = &args.sheet {
        write_png(sheet, &mistakes(&judge, &net, &world, &wrong[..wrong.len().min(SHOWN)]))?;
    }
    say!("{:16} {:>8} {:>8}  on held-out renders", "right, %", "of", "");
    for ceiling in &judge.ceilings {
        let score = ceiling.score;
        let five = if ceiling.question == "noun" {
            format!("{:6.1} within five", score.percent_within_five())
        } else {
            String::new()
        };
        say!(
            "{:16} {:8} {:8.1}  {five}",
            ceiling.question,
            score.pictures,
            score.percent()
        );
    }
    say!("{}", args.out.display());
    Ok(())
}
