//! What is to be painted: words on the command line, stdin, or a file of prompts.

use crate::Usage;
use anyhow::{Context, Result};
use std::io::Read;
use std::path::Path;

/// Longer files are something else.
const MOST_BYTES: u64 = 1 << 20;

/// The prompts of `words` (`-` is stdin) or of the file `list`, one a line (`-` is stdin, too).
pub fn read(words: &[String], list: Option<&Path>) -> Result<Vec<String>> {
    let Some(list) = list else {
        let prompt = match words {
            [dash] if dash == "-" => read_all(Path::new("-"))?.trim().to_owned(),
            words => words.join(" "),
        };
        return Ok(vec![prompt]);
    };
    let text = read_all(list)?;
    let prompts: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    if prompts.is_empty() {
        return Err(Usage(format!("{} has no prompts: write one a line", name(list))).into());
    }
    Ok(prompts)
}

fn name(path: &Path) -> String {
    if path == Path::new("-") {
        "stdin".to_owned()
    } else {
        path.display().to_string()
    }
}

fn read_all(path: &Path) -> Result<String> {
    let cannot = || format!("cannot read prompts from {}", name(path));
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(MOST_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
    }
    .with_context(cannot)?;
    if bytes.len() as u64 > MOST_BYTES {
        anyhow::bail!("{}: it has more than {MOST_BYTES} bytes", cannot());
    }
    // What some editors put before UTF-8.
    let text = String::from_utf8(bytes).with_context(|| format!("{}: it is not UTF-8", cannot()))?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}
