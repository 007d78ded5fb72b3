//! The studio elsewhere: live pictures as MJPEG, as OBS and browsers read it, and the address for a phone.

mod common;

use common::{Browser, Server, paint, studio};
use prima_pipeline::Picture;
use serde_json::json;
use std::time::Duration;

/// The next part of the stream: its header and its picture.
async fn part(response: &mut reqwest::Response, buffer: &mut Vec<u8>) -> Picture {
    let find = |buffer: &[u8], text: &[u8]| buffer.windows(text.len()).position(|w| w == text);
    loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
            assert!(head.contains("Content-Type: image/jpeg"), "{head}");
            let (_, length) = head.split_once("Content-Length: ").unwrap();
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            let (start, end) = (end + 4, end + 4 + length);
            // The boundary behind it is there too: only then does a browser show it.
            if buffer.len() >= end + b"\r\n--prima\r\n".len() {
                assert_eq!(&buffer[end..end + 11], b"\r\n--prima\r\n");
                let picture = Picture::decode(&buffer[start..end], "part").unwrap();
                buffer.drain(..end + 11);
                return picture;
            }
        }
        let chunk = tokio::time::timeout(Duration::from_mins(1), response.chunk()).await;
        buffer.extend(chunk.unwrap().unwrap().expect("the stream goes on"));
    }
}

fn mean_difference(a: &Picture, b: &Picture) -> f64 {
    assert_eq!((a.width, a.height), (b.width, b.height));
    let sum: u64 = a.rgb.iter().zip(&b.rgb).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.rgb.len() as f64
}

#[tokio::test]
async fn whoever_watches_sees_each_live_picture_and_the_last_one_before() {
    let server = Server::with(|options| options.stream = true).await;
    let mut live = server.live().await;
    live.send(&paint(1, "a cat")).await;
    let cat = live.frames_until(1).await.pop().unwrap().1;

    let mut watched = server.get("/studio/stream").await;
    assert_eq!(watched.status(), 200);
    let kind = watched.headers()["content-type"].to_str().unwrap();
    assert_eq!(kind, "multipart/x-mixed-replace; boundary=prima");
    let mut buffer = Vec::new();
    assert!(
        mean_difference(&part(&mut watched, &mut buffer).await, &cat) < 6.0,
        "JPEG's loss"
    );

    live.send(&paint(2, "a dog in the snow")).await;
    let dog = live.frames_until(2).await.pop().unwrap().1;
    assert!(mean_difference(&dog, &cat) > 6.0, "the pictures are too alike to tell");
    // The quick tier may come before it.
    let mut seen = part(&mut watched, &mut buffer).await;
    if mean_difference(&seen, &dog) >= 6.0 {
        seen = part(&mut watched, &mut buffer).await;
    }
    assert!(mean_difference(&seen, &dog) < 6.0);
}

#[tokio::test]
async fn what_the_server_was_not_started_for_says_how_it_would_be() {
    let server = Server::start().await;
    for (path, how) in [
        ("/studio/stream", "--stream"),
        ("/studio/join", "--host 0.0.0.0 --token"),
    ] {
        let response = server.get(path).await;
        assert_eq!(response.status(), 409);
        let text = response.text().await.unwrap();
        assert!(text.contains(how), "{text}");
    }
}

#[tokio::test]
async fn the_manifest_names_an_icon_that_is_there() {
    let server = Server::start().await;
    let manifest = server.get("/manifest.webmanifest").await;
    assert_eq!(manifest.headers()["content-type"], "application/manifest+json");
    let icon = &manifest.json::<serde_json::Value>().await.unwrap()["icons"][0]["src"];
    assert_eq!(server.get(&format!("/{}", icon.as_str().unwrap())).await.status(), 200);
}

/// A camera that shows what the page's `scene` does.
const CAMERA: &str = "window.scene = Object.assign(document.createElement('canvas'), { width: 320, height: 240 }); \
    window.show = colour => { const g = scene.getContext('2d'); g.fillStyle = '#808080'; g.fillRect(0, 0, 320, 240); \
        g.fillStyle = colour; g.fillRect(80, 60, 120, 120); }; \
    show('green'); setInterval(() => show(window.colour ?? 'green'), 50); \
    navigator.mediaDevices.getUserMedia = async () => scene.captureStream(20);";

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_shows_the_same_asks_for_nothing() {
    let Some((browser, _server)) = studio().await else {
        return;
    };
    let sent = async |browser: &Browser| {
        let count = "return prima.entries.filter(e => e.what === 'sent').length";
        browser.run(count).await.as_u64().unwrap()
    };
    browser.run(CAMERA).await;
    browser.click("[data-view-to=sketch]").await;
    browser.click("#pad-camera").await;
    let still = "return document.querySelector('#fps').textContent === 'unchanged'";
    browser.until(still).await;
    let before = sent(&browser).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sent(&browser).await, before, "nothing moved");
    browser.run("window.colour = 'red'").await;
    browser
        .until(&format!(
            "return prima.entries.filter(e => e.what === 'sent').length > {before}"
        ))
        .await;
    browser.until(still).await;

    // What stays of the last picture.
    let mixed = browser
        .run_async(
            "import('/js/steady.js').then(({ Steady }) => { const steady = new Steady(); \
                 const frame = new OffscreenCanvas(64, 64); const g = frame.getContext('2d'); \
                 g.fillStyle = '#000000'; g.fillRect(0, 0, 64, 64); \
                 const first = steady.isOther(frame), again = steady.isOther(frame); \
                 const white = new OffscreenCanvas(64, 64); const w = white.getContext('2d'); \
                 w.fillStyle = '#ffffff'; w.fillRect(0, 0, 64, 64); steady.share = 0.25; \
                 steady.lay(g, white.transferToImageBitmap()); \
                 done([first, again, g.getImageData(5, 5, 1, 1).data[0], steady.isOther(frame)]); })",
        )
        .await;
    assert_eq!(mixed, json!([true, false, 64, true]));
    browser.click("#pad-camera").await;
    browser.end().await;
}
