//! AdaIN's networks against PyTorch (`scripts/goldens/adain.py`), on tiny random ones.

mod common;

use common::{assert_close, build, goldens};
use prima_checkpoint::{Reader, TensorFile};
use prima_models::style_transfer::adain::UNUSED_VGG_KEYS;
use prima_models::{AdainConfig, AdainDecoder, VggEncoder, restyled};
use prima_tensor::nchw_to_nhwc;

#[test]
fn two_styles_mixed_match_pytorch() {
    let folder = goldens().join("adain");
    let golden = TensorFile::open(&folder.join("outputs.safetensors")).unwrap();
    let tensor = |name: &str| nchw_to_nhwc(&golden.read(name).unwrap());
    let reader = Reader::open(&folder.join("vgg_normalised.safetensors")).unwrap();
    let config = AdainConfig::of_shapes(&|key| reader.shape(key)).unwrap();
    assert_eq!(config.channels, [4, 6, 8, 12]);
    let vgg = build(reader.ignoring(&UNUSED_VGG_KEYS), |source| {
        VggEncoder::new(&config, source)
    });
    let reader = Reader::open(&folder.join("decoder.safetensors")).unwrap();
    let decoder = build(reader, |source| AdainDecoder::new(&config, source));
    let features = |name: &str| vgg.forward(&tensor(name), &mut || true).unwrap();
    let content = features("content");
    assert_close("features", &content, &tensor("features"));
    let styles = [(features("one"), 0.25), (features("two"), 0.75)];
    let mixed = restyled(&content, &styles, 0.7);
    assert_close("mixed", &mixed, &tensor("mixed"));
    let picture = decoder.forward(&mixed, &mut || true).unwrap();
    assert_close("picture", &picture, &tensor("picture"));
    assert_close("no strength", &restyled(&content, &styles, 0.0), &content);
}
