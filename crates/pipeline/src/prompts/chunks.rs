//! Prompts of any length (A1111 `modules/sd_hijack_clip.py`, `tokenize_line`): the text encoder reads them in chunks of 75
//! tokens, whose hidden states stand side by side. A chunk that would end inside a phrase ends at its last comma, if that is
//! one of the last 20 tokens.

use super::{Piece, WeightedPrompt};
use prima_checkpoint::Error;
use prima_models::{Token, Tokenizer};

/// The web UI's `comma_padding_backtrack`.
const BACK_TO_COMMA: usize = 20;
/// More than any prompt that is meant; each costs every step as much as a prompt of 75 tokens.
pub(crate) const MOST_CHUNKS: usize = 32;

/// Tokens without start, end and padding, each with its weight.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Chunk {
    pub ids: Vec<u32>,
    pub weights: Vec<f32>,
}

impl Chunk {
    pub fn is_weighted(&self) -> bool {
        self.weights.iter().any(|weight| *weight != 1.0)
    }

    fn push(&mut self, id: u32, weight: f32) {
        self.ids.push(id);
        self.weights.push(weight);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self {
            ids: self.ids.split_off(at),
            weights: self.weights.split_off(at),
        }
    }
}

/// A prompt's chunks, at least one, and the end of the prompt that goes beyond [`MOST_CHUNKS`].
pub(crate) fn chunks(prompt: &WeightedPrompt, tokenizer: &Tokenizer) -> Result<(Vec<Chunk>, String), Error> {
    let mut filling = Filling {
        room: tokenizer.room(),
        comma: tokenizer.comma(),
        chunks: Vec::new(),
        chunk: Chunk::default(),
        last_comma: None,
    };
    for (i, piece) in prompt.pieces.iter().enumerate() {
        let Piece::Text(text, weight) = piece else {
            filling.end_chunk();
            continue;
        };
        for Token { id, start } in tokenizer.tokens(text)? {
            filling.take(id, *weight);
            if filling.chunks.len() == MOST_CHUNKS {
                let rest = WeightedPrompt {
                    pieces: prompt.pieces[i + 1..].to_vec(),
                };
                let dropped = format!("{}{}", text.get(start..).unwrap_or(text), rest.text());
                return Ok((filling.chunks, dropped));
            }
        }
    }
    if !filling.chunk.ids.is_empty() || filling.chunks.is_empty() {
        filling.end_chunk();
    }
    filling.chunks.truncate(MOST_CHUNKS);
    Ok((filling.chunks, String::new()))
}

struct Filling {
    room: usize,
    comma: Option<u32>,
    chunks: Vec<Chunk>,
    chunk: Chunk,
    /// In `chunk`.
    last_comma: Option<usize>,
}

impl Filling {
    fn take(&mut self, id: u32, weight: f32) {
        let length = self.chunk.ids.len();
        if Some(id) == self.comma {
            self.last_comma = Some(length);
        } else if length == self.room
            && let Some(comma) = self.last_comma.filter(|comma| length - comma <= BACK_TO_COMMA)
        {
            let moved = self.chunk.split_off(comma + 1);
            self.end_chunk();
            self.chunk = moved;
        }
        if self.chunk.ids.len() == self.room {
            self.end_chunk();
        }
        self.chunk.push(id, weight);
    }

    fn end_chunk(&mut self) {
        self.chunks.push(std::mem::take(&mut self.chunk));
        self.last_comma = None;
    }
}
