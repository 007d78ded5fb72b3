//! Pulling from a hub on this machine that breaks off, lies, and lets few in.

mod common;

use common::{COMMIT, TestHub, World, etag, noise, with};
use prima_hub::{Error, Event, Pulled, Settings, Wanted, pull};
use std::fs;
use std::path::Path;
use std::time::Duration;

const BIG: &str = "unet/diffusion_pytorch_model.safetensors";

fn model() -> (Vec<u8>, World) {
    let weights = noise(1_000_000);
    let world = with(
        "a/b",
        &[
            ("model_index.json", b"{}".to_vec()),
            ("README.md", b"words".to_vec()),
            ("unet/config.json", b"{\"a\": 1}".to_vec()),
            (BIG, weights.clone()),
            ("unet/diffusion_pytorch_model.bin", noise(10)),
            ("tokenizer/vocab.json", b"{}".to_vec()),
        ],
    );
    (weights, world)
}

fn settings(hub: &TestHub, cache: &Path) -> Settings {
    Settings {
        first_wait: Duration::ZERO,
        ..Settings::of(&hub.endpoint(), cache)
    }
}

fn pulled(id: &str, settings: &Settings) -> Result<Pulled, Error> {
    pull(&id.parse::<Wanted>().unwrap(), settings, &mut |_| {})
}

#[test]
fn three_interruptions_are_resumed_and_the_file_is_the_same_to_the_byte() {
    let (weights, mut world) = model();
    world.cuts = vec![300_000, 200_000, 1];
    let (hub, cache) = (TestHub::start(world), tempfile::tempdir().unwrap());
    let mut told = Vec::new();
    let wanted: Wanted = "a/b".parse().unwrap();
    let pulled = pull(&wanted, &settings(&hub, cache.path()), &mut |event| told.push(event)).unwrap();
    assert_eq!(fs::read(pulled.path.join(BIG)).unwrap(), weights);
    let asked: Vec<String> = hub
        .log()
        .into_iter()
        .filter(|l| l.starts_with("GET") && l.contains(BIG))
        .collect();
    let from: Vec<&str> = asked
        .iter()
        .filter_map(|line| Some(line.split_once(" from ")?.1))
        .collect();
    assert_eq!(from, ["300000", "500000", "500001"]);
    let bytes: u64 = told
        .iter()
        .map(|event| if let Event::Bytes { bytes } = event { *bytes } else { 0 })
        .sum();
    assert_eq!(told[0], Event::Plan { files: 4, bytes });
    assert_eq!(bytes, pulled.bytes);
}

#[test]
fn a_pull_that_was_ended_goes_on_at_the_next_call() {
    let (weights, mut world) = model();
    world.cuts = vec![123_456];
    world.statuses = Vec::new();
    let (hub, cache) = (TestHub::start(world), tempfile::tempdir().unwrap());
    let once = Settings {
        tries: 1,
        ..settings(&hub, cache.path())
    };
    // Nothing new comes once it was cut: the server is broken then.
    hub.world.lock().unwrap().statuses = Vec::new();
    let broken = || hub.world.lock().unwrap().statuses = vec![503];
    let mut first = true;
    let error = pull(&"a/b".parse().unwrap(), &once, &mut |event| {
        if matches!(event, Event::Bytes { bytes } if bytes > 1000) && std::mem::take(&mut first) {
            broken();
        }
    });
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("after 123456 bytes, which are kept: pull again"),
        "{error}"
    );
    assert!(
        prima_checkpoint::hub::find_in(cache.path(), "a/b").is_none(),
        "what is not whole is no model"
    );
    let pulled = pulled("a/b", &once).unwrap();
    assert_eq!(
        pulled.downloaded,
        pulled.bytes - 123_456 - 12,
        "the small ones were there, and of the large one a part"
    );
    assert_eq!(fs::read(pulled.path.join(BIG)).unwrap(), weights);
    // The third time nothing is asked for but facts.
    let before = hub.log().len();
    let again = self::pulled("a/b", &once).unwrap();
    assert_eq!((again.downloaded, &again.path), (0, &pulled.path));
    let later = hub.log().split_off(before);
    assert!(!later.iter().any(|line| line.starts_with("GET /a/b")), "{later:?}");
}

#[test]
fn a_server_that_does_not_resume_gives_it_all_again() {
    let (weights, mut world) = model();
    (world.cuts, world.no_ranges) = (vec![500_000], true);
    world.statuses = vec![429, 503];
    let (hub, cache) = (TestHub::start(world), tempfile::tempdir().unwrap());
    let pulled = pulled("a/b", &settings(&hub, cache.path())).unwrap();
    assert_eq!(fs::read(pulled.path.join(BIG)).unwrap(), weights);
}

#[test]
fn a_wrong_checksum_is_refused_and_the_file_removed() {
    let (_, mut world) = model();
    world.lies = true;
    let (hub, cache) = (TestHub::start(world), tempfile::tempdir().unwrap());
    let error = pulled("a/b", &settings(&hub, cache.path())).unwrap_err().to_string();
    assert!(error.contains("SHA-256") && error.contains("it is removed"), "{error}");
    let blobs = fs::read_dir(cache.path().join("models--a--b/blobs")).unwrap();
    let largest = blobs.map(|entry| entry.unwrap().metadata().unwrap().len()).max();
    assert!(largest.unwrap_or(0) < 1000, "the wrong file is still there");
    assert!(prima_checkpoint::hub::find_in(cache.path(), "a/b").is_none());
}

#[test]
fn a_part_that_was_spoilt_on_the_disk_is_found_out() {
    let (weights, world) = model();
    let (hub, cache) = (TestHub::start(world), tempfile::tempdir().unwrap());
    let blobs = cache.path().join("models--a--b/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(format!("{}.incomplete", etag(BIG, &weights)));
    fs::write(&part, vec![7; 400_000]).unwrap();
    let settings = settings(&hub, cache.path());
    let error = pulled("a/b", &settings).unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }) && !part.exists(), "{error}");
    assert_eq!(
        fs::read(pulled("a/b", &settings).unwrap().path.join(BIG)).unwrap(),
        weights
    );
}

#[test]
fn a_gated_repository_says_what_to_do_and_opens_to_its_token() {
    let (_, mut world) = model();
    world.gated.insert("a/b".to_owned(), "hf_right".to_owned());
    let (hub, cache) = (TestHub::start(world), tempfile::tempdir().unwrap());
    let mut settings = settings(&hub, cache.path());
    let told = pulled("a/b", &settings).unwrap_err().to_string();
    let page = format!("{}/a/b", hub.endpoint());
    assert!(
        told.contains("gated") && told.contains(&page) && told.contains("HF_TOKEN"),
        "{told}"
    );
    settings.token = Some("hf_wrong".to_owned());
    let told = pulled("a/b", &settings).unwrap_err().to_string();
    assert!(told.contains("owner of this token") && told.contains(&page), "{told}");
    assert!(!told.contains("hf_wrong"));
    settings.token = Some("hf_right".to_owned());
    pulled("a/b", &settings).unwrap();
}

#[test]
fn the_cache_is_laid_out_as_the_hubs_own_tools_do_it() {
    let (weights, world) = model();
    let (hub, cache) = (TestHub::start(world), tempfile::tempdir().unwrap());
    let pulled = pulled("a/b@v1", &settings(&hub, cache.path())).unwrap();
    let root = cache.path().join("models--a--b");
    assert_eq!(pulled.path, root.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(root.join("refs/v1")).unwrap(), COMMIT);
    let blob = root.join("blobs").join(etag(BIG, &weights));
    assert_eq!(fs::read(&blob).unwrap(), weights);
    #[cfg(unix)]
    {
        let link = fs::read_link(pulled.path.join(BIG)).unwrap();
        assert_eq!(link, Path::new("../../../blobs").join(etag(BIG, &weights)));
    }
    assert!(!pulled.path.join("README.md").exists());
    let found = prima_checkpoint::hub::find_in(cache.path(), "a/b@v1");
    assert_eq!(found, Some(pulled.path));
}

#[test]
fn where_a_file_lies_on_another_host_no_token_is_sent_there() {
    let (weights, mut world) = model();
    (world.elsewhere, world.cuts) = (true, vec![1000]);
    let (hub, cache) = (TestHub::start(world), tempfile::tempdir().unwrap());
    hub.world
        .lock()
        .unwrap()
        .log
        .push(format!("PORT {}", hub.address.port()));
    let settings = Settings {
        token: Some("hf_secret".to_owned()),
        ..settings(&hub, cache.path())
    };
    let pulled = pulled("a/b", &settings).unwrap();
    assert_eq!(fs::read(pulled.path.join(BIG)).unwrap(), weights);
    let log = hub.log();
    let there: Vec<&String> = log.iter().filter(|line| line.contains("/elsewhere/")).collect();
    assert!(there.iter().any(|line| line.contains(" from 1000")), "{there:?}");
    assert!(there.iter().all(|line| !line.contains("hf_secret")), "{there:?}");
    assert!(
        log.iter()
            .any(|line| line.contains("/resolve/") && line.contains("hf_secret"))
    );
}

#[test]
fn a_single_file_comes_alone_and_what_is_not_there_is_said() {
    let (weights, world) = model();
    let (hub, cache) = (TestHub::start(world), tempfile::tempdir().unwrap());
    let settings = settings(&hub, cache.path());
    let one = pulled(&format!("a/b/{BIG}"), &settings).unwrap();
    assert_eq!((fs::read(&one.path).unwrap(), one.files.len()), (weights, 1));
    let found = prima_checkpoint::hub::find_in(cache.path(), &format!("a/b/{BIG}"));
    assert_eq!(found, Some(one.path));
    for (id, said) in [
        ("a/c", "has no a/c: is it spelt right?"),
        ("a/b@v9", "no revision \"v9\""),
        ("a/b/x.safetensors", "a/b has no x.safetensors: there are unet/"),
    ] {
        let told = pulled(id, &settings).unwrap_err().to_string();
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn nothing_is_asked_for_offline_and_a_hub_that_is_not_there_is_said() {
    let (_, world) = model();
    let (hub, cache) = (TestHub::start(world), tempfile::tempdir().unwrap());
    let offline = Settings {
        offline: true,
        ..settings(&hub, cache.path())
    };
    let told = pulled("a/b", &offline).unwrap_err().to_string();
    assert!(told.contains("HF_HUB_OFFLINE") && hub.log().is_empty(), "{told}");
    let nowhere = Settings::of("http://127.0.0.1:9", cache.path());
    let told = pulled("a/b", &nowhere).unwrap_err().to_string();
    assert!(told.contains("http://127.0.0.1:9 cannot be reached"), "{told}");
}

#[test]
fn a_mirror_without_hashes_is_told_of() {
    let (_, mut world) = model();
    world.foreign_etags = true;
    let (hub, cache) = (TestHub::start(world), tempfile::tempdir().unwrap());
    let mut unchecked = 0;
    let wanted = "a/b".parse().unwrap();
    pull(&wanted, &settings(&hub, cache.path()), &mut |event| {
        unchecked += usize::from(matches!(event, Event::Unchecked { .. }));
    })
    .unwrap();
    assert_eq!(unchecked, 4);
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused() {
    let (_, mut world) = model();
    let files = world.repositories.get_mut("a/b").unwrap();
    files.insert("unet/../../../../x.safetensors".to_owned(), noise(10));
    files.remove(BIG);
    let (hub, cache) = (TestHub::start(world), tempfile::tempdir().unwrap());
    let told = pulled("a/b", &settings(&hub, cache.path())).unwrap_err().to_string();
    assert!(
        told.contains("a name in it") || told.contains("no safetensors of unet"),
        "{told}"
    );
}
