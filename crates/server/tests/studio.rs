//! The studio's page in a real browser: headless Chromium with key and pointer events, against a server with the
//! shipped model. `PRIMA_SCREENSHOTS=DIR` keeps pictures of what was seen.

mod common;
use common::{Browser, Server, copied::copy, model_folder, same, shipped_model};
use prima_pipeline::{LoadOptions, ModelSource, Picture, Pipeline, Request, ScheduleOptions};
use serde_json::{Value, json};
use std::ops::ControlFlow;

const TYPED: &str = "a cat wearing sunglasses";

#[tokio::test(flavor = "multi_thread")]
async fn the_page_in_a_browser() {
    let Some(browser) = Browser::start().await else { return };
    let server = Server::of(shipped_model()).await;
    browser.open(&server.url("/")).await;
    let page = Page {
        browser,
        pipeline: Pipeline::load(&ModelSource::open(shipped_model()).unwrap(), &LoadOptions::default()).unwrap(),
    };
    page.paints_before_anything_is_done().await;
    page.follows_every_keystroke().await;
    page.ends_with_the_picture_of_prima_paint().await;
    page.colours_words_by_what_they_change().await;
    page.shows_variants_and_takes_one().await;
    page.repaints_a_sketch().await;
    page.restores_the_settings_of_a_png().await;
    page.replays_a_session_bit_by_bit().await;
    page.browser.resized(390, 844).await;
    page.browser.screenshot("phone").await;
    page.browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_why_a_model_cannot_be_loaded() {
    let Some(browser) = Browser::start().await else { return };
    let model = tempfile::tempdir().unwrap();
    copy(&model_folder(), model.path());
    std::fs::write(model.path().join("unet/config.json"), "{").unwrap();
    let server = Server::loading(model.path().to_owned()).await;
    browser.open(&server.url("/")).await;
    browser
        .until("return document.querySelector('#bar').textContent.includes('unet/config.json')")
        .await;
    browser.close().await;
}

struct Page {
    browser: Browser,
    pipeline: Pipeline,
}

impl Page {
    async fn paints_before_anything_is_done(&self) {
        self.browser
            .until("return prima.entries.some(e => e.what === 'painted' && e.final)")
            .await;
        self.browser.screenshot("first").await;
    }

    async fn follows_every_keystroke(&self) {
        let first = self.entries().await.len();
        self.browser.write_prompt(TYPED).await;
        self.browser.until_painted(TYPED).await;
        let entries = self.entries().await.split_off(first);
        let sent: Vec<u64> = revisions(&entries, "sent");
        let painted: Vec<u64> = revisions(&entries, "painted");
        assert!(
            sent.len() > TYPED.len() / 2,
            "{} messages for {} keys",
            sent.len(),
            TYPED.len()
        );
        for rev in &sent {
            assert!(
                painted.iter().any(|p| p >= rev),
                "nothing was painted for {rev} or later"
            );
        }
        let order: Vec<(u64, u64)> = entries
            .iter()
            .filter(|e| e["what"] == "painted")
            .map(|e| (e["rev"].as_u64().unwrap(), e["tier"].as_u64().unwrap()))
            .collect();
        assert!(order.is_sorted(), "a frame went backwards: {order:?}");
        self.browser.screenshot("typed").await;
    }

    async fn ends_with_the_picture_of_prima_paint(&self) {
        let shown = self.browser.run_async("prima.shown().then(done)").await;
        let request = Request {
            prompt: TYPED.to_owned(),
            seed: shown["seed"].as_u64().unwrap(),
            schedule: ScheduleOptions::steps(shown["steps"].as_u64().unwrap() as usize),
            ..Request::default()
        };
        let want = self.paint(&request);
        same(&picture(&shown, "file"), &want, "the file");
        same(&picture(&shown, "drawn"), &want, "the canvas");
    }

    async fn colours_words_by_what_they_change(&self) {
        self.browser.click("#sense").await;
        self.browser
            .until("return document.querySelector('#sense-text').textContent.includes('Without the word')")
            .await;
        let marks = self
            .browser
            .run("return document.querySelectorAll('#prompt-under mark, #prompt-under span').length")
            .await;
        assert!(marks.as_u64() >= Some(3), "{marks} words are coloured");
        self.browser.screenshot("words").await;
        self.browser.click("#sense").await;
    }

    async fn shows_variants_and_takes_one(&self) {
        self.browser.click("[data-view-to=variants]").await;
        self.browser
            .until("return document.querySelectorAll('#variants-grid button[data-waiting=false]').length === 9")
            .await;
        self.browser.screenshot("variants").await;
        let label = "return document.querySelector('#variants-grid li:nth-child(2) button').getAttribute('aria-label')";
        let label = self.browser.run(label).await.as_str().unwrap().to_owned();
        self.browser.click("#variants-grid li:nth-child(2) button").await;
        self.browser.until_painted(TYPED).await;
        let seed = self.browser.run("return document.querySelector('#seed').value").await;
        assert_eq!(label, format!("Take seed {}", seed.as_str().unwrap()));
    }

    async fn repaints_a_sketch(&self) {
        self.browser.click("[data-view-to=sketch]").await;
        self.browser
            .until("return !document.querySelector('#pad-pane').hidden")
            .await;
        let before = self.browser.run_async("prima.shown().then(done)").await;
        self.browser.drag_across("#pad").await;
        let rev = before["rev"].as_u64().unwrap();
        self.browser
            .until(&format!(
                "return prima.entries.some(e => e.what === 'painted' && e.final && e.rev > {rev})"
            ))
            .await;
        let after = self.browser.run_async("prima.shown().then(done)").await;
        assert_ne!(before["file"], after["file"], "the stroke changed nothing");
        self.browser.screenshot("sketch").await;
        self.browser.click("[data-view-to=words]").await;
    }

    async fn restores_the_settings_of_a_png(&self) {
        let request = Request {
            prompt: "a blue fish".to_owned(),
            seed: 42,
            schedule: ScheduleOptions::steps(2),
            ..Request::default()
        };
        let response = self
            .pipeline
            .paint(&request, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        let parameters = response.parameters(&request, self.pipeline.name(), 0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fish.png");
        std::fs::write(
            &path,
            prima_picture::encode_png(&response.pictures[0], &parameters).unwrap(),
        )
        .unwrap();
        self.browser.choose_file("#open-file", &path).await;
        self.browser.until_painted("a blue fish").await;
        let shown = self.browser.run_async("prima.shown().then(done)").await;
        assert_eq!((&shown["seed"], &shown["steps"]), (&json!(42), &json!(2)));
        same(&picture(&shown, "file"), &response.pictures[0], "the restored picture");
    }

    async fn replays_a_session_bit_by_bit(&self) {
        self.browser.click("#record").await;
        self.browser.write_prompt("a red car").await;
        self.browser.until_painted("a red car").await;
        self.browser.click("#record").await;
        self.browser
            .until("return document.querySelector('#replay-status').textContent.includes('kept')")
            .await;
        self.browser.click("#replay").await;
        self.browser
            .until("return document.querySelector('#replay-status').textContent.includes('bit for bit')")
            .await;
        let status = self
            .browser
            .run("return document.querySelector('#replay-status').textContent")
            .await;
        assert!(
            !status.as_str().unwrap().contains("All 0 "),
            "nothing was compared: {status}"
        );
    }

    async fn entries(&self) -> Vec<Value> {
        let entries = self.browser.run("return prima.entries").await;
        entries.as_array().unwrap().clone()
    }

    fn paint(&self, request: &Request) -> Picture {
        let response = self
            .pipeline
            .paint(request, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        response.pictures.into_iter().next().unwrap()
    }
}

fn revisions(entries: &[Value], what: &str) -> Vec<u64> {
    entries
        .iter()
        .filter(|e| e["what"] == what && e["type"] == "paint")
        .map(|e| e["rev"].as_u64().unwrap())
        .collect()
}

/// The pixels under `key` of what `prima.shown()` says.
fn picture(shown: &Value, key: &str) -> Picture {
    let side = |name: &str| shown[name].as_u64().unwrap() as usize;
    let rgb = shown[key]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_u64().unwrap() as u8)
        .collect();
    Picture {
        width: side("width"),
        height: side("height"),
        rgb,
    }
}
