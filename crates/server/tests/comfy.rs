//! ComfyUI's API as programs use it: a graph is sent, a socket tells of it, history and view give the pictures.

mod common;

use common::{Live, Server, painted, png, request_of_graphs, same};
use futures_util::StreamExt;
use prima_pipeline::{InitImage, Picture, Region, Request, ScheduleOptions};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// ComfyUI's default workflow on this server's model.
fn graph() -> Value {
    json!({
        "3": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 3, "cfg": 4.0, "sampler_name": "euler",
            "scheduler": "normal", "denoise": 1.0, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0],
            "latent_image": ["5", 0]}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny-sdxl"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a (red) apple", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "a pear", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
    })
}

fn request() -> Request {
    request_of_graphs("a (red) apple", 3)
}

/// What a socket hears until its prompt is over: the texts, and the files with their formats.
async fn heard(live: &mut Live) -> (Vec<Value>, Vec<(u32, Vec<u8>)>) {
    let (mut texts, mut files) = (Vec::new(), Vec::new());
    loop {
        match live.socket.next().await.unwrap().unwrap() {
            Message::Text(text) => {
                let text: Value = serde_json::from_str(&text).unwrap();
                let over = text["type"] == "executing" && text["data"]["node"].is_null();
                texts.push(text);
                if over {
                    return (texts, files);
                }
            }
            Message::Binary(bytes) => {
                let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
                assert_eq!(number(0), 1);
                files.push((number(4), bytes[8..].to_vec()));
            }
            _ => {}
        }
    }
}

/// The answer to a graph, what the socket heard of it, and its entry in the history.
async fn run(server: &Server, graph: &Value) -> (Vec<Value>, Vec<(u32, Vec<u8>)>, Value) {
    let mut live = server.live_at("/ws?clientId=me", &[]).await;
    let answer = server
        .post_ok("/prompt", &json!({"prompt": graph, "client_id": "me"}))
        .await;
    let id = answer["prompt_id"].as_str().unwrap().to_owned();
    assert_eq!(answer["node_errors"], json!({}));
    let (texts, files) = heard(&mut live).await;
    let history = server
        .get(&format!("/history/{id}"))
        .await
        .json::<Value>()
        .await
        .unwrap();
    (texts, files, history[&id].clone())
}

async fn viewed(server: &Server, image: &Value) -> Picture {
    let query = format!(
        "/view?filename={}&subfolder=&type={}",
        image["filename"].as_str().unwrap(),
        image["type"].as_str().unwrap()
    );
    let response = server.get(&query).await;
    assert_eq!(response.status(), 200, "{query}");
    assert_eq!(response.headers()["content-type"], "image/png");
    Picture::decode(&response.bytes().await.unwrap(), "view").unwrap()
}

#[tokio::test]
async fn the_default_workflow_paints_what_paint_makes_and_tells_of_it() {
    let server = Server::start().await;
    let (texts, files, history) = run(&server, &graph()).await;
    let kinds: Vec<&str> = texts.iter().map(|text| text["type"].as_str().unwrap()).collect();
    for kind in [
        "status",
        "execution_start",
        "executing",
        "progress",
        "executed",
        "execution_success",
    ] {
        assert!(kinds.contains(&kind), "{kind} is not in {kinds:?}");
    }
    let progress: Vec<&Value> = texts
        .iter()
        .filter(|t| t["type"] == "progress")
        .map(|t| &t["data"]["value"])
        .collect();
    assert_eq!(progress, [1, 2, 3]);
    assert!(
        !files.is_empty()
            && files
                .iter()
                .all(|(kind, file)| *kind == 1 && file.starts_with(b"\xff\xd8"))
    );
    assert_eq!(history["status"]["status_str"], "success");
    let image = &history["outputs"]["9"]["images"][0];
    assert_eq!(image["filename"], "ComfyUI_00001_.png");
    same(&viewed(&server, image).await, &painted(&request()), "the workflow");
    let queue = server.get("/queue").await.json::<Value>().await.unwrap();
    assert_eq!(queue, json!({"queue_running": [], "queue_pending": []}));
    assert_eq!(
        server
            .get("/api/history?max_items=0")
            .await
            .json::<Value>()
            .await
            .unwrap(),
        json!({})
    );
}

#[tokio::test]
async fn an_uploaded_picture_is_scaled_and_painted_over() {
    let server = Server::start().await;
    let file = reqwest::multipart::Part::bytes(png(96, 64)).file_name("../my cat.png");
    let form = reqwest::multipart::Form::new().part("image", file);
    let named = server
        .post_form("/upload/image", form)
        .await
        .json::<Value>()
        .await
        .unwrap();
    assert_eq!(named, json!({"name": "my cat.png", "subfolder": "", "type": "input"}));
    let mut graph = graph();
    graph["10"] = json!({"class_type": "LoadImage", "inputs": {"image": "my cat.png"}});
    graph["11"] = json!({"class_type": "ImageScale", "inputs": {"image": ["10", 0], "upscale_method": "lanczos", "width": 64,
        "height": 48, "crop": "disabled"}});
    graph["5"] = json!({"class_type": "VAEEncode", "inputs": {"pixels": ["11", 0], "vae": ["4", 2]}});
    graph["3"]["inputs"]["denoise"] = json!(0.5);
    graph["9"] = json!({"class_type": "SaveImageWebsocket", "inputs": {"images": ["8", 0]}});
    graph["12"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["11", 0]}});
    let (_, files, history) = run(&server, &graph).await;
    let scaled = Picture::decode(&png(96, 64), "test").unwrap().resized(64, 48);
    // Three steps of half of the way are the last three of six.
    let expected = painted(&Request {
        init_image: Some(InitImage {
            picture: scaled.clone(),
            strength: Some(0.5),
        }),
        schedule: ScheduleOptions {
            num_inference_steps: Some(6),
            ..request().schedule
        },
        ..request()
    });
    let (kind, file) = files.last().unwrap();
    assert_eq!(*kind, 2);
    same(&Picture::decode(file, "socket").unwrap(), &expected, "img2img");
    let preview = &history["outputs"]["12"]["images"][0];
    assert_eq!(preview["type"], "temp");
    same(&viewed(&server, preview).await, &scaled, "preview");
}

#[tokio::test]
async fn areas_are_regions() {
    let server = Server::start().await;
    let mut graph = graph();
    graph["10"] = json!({"class_type": "CLIPTextEncode", "inputs": {"text": "a house", "clip": ["4", 1]}});
    graph["11"] = json!({"class_type": "ConditioningSetArea", "inputs": {"conditioning": ["10", 0], "x": 32, "y": 0,
        "width": 32, "height": 48, "strength": 1.0}});
    graph["12"] = json!({"class_type": "CLIPTextEncode", "inputs": {"text": "the sea", "clip": ["4", 1]}});
    graph["13"] = json!({"class_type": "ConditioningSetAreaPercentage", "inputs": {"conditioning": ["12", 0], "x": 0.0,
        "y": 0.5, "width": 1.0, "height": 0.5, "strength": 3.0}});
    graph["14"] = json!({"class_type": "ConditioningCombine", "inputs": {"conditioning_1": ["11", 0], "conditioning_2": ["13", 0]}});
    graph["15"] = json!({"class_type": "ConditioningCombine", "inputs": {"conditioning_1": ["14", 0], "conditioning_2": ["6", 0]}});
    graph["3"]["inputs"]["positive"] = json!(["15", 0]);
    let (_, _, entry) = run(&server, &graph).await;
    let image = &entry["outputs"]["9"]["images"][0];
    let region = |prompt: &str, area, share| Region {
        prompt: prompt.to_owned(),
        area,
        share,
    };
    let wanted = Request {
        regions: vec![
            region("a house", [0.5, 0.0, 1.0, 1.0], 0.5),
            region("the sea", [0.0, 0.5, 1.0, 1.0], 0.75),
        ],
        ..request()
    };
    same(&viewed(&server, image).await, &painted(&wanted), "areas");

    graph["3"]["inputs"]["positive"] = json!(["14", 0]);
    let (_, body) = server.refused("/prompt", &json!({"prompt": graph})).await;
    assert!(body.to_string().contains("ConditioningCombine"), "{body}");
}

#[tokio::test]
async fn graphs_that_are_not_understood_are_refused_by_node() {
    let server = Server::start().await;
    let with = |path: &[&str], value: Value| {
        let mut graph = graph();
        let (last, first) = path.split_last().unwrap();
        let mut place = &mut graph;
        for key in first {
            place = &mut place[*key];
        }
        place[*last] = value;
        graph
    };
    let mut many = graph();
    many["20"] = json!({"class_type": "PhotoMakerEncode", "inputs": {}});
    many["21"] = json!({"class_type": "IPAdapter", "inputs": {}});
    let mut lora = with(&["3", "inputs", "model"], json!(["11", 0]));
    lora["11"] = json!({"class_type": "LoraLoader", "inputs": {"lora_name": "gone", "strength_model": 1.0, "strength_clip": 1.0,
        "model": ["4", 0], "clip": ["4", 1]}});
    for (graph, words) in [
        (json!({}), &["no outputs"][..]),
        (lora, &["there is no LoRA \"gone\" here"]),
        (many, &["does not have these nodes: PhotoMakerEncode, IPAdapter"]),
        (
            with(&["4", "inputs", "ckpt_name"], json!("other.safetensors")),
            &["other.safetensors", "tiny-sdxl"],
        ),
        (
            with(&["3", "inputs", "latent_image"], json!(["99", 0])),
            &["latent_image", "comes from no node"],
        ),
        (with(&["3", "inputs", "latent_image"], json!(["3", 0])), &["circle"]),
        (
            with(&["3", "inputs", "positive"], json!(["5", 0])),
            &["positive of 3 (KSampler)", "EmptyLatentImage"],
        ),
        (with(&["3", "inputs", "sampler_name"], json!("sideways")), &["sideways"]),
        (with(&["3", "inputs", "steps"], json!(101)), &["steps 101"]),
        (
            with(&["3", "inputs", "seed"], json!("x")),
            &["seed \"x\" of 3 (KSampler)"],
        ),
        (with(&["5", "inputs", "width"], json!(2)), &["width 2"]),
        (
            with(&["6", "inputs"], json!({"clip": ["4", 1]})),
            &["6 (CLIPTextEncode) has no text"],
        ),
        (with(&["8", "inputs", "samples"], json!(["5", 0])), &["nothing sampled"]),
        (
            with(
                &["5"],
                json!({"class_type": "VAEEncode", "inputs": {"vae": ["4", 2], "pixels": ["10", 0]}}),
            ),
            &["comes from no node"],
        ),
    ] {
        let (status, body) = server.refused("/prompt", &json!({"prompt": graph})).await;
        let said = body["error"]["message"].as_str().unwrap_or_else(|| panic!("{body}"));
        assert_eq!(status, 400, "{body}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
        assert!(body["node_errors"].is_object(), "{body}");
    }
    let (status, _) = server.refused("/prompt", &json!({"client_id": "me"})).await;
    assert_eq!(status, 400);
    for missing in ["/view?filename=../../etc/passwd", "/view?filename=a.png&type=elsewhere"] {
        assert_eq!(server.get(missing).await.status(), 404, "{missing}");
    }
}

#[tokio::test]
async fn waiting_prompts_can_be_forgotten_and_a_running_one_ended() {
    let server = Server::start().await;
    let mut slow = graph();
    slow["3"]["inputs"]["steps"] = json!(100);
    slow["5"]["inputs"] = json!({"width": 256, "height": 256, "batch_size": 4});
    let mut live = server.live_at("/ws?clientId=me", &[]).await;
    let body = json!({"prompt": slow, "client_id": "me"});
    let (first, second) = (
        server.post_ok("/prompt", &body).await,
        server.post_ok("/prompt", &body).await,
    );
    let queue = || async { server.get("/queue").await.json::<Value>().await.unwrap() };
    while queue().await["queue_running"].as_array().unwrap().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(queue().await["queue_pending"][0][1], second["prompt_id"]);
    let delete = json!({"delete": [second["prompt_id"]]});
    assert_eq!(server.post("/queue", &delete).await.status(), 200);
    assert!(queue().await["queue_pending"].as_array().unwrap().is_empty());
    assert_eq!(server.post("/interrupt", &json!({})).await.status(), 200);
    let (texts, _) = heard(&mut live).await;
    assert!(
        texts.iter().any(|text| text["type"] == "execution_interrupted"),
        "{texts:?}"
    );
    let id = first["prompt_id"].as_str().unwrap();
    let history = server.get("/history").await.json::<Value>().await.unwrap();
    assert_eq!(history[id]["status"]["completed"], false);
    assert_eq!(server.post("/history", &json!({"clear": true})).await.status(), 200);
    assert_eq!(server.get("/history").await.json::<Value>().await.unwrap(), json!({}));
}

#[tokio::test]
async fn the_lists_hold_what_a_graph_may_say() {
    let server = Server::start().await;
    let info = server.get("/object_info").await.json::<Value>().await.unwrap();
    let required = |node: &str, input: &str| info[node]["input"]["required"][input][0].clone();
    assert_eq!(required("CheckpointLoaderSimple", "ckpt_name"), json!(["tiny-sdxl"]));
    assert!(
        required("KSampler", "sampler_name")
            .as_array()
            .unwrap()
            .contains(&json!("dpmpp_2m"))
    );
    let one = server
        .get("/api/object_info/SaveImage")
        .await
        .json::<Value>()
        .await
        .unwrap();
    assert_eq!(one["SaveImage"]["output_node"], true);
    let models = server.get("/models/checkpoints").await.json::<Value>().await.unwrap();
    assert_eq!(models, json!(["tiny-sdxl"]));
    let stats = server.get("/system_stats").await.json::<Value>().await.unwrap();
    assert!(
        stats["system"]["comfyui_version"]
            .as_str()
            .unwrap()
            .starts_with("prima")
    );
    assert_eq!(
        server.get("/prompt").await.json::<Value>().await.unwrap()["exec_info"]["queue_remaining"],
        0
    );
}
