//! Inception v3 against a PyTorch reference of pytorch-fid's network (`scripts/eval/inception.py`), with a sixteenth of the channels.

mod common;

use common::{assert_close, build, goldens};
use prima_checkpoint::{Reader, TensorFile};
use prima_models::InceptionV3;
use prima_tensor::{Tensor, no_grad};

#[test]
fn features_match_pytorch_with_batch_norms_folded() {
    let folder = goldens().join("inception-v3");
    let reader = Reader::open(&folder.join("model.safetensors")).unwrap();
    let network = build(reader, |source| InceptionV3::new(source, 16));
    let golden = TensorFile::open(&folder.join("outputs.safetensors")).unwrap();
    let pixels = golden.read("clean.resized").unwrap();
    let picture = pixels.data().iter().map(|v| v / 127.5 - 1.0).collect();
    let features = no_grad(|| network.features(&Tensor::from_vec(picture, &[1, 91, 91, 3])));
    assert_eq!(network.features_len(), 128);
    assert_close("features", &features, &golden.read("features").unwrap());
}
