//! Strangers who hold connections, send bombs and ask for much, and the health checks beside them.

use super::Deeds;
use base64::Engine as _;
use prima_picture::{Format, Picture, QUALITY, encode};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// A health check is answered within this time.
pub const HEALTHY: Duration = Duration::from_millis(250);
/// More connections than the server has room for.
const SILENT: usize = 600;
const SLOW_BODIES: usize = 40;
/// Bombs under way at once.
const BOMBERS: usize = 8;

pub fn bombers(host: &str, deeds: &Arc<Deeds>) {
    let bombs: Arc<Vec<(&str, String, Vec<u8>)>> = Arc::new(bombs());
    for first in 0..BOMBERS {
        let (host, deeds, bombs) = (host.to_owned(), deeds.clone(), bombs.clone());
        tokio::spawn(async move {
            for round in first.. {
                let (route, kind, body) = &bombs[round % bombs.len()];
                let _ = post(&host, route, kind, body).await;
                deeds.bombs.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(500)).await;
            }
        });
    }
}

/// The answer's first bytes.
async fn post(host: &str, route: &str, kind: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(host).await?;
    let length = body.len();
    let head = format!(
        "POST {route} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Connects again and again and says nothing.
pub async fn silent(host: String, deeds: Arc<Deeds>) {
    loop {
        let mut held = Vec::new();
        for _ in 0..SILENT {
            held.extend(TcpStream::connect(&host).await.ok());
            deeds.held.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_secs(4)).await;
    }
}

/// A byte a second of bodies that never end.
pub async fn slow_bodies(host: String, deeds: Arc<Deeds>) {
    loop {
        let mut held = Vec::new();
        for _ in 0..SLOW_BODIES {
            let Ok(mut stream) = TcpStream::connect(&host).await else {
                continue;
            };
            let head =
                format!("POST /v1/images/generations HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1000000\r\n\r\n{{");
            let _ = stream.write_all(head.as_bytes()).await;
            deeds.held.fetch_add(1, Ordering::Relaxed);
            held.push(stream);
        }
        for _ in 0..10 {
            sleep(Duration::from_secs(1)).await;
            for stream in &mut held {
                let _ = stream.write_all(b" ").await;
            }
        }
    }
}

/// Large pictures of many steps, one after the other.
pub async fn heavy(host: String, deeds: Arc<Deeds>) {
    let body = json!({"prompt": "heavy", "steps": 20, "width": 512, "height": 512}).to_string();
    loop {
        let _ = post(&host, "/sdapi/v1/txt2img", "application/json", body.as_bytes()).await;
        deeds.heavy.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(200)).await;
    }
}

pub async fn health(host: String, deeds: Arc<Deeds>) {
    loop {
        let began = Instant::now();
        let asked = async {
            let mut stream = TcpStream::connect(&host).await?;
            let head = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = timeout(Duration::from_secs(5), asked).await;
        let well = matches!(&answer, Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200"));
        let took = began.elapsed();
        if !well || took > HEALTHY {
            eprintln!("a health check took {} ms: {answer:?}", took.as_millis());
            deeds.sick.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// Small files that are large once unpacked: route, content type, body.
fn bombs() -> Vec<(&'static str, String, Vec<u8>)> {
    let flat = |width: usize, height: usize| {
        let rgb = vec![7; 3 * width * height];
        encode(&Picture { width, height, rgb }, Format::Png, QUALITY, None).unwrap_or_default()
    };
    let json_type = "application/json".to_owned();
    let boundary = "soak";
    let form_type = format!("multipart/form-data; boundary={boundary}");
    let form = |name: &str, files: &[&Vec<u8>]| {
        let mut body = Vec::new();
        for file in files {
            let head =
                format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"a.png\"\r\n\r\n");
            body.extend(head.bytes());
            body.extend_from_slice(file);
            body.extend(b"\r\n");
        }
        body.extend(format!("--{boundary}--\r\n").bytes());
        body
    };
    let mut all = Vec::new();
    let frame = flat(4000, 4000);
    all.push(("/studio/animation", form_type.clone(), form("frame", &[&frame; 4])));
    for file in [flat(1 << 24, 1), flat(1, 1 << 22), frame] {
        let image = base64::engine::general_purpose::STANDARD.encode(&file);
        let bodies = [
            (
                "/sdapi/v1/img2img",
                json!({"prompt": "a", "steps": 1, "init_images": [image]}),
            ),
            (
                "/sdapi/v1/extra-single-image",
                json!({"image": image, "upscaling_resize": 1.0}),
            ),
            ("/sdapi/v1/png-info", json!({"image": image})),
            ("/predictions", json!({"prompt": "a", "steps": 1, "image": image})),
        ];
        all.extend(bodies.map(|(route, body)| (route, json_type.clone(), body.to_string().into_bytes())));
        all.push(("/v1/images/edits", form_type.clone(), form("image", &[&file])));
        all.push(("/studio/read-png", "image/png".to_owned(), file));
    }
    all
}
