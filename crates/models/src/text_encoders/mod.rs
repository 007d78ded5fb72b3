//! Prompts to hidden states: the tokenizer and the networks that read its tokens.

pub(crate) mod clip_layer;
pub mod clip_text;
pub mod tokenizer;

pub use clip_text::{ClipTextConfig, ClipTextModel, HiddenState, TextOutput};
pub use tokenizer::{Encoded, Token, Tokenizer, TokenizerFiles};
