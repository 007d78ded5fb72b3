//! The gallery in a real browser (headless Chromium, as in studio.rs): pictures outlast the page, are found, marked, compared,
//! saved and deleted.

mod common;

use base64::prelude::*;
use common::{Browser, studio};
use serde_json::json;
use std::io::{Cursor, Read};

const CARDS: &str = "document.querySelectorAll('#gallery-grid li')";

async fn cards_are(browser: &Browser, count: usize) {
    browser.until(&format!("return {CARDS}.length === {count}")).await;
}

/// Paints a prompt and waits until its picture has been kept.
async fn kept(browser: &Browser, prompt: &str, strip: usize) {
    browser.write_prompt(prompt).await;
    browser.until_painted(prompt).await;
    browser
        .until(&format!(
            "return document.querySelectorAll('#strip li').length === {strip}"
        ))
        .await;
}

/// Two of the pictures under the slider.
async fn two_are_compared(browser: &Browser) {
    let compare_is_off = "return document.querySelector('#gallery-compare').disabled";
    assert_eq!(browser.run(compare_is_off).await, json!(true));
    browser.click("#gallery-grid li:nth-child(1) input").await;
    browser.click("#gallery-grid li:nth-child(2) input").await;
    browser.click("#gallery-compare").await;
    browser
        .until("return document.querySelectorAll('#gallery-pair img').length === 2")
        .await;
    let split = browser
        .run(
            "const s = document.querySelector('#gallery-split'); s.value = 25; s.dispatchEvent(new Event('input')); \
             return getComputedStyle(document.querySelector('#gallery-pair img')).clipPath",
        )
        .await;
    assert!(
        split.as_str().unwrap().contains("75%") || split.as_str().unwrap().contains("25%"),
        "{split}"
    );
    browser.click("#gallery-back").await;
}

/// An archive, which other programs open.
async fn both_are_saved_in_one_archive(browser: &Browser) {
    let base64 = browser
        .run_async(
            "const url = URL.createObjectURL; let last; URL.createObjectURL = b => url.call(URL, last = b); \
             HTMLAnchorElement.prototype.click = async function () { \
                 if (!this.download.endsWith('.zip')) return; \
                 done(btoa(String.fromCharCode(...new Uint8Array(await last.arrayBuffer())))); \
             }; document.querySelector('#gallery-save').click();",
        )
        .await;
    let bytes = BASE64_STANDARD.decode(base64.as_str().unwrap()).unwrap();
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    assert_eq!(archive.len(), 2);
    for at in 0..2 {
        let mut file = archive.by_index(at).unwrap();
        let mut png = Vec::new();
        // Its checksum is compared on the way.
        file.read_to_end(&mut png).unwrap();
        let name = file.name().unwrap().into_owned();
        assert!(png.starts_with(b"\x89PNG") && name.starts_with("a-"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_outlast_the_page_and_are_found_compared_saved_and_deleted() {
    let Some((browser, server)) = studio().await else {
        return;
    };
    browser
        .until("return document.querySelectorAll('#strip li').length === 1")
        .await;
    kept(&browser, "a blue car", 2).await;
    kept(&browser, "a yellow star", 3).await;

    // Another visit, on a page that knows nothing.
    browser.open(&server.url("/")).await;
    browser
        .until("return document.querySelectorAll('#strip li').length === 1")
        .await;
    browser.click("#gallery-open").await;
    cards_are(&browser, 3).await;
    browser
        .until(
            "return [...document.querySelectorAll('#gallery-grid img')].every(i => i.complete && i.naturalWidth > 0)",
        )
        .await;
    let words = browser
        .run("return [...document.querySelectorAll('#gallery-grid p')].map(p => p.textContent)")
        .await;
    assert_eq!(
        words,
        json!(["a yellow star", "a blue car", "a red apple on a light blue background"])
    );

    // Found by its words, and marked.
    let search = |text: &str| {
        format!(
            "const f = document.querySelector('#gallery-search'); f.value = '{text}'; \
             f.dispatchEvent(new Event('input')); return {CARDS}.length"
        )
    };
    assert_eq!(browser.run(&search("CAR blue")).await, json!(1));
    browser.click("#gallery-grid .star").await;
    assert_eq!(browser.run(&search("")).await, json!(3));
    browser.click("#gallery-favourites").await;
    cards_are(&browser, 1).await;
    browser.click("#gallery-favourites").await;

    two_are_compared(&browser).await;
    both_are_saved_in_one_archive(&browser).await;

    // Deleted, brought back, deleted.
    browser.click("#gallery-delete").await;
    cards_are(&browser, 1).await;
    browser.click("#gallery-restore").await;
    cards_are(&browser, 3).await;
    let stars = "return document.querySelectorAll('#gallery-grid .star[aria-pressed=true]').length";
    assert_eq!(browser.run(stars).await, json!(1), "the favourite is still one");

    // Opened: its settings are those of the page.
    browser.click("#gallery-grid li:nth-child(2) .shown").await;
    browser.until_painted("a blue car").await;
    assert_eq!(
        browser.run("return document.querySelector('#prompt').value").await,
        json!("a blue car")
    );
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pasted_picture_is_painted_over() {
    let Some((browser, _server)) = studio().await else {
        return;
    };
    browser
        .run_async(
            "(async () => { const c = new OffscreenCanvas(64, 64); const g = c.getContext('2d'); \
             g.fillStyle = 'red'; g.fillRect(0, 0, 64, 64); const blob = await c.convertToBlob({ type: 'image/jpeg' }); \
             const data = new DataTransfer(); data.items.add(new File([blob], 'a.jpg', { type: blob.type })); \
             document.querySelector('#prompt').dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true })); \
             done(true); })()",
        )
        .await;
    browser
        .until(
            "return document.documentElement.dataset.view === 'sketch' && !document.querySelector('#pad-pane').hidden",
        )
        .await;
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_painted_one_after_the_other_while_the_page_is_used() {
    let Some((browser, server)) = studio().await else {
        return;
    };
    browser
        .until("return document.querySelectorAll('#strip li').length === 1")
        .await;
    browser
        .run(
            "const f = document.querySelector('#many-count'); f.value = '5'; f.dispatchEvent(new Event('input')); \
             document.querySelector('#many').click()",
        )
        .await;
    // The page's own picture does not wait for them.
    kept(&browser, "a blue car", 2).await;
    browser
        .until("return document.querySelector('#many').textContent === 'Paint 5'")
        .await;
    browser.click("#gallery-open").await;
    // Five apples, the first of which was there, and the car.
    cards_are(&browser, 6).await;
    let seeds = browser
        .run(
            "return [...document.querySelectorAll('#gallery-grid .shown')].map(b => b.title) \
             .filter(t => t.startsWith('a red apple')).map(t => Number(t.match(/seed (\\d+)/)[1])).sort((a, b) => a - b)",
        )
        .await;
    assert_eq!(seeds, json!([1, 2, 3, 4, 5]));
    // Its connection is closed again.
    let one_session = async {
        while !server
            .get("/metrics")
            .await
            .text()
            .await
            .unwrap()
            .contains("prima_live_sessions 1\n")
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), one_session)
        .await
        .unwrap();
    browser.end().await;
}
