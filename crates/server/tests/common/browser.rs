//! Headless Chromium through chromedriver.

use fantoccini::actions::{InputSource, KeyAction, KeyActions, MOUSE_BUTTON_LEFT, MouseActions, PointerAction};
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Between two keys: eight a second.
const KEY: Duration = Duration::from_millis(125);
/// Long enough for a machine that does other things too; nothing is measured here.
const PATIENCE: Duration = Duration::from_mins(2);

pub struct Browser {
    client: Client,
    _driver: Child,
}

impl Browser {
    /// `None`, and a word about it, where chromedriver is not installed.
    pub async fn start() -> Option<Self> {
        let driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let Ok(mut driver) = driver else {
            eprintln!("not run: chromium or chromedriver is not installed (cargo xtask test says how)");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next_line().await.unwrap().expect("chromedriver says its port");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        let arguments = json!({ "goog:chromeOptions": { "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--window-size=1440,900"
        ] } });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(arguments.as_object().unwrap().clone())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        Some(Self {
            client,
            _driver: driver,
        })
    }

    /// Opens a page and keeps its uncaught errors in `seenErrors`.
    pub async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
        self.run(
            "window.seenErrors = []; \
             addEventListener('error', e => seenErrors.push(String(e.message))); \
             addEventListener('unhandledrejection', e => seenErrors.push(String(e.reason))); \
             addEventListener('securitypolicyviolation', e => seenErrors.push(e.violatedDirective))",
        )
        .await;
    }

    /// What a script returns.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// What a script gives to `done`.
    pub async fn run_async(&self, script: &str) -> Value {
        let script = format!("const done = arguments[0]; {script}");
        self.client.execute_async(&script, Vec::new()).await.unwrap()
    }

    /// Waits until a script returns true.
    pub async fn until(&self, script: &str) {
        let waiting = async {
            while self.run(script).await != json!(true) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            self.screenshot("timeout").await;
            let bar = self.run("return document.querySelector('#bar').textContent").await;
            panic!("never true: {script}; the error bar says {bar}");
        }
    }

    pub async fn click(&self, css: &str) {
        let element = self.client.find(Locator::Css(css)).await.unwrap();
        element.click().await.unwrap_or_else(|e| panic!("{css}: {e}"));
    }

    pub async fn choose_file(&self, css: &str, path: &Path) {
        let input = self.client.find(Locator::Css(css)).await.unwrap();
        input.send_keys(&path.display().to_string()).await.unwrap();
    }

    async fn keys(&self, actions: impl IntoIterator<Item = KeyAction>) {
        let keys = actions
            .into_iter()
            .fold(KeyActions::new("keyboard".to_owned()), InputSource::then);
        self.client.perform_actions(keys).await.unwrap();
    }

    pub async fn chord(&self, held: Key, key: char) {
        let held = char::from(held);
        self.keys([
            KeyAction::Down { value: held },
            KeyAction::Down { value: key },
            KeyAction::Up { value: key },
            KeyAction::Up { value: held },
        ])
        .await;
    }

    pub async fn type_slowly(&self, text: &str) {
        let strokes = text.chars().flat_map(|value| {
            [
                KeyAction::Down { value },
                KeyAction::Up { value },
                KeyAction::Pause { duration: KEY },
            ]
        });
        self.keys(strokes).await;
    }

    /// A stroke through the middle of an element.
    pub async fn drag_across(&self, css: &str) {
        let element = self.client.find(Locator::Css(css)).await.unwrap();
        let (x, y, width, height) = element.rectangle().await.unwrap();
        let to = |share: f64| PointerAction::MoveTo {
            duration: Some(Duration::from_millis(200)),
            x: x + width * share,
            y: y + height * share,
        };
        let stroke = MouseActions::new("mouse".to_owned())
            .then(to(0.25))
            .then(PointerAction::Down {
                button: MOUSE_BUTTON_LEFT,
            })
            .then(to(0.5))
            .then(to(0.75))
            .then(PointerAction::Up {
                button: MOUSE_BUTTON_LEFT,
            });
        self.client.perform_actions(stroke).await.unwrap();
    }

    pub async fn resized(&self, width: u32, height: u32) {
        self.client.set_window_size(width, height).await.unwrap();
    }

    /// Kept in `PRIMA_SCREENSHOTS`, if that is set.
    pub async fn screenshot(&self, name: &str) {
        let Some(folder) = std::env::var_os("PRIMA_SCREENSHOTS") else {
            return;
        };
        let png = self.client.screenshot().await.unwrap();
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), png).unwrap();
    }

    /// Replaces the prompt with `text`, key by key.
    pub async fn write_prompt(&self, text: &str) {
        self.click("#prompt").await;
        self.chord(Key::Control, 'a').await;
        self.type_slowly(text).await;
    }

    /// The studio shows the finished picture of `prompt`, which was asked for last.
    pub async fn until_painted(&self, prompt: &str) {
        let prompt = json!(prompt);
        self.until(&format!(
            "const sent = prima.entries.filter(e => e.what === 'sent' && e.type === 'paint').at(-1); \
             return sent.prompt === {prompt} && \
             prima.entries.some(e => e.what === 'painted' && e.final && e.rev === sent.rev)"
        ))
        .await;
    }

    /// Closes a page in which nothing went wrong.
    pub async fn end(self) {
        let errors = self.run("return window.seenErrors").await;
        assert_eq!(errors, json!([]), "errors in the page");
        self.close().await;
    }

    pub async fn close(self) {
        self.client.close().await.unwrap();
    }
}
