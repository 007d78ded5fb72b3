//! One safetensors file through `Reader`: types, old spellings, and the sentence of every refusal.

use prima_checkpoint::{
    Error, Init, ParamSource, RandomInit, Reader, TensorFile, export, write_quantized, write_safetensors,
};
use prima_tensor::{DType, Keep, Param, Tensor};
use safetensors::{Dtype, tensor::TensorView};
use std::path::Path;

fn ramp(shape: &[usize]) -> Param {
    let len: usize = shape.iter().product();
    Param::new(Tensor::from_vec(
        (0..len).map(|i| i as f32 * 0.25 - 1.0).collect(),
        shape,
    ))
}

fn write(path: &Path, tensors: &[(&str, &[usize])]) {
    let params: Vec<_> = tensors
        .iter()
        .map(|(key, shape)| ((*key).to_owned(), ramp(shape)))
        .collect();
    write_safetensors(path, &params, DType::F32).unwrap();
}

fn reader(tensors: &[(&str, &[usize])]) -> (tempfile::TempDir, Reader) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.safetensors");
    write(&path, tensors);
    (dir, Reader::open(&path).unwrap())
}

/// `params` read together from a file that holds them and nothing else.
fn filled(path: &Path, params: &[(String, Param)], keep: Keep) -> Reader {
    let mut reader = Reader::open(path).unwrap();
    reader.defer();
    for (key, param) in params {
        reader.param(key, &param.shape(), Init::Zeros).unwrap();
    }
    reader.finish().unwrap();
    reader.fill(|_, _| keep, &|_| {}).unwrap();
    reader
}

#[test]
fn every_float_type_comes_back_as_f32() {
    let dir = tempfile::tempdir().unwrap();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let path = dir.path().join("a.safetensors");
        let params = [("odd".to_owned(), ramp(&[3])), ("weight".to_owned(), ramp(&[2, 3]))];
        write_safetensors(&path, &params, dtype).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        for (key, param) in &params {
            let read = reader.param(key, &param.shape(), Init::Zeros).unwrap();
            // Quarters up to 1 are exact in all three types.
            assert_eq!(read.tensor().data(), param.tensor().data(), "{dtype:?} {key}");
        }
        reader.finish().unwrap();
        assert_eq!(reader.params().len(), 2);
    }
}

#[test]
fn values_read_together_are_those_read_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let shapes: [(&str, &[usize]); 4] = [
        ("bias", &[5]),
        ("conv.weight", &[3, 2, 3, 3]),
        ("filter.weight", &[4, 1, 3, 3]),
        ("weight", &[5, 7]),
    ];
    let params = shapes.map(|(key, shape)| (key.to_owned(), ramp(shape)));
    for stored in [DType::F32, DType::F16, DType::BF16] {
        write_safetensors(&path, &params, stored).unwrap();
        // Quarters up to 13 are exact in all three types.
        for dtype in [DType::F32, DType::BF16] {
            for keep in [Keep::Stored(dtype), Keep::Packed(dtype)] {
                let reader = filled(&path, &params, keep);
                for ((key, read), (_, param)) in reader.params().iter().zip(&params) {
                    assert_eq!(read.tensor().data(), param.tensor().data(), "{stored:?} {keep:?} {key}");
                    assert_eq!(read.dtype(), dtype);
                }
            }
        }
    }
}

#[test]
fn bytes_in_memory_read_like_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    write(&path, &[("weight", &[2])]);
    let bytes: &'static [u8] = std::fs::read(&path).unwrap().leak();
    let mut reader = Reader::from_static("unet (embedded)", bytes).unwrap();
    assert_eq!(
        reader.param("weight", &[2], Init::Zeros).unwrap().tensor().data(),
        [-1.0, -0.75]
    );
    let error = reader.param("bias", &[2], Init::Zeros).unwrap_err().to_string();
    assert_eq!(error, "unet (embedded) has no tensor `bias` (expected with shape [2])");
}

#[test]
fn a_missing_tensor_names_file_key_and_expected_shape() {
    let (_dir, mut reader) = reader(&[("conv_in.weight", &[4, 4])]);
    let error = reader.param("conv_in.bias", &[4], Init::Zeros).unwrap_err();
    assert!(matches!(&error, Error::Missing { key, expected, .. } if key == "conv_in.bias" && expected == &[4]));
    assert!(error.to_string().contains("weights.safetensors"), "{error}");
}

#[test]
fn a_wrong_shape_names_both_shapes() {
    let (_dir, mut reader) = reader(&[("conv_in.weight", &[4, 2])]);
    let error = reader
        .param("conv_in.weight", &[4, 4], Init::Zeros)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("tensor `conv_in.weight` has shape [4, 2], expected [4, 4]"),
        "{error}"
    );
    // A 1x1 convolution is not silently a matrix outside the VAE's attention.
    let (_dir, mut reader) = self::reader(&[("proj_in.weight", &[4, 4, 1, 1])]);
    assert!(matches!(
        reader.param("proj_in.weight", &[4, 4], Init::Zeros),
        Err(Error::Shape { .. })
    ));
}

#[test]
fn a_tensor_never_read_is_an_error_with_ten_names_and_the_count() {
    let names: Vec<String> = (0..12).map(|i| format!("layer.{i:02}.weight")).collect();
    let tensors: Vec<(&str, &[usize])> = names.iter().map(|n| (n.as_str(), &[1][..])).collect();
    let (_dir, reader) = reader(&tensors);
    let error = reader.finish().unwrap_err();
    assert!(matches!(&error, Error::Unread { count: 12, keys, .. } if keys.len() == 10));
    let sentence = error.to_string();
    assert!(sentence.contains("layer.09.weight, ..."), "{sentence}");
}

#[test]
fn position_ids_and_patterns_asked_for_may_stay_unread() {
    let tensors: [(&str, &[usize]); 2] = [
        ("text_model.embeddings.position_ids", &[1, 7]),
        ("text_model.final_layer_norm.bias", &[2]),
    ];
    let (_dir, reader) = reader(&tensors);
    assert!(matches!(reader.finish(), Err(Error::Unread { count: 1, .. })));
    reader.ignoring(&["final_layer_norm"]).finish().unwrap();
}

#[test]
fn reading_a_tensor_twice_is_an_error_under_either_spelling() {
    let (_dir, mut reader) = reader(&[("text_model.norm.bias", &[2])]);
    reader.param("norm.bias", &[2], Init::Zeros).unwrap();
    let error = reader.param("text_model.norm.bias", &[2], Init::Zeros).unwrap_err();
    assert!(matches!(error, Error::Twice { .. }), "{error}");
}

#[test]
fn text_encoders_are_read_with_and_without_their_prefix() {
    for (stored, asked) in [
        ("norm.bias", "text_model.norm.bias"),
        ("text_model.norm.bias", "norm.bias"),
        ("norm.bias", "norm.bias"),
    ] {
        let (_dir, mut reader) = reader(&[(stored, &[2])]);
        assert_eq!(reader.shape(asked), Some(vec![2]));
        reader.param(asked, &[2], Init::Zeros).unwrap();
        reader.finish().unwrap();
    }
}

#[test]
fn old_vae_attention_names_and_1x1_weights_are_accepted() {
    let block = "encoder.mid_block.attentions.0";
    for (old, new) in [
        ("query", "to_q"),
        ("key", "to_k"),
        ("value", "to_v"),
        ("proj_attn", "to_out.0"),
    ] {
        for shape in [&[3, 3][..], &[3, 3, 1, 1]] {
            for stored in [old, new] {
                let weight = format!("{block}.{stored}.weight");
                let bias = format!("{block}.{stored}.bias");
                let (_dir, mut reader) = reader(&[(&weight, shape), (&bias, &[3])]);
                let read = reader
                    .param(&format!("{block}.{new}.weight"), &[3, 3], Init::Zeros)
                    .unwrap();
                assert_eq!(read.shape(), [3, 3]);
                assert_eq!(read.tensor().data(), ramp(&[9]).tensor().data());
                reader.param(&format!("{block}.{new}.bias"), &[3], Init::Zeros).unwrap();
                reader.finish().unwrap();
            }
        }
    }
}

#[test]
fn two_spellings_of_one_tensor_in_a_file_are_reported() {
    let (_dir, mut reader) = reader(&[("attentions.0.query.bias", &[2]), ("attentions.0.to_q.bias", &[2])]);
    reader.param("attentions.0.to_q.bias", &[2], Init::Zeros).unwrap();
    assert!(matches!(reader.finish(), Err(Error::Unread { count: 1, .. })));
}

#[test]
fn a_file_cut_anywhere_is_refused_without_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    write(&path, &[("weight", &[16, 16]), ("bias", &[16])]);
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        let Err(error) = TensorFile::from_bytes("cut", whole[..length].to_vec()) else {
            panic!("{length} accepted")
        };
        assert!(matches!(error, Error::Truncated { .. }), "{length} bytes: {error}");
    }
    let error = TensorFile::from_bytes("cut", whole[..whole.len() - 1].to_vec())
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains(&format!(
            "promises {} bytes and it has {}",
            whole.len(),
            whole.len() - 1
        )),
        "{error}"
    );
}

#[test]
fn other_files_are_called_what_they_are() {
    let junk = TensorFile::from_bytes("a.png", b"\x89PNG\r\n\x1a\n followed by more".to_vec())
        .err()
        .unwrap();
    assert!(matches!(junk, Error::NotSafetensors { .. }), "{junk}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    write(&path, &[("weight", &[2])]);
    let mut longer = std::fs::read(&path).unwrap();
    longer.push(0);
    let longer = TensorFile::from_bytes("long", longer).err().unwrap().to_string();
    assert!(longer.contains("1 bytes follow"), "{longer}");
    let empty = dir.path().join("empty.safetensors");
    std::fs::write(&empty, "").unwrap();
    let empty = Reader::open(&empty).err().unwrap();
    assert!(matches!(empty, Error::Truncated { found: 0, .. }), "{empty}");
    let absent = Reader::open(&dir.path().join("none.safetensors")).err().unwrap();
    assert!(matches!(absent, Error::Io { doing: "open", .. }), "{absent}");
}

#[test]
fn integer_tensors_are_refused_by_name() {
    let header = br#"{"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(&[0; 8]);
    let mut reader = Reader::from_bytes("ids.safetensors", bytes).unwrap();
    let error = reader.param("ids", &[1], Init::Zeros).unwrap_err().to_string();
    assert_eq!(
        error,
        "ids.safetensors: `ids` is stored as I64; f64, f32, f16, bf16 and 8-bit floats (E4M3, E5M2) are read"
    );
}

#[test]
fn export_replaces_a_component_whole_and_leaves_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("unet");
    let config = serde_json::json!({"_class_name": "UNet2DConditionModel", "in_channels": 4});
    for value in [1.0, 2.0] {
        let params = [("weight".to_owned(), Param::new(Tensor::full(value, &[2, 2])))];
        export(
            &folder,
            "diffusion_pytorch_model.safetensors",
            &config,
            &params,
            DType::BF16,
        )
        .unwrap();
        let file = TensorFile::open(&folder.join("diffusion_pytorch_model.safetensors")).unwrap();
        assert_eq!(file.read("weight").unwrap().data(), [value; 4]);
        assert_eq!(file.metadata()["format"], "pt");
    }
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), config);
    assert_eq!(
        std::fs::read_dir(&folder).unwrap().count(),
        2,
        "no temporary file stays behind"
    );
    let error = write_safetensors(&dir.path().join("no/such/dir.safetensors"), &[], DType::F32).unwrap_err();
    assert!(matches!(error, Error::Io { doing: "write", .. }), "{error}");
}

#[test]
fn random_init_has_the_moments_asked_for_and_depends_on_seed_and_key_only() {
    let mut init = RandomInit::new(7);
    let normal = init.param("a", &[100, 200], Init::Normal(0.02)).unwrap().tensor();
    let uniform = init.param("b", &[100, 200], Init::FanIn(25)).unwrap().tensor();
    let moments = |data: &[f32]| {
        let mean = data.iter().sum::<f32>() / data.len() as f32;
        (
            mean,
            (data.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / data.len() as f32).sqrt(),
        )
    };
    let (mean, std) = moments(normal.data());
    assert!(mean.abs() < 5e-4 && (std - 0.02).abs() < 4e-4, "{mean} {std}");
    let (mean, std) = moments(uniform.data());
    assert!(
        mean.abs() < 3e-3 && (std - 0.2 / 3f32.sqrt()).abs() < 2e-3,
        "{mean} {std}"
    );
    assert!(uniform.data().iter().all(|v| v.abs() <= 0.2));
    assert_eq!(init.param("c", &[3], Init::Ones).unwrap().tensor().data(), [1.0; 3]);
    assert_eq!(init.params().len(), 3);

    let mut again = RandomInit::new(7);
    assert_eq!(
        again.param("b", &[100, 200], Init::FanIn(25)).unwrap().tensor().data(),
        uniform.data()
    );
    assert_ne!(
        again.param("c", &[100, 200], Init::FanIn(25)).unwrap().tensor().data(),
        uniform.data()
    );
    let other = RandomInit::new(8)
        .param("b", &[100, 200], Init::FanIn(25))
        .unwrap()
        .tensor();
    assert_ne!(other.data(), uniform.data());
}

#[test]
fn quantized_weights_are_read_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let shapes: [(&str, &[usize]); 4] = [
        ("bias", &[5]),
        ("conv.weight", &[18, 32, 3, 3]),
        ("norm.weight", &[7]),
        ("proj.weight", &[50, 64]),
    ];
    for bits in [8, 4] {
        let params = shapes.map(|(key, shape)| (key.to_owned(), ramp(shape)));
        for (_, param) in &params {
            param.quantize(bits);
        }
        write_quantized(&path, &params).unwrap();
        for keep in [Keep::Packed(DType::F32), Keep::Stored(DType::F32), Keep::Int8] {
            // Scales are no tensors of their own.
            let reader = filled(&path, &params, keep);
            assert!(reader.is_quantized());
            for ((key, read), (_, param)) in reader.params().iter().zip(&params) {
                assert_eq!(
                    read.tensor().data(),
                    param.tensor().data(),
                    "{bits} bits, {keep:?}, {key}"
                );
                let kept = (param.shape().len() > 1 && keep != Keep::Stored(DType::F32)).then_some(bits);
                assert_eq!(read.bits(), kept, "{keep:?}, {key}");
            }
        }
        let mut reader = Reader::open(&path).unwrap();
        let read = reader.param("proj.weight", &[50, 64], Init::Zeros).unwrap();
        assert_eq!(read.tensor().data(), params[3].1.tensor().data());
    }
}

#[test]
fn a_quantized_weight_needs_a_scale_for_each_output() {
    use safetensors::{Dtype, tensor::TensorView};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let bytes = [1; 12];
    let refused = |scales: Option<usize>| {
        let floats = vec![0; 4 * scales.unwrap_or(0)];
        let mut tensors = vec![("w", TensorView::new(Dtype::I8, vec![4, 3], &bytes).unwrap())];
        if let Some(scales) = scales {
            tensors.push(("w_scale", TensorView::new(Dtype::F32, vec![scales], &floats).unwrap()));
        }
        std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        reader.param("w", &[4, 3], Init::Zeros).map(drop)
    };
    refused(Some(4)).unwrap();
    assert!(matches!(refused(Some(3)), Err(Error::Shape { .. })));
    assert!(matches!(refused(None), Err(Error::DType { .. })));
}

/// One tensor of bytes, and others of floats.
fn write_mixed(path: &Path, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) {
    let views = tensors
        .iter()
        .map(|(key, dtype, shape, data)| (*key, TensorView::new(*dtype, shape.to_vec(), data).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

#[test]
fn eight_bit_floats_are_widened_and_scaled_by_what_lies_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fp8.safetensors");
    let f32s = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let f64s = |values: &[f64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    // 1, -2, 0.5 and 448 in E4M3; 1 and -2 in E5M2.
    let e4m3 = vec![0x38, 0xc0, 0x30, 0x7e];
    write_mixed(
        &path,
        &[
            ("a.weight", Dtype::F8_E4M3, &[2, 2], e4m3.clone()),
            ("b.weight", Dtype::F8_E5M2, &[2], vec![0x3c, 0xc0]),
            // ComfyUI's: one for all, under the module's name.
            ("c.scale_weight", Dtype::F32, &[], f32s(&[0.5])),
            ("c.weight", Dtype::F8_E4M3, &[2, 2], e4m3.clone()),
            // One for each output, under the weight's.
            ("d.weight", Dtype::F8_E4M3, &[2, 2], e4m3),
            ("d.weight_scale", Dtype::F32, &[2, 1], f32s(&[2.0, 4.0])),
            ("e.weight", Dtype::F64, &[2], f64s(&[0.25, -3.0])),
            ("scaled_fp8", Dtype::F8_E4M3, &[0], vec![]),
        ],
    );
    let mut reader = Reader::open(&path).unwrap();
    let mut read = |key: &str, shape: &[usize]| reader.param(key, shape, Init::Zeros).unwrap().tensor().data().to_vec();
    assert_eq!(read("a.weight", &[2, 2]), [1.0, -2.0, 0.5, 448.0]);
    assert_eq!(read("b.weight", &[2]), [1.0, -2.0]);
    assert_eq!(read("c.weight", &[2, 2]), [0.5, -1.0, 0.25, 224.0]);
    assert_eq!(read("d.weight", &[2, 2]), [2.0, -4.0, 2.0, 1792.0]);
    assert_eq!(read("e.weight", &[2]), [0.25, -3.0]);
    reader.finish().unwrap();
}

#[test]
fn what_is_no_number_in_eight_bits_is_refused_by_key_and_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nan.safetensors");
    write_mixed(
        &path,
        &[("a.weight", Dtype::F8_E4M3, &[2, 2], vec![0x38, 0x38, 0xff, 0x38])],
    );
    let error = Reader::open(&path)
        .unwrap()
        .param("a.weight", &[2, 2], Init::Zeros)
        .unwrap_err()
        .to_string();
    assert!(error.contains("`a.weight` has the value NaN at [1, 0]"), "{error}");
}

#[test]
fn what_trainers_leave_in_files_is_not_missed() {
    let keys = [
        "loss.logvar",
        "model_ema.num_updates",
        "alphas_cumprod",
        "denoiser.sigmas",
        "text_model.embeddings.position_ids",
    ];
    let tensors: Vec<(&str, &[usize])> = keys.iter().map(|key| (*key, &[2][..])).collect();
    let (_dir, reader) = reader(&tensors);
    reader.finish().unwrap();
}
