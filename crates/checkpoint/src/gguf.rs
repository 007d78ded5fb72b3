//! GGUF, ggml's file format, as stable-diffusion.cpp and ComfyUI-GGUF write models in it: a header of tensors, whose weights may
//! lie in blocks of 32 or 256 that share a scale.

use crate::Error;
use rlx_gguf::{GgmlType, GgufFile, MetaValue, bytes_for_public, dequant_typed};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What such a file begins with.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";

/// One tensor: as what it is read, its blocks if it has some, its shape in the usual order, its place in the file.
pub(crate) struct Listed {
    pub dtype: Dtype,
    pub blocks: Option<Blocks>,
    pub shape: Vec<usize>,
    pub range: Range<usize>,
}

/// A type of weights in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks(GgmlType);

impl Blocks {
    fn of(kind: GgmlType) -> Option<Self> {
        use GgmlType::{IQ4NL, IQ4XS, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, Q8K};
        let known = [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K, Q8K, IQ4NL, IQ4XS];
        known.contains(&kind).then_some(Self(kind))
    }

    /// As ggml calls it.
    pub(crate) fn name(self) -> String {
        format!("{:?}", self.0).to_lowercase()
    }

    /// Weights of a block, and the bytes that they take.
    pub(crate) fn size(self) -> (usize, usize) {
        let sizes = [32, 256].map(|weights| (weights, bytes_for_public(self.0, weights)));
        let found = sizes.into_iter().find_map(|(weights, bytes)| Some((weights, bytes?)));
        found.unwrap_or((1, 1))
    }

    /// The weights of whole blocks.
    pub(crate) fn widen(self, bytes: &[u8], weights: usize, key: &str) -> Result<Vec<f32>, String> {
        dequant_typed(self.0, bytes, weights, key).map_err(|error| error.to_string())
    }
}

/// Tensors and text metadata.
type Contents = (BTreeMap<String, Listed>, BTreeMap<String, String>);

/// The tensors and the text metadata of a file of `length` bytes, every tensor whole.
pub(crate) fn read_header(name: &str, length: u64, reader: impl Read + Seek) -> Result<Contents, Error> {
    let refuse = |message: String| Error::File {
        file: name.to_owned(),
        message: format!("is not a GGUF file that can be read: {message}"),
    };
    // An alignment of 0 would divide by it.
    let parsed = catch_unwind(AssertUnwindSafe(|| {
        GgufFile::header_from_reader(&mut BufReader::new(reader))
    }));
    let file = parsed
        .map_err(|_| refuse("its header makes no sense".to_owned()))?
        .map_err(|error| refuse(error.to_string()))?;
    let mut tensors = BTreeMap::new();
    for key in file.keys() {
        let Some(tensor) = file.get(key) else { continue };
        let mut shape = tensor.shape.clone();
        shape.reverse();
        let numel = shape
            .iter()
            .try_fold(1usize, |product, &axis| product.checked_mul(axis));
        let (dtype, blocks) =
            stored_as(tensor.dtype).ok_or_else(|| refuse(format!("`{key}` is stored as {:?}", tensor.dtype)))?;
        let bytes = numel.and_then(|numel| match blocks {
            Some(blocks) => {
                let (weights, bytes) = blocks.size();
                let whole = numel.is_multiple_of(weights).then_some(numel / weights)?;
                whole.checked_mul(bytes)
            }
            None => numel.checked_mul(dtype.bitsize() / 8),
        });
        let bytes = bytes.ok_or_else(|| refuse(format!("`{key}` has the shape {shape:?}")))?;
        let start = usize::try_from(file.data_offset().saturating_add(tensor.offset)).unwrap_or(usize::MAX);
        let end = start.saturating_add(bytes);
        if end as u64 > length {
            return Err(Error::Truncated {
                file: name.to_owned(),
                expected: end as u64,
                found: length,
            });
        }
        let listed = Listed {
            dtype,
            blocks,
            shape,
            range: start..end,
        };
        tensors.insert(key.to_owned(), listed);
    }
    let texts = file.metadata.iter().filter_map(|(key, value)| match value {
        MetaValue::String(text) => Some((key.clone(), text.clone())),
        _ => None,
    });
    Ok((tensors, texts.collect()))
}

/// Weights in blocks are floats to whoever reads them.
fn stored_as(kind: GgmlType) -> Option<(Dtype, Option<Blocks>)> {
    let plain = match kind {
        GgmlType::F32 => Dtype::F32,
        GgmlType::F16 => Dtype::F16,
        GgmlType::BF16 => Dtype::BF16,
        GgmlType::F64 => Dtype::F64,
        GgmlType::I32 => Dtype::I32,
        GgmlType::I64 => Dtype::I64,
        kind => return Some((Dtype::F16, Some(Blocks::of(kind)?))),
    };
    Some((plain, None))
}
