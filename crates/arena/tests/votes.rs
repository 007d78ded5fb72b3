//! The page in a real browser (headless Chromium): ten votes, by keys and by buttons.

#[allow(dead_code)]
#[path = "../../server/tests/common/browser.rs"]
mod browser;

use browser::Browser;
use fantoccini::key::Key;
use prima_arena::{Answer, ArenaOptions, Entrant, Kind, Pairs, Votes};
use prima_picture::{Parameters, Picture, encode_png};
use serde_json::{Value, json};
use std::path::Path;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const PROMPTS: [&str; 3] = ["a red apple", "a <b>bold</b> car", "a cat, a dog"];

/// Two models with two pictures of each prompt: one paints red, one blue.
fn entrants(folder: &Path) -> Vec<Entrant> {
    let of = |(name, rgb): (&str, [u8; 3])| {
        let own = folder.join(name);
        std::fs::create_dir(&own).unwrap();
        for (number, prompt) in PROMPTS.iter().enumerate() {
            for seed in 0..2 {
                let picture = Picture {
                    width: 16,
                    height: 16,
                    rgb: rgb.repeat(256),
                };
                let field = |key: &str, value: &str| (key.to_owned(), value.to_owned());
                let parameters = Parameters {
                    prompt: (*prompt).to_owned(),
                    negative_prompt: String::new(),
                    fields: vec![
                        field("Steps", "1"),
                        field("Seed", &seed.to_string()),
                        field("Model", name),
                    ],
                };
                let path = own.join(format!("{number}-{seed}.png"));
                std::fs::write(path, encode_png(&picture, &parameters).unwrap()).unwrap();
            }
        }
        Entrant::of_folder(name, &own).unwrap()
    };
    [("scarlet", [250, 0, 0]), ("azure", [0, 0, 250])].map(of).into()
}

struct Served {
    url: String,
    votes: Votes,
    server: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

async fn served(wanted: usize) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let pairs = Pairs::of(entrants(folder.path())).unwrap();
    let file = folder.path().join("votes.sqlite");
    let votes = Votes::open(&file).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let options = ArenaOptions { wanted, seed: Some(7) };
    let serving = prima_arena::serve(
        listener,
        pairs,
        Votes::open(&file).await.unwrap(),
        options,
        std::future::pending(),
    );
    let server = tokio::spawn(async move { serving.await.unwrap() });
    Served {
        url,
        votes,
        server,
        _folder: folder,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_votes_in_a_browser_are_kept_and_rated() {
    let Some(browser) = Browser::start().await else { return };
    let served = served(10).await;
    browser.open(&format!("{}/", served.url)).await;
    browser.run("document.querySelector('#voter').value = 'ann'; document.querySelector('#voter').dispatchEvent(new Event('change'))").await;
    for number in 0..10 {
        browser
            .until(&format!("return !arena.isBusy && arena.pair.done === {number} && document.querySelector('#voter').value === 'ann'"))
            .await;
        let shown = browser
            .run("return document.querySelector('#prompt').textContent")
            .await;
        assert!(PROMPTS.contains(&shown.as_str().unwrap()), "{shown}");
        // Where red is; the two are alike where a check is shown.
        let red = "const at = id => { const c = new OffscreenCanvas(1, 1).getContext('2d'); \
                   c.drawImage(document.getElementById(id), 0, 0, 1, 1); return c.getImageData(0, 0, 1, 1).data[0] > 128; }; \
                   return [at('left'), at('right')]";
        let side = match browser.run(red).await {
            Value::Array(sides) if sides[0] == sides[1] => ("same", Key::Down),
            Value::Array(sides) if sides[0] == true => ("left", Key::Left),
            _ => ("right", Key::Right),
        };
        let question = browser
            .run("return document.querySelector('#question').textContent")
            .await;
        assert!(question.as_str().unwrap().contains("follows the words"), "{question}");
        if number % 2 == 0 {
            browser.type_slowly(&char::from(side.1).to_string()).await;
        } else {
            browser.click(&format!("[data-answer={}]", side.0)).await;
        }
        browser
            .until("return document.querySelector('#question').textContent.includes('prettier')")
            .await;
        browser.type_slowly("0").await;
    }
    browser
        .until("return arena.showsResults && !document.querySelector('#results').hidden")
        .await;
    browser.screenshot("arena").await;
    let table = browser
        .run("return document.querySelector('#results').textContent")
        .await;
    assert!(table.as_str().unwrap().contains("scarlet"), "{table}");
    assert_eq!(
        browser.run("return window.seenErrors").await,
        json!([]),
        "errors in the page"
    );
    browser.close().await;

    let votes = served.votes.all().await.unwrap();
    assert_eq!(votes.len(), 10);
    for vote in &votes {
        let wanted = match (vote.kind, vote.models[0].as_str()) {
            (Kind::Models, "scarlet") => Answer::Left,
            (Kind::Models, _) => Answer::Right,
            _ => Answer::Same,
        };
        assert_eq!(
            (vote.follows, vote.prettier, vote.voter.as_str()),
            (wanted, Answer::Same, "ann")
        );
        assert!(vote.took_ms > 0);
    }
    let results = reqwest::get(format!("{}/results", served.url)).await.unwrap();
    let results: Value = results.json().await.unwrap();
    assert_eq!(results["models"], json!(["azure", "scarlet"]));
    let points = |at: usize| results["follows"]["elo"][at]["points"].as_f64().unwrap();
    assert!(points(1) > 1000.0 && points(0) < 1000.0, "{results}");
    // Azure never won.
    assert_eq!(results["follows"]["bradley_terry"], Value::Null);
    let csv = reqwest::get(format!("{}/votes.csv", served.url)).await.unwrap();
    assert_eq!(csv.text().await.unwrap().lines().count(), 11);
    served.server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_says_nothing_of_its_models_and_is_voted_on_once_and_from_its_own_page() {
    let served = served(10).await;
    let client = reqwest::Client::new();
    let shown = reqwest::get(format!("{}/pair", served.url)).await.unwrap();
    let shown: Value = shown.json().await.unwrap();
    for side in ["left", "right"] {
        let picture = reqwest::get(format!("{}/pair/{}/{side}", served.url, shown["pair"]))
            .await
            .unwrap();
        let picture = picture.bytes().await.unwrap();
        let said = String::from_utf8_lossy(&picture).into_owned();
        assert!(picture.starts_with(b"\x89PNG") && !said.contains("scarlet") && !said.contains("azure"));
    }
    assert!(
        !shown.to_string().contains("scarlet") && !shown.to_string().contains("azure"),
        "{shown}"
    );
    let vote = json!({ "pair": shown["pair"], "voter": "", "follows": "left", "prettier": "same", "took_ms": 5 });
    let cast = |origin: Option<&str>, host: Option<&str>| {
        let mut request = client.post(format!("{}/vote", served.url)).json(&vote);
        for (name, value) in [("origin", origin), ("host", host)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        request.send()
    };
    assert_eq!(cast(Some("http://elsewhere.test"), None).await.unwrap().status(), 403);
    assert_eq!(cast(None, Some("elsewhere.test")).await.unwrap().status(), 403);
    assert_eq!(cast(None, None).await.unwrap().status(), 200);
    assert_eq!(cast(None, None).await.unwrap().status(), 409);
    assert_eq!(served.votes.all().await.unwrap().len(), 1);
    served.server.abort();
}
