//! Segment Anything against transformers (`scripts/goldens/sam.py`), on a tiny random model.

mod common;

use common::{assert_close, build, goldens};
use prima_checkpoint::{Reader, TensorFile};
use prima_models::{Sam, SamConfig, SamPrompt};
use prima_tensor::{Tensor, nchw_to_nhwc};

fn tiny() -> (Sam, TensorFile) {
    let folder = goldens().join("sam");
    let reader = Reader::open(&folder.join("model.safetensors")).unwrap();
    let config = SamConfig::of_shapes(&|key| reader.shape(key)).unwrap();
    assert_eq!((config.num_attention_heads, config.image_size()), (4, 64));
    assert_eq!(config.windows, [3, 8, 3]);
    assert_eq!((config.attention_downsample_rate, config.iou_head_depth), (2, 3));
    let sam = build(reader, |source| Sam::new(&config, source));
    (sam, TensorFile::open(&folder.join("outputs.safetensors")).unwrap())
}

#[test]
fn pictures_and_answers_match_transformers() {
    let (sam, golden) = tiny();
    let tensor = |name: &str| golden.read(name).unwrap();
    let embedding = sam.encode(&nchw_to_nhwc(&tensor("picture")), &mut || true).unwrap();
    assert_close("embedding", &embedding, &nchw_to_nhwc(&tensor("embedding")));
    let points = vec![([20.0, 30.0], true), ([50.0, 11.0], false)];
    let bounds = Some([4.0, 8.0, 40.0, 60.0]);
    let mask = Some(nchw_to_nhwc(&tensor("mask")));
    for (case, points, bounds, mask) in [
        ("points", points.clone(), None, None),
        ("box", Vec::new(), bounds, None),
        ("both", points.clone(), bounds, None),
        ("mask", points, None, mask),
    ] {
        let masks = sam.masks(&embedding, &SamPrompt { points, bounds, mask });
        assert_close(
            &format!("{case} masks"),
            &masks.logits,
            &tensor(&format!("{case}.masks")),
        );
        let scores = Tensor::from_vec(masks.iou_scores, &[4]);
        assert_close(&format!("{case} scores"), &scores, &tensor(&format!("{case}.iou")));
    }
}

#[test]
fn encoding_can_be_ended() {
    let (sam, golden) = tiny();
    let picture = nchw_to_nhwc(&golden.read("picture").unwrap());
    assert!(sam.encode(&picture, &mut || false).is_err());
}
