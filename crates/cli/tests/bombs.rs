//! Files that are small and unpack to gigabytes, sixteen at a time to every route that takes such files, against a server that
//! may have 4 GB: it answers each, stays alive and well, and paints afterwards.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "each test file uses its part")]
mod common;
#[allow(dead_code, reason = "each test file uses its part")]
#[path = "common/serving.rs"]
mod serving;

use base64::Engine as _;
use common::golden;
use serde_json::json;
use serving::Serving;
use std::borrow::Cow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Of address space, in KiB.
const ROOM: usize = 4 << 20;
const AT_ONCE: usize = 16;
/// What a note unpacks to.
const NOTE_BYTES: usize = 96 << 20;

const JSON: &str = "application/json";
const FORM: &str = "multipart/form-data; boundary=bombs";

/// Route, type and body.
type Post = (&'static str, &'static str, Vec<u8>);

/// A PNG of one colour with what `add` adds to it.
fn png(width: u32, height: u32, colour: png::ColorType, change: impl FnOnce(&mut png::Info<'static>)) -> Vec<u8> {
    let mut info = png::Info::with_size(width, height);
    info.color_type = colour;
    info.bit_depth = png::BitDepth::Eight;
    change(&mut info);
    let mut file = Vec::new();
    let encoder = png::Encoder::with_info(&mut file, info).unwrap();
    let mut writer = encoder.write_header().unwrap();
    let pixels = width as usize * height as usize * colour.samples();
    writer.write_image_data(&vec![7; pixels]).unwrap();
    writer.finish().unwrap();
    file
}

fn with_image_format(width: u32, height: u32, format: image::ImageFormat) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(width, height).write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn files() -> Vec<Vec<u8>> {
    let note = || "a".repeat(NOTE_BYTES);
    let rgb = png::ColorType::Rgb;
    vec![
        // Texts and a colour profile.
        png(64, 64, rgb, |info| {
            let mut chunk = png::text_metadata::ITXtChunk::new("parameters", note());
            chunk.compress_text().unwrap();
            info.utf8_text.push(chunk);
        }),
        png(64, 64, rgb, |info| {
            let mut chunk = png::text_metadata::ZTXtChunk::new("parameters", note());
            chunk.compress_text().unwrap();
            info.compressed_latin1_text.push(chunk);
        }),
        png(64, 64, rgb, |info| {
            info.icc_profile = Some(Cow::Owned(vec![0; NOTE_BYTES]));
        }),
        // Sides beyond the bound, and areas at it.
        png(1 << 24, 1, rgb, |_| ()),
        png(1, 1 << 24, rgb, |_| ()),
        png(16_000, 1000, rgb, |_| ()),
        png(4000, 4000, png::ColorType::Rgba, |_| ()),
        png(4000, 4000, png::ColorType::Grayscale, |_| ()),
        with_image_format(1000, 16_000, image::ImageFormat::Jpeg),
        with_image_format(4000, 4000, image::ImageFormat::WebP),
    ]
}

fn form(name: &str, files: &[&[u8]]) -> Vec<u8> {
    let mut body = b"--bombs\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\na\r\n".to_vec();
    if name == "frame" {
        body.clear();
    }
    for file in files {
        let head = format!("--bombs\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"a.png\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(file);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--bombs--\r\n");
    body
}

/// A file to every route that takes one.
fn posts(file: &[u8]) -> Vec<Post> {
    let image = base64::engine::general_purpose::STANDARD.encode(file);
    let json = |body: serde_json::Value| body.to_string().into_bytes();
    vec![
        ("/studio/read-png", "image/png", file.to_vec()),
        ("/studio/animation", FORM, form("frame", &[file; 2])),
        ("/sdapi/v1/png-info", JSON, json(json!({"image": image}))),
        (
            "/sdapi/v1/extra-single-image",
            JSON,
            json(json!({"image": image, "upscaling_resize": 1.0})),
        ),
        (
            "/sdapi/v1/img2img",
            JSON,
            json(json!({"prompt": "a", "steps": 2, "init_images": [image]})),
        ),
        (
            "/predictions",
            JSON,
            json(json!({"prompt": "a", "num_inference_steps": 2, "image": image})),
        ),
        ("/v1/images/edits", FORM, form("image", &[file])),
    ]
}

/// Longest wait for an answer to a health check while all `posts` are sent.
fn bombard(serving: &Serving, posts: &[Post]) -> Duration {
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let health = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                assert!(serving.get("/healthz").starts_with("HTTP/1.1 200"));
                longest = longest.max(began.elapsed());
                std::thread::sleep(Duration::from_millis(50));
            }
            longest
        });
        let senders: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    while let Some((path, kind, body)) = posts.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let answer = serving.post(path, kind, body);
                        let status = answer.get(9..12).and_then(|s| s.parse::<u16>().ok());
                        // Painted, refused as it is, or told to come back.
                        let well = status.is_some_and(|s| matches!(s, 200 | 201 | 400..=499 | 503));
                        assert!(well, "{path}: {}", answer.get(..300).unwrap_or(&answer));
                    }
                })
            })
            .collect();
        let broken: Vec<_> = senders.into_iter().filter_map(|sender| sender.join().err()).collect();
        over.store(true, Ordering::Relaxed);
        let longest = health.join();
        assert!(broken.is_empty(), "{} of the answers are none", broken.len());
        longest.unwrap()
    })
}

/// The most memory that the server had at once, in MB.
fn peak_mb(serving: &Serving) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", serving.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() >> 10
}

fn survives(posts: &[Post]) {
    let model = golden("tiny-sdxl").display().to_string();
    let mut serving = Serving::within(ROOM, &["serve", "--port", "0", "--model", &model]);
    while !serving.get("/readyz").contains("\"ready\":true") {
        std::thread::sleep(Duration::from_millis(10));
    }
    let longest = bombard(&serving, posts);
    println!(
        "{} posts, {AT_ONCE} at a time: {} MB at most, a health check took at most {} ms",
        posts.len(),
        peak_mb(&serving),
        longest.as_millis()
    );
    assert_eq!(serving.process.try_wait().unwrap(), None);
    assert!(longest < Duration::from_secs(2), "a health check took {longest:?}");
    let body = br#"{"prompt": "a", "num_inference_steps": 1, "size": "64x64"}"#;
    let painted = serving.post("/v1/images/generations", JSON, body);
    assert!(painted.starts_with("HTTP/1.1 200"), "{painted}");
}

#[test]
fn a_server_of_4_gb_survives_bombs_sixteen_at_a_time_in_every_route() {
    let posts: Vec<Post> = files().iter().flat_map(|file| posts(file)).collect();
    survives(&posts);
}

/// `PRIMA_BOMBS=FOLDER cargo test --release -p prima-cli --test bombs -- --ignored`: files of somebody else's, each to every
/// route; what is called `.json` or `.body` is sent as it is, too.
#[test]
#[ignore = "needs a folder of files"]
fn a_server_of_4_gb_survives_the_files_of_a_folder() {
    let folder = std::env::var_os("PRIMA_BOMBS").expect("PRIMA_BOMBS is a folder");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(Path::new(&folder)).unwrap() {
        let path = entry.unwrap().path();
        let Ok(file) = std::fs::read(&path) else { continue };
        match path.extension().and_then(|e| e.to_str()) {
            Some("json") => {
                all.extend(["/sdapi/v1/img2img", "/predictions"].map(|route| (route, JSON, file.clone())));
            }
            Some("body") => {
                // The boundary is the body's own first line.
                let line = file.iter().position(|b| *b == b'\r').unwrap_or(2);
                let boundary = String::from_utf8_lossy(&file[2..line]).into_owned();
                let kind: &'static str = format!("multipart/form-data; boundary={boundary}").leak();
                all.extend(["/studio/animation", "/v1/images/edits"].map(|route| (route, kind, file.clone())));
            }
            _ => {}
        }
        all.extend(posts(&file));
    }
    let sixteen: Vec<Post> = all
        .iter()
        .flat_map(|post| std::iter::repeat_n(post.clone(), AT_ONCE))
        .collect();
    survives(&sixteen);
}
