//! Files that nobody should send: each is refused in a sentence, in bounded time and memory.

use prima_checkpoint::{Error, FileKind, Init, ModelSource, ParamSource, Reader, TensorFile, info, what_is_it};
use prima_tensor::{DType, Keep};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A safetensors file of this header and as many zero bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// Empty tensors under these keys.
fn empty_tensors<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut header = "{".to_owned();
    for key in keys {
        let comma = if header.len() > 1 { "," } else { "" };
        write!(
            header,
            r#"{comma}"{key}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#
        )
        .unwrap();
    }
    file(&(header + "}"), 0)
}

fn refusal(bytes: Vec<u8>) -> String {
    TensorFile::from_bytes("m.safetensors", bytes)
        .err()
        .unwrap()
        .to_string()
}

/// What `models info` answers for a file of these bytes; within a second.
fn answer(bytes: &[u8]) -> Result<prima_checkpoint::ModelInfo, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let started = Instant::now();
    let answer = info(&path);
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?} for {} bytes",
        started.elapsed(),
        bytes.len()
    );
    answer
}

/// Keys that make a file one of Stable Diffusion 1.x or SDXL.
const SD1: [&str; 2] = [
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    "model.diffusion_model.input_blocks.0.0.weight",
];
const SDXL: [&str; 2] = [
    "conditioner.embedders.1.model.token_embedding.weight",
    "model.diffusion_model.input_blocks.0.0.weight",
];

#[test]
fn huge_indices_in_keys_cost_no_more_than_small_ones() {
    let prefixes = [
        "model.diffusion_model.input_blocks.",
        "model.diffusion_model.output_blocks.",
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.",
        "first_stage_model.encoder.down.",
        "first_stage_model.encoder.down.0.block.",
        "first_stage_model.decoder.up.",
        "first_stage_model.taesd_decoder.",
        "cond_stage_model.transformer.text_model.encoder.layers.",
        "conditioner.embedders.1.model.transformer.resblocks.",
    ];
    for prefix in prefixes {
        for number in [1 << 40, usize::MAX] {
            for suffix in [
                ".0.in_layers.2.weight",
                ".attn.in_proj_weight",
                ".block.0.conv1.weight",
                "",
            ] {
                let key = format!("{prefix}{number}{suffix}");
                for kind in [SD1, SDXL] {
                    // An answer or a refusal, at once.
                    let _ = answer(&empty_tensors(kind.into_iter().chain([key.as_str()])));
                }
            }
        }
    }
}

#[test]
fn two_megabytes_of_numbered_blocks_are_answered_within_a_second() {
    for prefix in [
        "model.diffusion_model.input_blocks.",
        "model.diffusion_model.output_blocks.",
        "first_stage_model.encoder.down.",
        "first_stage_model.taesd_decoder.",
        "cond_stage_model.transformer.text_model.encoder.layers.",
    ] {
        let keys: Vec<String> = (0..18_000)
            .map(|i| format!("{prefix}{i}.0.in_layers.2.weight"))
            .collect();
        let _ = answer(&empty_tensors(SD1.into_iter().chain(keys.iter().map(String::as_str))));
    }
    let keys: Vec<String> = (0..20_000)
        .map(|i| format!("down_blocks.0.{i}.time_embedding.{i}"))
        .collect();
    let keys = keys.iter().map(String::as_str).chain(["time_embedding.0"]);
    assert_eq!(answer(&empty_tensors(keys)).unwrap().preset, "unet");
}

#[test]
fn a_key_that_is_listed_twice_is_refused_under_any_spelling() {
    let entry = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    for second in ["a", "\\u0061"] {
        let header = format!(r#"{{"a":{entry},"b":{entry},"{second}":{entry}}}"#);
        let error = refusal(file(&header, 0));
        assert!(error.contains("lists `a` twice"), "{error}");
    }
    let error = refusal(file(r#"{"__metadata__":{},"__metadata__":{"format":"pt"}}"#, 0));
    assert!(error.contains("lists `__metadata__` twice"), "{error}");
}

#[test]
fn places_that_overlap_leave_gaps_or_lie_outside_are_refused() {
    let two = |a: [u64; 2], b: [u64; 2]| {
        let entry = |[from, to]: [u64; 2]| format!(r#"{{"dtype":"F32","shape":[1],"data_offsets":[{from},{to}]}}"#);
        file(&format!(r#"{{"a":{},"b":{}}}"#, entry(a), entry(b)), 8)
    };
    assert!(TensorFile::from_bytes("m", two([4, 8], [0, 4])).is_ok());
    let refused = [
        (two([0, 4], [0, 4]), "where 4 comes next"),
        (two([0, 4], [2, 6]), "where 4 comes next"),
        (two([0, 4], [8, 12]), "where 4 comes next"),
        (two([4, 0], [4, 8]), "where 0 comes next"),
        (two([0, 4], [4, 12]), "`b` has 8 bytes"),
        (two([0, 4], [4, u64::MAX]), "not those of F32"),
    ];
    for (bytes, expected) in refused {
        let error = refusal(bytes);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn shapes_whose_product_overflows_are_refused() {
    for shape in [
        "[4294967296,4294967296]",
        "[9223372036854775807,4]",
        "[4611686018427387904]",
        "[4294967296,4294967296,0]",
    ] {
        let header = format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}"#);
        assert!(refusal(file(&header, 0)).contains("tensor `a` has 0 bytes"), "{shape}");
    }
    let header = r#"{"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,0]}}"#;
    assert!(refusal(file(header, 0)).contains("is not a safetensors file"));
}

#[test]
fn header_lengths_that_lie_are_refused_before_anything_is_allocated() {
    for length in [0, 1, 2, 99_999_999, 100_000_001, 1 << 40, u64::MAX] {
        let mut bytes = file("{}", 0);
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        if length != 2 {
            refusal(bytes);
        }
    }
    let deep = "[".repeat(1 << 20);
    assert!(refusal(file(&deep, 0)).contains("its header"));
}

#[test]
fn a_tensor_of_too_few_axes_is_an_error_and_no_panic() {
    let header = |key: &str, shape: &str, bytes: usize| {
        let entry = |key: &str, shape: &str, from: usize, to: usize| {
            format!(r#""{key}":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
        };
        let [encoder, unet] = SD1;
        let head = [
            entry(encoder, "[2,64]", 0, 512),
            entry(unet, "[32,4,1,1]", 512, 1024),
            entry("model.diffusion_model.out.2.weight", "[4,1]", 1024, 1040),
            entry(key, shape, 1040, 1040 + bytes),
        ];
        file(&format!("{{{}}}", head.join(",")), 1040 + bytes)
    };
    let cond_proj = "model.diffusion_model.time_embedding.cond_proj.weight";
    let error = answer(&header(cond_proj, "[4]", 16)).unwrap_err().to_string();
    assert!(error.contains("has shape [4], which has no axis 1"), "{error}");
    for key in [
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight",
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
        "model.diffusion_model.input_blocks.1.0.in_layers.2.weight",
        "first_stage_model.encoder.down.0.block.0.conv1.weight",
        "model.diffusion_model.input_blocks.1.1.proj_in.weight",
    ] {
        for (shape, bytes) in [("[]", 4), ("[4]", 16), ("[0]", 0)] {
            // An answer or a refusal, and no panic.
            let _ = answer(&header(key, shape, bytes));
        }
    }
}

#[test]
fn a_joint_projection_that_cannot_be_cut_in_three_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    let bias = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_bias";
    let entry = |key: &str, from: usize| {
        format!(
            r#""{key}":{{"dtype":"F32","shape":[64],"data_offsets":[{from},{}]}}"#,
            from + 256
        )
    };
    let [encoder, unet] = SDXL;
    let header = [entry(encoder, 0), entry(unet, 256), entry(bias, 512)].join(",");
    std::fs::write(&path, file(&format!("{{{header}}}"), 768)).unwrap();
    let mut reader = ModelSource::SingleFile(path)
        .component_reader("text_encoder_2")
        .unwrap();
    // As wide as the whole: without the check, k would be read from behind the tensor.
    let key = "text_model.encoder.layers.0.self_attn.k_proj.bias";
    let error = reader.param(key, &[64], Init::Zeros).err().unwrap().to_string();
    assert!(error.contains("whose rows are not 3 equal parts"), "{error}");
}

#[test]
fn values_that_are_not_finite_are_refused_by_key_and_place() {
    let f16 = |bits: u16| bits.to_le_bytes().to_vec();
    let cases = [
        ("F32", f32::NAN.to_le_bytes().to_vec(), "NaN"),
        ("F32", f32::INFINITY.to_le_bytes().to_vec(), "inf"),
        ("F32", 0xff80_0001u32.to_le_bytes().to_vec(), "NaN"),
        ("F16", f16(0x7c00), "inf"),
        ("F16", f16(0x7e00), "NaN"),
        ("BF16", f16(0xff80), "-inf"),
        ("F64", f64::NEG_INFINITY.to_le_bytes().to_vec(), "-inf"),
        // Finite, and not in f32.
        ("F64", 1e300f64.to_le_bytes().to_vec(), "inf"),
    ];
    for (dtype, value, name) in cases {
        // So many that it lies in a later chunk.
        let (rows, unit) = (30_000, value.len());
        let header = format!(
            r#"{{"w":{{"dtype":"{dtype}","shape":[{rows},3],"data_offsets":[0,{}]}}}}"#,
            rows * 3 * unit
        );
        let mut bytes = file(&header, rows * 3 * unit);
        let at = bytes.len() - 4 * unit;
        bytes[at..at + unit].copy_from_slice(&value);
        let expected = format!("m.safetensors: tensor `w` has the value {name} at [29998, 2]");
        let mut reader = Reader::from_bytes("m.safetensors", bytes.clone()).unwrap();
        let error = reader.param("w", &[rows, 3], Init::Zeros).err().unwrap().to_string();
        assert!(error.starts_with(&expected), "{dtype}: {error}");
        let mut reader = Reader::from_bytes("m.safetensors", bytes).unwrap();
        reader.defer();
        reader.param("w", &[rows, 3], Init::Zeros).unwrap();
        let error = reader
            .fill(|_, _| Keep::Packed(DType::BF16), &|_| {})
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(&expected), "{dtype}: {error}");
    }
}

#[test]
fn a_file_cut_short_while_it_is_open_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    let header = r#"{"w":{"dtype":"F32","shape":[100000],"data_offsets":[0,400000]}}"#;
    let whole = file(header, 400_000);
    // Nothing, a part of the header, the header alone, a page of data, half of it, all but a byte.
    for length in [0, 10, 8 + header.len(), 1000, 200_000, whole.len() - 1] {
        std::fs::write(&path, &whole).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        let writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        writer.set_len(length as u64).unwrap();
        let error = reader.param("w", &[100_000], Init::Zeros).err().unwrap();
        assert!(
            matches!(error, Error::Truncated { found, .. } if found == length as u64),
            "{length}: {error}"
        );
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_by_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let fifo = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    let kind = |error: Error| match error {
        Error::Kind { kind, .. } => kind,
        other => panic!("{other}"),
    };
    fifo(&root.join("m.safetensors"));
    assert_eq!(
        kind(TensorFile::open(&root.join("m.safetensors")).err().unwrap()),
        "a FIFO"
    );
    assert_eq!(
        kind(ModelSource::open(root.join("m.safetensors")).unwrap_err()),
        "a FIFO"
    );
    assert_eq!(kind(TensorFile::open(root).err().unwrap()), "a directory");
    assert_eq!(
        kind(TensorFile::open(Path::new("/dev/zero")).err().unwrap()),
        "a device"
    );
    std::os::unix::fs::symlink("/dev/zero", root.join("zero.safetensors")).unwrap();
    assert_eq!(
        kind(Reader::open(&root.join("zero.safetensors")).err().unwrap()),
        "a device"
    );

    let model = root.join("model");
    std::fs::create_dir_all(model.join("unet")).unwrap();
    std::fs::write(model.join("model_index.json"), "{}").unwrap();
    fifo(&model.join("unet/config.json"));
    let source = ModelSource::open(&model).unwrap();
    assert_eq!(kind(source.json("unet", "config.json").unwrap_err()), "a FIFO");
    assert_eq!(kind(source.read_bytes("unet").unwrap_err()), "a directory");
}

#[test]
fn files_read_whole_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model_index.json"), "{}").unwrap();
    let huge = std::fs::File::create(dir.path().join("huge.json")).unwrap();
    huge.set_len(1 << 40).unwrap();
    let source = ModelSource::open(dir.path()).unwrap();
    let error = source.json("", "huge.json").unwrap_err().to_string();
    assert!(error.contains("larger than the 64 MiB"), "{error}");
}

#[test]
fn a_shard_index_of_many_files_is_refused_before_any_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let index = |entries: String| {
        let path = dir.path().join("unet/diffusion_pytorch_model.safetensors.index.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!(r#"{{"weight_map":{{{entries}}}}}"#)).unwrap();
        std::fs::write(dir.path().join("model_index.json"), "{}").unwrap();
        let source = ModelSource::open(dir.path()).unwrap();
        source.component_reader("unet").err().unwrap().to_string()
    };
    let many: Vec<String> = (0..100_000).map(|i| format!(r#""k{i}":"s{i}.safetensors""#)).collect();
    let error = index(many.join(","));
    assert!(error.contains("number of shards = 100000 is not possible"), "{error}");
    let error = index(r#""k":["s"]"#.to_owned());
    assert!(error.contains("no file name"), "{error}");
    let error = index(String::new());
    assert!(error.contains("number of shards = 0"), "{error}");
}

#[test]
fn the_kind_of_a_file_of_junk_keys_is_unknown() {
    let keys = [
        "",
        ".",
        "model.diffusion_model.",
        "\\u0000",
        "first_stage_model..",
        "ключ",
    ];
    let file = TensorFile::from_bytes("m", empty_tensors(keys)).unwrap();
    assert_eq!(what_is_it(&file), FileKind::Unknown);
}
