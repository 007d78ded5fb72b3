//! `prima a red apple`: words without a command are a prompt, unless the first looks like a command that was mistyped.

use crate::Usage;
use clap::Command;
use std::ffi::OsString;

/// The arguments with `paint` where it was left out. The first is the program's name.
pub fn with_command(mut args: Vec<OsString>, cli: &Command) -> Result<Vec<OsString>, Usage> {
    let Some(first) = first_word(&args) else {
        return Ok(args);
    };
    let word = args[first].to_string_lossy().into_owned();
    let answers = ["help", "-h", "--help", "-V", "--version"];
    if answers.contains(&word.as_str()) || cli.find_subcommand(&word).is_some() {
        return Ok(args);
    }
    if let Some(command) = meant(&word, &args[first + 1..], cli) {
        return Err(Usage(format!(
            "there is no command {word:?}: did you mean `prima {command}`? (To paint these words: `prima paint {word} ...`)"
        )));
    }
    args.insert(first, "paint".into());
    Ok(args)
}

/// Behind `--threads N`, which stands before commands too.
fn first_word(args: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(arg) = args.get(at) {
        match arg.to_str() {
            Some("--threads") => at += 2,
            Some(text) if text.starts_with("--threads=") => at += 1,
            _ => return Some(at),
        }
    }
    None
}

/// The command that somebody may have meant who wrote `word`: one that is spelt nearly so, if what follows is not a sentence.
fn meant<'a>(word: &str, rest: &[OsString], cli: &'a Command) -> Option<&'a str> {
    // As near as clap wants it.
    const NEAR: f64 = 0.7;
    let near = |command: &&Command| strsim::jaro(word, command.get_name()) > NEAR;
    let distance = |command: &&Command| strsim::damerau_levenshtein(word, command.get_name());
    let command = cli.get_subcommands().filter(near).min_by_key(distance)?;
    if distance(&command) > 2 || word.chars().any(char::is_whitespace) {
        return None;
    }
    let following: Vec<_> = rest.iter().map(|arg| arg.to_string_lossy()).collect();
    let words = following.iter().take_while(|arg| !arg.starts_with('-')).count();
    let fits = following
        .first()
        .is_some_and(|next| command.find_subcommand(next.as_ref()).is_some());
    (words < 2 || fits).then_some(command.get_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn of(line: &str) -> Result<String, String> {
        let args = std::iter::once("prima").chain(line.split(' ').filter(|word| !word.is_empty()));
        let args = args.map(|word| OsString::from(word.replace('_', " "))).collect();
        let full = with_command(args, &crate::Cli::command()).map_err(|usage| usage.0)?;
        let words: Vec<_> = full[1..].iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn words_without_a_command_are_painted() {
        for (line, full) in [
            ("", ""),
            ("a_red_apple", "paint a red apple"),
            ("a red apple --steps 2", "paint a red apple --steps 2"),
            ("apple", "paint apple"),
            ("-", "paint -"),
            ("--seed 3 apple", "paint --seed 3 apple"),
            ("--prompts list.txt", "paint --prompts list.txt"),
            ("--threads 1 a cat", "--threads 1 paint a cat"),
            ("--threads=1 paint a cat", "--threads=1 paint a cat"),
            ("--threads 1", "--threads 1"),
            ("paints on the table", "paint paints on the table"),
            ("paint apple", "paint apple"),
            ("--version", "--version"),
            ("help paint", "help paint"),
        ] {
            assert_eq!(of(line).as_deref(), Ok(full), "{line}");
        }
    }

    #[test]
    fn a_mistyped_command_is_no_prompt() {
        for (line, command) in [
            ("pain a_cat", "paint"),
            ("serv --port 80", "serve"),
            ("modles info x", "models"),
            ("doctr", "doctor"),
        ] {
            let said = of(line).unwrap_err();
            assert!(
                said.contains(&format!("`prima {command}`")) && said.contains("prima paint"),
                "{said}"
            );
        }
    }
}
