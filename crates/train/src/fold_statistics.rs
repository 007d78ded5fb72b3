//! Normalised latents for every reader: the channels' means and deviations become part of
//! `quant_conv` and `post_quant_conv`. (diffusers' SDXL pipeline reads `latents_mean` for four
//! channels only; a 1x1 convolution has no padding, so that this is exact.)

use crate::latent_cache::LatentStatistics;
use crate::params::NamedParams;
use prima_models::AutoencoderKlConfig;
use prima_tensor::{Param, Tensor};

/// The same autoencoder with latents of zero mean and unit deviation.
pub(crate) fn fold_statistics(
    config: &AutoencoderKlConfig,
    params: &NamedParams,
    statistics: &LatentStatistics,
) -> (AutoencoderKlConfig, NamedParams) {
    let LatentStatistics { mean, std } = statistics;
    let n = config.latent_channels;
    let mut folded = config.clone();
    (folded.use_quant_conv, folded.use_post_quant_conv) = (true, true);
    (folded.latents_mean, folded.latents_std, folded.shift_factor) = (None, None, None);
    folded.scaling_factor = 1.0;
    let (quant_weight, quant_bias) = pointwise(params, "quant_conv", 2 * n);
    let (post_weight, post_bias) = pointwise(params, "post_quant_conv", n);
    // Rows: the means, then the logarithms of the variances.
    let row_scale = |row: usize| if row < n { 1.0 / std[row] } else { 1.0 };
    let quant_weight = quant_weight
        .iter()
        .enumerate()
        .map(|(i, w)| w * row_scale(i / (2 * n)))
        .collect();
    let shifted = |(row, b): (usize, &f32)| {
        if row < n {
            (b - mean[row]) / std[row]
        } else {
            b - 2.0 * std[row - n].ln()
        }
    };
    let quant_bias = quant_bias.iter().enumerate().map(shifted).collect();
    let offset = |row: usize| (0..n).map(|c| post_weight[row * n + c] * mean[c]).sum::<f32>();
    let post_bias = post_bias.iter().enumerate().map(|(row, b)| b + offset(row)).collect();
    let post_weight = post_weight.iter().enumerate().map(|(i, w)| w * std[i % n]).collect();
    let mut out: NamedParams = params
        .iter()
        .filter(|(key, _)| !key.contains("quant_conv."))
        .cloned()
        .collect();
    let mut push = |key: &str, values: Vec<f32>, shape: &[usize]| {
        out.push((key.to_owned(), Param::new(Tensor::from_vec(values, shape))));
    };
    push("quant_conv.weight", quant_weight, &[2 * n, 2 * n, 1, 1]);
    push("quant_conv.bias", quant_bias, &[2 * n]);
    push("post_quant_conv.weight", post_weight, &[n, n, 1, 1]);
    push("post_quant_conv.bias", post_bias, &[n]);
    (folded, out)
}

/// A 1x1 convolution of the file, or the identity.
fn pointwise(params: &NamedParams, name: &str, channels: usize) -> (Vec<f32>, Vec<f32>) {
    let find = |key: String| {
        params
            .iter()
            .find(|(k, _)| *k == key)
            .map(|(_, p)| p.tensor().data().to_vec())
    };
    if let (Some(weight), Some(bias)) = (find(format!("{name}.weight")), find(format!("{name}.bias"))) {
        (weight, bias)
    } else {
        let identity = (0..channels * channels)
            .map(|i| f32::from(i / channels == i % channels))
            .collect();
        (identity, vec![0.0; channels])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prima_checkpoint::{Error, Init, ParamSource, RandomInit};
    use prima_models::AutoencoderKl;
    use prima_tensor::{Philox, no_grad};

    struct Given(NamedParams);

    impl ParamSource for Given {
        fn param(&mut self, key: &str, shape: &[usize], _: Init) -> Result<Param, Error> {
            let found = self.0.iter().find(|(k, p)| k == key && p.shape() == shape);
            Ok(found.unwrap_or_else(|| panic!("{key} {shape:?}")).1.clone())
        }
    }

    #[test]
    fn the_folded_autoencoder_has_normal_latents_and_the_same_pictures() {
        let statistics = LatentStatistics {
            mean: vec![0.5, -1.0, 2.0, 0.0],
            std: vec![2.0, 0.5, 1.5, 0.1],
        };
        let config = AutoencoderKlConfig {
            down_block_types: vec!["DownEncoderBlock2D".into(); 2],
            up_block_types: vec!["UpDecoderBlock2D".into(); 2],
            block_out_channels: vec![8, 16],
            norm_num_groups: 4,
            use_quant_conv: false,
            use_post_quant_conv: false,
            mid_block_add_attention: false,
            latents_mean: Some(statistics.mean.iter().map(|v| f64::from(*v)).collect()),
            latents_std: Some(statistics.std.iter().map(|v| f64::from(*v)).collect()),
            scaling_factor: 1.0,
            ..AutoencoderKlConfig::default()
        };
        let mut source = RandomInit::new(4);
        let plain = AutoencoderKl::new(config.clone(), &mut source).unwrap();
        let (config, params) = fold_statistics(&config, &source.into_params(), &statistics);
        let folded = AutoencoderKl::new(config, &mut Given(params)).unwrap();
        let noise = Philox {
            seed: 1,
            image: 0,
            purpose: 0,
            step: 0,
        }
        .normal(8 * 8 * 3);
        let picture = Tensor::from_vec(noise, &[1, 8, 8, 3]);
        let pass = |vae: &AutoencoderKl| {
            no_grad(|| {
                let latents = vae.scale_latents(&vae.encode(&picture, &mut || true).unwrap().mean);
                (
                    latents.clone(),
                    vae.decode(&vae.unscale_latents(&latents), &mut || true).unwrap(),
                )
            })
        };
        let ((a, x), (b, y)) = (pass(&plain), pass(&folded));
        for (one, other) in a.data().iter().zip(b.data()).chain(x.data().iter().zip(y.data())) {
            assert!((one - other).abs() < 1e-4, "{one} {other}");
        }
    }
}
