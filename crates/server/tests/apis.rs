//! The APIs of existing programs against a real server; the same seed and settings give the same
//! pixels through all of them.

mod common;

use common::{Server, all_painted, edit, from_base64, model_folder, painted, png, same, to_base64};
use prima_pipeline::{InitImage, Picture, Request, ScheduleOptions, SchedulerKind, TimestepSpacing};
use serde_json::{Value, json};

fn request() -> Request {
    Request {
        prompt: "a red apple".into(),
        seed: 11,
        width: Some(64),
        height: Some(48),
        guidance_scale: Some(0.0),
        schedule: ScheduleOptions {
            scheduler: Some(SchedulerKind::EulerAncestral),
            ..ScheduleOptions::steps(3)
        },
        ..Request::default()
    }
}

#[tokio::test]
async fn one_seed_gives_the_same_pixels_through_paint_live_openai_a1111_and_predictions() {
    let server = Server::start().await;
    let expected = painted(&request());

    let openai = json!({"prompt": "a red apple", "seed": 11, "size": "64x48", "num_inference_steps": 3, "scheduler": "euler_a",
        "guidance_scale": 0});
    let answer = server.post_ok("/v1/images/generations", &openai).await;
    same(
        &from_base64(answer["data"][0]["b64_json"].as_str().unwrap()),
        &expected,
        "OpenAI",
    );

    let a1111 = json!({"prompt": "a red apple", "seed": 11, "width": 64, "height": 48, "steps": 3, "cfg_scale": 0, "sampler_name": "Euler a"});
    let answer = server.post_ok("/sdapi/v1/txt2img", &a1111).await;
    same(&from_base64(answer["images"][0].as_str().unwrap()), &expected, "A1111");

    let prediction = json!({"input": {"prompt": "a red apple", "seed": 11, "width": 64, "height": 48, "num_inference_steps": 3,
        "guidance_scale": 0, "scheduler": "K_EULER_ANCESTRAL"}});
    let answer = server.post_ok("/v1/predictions", &prediction).await;
    let url = answer["output"][0].as_str().unwrap();
    same(
        &from_base64(url.strip_prefix("data:image/png;base64,").unwrap()),
        &expected,
        "prediction",
    );

    let flat = json!({"model": "bytedance/sdxl-lightning-4step", "prompt": "a red apple", "seed": 11, "steps": 3, "guidance_scale": 0,
        "scheduler": "K_EULER_ANCESTRAL", "resolution": "64x48"});
    let answer = server.post_ok("/predictions", &flat).await;
    let url = answer["output"][0].as_str().unwrap();
    same(
        &from_base64(url.strip_prefix("data:image/png;base64,").unwrap()),
        &expected,
        "flat",
    );

    let mut live = server.live().await;
    live.send(
        &json!({"type": "paint", "rev": 1, "prompt": "a red apple", "seed": 11, "width": 64, "height": 48, "steps": 3,
        "guidance_scale": 0, "scheduler": "euler_a"}),
    )
    .await;
    same(&live.frames_until(1).await.pop().unwrap().1, &expected, "live");
}

fn sketched(strength: f64) -> Picture {
    painted(&Request {
        init_image: Some(InitImage {
            picture: Picture::decode(&png(64, 48), "sketch").unwrap(),
            strength: Some(strength),
        }),
        ..request()
    })
}

#[tokio::test]
async fn image_to_image_through_openai_and_a1111() {
    let server = Server::start().await;
    let response = server.post_form("/v1/images/edits", edit(png(64, 48))).await;
    let answer: Value = response.json().await.unwrap();
    same(
        &from_base64(answer["data"][0]["b64_json"].as_str().unwrap()),
        &sketched(0.7),
        "sketch",
    );

    for prefix in ["", "data:image/png;base64,"] {
        let image = format!("{prefix}{}", to_base64(&png(64, 48)));
        let body = json!({"prompt": "a red apple", "seed": 11, "width": 64, "height": 48, "steps": 3, "cfg_scale": 0, "sampler_name": "Euler a",
            "init_images": [image], "denoising_strength": 0.7});
        let answer = server.post_ok("/sdapi/v1/img2img", &body).await;
        same(
            &from_base64(answer["images"][0].as_str().unwrap()),
            &sketched(0.7),
            "sketch",
        );
        assert!(answer["parameters"].get("init_images").is_none());
    }
}

#[tokio::test]
async fn what_the_text_encoders_leave_out_is_chosen_by_a1111s_slider_and_predictions_clip_skip() {
    let server = Server::start().await;
    let skipping = painted(&Request {
        clip_skip: 1,
        ..request()
    });
    assert!(skipping != painted(&request()), "a layer less changes nothing");

    let mut a1111 = json!({"prompt": "a red apple", "seed": 11, "width": 64, "height": 48, "steps": 3, "cfg_scale": 0,
        "sampler_name": "Euler a", "override_settings": {"CLIP_stop_at_last_layers": 2}});
    let answer = server.post_ok("/sdapi/v1/txt2img", &a1111).await;
    same(&from_base64(answer["images"][0].as_str().unwrap()), &skipping, "A1111");
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert_eq!(info["clip_skip"], 2);
    a1111["override_settings"] = json!({"CLIP_stop_at_last_layers": 1});
    let answer = server.post_ok("/sdapi/v1/txt2img", &a1111).await;
    same(
        &from_base64(answer["images"][0].as_str().unwrap()),
        &painted(&request()),
        "all layers",
    );

    let prediction = json!({"input": {"prompt": "a red apple", "seed": 11, "width": 64, "height": 48, "num_inference_steps": 3,
        "guidance_scale": 0, "scheduler": "K_EULER_ANCESTRAL", "clip_skip": 1}});
    let answer = server.post_ok("/v1/predictions", &prediction).await;
    same(&predicted(&answer), &skipping, "prediction");
}

#[tokio::test]
async fn predictions_take_guidance_rescale_and_the_size_conditioning() {
    let server = Server::start().await;
    let plain = Request {
        guidance_scale: Some(5.0),
        ..request()
    };
    let expected = painted(&Request {
        guidance_rescale: 0.7,
        original_size: Some([256, 512]),
        crops_coords_top_left: [16, 32],
        target_size: Some([96, 80]),
        ..plain.clone()
    });
    assert!(expected != painted(&plain), "none of it changes anything");
    let prediction = json!({"input": {"prompt": "a red apple", "seed": 11, "width": 64, "height": 48, "num_inference_steps": 3,
        "guidance_scale": 5, "scheduler": "K_EULER_ANCESTRAL", "guidance_rescale": 0.7, "original_size": [256, 512],
        "crops_coords_top_left": [16, 32], "target_size": [96, 80]}});
    let answer = server.post_ok("/v1/predictions", &prediction).await;
    same(&predicted(&answer), &expected, "prediction");
}

fn predicted(answer: &Value) -> Picture {
    let url = answer["output"][0].as_str().unwrap();
    from_base64(url.strip_prefix("data:image/png;base64,").unwrap())
}

#[tokio::test]
async fn openai_answers_with_its_own_fields() {
    let server = Server::start().await;
    let body = json!({"prompt": "a cat", "model": "dall-e-3", "n": 2, "size": "auto", "num_inference_steps": 1, "output_format": "jpeg"});
    let answer = server.post_ok("/v1/images/generations", &body).await;
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    assert_eq!(
        (answer["output_format"].as_str(), answer["size"].as_str()),
        (Some("jpeg"), Some("64x64"))
    );
    assert!(answer["usage"]["input_tokens"].as_u64().unwrap() >= 3 && answer["created"].as_u64().unwrap() > 0);
    let body = json!({"prompt": "a cat", "num_inference_steps": 1, "response_format": "url"});
    let answer = server.post_ok("/v1/images/generations", &body).await;
    assert!(
        answer["data"][0]["url"]
            .as_str()
            .unwrap()
            .starts_with("data:image/png;base64,")
    );
    let models: Value = server.get("/v1/models").await.json().await.unwrap();
    assert_eq!(models["data"][0]["id"], "tiny-sdxl");
    assert_eq!(server.get("/v1/models/tiny-sdxl").await.status(), 200);
    assert_eq!(server.get("/v1/models/gpt-image-1").await.status(), 404);
}

#[tokio::test]
async fn openais_pictures_are_the_images_of_one_seed() {
    let server = Server::start().await;
    let body = json!({"prompt": "a red apple", "seed": 11, "size": "64x48", "num_inference_steps": 3, "scheduler": "euler_a",
        "guidance_scale": 0, "n": 3});
    let answer = server.post_ok("/v1/images/generations", &body).await;
    let expected = all_painted(&Request {
        num_images: 3,
        ..request()
    });
    for (index, expected) in expected.iter().enumerate() {
        let found = from_base64(answer["data"][index]["b64_json"].as_str().unwrap());
        same(&found, expected, &format!("image {index}"));
    }
    assert!(expected[0] != expected[1] && expected.len() == 3);
}

#[tokio::test]
async fn openai_streams_partial_images_and_then_the_picture() {
    let server = Server::start().await;
    let body = json!({"prompt": "a red apple", "seed": 11, "size": "64x48", "num_inference_steps": 3, "scheduler": "euler_a",
        "guidance_scale": 0, "stream": true, "partial_images": 2});
    let response = server.post("/v1/images/generations", &body).await;
    assert!(
        response.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/event-stream")
    );
    let text = response.text().await.unwrap();
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let kinds: Vec<&str> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    let partial = "image_generation.partial_image";
    assert_eq!(kinds, [partial, partial, "image_generation.completed"]);
    assert_eq!(
        (
            events[0]["partial_image_index"].as_u64(),
            events[1]["partial_image_index"].as_u64()
        ),
        (Some(0), Some(1))
    );
    same(
        &from_base64(events[2]["b64_json"].as_str().unwrap()),
        &painted(&request()),
        "streamed",
    );
    assert!(events[2]["usage"]["total_tokens"].is_u64());
}

#[tokio::test]
async fn a1111_batches_count_their_seeds_up_and_say_how_each_was_painted() {
    let server = Server::start().await;
    let body = json!({"prompt": "a cat", "negative_prompt": "dogs", "seed": 5, "steps": 1, "cfg_scale": 1, "batch_size": 2, "n_iter": 2});
    let answer = server.post_ok("/sdapi/v1/txt2img", &body).await;
    assert_eq!(answer["images"].as_array().unwrap().len(), 4);
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert_eq!(info["all_seeds"], json!([5, 6, 7, 8]));
    assert_eq!(info["sd_model_name"], "tiny-sdxl");
    assert!(info["infotexts"][3].as_str().unwrap().contains("Seed: 8"));
    assert!(
        info["comments"].to_string().contains("negative prompt has no effect"),
        "{info}"
    );
    let third = json!({"prompt": "a cat", "seed": 7, "steps": 1, "cfg_scale": 1});
    let alone = server.post_ok("/sdapi/v1/txt2img", &third).await;
    same(
        &from_base64(alone["images"][0].as_str().unwrap()),
        &from_base64(answer["images"][2].as_str().unwrap()),
        "the third of the batch",
    );
}

#[tokio::test]
async fn a1111_reads_the_recipe_of_its_own_pictures() {
    let server = Server::start().await;
    let body = json!({"prompt": "a cat, \"red\"", "seed": 5, "steps": 1});
    let answer = server.post_ok("/sdapi/v1/txt2img", &body).await;
    let read = server
        .post_ok("/sdapi/v1/png-info", &json!({"image": answer["images"][0]}))
        .await;
    assert!(read["info"].as_str().unwrap().starts_with("a cat, \"red\"\nSteps: 1"));
    assert_eq!(read["parameters"]["Seed"], "5");
}

#[tokio::test]
async fn a1111_tells_progress_and_interrupts_one_request_by_its_id() {
    let server = Server::start().await;
    let slow = |id: &str| json!({"prompt": "slow", "seed": 5, "steps": 100, "width": 256, "height": 256, "force_task_id": id, "batch_size": 4});
    let idle: Value = server.get("/sdapi/v1/progress").await.json().await.unwrap();
    assert_eq!(
        (idle["progress"].as_f64(), idle["state"]["job_count"].as_u64()),
        (Some(0.0), Some(0))
    );
    let (a, b) = (slow("a"), slow("b"));
    let first = server.post("/sdapi/v1/txt2img", &a);
    let second = server.post("/sdapi/v1/txt2img", &b);
    let watch = async {
        loop {
            let progress: Value = server.get("/sdapi/v1/progress?task_id=a").await.json().await.unwrap();
            if progress["current_image"].is_string() && progress["progress"].as_f64() > Some(0.0) {
                break progress;
            }
        }
    };
    let control = async {
        let progress = watch.await;
        for id in ["nobody", "a"] {
            assert_eq!(
                server
                    .post(&format!("/sdapi/v1/interrupt?task_id={id}"), &json!({}))
                    .await
                    .status(),
                200
            );
        }
        progress
    };
    let all = async {
        let (first, progress) = tokio::join!(first, control);
        let still: Value = server.get("/sdapi/v1/progress?task_id=b").await.json().await.unwrap();
        assert_eq!(still["state"]["job"], "b", "the other request goes on");
        server.post("/sdapi/v1/interrupt", &json!({})).await;
        (first, progress)
    };
    let ((first, progress), _second) = tokio::join!(all, second);
    assert_eq!(progress["state"]["job"], "a");
    assert_eq!(progress["state"]["sampling_steps"], 100);
    let answer: Value = first.json().await.unwrap();
    let images = answer["images"].as_array().unwrap();
    assert!(!images.is_empty(), "an interrupted request answers with what it has");
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert_eq!(info["interrupted"], true);
}

#[tokio::test]
async fn every_api_s_request_is_asked_about_by_the_name_in_its_header() {
    let server = Server::start().await;
    for (path, body) in [
        (
            "/v1/images/generations",
            json!({"prompt": "slow", "num_inference_steps": 60, "size": "256x256"}),
        ),
        (
            "/v1/predictions",
            json!({"prompt": "slow", "steps": 60, "width": 256, "height": 256}),
        ),
        (
            "/sdapi/v1/txt2img",
            json!({"prompt": "slow", "steps": 60, "width": 256, "height": 256}),
        ),
    ] {
        let request = server.http.post(server.url(path)).header("prima-task", "mine");
        let painted = request.json(&body).send();
        let watched = async {
            loop {
                let progress: Value = server
                    .get("/sdapi/v1/progress?task_id=mine")
                    .await
                    .json()
                    .await
                    .unwrap();
                if progress["current_image"].is_string() && progress["progress"].as_f64() > Some(0.0) {
                    break progress;
                }
            }
        };
        let (painted, progress) = tokio::join!(painted, watched);
        assert!(painted.unwrap().status().is_success());
        assert_eq!(progress["state"]["sampling_steps"], 60, "{path}");
        let over: Value = server
            .get("/sdapi/v1/progress?task_id=mine")
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(over["state"]["job_count"], 0);
    }
}

#[tokio::test]
async fn a1111_lists_what_clients_ask_for() {
    let server = Server::start().await;
    let get = async |path: &str| -> Value {
        let response = server.get(&format!("/sdapi/v1/{path}")).await;
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    };
    let lists = |list: &Value, key: &str, wanted: &[&str]| {
        for wanted in wanted {
            assert!(list.as_array().unwrap().iter().any(|s| s[key] == *wanted), "{wanted}");
        }
    };
    let samplers = get("samplers").await;
    lists(
        &samplers,
        "name",
        &["Euler", "Euler a", "DPM++ 2M SDE", "DPM++ SDE", "UniPC"],
    );
    let schedulers = get("schedulers").await;
    let labels = [
        "Automatic",
        "Uniform",
        "Karras",
        "Exponential",
        "Polyexponential",
        "SGM Uniform",
        "KL Optimal",
        "Align Your Steps",
        "Simple",
        "Normal",
        "DDIM",
        "Beta",
        "Turbo",
    ];
    lists(&schedulers, "label", &labels);
    // What is listed is understood, by either name.
    for schedule in schedulers.as_array().unwrap() {
        for key in ["name", "label"] {
            let name = schedule[key].as_str().unwrap();
            assert!(TimestepSpacing::from_a1111(name).is_ok(), "{name}");
        }
    }
    assert_eq!(get("sd-models").await[0]["title"], "tiny-sdxl");
    assert_eq!(get("options").await["sd_model_checkpoint"], "tiny-sdxl");
    for path in [
        "sd-vae",
        "loras",
        "embeddings",
        "prompt-styles",
        "memory",
        "cmd-flags",
        "upscalers",
        "scripts",
    ] {
        get(path).await;
    }
    assert_eq!(
        server.post("/sdapi/v1/refresh-checkpoints", &json!({})).await.status(),
        200
    );
    assert_eq!(
        server
            .post("/sdapi/v1/options", &json!({"sd_model_checkpoint": "tiny-sdxl"}))
            .await
            .status(),
        200
    );
    assert_eq!(
        server
            .refused("/sdapi/v1/options", &json!({"sd_model_checkpoint": "other"}))
            .await
            .0,
        422
    );
    let larger = server
        .post_ok(
            "/sdapi/v1/extra-single-image",
            &json!({"image": to_base64(&png(8, 4)), "upscaler_1": "Nearest"}),
        )
        .await;
    let larger = from_base64(larger["image"].as_str().unwrap());
    assert_eq!((larger.width, larger.height), (16, 8));
}

#[tokio::test]
async fn a_request_ends_when_its_client_goes_away() {
    let server = Server::start().await;
    let body = json!({"prompt": "slow", "steps": 100, "width": 512, "height": 512});
    let sent = server
        .http
        .post(server.url("/sdapi/v1/txt2img"))
        .json(&body)
        .timeout(std::time::Duration::from_millis(300));
    assert!(sent.send().await.unwrap_err().is_timeout());
    while server.engine.occupancy() != prima_engine::Occupancy::default() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let server = Server::with(|o| o.max_jobs = 1).await;
    let slow = json!({"prompt": "slow", "steps": 100, "width": 512, "height": 512});
    let first = server
        .http
        .post(server.url("/v1/images/generations"))
        .json(&json!({"prompt": "slow", "num_inference_steps": 100, "size": "512x512"}));
    let first = tokio::spawn(first.send());
    while server.engine.occupancy().jobs == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let response = server.post("/sdapi/v1/txt2img", &slow).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "2");
    let body: Value = response.json().await.unwrap();
    assert!(body["detail"].as_str().unwrap().contains("too many requests"), "{body}");
    first.abort();
}

#[tokio::test]
async fn loras_are_named_in_every_api_and_listed_without_their_paths() {
    let folder = model_folder().join("../loras");
    let server = Server::with_loras(folder.clone()).await;
    let listed: Value = server.get("/sdapi/v1/loras").await.json().await.unwrap();
    let names: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|lora| lora["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"kohya") && names.contains(&"loha"), "{names:?}");
    assert!(!listed.to_string().contains("goldens"), "{listed}");
    assert_eq!(server.post("/sdapi/v1/refresh-loras", &json!({})).await.status(), 200);

    let sized = json!({"prompt": "a cat", "seed": 3, "width": 64, "height": 64, "steps": 1, "size": "64x64"});
    let ask = |changes: Value| {
        let mut body = sized.clone();
        body.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        body
    };
    let by_a1111 = async |prompt: &str| {
        let answer = server
            .post_ok("/sdapi/v1/txt2img", &ask(json!({"prompt": prompt})))
            .await;
        let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
        (from_base64(answer["images"][0].as_str().unwrap()), info)
    };
    let (plain, _) = by_a1111("a cat").await;
    let (tagged, info) = by_a1111("a cat <lora:kohya:0.7>").await;
    assert_ne!(plain.rgb, tagged.rgb);
    assert!(
        info["infotexts"][0]
            .as_str()
            .unwrap()
            .contains("Lora hashes: \"kohya: "),
        "{info}"
    );
    let (same, info) = by_a1111("a cat <lora:detail:0.8>").await;
    assert_eq!(plain.rgb, same.rgb);
    let said = info["comments"].to_string();
    assert!(
        said.contains("no LoRA") && said.contains("detail") && said.contains("kohya"),
        "{said}"
    );

    let loras = json!([{"name": "kohya", "weight": 0.7}]);
    let openai = ask(json!({"loras": loras, "num_inference_steps": 1}));
    let answer = server.post_ok("/v1/images/generations", &openai).await;
    assert_eq!(
        from_base64(answer["data"][0]["b64_json"].as_str().unwrap()).rgb,
        tagged.rgb
    );
    let answer = server.post("/v1/predictions", &ask(json!({"loras": loras}))).await;
    let answer: Value = answer.json().await.unwrap();
    let picture = answer["output"][0]
        .as_str()
        .unwrap()
        .split_once(',')
        .unwrap()
        .1
        .to_owned();
    assert_eq!(from_base64(&picture).rgb, tagged.rgb);

    let path = folder.join("kohya.safetensors").display().to_string();
    for (route, name) in [
        ("/v1/images/generations", "detail"),
        ("/v1/predictions", &path),
        ("/v1/images/generations", "../loras/kohya"),
    ] {
        let (status, message) = server.refused(route, &ask(json!({"loras": [name]}))).await;
        assert!(
            (400..500).contains(&status) && message.to_string().contains("known are"),
            "{status} {message}"
        );
    }
}
