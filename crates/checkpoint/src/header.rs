//! A safetensors header, checked against the length of its file: <https://github.com/huggingface/safetensors#format>.

use crate::Error;
use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// What a header says, all of it true of the file.
pub(crate) struct Header {
    pub tensors: BTreeMap<String, TensorInfo>,
    pub metadata: BTreeMap<String, String>,
    /// Where the tensors begin; their offsets count from here.
    pub data_start: usize,
}

impl Header {
    /// Of a file of `length` bytes, of which `read` gives those from a place on.
    pub fn read(
        name: &str,
        length: u64,
        read: &mut dyn FnMut(usize, usize) -> Result<Vec<u8>, Error>,
    ) -> Result<Self, Error> {
        let cut = |expected: u64| Error::Truncated {
            file: name.to_owned(),
            expected,
            found: length,
        };
        let refuse = |reason: String| Error::NotSafetensors {
            file: name.to_owned(),
            reason,
        };
        if length < 8 {
            return Err(cut(8));
        }
        let number: Result<[u8; 8], _> = read(0, 8)?.try_into();
        let header_bytes = number.map_or(u64::MAX, u64::from_le_bytes);
        let other_kind = || refuse("it does not start with a header length".to_owned());
        if header_bytes > MAX_HEADER_BYTES {
            return Err(other_kind());
        }
        let data_start = 8 + header_bytes;
        if data_start > length {
            // A real header starts with `{`; anything else is another kind of file, not a short one.
            return Err(if length == 8 || read(8, 1)? == [b'{'] {
                cut(data_start)
            } else {
                other_kind()
            });
        }
        let text = read(8, header_bytes as usize)?;
        let listed: Listed = serde_json::from_slice(&text).map_err(|e| refuse(format!("its header: {e}")))?;
        let data = check_places(&listed.tensors).map_err(refuse)?;
        let found = length - data_start;
        if found < data {
            // Places of tensors end below 2^64, but with the header they may not.
            return Err(cut(data_start.saturating_add(data)));
        }
        if found > data {
            let reason = format!("{} bytes follow the tensors that its header lists", found - data);
            return Err(refuse(reason));
        }
        Ok(Self {
            tensors: listed.tensors,
            metadata: listed.metadata,
            data_start: data_start as usize,
        })
    }
}

/// That the tensors lie one after the other, without gaps, and each has as many bytes as its shape asks for; how many
/// bytes that is in all.
fn check_places(tensors: &BTreeMap<String, TensorInfo>) -> Result<u64, String> {
    let mut by_place: Vec<_> = tensors.iter().collect();
    by_place.sort_by_key(|(_, info)| info.data_offsets);
    let mut next = 0;
    for (key, info) in by_place {
        let (from, to) = info.data_offsets;
        if from != next || to < from {
            return Err(format!(
                "tensor `{key}` is said to lie at bytes {from} to {to}, where {next} comes next"
            ));
        }
        let numel = info
            .shape
            .iter()
            .try_fold(1usize, |product, &axis| product.checked_mul(axis));
        let bits = numel.and_then(|numel| numel.checked_mul(info.dtype.bitsize()));
        if bits != (to - from).checked_mul(8) || bits.is_none() {
            return Err(format!(
                "tensor `{key}` has {} bytes, which are not those of {:?} in the shape {:?}",
                to - from,
                info.dtype,
                info.shape
            ));
        }
        next = to;
    }
    Ok(next as u64)
}

/// The header's JSON. A key that is there twice is refused, where `serde_json` would let the second hide the first.
struct Listed {
    tensors: BTreeMap<String, TensorInfo>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ListedVisitor)
    }
}

struct ListedVisitor;

impl<'de> Visitor<'de> for ListedVisitor {
    type Value = Listed;

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("an object of tensors by key")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listed, A::Error> {
        let (mut tensors, mut metadata) = (BTreeMap::new(), None);
        let twice = |key: &str| A::Error::custom(format_args!("it lists `{key}` twice"));
        while let Some(key) = map.next_key::<String>()? {
            if key == "__metadata__" {
                let notes: Option<BTreeMap<String, String>> = map.next_value()?;
                if metadata.replace(notes.unwrap_or_default()).is_some() {
                    return Err(twice(&key));
                }
                continue;
            }
            match tensors.entry(key) {
                Entry::Occupied(entry) => return Err(twice(entry.key())),
                Entry::Vacant(entry) => {
                    entry.insert(map.next_value()?);
                }
            }
        }
        Ok(Listed {
            tensors,
            metadata: metadata.unwrap_or_default(),
        })
    }
}
