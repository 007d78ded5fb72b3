//! Several models behind one server: they are listed, chosen by each API under its own field, read when somebody wants them,
//! and unloaded where memory has no room for all.

mod common;

use common::{Got, Server, copied::copy, from_base64, model, paint, same};
use prima_engine::Library;
use prima_pipeline::{
    DType, LoadOptions, ModelSource, Picture, Pipeline, PromptSyntax, Request, ScheduleOptions, check_room,
    weight_bytes,
};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens").join(name)
}

/// A folder with `other` (a copy of the tiny LCM model) and `third` (another of the first).
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("tiny-lcm"), &folder.path().join("other"));
    copy(&golden("tiny-sdxl"), &folder.path().join("sub/third"));
    folder
}

async fn server(folder: &Path, load: LoadOptions) -> Server {
    Server::with_library(Library::new(Some(folder.to_owned()), None), load).await
}

fn request() -> Request {
    Request {
        prompt: "a red apple".into(),
        seed: 11,
        guidance_scale: Some(1.0),
        width: Some(64),
        height: Some(48),
        schedule: ScheduleOptions::steps(2),
        ..Request::default()
    }
}

fn painted_by(name: &str, request: &Request) -> Picture {
    let source = ModelSource::open(golden(name)).unwrap();
    let pipeline = Pipeline::load(&source, &LoadOptions::default()).unwrap();
    let response = pipeline.paint(request, &mut |_| ControlFlow::Continue(()));
    response.unwrap().pictures.swap_remove(0)
}

fn openai(model: &str) -> Value {
    json!({"prompt": "a red apple", "seed": 11, "size": "64x48", "num_inference_steps": 2, "guidance_scale": 1, "model": model})
}

fn first(answer: &Value) -> Picture {
    from_base64(answer["data"][0]["b64_json"].as_str().unwrap())
}

#[tokio::test]
async fn every_list_names_all_models_and_none_says_where_they_lie() {
    let folder = folder();
    let server = server(folder.path(), LoadOptions::default()).await;
    let names = json!(["tiny-sdxl", "other", "sub/third"]);
    let get = async |path: &str| server.get(path).await.json::<Value>().await.unwrap();
    let field =
        |list: &Value, key: &str| -> Value { list.as_array().unwrap().iter().map(|m| m[key].clone()).collect() };
    let models = get("/v1/models").await;
    assert_eq!(field(&models["data"], "id"), names);
    let models = get("/sdapi/v1/sd-models").await;
    assert_eq!(field(&models, "title"), names);
    assert_eq!(get("/sdapi/v1/options").await["sd_model_list"], names);
    assert_eq!(get("/models/checkpoints").await, names);
    let nodes = get("/object_info/CheckpointLoaderSimple").await;
    assert_eq!(
        nodes["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0],
        names
    );
    assert_eq!(server.live().await.hello["models"], names);
    let place = folder.path().display().to_string();
    for path in [
        "/v1/models",
        "/sdapi/v1/sd-models",
        "/sdapi/v1/options",
        "/object_info",
        "/readyz",
    ] {
        assert!(!get(path).await.to_string().contains(&place), "{path}");
    }
    assert_eq!(server.get("/v1/models/sub/third").await.status(), 200);
}

#[tokio::test]
async fn each_api_chooses_a_model_for_its_request() {
    let folder = folder();
    let server = server(folder.path(), LoadOptions::default()).await;
    let (here, other) = (painted_by("tiny-sdxl", &request()), painted_by("tiny-lcm", &request()));
    assert!(here != other);
    let post = async |path: &str, body: &Value| server.post_ok(path, body).await;
    same(
        &first(&post("/v1/images/generations", &openai("other")).await),
        &other,
        "openai",
    );
    same(
        &first(&post("/v1/images/generations", &openai("dall-e-3")).await),
        &here,
        "a name of elsewhere",
    );
    let prediction = json!({"model": "other", "input": {"prompt": "a red apple", "seed": 11, "width": 64, "height": 48,
        "num_inference_steps": 2, "guidance_scale": 1}});
    let answer = post("/v1/predictions", &prediction).await;
    let url = answer["output"][0].as_str().unwrap();
    same(
        &from_base64(url.strip_prefix("data:image/png;base64,").unwrap()),
        &other,
        "prediction",
    );
    let a1111 = |model: Value| {
        json!({"prompt": "a red apple", "seed": 11, "width": 64, "height": 48, "steps": 2, "cfg_scale": 1,
        "override_settings": model})
    };
    let as_a1111 = |name| {
        painted_by(
            name,
            &Request {
                prompt_syntax: PromptSyntax::A1111,
                ..request()
            },
        )
    };
    let of = |answer: &Value| from_base64(answer["images"][0].as_str().unwrap());
    let overridden = a1111(json!({"sd_model_checkpoint": "other [0123abcd]"}));
    same(
        &of(&post("/sdapi/v1/txt2img", &overridden).await),
        &as_a1111("tiny-lcm"),
        "override",
    );
    // For all who name none, from now on.
    post("/sdapi/v1/options", &json!({"sd_model_checkpoint": "other"})).await;
    same(
        &of(&post("/sdapi/v1/txt2img", &a1111(json!({}))).await),
        &as_a1111("tiny-lcm"),
        "the option",
    );
    let options: Value = server.get("/sdapi/v1/options").await.json().await.unwrap();
    assert_eq!(options["sd_model_checkpoint"], "other");
    same(
        &first(&post("/v1/images/generations", &openai("tiny-sdxl")).await),
        &here,
        "the first by its name",
    );
}

#[tokio::test]
async fn a_graph_paints_with_the_checkpoint_that_it_loads() {
    let folder = folder();
    let server = server(folder.path(), LoadOptions::default()).await;
    let graph = |name: &str| {
        json!({
            "3": {"class_type": "KSampler", "inputs": {"seed": 11, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal",
                "denoise": 1.0, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}},
            "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}},
            "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}},
            "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red apple", "clip": ["4", 1]}},
            "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
            "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
            "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["8", 0]}},
        })
    };
    let mut pictures = Vec::new();
    for name in ["other", "sub/third"] {
        pictures.push(server.graphs_picture(&graph(name), "9").await);
    }
    assert!(pictures[0] != pictures[1], "both were painted by one model");
    let (status, answer) = server.refused("/prompt", &json!({"prompt": graph("../other")})).await;
    assert!(status == 400 && answer.to_string().contains("no model"), "{answer}");
}

#[tokio::test]
async fn a_path_or_an_address_is_no_name_of_a_model() {
    let (folder, elsewhere) = (folder(), tempfile::tempdir().unwrap());
    copy(&golden("tiny-lcm"), &elsewhere.path().join("secret"));
    let server = server(folder.path(), LoadOptions::default()).await;
    let here = painted_by("tiny-sdxl", &request());
    let place = elsewhere.path().join("secret").display().to_string();
    let inside = folder.path().join("other").display().to_string();
    for name in [
        place.as_str(),
        &inside,
        "../secret",
        "other/../other",
        "https://example.org/model",
        "",
    ] {
        same(
            &first(&server.post_ok("/v1/images/generations", &openai(name)).await),
            &here,
            name,
        );
        if name.is_empty() {
            continue;
        }
        for (path, body) in [
            ("/sdapi/v1/options", json!({"sd_model_checkpoint": name})),
            (
                "/sdapi/v1/txt2img",
                json!({"prompt": "a", "override_settings": {"sd_model_checkpoint": name}}),
            ),
        ] {
            let (status, answer) = server.refused(path, &body).await;
            assert!(
                (400..500).contains(&status) && answer.to_string().contains("there is no model"),
                "{path} {answer}"
            );
        }
        let mut live = server.live().await;
        live.send(&json!({"type": "model", "name": name})).await;
        let answer = live.text().await;
        assert!(
            answer["type"] == "error" && answer["message"].as_str().unwrap().contains("there is no model"),
            "{answer}"
        );
    }
    let loaded: Vec<bool> = server.engine.models().iter().map(|model| model.loaded).collect();
    assert_eq!(loaded, [true, false, false], "something was read");
}

#[tokio::test]
async fn a_session_takes_another_model_and_others_keep_theirs() {
    let folder = folder();
    let server = server(folder.path(), LoadOptions::default()).await;
    let (mut one, mut two) = (server.live().await, server.live().await);
    one.send(&json!({"type": "model", "name": "other"})).await;
    let hello = loop {
        let text = one.text().await;
        if text["type"] == "hello" {
            break text;
        }
        assert_eq!(
            (&text["type"], &text["model"]),
            (&json!("loading"), &json!("other")),
            "{text}"
        );
    };
    assert_eq!(
        (&hello["chosen"], &hello["model"]["name"]),
        (&json!("other"), &json!("other"))
    );
    let mut last = Vec::new();
    for live in [&mut one, &mut two] {
        live.send(&paint(1, "a red apple")).await;
        last.push(live.frames_until(1).await.pop().unwrap().1);
    }
    let asked = Request {
        prompt: "a red apple".into(),
        seed: 7,
        schedule: ScheduleOptions::steps(2),
        ..Request::default()
    };
    same(&last[0], &painted_by("tiny-lcm", &asked), "the session that chose");
    same(&last[1], &painted_by("tiny-sdxl", &asked), "the other one");
}

/// Bytes with which the first model fits and no second one beside it.
fn room_for_one() -> LoadOptions {
    let with = |bytes| LoadOptions {
        max_memory: Some(bytes),
        ..LoadOptions::default()
    };
    let fits =
        |bytes| check_room(&model(), &with(bytes), &Request::default()).is_ok_and(|options| options.resident.is_none());
    let (mut least, mut most) = (1 << 20, 8 << 30);
    assert!(fits(most));
    while most - least > 4096 {
        let middle = usize::midpoint(least, most);
        if fits(middle) { most = middle } else { least = middle }
    }
    with(most + weight_bytes(&model(), DType::F32).unwrap() / 4)
}

#[tokio::test]
async fn the_model_wanted_longest_ago_goes_where_memory_is_bounded_and_comes_back() {
    let folder = folder();
    let server = server(folder.path(), room_for_one()).await;
    let loaded = || -> Vec<String> {
        let models = server.engine.models().into_iter().filter(|model| model.loaded);
        models.map(|model| model.name).collect()
    };
    assert_eq!(loaded(), ["tiny-sdxl"]);
    let here = painted_by("tiny-sdxl", &request());
    let path = "/v1/images/generations";
    same(
        &first(&server.post_ok(path, &openai("sub/third")).await),
        &here,
        "a copy of the first",
    );
    assert_eq!(loaded(), ["sub/third"]);
    same(
        &first(&server.post_ok(path, &openai("tiny-sdxl")).await),
        &here,
        "the first, read again",
    );
    assert_eq!(loaded(), ["tiny-sdxl"]);
}

#[tokio::test]
async fn who_paints_while_his_model_is_unloaded_gets_his_picture() {
    let folder = folder();
    let server = server(folder.path(), room_for_one()).await;
    let mut live = server.live().await;
    let long = json!({"type": "paint", "rev": 1, "prompt": "a red apple", "seed": 7, "steps": 24, "width": 192, "height": 192,
        "preview": false});
    live.send(&long).await;
    while server.engine.occupancy().begun == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let other = server.post_ok("/v1/images/generations", &openai("sub/third")).await;
    assert!(other["data"][0]["b64_json"].is_string());
    loop {
        match live.next().await {
            Got::Frame(header, _) if header["final"] == true => break,
            Got::Frame(..) => {}
            Got::Text(text) => assert_ne!(text["type"], "error", "{text}"),
            closed @ Got::Closed(..) => panic!("{closed:?}"),
        }
    }
    // And the next keystroke brings the model back.
    live.send(&paint(2, "a red pear")).await;
    loop {
        match live.next().await {
            Got::Frame(header, _) if header["rev"] == 2 && header["final"] == true => break,
            Got::Text(text) => assert_eq!(text["type"], "loading", "{text}"),
            Got::Frame(..) => {}
            closed @ Got::Closed(..) => panic!("{closed:?}"),
        }
    }
}

#[tokio::test]
async fn a_model_that_cannot_be_read_is_said_and_the_others_go_on() {
    let folder = folder();
    std::fs::write(folder.path().join("other/unet/config.json"), "{").unwrap();
    let server = server(folder.path(), LoadOptions::default()).await;
    let (status, answer) = server.refused("/v1/images/generations", &openai("other")).await;
    assert!(
        status == 503 && answer.to_string().contains("unet/config.json"),
        "{answer}"
    );
    let mut live = server.live().await;
    live.send(&json!({"type": "model", "name": "other"})).await;
    let said = live.text().await;
    assert!(
        said["type"] == "error" && said.to_string().contains("unet/config.json"),
        "{said}"
    );
    live.send(&paint(1, "a cat")).await;
    live.frames_until(1).await;
    assert_eq!(server.get("/readyz").await.status(), 200);
}
