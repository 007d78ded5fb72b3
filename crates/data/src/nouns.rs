//! The core nouns: what is in `core_nouns.txt`.

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreNoun {
    /// Line number in the file, from 1.
    pub line: usize,
    /// `a dog`, `a pair of scissors`, `french fries`.
    pub phrase: String,
    /// Emojibase labels whose pictures show it.
    pub labels: Vec<String>,
    /// Emojibase label whose translations and tags name it.
    pub words: String,
}

const LIST: &str = include_str!("core_nouns.txt");

/// The core nouns, most common first.
pub fn core_nouns() -> Vec<CoreNoun> {
    parse(LIST)
}

fn parse(text: &str) -> Vec<CoreNoun> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, text)| {
            let (text, words) = text
                .split_once(" @ ")
                .map_or((text, None), |(t, w)| (t, Some(w.trim())));
            let (phrase, labels) = text.split_once(" = ").map_or((text, None), |(p, l)| (p, Some(l)));
            let phrase = phrase.trim().to_owned();
            let labels: Vec<String> = match labels {
                Some(labels) => labels.split(" + ").map(|l| l.trim().to_owned()).collect(),
                None => vec![super::caption::without_article(&phrase).to_owned()],
            };
            let words = words.map_or_else(|| labels[0].clone(), str::to_owned);
            CoreNoun {
                line,
                phrase,
                labels,
                words,
            }
        })
        .collect()
}
