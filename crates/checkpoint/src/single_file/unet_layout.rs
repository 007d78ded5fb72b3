//! The blocks of a UNet in the original layout, which numbers them through.

use super::leading_number;
use super::stored_keys::keys;
use crate::tensor_file::TensorFile;
use std::collections::{BTreeMap, BTreeSet};

/// What one of the original UNet's numbered blocks is in diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    block: usize,
    layer: usize,
}

/// Which block and layer each of the original UNet's numbered blocks is. It follows from where
/// the down- and upsamplers are, so any number of layers per block is understood, and so are the
/// numbers that the hub's files of fewer layers leave out.
pub(crate) struct UnetLayout {
    /// Of `input_blocks.i`, but the first, which is `conv_in`.
    input: BTreeMap<usize, Slot>,
    /// Of `output_blocks.i`.
    output: BTreeMap<usize, Slot>,
}

impl UnetLayout {
    /// Of the UNet whose keys begin with `prefix`.
    pub fn of(file: &TensorFile, prefix: &str) -> Self {
        let has = |key: String| file.tensors().contains_key(&format!("{prefix}{key}"));
        let slots = |side: &str, first: usize, samplers: &[&str]| {
            let start = format!("{prefix}{side}.");
            let numbers: BTreeSet<usize> = keys(file, &start)
                .filter_map(|key| Some(leading_number(key)?.0))
                .collect();
            let (mut block, mut layer) = (0, 0);
            let mut slots = BTreeMap::new();
            for i in numbers.into_iter().filter(|&i| i >= first) {
                slots.insert(i, Slot { block, layer });
                layer += 1;
                if samplers
                    .iter()
                    .any(|sampler| has(format!("{side}.{i}.{sampler}.weight")))
                {
                    (block, layer) = (block + 1, 0);
                }
            }
            slots
        };
        Self {
            input: slots("input_blocks", 1, &["0.op"]),
            output: slots("output_blocks", 0, &["1.conv", "2.conv"]),
        }
    }

    /// The diffusers key of a UNet key (without its prefix).
    pub fn rename(&self, key: &str) -> Option<String> {
        const WHOLE: [(&str, &str); 8] = [
            ("time_embed.0.", "time_embedding.linear_1."),
            ("time_embed.2.", "time_embedding.linear_2."),
            ("label_emb.0.0.", "add_embedding.linear_1."),
            ("label_emb.0.2.", "add_embedding.linear_2."),
            ("input_blocks.0.0.", "conv_in."),
            ("out.0.", "conv_norm_out."),
            ("out.2.", "conv_out."),
            ("time_embedding.cond_proj.", "time_embedding.cond_proj."),
        ];
        if let Some((rest, new)) = WHOLE.iter().find_map(|(old, new)| Some((key.strip_prefix(old)?, new))) {
            return Some(format!("{new}{rest}"));
        }
        if let Some(rest) = key.strip_prefix("middle_block.") {
            let (sub, leaf) = leading_number(rest)?;
            return Some(match rename_resnet(leaf) {
                Some(leaf) => format!("mid_block.resnets.{}.{leaf}", usize::from(sub > 0)),
                None => format!("mid_block.attentions.0.{leaf}"),
            });
        }
        let (blocks, slots, rest) = match key.strip_prefix("input_blocks.") {
            Some(rest) => ("down_blocks", &self.input, rest),
            None => ("up_blocks", &self.output, key.strip_prefix("output_blocks.")?),
        };
        let (index, rest) = leading_number(rest)?;
        let (_, leaf) = leading_number(rest)?;
        let &Slot { block, layer } = slots.get(&index)?;
        Some(if let Some(leaf) = rename_resnet(leaf) {
            format!("{blocks}.{block}.resnets.{layer}.{leaf}")
        } else if let Some(leaf) = leaf.strip_prefix("op.") {
            format!("{blocks}.{block}.downsamplers.0.conv.{leaf}")
        } else if let Some(leaf) = leaf.strip_prefix("conv.") {
            format!("{blocks}.{block}.upsamplers.0.conv.{leaf}")
        } else {
            format!("{blocks}.{block}.attentions.{layer}.{leaf}")
        })
    }
}

/// The layers of a UNet's resnet; None for anything else.
fn rename_resnet(leaf: &str) -> Option<String> {
    const LAYERS: [(&str, &str); 6] = [
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("emb_layers.1.", "time_emb_proj."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("skip_connection.", "conv_shortcut."),
    ];
    LAYERS
        .iter()
        .find_map(|(old, new)| Some(format!("{new}{}", leaf.strip_prefix(old)?)))
}
