//! The keys of upscalers as files have them, turned into BasicSR's.

/// Which names a file uses, told by its keys.
pub(super) struct Names {
    /// Of ESRGAN's first code (`model.1.sub.0.RDB1.conv1.0.weight`): the numbers of the layers behind the blocks, and how many
    /// blocks there are.
    numbered: Option<(Vec<usize>, usize)>,
}

/// What wrappers leave in front of keys.
fn bare(key: &str) -> &str {
    let key = key
        .strip_prefix("params_ema.")
        .or_else(|| key.strip_prefix("params."))
        .unwrap_or(key);
    key.strip_prefix("module.").unwrap_or(key)
}

fn number(part: Option<&str>) -> Option<usize> {
    part?.parse().ok()
}

impl Names {
    pub fn of<'a>(keys: impl Iterator<Item = &'a str>) -> Self {
        let (mut layers, mut blocks) = (Vec::new(), None);
        for key in keys.map(bare) {
            let mut parts = key.split('.');
            if parts.next() != Some("model") {
                continue;
            }
            match (number(parts.next()), parts.next(), number(parts.next())) {
                (Some(1), Some("sub"), Some(block)) => blocks = blocks.max(Some(block)),
                (Some(layer), Some(_), None) if layer > 1 && !layers.contains(&layer) => layers.push(layer),
                _ => {}
            }
        }
        layers.sort_unstable();
        Self {
            numbered: blocks.map(|blocks| (layers, blocks)),
        }
    }

    /// BasicSR's name of a stored key; one that has none stays as it is.
    pub fn rename(&self, key: &str) -> String {
        let key = bare(key);
        let renamed = match &self.numbered {
            Some((layers, blocks)) => numbered(key, layers, *blocks),
            None => first_esrgan(key),
        };
        renamed.unwrap_or_else(|| key.to_owned())
    }
}

/// `model.0.weight`, `model.1.sub.3.RDB2.conv5.0.bias`, `model.1.sub.23.weight`, `model.3.weight`, ...
fn numbered(key: &str, layers: &[usize], blocks: usize) -> Option<String> {
    let (path, kind) = key.strip_prefix("model.")?.rsplit_once('.')?;
    if path == "0" {
        return Some(format!("conv_first.{kind}"));
    }
    if let Some(path) = path.strip_prefix("1.sub.") {
        let Some((block, rest)) = path.split_once('.') else {
            return (number(Some(path)) == Some(blocks)).then(|| format!("conv_body.{kind}"));
        };
        let (dense, conv) = rest.strip_suffix(".0")?.split_once('.')?;
        return Some(format!("body.{block}.{}.{conv}.{kind}", dense.to_lowercase()));
    }
    let at = layers.iter().position(|layer| number(Some(path)) == Some(*layer))?;
    Some(match layers.len() - at {
        1 => format!("conv_last.{kind}"),
        2 => format!("conv_hr.{kind}"),
        _ => format!("conv_up{}.{kind}", at + 1),
    })
}

/// `RRDB_trunk.0.RDB1.conv1.weight`, as ESRGAN named its layers before BasicSR did.
fn first_esrgan(key: &str) -> Option<String> {
    if let Some(rest) = key.strip_prefix("RRDB_trunk.") {
        return Some(format!("body.{}", rest.to_lowercase()));
    }
    let (layer, kind) = key.split_once('.')?;
    let layer = match layer {
        "trunk_conv" => "conv_body".to_owned(),
        "HRconv" => "conv_hr".to_owned(),
        _ => format!("conv_up{}", layer.strip_prefix("upconv")?),
    };
    Some(format!("{layer}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(keys: &[&str]) -> Vec<String> {
        let names = Names::of(keys.iter().copied());
        keys.iter().map(|key| names.rename(key)).collect()
    }

    #[test]
    fn esrgans_numbered_layers_are_basicsrs() {
        let keys = [
            "model.0.weight",
            "model.1.sub.0.RDB1.conv1.0.weight",
            "model.1.sub.1.RDB3.conv5.0.bias",
            "model.1.sub.2.weight",
            "model.3.weight",
            "model.6.bias",
            "model.8.weight",
            "model.10.bias",
        ];
        let expected = [
            "conv_first.weight",
            "body.0.rdb1.conv1.weight",
            "body.1.rdb3.conv5.bias",
            "conv_body.weight",
            "conv_up1.weight",
            "conv_up2.bias",
            "conv_hr.weight",
            "conv_last.bias",
        ];
        assert_eq!(renamed(&keys), expected);
        let twice = [
            "model.1.sub.0.weight",
            "model.3.weight",
            "model.5.weight",
            "model.7.weight",
        ];
        let expected = [
            "conv_body.weight",
            "conv_up1.weight",
            "conv_hr.weight",
            "conv_last.weight",
        ];
        assert_eq!(renamed(&twice), expected);
    }

    #[test]
    fn wrappers_and_esrgans_second_names_are_taken_away() {
        let keys = [
            "params_ema.conv_first.weight",
            "params.body.0.weight",
            "RRDB_trunk.4.RDB2.conv1.bias",
            "trunk_conv.weight",
            "upconv2.weight",
            "HRconv.bias",
            "conv_last.weight",
        ];
        let expected = [
            "conv_first.weight",
            "body.0.weight",
            "body.4.rdb2.conv1.bias",
            "conv_body.weight",
            "conv_up2.weight",
            "conv_hr.bias",
            "conv_last.weight",
        ];
        assert_eq!(renamed(&keys), expected);
    }
}
