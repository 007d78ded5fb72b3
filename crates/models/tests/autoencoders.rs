//! The autoencoders against diffusers, on tiny random models.

mod common;

use common::{Golden, assert_close, build, component};
use prima_models::{AutoencoderKl, AutoencoderKlConfig, AutoencoderTiny, AutoencoderTinyConfig, Cancelled};
use prima_tensor::{Tensor, add, affine};

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

fn load(folder: &str) -> AutoencoderKl {
    let (config, reader) = component(folder, WEIGHTS);
    let config = AutoencoderKlConfig::from_json(&config, "config.json").unwrap();
    build(reader, |source| AutoencoderKl::new(config, source))
}

fn check_kl(folder: &str, name: &str) {
    let (vae, golden) = (load(folder), Golden::open(name));
    for case in ["square", "wide"] {
        let posterior = vae
            .encode(&golden.nhwc(&format!("{case}.image")), &mut || true)
            .unwrap();
        let mean = golden.nhwc(&format!("{case}.mean"));
        assert_close(&format!("{name} {case} mean"), &posterior.mode(), &mean);
        let std = golden.nhwc(&format!("{case}.std"));
        let ones = Tensor::full(1.0, std.shape());
        assert_close(
            &format!("{name} {case} sample"),
            &posterior.sample(&ones),
            &add(&mean, &std),
        );
        let decoded = vae
            .decode(&golden.nhwc(&format!("{case}.latents")), &mut || true)
            .unwrap();
        assert_close(
            &format!("{name} {case} decoded"),
            &decoded,
            &golden.nhwc(&format!("{case}.decoded")),
        );
    }
}

#[test]
fn the_four_level_autoencoder_matches_diffusers() {
    check_kl("tiny-sdxl/vae", "tiny-sdxl.vae");
}

#[test]
fn the_three_level_autoencoder_matches_diffusers() {
    check_kl("vae-three-levels", "vae-three-levels");
}

#[test]
fn the_tiny_autoencoder_matches_diffusers() {
    let (config, reader) = component("taesd", WEIGHTS);
    let config = AutoencoderTinyConfig::from_json(&config, "config.json").unwrap();
    let vae = build(reader, |source| AutoencoderTiny::new(config, source));
    let golden = Golden::open("taesd");
    for case in ["square", "wide"] {
        let tensor = |name: &str| golden.nhwc(&format!("{case}.{name}"));
        let encoded = vae.encode(&tensor("image"), &mut || true).unwrap();
        assert_close(&format!("{case} encoded"), &encoded, &tensor("encoded"));
        let decoded = vae.decode(&tensor("latents"), &mut || true).unwrap();
        assert_close(&format!("{case} decoded"), &decoded, &tensor("decoded"));
    }
}

#[test]
fn scaling_latents_is_undone_by_unscaling() {
    let mut vae = load("tiny-sdxl/vae");
    let latents = Tensor::from_vec((0..16).map(|i| i as f32 - 7.5).collect(), &[1, 2, 2, 4]);
    assert_close("scaled", &vae.scale_latents(&latents), &affine(&latents, 0.13025, 0.0));
    assert_close("back", &vae.unscale_latents(&vae.scale_latents(&latents)), &latents);

    let (config, mut reader) = component("tiny-sdxl/vae", WEIGHTS);
    let mut config = AutoencoderKlConfig::from_json(&config, "config.json").unwrap();
    config.latents_mean = Some(vec![1.0, 2.0, 3.0, 4.0]);
    config.latents_std = Some(vec![2.0, 4.0, 8.0, 16.0]);
    vae = AutoencoderKl::new(config, &mut reader).unwrap();
    let scaled = vae.scale_latents(&latents);
    assert!((scaled.data()[7] - (latents.data()[7] - 4.0) * 0.13025 / 16.0).abs() < 1e-6);
    assert_close("back", &vae.unscale_latents(&scaled), &latents);
}

#[test]
fn decoding_stops_at_the_first_refusal() {
    let vae = load("tiny-sdxl/vae");
    let mut asked = 0;
    let mut hook = || {
        asked += 1;
        asked < 3
    };
    let result = vae.decode(&Tensor::zeros(&[1, 4, 4, 4]), &mut hook);
    assert_eq!(result.err(), Some(Cancelled));
    assert_eq!(asked, 3);
}
