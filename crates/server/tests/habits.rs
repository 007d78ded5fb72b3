//! What programs send out of habit: numbers as text, seeds of -1, sizes of other models, scripts of which they ask nothing,
//! the hires fix.

mod common;

use common::{Server, from_base64, model_folder, painted, png, same, shipped_model, to_base64};
use prima_pipeline::{Picture, PromptSyntax, Request, ScheduleOptions};
use serde_json::{Value, json};

const OPENAI: &str = "/v1/images/generations";
const TXT2IMG: &str = "/sdapi/v1/txt2img";

fn first(answer: &Value) -> Picture {
    let text = answer["images"][0].as_str().or(answer["data"][0]["b64_json"].as_str());
    from_base64(text.unwrap())
}

/// What an A1111 answer remarks.
fn comments(answer: &Value) -> String {
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    let comments = info["comments"].as_array().unwrap().iter();
    comments
        .map(|text| text.as_str().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn numbers_as_text_and_whole_floats_are_numbers() {
    let server = Server::start().await;
    let plain = json!({"prompt": "a red apple", "steps": 2, "width": 64, "height": 48, "cfg_scale": 1, "seed": 5});
    let expected = first(&server.post_ok(TXT2IMG, &plain).await);
    for body in [
        json!({"prompt": "a red apple", "steps": "2", "width": "64", "height": "48", "cfg_scale": "1", "seed": "5"}),
        json!({"prompt": "a red apple", "steps": 2.0, "width": 64.0, "height": 48.0, "cfg_scale": 1.0, "seed": 5.0,
               "batch_size": "1", "n_iter": "", "tiling": "false", "send_images": "true"}),
    ] {
        same(
            &first(&server.post_ok(TXT2IMG, &body).await),
            &expected,
            &body.to_string(),
        );
    }
    let openai = json!({"prompt": "a red apple", "seed": "5", "n": "1", "size": "64x48", "num_inference_steps": "2",
        "guidance_scale": "1"});
    same(&first(&server.post_ok(OPENAI, &openai).await), &expected, "OpenAI");
    let prediction = json!({"input": {"prompt": "a red apple", "seed": 5.0, "width": "64", "height": 48, "steps": "2",
        "guidance_scale": "1"}});
    let answer = server.post_ok("/v1/predictions", &prediction).await;
    let url = answer["output"][0].as_str().unwrap();
    same(&from_base64(url.rsplit_once(',').unwrap().1), &expected, "prediction");
}

#[tokio::test]
async fn a_seed_of_minus_one_is_a_random_one_in_every_api() {
    let server = Server::start().await;
    let openai = server
        .post_ok(OPENAI, &json!({"prompt": "a", "seed": -1, "num_inference_steps": 1}))
        .await;
    let again = server
        .post_ok(OPENAI, &json!({"prompt": "a", "seed": -1, "num_inference_steps": 1}))
        .await;
    assert_ne!(openai["seed"], again["seed"]);
    server
        .post_ok(TXT2IMG, &json!({"prompt": "a", "seed": -1, "steps": 1}))
        .await;
    let prediction = json!({"input": {"prompt": "a", "seed": -1, "steps": 1}});
    server.post_ok("/v1/predictions", &prediction).await;
}

#[tokio::test]
async fn sizes_that_a_model_does_not_paint_are_made_from_those_it_does_and_said() {
    let server = Server::of(shipped_model()).await;
    for size in ["1792x1024", "1024x1536", "640x640", "500x333"] {
        let answer = server
            .post_ok(OPENAI, &json!({"prompt": "a red apple", "seed": 3, "size": size}))
            .await;
        let picture = first(&answer);
        assert_eq!(format!("{}x{}", picture.width, picture.height), size);
        let warnings = answer["warnings"].to_string();
        assert!(warnings.contains("this model paints"), "{warnings}");
    }
    // The same picture, larger.
    let own = first(
        &server
            .post_ok(OPENAI, &json!({"prompt": "a red apple", "seed": 3}))
            .await,
    );
    let large = first(
        &server
            .post_ok(OPENAI, &json!({"prompt": "a red apple", "seed": 3, "size": "512x512"}))
            .await,
    );
    let (small, error) = (large.resized(own.width, own.height), |(a, b): (&u8, &u8)| {
        f64::from(a.abs_diff(*b))
    });
    let mean = own.rgb.iter().zip(&small.rgb).map(error).sum::<f64>() / own.rgb.len() as f64;
    assert!(mean < 4.0, "mean difference {mean}");
}

#[tokio::test]
async fn scripts_of_which_nothing_is_asked_change_nothing() {
    let server = Server::start().await;
    let body = |scripts: Value| {
        json!({"prompt": "a cat", "steps": 1, "seed": 5, "width": 64, "height": 64, "alwayson_scripts": scripts,
               "script_name": "", "script_args": [], "styles": []})
    };
    let expected = first(&server.post_ok(TXT2IMG, &body(json!({}))).await);
    for scripts in [
        json!({"controlnet": {"args": []}}),
        json!({"controlnet": {"args": [{"enabled": false, "module": "none"}]}, "ADetailer": {"args": [false]}}),
        Value::Null,
    ] {
        same(
            &first(&server.post_ok(TXT2IMG, &body(scripts)).await),
            &expected,
            "scripts",
        );
    }
}

#[tokio::test]
async fn prompts_are_read_as_each_apis_programs_mean_them() {
    let server = Server::of(model_folder()).await;
    let request = |prompt: &str, prompt_syntax| Request {
        prompt: prompt.to_owned(),
        prompt_syntax,
        seed: 5,
        width: Some(64),
        height: Some(64),
        guidance_scale: Some(0.0),
        schedule: ScheduleOptions::steps(1),
        ..Request::default()
    };
    let marked = "a (red) [old] cat";
    let weighted = painted(&request(marked, PromptSyntax::A1111));
    let literal = painted(&request(marked, PromptSyntax::Plain));
    assert!(weighted != literal);
    let mut a1111 = json!({"prompt": marked, "seed": 5, "width": 64, "height": 64, "steps": 1, "cfg_scale": 0});
    same(&first(&server.post_ok(TXT2IMG, &a1111).await), &weighted, "A1111");
    a1111["prompt_syntax"] = json!("plain");
    same(
        &first(&server.post_ok(TXT2IMG, &a1111).await),
        &literal,
        "A1111, plainly",
    );
    let mut openai =
        json!({"prompt": marked, "seed": 5, "size": "64x64", "num_inference_steps": 1, "guidance_scale": 0});
    same(&first(&server.post_ok(OPENAI, &openai).await), &literal, "OpenAI");
    openai["prompt_2"] = json!("a dog");
    let second = Request {
        prompt_2: Some("a dog".to_owned()),
        ..request(marked, PromptSyntax::Auto)
    };
    same(
        &first(&server.post_ok(OPENAI, &openai).await),
        &painted(&second),
        "prompt_2",
    );
    let answer = server
        .post_ok(TXT2IMG, &json!({"prompt": "a cat BREAK a dog", "steps": 1}))
        .await;
    assert!(comments(&answer).contains("BREAK"), "{}", comments(&answer));
}

#[tokio::test]
async fn the_hires_fix_paints_twice_and_says_so() {
    let server = Server::start().await;
    let body = json!({"prompt": "a cat", "seed": 5, "steps": 2, "width": 64, "height": 48, "cfg_scale": 0, "batch_size": 2,
        "enable_hr": "true", "hr_scale": "1.5", "hr_second_pass_steps": 4, "denoising_strength": 0.5});
    let answer = server.post_ok(TXT2IMG, &body).await;
    let picture = first(&answer);
    assert_eq!((picture.width, picture.height), (96, 72));
    assert_eq!(answer["images"].as_array().unwrap().len(), 2);
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert_eq!(info["all_seeds"], json!([5, 6]));
    let text = info["infotexts"][0].as_str().unwrap();
    for part in [
        "Denoising strength: 0.5",
        "Hires resize: 96x72",
        "Hires upscaler: Lanczos",
        "Steps: 4",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(
        comments(&answer).contains("latents are not enlarged"),
        "{}",
        comments(&answer)
    );
    // It is image-to-image over the enlarged picture.
    let small = painted(&Request {
        prompt: "a cat".to_owned(),
        seed: 5,
        width: Some(64),
        height: Some(48),
        guidance_scale: Some(0.0),
        schedule: ScheduleOptions::steps(2),
        ..Request::default()
    });
    let png = prima_picture::encode_png(&small.resized(96, 72), &prima_pipeline::Parameters::default()).unwrap();
    let over = json!({"prompt": "a cat", "seed": 5, "steps": 4, "width": 96, "height": 72, "cfg_scale": 0,
        "denoising_strength": 0.5, "init_images": [to_base64(&png)]});
    same(
        &picture,
        &first(&server.post_ok("/sdapi/v1/img2img", &over).await),
        "two passes",
    );
    let resized = json!({"prompt": "a cat", "steps": 1, "width": 64, "height": 64, "enable_hr": true, "hr_resize_x": 128,
        "hr_upscaler": "Nearest"});
    let picture = first(&server.post_ok(TXT2IMG, &resized).await);
    assert_eq!((picture.width, picture.height), (128, 128));
}

#[tokio::test]
async fn programs_that_name_dall_e_get_an_address_as_well() {
    let server = Server::start().await;
    let entry = |model: &'static str, format: Value| {
        let body =
            json!({"prompt": "a cat", "seed": 5, "num_inference_steps": 1, "model": model, "response_format": format});
        let server = &server;
        async move { server.post_ok(OPENAI, &body).await["data"][0].clone() }
    };
    let both = entry("dall-e-3", Value::Null).await;
    let data = both["url"]
        .as_str()
        .unwrap()
        .strip_prefix("data:image/png;base64,")
        .unwrap();
    assert_eq!(both["b64_json"], data);
    assert!(entry("dall-e-3", json!("b64_json")).await.get("url").is_none());
    assert!(entry("dall-e-3", json!("url")).await.get("b64_json").is_none());
    assert!(entry("gpt-image-1", Value::Null).await.get("url").is_none());
}

#[tokio::test]
async fn recipes_of_every_format_are_read_back() {
    let server = Server::start().await;
    for format in ["png", "jpeg", "webp"] {
        let body = json!({"prompt": "a red apple, tr\u{e8}s cosy", "output_format": format, "num_inference_steps": 1});
        let answer = server.post_ok(OPENAI, &body).await;
        let image = answer["data"][0]["b64_json"].clone();
        let info = server.post_ok("/sdapi/v1/png-info", &json!({"image": image})).await;
        assert_eq!(info["parameters"]["Prompt"], "a red apple, tr\u{e8}s cosy", "{format}");
    }
}

#[tokio::test]
async fn options_of_no_effect_are_taken_and_others_refused_by_name() {
    let server = Server::start().await;
    let here = server.get("/sdapi/v1/options").await.json::<Value>().await.unwrap();
    let model = here["sd_model_checkpoint"].as_str().unwrap();
    for taken in [
        json!({"sd_model_checkpoint": format!("{model} [0123abcd]")}),
        json!({"samples_save": false, "live_previews_enable": true}),
    ] {
        server.post_ok("/sdapi/v1/options", &taken).await;
    }
    for (refused, word) in [
        (json!({"sd_model_checkpoint": "other"}), "sd_model_checkpoint"),
        (json!({"CLIP_stop_at_last_layers": 2}), "CLIP_stop_at_last_layers"),
    ] {
        let (status, body) = server.refused("/sdapi/v1/options", &refused).await;
        assert!(status == 422 && body.to_string().contains(word), "{status} {body}");
    }
    let lists = |path: &'static str| async { server.get(path).await.json::<Value>().await.unwrap() };
    assert_eq!(lists("/sdapi/v1/sd-models").await[0]["title"], model);
    for upscaler in lists("/sdapi/v1/upscalers").await.as_array().unwrap() {
        let body = json!({"image": to_base64(&png(8, 8)), "upscaler_1": upscaler["name"], "upscaling_resize": "2"});
        server.post_ok("/sdapi/v1/extra-single-image", &body).await;
    }
    for sampler in lists("/sdapi/v1/samplers").await.as_array().unwrap() {
        let name = sampler["name"].as_str().unwrap();
        // Its noise is that of other models.
        if name != "Flow Euler" {
            let body = json!({"prompt": "a", "steps": 2, "width": 64, "height": 64, "sampler_name": name});
            server.post_ok(TXT2IMG, &body).await;
        }
    }
}
