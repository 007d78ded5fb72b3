//! One safetensors file: memory-mapped, or bytes already in memory.

use crate::Error;
use prima_tensor::Tensor;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

/// Where a file's bytes live.
enum Bytes {
    Map(memmap2::Mmap),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// A tensor's place in its file.
#[derive(Clone, Debug)]
pub struct TensorEntry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    range: Range<usize>,
}

impl TensorEntry {
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Size in the file.
    pub fn bytes(&self) -> usize {
        self.range.len()
    }
}

/// A safetensors file whose header has been checked against its length: from then on every
/// tensor in it can be read.
pub struct TensorFile {
    name: String,
    bytes: Bytes,
    tensors: BTreeMap<String, TensorEntry>,
    metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Maps `path` into memory.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        // SAFETY: the map is read-only and private to this process. A file that another process
        // rewrites in place while it is mapped would change under us; `export` never does that
        // (it writes beside the target and renames), and a hub cache's blobs are immutable.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io("map", path))?;
        Self::parse(path.display().to_string(), Bytes::Map(map))
    }

    /// A file embedded in the binary; `name` is what errors call it.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self, Error> {
        Self::parse(name.to_owned(), Bytes::Static(bytes))
    }

    /// A file held in memory; `name` is what errors call it.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, Error> {
        Self::parse(name.to_owned(), Bytes::Owned(bytes))
    }

    fn parse(name: String, bytes: Bytes) -> Result<Self, Error> {
        let slice = bytes.as_slice();
        let (header, metadata) = SafeTensors::read_metadata(slice).map_err(|e| header_error(&name, slice, &e))?;
        let start = header + 8;
        let tensors = metadata.tensors();
        let tensors = tensors.into_iter().map(|(key, info)| {
            let (from, to) = info.data_offsets;
            (
                key,
                TensorEntry {
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    range: start + from..start + to,
                },
            )
        });
        let tensors = tensors.collect();
        let metadata = metadata.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self {
            name,
            bytes,
            tensors,
            metadata,
        })
    }

    /// The path, or the name given to bytes in memory.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn tensors(&self) -> &BTreeMap<String, TensorEntry> {
        &self.tensors
    }

    /// The header's `__metadata__` (for instance a LoRA's `ss_*` entries).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The whole tensor `key`, converted to f32.
    pub fn read(&self, key: &str) -> Result<Tensor, Error> {
        let entry = self.tensors.get(key).ok_or_else(|| Error::Missing {
            file: self.name.clone(),
            key: key.to_owned(),
            expected: Vec::new(),
        })?;
        Ok(Tensor::from_vec(
            self.read_range(key, entry, 0..entry.numel())?,
            &entry.shape,
        ))
    }

    /// Elements `range` (in elements, row-major) of the tensor described by `entry`, as f32.
    pub(crate) fn read_range(&self, key: &str, entry: &TensorEntry, range: Range<usize>) -> Result<Vec<f32>, Error> {
        let unit = entry.dtype.bitsize() / 8;
        let from = entry.range.start + range.start * unit;
        let bytes = &self.bytes.as_slice()[from..from + range.len() * unit];
        decode(entry.dtype, bytes).ok_or_else(|| Error::DType {
            file: self.name.clone(),
            key: key.to_owned(),
            dtype: format!("{:?}", entry.dtype),
        })
    }
}

/// Little-endian floats of any supported type to f32; None for a type that is not a float.
fn decode(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let pairs = || bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    Some(match dtype {
        Dtype::F32 => bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
        Dtype::BF16 => pairs().map(|bits| f32::from_bits(u32::from(bits) << 16)).collect(),
        Dtype::F16 => decode_f16(bytes),
        Dtype::F64 => bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            .collect(),
        _ => return None,
    })
}

/// f16 through `half`'s slice conversion, which uses F16C where the CPU has it.
fn decode_f16(bytes: &[u8]) -> Vec<f32> {
    use half::slice::HalfFloatSliceExt;
    let mut out = vec![0.0; bytes.len() / 2];
    if let Ok(values) = bytemuck::try_cast_slice::<u8, half::f16>(bytes) {
        values.convert_to_f32_slice(&mut out);
    } else {
        for (value, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            *value = half::f16::from_le_bytes([b[0], b[1]]).to_f32();
        }
    }
    out
}

/// The sentence for a header that safetensors refuses: a file cut short is by far the commonest.
fn header_error(name: &str, bytes: &[u8], error: &SafeTensorError) -> Error {
    let file = name.to_owned();
    let found = bytes.len() as u64;
    let Some(length) = bytes.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes) else {
        return Error::Truncated {
            file,
            expected: 8,
            found,
        };
    };
    let header = bytes
        .get(8..)
        .and_then(|rest| rest.get(..usize::try_from(length).ok()?));
    match (error, header) {
        (SafeTensorError::MetadataIncompleteBuffer, Some(header)) => {
            let data = serde_json::from_slice::<Metadata>(header).map_or(0, |m| m.data_len() as u64);
            let expected = 8 + length + data;
            if found < expected {
                return Error::Truncated { file, expected, found };
            }
            let reason = format!("{} bytes follow the tensors that its header lists", found - expected);
            Error::NotSafetensors { file, reason }
        }
        // A real header starts with `{`; anything else is another kind of file, not a short one.
        (SafeTensorError::InvalidHeaderLength, _) if bytes.get(8) == Some(&b'{') || found == 8 => Error::Truncated {
            file,
            expected: 8 + length,
            found,
        },
        (SafeTensorError::InvalidHeaderLength | SafeTensorError::HeaderTooLarge, _) => Error::NotSafetensors {
            file,
            reason: "it does not start with a header length".to_owned(),
        },
        _ => Error::NotSafetensors {
            file,
            reason: error.to_string(),
        },
    }
}
