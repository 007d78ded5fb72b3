//! EfficientNet-lite against a PyTorch reference (`scripts/eval/convert_efficientnet.py`), on
//! a tiny random network.

mod common;

use common::{assert_close, build, goldens};
use prima_checkpoint::{Reader, TensorFile};
use prima_models::feature_networks::StageConfig;
use prima_models::{EfficientNetLite, EfficientNetLiteConfig};
use prima_tensor::{Tensor, nchw_to_nhwc};

fn tiny() -> EfficientNetLiteConfig {
    let stage = |[blocks, kernel, stride, expand, channels]: [usize; 5]| StageConfig {
        blocks,
        kernel,
        stride,
        expand,
        channels,
    };
    let stages = [[1, 3, 1, 1, 4], [2, 3, 2, 6, 6], [2, 5, 2, 6, 8]];
    EfficientNetLiteConfig {
        stem: 8,
        stages: stages.map(stage).to_vec(),
        head: 24,
        classes: 10,
    }
}

#[test]
fn features_and_logits_match_pytorch_with_batch_norms_folded() {
    let folder = goldens().join("efficientnet-lite");
    let reader = Reader::open(&folder.join("model.safetensors")).unwrap();
    let network = build(reader, |source| EfficientNetLite::new(&tiny(), source));
    let golden = TensorFile::open(&folder.join("outputs.safetensors")).unwrap();
    for case in ["even", "odd"] {
        let tensor = |name: &str| golden.read(&format!("{case}.{name}")).unwrap();
        let features = network.features(&nchw_to_nhwc(&tensor("image")));
        assert_close(&format!("{case} features"), &features, &tensor("features"));
        assert_close(&format!("{case} logits"), &network.logits(&features), &tensor("logits"));
    }
}

#[test]
fn maps_halve_and_end_with_what_the_last_block_sees() {
    let reader = Reader::open(&goldens().join("efficientnet-lite/model.safetensors")).unwrap();
    let network = build(reader, |source| EfficientNetLite::new(&tiny(), source));
    let image = Tensor::from_vec(
        (0..32 * 32 * 3).map(|i| (i % 7) as f32 / 7.0).collect(),
        &[1, 32, 32, 3],
    );
    let maps = network.maps(&image);
    let shapes: Vec<&[usize]> = maps.iter().map(Tensor::shape).collect();
    assert_eq!(shapes, [[1, 16, 16, 4], [1, 8, 8, 6], [1, 4, 4, 8]]);
    assert_eq!(maps[2].data(), network.map(&image).data());
    assert_eq!(network.features_of(&maps[2]).data(), network.features(&image).data());
}
