//! Captions as token ids, for each text encoder.

use crate::error::Result;
use crate::networks::Texts;
use prima_pipeline::TextEncoders;

/// The captions of a data set.
pub(crate) struct Tokens {
    /// For each encoder, `length` ids a caption.
    ids: Vec<Vec<u32>>,
    length: usize,
    /// For each encoder the empty prompt; `None` where that is zeros.
    empty: Option<Vec<Vec<u32>>>,
}

/// Some of them, as a batch.
pub(crate) struct TokenRows {
    /// For each encoder, row by row.
    pub(crate) ids: Vec<Vec<u32>>,
    /// 0 for the rows that become zeros, else 1.
    pub(crate) keep: Vec<f32>,
}

impl TokenRows {
    /// `captions` as the encoders read them.
    pub(crate) fn of<S: AsRef<str>>(encoders: &TextEncoders, captions: &[S]) -> Result<Self> {
        let mut ids = Vec::new();
        for encoder in encoders.encoders() {
            let mut rows = Vec::new();
            for caption in captions {
                rows.extend(encoder.tokenizer.encode(caption.as_ref())?.ids);
            }
            ids.push(rows);
        }
        let keep = vec![1.0; captions.len()];
        Ok(Self { ids, keep })
    }
}

impl Tokens {
    pub(crate) fn new<S: AsRef<str>>(texts: &Texts, captions: &[S]) -> Result<Self> {
        let empty = if texts.force_zeros {
            None
        } else {
            Some(TokenRows::of(&texts.encoders, &[""])?.ids)
        };
        Ok(Self {
            ids: TokenRows::of(&texts.encoders, captions)?.ids,
            length: texts.max_length(),
            empty,
        })
    }

    /// Captions `rows`; those whose `keep` is 0 become the empty prompt.
    pub(crate) fn rows(&self, rows: &[usize], keep: Vec<f32>) -> TokenRows {
        let row = |ids: &[u32], r: usize| ids[r * self.length..(r + 1) * self.length].to_vec();
        let Some(empty) = &self.empty else {
            let of = |ids: &Vec<u32>| rows.iter().flat_map(|&r| row(ids, r)).collect();
            let ids = self.ids.iter().map(of).collect();
            return TokenRows { ids, keep };
        };
        let of = |(ids, empty): (&Vec<u32>, &Vec<u32>)| {
            let rows = rows.iter().zip(&keep);
            rows.flat_map(|(&r, &keep)| if keep == 0.0 { empty.clone() } else { row(ids, r) })
                .collect()
        };
        let ids = self.ids.iter().zip(empty).map(of).collect();
        let keep = vec![1.0; rows.len()];
        TokenRows { ids, keep }
    }

    /// The empty prompt `batch` times; `None` where that is zeros.
    pub(crate) fn empty_rows(&self, batch: usize) -> Option<TokenRows> {
        let ids = self.empty.as_ref()?.iter().map(|row| row.repeat(batch)).collect();
        let keep = vec![1.0; batch];
        Some(TokenRows { ids, keep })
    }
}
