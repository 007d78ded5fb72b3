//! Segment Anything's keys as its authors' files have them, turned into those of transformers.

/// The table of positions, and its other name in transformers' files, which may hold it twice or under this name alone.
pub(super) const POSITIONS: &str = "prompt_encoder.shared_embedding.positional_embedding";
pub(super) const POSITIONS_TWICE: &str = "shared_image_embedding.positional_embedding";

/// (theirs, transformers'): the beginnings of keys.
const STARTS: [(&str, &str); 6] = [
    (
        "image_encoder.patch_embed.proj.",
        "vision_encoder.patch_embed.projection.",
    ),
    ("image_encoder.blocks.", "vision_encoder.layers."),
    ("image_encoder.", "vision_encoder."),
    ("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", POSITIONS),
    ("prompt_encoder.point_embeddings.", "prompt_encoder.point_embed."),
    (
        "mask_decoder.transformer.norm_final_attn.",
        "mask_decoder.transformer.layer_norm_final_attn.",
    ),
];

/// Layers that have numbers in theirs.
const NUMBERED: [(&str, &str); 12] = [
    (".neck.0.", ".neck.conv1."),
    (".neck.1.", ".neck.layer_norm1."),
    (".neck.2.", ".neck.conv2."),
    (".neck.3.", ".neck.layer_norm2."),
    (".mask_downscaling.0.", ".mask_embed.conv1."),
    (".mask_downscaling.1.", ".mask_embed.layer_norm1."),
    (".mask_downscaling.3.", ".mask_embed.conv2."),
    (".mask_downscaling.4.", ".mask_embed.layer_norm2."),
    (".mask_downscaling.6.", ".mask_embed.conv3."),
    (".output_upscaling.0.", ".upscale_conv1."),
    (".output_upscaling.1.", ".upscale_layer_norm."),
    (".output_upscaling.3.", ".upscale_conv2."),
];

/// What wrappers leave in front of keys.
pub(super) fn bare(key: &str) -> &str {
    key.strip_prefix("sam.").unwrap_or(key)
}

/// Transformers' name of a stored key; `last` tells the number of the last layer of a head by its name in theirs.
pub(super) fn rename(key: &str, last: &dyn Fn(&str) -> Option<usize>) -> String {
    let key = bare(key);
    if key == POSITIONS_TWICE {
        return POSITIONS.to_owned();
    }
    let mut name = key.to_owned();
    if let Some((theirs, ours)) = STARTS.iter().find(|(theirs, _)| key.starts_with(theirs)) {
        name = format!("{ours}{}", &key[theirs.len()..]);
    }
    for (theirs, ours) in NUMBERED {
        name = name.replace(theirs, ours);
    }
    for n in 1..=4 {
        name = name.replace(&format!(".norm{n}."), &format!(".layer_norm{n}."));
    }
    head(&name, last).unwrap_or(name)
}

/// `mask_decoder.output_hypernetworks_mlps.0.layers.2.weight`: the layers of a head, counted through.
fn head(key: &str, last: &dyn Fn(&str) -> Option<usize>) -> Option<String> {
    let is_head = ["output_hypernetworks_mlps.", "iou_prediction_head."]
        .iter()
        .any(|name| key.contains(name));
    let (head, rest) = key.split_once(".layers.").filter(|_| is_head)?;
    let (number, kind) = rest.split_once('.')?;
    let number: usize = number.parse().ok()?;
    // Transformers' own heads have middle layers alone under this name.
    let last = last(head)?;
    Some(match number {
        0 => format!("{head}.proj_in.{kind}"),
        number if number == last => format!("{head}.proj_out.{kind}"),
        number => format!("{head}.layers.{}.{kind}", number - 1),
    })
}

/// Of each head whose layers are counted through, the last one's number.
pub(super) fn last_layer<'a>(keys: impl Iterator<Item = &'a str>, head: &str) -> Option<usize> {
    let (mut last, mut is_transformers) = (None, false);
    for key in keys {
        let Some(rest) = key.strip_prefix(head).and_then(|rest| rest.strip_prefix('.')) else {
            continue;
        };
        is_transformers |= rest.starts_with("proj_in.");
        if let Some(number) = rest.strip_prefix("layers.").and_then(|rest| rest.split('.').next()) {
            last = last.max(number.parse().ok());
        }
    }
    last.filter(|_| !is_transformers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authors_keys_are_those_of_transformers() {
        for (theirs, ours) in [
            ("image_encoder.pos_embed", "vision_encoder.pos_embed"),
            (
                "image_encoder.patch_embed.proj.bias",
                "vision_encoder.patch_embed.projection.bias",
            ),
            (
                "image_encoder.blocks.11.norm2.weight",
                "vision_encoder.layers.11.layer_norm2.weight",
            ),
            (
                "image_encoder.blocks.0.attn.rel_pos_h",
                "vision_encoder.layers.0.attn.rel_pos_h",
            ),
            (
                "image_encoder.blocks.0.mlp.lin1.bias",
                "vision_encoder.layers.0.mlp.lin1.bias",
            ),
            ("image_encoder.neck.3.weight", "vision_encoder.neck.layer_norm2.weight"),
            (
                "prompt_encoder.point_embeddings.2.weight",
                "prompt_encoder.point_embed.2.weight",
            ),
            (
                "prompt_encoder.mask_downscaling.4.bias",
                "prompt_encoder.mask_embed.layer_norm2.bias",
            ),
            (
                "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
                "prompt_encoder.shared_embedding.positional_embedding",
            ),
            (
                "mask_decoder.transformer.layers.1.norm4.weight",
                "mask_decoder.transformer.layers.1.layer_norm4.weight",
            ),
            (
                "mask_decoder.transformer.norm_final_attn.bias",
                "mask_decoder.transformer.layer_norm_final_attn.bias",
            ),
            (
                "mask_decoder.output_upscaling.3.weight",
                "mask_decoder.upscale_conv2.weight",
            ),
            (
                "mask_decoder.output_hypernetworks_mlps.3.layers.0.weight",
                "mask_decoder.output_hypernetworks_mlps.3.proj_in.weight",
            ),
            (
                "mask_decoder.output_hypernetworks_mlps.3.layers.1.weight",
                "mask_decoder.output_hypernetworks_mlps.3.layers.0.weight",
            ),
            (
                "mask_decoder.iou_prediction_head.layers.2.bias",
                "mask_decoder.iou_prediction_head.proj_out.bias",
            ),
        ] {
            assert_eq!(rename(theirs, &|_| Some(2)), ours);
            assert_eq!(rename(ours, &|_| None), ours);
        }
    }

    #[test]
    fn only_heads_that_are_counted_through_are_renamed() {
        let theirs = ["a.layers.0.weight", "a.layers.1.weight", "b.layers.4.weight"];
        assert_eq!(last_layer(theirs.into_iter(), "a"), Some(1));
        let ours = ["a.proj_in.weight", "a.layers.0.weight", "a.proj_out.weight"];
        assert_eq!(last_layer(ours.into_iter(), "a"), None);
    }
}
