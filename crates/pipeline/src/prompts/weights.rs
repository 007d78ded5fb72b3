//! Emphasis as A1111 writes it (`modules/prompt_parser.py`, `parse_prompt_attention`): `(word)` is 1.1, `[word]` 1/1.1,
//! `(word:1.3)` 1.3, nested ones multiply, and `\(` is a plain parenthesis. A bracket that is never closed reaches to the
//! end. Parts of different weight are cut into tokens one by one, so a weight may lie inside a word.

use super::{PromptSyntax, split_at_word};

/// A prompt without its marks, in parts.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedPrompt {
    pub pieces: Vec<Piece>,
}

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// What the text encoders read, and its weight.
    Text(String, f32),
    /// The next piece begins another 75 tokens.
    Break,
}

const ROUND: f32 = 1.1;
/// Far beyond what a picture survives; keeps the encodings finite.
const MOST: f32 = 10.0;
/// The largest weight that brackets have by intent: `(16:9)` is a ratio.
const MOST_MEANT: f32 = 3.0;

impl WeightedPrompt {
    /// Never fails: what is no mark is text.
    pub fn parse(prompt: &str, syntax: PromptSyntax) -> Self {
        if syntax == PromptSyntax::Plain {
            return Self {
                pieces: vec![Piece::Text(prompt.to_owned(), 1.0)],
            };
        }
        let mut parser = Parser {
            syntax,
            breaks: syntax.has_words(prompt),
            pieces: Vec::new(),
            round: Vec::new(),
            square: Vec::new(),
        };
        let mut rest = prompt;
        while let Some(c) = rest.chars().next() {
            rest = parser.take(c, rest);
        }
        parser.finish()
    }

    /// All of it as one text, for whoever looks at words.
    pub fn text(&self) -> String {
        let texts = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text, _) => text.as_str(),
            Piece::Break => " ",
        });
        texts.collect()
    }

    pub(crate) fn has_break(&self) -> bool {
        self.pieces.contains(&Piece::Break)
    }
}

struct Parser {
    syntax: PromptSyntax,
    breaks: bool,
    pieces: Vec<Piece>,
    /// Where the open brackets are in `pieces`.
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Parser {
    /// Reads what `rest` begins with, `c`, and returns what follows.
    fn take<'a>(&mut self, c: char, rest: &'a str) -> &'a str {
        let after = &rest[c.len_utf8()..];
        let all = self.syntax == PromptSyntax::A1111;
        match c {
            '\\' => match after.chars().next() {
                Some(escaped @ ('(' | ')' | '[' | ']' | '\\')) if all || escaped != '\\' => {
                    self.push(&escaped.to_string());
                    return &after[1..];
                }
                // The web UI drops a backslash that escapes nothing.
                _ => self.push(if all { "" } else { "\\" }),
            },
            '(' => {
                self.round.push(self.pieces.len());
                // Where a bracket alone is no weight, it is text until it turns out to be one.
                self.push(if all { "" } else { "(" });
            }
            '[' if all => self.square.push(self.pieces.len()),
            ')' => match self.round.pop() {
                Some(start) if all => self.multiply(start, ROUND),
                _ => self.push(")"),
            },
            ']' => match self.square.pop() {
                Some(start) => self.multiply(start, 1.0 / ROUND),
                None => self.push("]"),
            },
            ':' => match (explicit(after), self.round.last().copied()) {
                (Some((weight, after)), Some(start)) if all || self.is_meant(start, weight) => {
                    self.round.pop();
                    self.pieces[start] = Piece::Text(String::new(), 1.0);
                    self.multiply(start, weight);
                    return after;
                }
                _ => self.push(":"),
            },
            _ => {
                let end = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                // A `[` that is no mark is text, too.
                let end = end.max(c.len_utf8());
                self.push_words(&rest[..end]);
                return &rest[end..];
            }
        }
        after
    }

    /// Whether `(` at `start` and `:weight)` look like a weight and not like a ratio or a time.
    fn is_meant(&self, start: usize, weight: f32) -> bool {
        let has_letters =
            |piece: &Piece| matches!(piece, Piece::Text(text, _) if text.chars().any(char::is_alphabetic));
        weight.abs() <= MOST_MEANT && self.pieces[start..].iter().any(has_letters)
    }

    fn push(&mut self, text: &str) {
        self.pieces.push(Piece::Text(text.to_owned(), 1.0));
    }

    /// Text without brackets, which may hold breaks.
    fn push_words(&mut self, text: &str) {
        if !self.breaks {
            return self.push(text);
        }
        let parts = split_at_word(text, "BREAK");
        let last = parts.len() - 1;
        for (i, mut part) in parts.into_iter().enumerate() {
            if i > 0 {
                self.pieces.push(Piece::Break);
                part = part.trim_start();
            }
            self.push(if i < last { part.trim_end() } else { part });
        }
    }

    fn multiply(&mut self, start: usize, by: f32) {
        for piece in &mut self.pieces[start..] {
            if let Piece::Text(_, weight) = piece {
                *weight = (*weight * by).clamp(-MOST, MOST);
            }
        }
    }

    fn finish(mut self) -> WeightedPrompt {
        if self.syntax == PromptSyntax::A1111 {
            for start in std::mem::take(&mut self.round) {
                self.multiply(start, ROUND);
            }
            for start in std::mem::take(&mut self.square) {
                self.multiply(start, 1.0 / ROUND);
            }
        }
        let mut pieces: Vec<Piece> = Vec::new();
        for piece in self.pieces {
            match (pieces.last_mut(), piece) {
                (_, Piece::Text(text, _)) if text.is_empty() => {}
                (Some(Piece::Text(last, was)), Piece::Text(text, weight)) if *was == weight => last.push_str(&text),
                (_, piece) => pieces.push(piece),
            }
        }
        WeightedPrompt { pieces }
    }
}

/// `1.3)` to its number and what follows.
fn explicit(text: &str) -> Option<(f32, &str)> {
    let (number, after) = text.split_once(')')?;
    let number = number.trim();
    let plain = |c: char| c.is_ascii_digit() || ".+-".contains(c);
    let weight = number.chars().all(plain).then(|| number.parse::<f32>().ok())??;
    Some((weight, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use PromptSyntax::{A1111, Auto, Plain};

    /// Texts with their weights in hundredths; a break is `|`.
    fn parse(prompt: &str, syntax: PromptSyntax) -> Vec<(String, i32)> {
        let pieces = WeightedPrompt::parse(prompt, syntax).pieces.into_iter();
        let pieces = pieces.map(|piece| match piece {
            Piece::Text(text, weight) => (text, (weight * 100.0).round() as i32),
            Piece::Break => ("|".to_owned(), 0),
        });
        pieces.collect()
    }

    fn of(list: &[(&str, i32)]) -> Vec<(String, i32)> {
        list.iter()
            .map(|(text, weight)| ((*text).to_owned(), *weight))
            .collect()
    }

    #[test]
    fn a_prompt_without_marks_is_itself() {
        for plain in ["a cat: at 12:30", "50% off, \"red\"", "红苹果", "a) cat]"] {
            for syntax in [Auto, A1111, Plain] {
                assert_eq!(parse(plain, syntax), of(&[(plain, 100)]), "{plain}");
            }
        }
        for plain in [
            "a cat (sitting) [old]",
            "a\\b",
            "(16:9)",
            "(a ratio 16:9)",
            "(a",
            "[a",
            "((a)) [[b]]",
        ] {
            for syntax in [Auto, Plain] {
                assert_eq!(parse(plain, syntax), of(&[(plain, 100)]), "{plain}");
            }
        }
    }

    #[test]
    fn marks_as_the_web_ui_reads_them() {
        for (prompt, pieces) in [
            ("a (red) cat", &[("a ", 100), ("red", 110), (" cat", 100)][..]),
            ("a [red] cat", &[("a ", 100), ("red", 91), (" cat", 100)]),
            ("((red))", &[("red", 121)]),
            ("(a (red:2):0.5)", &[("a ", 50), ("red", 100)]),
            ("a (red, cat", &[("a ", 100), ("red, cat", 110)]),
            ("a [red, cat", &[("a ", 100), ("red, cat", 91)]),
            (r"a \(red\) cat", &[("a (red) cat", 100)]),
            (r"a\b \\", &[("ab \\", 100)]),
            ("(ratio 16:9)", &[("ratio 16", 900)]),
            ("(红苹果:1.5)!", &[("红苹果", 150), ("!", 100)]),
        ] {
            assert_eq!(parse(prompt, A1111), of(pieces), "{prompt}");
        }
    }

    #[test]
    fn weights_with_a_number_count_by_themselves() {
        for (prompt, pieces) in [
            ("a (red:1.3) cat", &[("a ", 100), ("red", 130), (" cat", 100)][..]),
            ("(photo:1.2)(horse:1.3)", &[("photo", 120), ("horse", 130)]),
            ("photo(graph:1.3)y", &[("photo", 100), ("graph", 130), ("y", 100)]),
            ("(a (red:2):0.5)", &[("a ", 50), ("red", 100)]),
            ("(red: 1.2 ) x", &[("red", 120), (" x", 100)]),
            (r"(a \(b\):1.5)", &[("a (b)", 150)]),
            ("(cat (old):1.5)", &[("cat (old)", 150)]),
        ] {
            assert_eq!(parse(prompt, Auto), of(pieces), "{prompt}");
        }
    }

    #[test]
    fn break_is_a_word_of_its_own_in_any_bracket() {
        let both = of(&[("a cat", 100), ("|", 0), ("a dog", 100)]);
        for syntax in [Auto, A1111] {
            assert_eq!(parse("a cat  BREAK\na dog", syntax), both);
        }
        assert_eq!(parse("BREAKFAST for a cat", A1111), of(&[("BREAKFAST for a cat", 100)]));
        assert_eq!(parse("a BREAK b", Plain), of(&[("a BREAK b", 100)]));
        assert_eq!(parse("TAKE A BREAK", Auto), of(&[("TAKE A BREAK", 100)]));
        assert_eq!(parse("(a BREAK b:1.2)", Auto), of(&[("a", 120), ("|", 0), ("b", 120)]));
    }

    #[test]
    fn absurd_weights_are_bounded() {
        assert_eq!(parse("(x:99999999)", A1111)[0].1, 1000);
        assert!(parse(&"(".repeat(5000), A1111).is_empty());
    }
}
