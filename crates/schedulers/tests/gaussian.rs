//! Samplers without a network: for data ~ N(0, 0.5^2) the ideal denoiser is known in closed form, so
//! where each sampler ends is too.

use prima_schedulers::{
    ConfigSpacing, PredictionType, Schedule, ScheduleOptions, SchedulerConfig, SchedulerKind, State,
};

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
        PredictionType::FlowPrediction => epsilon - x0,
    }
}

/// The deviation of the final samples, propagated exactly: every row is linear in sample and noise, so
/// a sample is the list of its coefficients of the independent normal draws.
fn final_deviation(schedule: &Schedule) -> f64 {
    let draws = schedule.rows.len() + 1;
    let draw = |index: usize, scale: f64| {
        let mut coefficients = vec![0.0; draws];
        coefficients[index] = scale;
        coefficients
    };
    let mut state = State::new(draw(0, schedule.init_noise_sigma));
    for (i, row) in schedule.rows.iter().enumerate() {
        let (alpha, sigma) = row.add_noise;
        let answer = |s: &f64| ideal(schedule.prediction_type, *s, alpha, sigma);
        let output: Vec<f64> = state.sample.iter().map(answer).collect();
        state.advance(row, &output, Some(&draw(i + 1, 1.0)), |terms: &[(f64, &Vec<f64>)]| {
            (0..draws)
                .map(|d| terms.iter().map(|(weight, values)| weight * values[d]).sum())
                .collect()
        });
    }
    state.sample.iter().map(|c| c * c).sum::<f64>().sqrt()
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
        SchedulerKind::Heun,
        SchedulerKind::Ddim,
        SchedulerKind::DpmPlusPlus2M,
        SchedulerKind::DpmPlusPlus2MSde,
        SchedulerKind::DpmPlusPlus2S,
        SchedulerKind::DpmPlusPlusSde,
        SchedulerKind::UniPc,
        SchedulerKind::Lms,
        SchedulerKind::Pndm,
        SchedulerKind::Deis,
        SchedulerKind::Kdpm2,
        SchedulerKind::Kdpm2Ancestral,
        SchedulerKind::Ddpm,
    ] {
        for prediction in PREDICTIONS {
            let got = final_deviation(&schedule(kind, prediction, 500));
            // The noises of its two evaluations have nothing to do with each other.
            let tolerance = if kind == SchedulerKind::DpmPlusPlusSde {
                2e-2
            } else {
                1e-2
            };
            assert!((got - 0.5).abs() < tolerance, "{kind} {prediction:?}: {got}");
        }
    }
}

#[test]
fn flow_matching_recovers_the_data_in_many_steps() {
    let configs = [
        r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}"#,
        r#"{"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": true, "prediction_type": "flow_prediction"}"#,
    ];
    for text in configs {
        let config = SchedulerConfig::from_json(text).expect("a config");
        let error = |n| {
            let schedule = Schedule::new(&config, &ScheduleOptions::steps(n)).expect("a schedule");
            (final_deviation(&schedule) - 0.5).abs()
        };
        assert!(error(500) < 1e-2, "{text}: {}", error(500));
        assert!(error(20) > error(500), "{text}");
    }
}

#[test]
fn solvers_of_second_order_beat_euler_at_equal_steps() {
    for n in [4, 8, 16, 32] {
        let error = |kind| (final_deviation(&schedule(kind, PredictionType::Epsilon, n)) - 0.5).abs();
        let euler = error(SchedulerKind::Euler);
        for kind in [SchedulerKind::DpmPlusPlus2M, SchedulerKind::UniPc, SchedulerKind::Heun] {
            assert!(
                error(kind) < euler,
                "{kind}, {n} steps: {} against {euler}",
                error(kind)
            );
        }
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
            let row = schedule.rows[0];
            let mut state = State::new(0.7);
            let sum = |terms: &[(f64, &f64)]| terms.iter().map(|(weight, value)| weight * *value).sum();
            let denoised: f64 = state.advance(&row, &0.3, Some(&9.0), sum);
            let next = state.sample;
            assert!(
                (next - denoised).abs() < 1e-12 * denoised.abs().max(1.0),
                "{kind} {prediction:?}"
            );
            assert!(!row.needs_noise(), "{kind}");
        }
    }
}

#[test]
fn prediction_types_agree_on_what_the_ideal_network_means() {
    let kinds = SchedulerKind::ALL.into_iter();
    // PNDM puts a polynomial through what the network says, whatever that is.
    let others = [SchedulerKind::FlowMatchEuler, SchedulerKind::Pndm];
    for kind in kinds.filter(|kind| !others.contains(kind)) {
        for n in [1, 3, 4] {
            let [a, b, c] = PREDICTIONS.map(|p| final_deviation(&schedule(kind, p, n)));
            assert!((a - b).abs() < 1e-9 && (a - c).abs() < 1e-9, "{kind} {n}: {a} {b} {c}");
        }
    }
}
