//! ControlNets and refiners through the APIs: the pixels are those that `prima paint` makes of the same request.

mod common;

use common::controlnet::options;
use common::{Server, from_base64, model_folder, painted_with, png, same, to_base64};
use prima_pipeline::{
    Control, LoadOptions, ModelSource, Picture, Preprocessor, PromptSyntax, Request, ScheduleOptions, SchedulerKind,
    TimestepSpacing,
};
use serde_json::{Value, json};

fn request(control: Control) -> Request {
    Request {
        prompt: "a red apple".into(),
        prompt_syntax: PromptSyntax::A1111,
        seed: 11,
        guidance_scale: Some(0.0),
        width: Some(64),
        height: Some(48),
        schedule: ScheduleOptions {
            scheduler: Some(SchedulerKind::EulerAncestral),
            ..ScheduleOptions::steps(3)
        },
        controls: vec![control],
        ..Request::default()
    }
}

fn control() -> Control {
    Control {
        scale: 0.5,
        end: 0.7,
        ..Control::new("lines", Picture::decode(&png(64, 48), "lines").unwrap())
    }
}

#[tokio::test]
async fn the_web_uis_units_steer_by_names_of_the_folder() {
    let place = tempfile::TempDir::new().unwrap();
    let load = options(place.path());
    let server = Server::loaded(load.clone()).await;
    let lists: Value = server.get("/controlnet/model_list").await.json().await.unwrap();
    assert_eq!(lists["model_list"], json!(["lines"]));
    let body = |unit: Value| {
        json!({"prompt": "a red apple", "seed": 11, "width": 64, "height": 48, "steps": 3, "cfg_scale": 0,
            "sampler_name": "Euler a", "alwayson_scripts": {"ControlNet": {"args": [unit, {"enabled": false}]}}})
    };
    let image = to_base64(&png(64, 48));
    let unit = |more: Value| {
        let mut unit =
            json!({"enabled": true, "model": "lines [12345678]", "image": image, "weight": 0.5, "guidance_end": 0.7});
        unit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        unit
    };
    let canny = Control {
        preprocessor: Preprocessor::Canny,
        ..control()
    };
    for (more, control) in [
        (json!({}), control()),
        (json!({"module": "canny", "guidance_start": "0"}), canny),
    ] {
        let answer = server.post_ok("/sdapi/v1/txt2img", &body(unit(more.clone()))).await;
        let expected = painted_with(&load, &request(control)).swap_remove(0);
        same(
            &from_base64(answer["images"][0].as_str().unwrap()),
            &expected,
            &more.to_string(),
        );
        assert!(
            !answer["parameters"].to_string().contains(&image),
            "the picture is not repeated"
        );
    }
    for (more, part) in [
        (json!({"model": "../lines"}), "there is no ControlNet"),
        (json!({"module": "openpose"}), "send its map"),
        (json!({"image": "http://127.0.0.1/a.png"}), "never fetches"),
        (json!({"image": null}), "has no image"),
        (json!({"weight": 11}), "weight 11"),
    ] {
        let (status, answer) = server.refused("/sdapi/v1/txt2img", &body(unit(more))).await;
        assert_eq!(status, 422);
        assert!(answer.to_string().contains(part), "{part}: {answer}");
    }
}

#[tokio::test]
async fn comfyuis_nodes_lead_a_text_through_a_controlnet() {
    let place = tempfile::TempDir::new().unwrap();
    let load = options(place.path());
    let server = Server::loaded(load.clone()).await;
    let part = reqwest::multipart::Part::bytes(png(64, 48)).file_name("lines.png");
    let form = reqwest::multipart::Form::new().part("image", part);
    assert!(server.post_form("/upload/image", form).await.status().is_success());
    let graph = |name: &str| {
        json!({
            "3": {"class_type": "KSampler", "inputs": {"seed": 11, "steps": 3, "cfg": 0.0, "sampler_name": "euler_ancestral",
                "scheduler": "normal", "denoise": 1.0, "model": ["4", 0], "positive": ["12", 0], "negative": ["12", 1],
                "latent_image": ["5", 0]}},
            "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny-sdxl"}},
            "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}},
            "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red apple", "clip": ["4", 1]}},
            "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
            "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
            "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["8", 0]}},
            "10": {"class_type": "LoadImage", "inputs": {"image": "lines.png"}},
            "11": {"class_type": "ControlNetLoader", "inputs": {"control_net_name": name}},
            "12": {"class_type": "ControlNetApplyAdvanced", "inputs": {"positive": ["6", 0], "negative": ["7", 0],
                "control_net": ["11", 0], "image": ["10", 0], "strength": 0.5, "start_percent": 0.0, "end_percent": 0.7}},
        })
    };
    let found = server.graphs_picture(&graph("lines"), "9").await;
    let mut expected = request(control());
    expected.schedule.spacing = Some(TimestepSpacing::Normal);
    same(&found, &painted_with(&load, &expected)[0], "ComfyUI");
    let (status, answer) = server
        .refused("/prompt", &json!({"prompt": graph("/etc/passwd")}))
        .await;
    assert_eq!(status, 400);
    assert!(answer.to_string().contains("there is no ControlNet"), "{answer}");
}

#[tokio::test]
async fn a_refiner_takes_the_last_steps_where_a_request_names_it() {
    let load = LoadOptions {
        refiner: Some(ModelSource::open(model_folder()).unwrap()),
        ..LoadOptions::default()
    };
    let server = Server::loaded(load.clone()).await;
    let mut body = json!({"prompt": "a red apple", "seed": 11, "width": 64, "height": 48, "steps": 3, "cfg_scale": 0,
        "sampler_name": "Euler a", "refiner_checkpoint": "tiny-sdxl", "refiner_switch_at": 0.5});
    let answer = server.post_ok("/sdapi/v1/txt2img", &body).await;
    let expected = Request {
        controls: Vec::new(),
        refiner_switch_at: Some(0.5),
        ..request(control())
    };
    same(
        &from_base64(answer["images"][0].as_str().unwrap()),
        &painted_with(&load, &expected)[0],
        "refined",
    );
    assert!(
        answer["info"].as_str().unwrap().contains("Refiner: tiny-sdxl"),
        "{answer}"
    );
    body["refiner_checkpoint"] = json!("another");
    let (_, answer) = server.refused("/sdapi/v1/txt2img", &body).await;
    assert!(answer.to_string().contains("there is no refiner"), "{answer}");
}
