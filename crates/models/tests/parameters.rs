//! Every parameter of the published configurations, by part, without allocating one.

use prima_checkpoint::{Error, Init, ParamSource};
use prima_models::{
    AutoencoderKl, AutoencoderKlConfig, AutoencoderTiny, AutoencoderTinyConfig, ClipTextConfig, ClipTextModel,
    Unet2dCondition, Unet2dConditionConfig,
};
use prima_tensor::{Param, Tensor};
use std::collections::BTreeMap;

/// Records keys and sizes; hands out empty tensors.
#[derive(Default)]
struct Counter {
    sizes: BTreeMap<String, usize>,
}

impl ParamSource for Counter {
    fn param(&mut self, key: &str, shape: &[usize], _init: Init) -> Result<Param, Error> {
        let twice = self.sizes.insert(key.to_owned(), shape.iter().product());
        assert!(twice.is_none(), "{key} was asked for twice");
        Ok(Param::new(Tensor::zeros(&[0])))
    }
}

impl Counter {
    fn total(&self, prefixes: &[&str]) -> usize {
        let chosen = |key: &str| prefixes.iter().any(|prefix| key.starts_with(prefix));
        self.sizes
            .iter()
            .filter(|(key, _)| chosen(key))
            .map(|(_, size)| size)
            .sum()
    }
}

const SDXL_UNET: &str = r#"{
  "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.19.0.dev0", "act_fn": "silu",
  "addition_embed_type": "text_time", "addition_embed_type_num_heads": 64, "addition_time_embed_dim": 256,
  "attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280], "center_input_sample": false,
  "class_embed_type": null, "class_embeddings_concat": false, "conv_in_kernel": 3, "conv_out_kernel": 3,
  "cross_attention_dim": 2048, "cross_attention_norm": null,
  "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], "downsample_padding": 1,
  "dual_cross_attention": false, "encoder_hid_dim": null, "encoder_hid_dim_type": null, "flip_sin_to_cos": true,
  "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "mid_block_only_cross_attention": null,
  "mid_block_scale_factor": 1, "mid_block_type": "UNetMidBlock2DCrossAttn", "norm_eps": 1e-05,
  "norm_num_groups": 32, "num_attention_heads": null, "num_class_embeds": null, "only_cross_attention": false,
  "out_channels": 4, "projection_class_embeddings_input_dim": 2816, "resnet_out_scale_factor": 1.0,
  "resnet_skip_time_act": false, "resnet_time_scale_shift": "default", "sample_size": 128,
  "time_cond_proj_dim": null, "time_embedding_act_fn": null, "time_embedding_dim": null,
  "time_embedding_type": "positional", "timestep_post_act": null, "transformer_layers_per_block": [1, 2, 10],
  "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "upcast_attention": null,
  "use_linear_projection": true
}"#;

fn count_unet(config: Unet2dConditionConfig) -> Counter {
    let mut counter = Counter::default();
    Unet2dCondition::new(config, &mut counter).unwrap();
    counter
}

#[test]
fn sdxl_unet_has_the_published_parameter_count_in_every_part() {
    let counter = count_unet(Unet2dConditionConfig::from_json(SDXL_UNET, "config.json").unwrap());
    assert_eq!(
        counter.total(&["time_embedding.", "add_embedding.", "conv_in."]),
        7_307_840
    );
    assert_eq!(counter.total(&["down_blocks.0."]), 5_432_000);
    assert_eq!(counter.total(&["down_blocks.1."]), 60_105_600);
    assert_eq!(counter.total(&["down_blocks.2."]), 757_404_160);
    assert_eq!(counter.total(&["mid_block."]), 413_117_440);
    assert_eq!(counter.total(&["up_blocks.0."]), 1_206_568_960);
    assert_eq!(counter.total(&["up_blocks.1."]), 106_343_680);
    assert_eq!(counter.total(&["up_blocks.2."]), 11_171_840);
    assert_eq!(counter.total(&["conv_norm_out.", "conv_out."]), 12_164);
    assert_eq!(counter.total(&[""]), 2_567_463_684);
}

#[test]
fn stable_diffusion_1_unet_has_859_520_964_parameters() {
    let config = r#"{"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768, "attention_head_dim": 8}"#;
    let counter = count_unet(Unet2dConditionConfig::from_json(config, "config.json").unwrap());
    assert_eq!(counter.total(&[""]), 859_520_964);
}

#[test]
fn an_lcm_unet_adds_the_guidance_projection_only() {
    let mut config = Unet2dConditionConfig::from_json(SDXL_UNET, "config.json").unwrap();
    config.time_cond_proj_dim = Some(256);
    assert_eq!(count_unet(config).total(&[""]), 2_567_463_684 + 320 * 256);
}

#[test]
fn sdxl_autoencoder_has_83_653_863_parameters() {
    let config = AutoencoderKlConfig {
        block_out_channels: vec![128, 256, 512, 512],
        down_block_types: vec!["DownEncoderBlock2D".into(); 4],
        up_block_types: vec!["UpDecoderBlock2D".into(); 4],
        layers_per_block: 2,
        ..Default::default()
    };
    let mut counter = Counter::default();
    AutoencoderKl::new(config, &mut counter).unwrap();
    assert_eq!(counter.total(&[""]), 83_653_863);
}

#[test]
fn taesd_has_2_445_063_parameters() {
    let mut counter = Counter::default();
    AutoencoderTiny::new(AutoencoderTinyConfig::default(), &mut counter).unwrap();
    assert_eq!(counter.total(&[""]), 2_445_063);
}

#[test]
fn sdxl_text_encoders_have_their_published_parameter_counts() {
    let clip_l = ClipTextConfig {
        architectures: Some(vec!["CLIPTextModel".into()]),
        hidden_size: 768,
        intermediate_size: 3072,
        num_attention_heads: 12,
        ..Default::default()
    };
    let mut counter = Counter::default();
    ClipTextModel::new(clip_l, &mut counter).unwrap();
    assert_eq!(counter.total(&[""]), 123_060_480);

    let big_g = ClipTextConfig {
        architectures: Some(vec!["CLIPTextModelWithProjection".into()]),
        hidden_size: 1280,
        intermediate_size: 5120,
        num_attention_heads: 20,
        num_hidden_layers: 32,
        projection_dim: 1280,
        hidden_act: "gelu".into(),
        ..Default::default()
    };
    let mut counter = Counter::default();
    ClipTextModel::new(big_g, &mut counter).unwrap();
    assert_eq!(counter.total(&[""]), 694_659_840);
}

fn unet_error(json: &str) -> String {
    match Unet2dConditionConfig::from_json(json, "unet/config.json") {
        Err(error) => error.to_string(),
        Ok(config) => Unet2dCondition::new(config, &mut Counter::default())
            .err()
            .unwrap()
            .to_string(),
    }
}

#[test]
fn a_field_that_is_not_supported_is_refused_by_name() {
    let error = unet_error(r#"{"class_embed_type": "timestep"}"#);
    assert_eq!(
        error,
        r#"unet/config.json: class_embed_type = "timestep" is not supported, only null"#
    );
    let error = unet_error(r#"{"resnet_time_scale_shift": "scale_shift"}"#);
    assert!(error.contains("resnet_time_scale_shift"), "{error}");
    let error = unet_error(r#"{"a_field_of_the_future": 3}"#);
    assert!(error.contains("unknown field a_field_of_the_future = 3"), "{error}");
    let error = unet_error(r#"{"_class_name": "UNet3DConditionModel"}"#);
    assert!(error.contains("UNet3DConditionModel"), "{error}");
    let error = unet_error(r#"{"down_block_types": ["AttnDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"]}"#);
    assert!(error.contains("AttnDownBlock2D"), "{error}");
}

#[test]
fn fields_that_do_not_fit_each_other_are_refused_by_name() {
    let error = unet_error(r#"{"block_out_channels": [32, 64]}"#);
    assert!(error.contains("down_block_types has 4 entries"), "{error}");
    let error = unet_error(r#"{"attention_head_dim": [5, 10]}"#);
    assert!(error.contains("attention_head_dim has 2 entries"), "{error}");
    let error = unet_error(r#"{"norm_num_groups": 48}"#);
    assert!(error.contains("norm_num_groups = 48"), "{error}");
    let error = unet_error(r#"{"transformer_layers_per_block": [1, 1, [1, 2], 1]}"#);
    assert!(error.contains("reverse_transformer_layers_per_block"), "{error}");
    let error = unet_error(r#"{"addition_embed_type": "text_time"}"#);
    assert!(error.contains("projection_class_embeddings_input_dim"), "{error}");
}

#[test]
fn configs_survive_being_written_and_read_back() {
    let unet = Unet2dConditionConfig::from_json(SDXL_UNET, "config.json").unwrap();
    let written = unet.to_json().to_string();
    assert!(
        written.starts_with(r#"{"_class_name":"UNet2DConditionModel""#),
        "{written}"
    );
    assert_eq!(Unet2dConditionConfig::from_json(&written, "config.json").unwrap(), unet);
    let vae = AutoencoderKlConfig {
        scaling_factor: 0.13025,
        ..Default::default()
    };
    let written = vae.to_json().to_string();
    assert!(written.contains(r#""scaling_factor":0.13025,"#), "{written}");
    assert_eq!(AutoencoderKlConfig::from_json(&written, "config.json").unwrap(), vae);
    let clip = ClipTextConfig::default();
    assert_eq!(
        ClipTextConfig::from_json(&clip.to_json().to_string(), "config.json").unwrap(),
        clip
    );
}
