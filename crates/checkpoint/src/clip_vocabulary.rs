//! CLIP's vocabulary, in the binary: every model of these families reads its prompts with it, and a file of weights holds none.

use crate::Error;
use serde_json::json;
use std::fmt::Write;
use std::io::Read;

/// The merges, one a line, the most frequent first (OpenAI, MIT: `assets/clip/NOTICE`).
const MERGES: &[u8] = include_bytes!("../../../assets/clip/merges.txt.gz");

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// What OpenCLIP pads with: the token 0. OpenAI's CLIP pads with the end.
pub(crate) const OPEN_CLIP_PAD: &str = "!";

/// A file of a tokenizer folder of transformers, if it is one that CLIP's has. `pads_with_zero`: as OpenCLIP does.
pub(crate) fn file(name: &str, pads_with_zero: bool) -> Option<Result<Vec<u8>, Error>> {
    let pad = if pads_with_zero { OPEN_CLIP_PAD } else { END };
    let special = || json!({"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad});
    match name {
        "vocab.json" => Some(merges().map(|merges| vocabulary(&merges).into_bytes())),
        "merges.txt" => Some(merges().map(|merges| format!("#version: 0.2\n{merges}").into_bytes())),
        "special_tokens_map.json" | "tokenizer_config.json" => Some(Ok(special().to_string().into_bytes())),
        _ => None,
    }
}

fn merges() -> Result<String, Error> {
    let mut merges = String::new();
    let unpacked = flate2::read::GzDecoder::new(MERGES).read_to_string(&mut merges);
    unpacked.map_err(|error| Error::File {
        file: "CLIP's vocabulary (embedded)".to_owned(),
        message: error.to_string(),
    })?;
    Ok(merges)
}

/// `vocab.json`: the letters of the byte-level alphabet, the same at the end of a word, what each merge makes, and the start and
/// end of a text; numbered through.
fn vocabulary(merges: &str) -> String {
    let letters = || byte_alphabet().into_iter().map(String::from);
    let whole = merges.lines().map(|line| line.replacen(' ', "", 1));
    let tokens = letters()
        .chain(letters().map(|letter| letter + "</w>"))
        .chain(whole)
        .chain([START.to_owned(), END.to_owned()]);
    let mut json = String::from("{");
    for (id, token) in tokens.enumerate() {
        let comma = if id == 0 { "" } else { "," };
        let _ = write!(json, "{comma}{}:{id}", json!(token));
    }
    json.push('}');
    json
}

/// A printable letter for each byte, in the order of GPT-2's `bytes_to_unicode`: bytes that are printable in Latin-1 stand for
/// themselves and come first.
fn byte_alphabet() -> Vec<char> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let own = (0..=u8::MAX).filter(printable).map(char::from);
    let others = (0..=u8::MAX).filter(|byte| !printable(byte)).count() as u32;
    own.chain((0..others).filter_map(|i| char::from_u32(256 + i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_tokens_that_clip_was_trained_with() {
        let bytes = file("vocab.json", false).unwrap().unwrap();
        let vocabulary: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(vocabulary.len(), 49408);
        // Well-known ids of `openai/clip-vit-large-patch14`.
        for (token, id) in [
            ("!", 0),
            ("a</w>", 320),
            ("photo</w>", 1125),
            ("cat</w>", 2368),
            (START, 49406),
            (END, 49407),
        ] {
            assert_eq!(vocabulary[token], id, "{token}");
        }
        let merges = file("merges.txt", false).unwrap().unwrap();
        assert_eq!(merges.split(|byte| *byte == b'\n').count(), 48896);
        assert!(file("tokenizer.json", false).is_none());
    }
}
