//! How a picture was painted, in the text that the A1111 web UI writes into its files.
//!
//! ```text
//! a red apple
//! Negative prompt: blurry
//! Steps: 4, Sampler: Euler, CFG scale: 1, Seed: 1, Size: 512x512, Model: prima-mini
//! ```

use serde::{Deserialize, Serialize};

/// What a `parameters` chunk says: the prompts, then `key: value` pairs in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    pub prompt: String,
    /// Empty when there was none.
    pub negative_prompt: String,
    pub fields: Vec<(String, String)>,
}

const NEGATIVE: &str = "Negative prompt: ";

impl Parameters {
    /// The value of a field such as `Seed`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The chunk's text.
    pub fn to_text(&self) -> String {
        let mut text = self.prompt.clone();
        if !self.negative_prompt.is_empty() {
            text = format!("{text}\n{NEGATIVE}{}", self.negative_prompt);
        }
        let fields: Vec<String> = self.fields.iter().map(|(k, v)| format!("{k}: {}", quote(v))).collect();
        text + "\n" + &fields.join(", ")
    }

    /// Reads a chunk's text. The last line holds fields only if it has three or more of them,
    /// so that a prompt with a colon in it stays a prompt.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let (mut body, last) = text.rsplit_once('\n').unwrap_or(("", text));
        let mut fields = parse_fields(last);
        if fields.len() < 3 {
            fields.clear();
            body = text;
        }
        let mut parameters = Self {
            fields,
            ..Self::default()
        };
        let mut in_negative = false;
        for line in body.lines().map(str::trim) {
            let rest = line.strip_prefix(NEGATIVE.trim_end());
            in_negative |= rest.is_some();
            let into = if in_negative {
                &mut parameters.negative_prompt
            } else {
                &mut parameters.prompt
            };
            if !into.is_empty() {
                into.push('\n');
            }
            into.push_str(rest.map_or(line, str::trim_start));
        }
        parameters
    }
}

/// Values with a comma, a colon, a quote or a line break are written as JSON strings.
fn quote(value: &str) -> String {
    if value.contains([',', ':', '\n', '"']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

/// The pairs `key: value` of a line, as the web UI's regular expression
/// `\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)` finds them.
fn parse_fields(line: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once(':') {
        // A key holds letters, digits, spaces, `-` and `/`: what stands before the last other character is skipped.
        let start = before.rfind(|c: char| !(c.is_alphanumeric() || "_ -/".contains(c)));
        let key = before[start.map_or(0, |i| i + before[i..].chars().next().map_or(1, char::len_utf8))..].trim();
        let after = after.trim_start();
        let (value, next) = split_value(after);
        if key.chars().count() >= 2 {
            fields.push((key.to_owned(), value));
        }
        rest = next;
    }
    fields
}

/// One value and what follows its comma.
fn split_value(text: &str) -> (String, &str) {
    if text.starts_with('"') {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
        if let Some(Ok(value)) = values.next() {
            let rest = text[values.byte_offset()..].trim_start();
            return (value, rest.strip_prefix(',').unwrap_or(rest));
        }
    }
    let (value, rest) = text.split_once(',').unwrap_or((text, ""));
    (value.trim_end().to_owned(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_web_uis_own_text_is_read() {
        let text = "a red apple,\non a table: blue\nNegative prompt: blurry, ugly\nlow\nSteps: 20, Sampler: DPM++ 2M, \
                    Schedule type: Karras, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 6ce0161689, \
                    Lora hashes: \"a: 1, b: 2\", Version: v1.6.0";
        let parameters = Parameters::parse(text);
        assert_eq!(parameters.prompt, "a red apple,\non a table: blue");
        assert_eq!(parameters.negative_prompt, "blurry, ugly\nlow");
        assert_eq!(parameters.get("Sampler"), Some("DPM++ 2M"));
        assert_eq!(parameters.get("Lora hashes"), Some("a: 1, b: 2"));
        assert_eq!(parameters.get("Version"), Some("v1.6.0"));
        assert_eq!(parameters.fields.len(), 9);
    }

    #[test]
    fn a_prompt_with_colons_and_no_fields_stays_a_prompt() {
        let parameters = Parameters::parse("note: an apple, style: oil");
        assert_eq!(parameters.prompt, "note: an apple, style: oil");
        assert!(parameters.fields.is_empty());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let parameters = Parameters {
            prompt: "two\nlines".into(),
            negative_prompt: "grey".into(),
            fields: pairs(&[
                ("Steps", "4"),
                ("Seed", "1"),
                ("Model", "a, \"b\": c"),
                ("Size", "128x128"),
            ]),
        };
        assert_eq!(Parameters::parse(&parameters.to_text()), parameters);
    }
}
