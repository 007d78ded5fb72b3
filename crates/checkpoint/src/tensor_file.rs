//! One safetensors or GGUF file: on disk, or bytes already in memory.

use crate::files::open_regular;
use crate::gguf::{self, Blocks};
use crate::header::Header;
use crate::{Error, finite, float8};
use half::bf16;
use prima_tensor::{INT4_GROUP, Int4Rows, Tensor, Values, quantize_row};
use safetensors::Dtype;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

/// What the key of a weight in 8 or 4 bits has behind it in the key of its scales.
pub(crate) const SCALE: &str = "_scale";
/// Of 4 bits, in that of the steps and zeros of its groups.
pub(crate) const GROUPS: &str = "_groups";

/// How ComfyUI ends the key of a weight, and that of its scale, where it keeps weights in 8-bit floats.
const WEIGHT: &str = ".weight";
const SCALE_WEIGHT: &str = ".scale_weight";

/// Read, converted and checked at once: small enough to stay in a core's cache in between.
const CHUNK_BYTES: usize = 128 << 10;

/// Read at a time where only a hash is wanted.
const HASHED_BYTES: usize = 4 << 20;

/// Where a file's bytes live.
enum Bytes {
    /// Read when they are needed, not mapped: a file that another process shortens is then an error, where a map would end
    /// this process with SIGBUS.
    File(File),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

impl Bytes {
    /// `length` bytes from `at`, in `buffer` if they are not in memory anyway.
    fn at<'a>(&'a self, at: usize, length: usize, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        let in_memory = |bytes: &'a [u8]| bytes.get(at..at + length).ok_or(io::ErrorKind::UnexpectedEof.into());
        match self {
            Self::Static(bytes) => in_memory(bytes),
            Self::Owned(bytes) => in_memory(bytes),
            Self::File(file) => {
                buffer.resize(length, 0);
                read_at(file, at as u64, buffer)?;
                Ok(buffer)
            }
        }
    }

    /// The bytes from `at` into `out`.
    fn copy(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(file) => read_at(file, at as u64, out),
            Self::Static(_) | Self::Owned(_) => {
                out.copy_from_slice(self.at(at, out.len(), &mut Vec::new())?);
                Ok(())
            }
        }
    }

    /// The length now.
    fn len(&self) -> io::Result<u64> {
        match self {
            Self::Static(bytes) => Ok(bytes.len() as u64),
            Self::Owned(bytes) => Ok(bytes.len() as u64),
            Self::File(file) => Ok(file.metadata()?.len()),
        }
    }
}

/// All of `out` from `at` on. It does not move a cursor, so that threads can read at once.
#[cfg(not(windows))]
fn read_at(file: &File, at: u64, out: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut at: u64, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => (at, out) = (at + read as u64, &mut out[read..]),
        }
    }
    Ok(())
}

/// A tensor's place in its file.
#[derive(Clone, Debug)]
pub struct TensorEntry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    range: Range<usize>,
    /// Of a GGUF file: the blocks that its floats lie in.
    pub(crate) blocks: Option<Blocks>,
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

/// Bytes with a place in them, for the reader of GGUF.
struct Cursor<'a> {
    bytes: &'a Bytes,
    length: u64,
    at: u64,
}

impl io::Read for Cursor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.at);
        let count = (out.len() as u64).min(left) as usize;
        self.bytes.copy(self.at as usize, &mut out[..count])?;
        self.at += count as u64;
        Ok(count)
    }
}

impl io::Seek for Cursor<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let to = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::Current(by) => self.at.checked_add_signed(by),
            io::SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// A safetensors or GGUF file whose header has been checked against its length: from then on every
/// tensor in it can be read.
pub struct TensorFile {
    name: String,
    bytes: Bytes,
    tensors: BTreeMap<String, TensorEntry>,
    metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Opens `path` and reads its header.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let (file, _) = open_regular(path)?;
        Self::parse(path.display().to_string(), Bytes::File(file))
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
        let mut buffer = Vec::new();
        let length = bytes.len().map_err(Error::io("read", Path::new(&name)))?;
        let begins_as_gguf = length >= 4 && {
            let mut magic = [0; 4];
            bytes.copy(0, &mut magic).is_ok() && magic == *gguf::MAGIC
        };
        if begins_as_gguf {
            return Self::parse_gguf(name, bytes, length);
        }
        let mut read = |at, length| {
            let read = bytes.at(at, length, &mut buffer).map(<[u8]>::to_vec);
            read.map_err(Error::io("read", Path::new(&name)))
        };
        let header = Header::read(&name, length, &mut read)?;
        let tensors = header.tensors.into_iter().map(|(key, info)| {
            let (from, to) = info.data_offsets;
            let entry = TensorEntry {
                dtype: info.dtype,
                shape: info.shape,
                range: header.data_start + from..header.data_start + to,
                blocks: None,
            };
            (key, entry)
        });
        Ok(Self {
            tensors: tensors.collect(),
            metadata: header.metadata,
            name,
            bytes,
        })
    }

    fn parse_gguf(name: String, bytes: Bytes, length: u64) -> Result<Self, Error> {
        let cursor = Cursor {
            bytes: &bytes,
            length,
            at: 0,
        };
        let (tensors, metadata) = gguf::read_header(&name, length, cursor)?;
        let tensors = tensors.into_iter().map(|(key, listed)| {
            let entry = TensorEntry {
                dtype: listed.dtype,
                shape: listed.shape,
                range: listed.range,
                blocks: listed.blocks,
            };
            (key, entry)
        });
        Ok(Self {
            tensors: tensors.collect(),
            metadata,
            name,
            bytes,
        })
    }

    /// The path, or the name given to bytes in memory.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn tensors(&self) -> &BTreeMap<String, TensorEntry> {
        &self.tensors
    }

    /// Path, length and times of change of a file on disk, in a line.
    pub(crate) fn identity(&self) -> Option<String> {
        let Bytes::File(file) = &self.bytes else { return None };
        let metadata = file.metadata().ok()?;
        let path = std::fs::canonicalize(&self.name).ok()?;
        let modified = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        // The time of change of the inode tells of a file that took another's place under its old time.
        #[cfg(unix)]
        let changed = {
            use std::os::unix::fs::MetadataExt;
            (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
        };
        #[cfg(not(unix))]
        let changed = ();
        Some(format!(
            "{} {} {modified:?} {changed:?}\n",
            path.display(),
            metadata.len()
        ))
    }

    /// SHA-256 of all bytes behind the header, in hexadecimal digits.
    pub(crate) fn data_hash(&self) -> Result<String, Error> {
        let start = self.tensors.values().map(|entry| entry.range.start).min().unwrap_or(0);
        let end = self.bytes.len().map_err(Error::io("read", Path::new(&self.name)))? as usize;
        let (mut hasher, mut buffer) = (Sha256::new(), Vec::new());
        for at in (start..end).step_by(HASHED_BYTES) {
            let bytes = self.bytes.at(at, HASHED_BYTES.min(end - at), &mut buffer);
            hasher.update(bytes.map_err(|error| self.cut_short(error))?);
        }
        Ok(format!("{:x}", hasher.finalize()))
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

    /// Elements `range` (in elements, row-major) of the tensor described by `entry`, as f32, every one of them finite.
    pub(crate) fn read_range(&self, key: &str, entry: &TensorEntry, range: Range<usize>) -> Result<Vec<f32>, Error> {
        let mut values = Vec::new();
        self.part(key, entry)?.read(range, &mut values)?;
        Ok(values)
    }

    /// The tensor described by `entry`, to be read part by part.
    pub(crate) fn part<'a>(&'a self, key: &'a str, entry: &'a TensorEntry) -> Result<Part<'a>, Error> {
        let mut part = Part {
            file: self,
            key,
            entry,
            first: 0,
            scales: Vec::new(),
            groups: Vec::new(),
        };
        let outputs = entry.shape.first().copied().unwrap_or(1);
        if let Some((scale_key, scale)) = self.beside(key, entry, SCALE) {
            // Floats have one for all, or one for each output.
            let is_one = scale.numel() == 1 && is_float(entry.dtype);
            let count = if is_one { 1 } else { outputs };
            self.check_count(&scale_key, scale, count)?;
            part.scales = self.read_range(&scale_key, scale, 0..count)?;
        }
        if let Some((groups_key, groups)) = self.beside(key, entry, GROUPS) {
            let inputs = 2 * entry.shape.last().copied().unwrap_or(0);
            if entry.shape.len() < 2 || !inputs.is_multiple_of(INT4_GROUP) {
                return Err(Error::File {
                    file: self.name.clone(),
                    message: format!("`{key}` has {inputs} inputs in 4 bits, which are no groups of {INT4_GROUP}"),
                });
            }
            self.check_count(&groups_key, groups, 4 * entry.numel() / INT4_GROUP)?;
            let mut bytes = vec![0; groups.numel()];
            let read = self.bytes.copy(groups.range.start, &mut bytes);
            read.map_err(|error| self.cut_short(error))?;
            part.groups = bytes.as_chunks::<2>().0.to_vec();
        }
        Ok(part)
    }

    fn check_count(&self, key: &str, entry: &TensorEntry, expected: usize) -> Result<(), Error> {
        if entry.numel() == expected {
            return Ok(());
        }
        Err(Error::Shape {
            file: self.name.clone(),
            key: key.to_owned(),
            expected: vec![expected],
            found: entry.shape.clone(),
        })
    }

    /// What belongs to a quantized weight under its key with `suffix` behind it: the scales of 8 or 4 bits, floats, one for
    /// each output; and of 4 bits the steps and zeros of its groups. Scales of 8-bit floats may be called by what they scale.
    fn beside(&self, key: &str, entry: &TensorEntry, suffix: &str) -> Option<(String, &TensorEntry)> {
        let mut beside = format!("{key}{suffix}");
        if suffix == SCALE
            && is_float(entry.dtype)
            && let Some(module) = key.strip_suffix(WEIGHT)
            && self.tensors.contains_key(&format!("{module}{SCALE_WEIGHT}"))
        {
            beside = format!("{module}{SCALE_WEIGHT}");
        }
        let found = self.tensors.get(&beside)?;
        let fits = match entry.dtype {
            Dtype::I8 => suffix == SCALE && is_float(found.dtype),
            Dtype::U8 if suffix == SCALE => is_float(found.dtype),
            Dtype::U8 => found.dtype == Dtype::U8,
            Dtype::F8_E4M3 | Dtype::F8_E5M2 => suffix == SCALE && is_float(found.dtype),
            dtype => is_float(dtype) && beside.ends_with(SCALE_WEIGHT) && is_float(found.dtype),
        };
        fits.then_some((beside, found))
    }

    /// Whether `key` belongs to another tensor, which is quantized.
    pub(crate) fn is_beside(&self, key: &str) -> bool {
        let of = |suffix: &str, end: &str| Some(format!("{}{end}", key.strip_suffix(suffix)?));
        [(SCALE, "", SCALE), (GROUPS, "", GROUPS), (SCALE_WEIGHT, WEIGHT, SCALE)]
            .into_iter()
            .filter_map(|(suffix, end, beside)| Some((of(suffix, end)?, beside)))
            .any(|(of, suffix)| {
                let entry = self.tensors.get(&of);
                let beside = entry.and_then(|entry| self.beside(&of, entry, suffix));
                beside.is_some_and(|(beside, _)| beside == key)
            })
    }

    /// The shape of what a stored tensor stands for: of 4 bits, `[outputs, inputs, ...]` where `[outputs, ..., inputs / 2]`
    /// is stored.
    pub(crate) fn shape_of(&self, key: &str, entry: &TensorEntry) -> Vec<usize> {
        let mut shape = entry.shape.clone();
        if self.beside(key, entry, GROUPS).is_some() && shape.len() > 1 {
            let inputs = 2 * shape.pop().unwrap_or(0);
            shape.insert(1, inputs);
        }
        shape
    }

    /// Bytes that the header was checked to have are not there any more.
    fn cut_short(&self, error: io::Error) -> Error {
        let expected = self.tensors.values().map(|entry| entry.range.end as u64).max();
        match (self.bytes.len(), expected) {
            (Ok(found), Some(expected)) if found < expected => Error::Truncated {
                file: self.name.clone(),
                expected,
                found,
            },
            _ => Error::io("read", Path::new(&self.name))(error),
        }
    }
}

/// The values of a stored tensor from the `first` on, every one of which has to be finite.
pub(crate) struct Part<'a> {
    file: &'a TensorFile,
    key: &'a str,
    entry: &'a TensorEntry,
    pub first: usize,
    /// Of 8 and 4 bits, what one is worth, for each output; of scaled 8-bit floats, the same or one for all.
    scales: Vec<f32>,
    /// Of 4 bits, of each group its step and its zero plus 128.
    groups: Vec<[u8; 2]>,
}

impl Part<'_> {
    fn read(&self, range: Range<usize>, values: &mut Vec<f32>) -> Result<(), Error> {
        let dtype = self.entry.dtype;
        self.check_type()?;
        values.resize(range.len(), 0.0);
        if self.bits() == Some(4) {
            return self.read_int4(range, values);
        }
        if let Some(blocks) = self.entry.blocks {
            return self.read_blocks(blocks, range, values);
        }
        let unit = dtype.bitsize() / 8;
        let mut buffer = Vec::new();
        let mut first = self.first + range.start;
        for values in values.chunks_mut(CHUNK_BYTES / unit) {
            let at = self.entry.range.start + first * unit;
            let bytes = self.file.bytes.at(at, values.len() * unit, &mut buffer);
            let bytes = bytes.map_err(|error| self.file.cut_short(error))?;
            if dtype == Dtype::I8 {
                let depth = self.depth();
                for (i, (value, byte)) in values.iter_mut().zip(bytes).enumerate() {
                    *value = self.scales[(first + i) / depth] * f32::from(*byte as i8);
                }
            } else {
                decode(dtype, bytes, values);
                if !self.scales.is_empty() {
                    let depth = self.depth();
                    for (i, value) in values.iter_mut().enumerate() {
                        *value *= self.scales[(first + i) / depth];
                    }
                }
            }
            if let Some(i) = finite::first_not_finite(values) {
                return Err(self.not_finite(first + i, values[i]));
            }
            first += values.len();
        }
        Ok(())
    }

    /// From the blocks that hold them, some at a time.
    fn read_blocks(&self, blocks: Blocks, range: Range<usize>, values: &mut [f32]) -> Result<(), Error> {
        let (weights, bytes) = blocks.size();
        let (first, end) = (self.first + range.start, self.first + range.end);
        let at_once = (CHUNK_BYTES / bytes).max(1);
        let mut buffer = Vec::new();
        let mut block = first / weights;
        let mut done = 0;
        while done < values.len() {
            let count = at_once.min(end.div_ceil(weights) - block);
            let at = self.entry.range.start + block * bytes;
            let stored = self.file.bytes.at(at, count * bytes, &mut buffer);
            let stored = stored.map_err(|error| self.file.cut_short(error))?;
            let wide = blocks.widen(stored, count * weights, self.key);
            let wide = wide.map_err(|message| Error::File {
                file: self.file.name.clone(),
                message,
            })?;
            let skipped = first + done - block * weights;
            let taken = (wide.len() - skipped).min(values.len() - done);
            values[done..done + taken].copy_from_slice(&wide[skipped..skipped + taken]);
            if let Some(i) = finite::first_not_finite(&values[done..done + taken]) {
                return Err(self.not_finite(first + done + i, values[done + i]));
            }
            done += taken;
            block += count;
        }
        Ok(())
    }

    fn read_int4(&self, range: Range<usize>, values: &mut [f32]) -> Result<(), Error> {
        let (depth, taps) = (self.depth(), self.taps());
        let range = self.first + range.start..self.first + range.end;
        let outputs = range.start / depth..range.end.div_ceil(depth);
        let rows = self.rows_of_int4(outputs.clone())?;
        for (at, value) in range.zip(values) {
            let (output, place) = (at / depth - outputs.start, at % depth);
            let byte = rows.byte(output * depth + place % taps * (depth / taps) + place / taps);
            *value = rows.scales[output] * f32::from(byte);
        }
        Ok(())
    }

    /// Weights of an output.
    fn depth(&self) -> usize {
        let stored = self.entry.numel() / self.scales.len().max(1);
        if self.bits() == Some(4) { 2 * stored } else { stored }
    }

    /// Of a convolution in 4 bits.
    fn taps(&self) -> usize {
        let shape = &self.entry.shape;
        shape
            .get(1..shape.len().saturating_sub(1))
            .map_or(1, |taps| taps.iter().product())
    }

    fn rows_of_int4(&self, outputs: Range<usize>) -> Result<Int4Rows, Error> {
        let depth = self.depth();
        let mut nibbles = vec![0; outputs.len() * depth / 2];
        let at = self.entry.range.start + outputs.start * depth / 2;
        let read = self.file.bytes.copy(at, &mut nibbles);
        read.map_err(|error| self.file.cut_short(error))?;
        let groups = depth / INT4_GROUP;
        Ok(Int4Rows {
            nibbles,
            groups: self.groups[outputs.start * groups..outputs.end * groups].to_vec(),
            scales: self.scales[outputs].to_vec(),
        })
    }

    fn check_type(&self) -> Result<(), Error> {
        if is_float(self.entry.dtype) || self.bits().is_some() {
            return Ok(());
        }
        Err(Error::DType {
            file: self.file.name.clone(),
            key: self.key.to_owned(),
            dtype: format!("{:?}", self.entry.dtype),
        })
    }

    fn not_finite(&self, index: usize, value: f32) -> Error {
        Error::NotFinite {
            file: self.file.name.clone(),
            key: self.key.to_owned(),
            index: index_of(index, &self.entry.shape),
            value,
        }
    }
}

impl Values for Part<'_> {
    type Error = Error;

    fn wide<'a>(&'a self, range: Range<usize>, space: &'a mut Vec<f32>) -> Result<&'a [f32], Error> {
        self.read(range, space)?;
        Ok(space)
    }

    fn narrow<'a>(&'a self, range: Range<usize>, space: &'a mut Vec<bf16>) -> Result<&'a [bf16], Error> {
        // Stored as it is wanted, on a machine that has the file's order of bytes.
        if self.entry.dtype == Dtype::BF16 && self.scales.is_empty() && cfg!(target_endian = "little") {
            space.resize(range.len(), bf16::ZERO);
            let first = self.first + range.start;
            let at = self.entry.range.start + 2 * first;
            let read = self.file.bytes.copy(at, bytemuck::cast_slice_mut(space));
            read.map_err(|error| self.file.cut_short(error))?;
            if let Some(i) = finite::first_not_finite_bf16(space) {
                return Err(self.not_finite(first + i, space[i].to_f32()));
            }
            return Ok(space);
        }
        let mut wide = Vec::new();
        self.read(range, &mut wide)?;
        space.clear();
        space.extend(wide.iter().map(|x| bf16::from_f32(*x)));
        Ok(space)
    }

    fn bits(&self) -> Option<u8> {
        match self.entry.dtype {
            Dtype::I8 if !self.scales.is_empty() => Some(8),
            Dtype::U8 if !self.groups.is_empty() && !self.scales.is_empty() => Some(4),
            _ => None,
        }
    }

    fn int4(&self, outputs: Range<usize>, depth: usize) -> Option<Result<Int4Rows, Error>> {
        let first = self.first / depth;
        (self.bits() == Some(4)).then(|| self.rows_of_int4(first + outputs.start..first + outputs.end))
    }

    fn int8(
        &self,
        outputs: Range<usize>,
        depth: usize,
        weights: &mut Vec<i8>,
        scales: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let first = self.first + outputs.start * depth;
        if self.bits() != Some(8) {
            let mut space = Vec::new();
            let rows = self.wide(outputs.start * depth..outputs.end * depth, &mut space)?;
            scales.extend(rows.chunks_exact(depth).map(|row| quantize_row(row, weights)));
            return Ok(());
        }
        let old = weights.len();
        weights.resize(old + outputs.len() * depth, 0);
        let read = self.file.bytes.copy(
            self.entry.range.start + first,
            bytemuck::cast_slice_mut(&mut weights[old..]),
        );
        read.map_err(|error| self.file.cut_short(error))?;
        scales.extend(&self.scales[first / depth..][..outputs.len()]);
        Ok(())
    }
}

/// The place of element `i` of a row-major tensor, axis by axis.
fn index_of(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (place, &length) in index.iter_mut().zip(shape).rev() {
        (*place, i) = (i % length, i / length);
    }
    index
}

fn is_float(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::F32 | Dtype::BF16 | Dtype::F16 | Dtype::F64 | Dtype::F8_E4M3 | Dtype::F8_E5M2
    )
}

/// Little-endian floats of a type that [`is_float`] to f32.
fn decode(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    let pairs = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    match dtype {
        Dtype::F32 => {
            for (value, b) in values.iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
        Dtype::BF16 => {
            for (value, bits) in values.iter_mut().zip(pairs) {
                *value = f32::from_bits(u32::from(bits) << 16);
            }
        }
        Dtype::F16 => decode_f16(bytes, values),
        Dtype::F8_E4M3 => {
            for (value, &bits) in values.iter_mut().zip(bytes) {
                *value = float8::from_e4m3(bits);
            }
        }
        Dtype::F8_E5M2 => {
            for (value, &bits) in values.iter_mut().zip(bytes) {
                *value = float8::from_e5m2(bits);
            }
        }
        _ => {
            for (value, b) in values.iter_mut().zip(bytes.chunks_exact(8)) {
                *value = f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32;
            }
        }
    }
}

/// f16 through `half`'s slice conversion, which uses F16C where the CPU has it.
fn decode_f16(bytes: &[u8], values: &mut [f32]) {
    use half::slice::HalfFloatSliceExt;
    if let Ok(stored) = bytemuck::try_cast_slice::<u8, half::f16>(bytes) {
        stored.convert_to_f32_slice(values);
    } else {
        for (value, b) in values.iter_mut().zip(bytes.chunks_exact(2)) {
            *value = half::f16::from_le_bytes([b[0], b[1]]).to_f32();
        }
    }
}
