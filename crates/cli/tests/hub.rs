//! `prima models pull | list | show | import | remove`, and `--model org/name`, against a hub on this machine.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;
#[path = "../../hub/tests/common.rs"]
mod hub;
#[allow(dead_code, reason = "each test file uses its part")]
#[path = "common/serving.rs"]
mod serving;

use common::{folder, golden, stderr};
use hub::{TestHub, World, with};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The tiny SDXL model as a repository, with what other programs would want beside it.
fn tiny() -> World {
    let root = golden("tiny-sdxl");
    let mut files = Vec::new();
    walk(&root, &root, &mut files);
    files.push(("unet/diffusion_pytorch_model.bin".to_owned(), b"pickle".to_vec()));
    files.push(("README.md".to_owned(), b"words".to_vec()));
    let files: Vec<(&str, Vec<u8>)> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.clone()))
        .collect();
    with("someone/tiny", &files)
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.push((name, fs::read(path).unwrap()));
        }
    }
}

/// A home of its own and a hub.
struct Home {
    folder: PathBuf,
    hub: TestHub,
}

impl Home {
    fn new(name: &str, world: World) -> Self {
        Self {
            folder: folder(name),
            hub: TestHub::start(world),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prima"));
        command.current_dir(&self.folder).env_clear();
        command
            .env("HOME", &self.folder)
            .env("HF_ENDPOINT", self.hub.endpoint());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// What a command that has to succeed writes to stdout.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What one that fails says.
    fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        (output.status.code().unwrap(), stderr(&output))
    }
}

/// `prima paint` of one step.
fn painting(model: &str, file: &str) -> Vec<String> {
    let line = format!("--model {model} --seed 7 --steps 1 -o {file} --json");
    let options = line.split(' ').map(str::to_owned);
    ["paint", "a cat"]
        .map(str::to_owned)
        .into_iter()
        .chain(options)
        .collect()
}

#[test]
fn a_pulled_model_is_listed_painted_with_shown_and_removed() {
    let home = Home::new("hub-pull", tiny());
    home.hub.world.lock().unwrap().cuts = vec![5000, 100];
    let paint = painting("someone/tiny", "out.png");
    let paint: Vec<&str> = paint.iter().map(String::as_str).collect();
    let (code, said) = home.fails(&paint);
    assert!(code == 1 && said.contains("`prima models pull someone/tiny`"), "{said}");
    assert!(home.hub.log().is_empty(), "painting asked the network");
    let pulled: Value = serde_json::from_str(&home.ok(&["models", "pull", "someone/tiny", "--json"])).unwrap();
    assert_eq!(pulled["id"], "someone/tiny");
    let names: Vec<&str> = pulled["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"unet/diffusion_pytorch_model.safetensors") && !names.contains(&"README.md"),
        "{names:?}"
    );
    assert!(names.iter().all(|name| !name.contains(".bin")));
    home.ok(&paint);
    let mine = fs::read(home.folder.join("out.png")).unwrap();
    let direct = golden("tiny-sdxl").display().to_string();
    let direct = painting(&direct, "direct.png");
    home.ok(&direct.iter().map(String::as_str).collect::<Vec<_>>());
    let pixels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().to_rgb8();
    let direct = fs::read(home.folder.join("direct.png")).unwrap();
    assert!(pixels(&mine) == pixels(&direct), "another picture");
    assert!(home.ok(&["models", "list"]).contains("someone/tiny"));
    let listed: Value = serde_json::from_str(&home.ok(&["models", "list", "--json"])).unwrap();
    assert!(
        listed
            .as_array()
            .unwrap()
            .iter()
            .any(|m| m["name"] == "someone/tiny" && m["place"] == "hub"),
        "{listed}"
    );
    assert!(
        home.ok(&["models", "show", "someone/tiny"])
            .contains("StableDiffusionXLPipeline")
    );
    let asked = home.hub.log().len();
    let again = home.run(&["models", "pull", "someone/tiny"]);
    assert!(stderr(&again).contains("was there already"), "{}", stderr(&again));
    assert!(
        !home.hub.log()[asked..]
            .iter()
            .any(|line| line.starts_with("GET /someone"))
    );
    let (code, said) = home.fails(&["models", "remove", "someone/tiny"]);
    assert!(code == 2 && said.contains("--yes"), "{said}");
    home.ok(&["models", "remove", "someone/tiny", "--yes"]);
    assert!(
        !home
            .folder
            .join(".cache/huggingface/hub/models--someone--tiny")
            .exists()
    );
    assert_eq!(home.fails(&["models", "remove", "someone/tiny", "--yes"]).0, 1);
}

#[test]
fn a_pull_that_is_killed_goes_on_where_it_was() {
    let weights = hub::noise(40 << 20);
    let home = Home::new("hub-killed", with("a/b", &[("x.safetensors", weights.clone())]));
    let part = home.folder.join(format!(
        ".cache/huggingface/hub/models--a--b/blobs/{}.incomplete",
        hub::etag("x.safetensors", &weights)
    ));
    let mut had = 0;
    for _ in 0..3 {
        // An answer that breaks off, and then one that stays away, so that there is something to kill.
        let cuts = vec![had as usize % (1 << 20) + (3 << 20)];
        let mut world = home.hub.world.lock().unwrap();
        world.cuts = cuts;
        world.stalls = 1;
        drop(world);
        let mut child = home.command().args(["models", "pull", "a/b"]).spawn().unwrap();
        let length = || part.metadata().map_or(0, |there| there.len());
        let began = std::time::Instant::now();
        while length() <= had && began.elapsed().as_secs() < 60 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(length() > had, "nothing more came");
        had = length();
    }
    let mut world = home.hub.world.lock().unwrap();
    (world.cuts, world.stalls) = (Vec::new(), 0);
    drop(world);
    let path = home.ok(&["models", "pull", "a/b"]);
    assert!(
        fs::read(path.trim()).unwrap_or_else(|_| fs::read(Path::new(path.trim()).join("x.safetensors")).unwrap())
            == weights
    );
    assert!(
        home.hub.log().iter().any(|line| line.ends_with(&format!("from {had}"))),
        "it did not go on from {had}"
    );
}

#[test]
fn what_cannot_be_pulled_is_one_sentence_with_its_fix() {
    let mut world = tiny();
    world.gated.insert("someone/tiny".to_owned(), "hf_right".to_owned());
    let home = Home::new("hub-refused", world);
    for (args, code, said) in [
        (vec!["models", "pull", "someone"], 2, "org/name"),
        (vec!["models", "pull", "someone/else"], 1, "is it spelt right?"),
        (
            vec!["models", "pull", "someone/tiny", "--revision", "v9"],
            2,
            "no revision",
        ),
        (vec!["models", "pull", "someone/tiny"], 1, "HF_TOKEN"),
        (
            vec!["models", "pull", "someone/tiny/no.safetensors"],
            2,
            "has no no.safetensors",
        ),
        (
            vec!["paint", "a", "--model", "someone/tiny/no.safetensors"],
            1,
            "prima models pull someone/tiny/no.safetensors",
        ),
        (
            vec!["serve", "--port", "0", "--model", "someone/tiny"],
            1,
            "prima models pull someone/tiny",
        ),
    ] {
        let (found, text) = home.fails(&args);
        assert!(found == code && text.contains(said), "{args:?}: {found} {text}");
    }
    let output = home
        .command()
        .args(["models", "pull", "someone/tiny"])
        .env("HF_TOKEN", "hf_right")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let offline = home
        .command()
        .args(["models", "pull", "a/b"])
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    assert!(stderr(&offline).contains("HF_HUB_OFFLINE"));
}

#[test]
fn an_imported_model_has_a_name_for_paint_and_serve() {
    let home = Home::new("hub-import", tiny());
    let single = golden("single-file/tiny-sdxl.safetensors");
    let model = golden("tiny-sdxl").display().to_string();
    let said = home.ok(&["models", "import", &model, "--name", "mine/turbo"]);
    assert!(Path::new(said.trim()).join("unet/config.json").is_file(), "{said}");
    home.ok(&[
        "paint",
        "a cat",
        "--model",
        "mine/turbo",
        "--steps",
        "1",
        "-o",
        "out.png",
    ]);
    if single.is_file() {
        home.ok(&["models", "import", &single.display().to_string(), "--link"]);
    }
    let (code, said) = home.fails(&["models", "import", &model, "--name", "mine/turbo"]);
    assert!(code == 2 && said.contains("there already"), "{said}");
    for name in ["../out", "/tmp/x", ".hidden"] {
        assert_eq!(home.fails(&["models", "import", &model, "--name", name]).0, 2, "{name}");
    }
    let lora = golden("loras/kohya.safetensors").display().to_string();
    let (code, said) = home.fails(&["models", "import", &lora]);
    assert!(code == 2 && said.contains("--lora"), "{said}");
    assert!(home.ok(&["models", "list"]).contains("mine/turbo"));
    home.ok(&["models", "remove", "mine/turbo", "--yes"]);
    assert!(!home.ok(&["models", "list"]).contains("mine/turbo"));
    assert!(home.hub.log().is_empty(), "the network was asked");
}

#[test]
fn serve_lists_the_models_of_its_folder() {
    let models = folder("hub-serve");
    common::copied_model(&models);
    let place = models.display().to_string();
    let tiny = golden("tiny-sdxl").display().to_string();
    let serving = serving::Serving::start(&["serve", "--port", "0", "--model", &tiny, "--models-dir", &place]);
    while !serving.get("/readyz").contains("\"ready\":true") {}
    let models = serving.get("/v1/models");
    assert!(
        models.contains("\"tiny-sdxl\"") && models.contains("\"model\""),
        "{models}"
    );
}

#[test]
fn one_file_of_a_repository_is_removed_without_the_others() {
    let files = [("a.safetensors", hub::noise(5000)), ("b.safetensors", hub::noise(6000))];
    let home = Home::new("hub-remove", with("x/y", &files));
    let path = |name: &str| PathBuf::from(home.ok(&["models", "pull", &format!("x/y/{name}")]).trim());
    let (a, b) = (path("a.safetensors"), path("b.safetensors"));
    let blob = a.canonicalize().unwrap();
    home.ok(&["models", "remove", "x/y/a.safetensors", "--yes"]);
    assert!(!blob.exists() && a.symlink_metadata().is_err());
    assert_eq!(fs::read(b).unwrap(), files[1].1);
}
