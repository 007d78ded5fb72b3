//! Strangers who hold connections, send little or too much, guess; an engine that breaks; and the end of the server.

mod common;

use common::{Got, Server, bomb, copied::copy, model_folder, paint, to_base64};
use futures_util::{SinkExt, StreamExt};
use prima_engine::{Class, Event, Readiness, Reply, Unit};
use prima_pipeline::{Request, ScheduleOptions};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

const SLOW: &str = "/sdapi/v1/txt2img";

fn slow() -> Value {
    json!({"prompt": "slow", "steps": 100, "width": 512, "height": 512})
}

/// Connections that have sent `begin` and then nothing.
async fn hold(server: &Server, count: usize, begin: &str) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let _ = stream.write_all(begin.as_bytes()).await;
        held.push(stream);
    }
    sleep(Duration::from_millis(100)).await;
    held
}

/// The whole answer on a connection of its own.
async fn asked(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn connections_that_ask_for_nothing_give_way() {
    let server = Server::with(|o| {
        o.limits.connections = 16;
        o.limits.connections_per_address = 8;
    })
    .await;
    for begin in [
        "",
        "GET /healthz HT",
        "POST /v1/images/generations HTTP/1.1\r\nhost: localhost\r\nx-slow: ",
    ] {
        let _held = hold(&server, 100, begin).await;
        for path in ["/healthz", "/readyz", "/metrics", "/v1/models"] {
            let began = Instant::now();
            let answer = asked(&server, &get(path)).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{begin:?} {path}: {answer}");
            assert!(began.elapsed() < Duration::from_secs(1), "{begin:?} {path}");
        }
    }
}

/// On the one thread of this test the server accepts nothing while clients connect, as when the processor is busy elsewhere.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn hundreds_who_connect_at_once_wait_for_the_server_and_none_is_turned_away() {
    let server = Server::start().await;
    let of_the_system = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let count = of_the_system.trim().parse::<usize>().unwrap().min(800);
    let mut held = Vec::new();
    for index in 0..count {
        let connected = std::net::TcpStream::connect_timeout(&server.address, Duration::from_millis(900));
        held.push(connected.unwrap_or_else(|e| panic!("connection {index} of {count}: {e}")));
    }
    let began = Instant::now();
    let answer = asked(&server, &get("/healthz")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn live_sessions_take_no_room_of_requests() {
    let server = Server::with(|o| {
        o.limits.connections = 4;
        o.limits.connections_per_address = 2;
    })
    .await;
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(server.live().await);
    }
    // Those that would give way did not have to.
    for path in ["/v1/models", "/healthz"] {
        let answer = asked(&server, &get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    for session in &mut sessions {
        session.send(&json!({"type": "ping", "id": 1})).await;
        assert_eq!(session.text().await["type"], "pong");
    }
}

#[tokio::test]
async fn silence_and_a_head_without_end_are_cut_off() {
    let server = Server::with(|o| {
        o.limits.first_byte_time = Duration::from_millis(200);
        o.limits.head_time = Duration::from_millis(400);
    })
    .await;
    for begin in ["", "GET / HTTP/1.1\r\nhost: loc"] {
        let mut held = hold(&server, 1, begin).await;
        let ended = timeout(Duration::from_secs(5), held[0].read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "{begin:?} is still there");
    }
}

#[tokio::test]
async fn requests_that_do_not_end_leave_room_for_health_checks() {
    let server = Server::with(|o| {
        o.limits.connections_per_address = 8;
        o.limits.body_grace = Duration::from_secs(20);
    })
    .await;
    let head = "POST /v1/images/generations HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{";
    let _held = hold(&server, 8, head).await;
    let refused = asked(&server, &get("/v1/models")).await;
    assert!(
        refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after"),
        "{refused}"
    );
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = asked(&server, &get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn slow_bodies_neither_shut_others_out_nor_stay() {
    let server = Server::with(|o| o.limits.body_grace = Duration::from_millis(500)).await;
    let began = Instant::now();
    let mut held = Vec::new();
    for route in [
        "/v1/images/generations",
        "/sdapi/v1/png-info",
        "/studio/animation",
        "/predictions",
    ] {
        let head = format!("POST {route} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n{{");
        held.extend(hold(&server, 10, &head).await);
    }
    let body = json!({"prompt": "a", "num_inference_steps": 1, "size": "64x64"});
    server.post_ok("/v1/images/generations", &body).await;
    // A byte now and then is not enough.
    let mut answer = Vec::new();
    while answer.is_empty() && began.elapsed() < Duration::from_secs(10) {
        let _ = held[0].write_all(b" ").await;
        let mut part = [0; 512];
        if let Ok(Ok(n)) = timeout(Duration::from_millis(50), held[0].read(&mut part)).await {
            answer.extend_from_slice(&part[..n]);
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

/// A PNG of one colour, as large as its header says.
fn flat(width: usize, height: usize) -> Vec<u8> {
    let rgb = vec![7; 3 * width * height];
    let picture = prima_pipeline::Picture { width, height, rgb };
    prima_picture::encode(&picture, prima_picture::Format::Png, 90, None).unwrap()
}

#[tokio::test]
async fn pictures_with_a_side_too_long_are_refused_in_each_route() {
    let server = Server::start().await;
    for file in [flat(1 << 24, 1), flat(1, 1 << 20), bomb(100_000)] {
        let image = to_base64(&file);
        for (path, body) in [
            ("/sdapi/v1/img2img", json!({"prompt": "a", "init_images": [image]})),
            ("/sdapi/v1/extra-single-image", json!({"image": image})),
            ("/predictions", json!({"prompt": "a", "image": image})),
        ] {
            let began = Instant::now();
            let (status, answer) = server.refused(path, &body).await;
            assert!((400..423).contains(&status), "{path}: {status} {answer}");
            assert!(began.elapsed() < Duration::from_secs(2), "{path}");
        }
        let part = || reqwest::multipart::Part::bytes(file.clone()).file_name("a.png");
        let edit = reqwest::multipart::Form::new()
            .text("prompt", "a")
            .part("image", part());
        assert_eq!(server.post_form("/v1/images/edits", edit).await.status(), 400);
        let animation = reqwest::multipart::Form::new().part("frame", part());
        assert_eq!(server.post_form("/studio/animation", animation).await.status(), 400);
        let mut live = server.live().await;
        live.send_binary(&paint(1, "a"), &file).await;
        assert_eq!(live.text().await["type"], "error");
    }
}

#[tokio::test]
async fn pictures_are_worked_on_within_one_budget_of_memory() {
    let server = Server::with(|o| o.limits.pictures_bytes = 8 << 20).await;
    let large = json!({"prompt": "a", "init_images": [to_base64(&flat(2000, 2000))]});
    let (status, answer) = server.refused("/sdapi/v1/img2img", &large).await;
    assert_eq!(status, 422, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("memory"), "{answer}");
    // Each needs most of the budget: they take turns.
    let small = json!({"image": to_base64(&flat(400, 400)), "upscaling_resize": 1.0, "upscaler_1": "Nearest"});
    let all = (0..12).map(|_| server.post_ok("/sdapi/v1/extra-single-image", &small));
    assert_eq!(futures_util::future::join_all(all).await.len(), 12);
}

/// The tiny model with a tokenizer of another kind, in a fresh folder.
fn spoiled(folder: &Path, tokenizer: &Value) {
    copy(&model_folder(), folder);
    for name in ["tokenizer", "tokenizer_2"] {
        for old in ["vocab.json", "merges.txt"] {
            fs::remove_file(folder.join(name).join(old)).unwrap();
        }
        fs::write(folder.join(name).join("tokenizer.json"), tokenizer.to_string()).unwrap();
    }
}

/// A tokenizer of the tiny model's words whose normaliser is `normalizer`.
fn tokenizer(normalizer: &Value) -> Value {
    let read = |name: &str| fs::read_to_string(model_folder().join("tokenizer").join(name)).unwrap();
    let vocab: Value = serde_json::from_str(&read("vocab.json")).unwrap();
    let merges = read("merges.txt");
    let merges: Vec<&str> = merges
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    json!({
        "version": "1.0", "added_tokens": [], "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": vocab, "merges": merges},
    })
}

/// A normaliser that finds its pattern everywhere, without end.
fn replace(pattern: &Value) -> Value {
    json!({"type": "Replace", "pattern": pattern, "content": "x".repeat(1000)})
}

#[tokio::test]
async fn a_model_that_breaks_while_it_loads_is_told_on_every_way() {
    for (name, broken) in [
        // The library panics on these three.
        ("an empty pattern", tokenizer(&replace(&json!({"String": ""})))),
        ("an empty expression", tokenizer(&replace(&json!({"Regex": ""})))),
        (
            "an empty pattern after others",
            tokenizer(
                &json!({"type": "Sequence", "normalizers": [{"type": "Lowercase"}, replace(&json!({"String": ""}))]}),
            ),
        ),
        (
            "no words",
            json!({"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}),
        ),
        ("nothing", json!({})),
    ] {
        let folder = tempfile::tempdir().unwrap();
        spoiled(folder.path(), &broken);
        let server = Server::loading(folder.path().to_owned()).await;
        let began = Instant::now();
        while !matches!(server.engine.readiness(), Readiness::Failed(_)) {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{name}: {}",
                server.engine.readiness()
            );
            sleep(Duration::from_millis(10)).await;
        }
        let ready = server.get("/readyz").await;
        assert_eq!(ready.status(), 503, "{name}");
        let ready: Value = ready.json().await.unwrap();
        assert!(
            ready["stage"].as_str().unwrap().starts_with("failed: "),
            "{name}: {ready}"
        );
        let health = server.get("/healthz").await;
        assert_eq!(health.status(), 200, "the process is alive");
        assert!(health.text().await.unwrap().starts_with("failed: "), "{name}");
        let (code, reason) = server.live_at("/live", &[]).await.closed().await;
        assert_eq!(code, 1011, "{name}");
        assert!(reason.contains("cannot be used"), "{reason}");
        assert_eq!(server.post(SLOW, &slow()).await.status(), 503, "{name}");
    }
}

/// A callback's own value that panics when it is dropped.
struct Breaks;

impl Drop for Breaks {
    fn drop(&mut self) {
        panic!("a test's own panic");
    }
}

fn breaking() -> Unit {
    let breaks = Breaks;
    Unit {
        request: Request {
            prompt: "a".to_owned(),
            schedule: ScheduleOptions::steps(1),
            ..Request::default()
        },
        model: None,
        recipe: false,
        class: Class::Work,
        ready_at: None,
        on_event: Box::new(move |event| {
            let _held = &breaks;
            match event {
                Event::Begun { .. } => Reply::Stop,
                _ => Reply::GoOn,
            }
        }),
    }
}

#[tokio::test]
async fn a_worker_that_breaks_begins_anew_and_an_engine_that_only_breaks_says_so() {
    let server = Server::start().await;
    let body = json!({"prompt": "a", "num_inference_steps": 1, "size": "64x64"});
    let break_one = async || {
        let job = server.engine.submit(vec![breaking()]).unwrap();
        let began = Instant::now();
        while server.engine.occupancy().waiting + server.engine.occupancy().begun > 0 {
            assert!(began.elapsed() < Duration::from_secs(20));
            sleep(Duration::from_millis(1)).await;
        }
        drop(job);
    };
    for _ in 0..5 {
        break_one().await;
    }
    server.post_ok("/v1/images/generations", &body).await;
    for _ in 0..200 {
        if server.engine.readiness() != Readiness::Ready {
            break;
        }
        break_one().await;
    }
    let ready: Value = server.get("/readyz").await.json().await.unwrap();
    assert!(ready["stage"].as_str().unwrap().starts_with("failed: "), "{ready}");
    assert_eq!(server.post("/v1/images/generations", &body).await.status(), 503);
}

#[tokio::test]
async fn a_shutdown_answers_long_jobs_with_a_503_and_lets_short_ones_finish() {
    let mut server = Server::with(|o| o.limits.farewell = Duration::from_secs(3)).await;
    let send = |path: &str, body: Value| tokio::spawn(server.http.post(server.url(path)).json(&body).send());
    let short = send(SLOW, json!({"prompt": "short", "steps": 1, "width": 64, "height": 64}));
    let one = json!({"prompt": "slow", "num_inference_steps": 100, "width": 512, "height": 512});
    let many = json!({"prompt": "slow", "num_inference_steps": 100, "size": "512x512", "n": 4});
    let long = [
        send(SLOW, slow()),
        send("/predictions", one),
        send("/v1/images/generations", many),
    ];
    while server.engine.occupancy().jobs < 3 {
        sleep(Duration::from_millis(2)).await;
    }
    sleep(Duration::from_millis(300)).await;
    server.stop();
    sleep(Duration::from_millis(200)).await;
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("shutting down"));
    let anew = server.post(SLOW, &slow()).await;
    assert_eq!(anew.status(), 503);
    assert!(anew.headers().contains_key("retry-after"));
    assert_eq!(short.await.unwrap().unwrap().status(), 200);
    for job in long {
        let answer = job.await.unwrap().expect("an answer, not a broken connection");
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
    }
    server.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_clients_close_is_answered_with_a_close_frame() {
    let server = Server::start().await;
    let with = |code, reason| Some(CloseFrame { code, reason });
    for (paints, close) in [
        (false, None),
        (true, None),
        (false, with(CloseCode::Normal, "done".into())),
        (true, with(CloseCode::Away, "".into())),
    ] {
        let mut live = server.live().await;
        if paints {
            live.send(&paint(1, "a")).await;
        }
        live.socket.send(Message::Close(close.clone())).await.unwrap();
        let mut closed = false;
        while let Some(Ok(message)) = live.socket.next().await {
            closed |= matches!(message, Message::Close(_));
        }
        assert!(closed, "paints: {paints}, {close:?}");
    }
}

#[tokio::test]
async fn guessing_tokens_costs_more_and_more_time() {
    const RIGHT: &str = "a-secret-of-this-test";
    for way in ["query", "bearer", "basic", "live"] {
        let server = Server::with(|o| o.token = Some(RIGHT.into())).await;
        let ask = async |token: &str| {
            let query = format!("?token={token}");
            let path = if way == "query" { &query } else { "" };
            let asked = server.http.get(server.url(&format!("/v1/models{path}")));
            let asked = match way {
                "bearer" => asked.bearer_auth(token),
                "basic" => asked.basic_auth("somebody", Some(token)),
                _ => asked,
            };
            asked.send().await.unwrap()
        };
        let mut looked_at = 0;
        for guess in 0..30 {
            let guess = format!("guess-{guess}");
            looked_at += usize::from(if way == "live" {
                let (code, reason) = server
                    .live_at(&format!("/live?token={guess}"), &[])
                    .await
                    .closed()
                    .await;
                assert_eq!(code, 1008, "{reason}");
                reason.contains("wants its token")
            } else {
                let status = ask(&guess).await.status();
                assert!(matches!(status.as_u16(), 401 | 429), "{way}: {status}");
                status == 401
            });
        }
        assert!(
            (3..10).contains(&looked_at),
            "{way}: {looked_at} of 30 guesses were looked at"
        );
        let bearer = server.http.get(server.url("/v1/models")).bearer_auth(RIGHT);
        let right = bearer.try_clone().unwrap().send().await.unwrap();
        assert_eq!(
            right.status(),
            429,
            "{way}: a guess that is right is not told apart meanwhile"
        );
        let seconds: u64 = right.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        sleep(Duration::from_secs(seconds)).await;
        assert_eq!(bearer.send().await.unwrap().status(), 200, "{way}");
    }
}

#[tokio::test]
async fn only_http_pages_of_this_machine_are_the_servers_own() {
    let server = Server::start().await;
    let port = server.address.port();
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        let mut live = server
            .live_at("/live", &[("origin", &format!("http://{host}:{port}"))])
            .await;
        assert!(matches!(live.next().await, Got::Text(_)), "{host}");
    }
    for origin in [
        format!("evil://127.0.0.1:{port}"),
        format!("chrome-extension://127.0.0.1:{port}"),
        format!("http://localhost:{}", port ^ 1),
        format!("http://localhost.evil.example:{port}"),
    ] {
        let (code, _) = server.live_at("/live", &[("origin", &origin)]).await.closed().await;
        assert_eq!(code, 1008, "{origin}");
    }
}
