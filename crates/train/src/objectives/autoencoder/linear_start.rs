//! A start for the autoencoder at which it already is a linear transform that keeps colours.
//!
//! From torch's default initialisation colours take thousands of steps to come through: the last
//! normalisation rescales every picture by its own contrast. Here the residual branches start at
//! zero (as everywhere in this crate), and the layers between them carry, per patch and colour,
//! the mean and the three Haar differences; the decoder interpolates the means. Two tricks make
//! `GroupNorm + SiLU` transparent: `silu(x) - silu(-x) = x`, and a pair of constant channels
//! `±ANCHOR` in a group keeps its variance from depending on the picture.

use prima_models::AutoencoderKlConfig;
use prima_tensor::Param;
use std::collections::HashMap;

/// Much larger than any value that shares its group.
const ANCHOR: f32 = 4.0;
/// Gain of the Haar differences in the latents, which are smaller than the means.
const DETAIL_GAIN: f32 = 2.0;
const COLOURS: usize = 3;
/// Mean, horizontal, vertical and diagonal difference.
const COEFFICIENTS: usize = 4 * COLOURS;
/// Taps of a tent; after nearest-neighbour doubling it is bilinear interpolation.
const TENT: [f32; 3] = [0.25, 0.5, 0.25];

/// Overwrites the weights on the linear path. Returns false, and changes nothing, if the
/// configuration has no room for it.
pub(super) fn linear_start(params: &[(String, Param)], config: &AutoencoderKlConfig, log_variance: f32) -> bool {
    let channels = &config.block_out_channels;
    let (blocks, groups) = (channels.len(), config.norm_num_groups);
    let rising = blocks >= 2 && channels[blocks - 1] != channels[blocks - 2];
    let room = groups >= 4 && channels[0] / groups >= 4 && channels[blocks - 1] / groups >= 8;
    let wide = channels[blocks.saturating_sub(2)] >= COEFFICIENTS && config.latent_channels >= COEFFICIENTS;
    if !rising || !room || !wide || config.in_channels != COLOURS || config.use_quant_conv || config.use_post_quant_conv
    {
        return false;
    }
    let net = Weights {
        by_key: params.iter().map(|(key, param)| (key.as_str(), param)).collect(),
    };
    encoder(&net, channels, groups, config.latent_channels, log_variance);
    decoder(&net, channels, groups);
    true
}

struct Weights<'a> {
    by_key: HashMap<&'a str, &'a Param>,
}

impl Weights<'_> {
    /// Output `row` of the convolution `name` becomes `bias` plus the given (input, ky, kx, weight).
    fn row(&self, name: &str, row: usize, bias: f32, taps: &[(usize, usize, usize, f32)]) {
        let (Some(weight), Some(b)) = (
            self.by_key.get(format!("{name}.weight").as_str()),
            self.by_key.get(format!("{name}.bias").as_str()),
        ) else {
            return;
        };
        let shape = weight.shape();
        let (inputs, kh, kw) = (shape[1], shape[2], shape[3]);
        weight.update(|w| {
            let w = &mut w[row * inputs * kh * kw..][..inputs * kh * kw];
            w.fill(0.0);
            for &(input, ky, kx, value) in taps {
                w[(input * kh + ky) * kw + kx] += value;
            }
        });
        b.update(|b| b[row] = bias);
    }

    fn copy(&self, name: &str, from: usize, to: usize, centre: usize) {
        self.row(name, to, 0.0, &[(from, centre, centre, 1.0)]);
    }
}

/// Sign of pixel `(y, x)` of a 2x2 patch in coefficient 0 (mean), 1 (left - right),
/// 2 (top - bottom) or 3 (diagonal).
fn haar(coefficient: usize, y: usize, x: usize) -> f32 {
    let horizontal = if coefficient % 2 == 1 && x == 1 { -1.0 } else { 1.0 };
    let vertical = if coefficient / 2 == 1 && y == 1 { -1.0 } else { 1.0 };
    horizontal * vertical
}

fn encoder(net: &Weights, channels: &[usize], groups: usize, latents: usize, log_variance: f32) {
    let last = channels.len() - 1;
    (0..COLOURS).for_each(|c| net.copy("encoder.conv_in", c, c, 1));
    for level in 0..last {
        if level > 0 {
            let shortcut = format!("encoder.down_blocks.{level}.resnets.0.conv_shortcut");
            (0..COLOURS).for_each(|c| net.copy(&shortcut, c, c, 0));
        }
        let down = format!("encoder.down_blocks.{level}.downsamplers.0.conv");
        let kept = if level + 1 == last { 4 } else { 1 };
        for k in 0..kept {
            let gain = if k == 0 { 0.25 } else { 0.25 * DETAIL_GAIN };
            for c in 0..COLOURS {
                let taps: Vec<_> = (0..4)
                    .map(|i| (c, i / 2, i % 2, gain * haar(k, i / 2, i % 2)))
                    .collect();
                net.row(&down, k * COLOURS + c, 0.0, &taps);
            }
        }
    }
    // The last block's shortcut lays the coefficients out as x, -x beside a pair of anchors.
    let shortcut = format!("encoder.down_blocks.{last}.resnets.0.conv_shortcut");
    let size = channels[last] / groups;
    let deviation = ANCHOR * (2.0 / size as f32).sqrt();
    for group in 0..4 {
        let first = group * size;
        for j in 0..COLOURS {
            let i = group * COLOURS + j;
            net.row(&shortcut, first + 2 * j, 0.0, &[(i, 0, 0, 1.0)]);
            net.row(&shortcut, first + 2 * j + 1, 0.0, &[(i, 0, 0, -1.0)]);
            net.row(
                "encoder.conv_out",
                i,
                0.0,
                &[(first + 2 * j, 1, 1, deviation), (first + 2 * j + 1, 1, 1, -deviation)],
            );
        }
        net.row(&shortcut, first + 6, ANCHOR, &[]);
        net.row(&shortcut, first + 7, -ANCHOR, &[]);
    }
    (latents..2 * latents).for_each(|i| net.row("encoder.conv_out", i, log_variance, &[]));
}

fn decoder(net: &Weights, channels: &[usize], groups: usize) {
    let last = channels.len() - 1;
    (0..COEFFICIENTS).for_each(|i| net.copy("decoder.conv_in", i, i, 1));
    let size = channels[0] / groups;
    let deviation = ANCHOR * (2.0 / size as f32).sqrt();
    for block in 0..last {
        if block > 0 {
            let shortcut = format!("decoder.up_blocks.{block}.resnets.0.conv_shortcut");
            (0..COLOURS).for_each(|c| net.copy(&shortcut, c, c, 0));
        }
        let up = format!("decoder.up_blocks.{block}.upsamplers.0.conv");
        for c in 0..COLOURS {
            let mut taps: Vec<_> = (0..9).map(|i| (c, i / 3, i % 3, TENT[i / 3] * TENT[i % 3])).collect();
            if block == 0 {
                let gain = 0.5 / DETAIL_GAIN;
                let (horizontal, vertical) = (COLOURS + c, 2 * COLOURS + c);
                taps.extend([(horizontal, 1, 0, -gain), (horizontal, 1, 2, gain)]);
                taps.extend([(vertical, 0, 1, -gain), (vertical, 2, 1, gain)]);
            }
            if block + 1 < last {
                net.row(&up, c, 0.0, &taps);
                continue;
            }
            let negative: Vec<_> = taps.iter().map(|&(i, y, x, w)| (i, y, x, -w)).collect();
            let first = c * size;
            net.row(&up, first, 0.0, &taps);
            net.row(&up, first + 1, 0.0, &negative);
            net.row(&up, first + 2, ANCHOR, &[]);
            net.row(&up, first + 3, -ANCHOR, &[]);
            net.row(
                "decoder.conv_out",
                c,
                0.0,
                &[(first, 1, 1, deviation), (first + 1, 1, 1, -deviation)],
            );
        }
    }
    if channels[0] != channels[1] {
        // The last block changes the width: its shortcut passes the layout on.
        let shortcut = format!("decoder.up_blocks.{last}.resnets.0.conv_shortcut");
        (0..COLOURS * size).for_each(|i| net.copy(&shortcut, i, i, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prima_checkpoint::RandomInit;
    use prima_models::AutoencoderKl;
    use prima_tensor::{Tensor, no_grad};

    #[test]
    fn an_untrained_autoencoder_keeps_the_colours_of_a_flat_picture() {
        let config = AutoencoderKlConfig {
            down_block_types: vec!["DownEncoderBlock2D".into(); 3],
            up_block_types: vec!["UpDecoderBlock2D".into(); 3],
            block_out_channels: vec![16, 16, 32],
            latent_channels: 16,
            norm_num_groups: 4,
            use_quant_conv: false,
            use_post_quant_conv: false,
            mid_block_add_attention: false,
            ..AutoencoderKlConfig::default()
        };
        let mut source = RandomInit::new(1);
        let vae = AutoencoderKl::new(config.clone(), &mut source).unwrap();
        assert!(linear_start(source.params(), &config, -6.0));
        let colour = [0.8, -0.6, 0.1];
        let picture = Tensor::from_vec(colour.repeat(32 * 32), &[1, 32, 32, 3]);
        let out = no_grad(|| {
            let posterior = vae.encode(&picture, &mut || true).unwrap();
            assert!(posterior.logvar.data().iter().all(|v| *v == -6.0));
            vae.decode(&posterior.mean, &mut || true).unwrap()
        });
        let middle = &out.data()[(16 * 32 + 16) * 3..][..3];
        for (got, want) in middle.iter().zip(colour) {
            assert!((got - want).abs() < 0.1, "{middle:?}");
        }
    }
}
