//! The names that files may give to a model's layers.

use std::collections::{BTreeSet, HashMap};

/// The original's names of what is no block.
const OUTSIDE: [(&str, &str); 8] = [
    ("conv_in", "input_blocks.0.0"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("mid_block.attentions.0", "middle_block.1"),
];

/// Those of a resnet's layers.
const RESNET: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// Every layer of a UNet, given by diffusers' names of them (`down_blocks.0.resnets.0.conv1`), by all names that it has in
/// files: diffusers' and those of the original, which numbers the blocks through, with `_` for the dots.
pub fn unet_names<'a>(modules: impl Iterator<Item = &'a str>) -> HashMap<String, &'a str> {
    let modules: BTreeSet<&str> = modules.collect();
    let originals = original_blocks(&modules);
    let mut names = HashMap::new();
    for module in modules {
        names.insert(module.replace('.', "_"), module);
        let inside = |(ours, theirs): &(String, String)| {
            let rest = module.strip_prefix(ours.as_str())?;
            let rest = if rest.is_empty() { rest } else { rest.strip_prefix('.')? };
            let layer = RESNET
                .iter()
                .find(|(ours, _)| *ours == rest)
                .map_or(rest, |(_, theirs)| theirs);
            Some(format!("{theirs}.{layer}").trim_end_matches('.').replace('.', "_"))
        };
        if let Some(original) = originals.iter().find_map(inside) {
            names.entry(original).or_insert(module);
        }
    }
    names
}

/// The same of a text encoder, of `text_model.encoder.layers.0.mlp.fc1` and the like.
pub fn text_names<'a>(modules: impl Iterator<Item = &'a str>) -> HashMap<String, &'a str> {
    let name = |module: &str| module.strip_prefix("text_model.").unwrap_or(module).replace('.', "_");
    modules.map(|module| (name(module), module)).collect()
}

/// The beginnings of diffusers' names, and of the original's.
fn original_blocks(modules: &BTreeSet<&str>) -> Vec<(String, String)> {
    let has = |start: &str| {
        let start = format!("{start}.");
        modules
            .range(start.as_str()..)
            .next()
            .is_some_and(|module| module.starts_with(&start))
    };
    let resnets = |block: &str| {
        (0..modules.len())
            .take_while(|i| has(&format!("{block}.resnets.{i}")))
            .count()
    };
    let mut all: Vec<(String, String)> = OUTSIDE
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect();
    for i in 0..2 {
        all.push((format!("mid_block.resnets.{i}"), format!("middle_block.{}", 2 * i)));
    }
    let mut number = 1;
    for block in (0..).map(|i| format!("down_blocks.{i}")).take_while(|block| has(block)) {
        for layer in 0..resnets(&block) {
            all.push((format!("{block}.resnets.{layer}"), format!("input_blocks.{number}.0")));
            all.push((
                format!("{block}.attentions.{layer}"),
                format!("input_blocks.{number}.1"),
            ));
            number += 1;
        }
        if has(&format!("{block}.downsamplers.0")) {
            all.push((
                format!("{block}.downsamplers.0.conv"),
                format!("input_blocks.{number}.0.op"),
            ));
            number += 1;
        }
    }
    number = 0;
    for block in (0..).map(|i| format!("up_blocks.{i}")).take_while(|block| has(block)) {
        for layer in 0..resnets(&block) {
            all.push((format!("{block}.resnets.{layer}"), format!("output_blocks.{number}.0")));
            all.push((
                format!("{block}.attentions.{layer}"),
                format!("output_blocks.{number}.1"),
            ));
            number += 1;
        }
        // After the last layer, and after its attention where it has one.
        let place = if has(&format!("{block}.attentions")) { 2 } else { 1 };
        let last = number.max(1) - 1;
        all.push((
            format!("{block}.upsamplers.0.conv"),
            format!("output_blocks.{last}.{place}.conv"),
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SDXL's levels: no attention, then two with it.
    fn modules() -> Vec<String> {
        let mut all = vec!["conv_in".to_owned(), "add_embedding.linear_1".to_owned()];
        for (block, layers) in [("down_blocks", 2), ("up_blocks", 3)] {
            for level in 0..3 {
                let attends = if block == "up_blocks" { level < 2 } else { level > 0 };
                for layer in 0..layers {
                    all.push(format!("{block}.{level}.resnets.{layer}.conv2"));
                    if attends {
                        all.push(format!("{block}.{level}.attentions.{layer}.proj_in"));
                    }
                }
                if level < 2 {
                    let sampler = if block == "up_blocks" {
                        "upsamplers"
                    } else {
                        "downsamplers"
                    };
                    all.push(format!("{block}.{level}.{sampler}.0.conv"));
                }
            }
        }
        all.extend(["mid_block.resnets.1.time_emb_proj", "mid_block.attentions.0.norm"].map(str::to_owned));
        all
    }

    #[test]
    fn the_original_numbers_of_blocks_are_known() {
        let modules = modules();
        let names = unet_names(modules.iter().map(String::as_str));
        for (original, ours) in [
            ("input_blocks_0_0", "conv_in"),
            ("input_blocks_1_0_out_layers_3", "down_blocks.0.resnets.0.conv2"),
            ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
            ("input_blocks_4_1_proj_in", "down_blocks.1.attentions.0.proj_in"),
            ("input_blocks_8_1_proj_in", "down_blocks.2.attentions.1.proj_in"),
            ("middle_block_2_emb_layers_1", "mid_block.resnets.1.time_emb_proj"),
            ("middle_block_1_norm", "mid_block.attentions.0.norm"),
            ("output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
            ("output_blocks_5_1_proj_in", "up_blocks.1.attentions.2.proj_in"),
            ("output_blocks_8_0_out_layers_3", "up_blocks.2.resnets.2.conv2"),
            ("label_emb_0_0", "add_embedding.linear_1"),
            ("up_blocks_2_resnets_2_conv2", "up_blocks.2.resnets.2.conv2"),
        ] {
            assert_eq!(names.get(original), Some(&ours), "{original}");
        }
    }
}
