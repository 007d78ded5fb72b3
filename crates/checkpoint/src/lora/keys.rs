//! Keys as kohya, diffusers (before and since peft), peft, ComfyUI and LyCORIS write them.

use std::collections::BTreeMap;

/// A network that is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    Unet,
    TextEncoder,
    TextEncoder2,
}

impl Network {
    /// The component of a diffusers folder.
    pub fn component(self) -> &'static str {
        match self {
            Self::Unet => "unet",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
        }
    }
}

/// A layer as all spellings come down to: the module's path with `_` between its parts, of a text encoder without the
/// leading `text_model`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerName {
    pub network: Network,
    pub layer: String,
}

/// What a tensor is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Down,
    Up,
    Mid,
    Alpha,
    /// DoRA's magnitudes.
    Magnitude,
    HadaW1A,
    HadaW1B,
    HadaW2A,
    HadaW2B,
    HadaT1,
    HadaT2,
    LokrW1,
    LokrW1A,
    LokrW1B,
    LokrW2,
    LokrW2A,
    LokrW2B,
    LokrT2,
    GloraA1,
    GloraA2,
    GloraB1,
    GloraB2,
    Diff,
    DiffBias,
}

/// The stored keys of one layer, by what they are.
pub(super) type Roles = BTreeMap<Role, String>;

/// What a key may end with, where a module's name goes before it.
const ENDINGS: &[(&str, Role)] = &[
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora_mid.weight", Role::Mid),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".alpha", Role::Alpha),
    (".dora_scale", Role::Magnitude),
    (".lora_magnitude_vector", Role::Magnitude),
    (".lora_magnitude_vector.weight", Role::Magnitude),
    (".hada_w1_a", Role::HadaW1A),
    (".hada_w1_b", Role::HadaW1B),
    (".hada_w2_a", Role::HadaW2A),
    (".hada_w2_b", Role::HadaW2B),
    (".hada_t1", Role::HadaT1),
    (".hada_t2", Role::HadaT2),
    (".lokr_w1", Role::LokrW1),
    (".lokr_w1_a", Role::LokrW1A),
    (".lokr_w1_b", Role::LokrW1B),
    (".lokr_w2", Role::LokrW2),
    (".lokr_w2_a", Role::LokrW2A),
    (".lokr_w2_b", Role::LokrW2B),
    (".lokr_t2", Role::LokrT2),
    (".a1.weight", Role::GloraA1),
    (".a2.weight", Role::GloraA2),
    (".b1.weight", Role::GloraB1),
    (".b2.weight", Role::GloraB2),
    (".diff", Role::Diff),
    (".w_norm", Role::Diff),
    (".diff_b", Role::DiffBias),
    (".b_norm", Role::DiffBias),
];

/// The attention processors of diffusers before peft: `attn1.processor.to_q_lora.down.weight`.
const PROCESSOR_ENDINGS: &[(&str, Role)] = &[
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    ("_lora.alpha", Role::Alpha),
];

/// What a key may begin with.
const BEGINNINGS: &[(&str, Network)] = &[
    ("lora_unet_", Network::Unet),
    ("lora_te1_", Network::TextEncoder),
    ("lora_te2_", Network::TextEncoder2),
    ("lora_te_", Network::TextEncoder),
    ("lycoris_", Network::Unet),
    ("unet.", Network::Unet),
    ("model.diffusion_model.", Network::Unet),
    ("diffusion_model.", Network::Unet),
    ("text_encoder_2.", Network::TextEncoder2),
    ("text_encoder.", Network::TextEncoder),
    ("text_encoders.clip_l.transformer.", Network::TextEncoder),
    ("text_encoders.clip_g.transformer.", Network::TextEncoder2),
];

/// Modules that tell the network where no prefix does.
const BARE: &[(&str, Network)] = &[
    ("down_blocks.", Network::Unet),
    ("mid_block.", Network::Unet),
    ("up_blocks.", Network::Unet),
    ("conv_in.", Network::Unet),
    ("conv_out.", Network::Unet),
    ("time_embedding.", Network::Unet),
    ("add_embedding.", Network::Unet),
    ("text_model.", Network::TextEncoder),
];

/// The layer that a key speaks of, and what it says; `None` if it is in no form that is known.
pub(super) fn parse(key: &str) -> Option<(LayerName, Role)> {
    let without_adapter = without_adapter_name(key);
    let key = without_adapter.as_deref().unwrap_or(key);
    let ending = |endings: &[(&str, Role)]| {
        endings
            .iter()
            .find_map(|(ending, role)| Some((key.strip_suffix(ending)?.to_owned(), *role)))
    };
    let of_processor = || ending(PROCESSOR_ENDINGS).map(|(module, role)| (of_processor(&module), role));
    let (module, role) = ending(ENDINGS).or_else(of_processor)?;
    let module = module.strip_prefix("base_model.model.").unwrap_or(&module);
    let prefixed = BEGINNINGS
        .iter()
        .find_map(|(start, network)| Some((module.strip_prefix(start)?, *network)));
    let bare = || {
        let found = BARE.iter().find(|(start, _)| format!("{module}.").starts_with(start))?;
        Some((module, found.1))
    };
    let (path, network) = prefixed.or_else(bare)?;
    let mut layer = path.replace('.', "_");
    if network != Network::Unet {
        layer = layer.strip_prefix("text_model_").map_or(layer.clone(), str::to_owned);
    }
    Some((LayerName { network, layer }, role))
}

/// peft may write its adapter's name into the key: `lora_A.default.weight`.
fn without_adapter_name(key: &str) -> Option<String> {
    [".lora_A.", ".lora_B.", ".lora_magnitude_vector."]
        .iter()
        .find_map(|part| {
            let (module, rest) = key.split_once(part)?;
            let name = rest.strip_suffix(".weight")?;
            (!name.contains('.')).then(|| format!("{module}{part}weight"))
        })
}

/// `attn1.processor.to_out` to `attn1.to_out.0`, and in a text encoder `self_attn.to_q` to `self_attn.q_proj`.
fn of_processor(module: &str) -> String {
    let module = module.replace(".processor.", ".");
    let in_text = module.contains("self_attn.");
    let ends = [
        ("to_q", "q_proj"),
        ("to_k", "k_proj"),
        ("to_v", "v_proj"),
        ("to_out", "out_proj"),
    ];
    for (old, new) in ends {
        if let Some(start) = module.strip_suffix(old) {
            return match (in_text, old) {
                (true, _) => format!("{start}{new}"),
                (false, "to_out") => format!("{start}to_out.0"),
                (false, _) => module,
            };
        }
    }
    module
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_writers_spelling_names_the_same_layer() {
        let of = |key: &str| parse(key).map(|(layer, role)| (layer.network, layer.layer, role));
        let layer = "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q";
        for key in [
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
            "base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.default.weight",
            "base_model.model.unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
        ] {
            assert_eq!(of(key), Some((Network::Unet, layer.to_owned(), Role::Down)), "{key}");
        }
        let layer = "encoder_layers_2_self_attn_out_proj";
        for key in [
            "lora_te2_text_model_encoder_layers_2_self_attn_out_proj.lora_up.weight",
            "text_encoder_2.text_model.encoder.layers.2.self_attn.out_proj.lora_B.weight",
            "text_encoder_2.encoder.layers.2.self_attn.out_proj.lora_B.weight",
            "text_encoder_2.text_model.encoder.layers.2.self_attn.out_proj.lora_linear_layer.up.weight",
            "text_encoder_2.text_model.encoder.layers.2.self_attn.to_out_lora.up.weight",
        ] {
            assert_eq!(
                of(key),
                Some((Network::TextEncoder2, layer.to_owned(), Role::Up)),
                "{key}"
            );
        }
        let old = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora.up.weight";
        let layer = "mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0".to_owned();
        assert_eq!(of(old), Some((Network::Unet, layer, Role::Up)));
    }

    #[test]
    fn keys_of_other_models_are_strange() {
        for key in [
            "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight",
            "lora_te1_text_model_encoder_layers_0_mlp_fc1.oft_blocks",
            "clip_l",
            "model.diffusion_model.input_blocks.0.0.weight",
        ] {
            assert!(parse(key).is_none(), "{key}");
        }
    }
}
