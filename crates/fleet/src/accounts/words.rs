//! Words that prompts may not have.

use std::collections::HashSet;

/// Lists of words and phrases, compared as whole words without regard to case.
#[derive(Clone, Debug, Default)]
pub struct Words {
    blocked: Phrases,
    allowed: Phrases,
}

/// Sequences of words, and how long the longest one is.
#[derive(Clone, Debug, Default)]
struct Phrases {
    phrases: HashSet<Vec<String>>,
    longest: usize,
}

impl Phrases {
    /// One a line; what follows `#` is a remark.
    fn read(text: &str) -> Self {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let phrases: HashSet<_> = lines.map(split).filter(|phrase| !phrase.is_empty()).collect();
        let longest = phrases.iter().map(Vec::len).max().unwrap_or(0);
        Self { phrases, longest }
    }

    /// Words from the beginning of `words` that are one of the phrases: as many as there can be.
    fn at(&self, words: &[String]) -> usize {
        let most = self.longest.min(words.len());
        let found = (1..=most).rev().find(|&n| self.phrases.contains(&words[..n]));
        found.unwrap_or(0)
    }
}

fn split(text: &str) -> Vec<String> {
    let words = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

impl Words {
    /// `blocked`: the text of a list that prompts may not have anything of; `allowed`: of phrases in which they may all the same.
    /// A line is a phrase; what follows `#` is a remark.
    pub fn read(blocked: &str, allowed: &str) -> Self {
        Self {
            blocked: Phrases::read(blocked),
            allowed: Phrases::read(allowed),
        }
    }

    /// The first phrase of `text` that is blocked.
    pub fn blocked(&self, text: &str) -> Option<String> {
        if self.blocked.longest == 0 {
            return None;
        }
        let words = split(text);
        let mut at = 0;
        while at < words.len() {
            let allowed = self.allowed.at(&words[at..]);
            let blocked = self.blocked.at(&words[at..]);
            if blocked > 0 && allowed < blocked {
                return Some(words[at..at + blocked].join(" "));
            }
            at += allowed.max(1);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_are_blocked_unless_they_stand_in_an_allowed_phrase() {
        let words = Words::read("bomb # and what belongs to it\nsecret place\n", "bath bomb\n");
        let blocked = |text: &str| words.blocked(text);
        assert_eq!(blocked("a BOMB, ticking").as_deref(), Some("bomb"));
        assert_eq!(blocked("a (secret:1.2) place"), None);
        assert_eq!(blocked("the secret, place").as_deref(), Some("secret place"));
        assert_eq!(blocked("a bombastic secret"), None);
        assert_eq!(blocked("a bath bomb"), None);
        assert_eq!(blocked("a bath bomb and a bomb").as_deref(), Some("bomb"));
        assert_eq!(Words::default().blocked("a bomb"), None);
    }
}
