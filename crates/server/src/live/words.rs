//! The words of a prompt, and the prompt without one of them.

/// A word and where it stands, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word<'a> {
    pub text: &'a str,
    pub start: usize,
}

/// Letters, digits, hyphens and apostrophes; the number of a weight `(word:1.3)` is none.
pub(super) fn words(prompt: &str) -> Vec<Word<'_>> {
    let inside = |c: char| c.is_alphanumeric() || "-'_".contains(c);
    let mut found = Vec::new();
    let mut rest = 0;
    while let Some(start) = prompt[rest..].find(inside).map(|i| rest + i) {
        let length = prompt[start..].find(|c| !inside(c)).unwrap_or(prompt.len() - start);
        let end = start + length;
        if let Some(end) = weight_end(prompt, start) {
            rest = end;
            continue;
        }
        let text = &prompt[start..end];
        if text.chars().any(char::is_alphanumeric) {
            found.push(Word { text, start });
        }
        rest = end;
    }
    found
}

/// Where the number ends that begins at `start`, if it is the number of a weight.
fn weight_end(prompt: &str, start: usize) -> Option<usize> {
    prompt[..start].trim_end().ends_with(':').then_some(())?;
    let length = prompt[start..].find(')')?;
    prompt[start..start + length].trim().parse::<f32>().ok()?;
    Some(start + length)
}

/// The prompt without that word.
pub(super) fn without(prompt: &str, word: &Word) -> String {
    format!("{}{}", &prompt[..word.start], &prompt[word.start + word.text.len()..])
}

/// `(start, end)` of a word in characters.
pub(super) fn characters(prompt: &str, word: &Word) -> (usize, usize) {
    let start = prompt[..word.start].chars().count();
    (start, start + word.text.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_and_weights_are_not_words() {
        let prompt = "a (red:1.3) cat, l'été: 2 high-res \u{7ea2}";
        let found: Vec<&str> = words(prompt).iter().map(|w| w.text).collect();
        assert_eq!(found, ["a", "red", "cat", "l'été", "2", "high-res", "\u{7ea2}"]);
        let red = &words(prompt)[1];
        assert!(without(prompt, red).starts_with("a (:1.3) cat"));
        let last = words(prompt).pop().unwrap();
        assert_eq!(
            characters(prompt, &last),
            (prompt.chars().count() - 1, prompt.chars().count())
        );
    }

    #[test]
    fn nothing_but_marks_has_no_words() {
        assert!(words(" ,;()- ").is_empty());
    }
}
