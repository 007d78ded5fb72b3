//! The tokenizer against transformers' `CLIPTokenizer` (goldens/components/tokens.json).

use prima_checkpoint::ModelSource;
use prima_models::{Tokenizer, TokenizerFiles};
use std::path::PathBuf;

fn goldens() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../goldens")
}

fn load(folder: &str, component: &str) -> Tokenizer {
    Tokenizer::load(&ModelSource::Folder(goldens().join(folder)), component, 77).unwrap()
}

#[test]
fn ids_equal_those_of_transformers_for_every_golden_prompt() {
    let text = std::fs::read_to_string(goldens().join("components/tokens.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() >= 20);
    for case in &cases {
        let (folder, prompt) = (case["folder"].as_str().unwrap(), case["prompt"].as_str().unwrap());
        for (component, field) in [("tokenizer", "input_ids"), ("tokenizer_2", "input_ids_2")] {
            let tokenizer = load(folder, component);
            let encoded = tokenizer.encode(prompt).unwrap();
            let expected: Vec<u32> = serde_json::from_value(case[field].clone()).unwrap();
            assert_eq!(encoded.ids, expected, "{folder}/{component}: {prompt:?}");
            let length = case["untruncated_length"].as_u64().unwrap() as usize;
            assert_eq!(tokenizer.count(prompt), length, "{folder}/{component}: {prompt:?}");
            assert_eq!(encoded.dropped.is_empty(), length <= 77, "{prompt:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_named_from_the_first_word_that_is_cut() {
    let tokenizer = load("tiny-sdxl", "tokenizer");
    let prompt = format!("{}  Ångström  unfitting tail ", "a ".repeat(74));
    let encoded = tokenizer.encode(&prompt).unwrap();
    // One token of the next word fits, the rest of it does not: the whole word counts as dropped.
    assert_eq!(encoded.dropped, "Ångström  unfitting tail");
    assert_eq!(encoded.eos_index, 76);
    assert_eq!(encoded.ids.len(), 77);
    assert_eq!(tokenizer.encode(&"a ".repeat(75)).unwrap().dropped, "");
    assert_eq!(tokenizer.encode(&"a ".repeat(76)).unwrap().dropped, "a");
}

#[test]
fn the_end_index_is_that_of_the_first_end_token() {
    let tokenizer = load("tiny-sdxl", "tokenizer");
    assert_eq!(tokenizer.encode("").unwrap().eos_index, 1);
    assert_eq!(tokenizer.encode("a cat").unwrap().eos_index, 3);
    assert_eq!(tokenizer.encode("a<|endoftext|>cat").unwrap().eos_index, 2);
}

#[test]
fn the_length_is_a_parameter() {
    let tokenizer = Tokenizer::load(&ModelSource::Folder(goldens().join("tiny-sdxl")), "tokenizer", 8).unwrap();
    let encoded = tokenizer.encode("a cat a cat a cat a dog").unwrap();
    assert_eq!(encoded.ids.len(), 8);
    assert_eq!(encoded.dropped, "a dog");
}

#[test]
fn bad_files_are_refused_in_a_sentence() {
    let error = |files: &TokenizerFiles| Tokenizer::new("tokenizer", files, 77).err().unwrap().to_string();
    assert_eq!(
        error(&TokenizerFiles::default()),
        "tokenizer: needs tokenizer.json, or vocab.json and merges.txt"
    );
    let vocab = |vocab: &str, merges: &str| TokenizerFiles {
        vocab_json: Some(vocab.into()),
        merges_txt: Some(merges.into()),
        ..TokenizerFiles::default()
    };
    assert!(error(&vocab("{", "")).starts_with("vocab.json of tokenizer is not the JSON expected"));
    assert!(error(&vocab("{\"a\":0}", "#version: 0.2\n")).contains("`<|startoftext|>` is not in the vocabulary"));
    assert!(error(&vocab("{\"a\":0}", "b c\n")).contains("cannot be built"));
    let json = TokenizerFiles {
        tokenizer_json: Some(b"{}".to_vec()),
        ..TokenizerFiles::default()
    };
    assert!(error(&json).contains("cannot be built"));
}
