//! The syntax of prompts that people bring from the A1111 web UI: weights, `BREAK`, `AND`, prompt editing. What each mark
//! means is `docs/prompts.md`; the rules are those of the web UI's `modules/prompt_parser.py`.

pub(crate) mod chunks;
mod editing;
pub(crate) mod score;
mod weights;

pub use editing::texts as prompt_texts;
pub use weights::{Piece, WeightedPrompt};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which marks of a prompt are read as such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptSyntax {
    /// What nobody writes by chance: weights and times with a number, `[a|b]`, `BREAK` and `AND`. Other brackets are text.
    #[default]
    Auto,
    /// All of the web UI's marks: `(word)` and `[word]` are weights too.
    A1111,
    /// None, and what does not fit the text encoder is cut off: a prompt as diffusers reads it.
    Plain,
}

/// The name is of no syntax.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no prompt syntax: use auto, a1111 or plain")]
pub struct UnknownSyntax(String);

impl FromStr for PromptSyntax {
    type Err = UnknownSyntax;

    fn from_str(name: &str) -> Result<Self, UnknownSyntax> {
        let all = [Self::Auto, Self::A1111, Self::Plain];
        let found = all.into_iter().find(|syntax| syntax.as_str() == name);
        found.ok_or_else(|| UnknownSyntax(name.chars().take(40).collect()))
    }
}

impl PromptSyntax {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::A1111 => "a1111",
            Self::Plain => "plain",
        }
    }

    /// Whether `BREAK` and `AND` in this prompt are marks; in one that is all capitals they may be words.
    fn has_words(self, prompt: &str) -> bool {
        match self {
            Self::Auto => prompt.chars().any(char::is_lowercase),
            Self::A1111 => true,
            Self::Plain => false,
        }
    }
}

impl fmt::Display for PromptSyntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Parts of a prompt that `AND` joins; each is a network evaluation of its own.
pub(crate) const MOST_PARTS: usize = 8;

/// The prompts that `AND` joins, with their weights: `a cat AND a dog:0.5` is the first at 1, the second at 0.5.
/// A prompt without `AND` is one of weight 1, whatever it ends in.
pub(crate) fn composed(prompt: &str, syntax: PromptSyntax) -> Vec<(&str, f64)> {
    let mut parts = vec![prompt];
    if syntax.has_words(prompt) {
        parts = split_at_word(prompt, "AND");
    }
    if parts.len() == 1 {
        return vec![(prompt, 1.0)];
    }
    parts.into_iter().map(weighted_part).collect()
}

/// A part and the number behind its last colon.
fn weighted_part(part: &str) -> (&str, f64) {
    let whole = (part.trim_end(), 1.0);
    let Some((text, number)) = part.rsplit_once(':') else {
        return whole;
    };
    let number = number.trim();
    let plain = |c: char| c.is_ascii_digit() || ".+-".contains(c);
    match number.parse::<f64>() {
        Ok(weight) if number.chars().all(plain) => (text.trim_end(), weight.clamp(-10.0, 10.0)),
        _ => whole,
    }
}

/// What stands between the places where `word` is a whole word.
fn split_at_word<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let (mut from, mut search) = (0, 0);
    let is_letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    while let Some(at) = text[search..].find(word).map(|at| at + search) {
        let end = at + word.len();
        search = end;
        if !is_letter(text[..at].chars().next_back()) && !is_letter(text[end..].chars().next()) {
            parts.push(&text[from..at]);
            from = end;
        }
    }
    parts.push(&text[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn and_joins_prompts_with_weights() {
        let of = |prompt| composed(prompt, PromptSyntax::Auto);
        assert_eq!(of("a cat AND a dog:0.5"), [("a cat", 1.0), (" a dog", 0.5)]);
        assert_eq!(of("a cat :1.2 AND a dog: -0.3"), [("a cat", 1.2), (" a dog", -0.3)]);
        assert_eq!(of("sand AND water"), [("sand", 1.0), (" water", 1.0)]);
        assert_eq!(of("at 12:30"), [("at 12:30", 1.0)], "no AND, no weight");
        assert_eq!(of("SANDY BRANDY"), [("SANDY BRANDY", 1.0)]);
        assert_eq!(of("CATS AND DOGS").len(), 1, "all capitals are words");
        assert_eq!(composed("CATS AND DOGS", PromptSyntax::A1111).len(), 2);
        assert_eq!(composed("a cat AND a dog", PromptSyntax::Plain).len(), 1);
    }

    #[test]
    fn syntaxes_have_names() {
        for name in ["auto", "a1111", "plain"] {
            assert_eq!(name.parse::<PromptSyntax>().unwrap().to_string(), name);
        }
        let error = "compel".parse::<PromptSyntax>().unwrap_err().to_string();
        assert!(error.contains("auto, a1111 or plain"), "{error}");
    }
}
