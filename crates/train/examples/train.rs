//! `train CONFIG STAGE [--steps N] [--minutes M] [--until HH:MM] [--resume]`
//! STAGE: autoencoder | latents | teacher | distill | decoder | export. Times are UTC.

use prima_train::{Budget, Session, TrainConfig, export, stages};
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_ansi(false).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, stage, options @ ..] = arguments.as_slice() else {
        return Err("usage: train CONFIG STAGE [--steps N] [--minutes M] [--until HH:MM] [--resume]".into());
    };
    let config = TrainConfig::open(Path::new(config))?;
    let mut budget = Budget::default();
    let mut resume = false;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut value = || options.next().ok_or(format!("{option} wants a value"));
        match option.as_str() {
            "--resume" => resume = true,
            "--steps" => budget.max_steps = Some(value()?.parse()?),
            "--minutes" => {
                budget.deadline = Some(Instant::now() + Duration::from_secs_f64(value()?.parse::<f64>()? * 60.0));
            }
            "--until" => budget.deadline = Some(Instant::now() + until(value()?)?),
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    let session = &mut Session::alone(budget, resume);
    let summary = match stage.as_str() {
        "autoencoder" => stages::autoencoder(&config, session)?,
        "decoder" => stages::decoder(&config, session)?,
        "latents" => stages::latents(&config, budget)?,
        "teacher" => stages::teacher(&config, session)?,
        "distill" => stages::distill(&config, session)?,
        "export" => {
            let exported = export::export(&config)?;
            println!("{} parameters, {} bytes", exported.parameters, exported.bytes);
            return Ok(());
        }
        other => return Err(format!("unknown stage {other}").into()),
    };
    println!("{stage}: {}", serde_json::to_string(&summary)?);
    Ok(())
}

/// Time from now to the next HH:MM (UTC); a time up to 12 hours past is no time at all.
fn until(clock: &str) -> Result<Duration, Box<dyn Error>> {
    let (hours, minutes) = clock.split_once(':').ok_or("--until wants HH:MM")?;
    let target = hours.parse::<u64>()? * 3600 + minutes.parse::<u64>()? * 60;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() % 86_400;
    let ahead = (target + 86_400 - now) % 86_400;
    Ok(Duration::from_secs(if ahead > 43_200 { 0 } else { ahead }))
}
