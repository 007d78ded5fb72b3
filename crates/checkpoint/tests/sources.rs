//! The three kinds of model source give the same answers, and refuse what they must.

use prima_checkpoint::{
    Error, FileKind, Init, ModelSource, ParamSource, Reader, TensorFile, export, info, what_is_it, write_safetensors,
};
use prima_tensor::{DType, Param, Tensor};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Keys and shapes.
type Keys<'a> = &'a [(&'a str, &'a [usize])];

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens")
}

/// A parameter whose values differ by key and by position.
fn param(key: &str, shape: &[usize]) -> (String, Param) {
    let len: usize = shape.iter().product();
    let offset = key.bytes().map(usize::from).sum::<usize>();
    let data = (0..len).map(|i| (i * 7 + offset) as f32).collect();
    (key.to_owned(), Param::new(Tensor::from_vec(data, shape)))
}

fn write(path: &Path, tensors: &[(&str, &[usize])]) {
    let params: Vec<_> = tensors.iter().map(|(key, shape)| param(key, shape)).collect();
    write_safetensors(path, &params, DType::F32).unwrap();
}

fn read(reader: &mut Reader, key: &str) -> Vec<f32> {
    let shape = reader.shape(key).unwrap_or_else(|| panic!("{key} is not there"));
    reader.param(key, &shape, Init::Zeros).unwrap().tensor().data().to_vec()
}

/// Every tensor of a reader, which must then be finished.
fn all(mut reader: Reader) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let keys: Vec<String> = reader
        .keys()
        .filter(|k| !k.contains("position_ids"))
        .map(str::to_owned)
        .collect();
    let tensors = keys.into_iter().map(|key| {
        let shape = reader.shape(&key).unwrap();
        let data = read(&mut reader, &key);
        (key, (shape, data))
    });
    let tensors = tensors.collect();
    reader.finish().unwrap();
    tensors
}

fn tiny_folder(root: &Path) {
    let config = json!({"_class_name": "UNet2DConditionModel", "addition_embed_type": "text_time"});
    fs::create_dir_all(root.join("scheduler")).unwrap();
    fs::write(
        root.join("model_index.json"),
        r#"{"_class_name": "StableDiffusionXLPipeline"}"#,
    )
    .unwrap();
    let scheduler = r#"{"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}"#;
    fs::write(root.join("scheduler/scheduler_config.json"), scheduler).unwrap();
    let params = [param("conv_in.weight", &[2, 3]), param("conv_in.bias", &[2])];
    export(
        &root.join("unet"),
        "diffusion_pytorch_model.safetensors",
        &config,
        &params,
        DType::F16,
    )
    .unwrap();
}

#[test]
fn a_folder_answers_with_jsons_bytes_and_readers() {
    let dir = tempfile::tempdir().unwrap();
    tiny_folder(dir.path());
    let source = ModelSource::open(dir.path()).unwrap();
    assert_eq!(
        source.json("", "model_index.json").unwrap()["_class_name"],
        "StableDiffusionXLPipeline"
    );
    assert!(source.exists("unet/config.json") && !source.exists("vae/config.json"));
    let mut reader = source.component_reader("unet").unwrap();
    assert_eq!(read(&mut reader, "conv_in.bias").len(), 2);
    let error = source.json("vae", "config.json").unwrap_err();
    assert!(
        matches!(&error, Error::NoFile { path, .. } if path == "vae/config.json"),
        "{error}"
    );
    assert!(matches!(source.component_reader("vae"), Err(Error::NoFile { .. })));
    fs::write(dir.path().join("unet/config.json"), "{").unwrap();
    let error = source.json("unet", "config.json").unwrap_err().to_string();
    assert!(error.starts_with("unet/config.json in "), "{error}");
}

#[test]
fn an_embedded_model_answers_like_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    tiny_folder(dir.path());
    let folder = ModelSource::open(dir.path()).unwrap();
    let paths = [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ];
    let files: Vec<(&'static str, &'static [u8])> = paths
        .iter()
        .map(|&path| (path, &*folder.read_bytes(path).unwrap().leak()))
        .collect();
    let embedded = ModelSource::embedded("prima-mini", files.leak());
    assert_eq!(
        embedded.json("unet", "config.json").unwrap(),
        folder.json("unet", "config.json").unwrap()
    );
    assert_eq!(
        all(embedded.component_reader("unet").unwrap()),
        all(folder.component_reader("unet").unwrap())
    );
    let error = embedded.component_reader("vae").err().unwrap().to_string();
    assert_eq!(error, "prima-mini (embedded) has no vae/*.safetensors");
    assert!(!embedded.exists("vae/config.json"));
}

#[test]
fn variants_and_shards_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let open = || ModelSource::Folder(dir.path().to_path_buf()).component_reader("unet");
    let unet = dir.path().join("unet");
    fs::create_dir_all(&unet).unwrap();

    fs::write(unet.join("diffusion_pytorch_model.bin"), "pickle").unwrap();
    let error = open().err().unwrap().to_string();
    assert!(error.contains("only .safetensors files and .gguf are read"), "{error}");

    write(
        &unet.join("diffusion_pytorch_model.fp16.safetensors"),
        &[("half", &[1])],
    );
    assert!(open().unwrap().contains("half"));

    write(&unet.join("part-1.safetensors"), &[("a.weight", &[2, 2])]);
    write(&unet.join("part-2.safetensors"), &[("b.weight", &[3])]);
    let index = unet.join("diffusion_pytorch_model.safetensors.index.json");
    let list = |b: &str| json!({"weight_map": {"a.weight": "part-1.safetensors", "b.weight": b}}).to_string();
    fs::write(&index, list("part-2.safetensors")).unwrap();
    assert_eq!(all(open().unwrap()).len(), 2);
    fs::write(&index, list("../part-2.safetensors")).unwrap();
    assert!(
        open()
            .err()
            .unwrap()
            .to_string()
            .contains("outside of the model's folder")
    );
    fs::write(&index, list("part-1.safetensors")).unwrap();
    assert!(
        open()
            .err()
            .unwrap()
            .to_string()
            .contains("lists `b.weight`, which is in none of its shards")
    );
    fs::write(&index, "{}").unwrap();
    assert!(open().err().unwrap().to_string().contains("weight_map"));

    write(&unet.join("diffusion_pytorch_model.safetensors"), &[("full", &[1])]);
    assert!(
        open().unwrap().contains("full"),
        "the whole file in full precision comes first"
    );
}

#[test]
fn what_is_not_a_model_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let error = ModelSource::open("nobody/no-such-model-anywhere").unwrap_err();
    assert!(
        matches!(&error, Error::NoModel { name, fix } if fix.contains("prima models pull nobody/no-such-model-anywhere") && name == "nobody/no-such-model-anywhere")
    );
    assert!(
        matches!(ModelSource::open(dir.path()), Err(Error::NoModel { .. })),
        "a folder without model_index.json"
    );
    let pickle = dir.path().join("model.ckpt");
    fs::write(&pickle, "x").unwrap();
    assert!(
        ModelSource::open(&pickle)
            .unwrap_err()
            .to_string()
            .contains("convert it")
    );
}

#[test]
fn files_are_told_apart_by_their_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let unet = ("model.diffusion_model.input_blocks.0.0.weight", &[8, 4, 3, 3][..]);
    let big_g = (
        "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias",
        &[8][..],
    );
    let cases: [(FileKind, Keys); 9] = [
        (FileKind::Sdxl, &[unet, big_g]),
        (
            FileKind::Refiner,
            &[
                unet,
                (
                    "conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias",
                    &[8],
                ),
            ],
        ),
        (
            FileKind::Inpaint,
            &[("model.diffusion_model.input_blocks.0.0.weight", &[8, 9, 3, 3]), big_g],
        ),
        (
            FileKind::StableDiffusion1,
            &[unet, ("cond_stage_model.transformer.text_model.x", &[1])],
        ),
        (
            FileKind::StableDiffusion2,
            &[unet, ("cond_stage_model.model.ln_final.weight", &[1])],
        ),
        (
            FileKind::Unet,
            &[
                ("down_blocks.0.resnets.0.norm1.bias", &[8]),
                ("time_embedding.linear_1.bias", &[8]),
            ],
        ),
        (
            FileKind::Lora,
            &[("lora_unet_input_blocks_4_1_proj_in.lora_down.weight", &[4, 8])],
        ),
        (
            FileKind::ControlNet,
            &[("control_model.input_hint_block.0.weight", &[16, 3, 3, 3])],
        ),
        (FileKind::Unknown, &[("weight", &[1])]),
    ];
    for (kind, tensors) in cases {
        write(&path, tensors);
        assert_eq!(what_is_it(&TensorFile::open(&path).unwrap()), kind);
        let opened = ModelSource::open(&path).unwrap().component_reader("unet");
        match kind {
            FileKind::ControlNet | FileKind::Lora | FileKind::Unknown => {
                assert!(matches!(opened, Err(Error::Unsupported { .. })), "{kind:?}");
            }
            _ => assert!(opened.is_ok(), "{kind:?}"),
        }
    }
}

/// A one-file SDXL of two UNet levels, the second with attention of depth 2.
const UNET: Keys = &[
    ("time_embed.0.weight", &[128, 32]),
    ("time_embed.2.bias", &[128]),
    ("label_emb.0.0.weight", &[128, 1664]),
    ("label_emb.0.2.bias", &[128]),
    ("input_blocks.0.0.weight", &[32, 4, 3, 3]),
    ("input_blocks.1.0.in_layers.0.weight", &[32]),
    ("input_blocks.1.0.in_layers.2.weight", &[32, 32, 3, 3]),
    ("input_blocks.1.0.emb_layers.1.weight", &[32, 128]),
    ("input_blocks.2.0.op.weight", &[32, 32, 3, 3]),
    ("input_blocks.3.0.in_layers.2.weight", &[64, 32, 3, 3]),
    ("input_blocks.3.0.skip_connection.weight", &[64, 32, 1, 1]),
    ("input_blocks.3.1.proj_in.weight", &[64, 64]),
    ("input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight", &[64, 192]),
    ("input_blocks.3.1.transformer_blocks.1.attn2.to_k.weight", &[64, 192]),
    ("middle_block.0.out_layers.0.weight", &[64]),
    ("middle_block.1.proj_in.weight", &[64, 64]),
    ("middle_block.2.out_layers.3.weight", &[64, 64, 3, 3]),
    ("output_blocks.0.0.in_layers.0.weight", &[128]),
    ("output_blocks.0.1.transformer_blocks.0.attn2.to_k.weight", &[64, 192]),
    ("output_blocks.0.1.transformer_blocks.1.attn2.to_k.weight", &[64, 192]),
    ("output_blocks.1.0.in_layers.0.weight", &[96]),
    ("output_blocks.1.1.norm.weight", &[64]),
    ("output_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", &[64, 192]),
    ("output_blocks.1.1.transformer_blocks.1.attn2.to_k.weight", &[64, 192]),
    ("output_blocks.1.2.conv.weight", &[64, 64, 3, 3]),
    ("output_blocks.2.0.in_layers.0.weight", &[96]),
    ("output_blocks.3.0.in_layers.0.weight", &[64]),
    ("out.0.weight", &[32]),
    ("out.2.weight", &[4, 32, 3, 3]),
];
const VAE: Keys = &[
    ("encoder.conv_in.weight", &[32, 3, 3, 3]),
    ("encoder.down.0.block.0.conv1.weight", &[32, 32, 3, 3]),
    ("encoder.down.0.downsample.conv.weight", &[32, 32, 3, 3]),
    ("encoder.down.1.block.0.conv1.weight", &[64, 32, 3, 3]),
    ("encoder.down.1.block.0.nin_shortcut.weight", &[64, 32, 1, 1]),
    ("encoder.mid.block_1.norm1.weight", &[64]),
    ("encoder.mid.attn_1.norm.weight", &[64]),
    ("encoder.mid.attn_1.q.weight", &[64, 64, 1, 1]),
    ("encoder.mid.attn_1.proj_out.bias", &[64]),
    ("encoder.norm_out.weight", &[64]),
    ("decoder.conv_in.weight", &[64, 4, 3, 3]),
    ("decoder.conv_out.weight", &[3, 32, 3, 3]),
    ("decoder.up.0.block.0.conv1.weight", &[32, 64, 3, 3]),
    ("decoder.up.1.block.1.conv2.weight", &[64, 64, 3, 3]),
    ("decoder.up.1.upsample.conv.weight", &[64, 64, 3, 3]),
    ("quant_conv.weight", &[8, 8, 1, 1]),
];
const CLIP_L: Keys = &[
    ("text_model.embeddings.token_embedding.weight", &[50, 64]),
    ("text_model.embeddings.position_embedding.weight", &[77, 64]),
    ("text_model.embeddings.position_ids", &[1, 77]),
    ("text_model.encoder.layers.0.mlp.fc1.weight", &[256, 64]),
];
const BIG_G: Keys = &[
    ("token_embedding.weight", &[50, 128]),
    ("positional_embedding", &[77, 128]),
    ("transformer.resblocks.0.attn.in_proj_weight", &[384, 128]),
    ("transformer.resblocks.0.attn.in_proj_bias", &[384]),
    ("transformer.resblocks.0.attn.out_proj.bias", &[128]),
    ("transformer.resblocks.0.ln_1.weight", &[128]),
    ("transformer.resblocks.0.ln_2.weight", &[128]),
    ("transformer.resblocks.0.mlp.c_fc.weight", &[512, 128]),
    ("transformer.resblocks.0.mlp.c_proj.weight", &[128, 512]),
    ("ln_final.bias", &[128]),
    ("text_projection", &[128, 96]),
    ("logit_scale", &[]),
];

fn single_file(path: &Path, extra: &[(&str, &[usize])]) -> ModelSource {
    let parts = [
        ("model.diffusion_model.", UNET),
        ("first_stage_model.", VAE),
        ("conditioner.embedders.0.transformer.", CLIP_L),
        ("conditioner.embedders.1.model.", BIG_G),
        ("", extra),
    ];
    let keys = parts
        .iter()
        .flat_map(|(prefix, part)| part.iter().map(move |(k, s)| (format!("{prefix}{k}"), *s)));
    let params: Vec<_> = keys.map(|(key, shape)| param(&key, shape)).collect();
    write_safetensors(path, &params, DType::F32).unwrap();
    ModelSource::open(path).unwrap()
}

const UNET_OF_DIFFUSERS: &[&str] = &[
    "time_embedding.linear_1.weight",
    "time_embedding.linear_2.bias",
    "add_embedding.linear_1.weight",
    "add_embedding.linear_2.bias",
    "conv_in.weight",
    "down_blocks.0.resnets.0.norm1.weight",
    "down_blocks.0.resnets.0.conv1.weight",
    "down_blocks.0.resnets.0.time_emb_proj.weight",
    "down_blocks.0.downsamplers.0.conv.weight",
    "down_blocks.1.resnets.0.conv1.weight",
    "down_blocks.1.resnets.0.conv_shortcut.weight",
    "down_blocks.1.attentions.0.proj_in.weight",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k.weight",
    "mid_block.resnets.0.norm2.weight",
    "mid_block.attentions.0.proj_in.weight",
    "mid_block.resnets.1.conv2.weight",
    "up_blocks.0.resnets.0.norm1.weight",
    "up_blocks.0.resnets.1.norm1.weight",
    "up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    "up_blocks.0.attentions.0.transformer_blocks.1.attn2.to_k.weight",
    "up_blocks.0.attentions.1.norm.weight",
    "up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight",
    "up_blocks.0.attentions.1.transformer_blocks.1.attn2.to_k.weight",
    "up_blocks.0.upsamplers.0.conv.weight",
    "up_blocks.1.resnets.0.norm1.weight",
    "up_blocks.1.resnets.1.norm1.weight",
    "conv_norm_out.weight",
    "conv_out.weight",
];

const VAE_OF_DIFFUSERS: &[&str] = &[
    "encoder.conv_in.weight",
    "encoder.down_blocks.0.resnets.0.conv1.weight",
    "encoder.down_blocks.0.downsamplers.0.conv.weight",
    "encoder.down_blocks.1.resnets.0.conv1.weight",
    "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
    "encoder.mid_block.resnets.0.norm1.weight",
    "encoder.mid_block.attentions.0.group_norm.weight",
    "encoder.mid_block.attentions.0.to_q.weight",
    "encoder.mid_block.attentions.0.to_out.0.bias",
    "encoder.conv_norm_out.weight",
    "decoder.conv_in.weight",
    "decoder.conv_out.weight",
    "decoder.up_blocks.1.resnets.0.conv1.weight",
    "decoder.up_blocks.0.resnets.1.conv2.weight",
    "decoder.up_blocks.0.upsamplers.0.conv.weight",
    "quant_conv.weight",
];

#[test]
fn a_single_files_keys_become_those_of_diffusers() {
    let dir = tempfile::tempdir().unwrap();
    let source = single_file(&dir.path().join("sdxl.safetensors"), &[]);
    let keys = |component: &str| -> Vec<String> {
        source
            .component_reader(component)
            .unwrap()
            .keys()
            .map(str::to_owned)
            .collect()
    };
    let expect = |component: &str, mut expected: Vec<&str>| {
        expected.sort_unstable();
        assert_eq!(keys(component), expected, "{component}");
    };
    expect("unet", UNET_OF_DIFFUSERS.to_vec());
    expect("vae", VAE_OF_DIFFUSERS.to_vec());
    let layer = "text_model.encoder.layers.0";
    let mut big_g: Vec<String> = ["q", "k", "v"]
        .iter()
        .flat_map(|n| ["weight", "bias"].map(|kind| format!("{layer}.self_attn.{n}_proj.{kind}")))
        .collect();
    big_g.extend(
        [
            "self_attn.out_proj.bias",
            "layer_norm1.weight",
            "layer_norm2.weight",
            "mlp.fc1.weight",
            "mlp.fc2.weight",
        ]
        .map(|leaf| format!("{layer}.{leaf}")),
    );
    big_g.extend(
        [
            "text_model.embeddings.token_embedding.weight",
            "text_model.embeddings.position_embedding.weight",
            "text_model.final_layer_norm.bias",
            "text_projection.weight",
            "logit_scale",
        ]
        .map(str::to_owned),
    );
    expect("text_encoder_2", big_g.iter().map(String::as_str).collect());
}

#[test]
fn in_proj_is_cut_into_q_k_v_and_the_projection_is_turned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sdxl.safetensors");
    let source = single_file(&path, &[]);
    let file = TensorFile::open(&path).unwrap();
    let prefix = "conditioner.embedders.1.model";
    let mut reader = source.component_reader("text_encoder_2").unwrap();
    for kind in ["weight", "bias"] {
        let rows = file
            .read(&format!("{prefix}.transformer.resblocks.0.attn.in_proj_{kind}"))
            .unwrap();
        let parts: Vec<f32> = ["q", "k", "v"]
            .iter()
            .flat_map(|n| {
                read(
                    &mut reader,
                    &format!("text_model.encoder.layers.0.self_attn.{n}_proj.{kind}"),
                )
            })
            .collect();
        assert_eq!(parts, rows.data());
    }
    let stored = file.read(&format!("{prefix}.text_projection")).unwrap();
    let turned = reader
        .param("text_projection.weight", &[96, 128], Init::Zeros)
        .unwrap()
        .tensor();
    for (row, column) in [(0, 0), (1, 0), (0, 1), (95, 127), (17, 90)] {
        assert_eq!(turned.data()[row * 128 + column], stored.data()[column * 96 + row]);
    }
    // Everything else is reported, the similarity scale excepted.
    assert!(matches!(reader.finish(), Err(Error::Unread { count: 8, .. })));
}

#[test]
fn configs_follow_from_the_shapes_of_a_single_file() {
    let dir = tempfile::tempdir().unwrap();
    let source = single_file(&dir.path().join("sdxl.safetensors"), &[]);
    let has = |component: &str, file: &str, expected: Value| {
        let config = source.json(component, file).unwrap();
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&config[field], value, "{component}: {field}");
        }
    };
    has(
        "unet",
        "config.json",
        json!({
            "_class_name": "UNet2DConditionModel", "in_channels": 4, "out_channels": 4,
            "block_out_channels": [32, 64], "layers_per_block": 1,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "mid_block_type": "UNetMidBlock2DCrossAttn",
            "transformer_layers_per_block": [1, 2], "reverse_transformer_layers_per_block": null, "attention_head_dim": [1, 1], "cross_attention_dim": 192,
            "projection_class_embeddings_input_dim": 1664, "time_cond_proj_dim": null, "use_linear_projection": true,
        }),
    );
    has(
        "vae",
        "config.json",
        json!({"block_out_channels": [32, 64], "layers_per_block": 1, "latent_channels": 4, "scaling_factor": 0.13025}),
    );
    has(
        "text_encoder",
        "config.json",
        json!({"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 256, "vocab_size": 50,
               "num_hidden_layers": 1, "max_position_embeddings": 77, "hidden_act": "quick_gelu"}),
    );
    has(
        "text_encoder_2",
        "config.json",
        json!({"hidden_size": 128, "num_attention_heads": 2, "projection_dim": 96, "hidden_act": "gelu",
               "architectures": ["CLIPTextModelWithProjection"]}),
    );
    has(
        "scheduler",
        "scheduler_config.json",
        json!({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "prediction_type": "epsilon"}),
    );
    assert!(source.exists("unet/config.json") && source.exists("model_index.json"));
    assert!(!source.exists("unet/nothing.json"));
}

#[test]
fn markers_in_a_single_file_change_its_scheduler() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sdxl.safetensors");
    let v = single_file(&path, &[("v_pred", &[]), ("ztsnr", &[])]);
    let config = v.json("scheduler", "scheduler_config.json").unwrap();
    assert_eq!(
        (
            config["prediction_type"].as_str(),
            config["rescale_betas_zero_snr"].as_bool()
        ),
        (Some("v_prediction"), Some(true))
    );
    let lcm = single_file(
        &path,
        &[("model.diffusion_model.time_embedding.cond_proj.weight", &[32, 256])],
    );
    assert_eq!(
        lcm.json("scheduler", "scheduler_config.json").unwrap()["_class_name"],
        "LCMScheduler"
    );
    assert_eq!(lcm.json("unet", "config.json").unwrap()["time_cond_proj_dim"], 256);
    assert_eq!(info(&path).unwrap().preset, "lcm-sdxl");
    let cosxl = single_file(&path, &[("edm_vpred.sigma_max", &[]), ("edm_vpred.sigma_min", &[])]);
    let config = cosxl.json("scheduler", "scheduler_config.json").unwrap();
    assert_eq!(config["_class_name"], "EDMEulerScheduler");
    assert_eq!(
        (&config["prediction_type"], &config["sigma_data"]),
        (&json!("v_prediction"), &json!(1.0))
    );
    let playground = single_file(&path, &[("edm_mean", &[4]), ("edm_std", &[4])]);
    let config = playground.json("scheduler", "scheduler_config.json").unwrap();
    assert_eq!(config["_class_name"], "EDMDPMSolverMultistepScheduler");
    let vae = playground.json("vae", "config.json").unwrap();
    assert_eq!(vae["latents_mean"].as_array().unwrap().len(), 4);
    assert_eq!(vae["scaling_factor"], 0.5);
}

#[test]
fn a_file_with_nothing_beside_it_reads_prompts_by_clips_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    let source = single_file(&dir.path().join("sdxl.safetensors"), &[]);
    let vocabulary = |folder: &str| {
        let bytes = source.read_bytes(&format!("{folder}/vocab.json")).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    assert_eq!(vocabulary("tokenizer")["<|endoftext|>"], 49407);
    assert_eq!(vocabulary("tokenizer"), vocabulary("tokenizer_2"));
    let pad = |folder: &str| {
        let bytes = source.read_bytes(&format!("{folder}/special_tokens_map.json")).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()["pad_token"].clone()
    };
    assert_eq!(
        (pad("tokenizer"), pad("tokenizer_2")),
        (json!("<|endoftext|>"), json!("!"))
    );
    // A folder beside the file is whole or not there.
    fs::create_dir_all(dir.path().join("config/tokenizer")).unwrap();
    assert!(!source.exists("tokenizer/vocab.json") && source.exists("tokenizer_2/vocab.json"));
}

#[test]
fn stable_diffusion_2_predicts_v_unless_a_file_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sd2.safetensors");
    let tensors = [
        "model.diffusion_model.middle_block.0.in_layers.0.weight",
        "cond_stage_model.model.ln_final.weight",
    ];
    let told = |metadata: &[(&str, &str)]| {
        let data = 1.0_f32.to_le_bytes();
        let view = || TensorView::new(Dtype::F32, vec![1], &data).unwrap();
        let metadata = metadata.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        safetensors::serialize_to_file(tensors.map(|key| (key, view())), Some(metadata), &path).unwrap();
        let source = ModelSource::open(&path).unwrap();
        let config = source.json("scheduler", "scheduler_config.json").unwrap();
        config["prediction_type"].as_str().unwrap().to_owned()
    };
    assert_eq!(told(&[]), "v_prediction");
    assert_eq!(told(&[("modelspec.prediction_type", "epsilon")]), "epsilon");
    assert_eq!(
        told(&[("modelspec.architecture", "stable-diffusion-v2-512")]),
        "epsilon"
    );
    assert_eq!(
        told(&[("modelspec.architecture", "stable-diffusion-v2-768-v")]),
        "v_prediction"
    );
}

#[test]
fn a_text_encoder_of_an_old_merge_may_lack_its_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sd1.safetensors");
    let clip = CLIP_L.iter().map(|(key, shape)| {
        let bare = key.trim_start_matches("text_model.");
        (format!("cond_stage_model.transformer.{bare}"), *shape)
    });
    let unet = ("model.diffusion_model.out.0.weight".to_owned(), &[32][..]);
    let params: Vec<_> = clip.chain([unet]).map(|(key, shape)| param(&key, shape)).collect();
    write_safetensors(&path, &params, DType::F32).unwrap();
    let source = ModelSource::open(&path).unwrap();
    let config = source.json("text_encoder", "config.json").unwrap();
    assert_eq!(
        (&config["hidden_size"], &config["num_hidden_layers"]),
        (&json!(64), &json!(1))
    );
    let mut reader = source.component_reader("text_encoder").unwrap();
    for (key, shape) in CLIP_L.iter().filter(|(key, _)| !key.contains("position_ids")) {
        reader.param(key, shape, Init::Zeros).unwrap();
    }
    reader.finish().unwrap();
}

#[test]
fn what_a_text_encoder_has_beyond_its_family_is_not_missed() {
    let dir = tempfile::tempdir().unwrap();
    let key = "conditioner.embedders.0.transformer.text_projection.weight";
    let source = single_file(&dir.path().join("sdxl.safetensors"), &[(key, &[64, 64])]);
    let mut reader = source.component_reader("text_encoder").unwrap();
    for (key, shape) in CLIP_L.iter().filter(|(key, _)| !key.contains("position_ids")) {
        reader.param(key, shape, Init::Zeros).unwrap();
    }
    reader.finish().unwrap();
}

#[test]
fn an_unknown_tensor_of_a_single_file_is_reported_under_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    let key = "model.diffusion_model.extra.weight";
    let source = single_file(&dir.path().join("sdxl.safetensors"), &[(key, &[1])]);
    let reader = source.component_reader("unet").unwrap();
    assert!(reader.keys().any(|k| k == key));
    assert!(matches!(
        source.component_reader("safety_checker"),
        Err(Error::NoFile { .. })
    ));
}

#[test]
fn the_golden_single_file_holds_the_tensors_of_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny-sdxl.safetensors");
    fs::copy(goldens().join("single-file/tiny-sdxl.safetensors"), &path).unwrap();
    let (single, folder) = (
        ModelSource::open(&path).unwrap(),
        ModelSource::open(goldens().join("tiny-sdxl")).unwrap(),
    );
    for component in ["unet", "vae", "text_encoder", "text_encoder_2"] {
        let folder_tensors = all(folder.component_reader(component).unwrap());
        let mut reader = single.component_reader(component).unwrap();
        for (key, (shape, data)) in &folder_tensors {
            let found = reader.param(key, shape, Init::Zeros).unwrap();
            assert_eq!(found.tensor().data(), data, "{component} {key}");
        }
        reader.finish().unwrap();
    }
    // Its widths are no multiples of SDXL's 64: it says so until a config folder lies beside it.
    let error = single.json("unet", "config.json").unwrap_err().to_string();
    assert!(error.contains("`config` folder beside the file"), "{error}");
    for part in ["unet", "tokenizer"] {
        fs::create_dir_all(dir.path().join("config").join(part)).unwrap();
        for file in fs::read_dir(goldens().join("tiny-sdxl").join(part)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), dir.path().join("config").join(part).join(file.file_name())).unwrap();
        }
    }
    assert_eq!(
        single.json("unet", "config.json").unwrap(),
        folder.json("unet", "config.json").unwrap()
    );
    let vocab = "tokenizer/vocab.json";
    assert!(single.exists(vocab));
    assert_eq!(single.read_bytes(vocab).unwrap(), folder.read_bytes(vocab).unwrap());
}

#[test]
fn a_folders_summary_counts_parameters_by_storage_type() {
    let dir = tempfile::tempdir().unwrap();
    tiny_folder(dir.path());
    let info = info(dir.path()).unwrap();
    assert_eq!(
        (info.layout, info.preset.as_str(), info.parameters, info.bytes),
        ("folder", "sdxl-turbo", 8, 16)
    );
    let [unet] = info.components.as_slice() else {
        panic!("one component")
    };
    assert_eq!((unet.name.as_str(), unet.tensors), ("unet", 2));
    assert_eq!(unet.class_name.as_deref(), Some("UNet2DConditionModel"));
    assert_eq!(unet.dtypes, BTreeMap::from([("f16".to_owned(), 8)]));
    assert_eq!(serde_json::to_value(&info).unwrap()["components"][0]["parameters"], 8);
}

#[test]
fn other_files_have_a_summary_too() {
    let info = info(&goldens().join("tiny-lcm")).unwrap();
    assert_eq!(info.preset, "lcm-sdxl");
    assert_eq!(
        info.components.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
        ["text_encoder", "text_encoder_2", "unet", "vae"]
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    write(&path, &[("lora_te1_x.lora_down.weight", &[4, 8])]);
    let lora = prima_checkpoint::info(&path).unwrap();
    assert_eq!(
        (lora.layout, lora.preset.as_str(), lora.parameters),
        ("weights", "lora", 32)
    );
    let component = prima_checkpoint::info(&goldens().join("taesd")).unwrap();
    assert_eq!(component.components[0].class_name.as_deref(), Some("AutoencoderTiny"));
}
