//! Words of pictures as other tools leave them: `metadata.jsonl` and `metadata.csv` of Hugging Face's imagefolder, JSON.

use super::Wording;
use crate::DataError;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Where words are looked for, in this order.
const COLUMNS: [&str; 3] = ["text", "caption", "prompt"];

/// Bytes of words that anybody has for one picture.
pub(super) const MAX_BYTES: usize = 1 << 16;

impl Wording {
    pub(super) fn columns(&self) -> Vec<&str> {
        match &self.column {
            Some(column) => vec![column.as_str()],
            None => COLUMNS.to_vec(),
        }
    }

    /// The words in a JSON object.
    pub(super) fn of_json(&self, value: &Value) -> Option<String> {
        let mut found = self.columns().into_iter().filter_map(|column| value[column].as_str());
        found.next().map(str::to_owned)
    }
}

/// Words by `file_name`, in the order of the file.
pub(super) type Metadata = Vec<(String, Option<String>)>;

/// The table in `folder`, if there is one.
pub(super) fn metadata(folder: &Path, wording: &Wording) -> Result<Option<Metadata>, DataError> {
    let jsonl = folder.join("metadata.jsonl");
    if jsonl.is_file() {
        return of_jsonl(&jsonl, wording).map(Some);
    }
    let csv = folder.join("metadata.csv");
    if csv.is_file() {
        return of_csv(&csv, wording).map(Some);
    }
    Ok(None)
}

fn of_jsonl(path: &Path, wording: &Wording) -> Result<Metadata, DataError> {
    let text = std::fs::read_to_string(path).map_err(|source| DataError::io(path, source))?;
    let mut rows = Metadata::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let failed = |what: &str| DataError::pictures(path, format!("line {}: {what}", number + 1));
        let value: Value = serde_json::from_str(line).map_err(|error| failed(&error.to_string()))?;
        let name = value["file_name"].as_str();
        let name = name.ok_or_else(|| failed("there is no file_name, which says whose words these are"))?;
        rows.push((name.to_owned(), wording.of_json(&value)));
    }
    Ok(rows)
}

fn of_csv(path: &Path, wording: &Wording) -> Result<Metadata, DataError> {
    let failed = |error: csv::Error| DataError::pictures(path, error.to_string());
    let mut reader = csv::Reader::from_path(path).map_err(failed)?;
    let header = reader.headers().map_err(failed)?.clone();
    let place = |column: &str| header.iter().position(|name| name.trim() == column);
    let Some(name) = place("file_name") else {
        return Err(DataError::pictures(
            path,
            "there is no column file_name, which says whose words a row has",
        ));
    };
    let Some(words) = wording.columns().into_iter().find_map(place) else {
        let message = format!("there is no column {}", wording.columns().join(", or "));
        return Err(DataError::pictures(path, message));
    };
    let mut rows = Metadata::new();
    for row in reader.records() {
        let row = row.map_err(failed)?;
        rows.push((
            row.get(name).unwrap_or_default().to_owned(),
            row.get(words).map(str::to_owned),
        ));
    }
    Ok(rows)
}

/// By name, for those that are looked up.
pub(super) fn by_name(metadata: &Metadata) -> BTreeMap<&str, Option<&String>> {
    let rows = metadata.iter().map(|(name, words)| (name.as_str(), words.as_ref()));
    rows.collect()
}
