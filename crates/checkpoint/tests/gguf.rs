//! GGUF files: weights in blocks, shapes the other way round, and what a damaged header says.

use prima_checkpoint::{Init, ParamSource, Reader, TensorFile};
use rlx_gguf::{GgmlType, GgufWriter, MetaValue, quantize};

fn ramp(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i as f32) * 0.37).sin()).collect()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn weights_in_blocks_are_read_in_the_usual_order_of_axes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let kinds = [
        (GgmlType::Q8_0, 0.01),
        (GgmlType::Q5_1, 0.05),
        (GgmlType::Q5_0, 0.1),
        (GgmlType::Q4_1, 0.1),
        (GgmlType::Q4_0, 0.2),
        (GgmlType::Q6K, 0.05),
        (GgmlType::Q5K, 0.1),
        (GgmlType::Q4K, 0.2),
    ];
    let values = ramp(3 * 512);
    let mut writer = GgufWriter::new();
    writer.set_meta("general.name", MetaValue::String("a model".to_owned()));
    for (kind, _) in kinds {
        // ggml counts axes from the innermost.
        let bytes = quantize(&values, kind).unwrap();
        writer
            .add_tensor_bytes(format!("{kind:?}"), vec![512, 3], kind, bytes)
            .unwrap();
    }
    writer
        .add_tensor_bytes("plain", vec![4, 2], GgmlType::F32, bytes_of(&ramp(8)))
        .unwrap();
    writer.write_to_path(&path).unwrap();

    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.metadata()["general.name"], "a model");
    let mut reader = Reader::from_file(file);
    for (kind, tolerance) in kinds {
        let found = reader
            .param(&format!("{kind:?}"), &[3, 512], Init::Zeros)
            .unwrap()
            .tensor();
        let worst = found
            .data()
            .iter()
            .zip(&values)
            .fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst < tolerance, "{kind:?}: {worst}");
    }
    assert_eq!(
        reader.param("plain", &[2, 4], Init::Zeros).unwrap().tensor().data(),
        ramp(8)
    );
    reader.finish().unwrap();
}

#[test]
fn a_damaged_gguf_is_refused_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let mut writer = GgufWriter::new();
    writer
        .add_tensor_bytes("w", vec![512], GgmlType::F32, bytes_of(&ramp(512)))
        .unwrap();
    writer.write_to_path(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let refused = |bytes: Vec<u8>| TensorFile::from_bytes("m.gguf", bytes).err().unwrap().to_string();
    let cut = refused(whole[..whole.len() - 100].to_vec());
    assert!(cut.contains("truncated"), "{cut}");
    let header = refused(whole[..20].to_vec());
    assert!(header.contains("not a GGUF file that can be read"), "{header}");
    let mut endless = whole.clone();
    endless[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(refused(endless).contains("not a GGUF file"));
}
