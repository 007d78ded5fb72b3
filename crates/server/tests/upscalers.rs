//! Networks that enlarge pictures, through the APIs of A1111 and ComfyUI.

mod common;

use common::{Server, from_base64, png, to_base64};
use futures_util::StreamExt;
use prima_picture::{Layer, Picture};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use tokio_tungstenite::tungstenite::Message;

/// What the network in the binary makes of it.
fn enlarged(picture: &Picture) -> Picture {
    let upscaler = prima_finish::Upscaler::embedded(prima_tensor::DType::F32).unwrap();
    let layer = Layer::from(picture.clone());
    let made = upscaler.enlarge(&layer, 4 * picture.width, 4 * picture.height, &mut |_| {
        ControlFlow::Continue(())
    });
    made.unwrap().picture
}

fn given() -> Picture {
    Picture::decode(&png(24, 16), "test").unwrap()
}

#[tokio::test]
async fn a1111_enlarges_one_and_several_by_either_name() {
    let server = Server::start().await;
    let image = to_base64(&png(24, 16));
    let body = json!({"image": image, "upscaler_1": "R-ESRGAN AnimeVideo", "upscaling_resize": 4});
    let single = server.post_ok("/sdapi/v1/extra-single-image", &body).await;
    assert_eq!(from_base64(single["image"].as_str().unwrap()), enlarged(&given()));
    let listed = json!({"data": image, "name": "a.png"});
    let body = json!({"imageList": [listed, listed], "upscaler_1": "realesr-animevideov3", "upscaling_resize": 4});
    let batch = server.post_ok("/sdapi/v1/extra-batch-images", &body).await;
    assert_eq!(batch["images"], json!([single["image"], single["image"]]));
    let (status, body) = server
        .refused("/sdapi/v1/extra-batch-images", &json!({"imageList": []}))
        .await;
    assert!(status == 422 && body.to_string().contains("imageList"), "{body}");
}

#[tokio::test]
async fn the_hires_fix_takes_a_network_by_name() {
    let server = Server::start().await;
    let body = json!({"prompt": "a", "seed": 3, "steps": 2, "width": 64, "height": 64, "enable_hr": true, "hr_scale": 2,
        "hr_upscaler": "realesr-animevideov3", "denoising_strength": 0.5});
    let answer = server.post_ok("/sdapi/v1/txt2img", &body).await;
    assert!(
        answer["info"]
            .to_string()
            .contains("Hires upscaler: realesr-animevideov3"),
        "{}",
        answer["info"]
    );
    let picture = from_base64(answer["images"][0].as_str().unwrap());
    assert_eq!((picture.width, picture.height), (128, 128));
}

/// The files that a socket gets for a graph.
async fn run(server: &Server, graph: &Value) -> Vec<Vec<u8>> {
    let mut live = server.live_at("/ws?clientId=me", &[]).await;
    server
        .post_ok("/prompt", &json!({"prompt": graph, "client_id": "me"}))
        .await;
    let mut files = Vec::new();
    loop {
        match live.socket.next().await.unwrap().unwrap() {
            Message::Text(text) => {
                let text: Value = serde_json::from_str(&text).unwrap();
                if text["type"] == "executing" && text["data"]["node"].is_null() {
                    return files;
                }
            }
            Message::Binary(bytes) => files.push(bytes[8..].to_vec()),
            _ => {}
        }
    }
}

#[tokio::test]
async fn comfyui_s_nodes_enlarge_a_loaded_picture() {
    let server = Server::start().await;
    let file = reqwest::multipart::Part::bytes(png(24, 16)).file_name("a.png");
    server
        .post_form("/upload/image", reqwest::multipart::Form::new().part("image", file))
        .await;
    let mut graph = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "realesr-animevideov3.pth"}},
        "3": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["2", 0], "image": ["1", 0]}},
        "4": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["3", 0]}},
    });
    let files = run(&server, &graph).await;
    assert_eq!(
        Picture::decode(files.last().unwrap(), "socket").unwrap(),
        enlarged(&given())
    );
    graph["2"]["inputs"]["model_name"] = json!("4x-UltraSharp.pth");
    let (status, body) = server.refused("/prompt", &json!({"prompt": graph})).await;
    assert!(
        status == 400 && body.to_string().contains("4x-UltraSharp"),
        "{status} {body}"
    );
}
