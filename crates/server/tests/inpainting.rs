//! Masks through every API: the pixels are those that `prima paint` makes of the same request.

mod common;

use common::{Server, edit, file_part, from_base64, painted, png, same, to_base64};
use prima_picture::{Format, QUALITY, encode};
use prima_pipeline::{
    Gray, InitImage, Mask, MaskFill, Picture, PromptSyntax, Request, ScheduleOptions, SchedulerKind, TimestepSpacing,
};
use serde_json::{Value, json};

const SIZE: (usize, usize) = (64, 48);

/// White in a square.
fn square() -> Gray {
    let mut gray = Gray::flat(SIZE.0, SIZE.1, 0);
    for y in 12..36 {
        gray.values[y * SIZE.0 + 16..y * SIZE.0 + 40].fill(255);
    }
    gray
}

fn file(gray: &Gray) -> Vec<u8> {
    encode(&gray.to_picture(), Format::Png, QUALITY, None).unwrap()
}

/// The sketch, transparent where `gray` is white.
fn with_holes(gray: &Gray) -> Vec<u8> {
    let sketch = sketch();
    let pixels = sketch.rgb.chunks_exact(3).zip(&gray.values);
    let rgba: Vec<u8> = pixels
        .flat_map(|(rgb, mask)| [rgb[0], rgb[1], rgb[2], 255 - mask])
        .collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIZE.0 as u32, SIZE.1 as u32);
    encoder.set_color(png::ColorType::Rgba);
    encoder.write_header().unwrap().write_image_data(&rgba).unwrap();
    bytes
}

fn sketch() -> Picture {
    Picture::decode(&png(SIZE.0, SIZE.1), "sketch").unwrap()
}

fn request(mask: Mask) -> Request {
    Request {
        prompt: "a red apple".into(),
        seed: 11,
        guidance_scale: Some(0.0),
        width: Some(SIZE.0),
        height: Some(SIZE.1),
        schedule: ScheduleOptions {
            scheduler: Some(SchedulerKind::EulerAncestral),
            ..ScheduleOptions::steps(3)
        },
        init_image: Some(InitImage {
            picture: sketch(),
            strength: Some(0.7),
        }),
        mask: Some(mask),
        ..Request::default()
    }
}

fn form(image: Vec<u8>, mask: Option<Vec<u8>>) -> reqwest::multipart::Form {
    match mask {
        Some(mask) => edit(image).part("mask", file_part(mask)),
        None => edit(image),
    }
}

#[tokio::test]
async fn openai_paints_what_is_transparent_in_the_mask_or_without_one_in_the_image() {
    let server = Server::start().await;
    let expected = painted(&request(Mask::new(square())));
    for (image, mask) in [
        (png(SIZE.0, SIZE.1), Some(with_holes(&square()))),
        (with_holes(&square()), None),
    ] {
        let response = server.post_form("/v1/images/edits", form(image, mask)).await;
        let answer: Value = response.json().await.unwrap();
        let found = from_base64(answer["data"][0]["b64_json"].as_str().unwrap());
        same(&found, &expected, "an edit");
        // What is not masked is the sketch to the last bit.
        assert_eq!(found.rgb[..3 * SIZE.0], sketch().rgb[..3 * SIZE.0]);
    }
}

#[tokio::test]
async fn the_web_uis_fields_of_masks_are_followed() {
    let server = Server::start().await;
    let body = |more: Value| {
        let mut body = json!({"prompt": "a red apple", "seed": 11, "width": SIZE.0, "height": SIZE.1, "steps": 3, "cfg_scale": 0,
            "sampler_name": "Euler a", "init_images": [to_base64(&png(SIZE.0, SIZE.1))], "denoising_strength": 0.7});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let plain = Mask {
        blur_px: 4.0,
        padding_px: Some(0),
        fill: MaskFill::Surroundings,
        ..Mask::new(square())
    };
    let inverted = to_base64(&file(&square().inverted()));
    let cases = [
        (json!({"mask": to_base64(&file(&square()))}), plain.clone()),
        (
            json!({"mask": inverted, "inpainting_mask_invert": 1, "mask_blur": 0, "inpainting_fill": "1",
                   "inpaint_full_res": false, "inpaint_full_res_padding": 32}),
            Mask::new(square()),
        ),
        (
            json!({"mask": to_base64(&file(&square())), "mask_blur_x": 2, "inpainting_fill": 2, "inpaint_full_res_padding": 8}),
            Mask {
                blur_px: 2.0,
                padding_px: Some(8),
                fill: MaskFill::Noise,
                ..plain
            },
        ),
    ];
    for (fields, mask) in cases {
        let answer = server.post_ok("/sdapi/v1/img2img", &body(fields.clone())).await;
        let expected = painted(&Request {
            prompt_syntax: PromptSyntax::A1111,
            ..request(mask)
        });
        same(
            &from_base64(answer["images"][0].as_str().unwrap()),
            &expected,
            &fields["mask_blur"].to_string(),
        );
    }
}

#[tokio::test]
async fn predictions_stretch_a_mask_to_the_image() {
    let server = Server::start().await;
    let half = square().resized(SIZE.0 / 2, SIZE.1 / 2);
    let body = json!({"input": {"prompt": "a red apple", "seed": 11, "width": SIZE.0, "height": SIZE.1, "guidance_scale": 0,
        "num_inference_steps": 3, "scheduler": "K_EULER_ANCESTRAL", "prompt_strength": 0.7,
        "image": to_base64(&png(SIZE.0, SIZE.1)), "mask": to_base64(&file(&half))}});
    let answer = server.post_ok("/v1/predictions", &body).await;
    let url = answer["output"][0].as_str().unwrap();
    same(
        &from_base64(url.strip_prefix("data:image/png;base64,").unwrap()),
        &painted(&request(Mask::new(half.resized(SIZE.0, SIZE.1)))),
        "prediction",
    );
}

#[tokio::test]
async fn comfyui_s_nodes_mask_latents() {
    let server = Server::start().await;
    let upload = |name: &'static str, bytes: Vec<u8>| {
        let part = reqwest::multipart::Part::bytes(bytes).file_name(name);
        reqwest::multipart::Form::new().part("image", part)
    };
    for (name, bytes) in [("sketch.png", png(SIZE.0, SIZE.1)), ("mask.png", file(&square()))] {
        assert!(
            server
                .post_form("/upload/image", upload(name, bytes))
                .await
                .status()
                .is_success()
        );
    }
    let graph = |latents: Value, positive: Value| {
        json!({
            "3": {"class_type": "KSampler", "inputs": {"seed": 11, "steps": 3, "cfg": 0.0, "sampler_name": "euler",
                "scheduler": "normal", "denoise": 1.0, "model": ["4", 0], "positive": positive, "negative": ["7", 0],
                "latent_image": latents}},
            "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny-sdxl"}},
            "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red apple", "clip": ["4", 1]}},
            "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
            "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
            "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["8", 0]}},
            "10": {"class_type": "LoadImage", "inputs": {"image": "sketch.png"}},
            "11": {"class_type": "LoadImageMask", "inputs": {"image": "mask.png", "channel": "red"}},
            "12": {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["4", 2]}},
            "13": {"class_type": "SetLatentNoiseMask", "inputs": {"samples": ["12", 0], "mask": ["11", 0]}},
            "14": {"class_type": "VAEEncodeForInpaint", "inputs": {"pixels": ["10", 0], "vae": ["4", 2], "mask": ["11", 0],
                "grow_mask_by": 4}},
            "15": {"class_type": "InpaintModelConditioning", "inputs": {"positive": ["6", 0], "negative": ["7", 0],
                "vae": ["4", 2], "pixels": ["10", 0], "mask": ["11", 0], "noise_mask": true}},
        })
    };
    let whole = Mask {
        keeps_original: false,
        ..Mask::new(square())
    };
    let grown = Mask {
        fill: MaskFill::Gray,
        gray: square().grown(4),
        ..whole.clone()
    };
    let cases = [
        (json!(["13", 0]), json!(["6", 0]), whole.clone()),
        (json!(["14", 0]), json!(["6", 0]), grown),
        (json!(["15", 2]), json!(["15", 0]), whole),
    ];
    for (latents, positive, mask) in cases {
        let what = latents.to_string();
        let found = server.graphs_picture(&graph(latents, positive), "9").await;
        let mut expected = request(mask);
        expected.prompt_syntax = PromptSyntax::A1111;
        expected.init_image.as_mut().unwrap().strength = Some(1.0);
        expected.schedule.scheduler = Some(SchedulerKind::Euler);
        expected.schedule.spacing = Some(TimestepSpacing::Normal);
        same(&found, &painted(&expected), &what);
    }
}

#[tokio::test]
async fn wrong_masks_are_refused_by_name() {
    let server = Server::start().await;
    let small = file(&Gray::flat(8, 8, 255));
    let response = server
        .post_form("/v1/images/edits", form(png(SIZE.0, SIZE.1), Some(small)))
        .await;
    assert_eq!(response.status(), 400);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(
        answer["error"]["message"],
        "the mask has 8x8 pixels, and the image 64x48: use a mask of the image's size"
    );
    assert_eq!(answer["error"]["param"], "mask");
    let image = to_base64(&png(SIZE.0, SIZE.1));
    let black = to_base64(&file(&Gray::flat(SIZE.0, SIZE.1, 0)));
    for (path, body, part) in [
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "a", "init_images": [image], "mask": black}),
            "black everywhere",
        ),
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "a", "init_images": [image], "mask": image, "inpainting_fill": 4}),
            "inpainting_fill 4",
        ),
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "a", "init_images": [image], "mask": image, "mask_blur": -1}),
            "mask_blur -1",
        ),
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "a", "init_images": [image], "mask": "http://127.0.0.1/a.png"}),
            "never fetches",
        ),
        (
            "/v1/predictions",
            json!({"input": {"prompt": "a", "mask": image}}),
            "send the image too",
        ),
        (
            "/sdapi/v1/txt2img",
            json!({"prompt": "a", "refiner_checkpoint": "xl-refiner", "refiner_switch_at": 0.8}),
            "no refiner",
        ),
        (
            "/v1/predictions",
            json!({"input": {"prompt": "a", "refiner_switch_at": 0.8}}),
            "--refiner",
        ),
    ] {
        let (status, answer) = server.refused(path, &body).await;
        assert!((400..500).contains(&status), "{path} {status}");
        assert!(answer.to_string().contains(part), "{part}: {answer}");
    }
}
