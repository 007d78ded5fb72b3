//! `prima data`: training data from packages of pictures.

mod world;

pub use world::WorldArgs;

use crate::out::say;
use anyhow::Result;
use clap::ValueEnum;
use indicatif::ProgressBar;
use prima_data::{BuildOptions, Profile, build};
use std::path::PathBuf;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Render sprites, write captions and train the tokenizer
    Build(Args),
    /// Show what the scene generator draws, as a contact sheet
    Sheet(world::SheetArgs),
    /// List captions of the scene generator, each once
    Captions(world::CaptionsArgs),
    /// Train the tokenizer of a run that learns from the scene generator, on a list of texts
    Words(world::WordsArgs),
}

#[derive(Clone, Copy, ValueEnum)]
enum ProfileName {
    /// A few hundred nouns
    Core,
    /// Everything the packages hold
    Full,
}

#[derive(clap::Args)]
pub struct Args {
    /// Folder with the .tgz files that `npm pack NAME` writes
    #[arg(long, value_name = "DIR")]
    packages: PathBuf,
    /// Folder to write; made if it is not there
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// How much to take
    #[arg(long, default_value = "core")]
    profile: ProfileName,
    /// Archive (.tar) of photographs with a labels.jsonl; full profile only
    #[arg(long, value_name = "FILE")]
    photos: Option<PathBuf>,
    /// Archive (.tar.gz) of pixel-art tiles; full profile only
    #[arg(long, value_name = "FILE")]
    pixel_art: Option<PathBuf>,
    /// Entries of the tokenizer
    #[arg(long, value_name = "N", default_value_t = 4096)]
    vocab_size: usize,
    /// Chooses what is held back for evaluation
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

pub fn run(command: Command) -> Result<()> {
    crate::log_to_stderr();
    match command {
        Command::Build(args) => run_build(args),
        Command::Sheet(args) => world::run_sheet(&args),
        Command::Captions(args) => world::run_captions(&args),
        Command::Words(args) => world::run_words(&args),
    }
}

fn run_build(args: Args) -> Result<()> {
    let options = BuildOptions {
        packages: args.packages,
        photos: args.photos,
        pixel_art: args.pixel_art,
        out: args.out,
        profile: match args.profile {
            ProfileName::Core => Profile::Core,
            ProfileName::Full => Profile::Full,
        },
        vocab_size: args.vocab_size,
        seed: args.seed,
    };
    let bar = ProgressBar::new(0);
    let manifest = build(&options, &|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    say!("{}", serde_json::to_string_pretty(&manifest)?);
    Ok(())
}
