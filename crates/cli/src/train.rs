//! `prima train`: the stages from data to a model folder, in order.

use crate::{Usage, device};
use anyhow::Result;
use prima_tensor::device::catch;
use prima_train::{Budget, Group, Place, Session, Summary, TrainConfig, export, stages};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Each stage reads the same configuration file; docs/training.md explains it.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Train the autoencoder between pictures and latents
    Autoencoder(Resumable),
    /// Train the autoencoder's decoder further; latents stay valid
    Decoder(Resumable),
    /// Encode the training pictures once
    Latents(Run),
    /// Train the many-step model and its text encoders
    Teacher(Resumable),
    /// Distill the teacher to one to four steps
    Distill(Resumable),
    /// Write the result as a diffusers folder
    Export {
        /// The run's configuration (JSON)
        config: PathBuf,
    },
}

#[derive(clap::Args)]
pub struct Run {
    /// The run's configuration (JSON)
    config: PathBuf,
    #[command(flatten)]
    device: device::Args,
    /// Stop after N optimizer steps
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Stop after M minutes
    #[arg(long, value_name = "M", value_parser = minutes)]
    minutes: Option<Duration>,
}

#[derive(clap::Args)]
pub struct Resumable {
    #[command(flatten)]
    run: Run,
    /// Go on from the last saved state
    #[arg(long)]
    resume: bool,
}

impl Run {
    /// The configuration; from here on the run computes where it was told to, as one process of `place.world`.
    fn open(&self, place: &Place) -> Result<TrainConfig> {
        self.device.choose_for_training(place)?;
        Ok(TrainConfig::open(&self.config)?)
    }

    fn budget(&self) -> Budget {
        Budget {
            max_steps: self.steps,
            deadline: self.minutes.map(|m| Instant::now() + m),
        }
    }
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "use a number of minutes".to_owned())?;
    Duration::try_from_secs_f64(minutes * 60.0).map_err(|_| "use a positive number of minutes".to_owned())
}

/// The common shape of the stages that can go on where they stopped.
type Stage = fn(&TrainConfig, &mut Session) -> prima_train::Result<Summary>;

pub fn run(command: Command) -> Result<()> {
    let place = Place::from_env()?;
    if place.is_first() {
        crate::log_to_stderr();
    }
    let resumable = |stage: Stage, args: Resumable| -> Result<()> {
        let config = args.run.open(&place)?;
        let train = || {
            let mut session = Session {
                budget: args.run.budget(),
                resume: args.resume,
                group: Group::join(place.clone())?,
            };
            stage(&config, &mut session)
        };
        let summary = catch(train)??;
        if place.is_first() {
            report(&summary)?;
        }
        Ok(())
    };
    let alone = |what: &str| -> Result<()> {
        if place.world == 1 {
            return Ok(());
        }
        let message = format!(
            "prima train {what} runs in one process, but the launcher started {}",
            place.world
        );
        Err(Usage(message).into())
    };
    match command {
        Command::Autoencoder(args) => resumable(stages::autoencoder, args),
        Command::Decoder(args) => resumable(stages::decoder, args),
        Command::Teacher(args) => resumable(stages::teacher, args),
        Command::Distill(args) => resumable(stages::distill, args),
        Command::Latents(run) => {
            alone("latents")?;
            let config = run.open(&place)?;
            report(&catch(|| stages::latents(&config, run.budget()))??)
        }
        Command::Export { config } => {
            alone("export")?;
            let config = TrainConfig::open(&config)?;
            let exported = export::export(&config)?;
            eprintln!("{} parameters, {} bytes", exported.parameters, exported.bytes);
            println!("{}", config.export.folder.display());
            Ok(())
        }
    }
}

fn report(summary: &Summary) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(summary)?);
    Ok(())
}
