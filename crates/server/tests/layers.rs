//! Layers of the studio's sketch, regions, and LoRAs: through the live protocol with the pixels that `prima paint` makes, and once each
//! in a real browser (headless Chromium, as in studio.rs).

mod common;

use common::controlnet::options;
use common::{Browser, Got, Live, Server, painted_with, png, same, shipped_model};
use prima_picture::{Format, QUALITY, encode};
use prima_pipeline::{Control, Gray, InitImage, LoadOptions, Mask, Picture, Preprocessor, Request, ScheduleOptions};
use serde_json::{Value, json};
use std::time::Duration;

fn square() -> Gray {
    let mut gray = Gray::flat(64, 48, 0);
    for y in 12..36 {
        gray.values[y * 64 + 16..y * 64 + 40].fill(255);
    }
    gray
}

fn lines() -> Vec<u8> {
    encode(&square().to_picture(), Format::Png, QUALITY, None).unwrap()
}

/// Sends `header` over `files`, whose lengths it names by these layers, and waits for the picture or the refusal.
async fn answer(live: &mut Live, mut header: Value, files: &[(&str, Vec<u8>)]) -> Result<Picture, String> {
    let rev = header["rev"].as_u64().unwrap();
    for (layer, file) in files {
        header["layers"][*layer] = json!(file.len());
    }
    let payload: Vec<u8> = files.iter().flat_map(|(_, file)| file.clone()).collect();
    live.send_binary(&header, &payload).await;
    loop {
        match live.next().await {
            Got::Frame(frame, picture) if frame["rev"] == rev && frame["final"] == true => return Ok(picture),
            Got::Text(said) if said["type"] == "error" => return Err(said["message"].as_str().unwrap().to_owned()),
            Got::Closed(code, reason) => panic!("{code}: {reason}"),
            _ => {}
        }
    }
}

fn asked(rev: u64) -> Value {
    json!({"type": "paint", "rev": rev, "prompt": "a cat", "seed": 7, "steps": 3, "width": 64, "height": 48,
        "strength": 0.7, "guidance_scale": 0, "preview": false})
}

#[tokio::test]
async fn a_message_carries_a_picture_its_mask_and_lines_that_steer() {
    let place = tempfile::TempDir::new().unwrap();
    let load = options(place.path());
    let server = Server::loaded(load.clone()).await;
    let mut live = server.live().await;
    assert_eq!(live.hello["model"]["controlnets"], json!(["lines"]));
    let plain = Request {
        prompt: "a cat".into(),
        seed: 7,
        guidance_scale: Some(0.0),
        width: Some(64),
        height: Some(48),
        schedule: ScheduleOptions::steps(3),
        ..Request::default()
    };
    let image = png(64, 48);
    let masked = Request {
        init_image: Some(InitImage {
            picture: Picture::decode(&image, "image").unwrap(),
            strength: Some(0.7),
        }),
        mask: Some(Mask::new(square())),
        ..plain.clone()
    };
    let control = Control {
        scale: 0.5,
        preprocessor: Preprocessor::Canny,
        ..Control::new("lines", square().to_picture())
    };
    let steering = json!({"name": "lines", "scale": 0.5, "preprocessor": "canny"});
    let with = |request: &Request| Request {
        controls: vec![control.clone()],
        ..request.clone()
    };
    let (image, mask) = (("image", image), ("mask", lines()));
    let painted = |request: &Request| painted_with(&load, request).swap_remove(0);

    let found = answer(&mut live, asked(1), &[image.clone(), mask.clone()]).await;
    same(&found.unwrap(), &painted(&masked), "a mask");
    let mut header = asked(2);
    header["control"] = steering.clone();
    let found = answer(&mut live, header, &[("control", lines())]).await;
    same(&found.unwrap(), &painted(&with(&plain)), "lines");
    let mut header = asked(3);
    header["control"] = steering;
    let found = answer(&mut live, header, &[image, mask, ("control", lines())]).await;
    same(&found.unwrap(), &painted(&with(&masked)), "all three");
}

#[tokio::test]
async fn layers_that_do_not_fit_their_message_are_refused_and_the_session_goes_on() {
    let place = tempfile::TempDir::new().unwrap();
    let server = Server::loaded(options(place.path())).await;
    let mut live = server.live().await;
    let mut wrong = asked(1);
    wrong["layers"] = json!({"image": 1, "mask": u64::MAX});
    live.send_binary(&wrong, &png(64, 48)).await;
    let said = live.text().await;
    assert!(
        said["message"].as_str().unwrap().contains("layers do not come to"),
        "{said}"
    );
    let control = |name: &str| json!({"name": name, "preprocessor": "none"});
    for (rev, control, files, part) in [
        (2, Value::Null, vec![("mask", lines())], "a mask is of an image"),
        (
            3,
            Value::Null,
            vec![("control", lines())],
            "has a picture in layers.control",
        ),
        (
            4,
            control("lines"),
            vec![("image", png(64, 48))],
            "has a picture in layers.control",
        ),
        (
            5,
            control("/etc/passwd"),
            vec![("control", lines())],
            "use one of lines",
        ),
        (
            6,
            json!({"name": "lines", "preprocessor": "depth"}),
            vec![("control", lines())],
            "use one of none",
        ),
        (
            7,
            Value::Null,
            vec![("image", png(64, 48)), ("mask", png(32, 32))],
            "use a mask of the image's size",
        ),
    ] {
        let mut header = asked(rev);
        header["control"] = control;
        let said = answer(&mut live, header, &files).await.unwrap_err();
        assert!(said.contains(part), "{part}: {said}");
    }
    answer(&mut live, asked(8), &[("image", png(64, 48))]).await.unwrap();
}

struct Page {
    browser: Browser,
    server: Server,
}

impl Page {
    /// The page of a server with its first picture; `None` without a browser.
    async fn of(server: impl Future<Output = Server>) -> Option<Self> {
        let browser = Browser::start().await?;
        let server = server.await;
        browser.open(&server.url("/")).await;
        let page = Self { browser, server };
        page.after(0).await;
        Some(page)
    }

    /// The finished picture of the last revision, once that is behind this one and nothing follows: what `prima.shown()` tells.
    async fn after(&self, rev: u64) -> Value {
        let sent = "const sent = prima.entries.filter(e => e.what === 'sent').at(-1);";
        loop {
            self.browser
                .until(&format!(
                    "{sent} return Boolean(sent) && sent.rev > {rev} && \
                     prima.entries.some(e => e.what === 'painted' && e.final && e.rev === sent.rev)"
                ))
                .await;
            let shown = self.browser.run_async("prima.shown().then(done)").await;
            tokio::time::sleep(Duration::from_millis(400)).await;
            if self.browser.run(&format!("{sent} return sent.rev")).await == shown["rev"] {
                return shown;
            }
        }
    }

    async fn is_hidden(&self, css: &str) -> bool {
        let hidden = self
            .browser
            .run(&format!("return document.querySelector('{css}').hidden"))
            .await;
        hidden.as_bool().unwrap()
    }

    async fn end(self) {
        assert!(self.is_hidden("#bar").await, "the page shows an error");
        self.browser.end().await;
        drop(self.server);
    }
}

/// The file's pixels of `shown` in a region: columns and rows.
fn pixels(shown: &Value, columns: std::ops::Range<u64>, rows: std::ops::Range<u64>) -> Vec<u64> {
    let width = shown["width"].as_u64().unwrap();
    let value = |x: u64, y: u64, c: u64| shown["file"][(3 * (y * width + x) + c) as usize].as_u64().unwrap();
    let columns = &columns;
    rows.flat_map(|y| columns.clone().flat_map(move |x| (0..3).map(move |c| value(x, y, c))))
        .collect()
}

fn rev(shown: &Value) -> u64 {
    shown["rev"].as_u64().unwrap()
}

fn recipe(shown: &Value) -> &str {
    shown["parameters"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_paints_the_shown_picture_anew_below_it_and_nowhere_else() {
    let Some(page) = Page::of(Server::of(shipped_model())).await else {
        return;
    };
    let browser = &page.browser;
    browser.click("[data-view-to=sketch]").await;
    assert!(page.is_hidden("[data-layer=lines]").await, "there is no ControlNet");
    browser.drag_across("#pad").await;
    let before = page.after(1).await;
    browser.click("[data-layer=mask]").await;
    assert!(page.is_hidden("#swatches").await && !page.is_hidden("#mask-invert").await);
    browser.drag_across("#pad").await;
    let masked = page.after(rev(&before)).await;
    assert!(recipe(&masked).contains("Mask blur"), "{}", recipe(&masked));
    // The stroke goes through the middle, nine pixels wide.
    let (corner, middle) = ((96..128, 0..32), (62..66, 62..66));
    let of =
        |shown: &Value, (columns, rows): (std::ops::Range<u64>, std::ops::Range<u64>)| pixels(shown, columns, rows);
    assert_eq!(
        of(&masked, corner.clone()),
        of(&before, corner.clone()),
        "outside of the mask"
    );
    assert_ne!(
        of(&masked, middle.clone()),
        of(&before, middle.clone()),
        "below the mask"
    );
    browser.screenshot("sketch-mask").await;

    browser.click("#mask-invert").await;
    let inverted = page.after(rev(&masked)).await;
    assert_eq!(
        of(&inverted, middle.clone()),
        of(&before, middle.clone()),
        "what was masked before"
    );
    assert_ne!(
        of(&inverted, corner.clone()),
        of(&before, corner.clone()),
        "all but the stroke"
    );

    // Inverted again and rubbed out there is no mask, and nothing is asked for.
    browser.click("#mask-invert").await;
    let again = page.after(rev(&inverted)).await;
    browser.click("#eraser").await;
    browser.drag_across("#pad").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let erased = page.after(rev(&again) - 1).await;
    browser.click("#pad-clear").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let cleared = page.after(rev(&again) - 1).await;
    assert_eq!(rev(&cleared), rev(&erased), "an empty mask asks for nothing");
    browser.write_prompt("a blue fish").await;
    browser.until_painted("a blue fish").await;
    let unmasked = page.after(rev(&cleared)).await;
    assert!(!recipe(&unmasked).contains("Mask blur"), "{}", recipe(&unmasked));
    page.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_on_the_pad_steers_the_served_controlnet() {
    let place = tempfile::TempDir::new().unwrap();
    let load = options(place.path());
    let Some(page) = Page::of(Server::loaded(load)).await else {
        return;
    };
    let browser = &page.browser;
    browser.click("[data-view-to=sketch]").await;
    let before = page.after(1).await;
    assert!(!page.is_hidden("[data-layer=lines]").await);
    browser.click("[data-layer=lines]").await;
    browser.drag_across("#pad").await;
    let steered = page.after(rev(&before)).await;
    let said = recipe(&steered);
    assert!(said.contains("ControlNet 0") && said.contains("lines"), "{said}");
    assert!(
        !said.contains("Denoising strength"),
        "an empty sketch is not painted over: {said}"
    );
    browser.screenshot("sketch-lines").await;
    browser.click("#pad-undo").await;
    // What was sent while the line was drawn may still arrive; without an end of it this waits in vain, and fails.
    let mut undone = page.after(rev(&steered)).await;
    while recipe(&undone).contains("ControlNet") {
        undone = page.after(rev(&undone)).await;
    }
    page.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loras_are_chips_with_a_slider_for_their_weight() {
    let place = tempfile::TempDir::new().unwrap();
    for name in ["kohya", "loha"] {
        let file = format!("{name}.safetensors");
        let golden = common::model_folder().join("../loras").join(&file);
        std::fs::copy(golden, place.path().join(&file)).unwrap();
    }
    let Some(page) = Page::of(Server::with_loras(place.path().to_path_buf())).await else {
        return;
    };
    let browser = &page.browser;
    assert!(!page.is_hidden("#loras-group").await);
    let plain = page.after(0).await;
    assert!(!recipe(&plain).contains("<lora"), "{}", recipe(&plain));
    browser.click("#loras button[title=kohya]").await;
    let whole = page.after(rev(&plain)).await;
    assert!(recipe(&whole).contains("<lora:kohya:1>"), "{}", recipe(&whole));
    assert_ne!(whole["file"], plain["file"]);
    browser
        .run(
            "const slider = document.querySelector('#lora-weights input'); slider.value = '0.5'; \
             slider.dispatchEvent(new Event('input', { bubbles: true }))",
        )
        .await;
    let half = page.after(rev(&whole)).await;
    assert!(recipe(&half).contains("<lora:kohya:0.5>"), "{}", recipe(&half));
    assert!(half["file"] != whole["file"] && half["file"] != plain["file"]);
    browser.screenshot("loras").await;
    let link = "return location.hash.includes('lora=kohya%3A0.5')";
    browser.until(link).await;
    browser.click("#loras button[title=kohya]").await;
    let off = page.after(rev(&half)).await;
    assert_eq!(off["file"], plain["file"]);
    // A link brings it back.
    browser
        .run("location.hash = '#prompt=a+red+apple+on+a+light+blue+background&seed=1&lora=kohya:0.5'")
        .await;
    let back = page.after(rev(&off)).await;
    assert_eq!(back["file"], half["file"]);
    page.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_loras_shows_none() {
    let Some(page) = Page::of(Server::loaded(LoadOptions::default())).await else {
        return;
    };
    assert!(page.is_hidden("#loras-group").await);
    page.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_over_the_picture_has_words_of_its_own() {
    let Some(page) = Page::of(Server::of(shipped_model())).await else {
        return;
    };
    let browser = &page.browser;
    let plain = page.after(0).await;
    browser.click("#region-add").await;
    browser.click("#regions input").await;
    browser.type_slowly("a star").await;
    let star = page.after(rev(&plain)).await;
    let said = "Regions: \"[{\\\"prompt\\\":\\\"a star\\\",\\\"area\\\":[0.0,0.0,0.5,1.0]";
    assert!(recipe(&star).contains(said), "{}", recipe(&star));
    let (left, right) = ((8..48, 32..96), (112..128, 32..96));
    let change = |(columns, rows): (std::ops::Range<u64>, std::ops::Range<u64>)| -> u64 {
        let of = |shown: &Value| pixels(shown, columns.clone(), rows.clone());
        let (a, b) = (of(&plain), of(&star));
        a.iter().zip(&b).map(|(a, b)| a.abs_diff(*b)).sum::<u64>() / a.len() as u64
    };
    assert!(change(left.clone()) > 2 * change(right), "{}", change(left));
    // Moved by the keyboard and sized by the pointer.
    browser
        .run(
            "document.querySelector('.region-box').dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }))",
        )
        .await;
    browser
        .until("return decodeURIComponent(location.hash).includes('region=0.05,0,0.55,1:a+star')")
        .await;
    browser.drag_across(".region-box").await;
    browser
        .until("return /region=0\\.[1-9]\\d*,0,/.test(decodeURIComponent(location.hash))")
        .await;
    browser.screenshot("regions").await;
    browser.click("#regions button").await;
    browser.until("return !location.hash.includes('region')").await;
    let again = page.after(rev(&star)).await;
    assert_eq!(
        again["file"], plain["file"],
        "without the region it is the picture before"
    );
    page.end().await;
}
