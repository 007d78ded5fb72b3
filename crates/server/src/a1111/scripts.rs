//! `alwayson_scripts`: programs name the scripts that they know, also where they ask nothing of them.

use super::controlnet::is_controlnet;
use serde_json::{Map, Value};

/// The web UI's own, which say again what the request's fields say, or change no picture.
const HARMLESS: [&str; 5] = ["sampler", "seed", "comments", "extra options", "api payload"];

/// The first script that something is asked of.
pub(super) fn wanted(scripts: &Map<String, Value>) -> Option<&str> {
    let is_harmless = |name: &str| HARMLESS.contains(&name.to_lowercase().as_str());
    let mut wanted = scripts
        .iter()
        .filter(|(name, script)| !is_harmless(name) && !is_controlnet(name) && !is_idle(script));
    wanted.next().map(|(name, _)| name.as_str())
}

fn is_idle(script: &Value) -> bool {
    match script.get("args").unwrap_or(script) {
        // ADetailer, Refiner and many others begin with the switch that turns them on.
        Value::Array(args) => args.first().is_some_and(is_false) || args.iter().all(is_off),
        args => is_off(args),
    }
}

fn is_false(value: &Value) -> bool {
    value.as_bool() == Some(false) || value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("false"))
}

/// Whether nothing is asked for: numbers alone turn nothing on, and a unit of ControlNet has a switch of its own.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Number(_) => true,
        Value::Bool(flag) => !flag,
        Value::String(text) => ["", "none", "false"].contains(&text.trim().to_lowercase().as_str()),
        Value::Array(values) => values.iter().all(is_off),
        Value::Object(fields) => {
            let switches = ["enabled", "enable", "is_enabled", "ad_tab_enable"];
            switches.iter().any(|switch| fields.get(*switch).is_some_and(is_false)) || fields.values().all(is_off)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scripts_of_which_nothing_is_asked_are_idle() {
        for idle in [
            json!({"controlnet": {"args": []}}),
            json!({"ControlNet": {"args": [{"enabled": false, "module": "canny", "image": "abc"}]}}),
            json!({"ADetailer": {"args": [false, true, {"ad_model": "face_yolov8n.pt"}]}}),
            json!({"ADetailer": {"args": [{"ad_model": "None"}]}}),
            json!({"Refiner": {"args": [false, "", 0.8]}, "Seed": {"args": [-1, false, -1, 0, 0, 0]}}),
            json!({"Sampler": {"args": [20, "Euler a", "Automatic"]}, "x": null, "y": {}, "z": {"args": null}}),
        ] {
            assert_eq!(wanted(idle.as_object().unwrap()), None, "{idle}");
        }
    }

    #[test]
    fn a_script_that_is_to_do_something_is_named() {
        for asked in [
            json!({"tiled": {"args": [{"enabled": true, "module": "canny"}]}}),
            json!({"tiled": {"args": [{"enabled": false}, {"input_image": "abc"}]}}),
            json!({"tiled": {"args": [true, false]}}),
            json!({"Seed": {"args": []}, "tiled": {"args": ["canny"]}, "controlnet": {"args": [{"enabled": true}]}}),
        ] {
            assert_eq!(wanted(asked.as_object().unwrap()), Some("tiled"), "{asked}");
        }
    }
}
