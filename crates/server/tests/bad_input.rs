//! Bad input over HTTP: a 4xx with one sentence in the API's own shape, and the server goes on.

mod common;

use common::{Server, bomb, png, to_base64};
use serde_json::{Value, json};

/// The sentence in the shape of the path's API.
fn sentence(path: &str, body: &Value) -> String {
    let text = if path.ends_with("predictions") {
        assert!(body["title"].is_string() && body["status"].is_u64(), "{body}");
        &body["detail"]
    } else if path.starts_with("/v1/") {
        assert!(body["error"]["type"].is_string(), "{body}");
        &body["error"]["message"]
    } else if path.starts_with("/sdapi/") {
        assert!(body["error"].is_string() && body["errors"].is_string(), "{body}");
        &body["detail"]
    } else {
        &body["error"]
    };
    text.as_str()
        .unwrap_or_else(|| panic!("no sentence in {body}"))
        .to_owned()
}

const OPENAI: &str = "/v1/images/generations";
const A1111: &str = "/sdapi/v1/txt2img";
const PREDICTION: &str = "/v1/predictions";

/// A path, a body, and what the refusal says.
type Case = (&'static str, Value, &'static str);

fn openai() -> Vec<Case> {
    let long = "x".repeat(3000);
    vec![
        (OPENAI, json!({}), "prompt is missing"),
        (OPENAI, json!({"prompt": 5}), "not what this route takes"),
        (OPENAI, json!({"prompt": long}), "prompt has 3000 characters"),
        (OPENAI, json!({"prompt": "a", "n": 0}), "n 0"),
        (OPENAI, json!({"prompt": "a", "n": 11}), "n 11"),
        (OPENAI, json!({"prompt": "a", "size": "big"}), "size \"big\""),
        (OPENAI, json!({"prompt": "a", "size": "4x100"}), "width 4"),
        (OPENAI, json!({"prompt": "a", "size": "2056x64"}), "width 2056"),
        (OPENAI, json!({"prompt": "a", "size": "99999999999999999999x1"}), "size"),
        (OPENAI, json!({"prompt": "a", "output_format": "bmp"}), "output_format"),
        (
            OPENAI,
            json!({"prompt": "a", "output_compression": 101}),
            "output_compression 101",
        ),
        (
            OPENAI,
            json!({"prompt": "a", "response_format": "ftp"}),
            "response_format",
        ),
        (
            OPENAI,
            json!({"prompt": "a", "background": "transparent"}),
            "transparent",
        ),
        (OPENAI, json!({"prompt": "a", "partial_images": 4}), "partial_images 4"),
        (OPENAI, json!({"prompt": "a", "num_inference_steps": 0}), "steps 0"),
        (OPENAI, json!({"prompt": "a", "num_inference_steps": 101}), "steps 101"),
        (OPENAI, json!({"prompt": "a", "guidance_scale": 1e9}), "guidance_scale"),
        (OPENAI, json!({"prompt": "a", "seed": 1.5}), "1.5"),
        (OPENAI, json!({"prompt": "a", "n": "two"}), "two"),
        (
            OPENAI,
            json!({"prompt": "a", "denoising_start": 0.5}),
            "denoising_start",
        ),
    ]
}

fn a1111_words() -> Vec<Case> {
    vec![
        (A1111, json!([]), "an object is expected"),
        (A1111, json!({"prompt": "a", "sampler_name": "Heun3"}), "Heun3"),
        (A1111, json!({"prompt": "a", "scheduler": "Sideways"}), "Sideways"),
        (A1111, json!({"prompt": "a", "steps": 0}), "steps 0"),
        (A1111, json!({"prompt": "a", "width": 7}), "width 7"),
        (A1111, json!({"prompt": "a", "height": 1_000_000}), "height 1000000"),
        (A1111, json!({"prompt": "a", "batch_size": 100}), "batch_size"),
        (A1111, json!({"prompt": "a", "batch_size": 0}), "batch_size"),
        (
            A1111,
            json!({"prompt": "a", "enable_hr": true, "hr_upscaler": "R-ESRGAN 4x+"}),
            "R-ESRGAN 4x+",
        ),
        (
            A1111,
            json!({"prompt": "a", "enable_hr": true, "hr_scale": 100}),
            "hr_resize_x",
        ),
        (
            A1111,
            json!({"prompt": "a", "enable_hr": true, "denoising_strength": 2}),
            "denoising_strength 2",
        ),
        (A1111, json!({"prompt": "a", "steps": "many"}), "many"),
        (A1111, json!({"prompt": "a", "steps": 2.5}), "2.5"),
        (A1111, json!({"prompt": "a", "tiling": "true"}), "tiling"),
        (
            A1111,
            json!({"prompt": "a", "prompt_syntax": "compel"}),
            "auto, a1111 or plain",
        ),
        (A1111, json!({"prompt": "a", "script_name": "x/y plot"}), "script_name"),
        (
            A1111,
            json!({"prompt": "a", "alwayson_scripts": {"controlnet": {"args": [{"model": "gone"}]}}}),
            "ControlNet has no image",
        ),
        (
            A1111,
            json!({"prompt": "a", "override_settings": {"sd_model_checkpoint": "other"}}),
            "other",
        ),
        (
            A1111,
            json!({"prompt": "a", "override_settings": {"CLIP_stop_at_last_layers": 0}}),
            "CLIP_stop_at_last_layers 0",
        ),
    ]
}

fn a1111_pictures() -> Vec<Case> {
    vec![
        ("/sdapi/v1/img2img", json!({"prompt": "a"}), "init_images"),
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "a", "init_images": ["%%%"]}),
            "not base64",
        ),
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "a", "init_images": ["aGVsbG8="]}),
            "not a picture",
        ),
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "a", "init_images": ["http://127.0.0.1/a.png"]}),
            "never fetches",
        ),
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "a", "init_images": ["file:///etc/passwd"]}),
            "never fetches",
        ),
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "a", "init_images": ["/etc/passwd"]}),
            "init_images is not base64",
        ),
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "a", "init_images": [to_base64(&bomb(100_000))]}),
            "not a picture",
        ),
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "a", "init_images": [to_base64(&bomb(5_000))]}),
            "5000x5000",
        ),
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "a", "init_images": [to_base64(&png(8, 8))], "denoising_strength": 7}),
            "strength 7",
        ),
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "a", "init_images": [to_base64(&png(8, 8))], "mask": "aaaa"}),
            "mask",
        ),
        ("/sdapi/v1/png-info", json!({"image": to_base64(b"GIF89a")}), "PNG"),
        (
            "/sdapi/v1/extra-single-image",
            json!({"image": to_base64(&png(8, 8)), "upscaling_resize": 1e6}),
            "not possible",
        ),
        (
            "/sdapi/v1/extra-single-image",
            json!({"image": to_base64(&png(8, 8)), "upscaler_1": "ESRGAN"}),
            "ESRGAN",
        ),
    ]
}

fn predictions() -> Vec<Case> {
    vec![
        (
            PREDICTION,
            json!({"input": {"prompt": "a", "guidance_rescale": 2}}),
            "guidance_rescale 2",
        ),
        (PREDICTION, json!({"input": {}}), "prompt is missing"),
        (
            PREDICTION,
            json!({"input": {"prompt": "a", "image": "https://example.org/a.png"}}),
            "never fetches",
        ),
        (
            PREDICTION,
            json!({"input": {"prompt": "a", "scheduler": "K_NOTHING"}}),
            "K_NOTHING",
        ),
        (
            PREDICTION,
            json!({"input": {"prompt": "a", "num_outputs": 0}}),
            "num_outputs 0",
        ),
        (
            PREDICTION,
            json!({"input": {"prompt": "a", "num_outputs": 17}}),
            "17 pictures",
        ),
        (
            "/predictions",
            json!({"prompt": "a", "resolution": "huge"}),
            "resolution",
        ),
    ]
}

#[tokio::test]
async fn impossible_requests_are_refused_by_name_in_each_apis_shape() {
    let server = Server::start().await;
    let cases = [openai(), a1111_words(), a1111_pictures(), predictions()].concat();
    for (path, body, said) in cases {
        let (status, answer) = server.refused(path, &body).await;
        let expected = if path.starts_with("/sdapi/") { 422 } else { 400 };
        assert_eq!(status, expected, "{path} {body} {answer}");
        let text = sentence(path, &answer);
        assert!(text.contains(said), "{said:?} is not in: {text}");
        assert!(!text.contains('\n'), "one sentence: {text}");
    }
    server
        .post_ok(OPENAI, &json!({"prompt": "a", "num_inference_steps": 1}))
        .await;
}

#[tokio::test]
async fn errors_name_the_field_as_the_client_does() {
    let server = Server::start().await;
    let (_, answer) = server
        .refused(OPENAI, &json!({"prompt": "a", "num_inference_steps": 101}))
        .await;
    assert_eq!(answer["error"]["param"], "num_inference_steps");
    for (path, body, said) in [
        (OPENAI, json!({"prompt": "a", "n": 11}), "n 11 is not possible"),
        (A1111, json!({"prompt": "a", "cfg_scale": -1}), "cfg_scale -1"),
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "a", "init_images": [to_base64(&png(8, 8))], "denoising_strength": 7}),
            "denoising_strength 7",
        ),
        (
            PREDICTION,
            json!({"prompt": "a", "image": to_base64(&png(8, 8)), "prompt_strength": 7}),
            "prompt_strength 7",
        ),
    ] {
        let (_, answer) = server.refused(path, &body).await;
        let text = sentence(path, &answer);
        assert!(text.starts_with(said), "{said:?} does not begin: {text}");
    }
}

#[tokio::test]
async fn malformed_and_oversized_bodies_are_refused() {
    let server = Server::with(|o| o.limits.body_bytes = 10_000).await;
    for path in [OPENAI, A1111, PREDICTION, "/studio/read-png"] {
        let send = |body: Vec<u8>| server.http.post(server.url(path)).body(body).send();
        let response = send(b"{\"prompt\": \"a".to_vec()).await.unwrap();
        assert!(response.status().is_client_error(), "{path}");
        sentence(path, &response.json().await.unwrap());
        let response = send(vec![b'['; 20_000]).await.unwrap();
        assert_eq!(response.status(), 413, "{path}");
        assert!(sentence(path, &response.json().await.unwrap()).contains("10000 bytes"));
    }
    let nested = "[".repeat(9_000);
    let response = server.http.post(server.url(A1111)).body(nested).send().await.unwrap();
    assert_eq!(response.status(), 422);
    for path in ["/v1/images/edits", "/studio/animation"] {
        let response = server.http.post(server.url(path)).body("no form").send().await.unwrap();
        assert_eq!(response.status(), 400);
        assert!(sentence(path, &response.json().await.unwrap()).contains("multipart form"));
    }
}

#[tokio::test]
async fn a_picture_of_too_many_bytes_is_refused_in_each_route() {
    use reqwest::multipart::{Form, Part};
    let server = Server::with(|o| o.limits.image_bytes = 60).await;
    let bytes = png(64, 64);
    assert!(bytes.len() > 60);
    let image = to_base64(&bytes);
    for (path, body) in [
        ("/sdapi/v1/img2img", json!({"prompt": "a", "init_images": [image]})),
        ("/sdapi/v1/extra-single-image", json!({"image": image})),
        (PREDICTION, json!({"prompt": "a", "image": image})),
    ] {
        let (_, answer) = server.refused(path, &body).await;
        let text = sentence(path, &answer);
        assert!(text.contains("more than the 60 allowed"), "{path}: {text}");
    }
    let part = || Part::bytes(bytes.clone()).file_name("a.png");
    for (path, form) in [
        (
            "/v1/images/edits",
            Form::new().text("prompt", "a").part("image", part()),
        ),
        ("/studio/animation", Form::new().part("frame", part())),
    ] {
        let answer = server.post_form(path, form).await.json().await.unwrap();
        let text = sentence(path, &answer);
        assert!(text.contains("more than the 60 allowed"), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_body_that_never_arrives_is_given_up() {
    use std::time::Duration;
    let server = Server::with(|o| o.limits.body_time = Duration::from_millis(200)).await;
    let endless = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let body = reqwest::Body::wrap_stream(endless);
    let response = server.http.post(server.url(OPENAI)).body(body).send().await.unwrap();
    assert_eq!(response.status(), 408);
}

#[tokio::test]
async fn edits_refuse_what_they_cannot_use() {
    use reqwest::multipart::{Form, Part};
    let server = Server::start().await;
    let part = |bytes: Vec<u8>| Part::bytes(bytes).file_name("a.png");
    let cases = [
        (Form::new().text("prompt", "a"), "image is missing"),
        (
            Form::new().text("prompt", "a").part("image", part(b"text".to_vec())),
            "not a picture",
        ),
        (
            Form::new()
                .text("prompt", "a")
                .part("image", part(png(8, 8)))
                .part("mask", part(png(16, 8))),
            "the mask has 16x8 pixels",
        ),
        (Form::new().part("image", part(png(8, 8))), "prompt is missing"),
        (
            Form::new()
                .text("prompt", "a")
                .part("image[]", part(png(8, 8)))
                .part("image[]", part(png(8, 8))),
            "one image",
        ),
        (
            Form::new()
                .text("prompt", "a")
                .text("n", "many")
                .part("image", part(png(8, 8))),
            "not what this route takes",
        ),
    ];
    for (form, said) in cases {
        let response = server.post_form("/v1/images/edits", form).await;
        assert_eq!(response.status(), 400, "{said}");
        let text = sentence("/v1/images/edits", &response.json().await.unwrap());
        assert!(text.contains(said), "{said:?} is not in: {text}");
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_are_named_in_each_apis_shape() {
    let server = Server::start().await;
    for path in [
        "/v1/nothing",
        "/sdapi/v1/nothing",
        "/nothing.html",
        "/../Cargo.toml",
        "/%2e%2e/Cargo.toml",
    ] {
        let response = server.get(path).await;
        assert_eq!(response.status(), 404, "{path}");
        sentence(path, &response.json().await.unwrap());
    }
    let response = server.get(OPENAI).await;
    assert_eq!(response.status(), 405);
    sentence(OPENAI, &response.json().await.unwrap());
    assert_eq!(server.get("/live").await.status(), 400, "no upgrade");
}

#[tokio::test]
async fn the_token_is_wanted_by_everything_but_the_page_and_health() {
    let server = Server::with(|o| o.token = Some("a-secret-of-this-test".into())).await;
    for path in ["/v1/models", "/sdapi/v1/samplers", "/metrics", "/v1/models?token=wrong"] {
        let response = server.get(path).await;
        assert_eq!(response.status(), 401, "{path}");
        assert!(response.headers().contains_key("www-authenticate"));
        let text = sentence(path, &response.json().await.unwrap());
        assert!(text.contains("token") && !text.contains("a-secret"), "{text}");
    }
    let (status, body) = server.refused(OPENAI, &json!({"prompt": "a"})).await;
    assert_eq!(
        (status, body["error"]["type"].as_str()),
        (401, Some("authentication_error"))
    );
    for path in ["/healthz", "/readyz", "/openapi.json", "/"] {
        assert_ne!(server.get(path).await.status(), 401, "{path}");
    }
    assert_eq!(server.get("/v1/models?token=a-secret-of-this-test").await.status(), 200);
    let bearer = server
        .http
        .get(server.url("/v1/models"))
        .bearer_auth("a-secret-of-this-test")
        .send()
        .await
        .unwrap();
    assert_eq!(bearer.status(), 200);
    let basic = server
        .http
        .get(server.url("/sdapi/v1/samplers"))
        .basic_auth("user", Some("a-secret-of-this-test"))
        .send()
        .await
        .unwrap();
    assert_eq!(basic.status(), 200);
}

#[tokio::test]
async fn every_response_carries_the_strict_headers_and_no_cors() {
    let server = Server::start().await;
    for path in ["/", "/healthz", "/nothing", "/v1/models"] {
        let response = server
            .http
            .get(server.url(path))
            .header("origin", "http://evil.example")
            .send()
            .await
            .unwrap();
        let csp = response.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            csp.contains("default-src 'none'") && csp.contains("script-src 'self'") && !csp.contains("unsafe"),
            "{csp}"
        );
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(response.headers()["x-frame-options"], "DENY");
        assert!(!response.headers().contains_key("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn foreign_pages_may_not_post_unless_allowed() {
    let server = Server::with(|o| o.cors = vec!["http://friend.example".into()]).await;
    let post = |origin: &str| {
        server
            .http
            .post(server.url(OPENAI))
            .header("origin", origin)
            .json(&json!({"prompt": "a", "num_inference_steps": 1}))
            .send()
    };
    let refused = post("http://evil.example").await.unwrap();
    assert_eq!(refused.status(), 403);
    let allowed = post("http://friend.example").await.unwrap();
    assert_eq!(allowed.status(), 200);
    assert_eq!(
        allowed.headers()["access-control-allow-origin"],
        "http://friend.example"
    );
    assert_eq!(post(&format!("http://{}", server.address)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_foreign_name_for_this_machine_is_refused() {
    let server = Server::start().await;
    let asked = |host: &str| {
        server
            .http
            .get(server.url("/v1/models"))
            .header("host", host.to_owned())
            .send()
    };
    assert_eq!(asked("evil.example").await.unwrap().status(), 421);
    assert_eq!(asked("localhost:1234").await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_studios_routes_read_pngs_and_make_animations() {
    use reqwest::multipart::{Form, Part};
    let server = Server::start().await;
    let answer = server
        .post_ok(
            OPENAI,
            &json!({"prompt": "a (red:1.2) cat", "seed": 9, "num_inference_steps": 1, "size": "64x64"}),
        )
        .await;
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(answer["data"][0]["b64_json"].as_str().unwrap())
        .unwrap();
    let read = |body: Vec<u8>| server.http.post(server.url("/studio/read-png")).body(body).send();
    let settings: Value = read(bytes.clone()).await.unwrap().json().await.unwrap();
    assert_eq!(
        (settings["prompt"].as_str(), settings["seed"].as_u64()),
        (Some("a (red:1.2) cat"), Some(9))
    );
    assert_eq!(
        (settings["steps"].as_u64(), settings["width"].as_u64()),
        (Some(1), Some(64))
    );
    assert_eq!(
        read(png(8, 8)).await.unwrap().status(),
        200,
        "a recipe of nothing is a recipe"
    );
    for wrong in [b"GIF89a".to_vec(), bytes[..20].to_vec(), Vec::new()] {
        assert_eq!(read(wrong).await.unwrap().status(), 422);
    }
    let frame = |bytes: Vec<u8>| Part::bytes(bytes).file_name("a.png");
    let form = Form::new()
        .text("delay_ms", "80")
        .part("frame", frame(bytes.clone()))
        .part("frame", frame(png(64, 64)));
    let send = |form: Form| server.http.post(server.url("/studio/animation")).multipart(form).send();
    let gif = send(form).await.unwrap();
    assert_eq!(gif.headers()["content-type"], "image/gif");
    assert!(gif.bytes().await.unwrap().starts_with(b"GIF89a"));
    for form in [
        Form::new(),
        Form::new().text("delay_ms", "0").part("frame", frame(bytes.clone())),
        Form::new()
            .part("frame", frame(bytes.clone()))
            .part("frame", frame(png(8, 8))),
        Form::new().part("frame", frame(b"text".to_vec())),
        Form::new().text("path", "/etc/passwd"),
    ] {
        assert_eq!(send(form).await.unwrap().status(), 400);
    }
}

#[tokio::test]
async fn every_described_route_is_there() {
    let server = Server::start().await;
    let description: Value = server.get("/openapi.json").await.json().await.unwrap();
    let paths = description["paths"].as_object().unwrap();
    assert!(paths.len() > 30);
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let known = [
                ("{id}", "tiny-sdxl"),
                ("{class}", "KSampler"),
                ("{folder}", "checkpoints"),
            ];
            let filled = known
                .iter()
                .fold(path.clone(), |path, (hole, name)| path.replace(hole, name));
            let url = server.url(&filled);
            let request = if method == "get" {
                server.http.get(url)
            } else {
                server.http.post(url).body("{")
            };
            let status = request.send().await.unwrap().status().as_u16();
            assert!(status != 404 && status != 405, "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn metrics_count_pictures_and_requests_by_route() {
    let server = Server::start().await;
    server
        .post_ok(OPENAI, &json!({"prompt": "a", "num_inference_steps": 1}))
        .await;
    server.get("/made/up/by/a/stranger").await;
    let text = server.get("/metrics").await.text().await.unwrap();
    assert!(text.contains("prima_pictures_total{api=\"openai\"} 1"), "{text}");
    assert!(text.contains("route=\"/v1/images/generations\",status=\"200\"") && !text.contains("stranger"));
}

#[tokio::test]
async fn a_public_address_needs_a_token() {
    use prima_server::ServerOptions;
    let public = "0.0.0.0:7860".parse().unwrap();
    let error = ServerOptions::default().check(public).unwrap_err().to_string();
    assert!(error.contains("--token"), "{error}");
    let with_token = ServerOptions {
        token: Some("0123456789abcdef".into()),
        ..ServerOptions::default()
    };
    assert!(with_token.check(public).is_ok());
    for (short, address) in [("a", public), ("0123456789abcde", "127.0.0.1:1".parse().unwrap())] {
        let options = ServerOptions {
            token: Some(short.into()),
            ..ServerOptions::default()
        };
        let error = options.check(address).unwrap_err().to_string();
        assert!(error.contains("openssl rand"), "{error}");
    }
    let wrong = ServerOptions {
        cors: vec!["*".into()],
        ..ServerOptions::default()
    };
    assert!(
        wrong
            .check("127.0.0.1:1".parse().unwrap())
            .unwrap_err()
            .to_string()
            .contains('*')
    );
}
