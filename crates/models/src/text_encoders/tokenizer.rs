//! CLIP's tokenizer (transformers `models/clip/tokenization_clip.py`): lower case, white space
//! collapsed, NFC, byte-level BPE with the suffix `</w>`, framed by the start and end tokens and
//! padded to the encoder's length.

use prima_checkpoint::{Error, ModelSource, in_range};
use serde_json::{Value, json};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::AddedToken;

/// CLIP's splitting into words, before the byte-level alphabet.
const PATTERN: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The files of a tokenizer folder, as bytes: `tokenizer.json`, or `vocab.json` and `merges.txt`;
/// the two config files name the special tokens and may be absent.
#[derive(Clone, Debug, Default)]
pub struct TokenizerFiles {
    pub tokenizer_json: Option<Vec<u8>>,
    pub vocab_json: Option<Vec<u8>>,
    pub merges_txt: Option<Vec<u8>>,
    pub special_tokens_map_json: Option<Vec<u8>>,
    pub tokenizer_config_json: Option<Vec<u8>>,
}

/// A prompt as a text encoder reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Start token, at most `model_max_length - 2` tokens of text, end token, padding.
    pub ids: Vec<u32>,
    /// For each token of text in `ids`, the byte of the text at which it begins.
    pub starts: Vec<usize>,
    /// Position of the first end token: where the pooled embedding is taken.
    pub eos_index: usize,
    /// The end of the text that did not fit, from the first word that is not wholly in `ids`;
    /// empty if everything fits.
    pub dropped: String,
}

/// A token of a text, without start, end and padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub id: u32,
    /// The byte of the text at which it begins.
    pub start: usize,
}

/// A CLIP tokenizer that pads to a fixed length.
pub struct Tokenizer {
    name: String,
    inner: tokenizers::Tokenizer,
    bos: u32,
    eos: u32,
    pad: u32,
    model_max_length: usize,
    words: Vec<AddedWord>,
}

/// A word that the vocabulary has not, and the ids that stand for it.
struct AddedWord {
    word: String,
    ids: Range<u32>,
}

impl Tokenizer {
    /// The tokenizer in folder `component` (`tokenizer`, `tokenizer_2`) of a model;
    /// `model_max_length` is the text encoder's `max_position_embeddings`, 77 in CLIP.
    pub fn load(source: &ModelSource, component: &str, model_max_length: usize) -> Result<Self, Error> {
        let read = |file: &str| {
            let path = format!("{component}/{file}");
            source.exists(&path).then(|| source.read_bytes(&path)).transpose()
        };
        if !["tokenizer.json", "vocab.json"]
            .iter()
            .any(|file| source.exists(&format!("{component}/{file}")))
        {
            // For the sentence that fits this kind of source.
            source.read_bytes(&format!("{component}/vocab.json"))?;
        }
        let files = TokenizerFiles {
            tokenizer_json: read("tokenizer.json")?,
            vocab_json: read("vocab.json")?,
            merges_txt: read("merges.txt")?,
            special_tokens_map_json: read("special_tokens_map.json")?,
            tokenizer_config_json: read("tokenizer_config.json")?,
        };
        Self::new(&format!("{component} of {}", source.name()), &files, model_max_length)
    }

    /// One that knows no words: where only sizes are asked of a model.
    pub fn without_words(model_max_length: usize) -> Self {
        Self {
            name: String::new(),
            inner: tokenizers::Tokenizer::new(tokenizers::models::bpe::BPE::default()),
            bos: 0,
            eos: 0,
            pad: 0,
            model_max_length,
            words: Vec::new(),
        }
    }

    /// A tokenizer from the bytes of its files; errors call it `name`.
    pub fn new(name: &str, files: &TokenizerFiles, model_max_length: usize) -> Result<Self, Error> {
        let error = |message: String| Error::File {
            file: name.to_owned(),
            message,
        };
        if model_max_length < 2 {
            return Err(error(format!(
                "a length of {model_max_length} has no room for the start and end tokens"
            )));
        }
        files.check_sizes(name)?;
        let special = SpecialTokens::read(name, files)?;
        let mut inner = match (&files.tokenizer_json, &files.vocab_json, &files.merges_txt) {
            (Some(json), ..) => guarded(name, || tokenizers::Tokenizer::from_bytes(json))?,
            (None, Some(vocab), Some(merges)) => {
                let json = clip_tokenizer_json(name, vocab, merges)?;
                guarded(name, || tokenizers::Tokenizer::from_bytes(json.to_string()))?
            }
            _ => return Err(error("needs tokenizer.json, or vocab.json and merges.txt".to_owned())),
        };
        // A folder may say how long its own prompts are; the text encoder decides here.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| error(e.to_string()))?;
        let id = |token: &str| {
            inner
                .token_to_id(token)
                .ok_or_else(|| error(format!("special token `{token}` is not in the vocabulary")))
        };
        let (bos, eos, pad) = (id(&special.bos)?, id(&special.eos)?, id(&special.pad)?);
        // As transformers does: special tokens are matched in the raw text, before anything else.
        let added =
            [special.bos, special.eos, special.pad].map(|token| AddedToken::from(token, true).normalized(false));
        guarded(name, || {
            inner.add_special_tokens(&added);
            // What can be built, but panics at the first words, is no tokenizer either. Whether it knows the words is
            // not the question.
            let _ = inner.encode(PROBE, false);
            Ok(())
        })?;
        Ok(Self {
            name: name.to_owned(),
            inner,
            bos,
            eos,
            pad,
            model_max_length,
            words: Vec::new(),
        })
    }

    /// The tokens of `text`, framed, cut and padded to `model_max_length`.
    pub fn encode(&self, text: &str) -> Result<Encoded, Error> {
        let pieces = self.tokens(text)?;
        let room = self.room();
        let dropped = pieces.get(room).map_or("", |token| from_word(text, token.start));
        let fitting = &pieces[..room.min(pieces.len())];
        let ids = self.framed(&fitting.iter().map(|token| token.id).collect::<Vec<_>>());
        let eos_index = ids.iter().position(|&id| id == self.eos).unwrap_or(0);
        let starts = fitting.iter().map(|token| token.start).collect();
        Ok(Encoded {
            ids,
            starts,
            eos_index,
            dropped: dropped.to_owned(),
        })
    }

    /// At most [`room`](Self::room) tokens between start and end token, padded to `model_max_length`.
    pub fn framed(&self, tokens: &[u32]) -> Vec<u32> {
        let mut ids = Vec::with_capacity(self.model_max_length);
        ids.push(self.bos);
        ids.extend(tokens);
        ids.push(self.eos);
        ids.resize(self.model_max_length, self.pad);
        ids
    }

    /// Tokens that fit between start and end token, 75 in CLIP.
    pub fn room(&self) -> usize {
        self.model_max_length - 2
    }

    /// The token of a comma by itself, if the vocabulary has one.
    pub fn comma(&self) -> Option<u32> {
        self.inner.token_to_id(",</w>")
    }

    /// Number of tokens of `text` with its start and end token, before any cutting.
    pub fn count(&self, text: &str) -> usize {
        self.tokens(text).map_or(0, |tokens| tokens.len() + 2)
    }

    /// From now on `word` stands for these ids, wherever a text has it whole, in upper or lower case.
    pub fn add_word(&mut self, word: &str, ids: Range<u32>) {
        self.words.retain(|other| !other.word.eq_ignore_ascii_case(word));
        self.words.push(AddedWord {
            word: word.to_owned(),
            ids,
        });
        // Of two words at one place the longer is meant.
        self.words.sort_by_key(|added| std::cmp::Reverse(added.word.len()));
    }

    /// All tokens of `text`, however many.
    pub fn tokens(&self, text: &str) -> Result<Vec<Token>, Error> {
        let mut tokens = Vec::new();
        let (mut from, mut at) = (0, 0);
        while at < text.len() && !self.words.is_empty() {
            let Some(added) = self.words.iter().find(|added| stands_at(text, at, &added.word)) else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
                continue;
            };
            self.known_tokens(text, from..at, &mut tokens)?;
            tokens.extend(added.ids.clone().map(|id| Token { id, start: at }));
            at += added.word.len();
            from = at;
        }
        self.known_tokens(text, from..text.len(), &mut tokens)?;
        Ok(tokens)
    }

    /// Those of a part of `text` that has no added words.
    fn known_tokens(&self, text: &str, part: Range<usize>, tokens: &mut Vec<Token>) -> Result<(), Error> {
        let encoding = self.inner.encode(&text[part.clone()], false).map_err(|e| Error::File {
            file: self.name.clone(),
            message: format!("cannot read the text: {e}"),
        })?;
        let pairs = encoding.get_ids().iter().zip(encoding.get_offsets());
        tokens.extend(pairs.map(|(&id, &(start, _))| Token {
            id,
            start: part.start + start,
        }));
        Ok(())
    }

    /// The largest id that it gives.
    pub fn max_id(&self) -> u32 {
        self.inner.get_vocab(true).into_values().max().unwrap_or(0)
    }

    pub fn model_max_length(&self) -> usize {
        self.model_max_length
    }
}

/// Whether `word` is at byte `at` of `text`, and no part of a longer one.
fn stands_at(text: &str, at: usize, word: &str) -> bool {
    let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let Some(found) = text
        .get(at..at + word.len())
        .filter(|found| found.eq_ignore_ascii_case(word))
    else {
        return false;
    };
    let begins = !(joins(found.chars().next()) && joins(text[..at].chars().next_back()));
    begins && !(joins(found.chars().next_back()) && joins(text[at + word.len()..].chars().next()))
}

/// CLIP's tokenizer.json has 3.6 MB.
const MAX_FILE_BYTES: usize = 32 << 20;

impl TokenizerFiles {
    fn check_sizes(&self, name: &str) -> Result<(), Error> {
        let files = [
            ("tokenizer.json", &self.tokenizer_json),
            ("vocab.json", &self.vocab_json),
            ("merges.txt", &self.merges_txt),
            ("special_tokens_map.json", &self.special_tokens_map_json),
            ("tokenizer_config.json", &self.tokenizer_config_json),
        ];
        files.into_iter().try_for_each(|(file, bytes)| {
            let length = bytes.as_ref().map_or(0, Vec::len);
            in_range(
                &format!("{file} of {name}"),
                "length in bytes",
                length,
                ..=MAX_FILE_BYTES,
            )
        })
    }
}

/// What the tokenizers library builds from a file. It panics on some files that it should refuse (one whose normalizer
/// makes letters of nothing, for instance): what unwinds out of it here is an error about the file, and what was being
/// built is dropped. Nothing else of prima is caught.
fn guarded<T>(name: &str, build: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, Error> {
    let error = |message: String| Error::File {
        file: name.to_owned(),
        message: format!("the tokenizer cannot be built: {message}"),
    };
    // Unwind safe: whatever `build` changed is dropped with the error.
    match catch_unwind(AssertUnwindSafe(build)) {
        Ok(built) => built.map_err(|e| error(e.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            let text = text.unwrap_or_else(|| "no reason given".to_owned());
            Err(error(format!("its library panics on it ({text})")))
        }
    }
}

/// Words, a number, signs and letters outside of ASCII.
const PROBE: &str = "a red apple, 2 caf\u{e9}s!";

/// The rest of `text` from the beginning of the word that byte `start` is in.
fn from_word(text: &str, start: usize) -> &str {
    let start = (0..=start.min(text.len()))
        .rev()
        .find(|&i| text.is_char_boundary(i))
        .unwrap_or(0);
    let word = text[..start].rfind(char::is_whitespace).unwrap_or(0);
    text[word..].trim()
}

/// The names of the special tokens.
struct SpecialTokens {
    bos: String,
    eos: String,
    pad: String,
}

impl SpecialTokens {
    /// From `special_tokens_map.json`, else `tokenizer_config.json`, else CLIP's own.
    fn read(name: &str, files: &TokenizerFiles) -> Result<Self, Error> {
        let parse = |bytes: &Option<Vec<u8>>, file: &str| match bytes {
            None => Ok(Value::Null),
            Some(bytes) => serde_json::from_slice::<Value>(bytes).map_err(|source| Error::Json {
                file: format!("{file} of {name}"),
                source,
            }),
        };
        let configs = [
            parse(&files.special_tokens_map_json, "special_tokens_map.json")?,
            parse(&files.tokenizer_config_json, "tokenizer_config.json")?,
        ];
        // A token is a string, or an object with `content`.
        let token = |field: &str| {
            let text = |config: &Value| {
                config[field]
                    .as_str()
                    .or(config[field]["content"].as_str())
                    .map(str::to_owned)
            };
            configs.iter().find_map(text)
        };
        let bos = token("bos_token").unwrap_or_else(|| "<|startoftext|>".to_owned());
        let eos = token("eos_token").unwrap_or_else(|| "<|endoftext|>".to_owned());
        let pad = token("pad_token").unwrap_or_else(|| eos.clone());
        Ok(Self { bos, eos, pad })
    }
}

/// The `tokenizer.json` that `vocab.json` and `merges.txt` stand for.
fn clip_tokenizer_json(name: &str, vocab: &[u8], merges: &[u8]) -> Result<Value, Error> {
    let vocab: Value = serde_json::from_slice(vocab).map_err(|source| Error::Json {
        file: format!("vocab.json of {name}"),
        source,
    })?;
    let merges = std::str::from_utf8(merges).map_err(|e| Error::File {
        file: format!("merges.txt of {name}"),
        message: format!("is not UTF-8: {e}"),
    })?;
    let merges: Vec<&str> = merges
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("#version"))
        .collect();
    Ok(json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "model": {
            "type": "BPE",
            "unk_token": "<|endoftext|>",
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": false,
            "vocab": vocab,
            "merges": merges,
        },
    }))
}
