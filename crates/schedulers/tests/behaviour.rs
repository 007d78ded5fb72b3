//! Tables by name, refusals and warnings.

use prima_schedulers::{
    ConfigSpacing, Error, Schedule, ScheduleOptions, SchedulerConfig, SchedulerKind, TimestepSpacing,
};

const SDXL_BASE: &str = r#"{
  "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0",
  "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false,
  "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon",
  "sample_max_value": 1.0, "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
  "timestep_spacing": "leading", "trained_betas": null, "use_karras_sigmas": false }"#;

fn sdxl() -> SchedulerConfig {
    SchedulerConfig::from_json(SDXL_BASE).expect("SDXL's config")
}

fn with(scheduler: SchedulerKind, spacing: TimestepSpacing, n: usize) -> ScheduleOptions {
    ScheduleOptions {
        scheduler: Some(scheduler),
        spacing: Some(spacing),
        ..ScheduleOptions::steps(n)
    }
}

fn timesteps(scheduler: SchedulerKind, spacing: TimestepSpacing, n: usize) -> Vec<f64> {
    Schedule::new(&sdxl(), &with(scheduler, spacing, n))
        .expect("a schedule")
        .timesteps
}

fn error_of(text: &str, options: &ScheduleOptions) -> String {
    match SchedulerConfig::from_json(text).and_then(|c| Schedule::new(&c, options)) {
        Ok(schedule) => panic!("accepted: {schedule:?}"),
        Err(error) => error.to_string(),
    }
}

fn assert_sigmas(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len() + 1, "{got:?}");
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() < 1e-4, "{got:?}, want {want:?}");
    }
}

#[test]
fn few_step_tables_are_the_published_ones() {
    use SchedulerKind::{Euler, Lcm};
    use TimestepSpacing::{Lcm as LcmTable, Leading, SgmUniform, Simple, Trailing, Turbo};
    assert_eq!(timesteps(Euler, Trailing, 3), [999.0, 666.0, 332.0]);
    assert_eq!(
        timesteps(Euler, Trailing, 6),
        [999.0, 832.0, 666.0, 499.0, 332.0, 166.0]
    );
    assert_eq!(timesteps(Euler, Leading, 4), [751.0, 501.0, 251.0, 1.0]);
    assert_eq!(timesteps(Euler, Turbo, 4), [999.0, 899.0, 799.0, 699.0]);
    assert_eq!(timesteps(Euler, Simple, 3), [999.0, 666.0, 333.0]);
    assert_eq!(timesteps(Euler, SgmUniform, 4), [999.0, 749.25, 499.5, 249.75]);
    assert_eq!(timesteps(Lcm, LcmTable, 4), [999.0, 759.0, 499.0, 259.0]);
    assert_eq!(timesteps(Lcm, LcmTable, 3), [999.0, 679.0, 339.0]);
    // DMD2's schedule on LCM.
    assert_eq!(timesteps(Lcm, Trailing, 4), [999.0, 749.0, 499.0, 249.0]);

    let sigmas = |spacing| {
        Schedule::new(&sdxl(), &with(Euler, spacing, 4))
            .expect("a schedule")
            .sigmas
    };
    assert_sigmas(&sigmas(Trailing), &[14.6146, 4.0817, 1.6129, 0.6932]);
    assert_sigmas(&sigmas(SgmUniform), &[14.6146, 4.0861, 1.6156, 0.6951]);
    assert_sigmas(&sigmas(Turbo), &[14.6146, 8.3028, 5.0878, 3.3211]);
}

#[test]
fn every_spacing_gives_as_many_descending_timesteps_as_steps() {
    for spacing in TimestepSpacing::ALL.into_iter().filter(|s| *s != TimestepSpacing::Flow) {
        for n in (1..=10).chain([30, 50]) {
            if spacing == TimestepSpacing::Turbo && n > 10 {
                continue;
            }
            let schedule = Schedule::new(&sdxl(), &with(SchedulerKind::Euler, spacing, n)).expect("a schedule");
            assert_eq!(
                (schedule.len(), schedule.timesteps.len(), schedule.sigmas.len()),
                (n, n, n + 1),
                "{spacing}"
            );
            assert!(
                schedule.sigmas.windows(2).all(|w| w[0] > w[1]),
                "{spacing} {n}: {:?}",
                schedule.sigmas
            );
        }
    }
    // diffusers' float arange gives 62 timesteps here, the last of them -1.
    assert_eq!(timesteps(SchedulerKind::Euler, TimestepSpacing::Trailing, 61).len(), 61);
}

#[test]
fn the_turbo_demo_starts_at_the_deviation_of_image_and_noise() {
    let options = with(SchedulerKind::EulerAncestral, TimestepSpacing::Turbo, 1);
    let schedule = Schedule::new(&sdxl(), &options).expect("a schedule");
    assert!((schedule.init_noise_sigma - 14.648_814).abs() < 1e-5);
}

#[test]
fn ancestral_noise_follows_the_published_numbers() {
    let options = with(SchedulerKind::EulerAncestral, TimestepSpacing::Trailing, 4);
    let schedule = Schedule::new(&sdxl(), &options).expect("a schedule");
    for (row, up) in schedule.rows.iter().zip([3.91930, 1.48163, 0.62591, 0.0]) {
        assert!((row.next.noise - up).abs() < 1e-4, "{row:?}, want {up}");
    }
    let plain = Schedule::new(&sdxl(), &with(SchedulerKind::Euler, TimestepSpacing::Trailing, 4)).expect("a schedule");
    let eta0 = Schedule::new(
        &sdxl(),
        &ScheduleOptions {
            eta: Some(0.0),
            ..options
        },
    )
    .expect("a schedule");
    assert_eq!(eta0.rows, plain.rows, "eta 0 is plain Euler");
}

#[test]
fn fields_that_would_be_silently_wrong_are_refused_by_name() {
    let euler = r#""_class_name":"EulerDiscreteScheduler""#;
    let dpm = r#""_class_name":"DPMSolverMultistepScheduler""#;
    let refused = [
        (
            euler,
            r#""use_karras_sigmas":true,"use_beta_sigmas":true"#,
            "use_beta_sigmas",
        ),
        (euler, r#""interpolation_type":"log_linear""#, "interpolation_type"),
        (euler, r#""timestep_type":"continuous""#, "timestep_type"),
        (dpm, r#""algorithm_type":"dpmsolver""#, "algorithm_type"),
        (dpm, r#""solver_order":4"#, "solver_order"),
        (dpm, r#""solver_type":"rk4""#, "solver_type"),
        (
            dpm,
            r#""use_flow_sigmas":true,"use_karras_sigmas":true"#,
            "use_flow_sigmas",
        ),
        (dpm, r#""prediction_type":"flow_prediction""#, "use_flow_sigmas"),
        (
            r#""_class_name":"UniPCMultistepScheduler""#,
            r#""predict_x0":false"#,
            "predict_x0",
        ),
        (euler, r#""prediction_type":"flow_prediction""#, "FlowMatchEuler"),
        (
            r#""_class_name":"FlowMatchEulerDiscreteScheduler""#,
            r#""use_dynamic_shifting":true"#,
            "use_dynamic_shifting",
        ),
        (dpm, r#""lambda_min_clipped":-5.1"#, "lambda_min_clipped"),
        (dpm, r#""thresholding":true"#, "thresholding"),
        (
            r#""_class_name":"LCMScheduler""#,
            r#""clip_sample":true"#,
            "clip_sample",
        ),
        (r#""_class_name":"DDIMScheduler""#, r#""eta":null"#, "clip_sample"),
        (euler, r#""shift":3.0"#, "shift"),
        (
            r#""_class_name":"HeunDiscreteScheduler""#,
            r#""clip_sample":true"#,
            "clip_sample",
        ),
        (euler, r#""beta_start":"small""#, "beta_start"),
        (euler, r#""beta_schedule":"sigmoid""#, "beta_schedule"),
        (euler, r#""prediction_type":"flow""#, "prediction_type"),
        (euler, r#""beta_end":2.0"#, "beta_end"),
        (euler, r#""num_train_timesteps":0"#, "num_train_timesteps"),
        (euler, r#""trained_betas":[0.1,0.2]"#, "trained_betas"),
        (
            euler,
            r#""num_train_timesteps":2,"trained_betas":[0.0,0.2]"#,
            "trained_betas",
        ),
    ];
    for (class, field, name) in refused {
        let message = error_of(&format!("{{{class},{field}}}"), &ScheduleOptions::steps(4));
        assert!(message.contains(name), "{field}: {message}");
    }
}

#[test]
fn configs_as_python_writes_them_are_read() {
    let text = r#"{"_class_name":"DPMSolverMultistepScheduler","lambda_min_clipped": -Infinity,
        "note\\":null, "_name_or_path":"a \"-Infinity\" folder","solver_type":"midpoint"}"#;
    let config = SchedulerConfig::from_json(text).expect("a config");
    assert_eq!(config.lambda_min_clipped, None);
    assert_eq!(config.other["_name_or_path"], "a \"-Infinity\" folder");
    assert!(Schedule::new(&config, &ScheduleOptions::steps(4)).is_ok());

    let again = SchedulerConfig::from_json(&sdxl().to_json().expect("JSON")).expect("a config");
    assert_eq!(again, sdxl());
}

#[test]
fn impossible_requests_are_refused_in_a_sentence() {
    let explicit = |t: &[f64]| ScheduleOptions {
        timesteps: Some(t.to_vec()),
        ..ScheduleOptions::default()
    };
    let cases = [
        (ScheduleOptions::steps(0), "at least 1"),
        (ScheduleOptions::default(), "must be given"),
        (ScheduleOptions::steps(1001), "1001"),
        (
            with(SchedulerKind::Lcm, TimestepSpacing::Lcm, 51),
            "original_inference_steps",
        ),
        (with(SchedulerKind::Euler, TimestepSpacing::Turbo, 11), "turbo"),
        (
            with(SchedulerKind::Ddim, TimestepSpacing::SgmUniform, 4),
            "whole timesteps",
        ),
        (with(SchedulerKind::Tcd, TimestepSpacing::Karras, 4), "karras"),
        (explicit(&[]), "descend"),
        (explicit(&[499.0, 999.0]), "descend"),
        (explicit(&[1000.0]), "999"),
        (explicit(&[f64::NAN]), "descend"),
        (
            ScheduleOptions {
                num_inference_steps: Some(3),
                ..explicit(&[999.0])
            },
            "3",
        ),
        (
            ScheduleOptions {
                eta: Some(1.5),
                ..ScheduleOptions::steps(1)
            },
            "eta",
        ),
    ];
    for (options, part) in cases {
        let message = error_of(SDXL_BASE, &options);
        assert!(message.contains(part), "{options:?}: {message}");
    }
    assert!(matches!(
        SchedulerConfig::default().kind(),
        Err(Error::MissingClassName)
    ));
}

#[test]
fn a_schedule_without_signal_refuses_epsilon_where_it_would_divide_by_zero() {
    let mut config = SchedulerConfig::stable_diffusion(SchedulerKind::Ddim, ConfigSpacing::Trailing);
    config.rescale_betas_zero_snr = Some(true);
    let error = Schedule::new(&config, &ScheduleOptions::steps(4))
        .expect_err("epsilon")
        .to_string();
    assert!(error.contains("v_prediction") && error.contains("999"), "{error}");
    config.prediction_type = Some(prima_schedulers::PredictionType::VPrediction);
    let schedule = Schedule::new(&config, &ScheduleOptions::steps(4)).expect("v_prediction");
    assert!(
        schedule
            .rows
            .iter()
            .all(|r| r.next.sample.is_finite() && r.next.model_output.is_finite())
    );
}

#[test]
fn likely_mistakes_are_warned_about() {
    let warnings = |options: &ScheduleOptions| Schedule::new(&sdxl(), options).expect("a schedule").warnings;
    let leading = warnings(&ScheduleOptions::steps(1));
    assert!(
        leading.len() == 1 && leading[0].contains("leading") && leading[0].contains("trailing"),
        "{leading:?}"
    );
    assert!(warnings(&with(SchedulerKind::Euler, TimestepSpacing::Trailing, 1)).is_empty());
    assert!(warnings(&ScheduleOptions::steps(30)).is_empty());
    let uneven = warnings(&with(SchedulerKind::Ddim, TimestepSpacing::Trailing, 3));
    assert!(uneven[0].contains("divides 1000"), "{uneven:?}");
    let eta = ScheduleOptions {
        eta: Some(1.0),
        ..with(SchedulerKind::Euler, TimestepSpacing::Trailing, 4)
    };
    assert!(warnings(&eta)[0].contains("eta"));
}

#[test]
fn rules_asked_for_by_name_span_all_noise_and_those_of_the_config_what_diffusers_does() {
    let rules = [
        TimestepSpacing::Karras,
        TimestepSpacing::Exponential,
        TimestepSpacing::Beta,
        TimestepSpacing::KlOptimal,
        TimestepSpacing::Ays,
    ];
    for rule in rules {
        let schedule = Schedule::new(&sdxl(), &with(SchedulerKind::Euler, rule, 10)).expect("a schedule");
        assert!(
            (schedule.sigmas[0] - 14.6146).abs() < 1e-3,
            "{rule}: {:?}",
            schedule.sigmas
        );
        assert_eq!(schedule.init_noise_sigma, schedule.sigmas[0], "{rule}");
    }
    let mut config = sdxl();
    config.use_karras_sigmas = Some(true);
    let schedule = Schedule::new(&config, &ScheduleOptions::steps(10)).expect("a schedule");
    assert!((schedule.sigmas[0] - 8.3774).abs() < 0.1, "{:?}", schedule.sigmas);
}

#[test]
fn heun_asks_the_network_twice_in_every_step_but_the_last() {
    let schedule =
        Schedule::new(&sdxl(), &with(SchedulerKind::Heun, TimestepSpacing::Trailing, 4)).expect("a schedule");
    let asked: Vec<(f64, bool)> = schedule.rows.iter().map(|row| (row.timestep, row.ends_step)).collect();
    let wanted = [
        (999.0, false),
        (749.0, true),
        (749.0, false),
        (499.0, true),
        (499.0, false),
        (249.0, true),
        (249.0, true),
    ];
    assert_eq!(asked, wanted);
    assert_eq!(schedule.len(), 4);
    let half = schedule.truncate(0.5).expect("a strength");
    assert_eq!((half.len(), half.start_index), (2, 4));
    assert_eq!(half.rows.as_slice(), &schedule.rows[4..]);
}

#[test]
fn align_your_steps_is_a_table_of_ten_and_a_curve_through_it() {
    let sigmas = |rule, n| {
        Schedule::new(&sdxl(), &with(SchedulerKind::Euler, rule, n))
            .expect("a schedule")
            .sigmas
    };
    // diffusers' AysSchedules, to its three digits.
    let sdxl = [
        14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.0,
    ];
    let sd15 = [
        14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0,
    ];
    for (rule, table) in [(TimestepSpacing::AysSdxl, sdxl), (TimestepSpacing::Ays, sd15)] {
        for (found, wanted) in sigmas(rule, 10).iter().zip(table) {
            assert!((found - wanted).abs() < 4e-3, "{rule}: {found} for {wanted}");
        }
        let twenty = sigmas(rule, 20);
        for (i, wanted) in sigmas(rule, 10).iter().enumerate() {
            assert!((twenty[2 * i] - wanted).abs() < 1e-6, "{rule}: {twenty:?}");
        }
    }
}

#[test]
fn image_to_image_keeps_at_least_one_step_and_says_so() {
    let full = Schedule::new(&sdxl(), &with(SchedulerKind::Euler, TimestepSpacing::Trailing, 4)).expect("a schedule");
    let half = full.truncate(0.5).expect("a strength");
    assert_eq!(
        (half.timesteps.as_slice(), half.start_index, half.strength_raised),
        (&[499.0, 249.0][..], 2, false)
    );
    assert_eq!(
        (half.sigmas.as_slice(), half.rows.as_slice()),
        (&full.sigmas[2..], &full.rows[2..])
    );
    assert!((half.add_noise().1 - 1.6129).abs() < 1e-4);

    let raised = full.truncate(0.2).expect("a strength");
    assert_eq!(
        (raised.len(), raised.strength_raised, raised.timesteps[0]),
        (1, true, 249.0)
    );
    assert!(
        raised
            .warnings()
            .last()
            .expect("a warning")
            .contains("less than one step")
    );
    assert_eq!(full.truncate(1.0).expect("a strength"), full);
    for strength in [-0.1, 1.1, f64::NAN] {
        assert!(full.truncate(strength).is_err(), "{strength}");
    }
}
