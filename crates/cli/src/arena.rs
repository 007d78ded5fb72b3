//! `prima arena`: which model is better, by people who do not know which is which.

use crate::eval::with_bar;
use crate::out::{bytes, note, say};
use crate::{Usage, serve, source};
use anyhow::{Context, Result};
use clap::ValueEnum;
use prima_arena::{ArenaOptions, Entrant, Pairs, Results, Votes};
use prima_checkpoint::export::write_bytes;
use prima_eval::{Order, prompt_list};
use prima_picture::{Format, Parameters, QUALITY, encode};
use prima_pipeline::{LoadOptions, Pipeline};
use prima_server::page_url;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Folders of pictures that know their prompts (as `prima paint --prompts` writes them), a model each; NAME=FOLDER names it
    #[arg(value_name = "[NAME=]FOLDER")]
    folders: Vec<String>,
    /// A model whose pictures are painted first, beside the votes (repeatable): `embedded`, a folder or a file
    #[arg(long, value_name = "MODEL")]
    model: Vec<String>,
    /// What models paint: a text file, one prompt a line; `hundred` is the list of a hundred that nobody tunes on
    #[arg(long, value_name = "FILE", default_value = "hundred")]
    prompts: PathBuf,
    /// How many of the prompts
    #[arg(long, value_name = "N", default_value_t = 100)]
    count: usize,
    /// Pictures of each prompt
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Numbers of steps in which models paint; each is one that is compared
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1")]
    steps: Vec<usize>,
    /// The file of votes; those that are there count
    #[arg(long, value_name = "FILE", default_value = "arena.sqlite")]
    votes: PathBuf,
    /// Votes that are asked of each voter
    #[arg(long, value_name = "N", default_value_t = 60)]
    wanted: usize,
    /// The port of the page; 0 takes a free one [default: 7860, or the next that is free]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Open the page in the browser
    #[arg(long)]
    open: bool,
    /// Print what the votes come to, and serve nothing
    #[arg(long)]
    results: bool,
    /// How --results are printed
    #[arg(long, value_name = "FORM", default_value = "text", requires = "results")]
    format: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Text,
    /// Ratings, checks and counts
    Json,
    /// A line a vote
    Csv,
}

pub fn run(args: &Args) -> Result<()> {
    if args.results {
        return print(args);
    }
    if args.steps.is_empty() || args.steps.contains(&0) {
        return Err(Usage("--steps want at least 1".to_owned()).into());
    }
    let mut entrants = args
        .folders
        .iter()
        .map(|folder| entrant(folder))
        .collect::<Result<Vec<_>>>()?;
    for model in &args.model {
        entrants.extend(painted(args, model)?);
    }
    let pairs = Pairs::of(entrants)?;
    serve::runtime()?.block_on(async {
        let votes = Votes::open(&args.votes).await?;
        let listener = prima_server::bind(serve::HOST, args.port).await?;
        let url = page_url(listener.local_addr()?, None);
        serve::announce(&url)?;
        let names: Vec<&str> = pairs.names().collect();
        note!(
            "{} on {} prompts in pairs; Ctrl-C ends it, and tells who is ahead",
            names.join(", "),
            pairs.contests()
        );
        if args.open && webbrowser::open(&url).is_err() {
            note!("no browser could be opened; open the address above");
        }
        let options = ArenaOptions {
            wanted: args.wanted,
            seed: None,
        };
        prima_arena::serve(listener, pairs, votes, options, prima_server::asked_to_stop()).await?;
        Ok::<_, anyhow::Error>(())
    })?;
    print(args)
}

fn print(args: &Args) -> Result<()> {
    if !args.votes.exists() {
        return Err(Usage(format!("{} is not there: no votes were cast", args.votes.display())).into());
    }
    let votes = serve::runtime()?.block_on(async { Votes::open(&args.votes).await?.all().await })?;
    match args.format {
        Form::Text => say!("{}", Results::of(&votes).table()),
        Form::Json => say!("{}", serde_json::to_string_pretty(&Results::of(&votes))?),
        Form::Csv => bytes(&Results::csv(&votes)?)?,
    }
    Ok(())
}

/// `NAME=FOLDER`, or a folder by its own name.
fn entrant(text: &str) -> Result<Entrant> {
    let (name, folder) = match text.split_once('=') {
        Some((name, folder)) if !name.is_empty() && !Path::new(text).exists() => (name.to_owned(), folder),
        _ => {
            let name = Path::new(text).file_name().unwrap_or_default();
            (name.to_string_lossy().into_owned(), text)
        }
    };
    Ok(Entrant::of_folder(&name, Path::new(folder))?)
}

/// The pictures of a model at each number of steps, painted where they are not there yet.
fn painted(args: &Args, model: &str) -> Result<Vec<Entrant>> {
    let prompts = if args.prompts == Path::new("hundred") {
        prompt_list::read(prompt_list::HUNDRED, None, args.count)?
    } else {
        prompt_list::open(&args.prompts, None, args.count)?
    };
    let pipeline = Pipeline::load(&source::open(Some(model))?, &LoadOptions::default())?;
    let mut entrants = Vec::new();
    for &steps in &args.steps {
        let name = format!("{}-{steps}", pipeline.name());
        let folder = args.votes.with_extension("pictures").join(&name);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        with_bar("prompts", |bar| -> Result<()> {
            for (number, prompt) in prompts.iter().enumerate() {
                bar(number, prompts.len());
                for seed in 0..args.seeds {
                    let path = folder.join(format!("{number:04}-{seed}.png"));
                    paint(&pipeline, &Order::new(prompt, seed), steps, &path)?;
                }
            }
            Ok(())
        })?;
        entrants.push(Entrant::of_folder(&name, &folder)?);
    }
    Ok(entrants)
}

/// A picture that says what it is; one that says so already stays.
fn paint(pipeline: &Pipeline, order: &Order, steps: usize, path: &Path) -> Result<()> {
    let said = std::fs::read(path)
        .ok()
        .and_then(|bytes| prima_picture::read_parameters(&bytes).ok().flatten());
    if said.is_some_and(|said| said.prompt == order.prompt) {
        return Ok(());
    }
    let field = |key: &str, value: String| (key.to_owned(), value);
    let parameters = Parameters {
        prompt: order.prompt.to_owned(),
        negative_prompt: String::new(),
        fields: vec![
            field("Steps", steps.to_string()),
            field("Seed", order.seed.to_string()),
            field("Model", pipeline.name().to_owned()),
        ],
    };
    let picture = order.paint(pipeline, steps)?;
    Ok(write_bytes(
        path,
        &encode(&picture, Format::Png, QUALITY, Some(&parameters))?,
    )?)
}
