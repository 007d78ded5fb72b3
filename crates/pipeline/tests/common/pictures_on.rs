//! A whole picture on a device against the CPU's.

use prima_pipeline::{DType, LoadOptions, ModelSource, Picture, Pipeline, Request, ScheduleOptions};
use prima_tensor::Device;
use std::ops::ControlFlow;
use std::path::Path;

/// Text to image in two guided steps, at a size that does not halve evenly, with weights in f32 on the CPU and the device's own type there: the signal-to-noise ratio in
/// dB, infinite where the bytes are equal.
pub fn psnr(device: &Device, dtype: DType, model: &Path) -> f64 {
    let want = paint(&Device::cpu(), DType::F32, model);
    let got = paint(device, dtype, model);
    let differences = want.rgb.iter().zip(&got.rgb);
    let squares: f64 = differences.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    assert_eq!(want.rgb.len(), got.rgb.len());
    10.0 * (255.0 * 255.0 * want.rgb.len() as f64 / squares).log10()
}

fn paint(device: &Device, dtype: DType, model: &Path) -> Picture {
    device.run(|| {
        let source = ModelSource::open(model).unwrap();
        let pipeline = Pipeline::load(&source, &LoadOptions::of(dtype)).unwrap();
        let request = Request {
            prompt: "a red apple".into(),
            negative_prompt: Some("a blue harbour".into()),
            guidance_scale: Some(3.0),
            seed: 7,
            width: Some(40),
            height: Some(24),
            schedule: ScheduleOptions {
                num_inference_steps: Some(2),
                ..ScheduleOptions::default()
            },
            ..Request::default()
        };
        let response = pipeline.paint(&request, &mut |_| ControlFlow::Continue(()));
        response.unwrap().pictures.remove(0)
    })
}
