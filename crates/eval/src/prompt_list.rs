//! Lists of prompts in text files.

use crate::Error;
use std::path::Path;

/// A hundred prompts that nobody tunes on, from published lists; see `scripts/eval/hundred.py`.
pub const HUNDRED: &str = include_str!("hundred.txt");

/// The first `most` prompts of a text: one a line, or the named column of a table with tabs. Lines that are empty or begin with
/// `#` are none, and one that was there before is not taken again.
pub fn read(text: &str, column: Option<&str>, most: usize) -> Result<Vec<String>, Error> {
    let mut lines = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let at = match column {
        None => None,
        Some(name) => {
            let header = lines.next().unwrap_or_default();
            let found = header.split('\t').position(|field| field.trim() == name);
            Some(found.ok_or_else(|| Error::Column {
                name: name.to_owned(),
                header: header.replace('\t', ", "),
            })?)
        }
    };
    let mut prompts: Vec<String> = Vec::new();
    for line in lines {
        let prompt = match at {
            None => line.trim(),
            Some(at) => line.split('\t').nth(at).unwrap_or_default().trim(),
        };
        if prompts.len() < most && !prompt.is_empty() && prompts.iter().all(|known| known != prompt) {
            prompts.push(prompt.to_owned());
        }
    }
    Ok(prompts)
}

/// [`read`] of a file.
pub fn open(path: &Path, column: Option<&str>, most: usize) -> Result<Vec<String>, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
    read(&text, column, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_by_lines_or_by_a_column() {
        let plain = "# two\na cat\n\na dog\na cat\n";
        assert_eq!(read(plain, None, 9).unwrap(), ["a cat", "a dog"]);
        let table = "Prompt\tCategory\na cat\tAnimals\na dog\tAnimals\n";
        assert_eq!(read(table, Some("Prompt"), 1).unwrap(), ["a cat"]);
        let error = read(table, Some("Text"), 1).unwrap_err().to_string();
        assert!(error.contains("Prompt, Category"), "{error}");
    }

    #[test]
    fn the_hundred_are_a_hundred() {
        assert_eq!(read(HUNDRED, None, 1000).unwrap().len(), 100);
    }
}
