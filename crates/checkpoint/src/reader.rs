//! A component's tensors by their diffusers keys, with every read tracked.

use crate::tensor_file::{TensorEntry, TensorFile};
use crate::{Error, Init, ParamSource};
use prima_tensor::{Keep, Param, Tensor};
use rayon::prelude::*;
use safetensors::Dtype;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Bits of a quantized weight with all that lies beside it, by the type that it is stored in: of 4 bits, every 32 have two
/// bytes more.
pub fn quantized_bits(dtype: Dtype) -> Option<f64> {
    match dtype {
        Dtype::I8 => Some(8.0),
        Dtype::U8 => Some(4.5),
        _ => None,
    }
}

/// What trainers and other tools leave in files and no network here reads, by a part of its name: buffers of old exports,
/// CLIP's similarity scale, averages and losses of training, TAESD's own scale, tables of noise, marks of what a file is.
const IGNORED: &[&str] = &[
    "position_ids",
    "logit_scale",
    "model_ema.",
    "loss.",
    "vae_scale",
    "vae_shift",
    "alphas_cumprod",
    "denoiser.sigmas",
    "num_batches_tracked",
    "scaled_fp8",
    "scale_input",
    "input_scale",
    "comfy_quant",
    "v_pred",
    "ztsnr",
    "edm_",
];

/// Read at a time where only a few are to be in memory.
const IN_TURN_BYTES: usize = 64 << 20;

/// How a stored tensor becomes the parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum View {
    Whole,
    /// Part `index` of `parts` equal parts of the first axis (an `in_proj` holds q, k and v).
    Rows {
        index: usize,
        parts: usize,
    },
    /// A matrix stored the other way round.
    Transposed,
}

/// Where the parameter of one diffusers key is stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub file: usize,
    pub key: String,
    pub view: View,
}

/// Reads the parameters of one component (a UNet, a text encoder, an autoencoder).
///
/// Old spellings are accepted: VAE attention `query/key/value/proj_attn`, with weights `[C, C]` or
/// `[C, C, 1, 1]`, and text encoders with or without the `text_model.` prefix. Every key can be
/// read once, and [`Reader::finish`] refuses a file of which something was not read.
pub struct Reader {
    name: String,
    files: Vec<Arc<TensorFile>>,
    entries: BTreeMap<String, Stored>,
    read: BTreeSet<String>,
    ignored: Vec<String>,
    params: Vec<(String, Param)>,
    /// Where [`Reader::fill`] finds the values of `params`, if it has to.
    deferred: Option<Vec<Stored>>,
}

impl Reader {
    /// One safetensors file, of which each tensor is read when it is asked for.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self::from_file(TensorFile::open(path)?))
    }

    /// A safetensors file embedded in the binary; errors call it `name`.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self, Error> {
        Ok(Self::from_file(TensorFile::from_static(name, bytes)?))
    }

    /// A safetensors file held in memory; errors call it `name`.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, Error> {
        Ok(Self::from_file(TensorFile::from_bytes(name, bytes)?))
    }

    pub fn from_file(file: TensorFile) -> Self {
        let name = file.name().to_owned();
        Self::from_files(name, vec![file])
    }

    /// Several shards that together are one component called `name`.
    pub fn from_files(name: String, files: Vec<TensorFile>) -> Self {
        let files: Vec<_> = files.into_iter().map(Arc::new).collect();
        let mut entries = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            for key in file.tensors().keys().filter(|key| !file.is_beside(key)) {
                let mut name = current_name(key);
                if entries.contains_key(&name) {
                    // Two shards, or two spellings: nobody will read the second, and `finish` says so.
                    name = format!("{key} (again, in {})", file.name());
                }
                entries.insert(
                    name,
                    Stored {
                        file: index,
                        key: key.clone(),
                        view: View::Whole,
                    },
                );
            }
        }
        Self::from_entries(name, files, entries)
    }

    /// A reader over an explicit map from diffusers keys to stored tensors.
    pub(crate) fn from_entries(name: String, files: Vec<Arc<TensorFile>>, entries: BTreeMap<String, Stored>) -> Self {
        let ignored = IGNORED.iter().map(|&s| s.to_owned()).collect();
        Self {
            name,
            files,
            entries,
            read: BTreeSet::new(),
            ignored,
            params: Vec::new(),
            deferred: None,
        }
    }

    /// Gives parameters without their values, which [`fill`](Self::fill) then reads all together.
    pub fn defer(&mut self) {
        self.deferred = Some(Vec::new());
    }

    /// Reads the values of the parameters that were given since [`defer`](Self::defer), several at once, each kept as
    /// `keep` says of its key and shape. `on_read` is told the bytes of each, by any thread.
    pub fn fill(
        &mut self,
        keep: impl Fn(&str, &[usize]) -> Keep + Sync,
        on_read: &(dyn Fn(usize) + Sync),
    ) -> Result<(), Error> {
        let Some(deferred) = self.deferred.take() else {
            return Ok(());
        };
        let first = self.params.len() - deferred.len();
        self.fill_some(&self.params[first..], &deferred, &keep, on_read)
    }

    /// The same, but only a few at a time, each of which `then` is given before others are read.
    pub(crate) fn fill_in_turn(
        &mut self,
        keep: impl Fn(&str, &[usize]) -> Keep + Sync,
        on_read: &(dyn Fn(usize) + Sync),
        mut then: impl FnMut(&str, &Param) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(deferred) = self.deferred.take() else {
            return Ok(());
        };
        let first = self.params.len() - deferred.len();
        let (mut params, mut stored) = (&self.params[first..], &deferred[..]);
        while !params.is_empty() {
            let mut bytes = 0;
            let fits = |stored: &&Stored| {
                bytes += self.entry(stored).map_or(0, TensorEntry::bytes);
                bytes <= IN_TURN_BYTES
            };
            let count = stored.iter().take_while(fits).count().max(1);
            self.fill_some(&params[..count], &stored[..count], &keep, on_read)?;
            params[..count].iter().try_for_each(|(key, param)| then(key, param))?;
            (params, stored) = (&params[count..], &stored[count..]);
        }
        Ok(())
    }

    fn fill_some(
        &self,
        params: &[(String, Param)],
        stored: &[Stored],
        keep: &(impl Fn(&str, &[usize]) -> Keep + Sync),
        on_read: &(dyn Fn(usize) + Sync),
    ) -> Result<(), Error> {
        let jobs = params.par_iter().zip(stored);
        let filled: Vec<_> = jobs
            .map(|((key, param), stored)| {
                self.fill_one(param, stored, keep(key, &param.shape()))?;
                on_read(self.entry(stored).map_or(0, TensorEntry::bytes));
                Ok(())
            })
            .collect();
        // The first error, whichever thread met one first.
        filled.into_iter().collect()
    }

    /// Bytes of all tensors in the files.
    pub fn bytes(&self) -> usize {
        self.entries
            .values()
            .filter_map(|stored| self.entry(stored))
            .map(TensorEntry::bytes)
            .sum()
    }

    /// Which files these are, a line each, and when they last changed; `None` where they are not files.
    pub(crate) fn file_identity(&self) -> Option<String> {
        self.files.iter().map(|file| file.identity()).collect()
    }

    fn fill_one(&self, param: &Param, stored: &Stored, keep: Keep) -> Result<(), Error> {
        let shape = param.shape();
        let file = &self.files[stored.file];
        let entry = self.entry(stored).ok_or_else(|| self.missing(stored, &shape))?;
        if stored.view == View::Transposed {
            let Ok(()) = param.fill(self.load(stored, &shape)?.data(), keep);
            return Ok(());
        }
        let mut part = file.part(&stored.key, entry)?;
        if let View::Rows { index, .. } = stored.view {
            part.first = index * param.numel();
        }
        // Of several bad values of one tensor the first is told.
        param
            .fill(&part, keep)
            .map_err(|error| match self.load(stored, &shape) {
                Err(first) => first,
                Ok(_) => error,
            })
    }

    /// Lets [`Reader::finish`] pass over unread keys that contain any of `patterns`.
    #[must_use]
    pub fn ignoring(mut self, patterns: &[&str]) -> Self {
        self.ignored.extend(patterns.iter().map(|&s| s.to_owned()));
        self
    }

    /// The file's path, or the name of an embedded one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All keys, in diffusers' current spelling, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether `key` (or an accepted old spelling of it) is there; does not count as a read.
    pub fn contains(&self, key: &str) -> bool {
        self.resolve(key).is_some()
    }

    /// The shape of `key` if it is there; does not count as a read.
    pub fn shape(&self, key: &str) -> Option<Vec<usize>> {
        self.resolve(key).and_then(|(_, stored)| self.shape_of(stored))
    }

    /// (key, storage type, shape) of every tensor; does not count as a read.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Dtype, Vec<usize>)> {
        self.entries
            .iter()
            .filter_map(|(key, stored)| Some((key.as_str(), self.entry(stored)?.dtype, self.shape_of(stored)?)))
    }

    /// The blocks that a tensor of a GGUF file lies in, and the bytes that they take.
    pub(crate) fn in_blocks(&self, key: &str) -> Option<(String, usize)> {
        let entry = self.entry(self.entries.get(key)?)?;
        Some((entry.blocks?.name(), entry.bytes()))
    }

    /// Whether weights are stored in 8 or 4 bits.
    pub fn is_quantized(&self) -> bool {
        self.tensors().any(|(_, dtype, _)| quantized_bits(dtype).is_some())
    }

    /// Everything read so far, under the keys asked for, in order.
    pub fn params(&self) -> &[(String, Param)] {
        &self.params
    }

    pub fn into_params(self) -> Vec<(String, Param)> {
        self.params
    }

    /// To be called once the network is built: an error if any tensor was never read.
    pub fn finish(&self) -> Result<(), Error> {
        let unread = |key: &&String| {
            !self.read.contains(*key) && !self.ignored.iter().any(|pattern| key.contains(pattern.as_str()))
        };
        let unread: Vec<&String> = self.entries.keys().filter(unread).collect();
        if unread.is_empty() {
            return Ok(());
        }
        let keys = unread.iter().take(10).map(|&key| key.clone()).collect();
        Err(Error::Unread {
            file: self.name.clone(),
            count: unread.len(),
            keys,
        })
    }

    /// `key` itself, or with the prefix `text_model.` added or taken away.
    fn resolve(&self, key: &str) -> Option<(String, &Stored)> {
        let other = match key.strip_prefix("text_model.") {
            Some(bare) => bare.to_owned(),
            None => format!("text_model.{key}"),
        };
        [key.to_owned(), other]
            .into_iter()
            .find_map(|k| self.entries.get(&k).map(|stored| (k, stored)))
    }

    fn entry(&self, stored: &Stored) -> Option<&TensorEntry> {
        self.files[stored.file].tensors().get(&stored.key)
    }

    /// The shape under the view; None only if the entry map names a tensor that is not stored.
    fn shape_of(&self, stored: &Stored) -> Option<Vec<usize>> {
        let file = &self.files[stored.file];
        let mut shape = file.shape_of(&stored.key, self.entry(stored)?);
        match stored.view {
            View::Whole => {}
            View::Rows { parts, .. } => {
                // Rows that do not divide stay whole, and `param` says so.
                if let Some(rows) = shape.first_mut().filter(|rows| rows.is_multiple_of(parts)) {
                    *rows /= parts;
                }
            }
            View::Transposed => shape.reverse(),
        }
        Some(shape)
    }

    /// That a tensor of several parameters can be cut into them: the parts after the first would else lie outside of it.
    fn check_parts(&self, stored: &Stored) -> Result<(), Error> {
        let View::Rows { parts, .. } = stored.view else {
            return Ok(());
        };
        let shape = self.entry(stored).map_or(&[][..], |entry| &entry.shape);
        if shape.first().is_some_and(|rows| rows.is_multiple_of(parts)) {
            return Ok(());
        }
        Err(Error::File {
            file: self.files[stored.file].name().to_owned(),
            message: format!(
                "tensor `{}` has shape {shape:?}, whose rows are not {parts} equal parts",
                stored.key
            ),
        })
    }

    fn missing(&self, stored: &Stored, shape: &[usize]) -> Error {
        Error::Missing {
            file: self.files[stored.file].name().to_owned(),
            key: stored.key.clone(),
            expected: shape.to_vec(),
        }
    }

    fn load(&self, stored: &Stored, shape: &[usize]) -> Result<Tensor, Error> {
        let file = &self.files[stored.file];
        let entry = self.entry(stored).ok_or_else(|| self.missing(stored, shape))?;
        let len: usize = shape.iter().product();
        let range = match stored.view {
            View::Rows { index, .. } => index * len..(index + 1) * len,
            View::Whole | View::Transposed => 0..len,
        };
        let mut data = file.read_range(&stored.key, entry, range)?;
        if stored.view == View::Transposed
            && let &[rows, columns] = shape
        {
            data = transpose(&data, columns, rows);
        }
        Ok(Tensor::from_vec(data, shape))
    }
}

impl ParamSource for Reader {
    fn param(&mut self, key: &str, shape: &[usize], _init: Init) -> Result<Param, Error> {
        let missing = || Error::Missing {
            file: self.name.clone(),
            key: key.to_owned(),
            expected: shape.to_vec(),
        };
        let (resolved, stored) = self.resolve(key).ok_or_else(missing)?;
        let found = self.shape_of(stored).ok_or_else(missing)?;
        self.check_parts(stored)?;
        let file = || self.files[stored.file].name().to_owned();
        if found != shape && !(is_vae_attention_weight(&resolved) && same_but_1x1(&found, shape)) {
            return Err(Error::Shape {
                file: file(),
                key: key.to_owned(),
                expected: shape.to_vec(),
                found,
            });
        }
        if self.read.contains(&resolved) {
            return Err(Error::Twice {
                file: file(),
                key: key.to_owned(),
            });
        }
        let stored = stored.clone();
        let param = match &mut self.deferred {
            Some(deferred) => {
                deferred.push(stored);
                Param::absent(shape)
            }
            None => Param::new(self.load(&stored, shape)?),
        };
        self.read.insert(resolved);
        self.params.push((key.to_owned(), param.clone()));
        Ok(param)
    }
}

/// A `[rows, columns]` matrix to `[columns, rows]`.
fn transpose(data: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns)
        .flat_map(|c| (0..rows).map(move |r| data[r * columns + c]))
        .collect()
}

/// Whether two shapes differ only by the `1, 1` of a 1x1 convolution.
fn same_but_1x1(a: &[usize], b: &[usize]) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short).is_some_and(|rest| rest == [1, 1])
}

/// `...attentions.N.to_q.weight` and its siblings: the attention directly inside a VAE block (a
/// UNet's lie deeper, in `transformer_blocks`).
fn is_vae_attention_weight(key: &str) -> bool {
    let Some((parent, leaf)) = vae_attention_leaf(key) else {
        return false;
    };
    !parent.is_empty() && matches!(leaf, "to_q.weight" | "to_k.weight" | "to_v.weight" | "to_out.0.weight")
}

/// Splits `...attentions.N.LEAF` into the part up to and with `N.` and LEAF.
fn vae_attention_leaf(key: &str) -> Option<(&str, &str)> {
    let after = key.rfind("attentions.")? + "attentions.".len();
    let dot = after + key[after..].find('.')?;
    key[after..dot]
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| key.split_at(dot + 1))
}

/// diffusers' current spelling of a stored key (attention blocks were renamed in version 0.18:
/// `models/attention_processor.py`, `_convert_deprecated_attention_blocks`).
pub(crate) fn current_name(key: &str) -> String {
    let Some((parent, leaf)) = vae_attention_leaf(key) else {
        return key.to_owned();
    };
    let Some((module, kind)) = leaf.split_once('.') else {
        return key.to_owned();
    };
    let module = match module {
        "query" => "to_q",
        "key" => "to_k",
        "value" => "to_v",
        "proj_attn" => "to_out.0",
        _ => return key.to_owned(),
    };
    format!("{parent}{module}.{kind}")
}
