//! The networks of Real-ESRGAN against PyTorch (`scripts/goldens/upscalers.py`), on tiny random ones.

mod common;

use common::{assert_close, build, goldens};
use prima_checkpoint::{Reader, TensorFile};
use prima_models::{RrdbNet, RrdbNetConfig, SrvggNetCompact, SrvggNetCompactConfig};
use prima_tensor::nchw_to_nhwc;

#[test]
fn an_rrdbnet_with_packed_pixels_matches_pytorch() {
    let folder = goldens().join("upscalers");
    let outputs = TensorFile::open(&folder.join("outputs.safetensors")).unwrap();
    let reader = Reader::open(&folder.join("rrdb-x1.safetensors")).unwrap();
    let config = RrdbNetConfig::of_shapes(&|key| reader.shape(key)).unwrap();
    let expected = RrdbNetConfig {
        scale: 1,
        num_feat: 8,
        num_block: 1,
        num_grow_ch: 4,
        num_upsample: 2,
    };
    assert_eq!(config, expected);
    let network = build(reader, |source| RrdbNet::new(&config, source));
    let picture = nchw_to_nhwc(&outputs.read("picture-x1").unwrap());
    let made = network.forward(&picture, &mut || true).unwrap();
    assert_close("rrdb-x1", &made, &nchw_to_nhwc(&outputs.read("rrdb-x1").unwrap()));
    assert!(network.forward(&picture, &mut || false).is_err());
}

#[test]
fn a_compact_network_is_told_by_its_shapes() {
    let folder = goldens().join("upscalers");
    let reader = Reader::open(&folder.join("../../assets/realesr-animevideov3/model.safetensors")).unwrap();
    let config = SrvggNetCompactConfig::of_shapes(&|key| reader.shape(key)).unwrap();
    let expected = SrvggNetCompactConfig {
        num_feat: 64,
        num_conv: 16,
        upscale: 4,
    };
    assert_eq!(config, expected);
    let network = build(reader, |source| SrvggNetCompact::new(&config, source));
    assert_eq!((network.scale(), network.reach_px()), (4, 18));
}
