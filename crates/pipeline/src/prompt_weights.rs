//! Emphasis as A1111 writes it (`modules/prompt_parser.py`, `parse_prompt_attention`):
//! `(word)` is 1.1, `[word]` 1/1.1, `(word:1.3)` 1.3, nested ones multiply, and `\(` is a plain
//! parenthesis. A bracket that is never closed reaches to the end.

use std::ops::Range;

/// A prompt without its marks, and what the marks say.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedPrompt {
    /// What the text encoders read.
    pub text: String,
    /// Parts of `text` in bytes, ascending, whose weight is not 1.
    pub weights: Vec<(Range<usize>, f32)>,
}

const ROUND: f32 = 1.1;
/// Far beyond what a picture survives; keeps the encodings finite.
const MOST: f32 = 10.0;

impl WeightedPrompt {
    /// Never fails: what is no mark is text.
    pub fn parse(prompt: &str) -> Self {
        let mut parser = Parser::default();
        let mut rest = prompt;
        while let Some(c) = rest.chars().next() {
            rest = parser.take(c, rest);
        }
        parser.finish()
    }

    /// The weight of what begins at byte `at`.
    pub fn at(&self, at: usize) -> f32 {
        let found = self.weights.iter().find(|(range, _)| range.contains(&at));
        found.map_or(1.0, |(_, weight)| *weight)
    }
}

#[derive(Default)]
struct Parser {
    text: String,
    /// One for each byte of `text`.
    weights: Vec<f32>,
    /// Where the open brackets began in `text`.
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Parser {
    /// Reads what `rest` begins with, `c`, and returns what follows.
    fn take<'a>(&mut self, c: char, rest: &'a str) -> &'a str {
        let after = &rest[c.len_utf8()..];
        match c {
            '\\' => match after.chars().next() {
                Some(escaped @ ('(' | ')' | '[' | ']' | '\\')) => {
                    self.push(escaped);
                    return &after[1..];
                }
                _ => self.push(c),
            },
            '(' => self.round.push(self.text.len()),
            '[' => self.square.push(self.text.len()),
            ')' => match self.round.pop() {
                Some(start) => self.multiply(start, ROUND),
                None => self.push(c),
            },
            ']' => match self.square.pop() {
                Some(start) => self.multiply(start, 1.0 / ROUND),
                None => self.push(c),
            },
            ':' => match (explicit(after), self.round.last().copied()) {
                (Some((weight, after)), Some(start)) => {
                    self.round.pop();
                    self.multiply(start, weight);
                    return after;
                }
                _ => self.push(c),
            },
            _ => self.push(c),
        }
        after
    }

    fn push(&mut self, c: char) {
        self.text.push(c);
        self.weights.resize(self.text.len(), 1.0);
    }

    fn multiply(&mut self, start: usize, weight: f32) {
        for w in &mut self.weights[start..] {
            *w = (*w * weight).clamp(-MOST, MOST);
        }
    }

    fn finish(mut self) -> WeightedPrompt {
        for start in std::mem::take(&mut self.round) {
            self.multiply(start, ROUND);
        }
        for start in std::mem::take(&mut self.square) {
            self.multiply(start, 1.0 / ROUND);
        }
        let mut weights: Vec<(Range<usize>, f32)> = Vec::new();
        for (i, &weight) in self.weights.iter().enumerate().filter(|(_, w)| **w != 1.0) {
            match weights.last_mut() {
                Some((range, last)) if range.end == i && *last == weight => range.end = i + 1,
                _ => weights.push((i..i + 1, weight)),
            }
        }
        WeightedPrompt {
            text: self.text,
            weights,
        }
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

    fn parse(prompt: &str) -> (String, Vec<(String, f32)>) {
        let p = WeightedPrompt::parse(prompt);
        let weights = p
            .weights
            .iter()
            .map(|(range, w)| (p.text[range.clone()].to_owned(), (w * 100.0).round() / 100.0))
            .collect();
        (p.text, weights)
    }

    #[test]
    fn a_prompt_without_marks_is_itself() {
        for plain in ["", "a cat: at 12:30", "50% off, \"red\"", "红苹果", "a\\b", "a) cat]"] {
            assert_eq!(parse(plain), (plain.to_owned(), Vec::new()), "{plain}");
        }
    }

    #[test]
    fn marks_as_the_web_ui_reads_them() {
        let of = |prompt| parse(prompt);
        let w = |list: &[(&str, f32)]| list.iter().map(|(t, w)| ((*t).to_owned(), *w)).collect::<Vec<_>>();
        assert_eq!(of("a (red:1.3) cat"), ("a red cat".into(), w(&[("red", 1.3)])));
        assert_eq!(of("a (red) cat"), ("a red cat".into(), w(&[("red", 1.1)])));
        assert_eq!(of("a [red] cat"), ("a red cat".into(), w(&[("red", 0.91)])));
        assert_eq!(of("((red))"), ("red".into(), w(&[("red", 1.21)])));
        assert_eq!(of("(a (red:2):0.5)"), ("a red".into(), w(&[("a ", 0.5)])));
        assert_eq!(of("a (red, cat"), ("a red, cat".into(), w(&[("red, cat", 1.1)])));
        assert_eq!(of(r"a \(red\) cat"), ("a (red) cat".into(), Vec::new()));
        assert_eq!(of("(red: 1.2 ) x"), ("red x".into(), w(&[("red", 1.2)])));
        assert_eq!(of("(ratio 16:9)"), ("ratio 16".into(), w(&[("ratio 16", 9.0)])));
        assert_eq!(of("(红苹果:1.5)!"), ("红苹果!".into(), w(&[("红苹果", 1.5)])));
    }

    #[test]
    fn absurd_weights_are_bounded() {
        assert_eq!(parse("(x:99999999)").1[0].1, 10.0);
        assert_eq!(parse(&"(".repeat(5000)).0, "");
        assert_eq!(WeightedPrompt::parse("(x:1.5)").at(0), 1.5);
    }
}
