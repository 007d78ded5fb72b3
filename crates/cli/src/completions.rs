//! `prima completions` and `prima man`: what shells and `man` want to know of the command line.

use crate::{Cli, Usage, out};
use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

#[derive(clap::Args)]
pub struct Completions {
    /// The shell that completes
    shell: Shell,
}

#[derive(clap::Args)]
pub struct Man {
    /// A command such as paint [default: all of prima]
    command: Option<String>,
}

pub fn completions(args: &Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "prima", &mut script);
    out::bytes(&script)
}

pub fn man(args: &Man) -> Result<()> {
    let mut cli = Cli::command();
    cli.build();
    let command = match &args.command {
        None => cli,
        Some(name) => match cli.find_subcommand(name) {
            Some(command) => command.clone(),
            None => return Err(Usage(format!("there is no command {name:?}: `prima --help` lists them")).into()),
        },
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    out::bytes(&page)
}
