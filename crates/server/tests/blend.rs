//! Pictures between two: A1111's variation seeds, the live protocol's `blend`, and the studio's slider and loop in a browser.

mod common;

use base64::prelude::*;
use common::{Server, from_base64, paint, same, studio};
use serde_json::{Value, json};

async fn a1111(server: &Server, fields: Value) -> (Vec<prima_pipeline::Picture>, Value) {
    let mut body = json!({ "prompt": "a cat", "steps": 2, "width": 64, "height": 64 });
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let answer = server.post_ok("/sdapi/v1/txt2img", &body).await;
    let images = answer["images"].as_array().unwrap().iter();
    let pictures = images.map(|image| from_base64(image.as_str().unwrap())).collect();
    (
        pictures,
        serde_json::from_str(answer["info"].as_str().unwrap()).unwrap(),
    )
}

#[tokio::test]
async fn a1111s_variation_seeds_lead_from_one_seed_to_another_and_count_up() {
    let server = Server::start().await;
    let (seven, _) = a1111(&server, json!({ "seed": 7 })).await;
    let (nine, _) = a1111(&server, json!({ "seed": 9 })).await;
    let (all, info) = a1111(
        &server,
        json!({ "seed": 7, "subseed": 9, "subseed_strength": 1, "batch_size": 2 }),
    )
    .await;
    same(&all[0], &nine[0], "the whole way");
    assert_eq!(info["all_seeds"], json!([7, 7]));
    assert_eq!(info["all_subseeds"], json!([9, 10]));
    assert_eq!(info["subseed_strength"], json!(1.0));
    assert!(info["infotexts"][0].as_str().unwrap().contains("Variation seed: 9"));
    let (half, _) = a1111(&server, json!({ "seed": 7, "subseed": 9, "subseed_strength": 0.5 })).await;
    assert!(half[0] != seven[0] && half[0] != nine[0]);
    let (status, _) = server
        .refused(
            "/sdapi/v1/txt2img",
            &json!({ "prompt": "a cat", "subseed_strength": 2 }),
        )
        .await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn a_live_picture_is_on_its_way_to_another_prompt() {
    let server = Server::start().await;
    let mut live = server.live().await;
    let mut at = async |rev: u64, prompt: &str, blend: Value| {
        let mut message = paint(rev, prompt);
        message["preview"] = json!(false);
        message["blend"] = blend;
        live.send(&message).await;
        live.frames_until(rev).await.pop().unwrap().1
    };
    let cat = at(1, "a cat", Value::Null).await;
    let dog = at(2, "a dog on a hill", Value::Null).await;
    same(
        &at(3, "a cat", json!({ "share": 0, "prompt": "a dog on a hill" })).await,
        &cat,
        "none of the way",
    );
    same(
        &at(4, "a cat", json!({ "share": 1, "prompt": "a dog on a hill" })).await,
        &dog,
        "all of it",
    );
    let middle = at(5, "a cat", json!({ "share": 0.5, "prompt": "a dog on a hill" })).await;
    assert!(middle != cat && middle != dog);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slider_blends_the_link_holds_it_and_the_loop_is_a_gif() {
    let Some((browser, _server)) = studio().await else {
        return;
    };
    let painted = "return prima.entries.filter(e => e.what === 'painted' && e.final).length";
    let before = browser.run(painted).await.as_u64().unwrap();
    browser
        .run(
            "const f = document.querySelector('#blend-prompt'); f.value = 'a yellow star'; \
             f.dispatchEvent(new Event('input'))",
        )
        .await;
    browser.until(&format!("{painted} > {before}")).await;
    let value = "return document.querySelector('#blend-value').textContent";
    assert_eq!(browser.run(value).await, json!("50 %"));
    browser
        .until("return location.hash.includes('blend=a+yellow+star') && location.hash.includes('blend_share=0.5')")
        .await;
    let start = async |button: &str, name: &str| {
        let script = format!(
            "const url = URL.createObjectURL; let last; URL.createObjectURL = b => url.call(URL, last = b); \
             HTMLAnchorElement.prototype.click = async function () {{ \
                 if (this.download !== '{name}') return; \
                 done([last.size, btoa(String.fromCharCode(...new Uint8Array(await last.slice(0, 6).arrayBuffer())))]); \
             }}; document.querySelector('{button}').click();"
        );
        let saved = browser.run_async(&script).await;
        let size = saved[0].as_u64().unwrap();
        (BASE64_STANDARD.decode(saved[1].as_str().unwrap()).unwrap(), size)
    };
    let (gif, _) = start("#blend-loop", "prima-loop.gif").await;
    assert_eq!(gif, b"GIF89a");
    browser
        .until("return document.querySelector('#blend-loop').textContent === 'Loop as GIF'")
        .await;
    let (webm, bytes) = start("#blend-film", "prima-loop.webm").await;
    assert_eq!(webm[..4], [0x1a, 0x45, 0xdf, 0xa3], "EBML's mark");
    assert!(bytes > 4000, "a film of 30 pictures has {bytes} bytes");
    browser
        .until("return document.querySelector('#blend-film').textContent === 'as WebM'")
        .await;
    browser.click("#blend-clear").await;
    assert_eq!(browser.run(value).await, json!("0 %"));
    browser.until("return !location.hash.includes('blend')").await;
    browser.end().await;
}
