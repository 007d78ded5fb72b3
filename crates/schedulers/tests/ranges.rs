//! Numbers that no noise process can have are refused by field, value and range.

use prima_schedulers::SchedulerConfig;

#[test]
fn a_schedulers_numbers_are_bounded() {
    for (field, value) in [
        ("beta_start", "-1e308"),
        ("beta_end", "1.5"),
        ("num_train_timesteps", "0"),
        ("num_train_timesteps", "1099511627776"),
        ("steps_offset", "1000000000"),
        ("original_inference_steps", "0"),
        ("timestep_scaling", "-10.0"),
        ("sigma_max", "1e300"),
        ("sigma_min", "-0.5"),
        ("shift", "0.0"),
        ("flow_shift", "1e200"),
    ] {
        let json = format!(r#"{{"_class_name": "EulerDiscreteScheduler", "{field}": {value}}}"#);
        let error = SchedulerConfig::from_json(&json).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("scheduler config field `{field}`: a number from ")),
            "{error}"
        );
    }
    let json = r#"{"sigma_min": 3.0, "sigma_max": 2.0}"#;
    assert!(
        SchedulerConfig::from_json(json)
            .unwrap_err()
            .to_string()
            .contains("`sigma_min`")
    );
}
