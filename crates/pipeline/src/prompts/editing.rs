//! Prompts that change on the way (`modules/prompt_parser.py`, `get_learned_conditioning_prompt_schedules`):
//! `[cat:dog:0.5]` is a cat until half of the network's evaluations are done and then a dog, `[dog:0.5]` begins late,
//! `[cat::0.5]` ends early, whole numbers count evaluations, and `[cat|dog]` alternates.

use super::PromptSyntax;

/// Brackets inside brackets, beyond which they are text.
const DEEPEST: usize = 32;

/// A prompt's parts, in order.
#[derive(Clone, Debug, PartialEq)]
enum Part<'a> {
    Text(&'a str),
    Edited {
        before: Vec<Part<'a>>,
        after: Vec<Part<'a>>,
        when: When,
    },
    Alternating(Vec<Vec<Part<'a>>>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Share(f64),
    Evaluation(f64),
}

impl When {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let plain = |c: char| c.is_ascii_digit() || ".+-".contains(c);
        let number = text.chars().all(plain).then(|| text.parse::<f64>().ok())??;
        Some(if text.contains('.') {
            Self::Share(number)
        } else {
            Self::Evaluation(number)
        })
    }

    /// Of `total` evaluations, the last one that still sees what comes before.
    fn of(self, total: usize) -> usize {
        let at = match self {
            Self::Share(share) => share * total as f64,
            Self::Evaluation(number) => number,
        };
        (at.max(0.0) as usize).min(total)
    }
}

/// What `prompt` is in each of `total` network evaluations; one text for all of them where it does not change.
///
/// The web UI counts evaluations from 0 and compares with the place where a text ends, so that the first text of a prompt
/// that changes is seen once more than its number says; so it is here.
pub fn texts(prompt: &str, syntax: PromptSyntax, total: usize) -> Vec<String> {
    let parts = match syntax {
        PromptSyntax::Plain => vec![Part::Text(prompt)],
        _ => parse(prompt, syntax, 0),
    };
    let mut ends = vec![total.max(1)];
    collect_ends(&parts, total, &mut ends);
    ends.sort_unstable();
    ends.dedup();
    if ends.len() == 1 {
        return vec![text_at(&parts, ends[0], total)];
    }
    let of = |evaluation: usize| {
        let end = ends.iter().find(|end| **end >= evaluation).copied();
        text_at(&parts, end.unwrap_or(total), total)
    };
    (0..total).map(of).collect()
}

fn collect_ends(parts: &[Part], total: usize, ends: &mut Vec<usize>) {
    for part in parts {
        match part {
            Part::Text(_) => {}
            Part::Edited { before, after, when } => {
                ends.extend(Some(when.of(total)).filter(|end| *end >= 1));
                collect_ends(before, total, ends);
                collect_ends(after, total, ends);
            }
            Part::Alternating(options) => {
                ends.extend(1..=total);
                for option in options {
                    collect_ends(option, total, ends);
                }
            }
        }
    }
}

fn text_at(parts: &[Part], step: usize, total: usize) -> String {
    let texts = parts.iter().map(|part| match part {
        Part::Text(text) => (*text).to_owned(),
        Part::Edited { before, after, when } => {
            let now = if step <= when.of(total) { before } else { after };
            text_at(now, step, total)
        }
        Part::Alternating(options) => text_at(&options[(step - 1) % options.len()], step, total),
    });
    texts.collect()
}

fn parse(text: &str, syntax: PromptSyntax, depth: usize) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut kept_to, mut at) = (0, 0);
    while let Some(found) = next(text, at, "[") {
        let end = closing(text, found).filter(|_| depth < DEEPEST);
        let part = end.and_then(|end| bracket(&text[found + 1..end], syntax, depth));
        at = found + 1;
        if let (Some(part), Some(end)) = (part, end) {
            parts.push(Part::Text(&text[kept_to..found]));
            parts.push(part);
            (kept_to, at) = (end + 1, end + 1);
        }
    }
    parts.push(Part::Text(&text[kept_to..]));
    parts
}

/// What stands between brackets, if it is an edit or a choice.
fn bracket(inside: &str, syntax: PromptSyntax, depth: usize) -> Option<Part<'_>> {
    let colons = split(inside, ':');
    let options = split(inside, '|');
    let read = |text| parse(text, syntax, depth + 1);
    match (&colons[..], &options[..]) {
        ([before, after, when], [_]) => Some(Part::Edited {
            before: read(before),
            after: read(after),
            when: When::read(when)?,
        }),
        ([after, when], [_]) => {
            let when = When::read(when)?;
            // `[ratio 16:9]` is no edit that anybody means.
            let meant =
                syntax == PromptSyntax::A1111 || matches!(when, When::Share(share) if (0.0..=1.0).contains(&share));
            meant.then(|| Part::Edited {
                before: Vec::new(),
                after: read(after),
                when,
            })
        }
        ([_], [_, _, ..]) => Some(Part::Alternating(options.into_iter().map(read).collect())),
        _ => None,
    }
}

/// Where the next of `signs` is that no backslash stands before, from byte `at` on.
fn next(text: &str, at: usize, signs: &str) -> Option<usize> {
    let mut escaped = false;
    for (i, c) in text[at..].char_indices() {
        if !escaped && signs.contains(c) {
            return Some(at + i);
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// The `]` that belongs to the `[` at byte `open`.
fn closing(text: &str, open: usize) -> Option<usize> {
    let (mut depth, mut at) = (0, open);
    while let Some(found) = next(text, at, "[]") {
        depth = if text[found..].starts_with('[') {
            depth + 1
        } else {
            depth - 1
        };
        if depth == 0 {
            return Some(found);
        }
        at = found + 1;
    }
    None
}

/// At each `sign` outside of brackets.
fn split(text: &str, sign: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut from, mut escaped) = (0_usize, 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => {}
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            c if c == sign && depth == 0 => {
                parts.push(&text[from..i]);
                from = i + 1;
            }
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(&text[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(prompt: &str, total: usize) -> Vec<String> {
        texts(prompt, PromptSyntax::Auto, total)
    }

    #[test]
    fn a_prompt_that_does_not_change_is_one_text() {
        for prompt in [
            "",
            "a cat",
            "a [red] cat",
            "[a",
            "a]",
            "[ratio 16:9]",
            "[a:b]",
            r"\[a|b\]",
            "(a|b:1.2)",
        ] {
            assert_eq!(of(prompt, 4), [prompt], "{prompt}");
        }
        assert_eq!(texts("[a|b]", PromptSyntax::Plain, 4), ["[a|b]"]);
    }

    // The texts of the web UI's own doc tests (10 steps), evaluation by evaluation.
    #[test]
    fn edits_change_where_the_web_ui_changes_them() {
        let runs = |prompt: &str| {
            let mut runs: Vec<(usize, String)> = Vec::new();
            for (i, text) in of(prompt, 10).into_iter().enumerate() {
                match runs.last_mut() {
                    Some((end, last)) if *last == text => *end = i,
                    _ => runs.push((i, text)),
                }
            }
            runs
        };
        let expected = |list: &[(usize, &str)]| list.iter().map(|(i, t)| (*i, (*t).to_owned())).collect::<Vec<_>>();
        assert_eq!(
            runs("a [b:.5] c"),
            expected(&[(5, "a  c"), (9, "a b c")]),
            "begins late"
        );
        assert_eq!(runs("a [b:c:3] d"), expected(&[(3, "a b d"), (9, "a c d")]));
        assert_eq!(
            runs("a [b::0.2] c"),
            expected(&[(2, "a b c"), (9, "a  c")]),
            "ends early"
        );
        assert_eq!(
            runs("a [[b:c:0.2]:d:0.5]"),
            expected(&[(2, "a b"), (5, "a c"), (9, "a d")])
        );
        assert_eq!(
            runs("a ([b:c:0.5]:1.2)"),
            expected(&[(5, "a (b:1.2)"), (9, "a (c:1.2)")])
        );
    }

    #[test]
    fn choices_alternate_by_evaluation() {
        assert_eq!(of("a [b|c] d", 5), ["a b d", "a b d", "a c d", "a b d", "a c d"]);
        assert_eq!(of("[a||b]", 4), ["a", "a", "", "b"]);
    }

    #[test]
    fn one_evaluation_sees_what_an_edit_ends_in() {
        assert_eq!(of("[cat:dog:0.5]", 1), ["dog"]);
        assert_eq!(of("[cat:dog:1]", 1), ["cat"]);
        assert_eq!(of("[cat|dog]", 1), ["cat"]);
    }

    #[test]
    fn brackets_without_end_take_no_time() {
        let deep = format!("{}a|b{}", "[".repeat(2000), "]".repeat(2000));
        assert!(!of(&deep, 3).is_empty());
        assert_eq!(of(&"[".repeat(20_000), 3), ["[".repeat(20_000)]);
    }
}
