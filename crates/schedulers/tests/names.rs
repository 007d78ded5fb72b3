//! What people call schedulers and spacings.

use prima_schedulers::{ConfigSpacing, Schedule, ScheduleOptions, SchedulerConfig, SchedulerKind, TimestepSpacing};

#[test]
fn names_of_other_tools_are_understood() {
    use SchedulerKind::{
        Ddim, DpmPlusPlus2M, DpmPlusPlus2MSde, DpmPlusPlus2S, DpmPlusPlusSde, Euler, EulerAncestral, Lcm, Tcd,
    };
    let names = [
        ("EulerDiscreteScheduler", Euler),
        ("euler", Euler),
        ("K_EULER", Euler),
        ("Euler a", EulerAncestral),
        ("euler_a", EulerAncestral),
        ("k_euler_ancestral", EulerAncestral),
        ("K_EULER_ANCESTRAL", EulerAncestral),
        ("DDIM", Ddim),
        ("LCM", Lcm),
        ("TCDScheduler", Tcd),
        ("DPM++ 2M", DpmPlusPlus2M),
        ("dpm++_2m", DpmPlusPlus2M),
        ("k_dpmpp_2m", DpmPlusPlus2M),
        ("DPMSolverMultistep", DpmPlusPlus2M),
        ("DPM++ 2M SDE", DpmPlusPlus2MSde),
        ("k_dpmpp_2m_sde", DpmPlusPlus2MSde),
        ("DPM++ SDE", DpmPlusPlusSde),
        ("k_dpmpp_sde", DpmPlusPlusSde),
        ("DPMSolverSinglestepScheduler", DpmPlusPlus2S),
        ("UniPC", SchedulerKind::UniPc),
        ("Heun", SchedulerKind::Heun),
        ("K_HEUN", SchedulerKind::Heun),
        ("UniPCMultistepScheduler", SchedulerKind::UniPc),
    ];
    for (name, kind) in names {
        assert_eq!(name.parse::<SchedulerKind>().expect(name), kind, "{name}");
    }
    for kind in SchedulerKind::ALL {
        for name in [kind.short_name(), kind.a1111_name()].iter().chain(kind.aliases()) {
            assert_eq!(name.parse::<SchedulerKind>().expect(name), kind, "{name}");
        }
        assert_eq!(SchedulerConfig::of(kind).kind().expect("a class"), kind);
    }

    let unknown = "heun3".parse::<SchedulerKind>().expect_err("unknown").to_string();
    assert!(
        unknown.contains("heun3") && unknown.contains("euler_a") && unknown.contains("LCMScheduler"),
        "{unknown}"
    );
    for (name, nearest) in [
        ("DPM++ 3M SDE", "dpm++_2m_sde"),
        ("Restart", "heun"),
        ("DPM fast", "dpm++_2m"),
    ] {
        let told = name.parse::<SchedulerKind>().expect_err("not here").to_string();
        assert!(
            told.contains(name) && told.ends_with(&format!("the nearest is {nearest}")),
            "{told}"
        );
    }
    let tree = "DPMSolverSDEScheduler"
        .parse::<SchedulerKind>()
        .expect_err("refused")
        .to_string();
    assert!(tree.contains("Brownian") && tree.contains("dpm++_sde"), "{tree}");
}

#[test]
fn spacings_are_known_by_their_own_names_and_the_web_uis() {
    assert_eq!(
        "SGM Uniform".parse::<TimestepSpacing>().expect("a spacing"),
        TimestepSpacing::SgmUniform
    );
    assert_eq!(TimestepSpacing::from_a1111("Automatic").expect("a spacing"), None);

    for spacing in TimestepSpacing::ALL {
        for name in [spacing.as_str(), spacing.a1111_label()] {
            assert_eq!(TimestepSpacing::from_a1111(name).expect(name), Some(spacing), "{name}");
        }
    }
    let schedules = [
        ("uniform", TimestepSpacing::Normal),
        ("Polyexponential", TimestepSpacing::Exponential),
        ("align_your_steps", TimestepSpacing::Ays),
        ("ddim_uniform", TimestepSpacing::DdimUniform),
    ];
    for (name, spacing) in schedules {
        assert_eq!(name.parse::<TimestepSpacing>().expect(name), spacing, "{name}");
    }

    let unknown = "sideways".parse::<TimestepSpacing>().expect_err("unknown").to_string();
    assert!(
        unknown.contains("sideways") && unknown.contains("sgm_uniform"),
        "{unknown}"
    );
}

#[test]
fn a_samplers_name_may_end_in_its_schedule() {
    use SchedulerKind::{DpmPlusPlus2M, DpmPlusPlus2MSde, EulerAncestral};
    let exponential = SchedulerKind::from_a1111("DPM++ 2M SDE Exponential").expect("a sampler");
    assert_eq!(exponential, (DpmPlusPlus2MSde, Some(TimestepSpacing::Exponential)));
    let karras = SchedulerKind::from_a1111("DPM++ 2M Karras").expect("a sampler");
    assert_eq!(karras, (DpmPlusPlus2M, Some(TimestepSpacing::Karras)));
    assert_eq!(
        SchedulerKind::from_a1111("Euler a").expect("a sampler"),
        (EulerAncestral, None)
    );
}

#[test]
fn the_web_uis_automatic_spans_all_noise_whatever_the_config_says() {
    let config = SchedulerConfig::stable_diffusion(SchedulerKind::Euler, ConfigSpacing::Leading);
    for kind in SchedulerKind::ALL {
        let Some(spacing) = kind.automatic_spacing() else {
            continue;
        };
        let options = ScheduleOptions {
            scheduler: Some(kind),
            spacing: Some(spacing),
            ..ScheduleOptions::steps(10)
        };
        let schedule = Schedule::new(&config, &options).expect("a schedule");
        assert!(
            (schedule.sigmas[0] - 14.6146).abs() < 1e-3,
            "{kind}: {}",
            schedule.sigmas[0]
        );
    }
    assert_eq!(SchedulerKind::Ddim.automatic_spacing(), None);
}
