//! `prima`: paints a picture from words in one to four network steps.

mod accounts;
mod arena;
mod bar;
mod bare;
mod completions;
mod controlnets;
mod data;
mod device;
mod doctor;
mod embedded;
mod eval;
mod finish;
mod gateway;
mod hires;
mod inpainting;
mod loras;
mod memory;
mod models;
mod out;
mod output;
mod paint;
mod prompts;
mod refiner;
mod report;
mod serve;
mod source;
mod stop;
mod train;
mod worker;

use clap::{CommandFactory as _, Parser, Subcommand};
use out::note;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "prima",
    version,
    about = "Paints a picture from words in one to four network steps",
    after_help = "Words without a command are painted: prima a red apple\n\
                  Without anything, prima opens the studio: a page whose picture repaints as you type."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// CPU threads [default: all]
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Subcommand)]
enum Command {
    /// Paint a picture from a prompt
    Paint(Box<paint::Args>),
    /// Enlarge pictures
    Upscale(finish::upscale::Args),
    /// Cut things out of pictures
    Cutout(finish::cutout::Args),
    /// Paint pictures in the manner of others
    Style(finish::style::Args),
    /// Serve the studio and the HTTP APIs
    Serve(Box<serve::Args>),
    /// Take requests for many machines, and queue them for workers
    Gateway(Box<gateway::Args>),
    /// Say who may use a gateway, and how much
    Accounts {
        #[command(subcommand)]
        command: accounts::Command,
    },
    /// Paint what a gateway queues, on this machine
    Worker(Box<worker::Args>),
    /// Get, list, look at and change models
    Models {
        #[command(subcommand)]
        command: models::Command,
    },
    /// Build training data
    Data {
        #[command(subcommand)]
        command: data::Command,
    },
    /// Say what prima finds on this machine: processor, GPUs, libraries
    Doctor(doctor::Args),
    /// Measure how good a model is
    Eval {
        #[command(subcommand)]
        command: eval::Command,
    },
    /// Compare models blind: a page of pairs of pictures, votes, ratings
    Arena(arena::Args),
    /// Train a model
    Train {
        #[command(subcommand)]
        command: train::Command,
    },
    /// Print what a shell needs to complete prima's options, such as `prima completions bash`
    Completions(completions::Completions),
    /// Print the manual page, of prima or of a command
    Man(completions::Man),
}

/// An error that is the caller's to mend: exit code 2 instead of 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

fn main() -> ExitCode {
    prima_tensor::keep_large_buffers();
    let args = match bare::with_command(std::env::args_os().collect(), &Cli::command()) {
        Ok(args) => args,
        Err(usage) => return end_early(&usage.into()),
    };
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(answer) => return say_how_it_is_used(&answer),
    };
    match run_and_catch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => end_early(&error),
    }
}

/// What there is to say of a command that did not come to its end, and the exit code.
fn end_early(error: &anyhow::Error) -> ExitCode {
    if error.is::<out::Unread>() {
        return ExitCode::SUCCESS;
    }
    if let Some(stopped) = error.downcast_ref::<stop::Stopped>() {
        note!("{stopped}");
        return ExitCode::from(stopped.exit_code());
    }
    note!("error: {}", sentence(error));
    ExitCode::from(if is_usage(error) { 2 } else { 1 })
}

/// clap's help, version or complaint.
fn say_how_it_is_used(answer: &clap::Error) -> ExitCode {
    match answer.print() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            note!("error: what prima has to say cannot be written: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(1)),
    }
}

/// A panic is an error like others, in one sentence; `RUST_BACKTRACE=1` shows more of it. What runs long has its log.
fn run_and_catch(cli: Cli) -> anyhow::Result<()> {
    let runs_long = matches!(
        cli.command,
        None | Some(
            Command::Serve(_) | Command::Gateway(_) | Command::Worker(_) | Command::Train { .. } | Command::Data { .. }
        )
    );
    if !runs_long && std::env::var_os("RUST_BACKTRACE").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(cli))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "no message".to_owned());
        anyhow::bail!("this met a defect of prima, or a file that it does not understand: {text}")
    })
}

fn run(cli: Cli) -> anyhow::Result<()> {
    prima_tensor::check_processor_limit().map_err(Usage)?;
    set_threads(cli.threads)?;
    match cli.command {
        None => serve::run(serve::Args::bare()),
        Some(Command::Serve(args)) => serve::run(*args),
        Some(Command::Gateway(args)) => gateway::run(*args),
        Some(Command::Accounts { command }) => accounts::run(command),
        Some(Command::Worker(args)) => worker::run(*args),
        Some(Command::Paint(args)) => paint::run(&args),
        Some(Command::Upscale(args)) => finish::upscale::run(&args),
        Some(Command::Cutout(args)) => finish::cutout::run(&args),
        Some(Command::Style(args)) => finish::style::run(&args),
        Some(Command::Models { command }) => models::run(command),
        Some(Command::Data { command }) => data::run(command),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Eval { command }) => eval::run(command),
        Some(Command::Arena(args)) => arena::run(&args),
        Some(Command::Train { command }) => train::run(command),
        Some(Command::Completions(args)) => completions::completions(&args),
        Some(Command::Man(args)) => completions::man(&args),
    }
}

/// The error and its causes; a cause that the error already spells out is not said twice.
fn sentence(error: &anyhow::Error) -> String {
    error
        .chain()
        .skip(1)
        .map(ToString::to_string)
        .fold(error.to_string(), |text, cause| {
            if text.contains(&cause) {
                text
            } else {
                format!("{text}: {cause}")
            }
        })
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<Usage>()
        || error
            .downcast_ref::<prima_tensor::DeviceError>()
            .is_some_and(prima_tensor::DeviceError::is_usage)
        || error
            .downcast_ref::<prima_pipeline::Error>()
            .is_some_and(prima_pipeline::Error::is_usage)
        || error
            .downcast_ref::<prima_finish::Error>()
            .is_some_and(prima_finish::Error::is_usage)
        || error
            .downcast_ref::<prima_hub::Error>()
            .is_some_and(prima_hub::Error::is_usage)
        || error
            .downcast_ref::<prima_arena::Error>()
            .is_some_and(prima_arena::Error::is_usage)
        || error
            .downcast_ref::<prima_fleet::Error>()
            .is_some_and(prima_fleet::Error::is_usage)
        || error
            .downcast_ref::<prima_train::Error>()
            .is_some_and(prima_train::Error::is_usage)
}

/// What training and data building say as they go.
fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}

/// The engine computes in rayon's global pool.
fn set_threads(threads: Option<usize>) -> anyhow::Result<()> {
    const MAX_THREADS: usize = 1024;
    let Some(threads) = threads else { return Ok(()) };
    if !(1..=MAX_THREADS).contains(&threads) {
        return Err(Usage(format!("--threads {threads} is not possible: use 1 to {MAX_THREADS}")).into());
    }
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?)
}
