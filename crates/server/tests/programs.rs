//! Programs that take prima for the server they know.
//!
//! Krita's plugin for image generation asks a ComfyUI, in this order, for the device, a socket and the nodes; then it sends pictures by
//! ids and graphs with a sampler in parts. Its own check for nodes of other packages has to be off (docs/serving.md). SillyTavern's
//! server asks an A1111 or a ComfyUI for lists, sets the model, and sends a text.

mod common;

use common::{Live, Server, all_painted, from_base64, png, request_of_graphs, same};
use futures_util::StreamExt;
use prima_pipeline::{InitImage, Picture, Request};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// The plugin's graph for a text, with a sampler of `steps` that leaves out the first `skipped`.
fn graph(steps: usize, skipped: usize) -> Value {
    let mut graph = json!({
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny-sdxl"}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a red apple"}},
        "4": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a pear"}},
        "5": {"class_type": "CFGGuider", "inputs": {"model": ["1", 0], "positive": ["3", 0], "negative": ["4", 0], "cfg": 4.0}},
        "6": {"class_type": "BasicScheduler",
              "inputs": {"model": ["1", 0], "scheduler": "normal", "steps": steps, "denoise": 1.0}},
        "7": {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}},
        "8": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "9": {"class_type": "SamplerCustomAdvanced", "inputs": {"noise": ["7", 0], "guider": ["5", 0], "sampler": ["8", 0],
              "sigmas": ["6", 0], "latent_image": ["2", 0]}},
        "10": {"class_type": "VAEDecode", "inputs": {"vae": ["1", 2], "samples": ["9", 1]}},
        "11": {"class_type": "ETN_SaveImageCache", "inputs": {"images": ["10", 0], "format": "PNG"}},
    });
    if skipped > 0 {
        graph["12"] = json!({"class_type": "SplitSigmas", "inputs": {"sigmas": ["6", 0], "step": skipped}});
        graph["9"]["inputs"]["sigmas"] = json!(["12", 1]);
    }
    graph
}

fn request(steps: usize) -> Request {
    request_of_graphs("a red apple", steps)
}

/// Sends a graph under the plugin's own id, listens until it is over, and fetches what was executed.
async fn pictures(server: &Server, socket: &mut Live, id: &str, graph: &Value) -> Vec<Picture> {
    let body = json!({"prompt": graph, "client_id": "krita", "prompt_id": id});
    assert_eq!(server.post_ok("/prompt", &body).await["prompt_id"], id);
    let mut images = Vec::new();
    loop {
        let Message::Text(text) = socket.socket.next().await.unwrap().unwrap() else {
            continue;
        };
        let said: Value = serde_json::from_str(&text).unwrap();
        let data = &said["data"];
        match said["type"].as_str().unwrap() {
            "executed" => images.extend(data["output"]["images"].as_array().unwrap().clone()),
            "executing" if data["node"].is_null() && data["prompt_id"] == id => break,
            "execution_error" => panic!("{said}"),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for image in images {
        assert_eq!(image["source"], "http");
        let file = server
            .get(&format!("/api/etn/image/{}", image["id"].as_str().unwrap()))
            .await;
        assert_eq!(file.headers()["content-type"], "image/png");
        found.push(Picture::decode(&file.bytes().await.unwrap(), "painted").unwrap());
    }
    found
}

#[tokio::test]
async fn krita_paints_a_text_and_paints_over_a_picture() {
    let server = Server::start().await;
    let stats: Value = server.get("/system_stats").await.json().await.unwrap();
    let device = &stats["devices"][0];
    assert!(device["name"].is_string() && device["vram_total"].is_u64() && device["type"] == "cpu");
    let mut socket = server.live_at("/ws?clientId=krita", &[]).await;
    let nodes: Value = server.get("/object_info").await.json().await.unwrap();
    for node in graph(4, 1).as_object().unwrap().values() {
        assert!(nodes[node["class_type"].as_str().unwrap()].is_object(), "{node}");
    }
    assert!(nodes["IPAdapter"].is_null(), "what is not here is not said to be");

    let found = pictures(&server, &mut socket, "first", &graph(3, 0)).await;
    assert_eq!(found.len(), 1);
    same(&found[0], &all_painted(&request(3))[0], "a text");

    let put = server.http.put(server.url("/api/etn/image/1a2b3c4d")).body(png(64, 48));
    assert!(put.send().await.unwrap().status().is_success());
    let mut over = graph(4, 1);
    over["13"] = json!({"class_type": "ETN_LoadImageCache", "inputs": {"id": "1a2b3c4d"}});
    over["14"] = json!({"class_type": "VAEEncode", "inputs": {"vae": ["1", 2], "pixels": ["13", 0]}});
    over["15"] = json!({"class_type": "RepeatLatentBatch", "inputs": {"samples": ["14", 0], "amount": 2}});
    over["9"]["inputs"]["latent_image"] = json!(["15", 0]);
    let found = pictures(&server, &mut socket, "second", &over).await;
    let expected = all_painted(&Request {
        num_images: 2,
        init_image: Some(InitImage {
            picture: Picture::decode(&png(64, 48), "initial").unwrap(),
            strength: Some(0.75),
        }),
        ..request(4)
    });
    assert_eq!(found.len(), 2);
    for (found, expected) in found.iter().zip(&expected) {
        same(found, expected, "three of four steps over a picture");
    }
}

#[tokio::test]
async fn graphs_and_pictures_that_krita_could_send_wrongly_are_refused() {
    let server = Server::start().await;
    let put = |id: &str, body: Vec<u8>| {
        server
            .http
            .put(server.url(&format!("/api/etn/image/{id}")))
            .body(body)
            .send()
    };
    assert_eq!(put("a%2Fb", png(8, 8)).await.unwrap().status(), 400);
    assert!(
        put("id", b"no picture".to_vec())
            .await
            .unwrap()
            .status()
            .is_client_error()
    );
    assert_eq!(server.get("/api/etn/image/id").await.status(), 404);
    let changed = |node: &str, input: &str, value: Value| {
        let mut graph = graph(3, 1);
        graph[node]["inputs"][input] = value;
        json!({"prompt": graph})
    };
    for (body, part) in [
        (changed("12", "step", json!(3)), "leaves no step"),
        (changed("9", "guider", json!(["1", 0])), "CFGGuider or BasicGuider"),
        (changed("8", "sampler_name", json!("euler_cfgpp")), "euler_cfgpp"),
        (changed("7", "noise_seed", json!("x")), "noise_seed"),
        (changed("9", "sigmas", json!(["12", 0])), "sigmas"),
        (changed("6", "denoise", json!(0.5)), "SplitSigmas for a part"),
    ] {
        let (status, answer) = server.refused("/prompt", &body).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.to_string().contains(part), "{part}: {answer}");
    }
}

#[tokio::test]
async fn sillytavern_lists_sets_the_model_and_paints_through_the_web_uis_api() {
    let server = Server::start().await;
    let list = async |path: &str| -> Value { server.get(&format!("/sdapi/v1/{path}")).await.json().await.unwrap() };
    let names = |list: &Value, key: &str| {
        let rows = list.as_array().unwrap().iter();
        rows.map(|row| row[key].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for (path, key) in [
        ("upscalers", "name"),
        ("latent-upscale-modes", "name"),
        ("sd-vae", "model_name"),
        ("samplers", "name"),
        ("schedulers", "name"),
        ("sd-models", "title"),
    ] {
        names(&list(path).await, key);
    }
    let model = names(&list("sd-models").await, "title").swap_remove(0);
    server
        .post_ok("/sdapi/v1/options", &json!({"sd_model_checkpoint": model}))
        .await;
    assert_eq!(list("options").await["sd_model_checkpoint"], json!(model));
    let progress = list("progress").await;
    assert_eq!(progress["progress"].as_f64(), Some(0.0));
    assert_eq!(progress["state"]["job_count"], 0);
    // As its server passes its page's settings on.
    let body = json!({
        "url": server.url(""), "auth": "", "prompt": "a red apple", "negative_prompt": "a pear", "sampler_name": "Euler",
        "scheduler": "Normal", "steps": 3, "cfg_scale": 4, "width": 64, "height": 48, "restore_faces": false,
        "enable_hr": false, "hr_upscaler": "Latent", "hr_scale": 2, "hr_additional_modules": [],
        "denoising_strength": 0.7, "hr_second_pass_steps": 0, "seed": 5,
        "override_settings": {"CLIP_stop_at_last_layers": 1},
        "override_settings_restore_afterwards": true, "clip_skip": 1, "save_images": true, "send_images": true,
        "do_not_save_grid": false, "do_not_save_samples": false,
    });
    let answer = server.post_ok("/sdapi/v1/txt2img", &body).await;
    let found = from_base64(answer["images"][0].as_str().unwrap());
    assert_eq!((found.width, found.height), (64, 48));
}

#[tokio::test]
async fn sillytavern_finds_its_lists_in_comfyuis_nodes() {
    let server = Server::start().await;
    assert!(server.get("/system_stats").await.status().is_success());
    let nodes: Value = server.get("/object_info").await.json().await.unwrap();
    let list = |class: &str, input: &str| nodes[class]["input"]["required"][input][0].as_array().unwrap().clone();
    assert!(list("KSampler", "sampler_name").contains(&json!("euler")));
    assert!(list("KSampler", "scheduler").contains(&json!("normal")));
    assert_eq!(list("CheckpointLoaderSimple", "ckpt_name"), [json!("tiny-sdxl")]);
    assert!(list("UNETLoader", "unet_name").is_empty() && list("VAELoader", "vae_name").is_empty());
    let mut other = graph(3, 0);
    other["1"] = json!({"class_type": "UNETLoader", "inputs": {"unet_name": "x", "weight_dtype": "default"}});
    let (status, answer) = server.refused("/prompt", &json!({"prompt": other})).await;
    assert_eq!(status, 400, "{answer}");
}
