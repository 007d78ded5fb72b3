//! `prima train`: the stages from data to a model folder, in order, and LoRAs.

mod lora;

use crate::out::{note, say};
use crate::stop::Stop;
use crate::{Usage, device, source};
use anyhow::Result;
use clap::{ArgMatches, Args, FromArgMatches, Subcommand};
use prima_tensor::device::catch;
use prima_train::stages::{STAGES, Stage};
use prima_train::{Budget, Group, Launch, RunOptions, Summary, TrainConfig, export, latents};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Each reads the same configuration file; docs/training.md explains it.
pub enum Command {
    /// One of the table's stages.
    Stage(&'static Stage, Resumable),
    Rest(Rest),
}

/// What is no training.
#[derive(Subcommand)]
pub enum Rest {
    /// Train a LoRA on a few pictures of a subject or a style
    Lora(Box<lora::LoraArgs>),
    /// Encode the training pictures once
    Latents(Run),
    /// Write the result as a diffusers folder
    Export {
        /// The run's configuration (JSON)
        config: PathBuf,
    },
}

/// Those that take nothing but a configuration.
fn stages() -> impl Iterator<Item = &'static Stage> {
    STAGES.iter().filter(|stage| stage.name != "lora")
}

impl Subcommand for Command {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        let of = |stage: &Stage| {
            let command = clap::Command::new(stage.name)
                .about(stage.about)
                .aliases(stage.old_name);
            Resumable::augment_args(command)
        };
        Rest::augment_subcommands(command.subcommands(stages().map(of)))
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        stages().any(|stage| stage.name == name) || Rest::has_subcommand(name)
    }
}

impl FromArgMatches for Command {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let stage = matches
            .subcommand()
            .and_then(|(name, args)| Some((stages().find(|stage| stage.name == name)?, args)));
        match stage {
            Some((stage, args)) => Ok(Self::Stage(stage, Resumable::from_arg_matches(args)?)),
            None => Ok(Self::Rest(Rest::from_arg_matches(matches)?)),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[derive(clap::Args)]
pub struct Run {
    /// The run's configuration (JSON)
    config: PathBuf,
    #[command(flatten)]
    budget: Budgeted,
}

/// Where a run computes, and how long.
#[derive(clap::Args)]
struct Budgeted {
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
    #[command(flatten)]
    resumption: Resumption,
}

/// What becomes of what an earlier run left.
#[derive(clap::Args)]
struct Resumption {
    /// Go on from the newest saved state that is whole, if there is one
    #[arg(long)]
    resume: bool,
    /// Discard what an earlier run of this stage left in the run's folder
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
}

impl Run {
    /// The configuration; from here on the run computes where it was told to, as one process of `launch.world`.
    fn open(&self, launch: &Launch) -> Result<TrainConfig> {
        self.budget.choose_device(launch)?;
        open(&self.config)
    }

    fn budget(&self) -> Budget {
        self.budget.given()
    }
}

impl Budgeted {
    fn choose_device(&self, launch: &Launch) -> Result<()> {
        self.device.choose_for_training(launch)
    }

    fn given(&self) -> Budget {
        Budget {
            max_steps: self.steps,
            deadline: self.minutes.map(|m| Instant::now() + m),
        }
    }

    /// The same, so many steps where nothing is said.
    fn budget(&self, steps: u64) -> Budget {
        let given = self.given();
        let is_open = given.max_steps.is_none() && given.deadline.is_none();
        if is_open { Budget::steps(steps) } else { given }
    }
}

fn open(config: &Path) -> Result<TrainConfig> {
    Ok(TrainConfig::open(config, |model| source::open(Some(model)))?)
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "use a number of minutes".to_owned())?;
    Duration::try_from_secs_f64(minutes * 60.0).map_err(|_| "use a positive number of minutes".to_owned())
}

pub fn run(command: Command) -> Result<()> {
    let launch = Launch::from_env()?;
    if launch.is_first() {
        crate::log_to_stderr();
    }
    match command {
        Command::Stage(stage, args) => {
            let config = args.run.open(&launch)?;
            let summary = train(stage, &config, args.run.budget(), &args.resumption, &launch)?;
            if launch.is_first() {
                report(&summary)?;
            }
            Ok(())
        }
        Command::Rest(Rest::Lora(args)) => lora::run(&args, &launch),
        Command::Rest(Rest::Latents(run)) => {
            alone("latents", &launch)?;
            let config = run.open(&launch)?;
            report(&catch(|| latents(&config, run.budget()))??)
        }
        Command::Rest(Rest::Export { config }) => {
            alone("export", &launch)?;
            let exported = export(&open(&config)?)?;
            note!("{} parameters, {} bytes", exported.parameters, exported.bytes);
            say!("{}", exported.folder.display());
            Ok(())
        }
    }
}

fn train(
    stage: &Stage,
    config: &TrainConfig,
    budget: Budget,
    resumption: &Resumption,
    launch: &Launch,
) -> Result<Summary> {
    let group = catch(|| Group::join(launch.clone()))??;
    // Until here there is nothing to save.
    let stop = Stop::listen()?;
    let summary = catch(|| {
        let mut options = RunOptions {
            budget,
            resume: resumption.resume,
            overwrite: resumption.overwrite,
            stop: stop.asked.clone(),
            group,
        };
        stage.run(config, &mut options)
    })??;
    if summary.stopped {
        if launch.is_first() {
            report(&summary)?;
        }
        let what = match summary.steps {
            0 => "before the first step".to_owned(),
            step => format!("step {step} is saved, go on with --resume"),
        };
        return Err(stop.stopped(what).into());
    }
    Ok(summary)
}

/// Refuses work for one process that a launcher started several times.
fn alone(what: &str, launch: &Launch) -> Result<()> {
    if launch.world == 1 {
        return Ok(());
    }
    let message = format!(
        "prima train {what} runs in one process, but the launcher started {}",
        launch.world
    );
    Err(Usage(message).into())
}

fn report(summary: &Summary) -> Result<()> {
    say!("{}", serde_json::to_string_pretty(summary)?);
    Ok(())
}
