//! The keys of a file under a prefix.

use super::leading_number;
use crate::tensor_file::TensorFile;
use std::collections::BTreeSet;
use std::ops::Bound;

/// Stored keys that start with `prefix`, without it.
pub(super) fn keys<'a>(file: &'a TensorFile, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    let from = (Bound::Included(prefix), Bound::Unbounded);
    let keys = file.tensors().range::<str, _>(from);
    keys.map_while(move |(key, _)| key.strip_prefix(prefix))
}

pub(super) fn has_any(file: &TensorFile, prefix: &str) -> bool {
    keys(file, prefix).next().is_some()
}

pub(super) fn count(file: &TensorFile, prefix: &str) -> usize {
    let numbers = keys(file, prefix).filter_map(|key| Some(leading_number(key)?.0));
    numbers.collect::<BTreeSet<usize>>().len()
}
