//! Numbers of configs that no model can have: each is refused by file, field, value and what is allowed.

use prima_models::{
    AutoencoderKlConfig, AutoencoderTinyConfig, ClipTextConfig, Tokenizer, TokenizerFiles, Unet2dConditionConfig,
};

/// The field refused in each of these configs is the first one that it sets.
fn check(configs: &[&str], read: impl Fn(&str) -> Result<(), prima_checkpoint::Error>) {
    for config in configs {
        let field = config.split('"').nth(1).unwrap();
        let error = read(config).expect_err(config).to_string();
        assert!(error.starts_with("m/config.json: "), "{error}");
        assert!(
            error.contains(field) && error.contains("it must be"),
            "{config}: {error}"
        );
    }
    read("{}").unwrap();
}

#[test]
fn a_unets_numbers_are_bounded() {
    let configs = [
        r#"{"norm_eps": -1e308}"#,
        r#"{"norm_eps": 0}"#,
        r#"{"norm_eps": 1e-300}"#,
        r#"{"norm_eps": 2}"#,
        r#"{"in_channels": 0}"#,
        r#"{"out_channels": 4294967296}"#,
        r#"{"block_out_channels": []}"#,
        r#"{"block_out_channels": [320, 0]}"#,
        r#"{"block_out_channels": [18446744073709551615]}"#,
        r#"{"layers_per_block": 1000000000}"#,
        r#"{"layers_per_block": [2, 0]}"#,
        r#"{"transformer_layers_per_block": [1, [2, 1000000]]}"#,
        r#"{"reverse_transformer_layers_per_block": [100000]}"#,
        r#"{"attention_head_dim": 0}"#,
        r#"{"cross_attention_dim": 0}"#,
        r#"{"norm_num_groups": 0}"#,
        r#"{"sample_size": 1e18}"#.replace("1e18", "1000000000000000000").leak(),
        r#"{"time_cond_proj_dim": 0}"#,
        r#"{"addition_time_embed_dim": 9999999999}"#,
        r#"{"freq_shift": 160}"#,
        r#"{"conv_in_kernel": 1001}"#,
        r#"{"downsample_padding": 1000}"#,
    ];
    check(&configs, |json| {
        Unet2dConditionConfig::from_json(json, "m/config.json").map(|_| ())
    });
}

#[test]
fn a_text_encoders_numbers_are_bounded() {
    let configs = [
        r#"{"layer_norm_eps": -1e308}"#,
        r#"{"layer_norm_eps": 0.0}"#,
        r#"{"vocab_size": 0}"#,
        r#"{"vocab_size": 1000000000000}"#,
        r#"{"hidden_size": 0}"#,
        r#"{"num_attention_heads": 0}"#,
        r#"{"num_hidden_layers": 0}"#,
        r#"{"num_hidden_layers": 1099511627776}"#,
        r#"{"max_position_embeddings": 1}"#,
        r#"{"max_position_embeddings": 100000000}"#,
        r#"{"intermediate_size": 0}"#,
        r#"{"projection_dim": 0}"#,
    ];
    check(&configs, |json| {
        ClipTextConfig::from_json(json, "m/config.json").map(|_| ())
    });
}

#[test]
fn an_autoencoders_numbers_are_bounded() {
    let configs = [
        r#"{"scaling_factor": 0}"#,
        r#"{"scaling_factor": -0.18215}"#,
        r#"{"scaling_factor": 1e-320}"#,
        r#"{"scaling_factor": 1e300}"#,
        r#"{"latent_channels": 0}"#,
        r#"{"layers_per_block": 0}"#,
        r#"{"block_out_channels": []}"#,
        r#"{"shift_factor": 1e300}"#,
        r#"{"latents_std": [1, 0, 1, 1]}"#,
        r#"{"latents_mean": [1e30, 0, 0, 0]}"#,
        r#"{"norm_num_groups": 0}"#,
    ];
    check(&configs, |json| {
        AutoencoderKlConfig::from_json(json, "m/config.json").map(|_| ())
    });
    let many = format!(r#"{{"block_out_channels": {:?}}}"#, vec![32; 64]);
    let error = AutoencoderKlConfig::from_json(&many, "m").unwrap_err().to_string();
    assert_eq!(
        error,
        "m: number of block_out_channels = 64 is not possible, it must be at least 1 and at most 16"
    );
    let configs = [
        r#"{"scaling_factor": -1}"#,
        r#"{"latent_magnitude": 0}"#,
        r#"{"latent_shift": 1e200}"#,
        r#"{"num_encoder_blocks": [1000000]}"#,
        r#"{"decoder_block_out_channels": []}"#,
    ];
    check(&configs, |json| {
        AutoencoderTinyConfig::from_json(json, "m/config.json").map(|_| ())
    });
}

/// A tokenizer.json with this normalizer.
fn tokenizer(normalizer: &str) -> Result<Tokenizer, prima_checkpoint::Error> {
    let json = format!(
        r#"{{"version": "1.0", "added_tokens": [], "normalizer": {normalizer}, "pre_tokenizer": {{"type": "Sequence",
        "pretokenizers": [
            {{"type": "Split", "pattern": {{"Regex": "[\\p{{L}}]+|[\\p{{N}}]"}}, "behavior": "Removed", "invert": true}},
            {{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}}]}},
        "model": {{"type": "BPE", "unk_token": "<|endoftext|>", "vocab": {{"<|startoftext|>": 0, "<|endoftext|>": 1}}, "merges": []}}}}"#
    );
    let files = TokenizerFiles {
        tokenizer_json: Some(json.into_bytes()),
        ..TokenizerFiles::default()
    };
    Tokenizer::new("tokenizer of m", &files, 77)
}

#[test]
fn a_tokenizer_on_which_its_library_panics_is_an_error_of_its_file() {
    tokenizer("null").unwrap();
    let replace = |pattern: &str, content: &str| {
        format!(r#"{{"type": "Replace", "pattern": {{"String": "{pattern}"}}, "content": "{content}"}}"#)
    };
    let error = tokenizer(&replace("", &"x".repeat(1000))).err().unwrap().to_string();
    assert!(
        error.starts_with("tokenizer of m: the tokenizer cannot be built: its library panics on it"),
        "{error}"
    );
    // Others of the kind: refused or not, and no panic.
    for normalizer in [replace("", "é"), replace("", ""), replace("a", "")] {
        let _ = tokenizer(&normalizer);
    }
}

#[test]
fn a_tokenizer_file_of_40_mb_is_refused_before_it_is_parsed() {
    let files = TokenizerFiles {
        tokenizer_json: Some(vec![b' '; 40 << 20]),
        ..TokenizerFiles::default()
    };
    let error = Tokenizer::new("tokenizer of m", &files, 77).err().unwrap().to_string();
    assert!(
        error.starts_with("tokenizer.json of tokenizer of m: length in bytes = 41943040"),
        "{error}"
    );
}
