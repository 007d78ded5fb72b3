//! A real server on a free port with the tiny model of goldens/, and clients for it.

#![allow(dead_code, reason = "each test file uses its part")]

mod browser;
pub mod controlnet;
#[path = "../../../cli/tests/common/copied.rs"]
pub mod copied;
#[allow(unused_imports, reason = "only the studio test has a browser")]
pub use browser::Browser;
use futures_util::{SinkExt, StreamExt};
use prima_engine::{Engine, Library};
use prima_pipeline::{
    LoadOptions, LoraOptions, ModelSource, Picture, Pipeline, PromptSyntax, Request, ScheduleOptions, SchedulerKind,
    TimestepSpacing,
};
use prima_server::{ServerOptions, serve};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub fn model_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/tiny-sdxl")
}

/// The model inside the binary.
pub fn shipped_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/prima-mini")
}

/// What the graphs of ComfyUI's clients ask for in these tests.
pub fn request_of_graphs(prompt: &str, steps: usize) -> Request {
    Request {
        prompt: prompt.into(),
        prompt_syntax: PromptSyntax::A1111,
        negative_prompt: Some("a pear".into()),
        seed: 5,
        guidance_scale: Some(4.0),
        width: Some(64),
        height: Some(48),
        schedule: ScheduleOptions {
            scheduler: Some(SchedulerKind::Euler),
            spacing: Some(TimestepSpacing::Normal),
            ..ScheduleOptions::steps(steps)
        },
        ..Request::default()
    }
}

/// The studio of the shipped model with its first picture; `None` without a browser.
pub async fn studio() -> Option<(Browser, Server)> {
    let browser = Browser::start().await?;
    let server = Server::of(shipped_model()).await;
    browser.open(&server.url("/")).await;
    browser
        .until("return prima.entries.some(e => e.what === 'painted' && e.final)")
        .await;
    Some((browser, server))
}

pub fn model() -> ModelSource {
    ModelSource::open(model_folder()).unwrap()
}

pub struct Server {
    pub address: SocketAddr,
    pub http: reqwest::Client,
    pub engine: Engine,
    stop: Option<oneshot::Sender<()>>,
    pub ended: tokio::task::JoinHandle<Result<(), prima_server::Error>>,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server of the model in another folder.
    pub async fn of(model: PathBuf) -> Self {
        Self::started(ModelSource::open(model).unwrap(), |_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        Self::started(model(), change).await
    }

    async fn started(model: ModelSource, change: impl FnOnce(&mut ServerOptions)) -> Self {
        Self::begun(model, LoadOptions::default(), change)
            .await
            .when_ready()
            .await
    }

    /// One that has the LoRAs of a folder.
    pub async fn with_loras(folder: PathBuf) -> Self {
        let loras = LoraOptions {
            folder: Some(folder),
            standing: Vec::new(),
        };
        let load = LoadOptions {
            loras,
            ..LoadOptions::default()
        };
        Self::loaded(load).await
    }

    /// One whose model is loaded in this way.
    pub async fn loaded(load: LoadOptions) -> Self {
        Self::begun(model(), load, |_| {}).await.when_ready().await
    }

    async fn when_ready(self) -> Self {
        while self.get("/readyz").await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self
    }

    /// A server that may never be ready.
    pub async fn loading(model: PathBuf) -> Self {
        Self::begun(ModelSource::open(model).unwrap(), LoadOptions::default(), |_| {}).await
    }

    /// One that has further models.
    pub async fn with_library(library: Library, load: LoadOptions) -> Self {
        let options = ServerOptions::default();
        let engine = Engine::start_with(model(), load, options.max_jobs, library);
        Self::of_engine(engine, options).await.when_ready().await
    }

    async fn begun(model: ModelSource, load: LoadOptions, change: impl FnOnce(&mut ServerOptions)) -> Self {
        let mut options = ServerOptions {
            // To work on the page, or to see a test fail on an older one.
            web_dir: std::env::var_os("PRIMA_WEB_DIR").map(PathBuf::from),
            ..ServerOptions::default()
        };
        change(&mut options);
        let engine = Engine::start(model, load, options.max_jobs);
        Self::of_engine(engine, options).await
    }

    async fn of_engine(engine: Engine, options: ServerOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let ended = tokio::spawn(serve(listener, engine.clone(), options, shutdown));
        Self {
            address,
            http: reqwest::Client::new(),
            engine,
            stop: Some(stop),
            ended,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        self.http.post(self.url(path)).json(body).send().await.unwrap()
    }

    pub async fn post_form(&self, path: &str, form: reqwest::multipart::Form) -> reqwest::Response {
        self.http.post(self.url(path)).multipart(form).send().await.unwrap()
    }

    /// The answer to a request that has to succeed.
    pub async fn post_ok(&self, path: &str, body: &Value) -> Value {
        let response = self.post(path, body).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Status and body of a request that is refused.
    pub async fn refused(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.post(path, body).await;
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// The first picture of a graph's node, when the graph has been painted.
    pub async fn graphs_picture(&self, graph: &Value, node: &str) -> Picture {
        let answer = self.post_ok("/prompt", &json!({"prompt": graph})).await;
        let id = answer["prompt_id"].as_str().unwrap();
        let began = Instant::now();
        let ended = loop {
            let history: Value = self.get(&format!("/history/{id}")).await.json().await.unwrap();
            if history[id].is_object() {
                break history[id].clone();
            }
            assert!(began.elapsed() < Duration::from_mins(1));
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(ended["status"]["status_str"], "success", "{ended}");
        let file = ended["outputs"][node]["images"][0]["filename"].as_str().unwrap();
        let bytes = self
            .get(&format!("/view?filename={file}&type=output"))
            .await
            .bytes()
            .await;
        Picture::decode(&bytes.unwrap(), "view").unwrap()
    }

    pub fn stop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
    }

    pub async fn live(&self) -> Live {
        let mut live = self.live_at("/live", &[]).await;
        live.hello = live.text().await;
        assert_eq!(live.hello["type"], "hello");
        live
    }

    pub async fn live_at(&self, path: &str, headers: &[(&'static str, &str)]) -> Live {
        let mut request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, _) = connect_async(request).await.unwrap();
        Live {
            socket,
            hello: Value::Null,
        }
    }
}

/// A client of the live protocol.
pub struct Live {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub hello: Value,
}

/// What the server sends.
#[derive(Debug)]
pub enum Got {
    Text(Value),
    Frame(Value, Picture),
    Closed(u16, String),
}

impl Live {
    pub async fn send(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    pub async fn send_binary(&mut self, header: &Value, payload: &[u8]) {
        self.socket
            .send(Message::binary(packed(header, payload)))
            .await
            .unwrap();
    }

    pub async fn next(&mut self) -> Got {
        loop {
            let Some(message) = self.socket.next().await else {
                return Got::Closed(0, "the connection ended".to_owned());
            };
            match message {
                Ok(Message::Text(text)) => return Got::Text(serde_json::from_str(&text).unwrap()),
                Ok(Message::Binary(bytes)) => {
                    let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
                    let header: Value = serde_json::from_slice(&bytes[4..4 + length]).unwrap();
                    let picture = Picture::decode(&bytes[4 + length..], "frame").unwrap();
                    return Got::Frame(header, picture);
                }
                Ok(Message::Close(Some(frame))) => return Got::Closed(frame.code.into(), frame.reason.to_string()),
                Ok(_) => {}
                Err(error) => return Got::Closed(0, error.to_string()),
            }
        }
    }

    pub async fn text(&mut self) -> Value {
        match self.next().await {
            Got::Text(value) => value,
            other => panic!("a text message was expected, not {other:?}"),
        }
    }

    pub async fn frame(&mut self) -> (Value, Picture) {
        match self.next().await {
            Got::Frame(header, picture) => (header, picture),
            other => panic!("a frame was expected, not {other:?}"),
        }
    }

    /// All frames up to the final one of `rev`.
    pub async fn frames_until(&mut self, rev: u64) -> Vec<(Value, Picture)> {
        let mut frames = Vec::new();
        loop {
            let (header, picture) = self.frame().await;
            let done = header["rev"] == rev && header["final"] == true;
            frames.push((header, picture));
            if done {
                return frames;
            }
        }
    }

    /// The code and the sentence with which the server closes; what comes before is skipped.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Got::Closed(code, reason) = self.next().await {
                return (code, reason);
            }
        }
    }
}

pub fn packed(header: &Value, payload: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    let mut bytes = (header.len() as u32).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(payload);
    bytes
}

pub fn paint(rev: u64, prompt: &str) -> Value {
    json!({"type": "paint", "rev": rev, "prompt": prompt, "seed": 7, "steps": 2})
}

/// What `prima paint` makes of a request.
pub fn painted(request: &Request) -> Picture {
    all_painted(request).swap_remove(0)
}

pub fn all_painted(request: &Request) -> Vec<Picture> {
    painted_with(&LoadOptions::default(), request)
}

/// The same on a model that was loaded in this way.
pub fn painted_with(load: &LoadOptions, request: &Request) -> Vec<Picture> {
    let pipeline = Pipeline::load(&model(), load).unwrap();
    let response = pipeline.paint(request, &mut |_| ControlFlow::Continue(()));
    response.unwrap().pictures
}

/// Panics with the place of the first difference, not with two pictures.
pub fn same(found: &Picture, expected: &Picture, what: &str) {
    assert_eq!((found.width, found.height), (expected.width, expected.height), "{what}");
    let first = found.rgb.iter().zip(&expected.rgb).position(|(a, b)| a != b);
    assert_eq!(first, None, "{what}: the first byte that differs");
}

pub fn from_base64(text: &str) -> Picture {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    Picture::decode(&bytes, "answer").unwrap()
}

pub fn to_base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// An edit by OpenAI's API of `image`: "a red apple" in three steps of seed 11, at 64x48.
pub fn edit(image: Vec<u8>) -> reqwest::multipart::Form {
    reqwest::multipart::Form::new()
        .text("prompt", "a red apple")
        .text("seed", "11")
        .text("size", "64x48")
        .text("num_inference_steps", "3")
        .text("scheduler", "euler_a")
        .text("strength", "0.7")
        .text("guidance_scale", "0")
        .part("image", file_part(image))
}

pub fn file_part(bytes: Vec<u8>) -> reqwest::multipart::Part {
    reqwest::multipart::Part::bytes(bytes).file_name("picture.png")
}

/// A PNG of a colour gradient.
pub fn png(width: usize, height: usize) -> Vec<u8> {
    let rgb = (0..width * height * 3).map(|i| (i * 31 % 256) as u8).collect();
    let picture = Picture { width, height, rgb };
    prima_picture::encode_png(&picture, &prima_pipeline::Parameters::default()).unwrap()
}

/// The header of a PNG of `side` x `side` pixels and nothing more that matters.
pub fn bomb(side: u32) -> Vec<u8> {
    let mut ihdr = b"IHDR".to_vec();
    ihdr.extend(side.to_be_bytes());
    ihdr.extend(side.to_be_bytes());
    ihdr.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\r".to_vec();
    png.extend(&ihdr);
    png.extend(crc(&ihdr).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    png
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            };
        }
    }
    !crc
}
