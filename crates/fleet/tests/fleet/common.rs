//! A NATS server of the test's own, a server of pictures that paints nothing, and both sides between.

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prima_fleet::{Bus, BusOptions, GatewayOptions, WorkerOptions, gateway, worker};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// `nats-server` with its files in a folder of its own; ends with it.
pub struct Nats {
    pub url: String,
    _process: Child,
    _folder: tempfile::TempDir,
}

/// `None`, said aloud, where there is no `nats-server` on this machine.
pub async fn nats() -> Option<Nats> {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let program = std::env::var("PRIMA_NATS_SERVER").unwrap_or_else(|_| "nats-server".into());
    let mut command = Command::new(&program);
    command
        .args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"])
        .arg(folder.path());
    let started = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let process = match started {
        Ok(process) => process,
        Err(error) => {
            eprintln!(
                "not run: {program} cannot be started ({error}); Debian has it as nats-server, or name it in PRIMA_NATS_SERVER"
            );
            return None;
        }
    };
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return Some(Nats {
                url: format!("nats://127.0.0.1:{port}"),
                _process: process,
                _folder: folder,
            });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nats-server does not listen");
}

impl Nats {
    fn options(&self) -> BusOptions {
        BusOptions {
            url: self.url.clone(),
            ..BusOptions::default()
        }
    }

    pub async fn bus(&self) -> Bus {
        Bus::connect(&self.options()).await.unwrap()
    }
}

/// What stands for `prima serve` of one worker.
#[derive(Default)]
pub struct Painter {
    pub name: String,
    pub begun: AtomicUsize,
    pub finished: AtomicUsize,
    /// How long a picture takes.
    pub takes_ms: AtomicUsize,
}

async fn paint(State(painter): State<Arc<Painter>>, request: Request) -> Response {
    painter.begun.fetch_add(1, Ordering::SeqCst);
    let query = request.uri().query().unwrap_or("").to_owned();
    let kind = request
        .headers()
        .get("content-type")
        .map(|v| v.to_str().unwrap().to_owned());
    let body: Bytes = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    assert!(!body.starts_with(b"break"), "as it was asked to");
    tokio::time::sleep(Duration::from_millis(painter.takes_ms.load(Ordering::SeqCst) as u64)).await;
    painter.finished.fetch_add(1, Ordering::SeqCst);
    let status = if body.starts_with(b"wrong") {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    let headers = [
        ("x-painted-by", painter.name.clone()),
        ("x-query", query),
        ("x-kind", kind.unwrap_or_default()),
    ];
    (status, headers, body).into_response()
}

/// Of any task: halfway, and as it looks where a picture is wanted.
async fn progress(request: Request) -> Response {
    let query = request.uri().query().unwrap_or("").to_owned();
    let picture = if query.contains("skip_current_image=false") {
        "\"a picture\""
    } else {
        "null"
    };
    let task = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("task_id="))
        .unwrap_or_default();
    format!(r#"{{"progress":0.5,"eta_relative":1.0,"state":{{"job":"{task}"}},"current_image":{picture}}}"#)
        .into_response()
}

/// Says hello, then which painter has which revision.
async fn live(State(painter): State<Arc<Painter>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        let _ = socket.send(Message::Text(r#"{"type":"hello"}"#.into())).await;
        while let Some(Ok(message)) = socket.recv().await {
            if let Message::Text(text) = message {
                let _ = socket
                    .send(Message::Text(format!("{} has {}", painter.name, text.as_str()).into()))
                    .await;
            }
        }
    })
}

/// A worker and its server, on threads of their own that a test may end as if they were a killed process.
pub struct Worker {
    pub painter: Arc<Painter>,
    runtime: Option<Runtime>,
    task: Option<JoinHandle<prima_fleet::Result<()>>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

pub async fn start_worker(nats: &Nats, name: &str, takes_ms: usize) -> Worker {
    let painter = Arc::new(Painter {
        name: name.to_owned(),
        takes_ms: AtomicUsize::new(takes_ms),
        ..Painter::default()
    });
    let models = r#"{"object":"list","data":[{"id":"prima-mini","object":"model"}]}"#;
    let router = Router::new()
        .route("/readyz", get(|| async { "ready" }))
        .route(
            "/v1/models",
            get(move || async move { ([("content-type", "application/json")], models) }),
        )
        .route("/sdapi/v1/progress", get(progress))
        .route("/v1/images/generations", post(paint))
        .route("/sdapi/v1/txt2img", post(paint))
        .route("/live", get(live))
        .with_state(painter.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        axum::serve(listener, router).await.unwrap();
    });
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let options = WorkerOptions {
        name: name.to_owned(),
        server_url: url.clone(),
        server_token: "a worker's own token".into(),
        advertised_url: url,
        slots: 1,
        metrics: None,
    };
    let bus = nats.options();
    let task = runtime.spawn(async move {
        let bus = Bus::connect(&bus).await?;
        let stopped = async {
            let _ = stopped.await;
        };
        worker(bus, options, stopped).await
    });
    Worker {
        painter,
        runtime: Some(runtime),
        task: Some(task),
        stop: Some(stop),
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Worker {
    /// Nothing more comes from it, and its connections are cut.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Asked to end: it does when its work is done.
    pub async fn drain(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.take().unwrap().await.unwrap().unwrap();
    }

    pub fn begun(&self) -> usize {
        self.painter.begun.load(Ordering::SeqCst)
    }

    pub fn finished(&self) -> usize {
        self.painter.finished.load(Ordering::SeqCst)
    }
}

/// A gateway's address. It ends with the test.
pub async fn start_gateway(nats: &Nats, token: Option<&str>) -> String {
    let options = GatewayOptions {
        token: token.map(str::to_owned),
        ..GatewayOptions::default()
    };
    start_gateway_with(nats, options).await
}

pub async fn start_gateway_with(nats: &Nats, options: GatewayOptions) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(gateway(listener, nats.bus().await, options, std::future::pending()));
    url
}

pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come within 30 s");
}

pub async fn until_ready(gateway: &str) {
    until("a ready worker", async || {
        let answer = reqwest::get(format!("{gateway}/readyz")).await;
        answer.is_ok_and(|answer| answer.status().is_success())
    })
    .await;
}
