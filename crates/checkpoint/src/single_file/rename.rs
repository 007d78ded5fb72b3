//! Names of the original layouts in diffusers' and transformers' words.

use super::leading_number;
use crate::reader::View;

/// The diffusers key of a VAE key (without its prefix). The original numbers the decoder's blocks
/// from the picture's side, diffusers from the latents'.
pub(super) fn rename_vae(key: &str, up_blocks: usize) -> Option<String> {
    if key.starts_with("quant_conv.") || key.starts_with("post_quant_conv.") {
        return Some(key.to_owned());
    }
    let (half, rest) = key
        .split_once('.')
        .filter(|(half, _)| matches!(*half, "encoder" | "decoder"))?;
    if let Some(rest) = rest.strip_prefix("norm_out.") {
        return Some(format!("{half}.conv_norm_out.{rest}"));
    }
    if rest.starts_with("conv_in.") || rest.starts_with("conv_out.") {
        return Some(key.to_owned());
    }
    if let Some(rest) = rest.strip_prefix("mid.") {
        let (module, leaf) = rest.split_once('.')?;
        return match module {
            "block_1" => Some(format!("{half}.mid_block.resnets.0.{leaf}")),
            "block_2" => Some(format!("{half}.mid_block.resnets.1.{leaf}")),
            "attn_1" => Some(format!("{half}.mid_block.attentions.0.{}", rename_vae_attention(leaf)?)),
            _ => None,
        };
    }
    let (blocks, sampler, index, rest) = if let Some(rest) = rest.strip_prefix("down.") {
        let (index, rest) = leading_number(rest)?;
        ("down_blocks", "downsample", index, rest)
    } else {
        let (index, rest) = leading_number(rest.strip_prefix("up.")?)?;
        (
            "up_blocks",
            "upsample",
            up_blocks.checked_sub(index)?.checked_sub(1)?,
            rest,
        )
    };
    if let Some(rest) = rest.strip_prefix("block.") {
        let rest = rest.replace("nin_shortcut.", "conv_shortcut.");
        return Some(format!("{half}.{blocks}.{index}.resnets.{rest}"));
    }
    let leaf = rest.strip_prefix(sampler)?.strip_prefix('.')?;
    Some(format!("{half}.{blocks}.{index}.{sampler}rs.0.{leaf}"))
}

/// The diffusers key of a tensor of TAESD inside a checkpoint, as ComfyUI names it. The original's decoder begins with a
/// clamp, which diffusers has no layer for.
pub(super) fn rename_taesd(key: &str) -> Option<String> {
    let (half, rest) = key.strip_prefix("taesd_")?.split_once('.')?;
    let (index, leaf) = leading_number(rest)?;
    let index = match half {
        "encoder" => index,
        "decoder" => index.checked_sub(1)?,
        _ => return None,
    };
    Some(format!("{half}.layers.{index}.{leaf}"))
}

fn rename_vae_attention(leaf: &str) -> Option<String> {
    let (module, kind) = leaf.split_once('.')?;
    let module = match module {
        "norm" => "group_norm",
        "q" => "to_q",
        "k" => "to_k",
        "v" => "to_v",
        "proj_out" => "to_out.0",
        _ => return None,
    };
    Some(format!("{module}.{kind}"))
}

/// The transformers keys (one, or three for `in_proj`) of an OpenCLIP key without its prefix.
pub(super) fn rename_open_clip(key: &str) -> Vec<(String, View)> {
    let one = |name: String| vec![(name, View::Whole)];
    match key {
        "token_embedding.weight" => return one("text_model.embeddings.token_embedding.weight".to_owned()),
        "positional_embedding" => return one("text_model.embeddings.position_embedding.weight".to_owned()),
        // Used as `x @ text_projection`, so it is a Linear's weight the other way round.
        "text_projection" => return vec![("text_projection.weight".to_owned(), View::Transposed)],
        _ => {}
    }
    if let Some(kind) = key.strip_prefix("ln_final.") {
        return one(format!("text_model.final_layer_norm.{kind}"));
    }
    let layer = key.strip_prefix("transformer.resblocks.").and_then(leading_number);
    let Some((layer, leaf)) = layer else {
        return one(key.to_owned());
    };
    let layer = format!("text_model.encoder.layers.{layer}");
    if let Some(kind) = leaf.strip_prefix("attn.in_proj_") {
        let part = |(index, name)| {
            (
                format!("{layer}.self_attn.{name}.{kind}"),
                View::Rows { index, parts: 3 },
            )
        };
        return ["q_proj", "k_proj", "v_proj"]
            .into_iter()
            .enumerate()
            .map(part)
            .collect();
    }
    const MODULES: [(&str, &str); 5] = [
        ("attn.out_proj.", "self_attn.out_proj."),
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
    ];
    let renamed = MODULES
        .iter()
        .find_map(|(old, new)| Some(format!("{layer}.{new}{}", leaf.strip_prefix(old)?)));
    one(renamed.unwrap_or_else(|| key.to_owned()))
}

/// The network that makes latents of a ControlNet's picture.
pub(super) const CONTROLNET_EMBEDDING: &str = "controlnet_cond_embedding";

/// The diffusers key of one that only ControlNets have; `convolutions` are those of its hint block.
pub(super) fn rename_controlnet(key: &str, convolutions: usize) -> Option<String> {
    if let Some(leaf) = key.strip_prefix("middle_block_out.0.") {
        return Some(format!("controlnet_mid_block.{leaf}"));
    }
    if let Some((number, leaf)) = key.strip_prefix("zero_convs.").and_then(leading_number) {
        return Some(format!("controlnet_down_blocks.{number}.{}", leaf.strip_prefix("0.")?));
    }
    // Convolutions and activations take turns.
    let (number, leaf) = key.strip_prefix("input_hint_block.").and_then(leading_number)?;
    let place = match number / 2 {
        0 => "conv_in".to_owned(),
        i if i + 1 == convolutions => "conv_out".to_owned(),
        i => format!("blocks.{}", i - 1),
    };
    Some(format!("{CONTROLNET_EMBEDDING}.{place}.{leaf}"))
}
