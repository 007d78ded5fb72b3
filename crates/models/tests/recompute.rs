//! Activations that the backward pass computes again: the same gradients, less memory. The memory is counted byte by byte, so
//! this file holds one test.

use prima_checkpoint::RandomInit;
use prima_models::{Unet2dCondition, Unet2dConditionConfig, UnetCond};
use prima_tensor::{Gradients, Philox, Tensor, recomputing, weighted_mse};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// SDXL's shape, small: two resolutions, transformers of two layers, and text that every one of them reads.
const CONFIG: &str = r#"{
    "sample_size": 16, "in_channels": 4, "out_channels": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [16, 32], "layers_per_block": 2, "norm_num_groups": 4,
    "transformer_layers_per_block": [1, 2], "cross_attention_dim": 24, "attention_head_dim": [2, 4],
    "use_linear_projection": true, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 32
}"#;

fn normal(image: u32, shape: &[usize]) -> Tensor {
    let noise = Philox {
        seed: 3,
        image,
        purpose: 1,
        step: 0,
    };
    Tensor::from_vec(noise.normal(shape.iter().product()), shape)
}

/// Loss, gradients and the most bytes that a step held beyond what was there before it.
fn step(recompute: bool, run: &dyn Fn() -> Tensor) -> (f32, Gradients, usize) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let loss = recomputing(recompute, run);
    let gradients = loss.backward();
    (loss.item(), gradients, PEAK.load(Ordering::Relaxed) - before)
}

#[test]
fn recomputed_gradients_are_the_same_to_the_bit_and_take_less_memory() {
    let mut source = RandomInit::new(1);
    let config = Unet2dConditionConfig::from_json(CONFIG, "config").unwrap();
    let unet = Unet2dCondition::new(config, &mut source).unwrap();
    for (i, (_, param)) in (0..).zip(source.params()) {
        // Layers that start at zero would hide what lies before them.
        param.set(&normal(i, &param.shape()));
        param.update(|values| values.iter_mut().for_each(|v| *v *= 0.1));
        param.set_trainable(true);
    }
    let sample = normal(900, &[2, 16, 16, 4]);
    let target = normal(901, &[2, 16, 16, 4]);
    let cond = UnetCond {
        // On the tape, as text encoders in training are.
        encoder_hidden_states: normal(902, &[2, 5, 24]).requires_grad(),
        text_embeds: Some(normal(903, &[2, 8])),
        time_ids: vec![[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]; 2],
        timestep_cond: None,
    };
    let run = || {
        let output = unet.forward(&sample, &[999.0, 500.0], &cond, &mut || true).unwrap();
        weighted_mse(&output, &target, &[1.0, 2.0])
    };
    // Packed weights are made at their first use.
    step(false, &run);
    let (loss, kept, peak_kept) = step(false, &run);
    let (again, recomputed, peak_recomputed) = step(true, &run);
    println!("peak: {peak_kept} bytes kept, {peak_recomputed} recomputed");

    let bits = |t: &Tensor| t.data().iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
    assert_eq!(loss.to_bits(), again.to_bits());
    let mut compared = 0;
    for (key, param) in source.params() {
        let (a, b) = (kept.param(param).unwrap(), recomputed.param(param).unwrap());
        assert!(a.data().iter().any(|v| *v != 0.0), "{key} has no gradient to compare");
        assert_eq!(bits(a), bits(b), "{key}");
        compared += 1;
    }
    assert!(compared > 100, "{compared} parameters");
    let text = &cond.encoder_hidden_states;
    assert_eq!(bits(kept.get(text).unwrap()), bits(recomputed.get(text).unwrap()));
    assert!(
        2 * peak_recomputed < peak_kept,
        "peak of {peak_recomputed} bytes, without recomputation {peak_kept}"
    );
}
