//! `prima eval prompts`: a list of prompts painted on a contact sheet, for judging by eye.

use super::{pipeline, with_bar, write_png};
use crate::Usage;
use crate::out::say;
use anyhow::Result;
use clap::Args as ClapArgs;
use prima_eval::questions::prompt_sheet;
use prima_eval::{Order, prompt_list};
use std::path::{Path, PathBuf};

#[derive(ClapArgs)]
pub struct PromptsArgs {
    /// Text file, a prompt a line or a table with tabs; `hundred` is the list of a hundred that nobody tunes on
    list: PathBuf,
    /// PNG file to write
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Column of a table that has the prompts
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// How many prompts
    #[arg(long, value_name = "N", default_value_t = 100)]
    count: usize,
    /// `embedded`, a folder or a file
    #[arg(long)]
    model: Option<String>,
    #[arg(long, default_value_t = 4)]
    steps: usize,
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

pub fn run(args: &PromptsArgs) -> Result<()> {
    let column = args.column.as_deref();
    let prompts = if args.list == Path::new("hundred") {
        prompt_list::read(prompt_list::HUNDRED, column, args.count)?
    } else {
        prompt_list::open(&args.list, column, args.count)?
    };
    if prompts.is_empty() {
        return Err(Usage(format!("{} has no prompts", args.list.display())).into());
    }
    prima_checkpoint::whole_file::check_writable(&args.out)?;
    let pipeline = pipeline(args.model.as_deref())?;
    let painted = with_bar("prompts", |bar| -> Result<Vec<_>> {
        let mut painted = Vec::new();
        for (done, prompt) in prompts.iter().enumerate() {
            bar(done, prompts.len());
            let picture = Order::new(prompt, args.seed).paint(&pipeline, args.steps)?;
            painted.push((prompt.clone(), picture));
        }
        Ok(painted)
    })?;
    write_png(&args.out, &prompt_sheet(&painted))?;
    say!("{}: {} prompts", args.out.display(), painted.len());
    Ok(())
}
