//! What a first visit to the studio met and should not: each fault in a real browser (headless Chromium, as in studio.rs).

mod common;

use common::{Browser, Server, studio};
use fantoccini::key::Key;
use serde_json::{Value, json};
use std::time::Duration;

/// The page with its first picture; `None` without a browser.
async fn page() -> Option<Page> {
    let (browser, server) = studio().await?;
    Some(Page {
        browser,
        _server: server,
    })
}

struct Page {
    browser: Browser,
    _server: Server,
}

impl Page {
    /// Left, top, right and bottom of an element in CSS pixels.
    async fn edges(&self, css: &str) -> [f64; 4] {
        let script = format!(
            "const r = document.querySelector('{css}').getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]"
        );
        let edges = self.browser.run(&script).await;
        [0, 1, 2, 3].map(|i| edges[i].as_f64().unwrap())
    }

    /// A window whose page has this size.
    async fn sized(&self, width: u32, height: u32) {
        self.browser.resized(width, height).await;
        let inner = self.browser.run("return [innerWidth, innerHeight]").await;
        let missing = |given: u32, at: usize| given + given.saturating_sub(inner[at].as_u64().unwrap() as u32);
        self.browser.resized(missing(width, 0), missing(height, 1)).await;
    }

    /// Drops a file of this script's making, which ends in `name` and `blob`.
    async fn drop_file(&self, make: &str) {
        let script = format!(
            "(async () => {{ {make}; const data = new DataTransfer(); \
             data.items.add(new File([blob], name, {{ type: blob.type }})); \
             dispatchEvent(new DragEvent('drop', {{ dataTransfer: data, bubbles: true, cancelable: true }})); done(true); }})()"
        );
        self.browser.run_async(&script).await;
    }

    async fn end(self) {
        self.browser.end().await;
    }
}

fn overlap(a: [f64; 4], b: [f64; 4]) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_square_after_a_tall_picture_is_square_and_covers_nothing() {
    let Some(page) = page().await else { return };
    let shaped = async |width: u32, height: u32| {
        page.browser
            .run(&format!(
                "location.hash = '#prompt=a+red+apple&seed=1&w={width}&h={height}'"
            ))
            .await;
        page.browser
            .until(&format!(
                "const shown = document.querySelector('#plate').textContent; \
                 return shown.startsWith('{width} × {height},') && prima.entries.at(-1).what === 'painted'"
            ))
            .await;
        page.edges("#picture-frame").await
    };
    let before = shaped(128, 128).await;
    let tall = shaped(96, 160).await;
    assert!(tall[3] - tall[1] > 1.5 * (tall[2] - tall[0]), "{tall:?}");
    let after = shaped(128, 128).await;
    let moved = before.iter().zip(after).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(moved < 2.0, "the frame was {before:?} and is {after:?}");
    assert!(!overlap(after, page.edges(".caption").await) && !overlap(after, page.edges(".top").await));
    page.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_replay_leaves_the_picture_that_the_prompt_says() {
    let Some(page) = page().await else { return };
    page.browser.click("#record").await;
    page.browser.write_prompt("a red car on a road").await;
    page.browser.until_painted("a red car on a road").await;
    page.browser.click("#record").await;
    page.browser
        .until("return document.querySelector('#replay-status').textContent.includes('kept')")
        .await;
    // While the replay shows one of its first prompts.
    page.browser
        .run(
            "document.querySelector('#replay').click(); \
             const link = '#prompt=a+blue+fish&seed=42'; setTimeout(() => (location.hash = link), 60)",
        )
        .await;
    page.browser
        .until(
            "return document.querySelector('#replay-text').textContent === 'Replay' && location.hash.includes('fish')",
        )
        .await;
    page.browser.until_painted("a blue fish").await;
    page.browser
        .until("return document.querySelector('#picture').getAttribute('aria-label') === 'Picture of a blue fish, seed 42'")
        .await;
    let prompt = page.browser.run("return document.querySelector('#prompt').value").await;
    assert_eq!(prompt, "a blue fish");
    let status = page
        .browser
        .run("return document.querySelector('#replay-status').textContent")
        .await;
    assert!(!status.as_str().unwrap().contains("All "), "{status}");
    page.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_cover_neither_prompt_nor_strip() {
    let Some(page) = page().await else { return };
    page.sized(1280, 620).await;
    page.browser
        .until("return document.querySelector('#strip li') !== null")
        .await;
    let strip = page.edges(".strip").await;
    page.drop_file("const name = 'notes.txt', blob = new Blob(['words'], { type: 'text/plain' })")
        .await;
    page.browser
        .until("return !document.querySelector('#bar').hidden")
        .await;
    let prompt = page.edges("#prompt").await;
    assert!(
        !overlap(page.edges("#bar").await, prompt),
        "the error covers the prompt"
    );
    assert_eq!(page.edges(".strip").await, strip, "the error moves the strip");
    assert!(strip[3] <= 620.0 + 1.0, "the strip is below the window: {strip:?}");
    page.browser
        .run("document.activeElement.blur(); dispatchEvent(new Event('x'))")
        .await;
    page.browser
        .run("document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 't', bubbles: true }))")
        .await;
    page.browser
        .until("return !document.querySelector('#toast').hidden")
        .await;
    // As long as warnings get.
    page.browser
        .run("document.querySelector('#toast').textContent = 'the prompt was cut off behind its 75th token: '.repeat(12)")
        .await;
    assert!(
        !overlap(page.edges("#toast").await, page.edges("#prompt").await),
        "a note covers the prompt"
    );
    page.browser.screenshot("messages").await;
    page.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_on_its_side_shows_the_picture_beside_the_words() {
    let Some(page) = page().await else { return };
    page.sized(844, 390).await;
    for (view, frame) in [
        ("words", "#picture-frame"),
        ("sketch", "#pad-frame"),
        ("words", "#picture-frame"),
    ] {
        page.browser.click(&format!("[data-view-to={view}]")).await;
        let (picture, prompt) = (page.edges(frame).await, page.edges("#prompt").await);
        let side = (picture[2] - picture[0]).min(picture[3] - picture[1]);
        assert!(side >= 180.0, "{view}: the picture has a side of {side} px");
        assert!(
            picture[3] <= 391.0 && prompt[3] <= 391.0,
            "{view}: {picture:?} {prompt:?}"
        );
        assert!(
            !overlap(picture, prompt) && !overlap(picture, page.edges(".top").await),
            "{view}"
        );
        page.browser.screenshot(&format!("sideways-{view}")).await;
    }
    let wide = page.browser.run("return document.documentElement.scrollWidth").await;
    assert!(wide.as_u64().unwrap() <= 844, "it scrolls sideways: {wide}");
    page.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_numbers_choose_how_many_words_are_swapped() {
    let Some(page) = page().await else { return };
    page.browser.click("#weigh").await;
    page.browser
        .run("[...document.querySelectorAll('#rail .word')].find(w => w.textContent.includes('red')).click()")
        .await;
    page.browser.click("#swap-side").await;
    let cells = "return document.querySelectorAll('#variants-grid button').length";
    page.browser
        .until("return document.querySelectorAll('#variants-grid button').length === 9")
        .await;
    for count in [4, 9] {
        page.browser.click(&format!("[data-count='{count}']")).await;
        page.browser.until(&format!("{cells} === {count}")).await;
        page.browser
            .until(&format!(
                "return document.querySelector(\"[data-count='{count}']\").getAttribute('aria-checked') === 'true'"
            ))
            .await;
        let title = page
            .browser
            .run("return document.querySelector('#variants-title').textContent")
            .await;
        assert!(title.as_str().unwrap().contains("red"), "{title}");
    }
    page.browser
        .until("return document.querySelectorAll('#variants-grid button[data-waiting=false]').length === 9")
        .await;
    page.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn enter_says_that_the_seed_is_kept() {
    let Some(page) = page().await else { return };
    page.browser.click("#prompt").await;
    let seed = page.browser.run("return document.querySelector('#seed').value").await;
    page.browser.type_slowly(&char::from(Key::Enter).to_string()).await;
    page.browser
        .until("return !document.querySelector('#toast').hidden")
        .await;
    let said = page
        .browser
        .run("return document.querySelector('#toast').textContent")
        .await;
    assert!(said.as_str().unwrap().contains(seed.as_str().unwrap()), "{said}");
    assert_eq!(
        page.browser.run("return document.querySelector('#seed').value").await,
        seed
    );
    page.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_words_are_no_picture() {
    let Some(page) = page().await else { return };
    page.browser.write_prompt("a").await;
    page.browser.until_painted("a").await;
    page.browser.type_slowly(&char::from(Key::Backspace).to_string()).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let sent = page
        .browser
        .run("return prima.entries.filter(e => e.what === 'sent' && e.type === 'paint').at(-1).prompt")
        .await;
    assert_eq!(sent, "a", "nothing was asked to be painted");
    let fresh = page
        .browser
        .run("return document.querySelector('#picture-frame').dataset.fresh")
        .await;
    assert_eq!(fresh, "false");
    page.browser.type_slowly("a cat").await;
    page.browser.until_painted("a cat").await;
    let fresh = page
        .browser
        .run("return document.querySelector('#picture-frame').dataset.fresh")
        .await;
    assert_eq!(fresh, "true");
    page.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photograph_dropped_on_words_is_painted_over() {
    let Some(page) = page().await else { return };
    let make = "const canvas = new OffscreenCanvas(64, 64); const context = canvas.getContext('2d'); \
                context.fillStyle = 'green'; context.fillRect(0, 0, 64, 64); \
                const name = 'photo.jpg', blob = await canvas.convertToBlob({ type: 'image/jpeg' })";
    let rev = page
        .browser
        .run("return prima.entries.filter(e => e.what === 'sent').at(-1).rev")
        .await;
    page.drop_file(make).await;
    page.browser
        .until("return document.documentElement.dataset.view === 'sketch'")
        .await;
    page.browser
        .until(&format!(
            "return prima.entries.some(e => e.what === 'painted' && e.final && e.rev > {rev})"
        ))
        .await;
    let bar = page.browser.run("return document.querySelector('#bar').hidden").await;
    assert_eq!(bar, Value::Bool(true));
    page.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_know_what_to_type_is_offered_prompts_and_the_words_that_the_model_knows() {
    let Some(page) = page().await else { return };
    let prompts = page
        .browser
        .run("return [...document.querySelectorAll('#starters button')].map(b => b.textContent)")
        .await;
    assert_eq!(prompts.as_array().map(Vec::len), Some(12));
    page.browser.click("#starters button:nth-child(5)").await;
    page.browser.until_painted(prompts[4].as_str().unwrap()).await;
    let is_shown = "const row = document.querySelector('#starters'); return !row.hidden && row.offsetHeight > 0";
    assert_eq!(
        page.browser.run(is_shown).await,
        json!(true),
        "one starter leads to the next"
    );
    let is_read = "const s = getComputedStyle(document.querySelector('#starters [aria-pressed=true]')); \
                   return s.color !== s.backgroundColor";
    assert_eq!(
        page.browser.run(is_read).await,
        json!(true),
        "the chosen one is read on its ground"
    );

    page.browser.write_prompt("a red").await;
    page.browser.until_painted("a red").await;
    assert_eq!(
        page.browser.run(is_shown).await,
        json!(false),
        "whoever types needs none"
    );
    page.browser.click("#ideas").await;
    page.browser
        .run(
            "const find = document.querySelector('#vocabulary-filter'); find.value = 'PENG'; \
             find.dispatchEvent(new Event('input'))",
        )
        .await;
    let found = "return [...document.querySelectorAll('#vocabulary-groups h3, #vocabulary-groups button')].map(e => e.textContent)";
    assert_eq!(page.browser.run(found).await, json!(["things", "penguin"]));
    page.browser.click("#vocabulary-groups button").await;
    page.browser.until_painted("a red, penguin").await;
    assert_eq!(
        page.browser
            .run("return document.querySelector('#vocabulary').open")
            .await,
        json!(false)
    );
    page.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_seen_in_each_style_and_one_is_taken() {
    let Some(browser) = Browser::start().await else { return };
    let server = Server::start().await;
    browser.open(&server.url("/")).await;
    browser
        .until("return document.querySelectorAll('#styles button').length === 8")
        .await;
    browser.click("#styles-compare").await;
    let cells = "[...document.querySelectorAll('#variants-grid button[data-waiting=false]')]";
    browser.until(&format!("return {cells}.length === 8")).await;
    let names = browser
        .run(&format!("return {cells}.slice(0, 2).map(b => b.textContent)"))
        .await;
    assert_eq!(names, json!(["photo", "oil painting"]));
    browser.click("#variants-grid li:nth-child(2) button").await;
    let prompt = "a red apple on a light blue background, oil painting";
    browser.until_painted(prompt).await;
    let pressed = "return [...document.querySelectorAll('#styles [aria-pressed=true]')].map(b => b.textContent)";
    assert_eq!(browser.run(pressed).await, json!(["oil painting"]));
    browser.end().await;
}
