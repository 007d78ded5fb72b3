//! Packed weights from a cache: they paint what the model's own files paint, or are not used.
#![cfg(unix)]

use prima_pipeline::{DType, LoadOptions, ModelSource, PackedCache, Pipeline, Request, ScheduleOptions, check_room};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/tiny-sdxl")
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copied(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A model of its own and an empty cache.
fn place() -> (TempDir, PathBuf, PackedCache) {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    copied(&tiny(), &model);
    let cache = PackedCache::new(dir.path().join("cache"));
    (dir, model, cache)
}

fn painted(model: &Path, options: &LoadOptions) -> Vec<u8> {
    let pipeline = Pipeline::load(&ModelSource::open(model).unwrap(), options).unwrap();
    let picture = paint(&pipeline);
    pipeline.store_packed().unwrap();
    picture
}

fn paint(pipeline: &Pipeline) -> Vec<u8> {
    let request = Request {
        prompt: "a red apple".to_owned(),
        seed: 3,
        schedule: ScheduleOptions::steps(2),
        ..Request::default()
    };
    let response = pipeline.paint(&request, &mut |_| ControlFlow::Continue(())).unwrap();
    response.pictures[0].rgb.clone()
}

fn with(cache: &PackedCache, dtype: DType) -> LoadOptions {
    LoadOptions {
        cache: Some(cache.clone()),
        ..LoadOptions::of(dtype)
    }
}

#[test]
fn packed_weights_paint_the_same_picture_to_the_bit() {
    for dtype in [DType::F32, DType::BF16] {
        let (_dir, model, cache) = place();
        let plain = painted(&model, &LoadOptions::of(dtype));
        assert!(cache.entries().is_empty());
        assert_eq!(
            painted(&model, &with(&cache, dtype)),
            plain,
            "{dtype:?}: while they are written"
        );
        let files = cache.entries();
        assert_eq!(files.len(), 4, "{files:?}");
        assert_eq!(
            painted(&model, &with(&cache, dtype)),
            plain,
            "{dtype:?}: from the cache"
        );
        assert_eq!(cache.entries().len(), 4, "nothing more was needed");
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        assert_eq!(cache.clear().unwrap(), bytes);
        assert!(cache.entries().is_empty());
    }
}

#[test]
fn weights_that_pass_through_memory_paint_the_same_picture_to_the_bit() {
    for dtype in [DType::F32, DType::BF16] {
        let (_dir, model, cache) = place();
        let plain = painted(&model, &LoadOptions::of(dtype));
        let streamed = LoadOptions {
            resident: Some(0),
            ..with(&cache, dtype)
        };
        assert_eq!(painted(&model, &streamed), plain, "{dtype:?}: built part by part");
        // The forms that only some convolutions have were made for the picture, and are kept beside.
        assert!(
            cache
                .entries()
                .iter()
                .any(|file| file.path.to_string_lossy().contains(".more."))
        );
        assert_eq!(painted(&model, &streamed), plain, "{dtype:?}: mapped");
        assert_eq!(painted(&model, &with(&cache, dtype)), plain, "{dtype:?}: mapped whole");
    }
}

#[test]
fn files_that_are_damaged_or_foreign_are_not_used() {
    let (_dir, model, cache) = place();
    let options = with(&cache, DType::BF16);
    let plain = painted(&model, &options);
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    let damages: [(&str, Damage); 5] = [
        ("empty", |_| Vec::new()),
        ("cut short", |mut bytes| {
            bytes.truncate(bytes.len() - 5);
            bytes
        }),
        ("without its first page", |bytes| bytes[4096..].to_vec()),
        ("with another header", |mut bytes| {
            let at = bytes.len() - 200;
            bytes[at] ^= 1;
            bytes
        }),
        ("something else", |_| b"{}".repeat(1000)),
    ];
    for (what, damage) in damages {
        for file in cache.entries() {
            let bytes = fs::read(&file.path).unwrap();
            fs::remove_file(&file.path).unwrap();
            fs::write(&file.path, damage(bytes)).unwrap();
        }
        assert_eq!(painted(&model, &options), plain, "{what}");
        assert!(
            cache.entries().iter().all(|file| file.identity != "damaged"),
            "{what}: written anew"
        );
    }
    // Under the name that another model's weights would have.
    let (_other_dir, other, _) = place();
    let names: Vec<PathBuf> = cache.entries().into_iter().map(|file| file.path).collect();
    fs::rename(&names[0], &names[1]).unwrap();
    assert_eq!(painted(&model, &options), plain);
    assert_eq!(painted(&other, &options), plain);
}

#[test]
fn a_model_that_changed_is_read_again() {
    let (_dir, model, cache) = place();
    let options = with(&cache, DType::F32);
    let before = painted(&model, &options);
    let path = model.join("unet/diffusion_pytorch_model.safetensors");
    let times = fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    // Another value at the end of the last tensor, under the old length and time.
    let value = f32::from_le_bytes(bytes[last..].try_into().unwrap()) + 0.5;
    bytes[last..].copy_from_slice(&value.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    fs::File::open(&path).unwrap().set_modified(times).unwrap();
    let plain = painted(&model, &LoadOptions::of(DType::F32));
    assert_ne!(plain, before);
    assert_eq!(painted(&model, &options), plain);
}

#[test]
fn files_are_for_their_owner_and_not_to_be_written_to() {
    let (_dir, model, cache) = place();
    painted(&model, &with(&cache, DType::F32));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(cache.folder()), 0o700);
    for file in cache.entries() {
        assert_eq!(mode(&file.path) & 0o222, 0);
    }
}

#[test]
fn what_does_not_fit_the_memory_that_is_allowed_is_refused_before_it_is_read() {
    let (_dir, model, cache) = place();
    let source = ModelSource::open(&model).unwrap();
    let request = Request::default();
    let within = |max_memory: usize, options: LoadOptions| {
        let options = LoadOptions {
            max_memory: Some(max_memory),
            ..options
        };
        check_room(&source, &options, &request)
            .map(|fitting| fitting.resident)
            .map_err(|error| error.to_string())
    };
    let plain = LoadOptions::of(DType::F32);
    assert_eq!(within(1 << 30, plain.clone()), Ok(None));
    let refused = within(100 << 20, plain).unwrap_err();
    assert!(refused.contains("and 100 MiB of 100 MiB are free"), "{refused}");
    let refused = within(100 << 20, with(&cache, DType::F32)).unwrap_err();
    assert!(refused.contains("100 MiB of 100 MiB"), "{refused}");
    assert!(cache.entries().is_empty());
}
