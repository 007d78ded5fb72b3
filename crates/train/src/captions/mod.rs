//! Captions: their words, their tokens, and what the UNet is told of them.

pub(crate) mod loose;
mod tokens;

pub(crate) use tokens::{TokenRows, Tokens};

use prima_models::UnetCond;
use prima_pipeline::TextEncoders;
use prima_tensor::{Tensor, combine_per_sample};

/// What the UNet is told of a whole picture of this height and width in pixels.
pub(crate) fn time_ids([height, width]: [f32; 2]) -> [f32; 6] {
    [height, width, 0.0, 0.0, height, width]
}

/// Rows of tokens to what the UNet is conditioned on; `time_ids` say of each picture where it comes from.
pub(crate) fn conditioning(encoders: &TextEncoders, rows: &TokenRows, time_ids: Vec<[f32; 6]>) -> UnetCond {
    let batch = rows.keep.len();
    let (hidden, pooled) = encoders.forward(&rows.ids, batch);
    let zero = vec![0.0; batch];
    let masked = |x: &Tensor| {
        if rows.keep.iter().all(|k| *k == 1.0) {
            x.clone()
        } else {
            combine_per_sample(&rows.keep, x, &zero, &x.detach())
        }
    };
    UnetCond {
        encoder_hidden_states: masked(&hidden),
        text_embeds: pooled.as_ref().map(masked),
        time_ids,
        timestep_cond: None,
    }
}

/// The same with an empty prompt in place of every text.
pub(crate) fn unconditional(encoders: &TextEncoders, tokens: &Tokens, cond: &UnetCond) -> UnetCond {
    let batch = cond.time_ids.len();
    let empty = tokens.empty_rows(batch).map(|rows| encoders.forward(&rows.ids, batch));
    let (hidden, pooled) = empty.unwrap_or_else(|| {
        let zeros = |t: &Tensor| Tensor::zeros(t.shape());
        (zeros(&cond.encoder_hidden_states), cond.text_embeds.as_ref().map(zeros))
    });
    UnetCond {
        encoder_hidden_states: hidden,
        text_embeds: pooled,
        time_ids: cond.time_ids.clone(),
        timestep_cond: None,
    }
}
