//! The nodes that are understood, as `object_info` describes them.

use serde_json::{Map, Value, json};

/// What the lists of choices hold on this server.
pub(super) struct Choices {
    pub models: Vec<String>,
    pub loras: Vec<String>,
    pub controlnets: Vec<String>,
    pub upscalers: Vec<String>,
    /// Pictures that were uploaded.
    pub images: Vec<String>,
}

/// ComfyUI's names of the samplers that there are here.
pub(super) const SAMPLERS: [&str; 10] = [
    "euler",
    "euler_ancestral",
    "heun",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_sde",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
    "lcm",
];
pub(super) const SCHEDULERS: [&str; 8] = [
    "simple",
    "sgm_uniform",
    "karras",
    "exponential",
    "ddim_uniform",
    "beta",
    "normal",
    "kl_optimal",
];
/// How pictures are resized here; ComfyUI's other names are taken for the first.
const RESIZE: [&str; 5] = ["lanczos", "nearest-exact", "bilinear", "area", "bicubic"];

/// A class, its required inputs, its outputs and its place in menus; whether it ends a graph.
type Node = (&'static str, Value, &'static [&'static str], &'static str, bool);

fn nodes(choices: &Choices) -> Vec<Node> {
    [
        models_and_words(choices),
        areas(),
        latents_and_pictures(choices),
        masks(choices),
        controlnets(choices),
        in_parts(),
    ]
    .concat()
}

fn models_and_words(choices: &Choices) -> Vec<Node> {
    let any = |kind: &str| json!([kind]);
    let strength = json!(["FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01}]);
    vec![
        (
            "KSampler",
            json!({
                "model": any("MODEL"),
                "seed": ["INT", {"default": 0, "min": 0, "max": u64::MAX, "control_after_generate": true}],
                "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
                "cfg": ["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}],
                "sampler_name": [SAMPLERS], "scheduler": [SCHEDULERS],
                "positive": any("CONDITIONING"), "negative": any("CONDITIONING"), "latent_image": any("LATENT"),
                "denoise": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}],
            }),
            &["LATENT"],
            "sampling",
            false,
        ),
        (
            "CheckpointLoaderSimple",
            json!({"ckpt_name": [choices.models]}),
            &["MODEL", "CLIP", "VAE"],
            "loaders",
            false,
        ),
        // Lists that programs look into; there is nothing to choose, since a checkpoint has its own.
        (
            "UNETLoader",
            json!({"unet_name": [[]], "weight_dtype": [["default"]]}),
            &["MODEL"],
            "advanced/loaders",
            false,
        ),
        ("VAELoader", json!({"vae_name": [[]]}), &["VAE"], "loaders", false),
        (
            "LoraLoader",
            json!({"model": any("MODEL"), "clip": any("CLIP"), "lora_name": [choices.loras],
                   "strength_model": strength.clone(), "strength_clip": strength}),
            &["MODEL", "CLIP"],
            "loaders",
            false,
        ),
        (
            "CLIPTextEncode",
            json!({"text": ["STRING", {"multiline": true, "dynamicPrompts": true}], "clip": any("CLIP")}),
            &["CONDITIONING"],
            "conditioning",
            false,
        ),
        (
            "CLIPSetLastLayer",
            json!({"clip": any("CLIP"), "stop_at_clip_layer": ["INT", {"default": -1, "min": -24, "max": -1, "step": 1}]}),
            &["CLIP"],
            "conditioning",
            false,
        ),
    ]
}

fn areas() -> Vec<Node> {
    let any = |kind: &str| json!([kind]);
    let px = |default: u64| json!(["INT", {"default": default, "min": 0, "max": 16_384, "step": 8}]);
    let share = |default: f64| json!(["FLOAT", {"default": default, "min": 0.0, "max": 1.0, "step": 0.01}]);
    let weight = json!(["FLOAT", {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.01}]);
    vec![
        (
            "ConditioningCombine",
            json!({"conditioning_1": any("CONDITIONING"), "conditioning_2": any("CONDITIONING")}),
            &["CONDITIONING"],
            "conditioning",
            false,
        ),
        (
            "ConditioningSetArea",
            json!({"conditioning": any("CONDITIONING"), "width": px(64), "height": px(64), "x": px(0), "y": px(0),
                   "strength": weight.clone()}),
            &["CONDITIONING"],
            "conditioning",
            false,
        ),
        (
            "ConditioningSetAreaPercentage",
            json!({"conditioning": any("CONDITIONING"), "width": share(1.0), "height": share(1.0), "x": share(0.0),
                   "y": share(0.0), "strength": weight}),
            &["CONDITIONING"],
            "conditioning",
            false,
        ),
    ]
}

fn latents_and_pictures(choices: &Choices) -> Vec<Node> {
    let any = |kind: &str| json!([kind]);
    let side = json!(["INT", {"default": 512, "min": 8, "max": 4096, "step": 8}]);
    let size = json!(["INT", {"default": 512, "min": 0, "max": 2048, "step": 1}]);
    let prefix = json!(["STRING", {"default": "ComfyUI"}]);
    vec![
        (
            "EmptyLatentImage",
            json!({"width": side.clone(), "height": side, "batch_size": ["INT", {"default": 1, "min": 1, "max": 64}]}),
            &["LATENT"],
            "latent",
            false,
        ),
        (
            "VAEDecode",
            json!({"samples": any("LATENT"), "vae": any("VAE")}),
            &["IMAGE"],
            "latent",
            false,
        ),
        (
            "VAEEncode",
            json!({"pixels": any("IMAGE"), "vae": any("VAE")}),
            &["LATENT"],
            "latent",
            false,
        ),
        (
            "LoadImage",
            json!({"image": [choices.images, {"image_upload": true}]}),
            &["IMAGE", "MASK"],
            "image",
            false,
        ),
        (
            "ImageScale",
            json!({"image": any("IMAGE"), "upscale_method": [RESIZE], "width": size.clone(), "height": size,
                   "crop": [["disabled", "center"]]}),
            &["IMAGE"],
            "image/upscaling",
            false,
        ),
        (
            "UpscaleModelLoader",
            json!({"model_name": [choices.upscalers]}),
            &["UPSCALE_MODEL"],
            "loaders",
            false,
        ),
        (
            "ImageUpscaleWithModel",
            json!({"upscale_model": any("UPSCALE_MODEL"), "image": any("IMAGE")}),
            &["IMAGE"],
            "image/upscaling",
            false,
        ),
        (
            "SaveImage",
            json!({"images": any("IMAGE"), "filename_prefix": prefix}),
            &[],
            "image",
            true,
        ),
        ("PreviewImage", json!({"images": any("IMAGE")}), &[], "image", true),
        (
            "SaveImageWebsocket",
            json!({"images": any("IMAGE")}),
            &[],
            "api/image",
            true,
        ),
    ]
}

fn masks(choices: &Choices) -> Vec<Node> {
    let any = |kind: &str| json!([kind]);
    vec![
        (
            "VAEEncodeForInpaint",
            json!({"pixels": any("IMAGE"), "vae": any("VAE"), "mask": any("MASK"),
                   "grow_mask_by": ["INT", {"default": 6, "min": 0, "max": 64, "step": 1}]}),
            &["LATENT"],
            "latent/inpaint",
            false,
        ),
        (
            "SetLatentNoiseMask",
            json!({"samples": any("LATENT"), "mask": any("MASK")}),
            &["LATENT"],
            "latent/inpaint",
            false,
        ),
        (
            "InpaintModelConditioning",
            json!({"positive": any("CONDITIONING"), "negative": any("CONDITIONING"), "vae": any("VAE"),
                   "pixels": any("IMAGE"), "mask": any("MASK"), "noise_mask": ["BOOLEAN", {"default": true}]}),
            &["CONDITIONING", "CONDITIONING", "LATENT"],
            "conditioning/inpaint",
            false,
        ),
        (
            "LoadImageMask",
            json!({"image": [choices.images, {"image_upload": true}], "channel": [["alpha", "red", "green", "blue"]]}),
            &["MASK"],
            "mask",
            false,
        ),
        ("InvertMask", json!({"mask": any("MASK")}), &["MASK"], "mask", false),
        (
            "GrowMask",
            json!({"mask": any("MASK"), "expand": ["INT", {"default": 0, "min": -256, "max": 256, "step": 1}],
                   "tapered_corners": ["BOOLEAN", {"default": true}]}),
            &["MASK"],
            "mask",
            false,
        ),
    ]
}

fn controlnets(choices: &Choices) -> Vec<Node> {
    let any = |kind: &str| json!([kind]);
    let strength = json!(["FLOAT", {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.01}]);
    let share = |default: f64| json!(["FLOAT", {"default": default, "min": 0.0, "max": 1.0, "step": 0.001}]);
    vec![
        (
            "ControlNetLoader",
            json!({"control_net_name": [choices.controlnets]}),
            &["CONTROL_NET"],
            "loaders",
            false,
        ),
        (
            "ControlNetApply",
            json!({"conditioning": any("CONDITIONING"), "control_net": any("CONTROL_NET"), "image": any("IMAGE"),
                   "strength": strength.clone()}),
            &["CONDITIONING"],
            "conditioning/controlnet",
            false,
        ),
        (
            "ControlNetApplyAdvanced",
            json!({"positive": any("CONDITIONING"), "negative": any("CONDITIONING"), "control_net": any("CONTROL_NET"),
                   "image": any("IMAGE"), "strength": strength, "start_percent": share(0.0), "end_percent": share(1.0)}),
            &["CONDITIONING", "CONDITIONING"],
            "conditioning/controlnet",
            false,
        ),
    ]
}

/// A sampler in parts, and pictures by ids.
fn in_parts() -> Vec<Node> {
    let any = |kind: &str| json!([kind]);
    let whole = |default: u64, least: u64, most: u64| json!(["INT", {"default": default, "min": least, "max": most}]);
    let cfg = json!(["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}]);
    let denoise = json!(["FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}]);
    let rows: [(&'static str, Value, &'static [&'static str], bool); 10] = [
        (
            "SamplerCustomAdvanced",
            json!({"noise": any("NOISE"), "guider": any("GUIDER"), "sampler": any("SAMPLER"), "sigmas": any("SIGMAS"),
                   "latent_image": any("LATENT")}),
            &["LATENT", "LATENT"],
            false,
        ),
        (
            "CFGGuider",
            json!({"model": any("MODEL"), "positive": any("CONDITIONING"), "negative": any("CONDITIONING"), "cfg": cfg}),
            &["GUIDER"],
            false,
        ),
        (
            "BasicGuider",
            json!({"model": any("MODEL"), "conditioning": any("CONDITIONING")}),
            &["GUIDER"],
            false,
        ),
        (
            "BasicScheduler",
            json!({"model": any("MODEL"), "scheduler": [SCHEDULERS], "steps": whole(20, 1, 10_000), "denoise": denoise}),
            &["SIGMAS"],
            false,
        ),
        (
            "SplitSigmas",
            json!({"sigmas": any("SIGMAS"), "step": whole(0, 0, 9_999)}),
            &["SIGMAS", "SIGMAS"],
            false,
        ),
        (
            "KSamplerSelect",
            json!({"sampler_name": [SAMPLERS]}),
            &["SAMPLER"],
            false,
        ),
        (
            "RandomNoise",
            json!({"noise_seed": whole(0, 0, u64::MAX)}),
            &["NOISE"],
            false,
        ),
        (
            "RepeatLatentBatch",
            json!({"samples": any("LATENT"), "amount": whole(1, 1, 64)}),
            &["LATENT"],
            false,
        ),
        (
            "ETN_LoadImageCache",
            json!({"id": ["STRING", {"default": ""}]}),
            &["IMAGE", "MASK"],
            false,
        ),
        (
            "ETN_SaveImageCache",
            json!({"images": any("IMAGE"), "format": [["PNG"]]}),
            &[],
            true,
        ),
    ];
    let node = |(class, required, outputs, ends)| (class, required, outputs, "sampling/custom", ends);
    rows.into_iter().map(node).collect()
}

/// Whether a graph may hold a node of this class.
pub(super) fn is_known(class: &str) -> bool {
    let none = Choices {
        models: Vec::new(),
        loras: Vec::new(),
        controlnets: Vec::new(),
        upscalers: Vec::new(),
        images: Vec::new(),
    };
    nodes(&none).iter().any(|node| node.0 == class)
}

/// `object_info`, by class.
pub(super) fn described(choices: &Choices) -> Map<String, Value> {
    let entries = nodes(choices)
        .into_iter()
        .map(|(class, required, outputs, category, ends)| {
            let order: Vec<String> = required
                .as_object()
                .map_or_else(Vec::new, |o| o.keys().cloned().collect());
            let info = json!({
                "input": {"required": required},
                "input_order": {"required": order},
                "output": outputs,
                "output_is_list": vec![false; outputs.len()],
                "output_name": outputs,
                "name": class,
                "display_name": class,
                "description": "",
                "python_module": "nodes",
                "category": category,
                "output_node": ends,
            });
            (class.to_owned(), info)
        });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prima_pipeline::{SchedulerKind, TimestepSpacing};

    #[test]
    fn every_name_of_the_lists_is_one_here() {
        for name in SAMPLERS {
            assert!(name.parse::<SchedulerKind>().is_ok(), "{name}");
        }
        for name in SCHEDULERS {
            assert!(name.parse::<TimestepSpacing>().is_ok(), "{name}");
        }
    }
}
