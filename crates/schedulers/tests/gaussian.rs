//! Samplers without a network: for data ~ N(0, 0.5^2) the ideal denoiser is known in closed form, so
//! where each sampler ends is too.

use prima_schedulers::{ConfigSpacing, PredictionType, Schedule, ScheduleOptions, SchedulerConfig, SchedulerKind};

const DATA_VARIANCE: f64 = 0.25;

fn schedule(kind: SchedulerKind, prediction_type: PredictionType, n: usize) -> Schedule {
    let config = SchedulerConfig::stable_diffusion(kind, ConfigSpacing::Trailing);
    let options = ScheduleOptions {
        prediction_type: Some(prediction_type),
        ..ScheduleOptions::steps(n)
    };
    Schedule::new(&config, &options).expect("a schedule")
}

/// What the ideal network answers where the sample is `alpha * x0 + sigma * noise`.
fn ideal(prediction: PredictionType, sample: f64, alpha: f64, sigma: f64) -> f64 {
    let x0 = sample * alpha * DATA_VARIANCE / (alpha * alpha * DATA_VARIANCE + sigma * sigma);
    let epsilon = (sample - alpha * x0) / sigma;
    match prediction {
        PredictionType::Epsilon => epsilon,
        PredictionType::VPrediction => {
            // v is defined on the variance-preserving sample, to which input_scale brings Euler's.
            let norm = alpha.hypot(sigma);
            (alpha * epsilon - sigma * x0) / norm
        }
        PredictionType::Sample => x0,
    }
}

/// The deviation of the final samples, propagated exactly: every step is linear in sample and noise.
fn final_deviation(schedule: &Schedule) -> f64 {
    // Coefficients of the independent normal draws in the sample and in the previous denoised image.
    let mut sample = vec![schedule.init_noise_sigma];
    let mut previous = vec![0.0];
    for step in &schedule.steps {
        sample.push(0.0);
        previous.push(0.0);
        let (alpha, sigma) = step.add_noise;
        let last = sample.len() - 1;
        for (draw, (s, p)) in sample.iter_mut().zip(&mut previous).enumerate() {
            let output = ideal(schedule.prediction_type, *s, alpha, sigma);
            let denoised = step.denoised(*s, output);
            *s = step.next(*s, output, f64::from(u8::from(draw == last)), *p);
            *p = denoised;
        }
    }
    sample.iter().map(|c| c * c).sum::<f64>().sqrt()
}

const PREDICTIONS: [PredictionType; 3] = [
    PredictionType::Epsilon,
    PredictionType::VPrediction,
    PredictionType::Sample,
];

#[test]
fn euler_ends_where_the_closed_form_says() {
    for prediction in PREDICTIONS {
        for (n, expected) in [(1, 0.01709), (2, 0.14274), (4, 0.27163)] {
            let got = final_deviation(&schedule(SchedulerKind::Euler, prediction, n));
            assert!((got - expected).abs() < 5e-6, "{prediction:?}, {n} steps: {got}");
        }
        // The ODE itself ends at 0.49971. Euler's error is of first order: twice the steps, about half the error.
        let error = |n| 0.49971 - final_deviation(&schedule(SchedulerKind::Euler, prediction, n));
        let (coarse, fine) = (error(250), error(500));
        assert!(fine > 0.0 && fine < 5e-3, "{prediction:?}: {fine}");
        assert!(
            (coarse / fine - 2.0).abs() < 0.15,
            "{prediction:?}: {coarse} and {fine}"
        );
    }
}

#[test]
fn every_sampler_recovers_the_data_in_many_steps() {
    for kind in [
        SchedulerKind::Euler,
        SchedulerKind::EulerAncestral,
        SchedulerKind::Ddim,
        SchedulerKind::DpmPlusPlus2M,
    ] {
        for prediction in PREDICTIONS {
            let got = final_deviation(&schedule(kind, prediction, 500));
            assert!((got - 0.5).abs() < 1e-2, "{kind} {prediction:?}: {got}");
        }
    }
}

#[test]
fn the_second_order_solver_beats_euler_at_equal_steps() {
    for n in [4, 8, 16, 32] {
        let error = |kind| (final_deviation(&schedule(kind, PredictionType::Epsilon, n)) - 0.5).abs();
        let (multistep, euler) = (error(SchedulerKind::DpmPlusPlus2M), error(SchedulerKind::Euler));
        assert!(multistep < euler, "{n} steps: {multistep} against {euler}");
    }
}

#[test]
fn one_deterministic_step_returns_the_denoised_image() {
    for kind in [
        SchedulerKind::Euler,
        SchedulerKind::EulerAncestral,
        SchedulerKind::Lcm,
        SchedulerKind::DpmPlusPlus2M,
    ] {
        for prediction in PREDICTIONS {
            let schedule = schedule(kind, prediction, 1);
            let step = schedule.steps[0];
            let (next, denoised) = (step.next(0.7, 0.3, 9.0, 9.0), step.denoised(0.7, 0.3));
            assert!(
                (next - denoised).abs() < 1e-12 * denoised.abs().max(1.0),
                "{kind} {prediction:?}"
            );
            assert!(!step.needs_noise(), "{kind}");
        }
    }
}

#[test]
fn prediction_types_agree_on_what_the_ideal_network_means() {
    for kind in SchedulerKind::ALL {
        for n in [1, 3, 4] {
            let [a, b, c] = PREDICTIONS.map(|p| final_deviation(&schedule(kind, p, n)));
            assert!((a - b).abs() < 1e-9 && (a - c).abs() < 1e-9, "{kind} {n}: {a} {b} {c}");
        }
    }
}
