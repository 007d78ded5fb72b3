//! What is to be pulled.

use crate::Error;
use prima_checkpoint::hub::Id;
use std::str::FromStr;

/// Which storage type is preferred where a repository has several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// Full precision, else fp16: as folders are read.
    #[default]
    Whole,
    /// fp16, else full precision: half of the download.
    Fp16,
}

/// A repository or a file of one, and how it is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub id: Id,
    pub variant: Variant,
}

/// An id of the hub, or the address of a page about it.
impl FromStr for Wanted {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let id = of_address(text).or_else(|| Id::parse(text));
        let wrong = || Error::Id { text: text.to_owned() };
        Ok(Self {
            id: id.ok_or_else(wrong)?,
            variant: Variant::default(),
        })
    }
}

/// `https://huggingface.co/ORG/NAME`, with `/tree/REVISION`, or `/blob/REVISION/FILE` or `/resolve/REVISION/FILE` behind it.
fn of_address(text: &str) -> Option<Id> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let (_, path) = rest.split_once('/')?;
    let path = path.split(['?', '#']).next()?.trim_end_matches('/');
    let mut parts = path.splitn(5, '/');
    let (org, name) = (parts.next()?, parts.next()?);
    let told = match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => format!("{org}/{name}"),
        (Some("tree"), Some(revision), None) => format!("{org}/{name}@{revision}"),
        (Some("blob" | "resolve"), Some(revision), Some(file)) => format!("{org}/{name}/{file}@{revision}"),
        _ => return None,
    };
    Id::parse(&told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_addresses_name_repositories_and_files() {
        let of = |text: &str| text.parse::<Wanted>().map(|wanted| wanted.id.to_string()).ok();
        let same = |text: &str| assert_eq!(of(text).as_deref(), Some(text));
        same("stabilityai/sdxl-turbo");
        same("stabilityai/sdxl-turbo@refs/pr/3");
        same("ByteDance/SDXL-Lightning/sdxl_lightning_4step.safetensors");
        same("a/b/unet/x y.safetensors@v1.0");
        assert_eq!(of("a/b@main").as_deref(), Some("a/b"));
        for (address, id) in [
            ("https://huggingface.co/a/b", "a/b"),
            ("https://huggingface.co/a/b/", "a/b"),
            ("https://huggingface.co/a/b/tree/fp16", "a/b@fp16"),
            (
                "https://hub.example/a/b/blob/main/c/d.safetensors",
                "a/b/c/d.safetensors",
            ),
            (
                "https://huggingface.co/a/b/resolve/v2/d.safetensors?download=true",
                "a/b/d.safetensors@v2",
            ),
        ] {
            assert_eq!(of(address).as_deref(), Some(id), "{address}");
        }
        for wrong in [
            "",
            "a",
            "a/",
            "/a",
            "a/..",
            "../b",
            "a/b/../c.safetensors",
            "a/b//c",
            "a/b@",
            "a/b@../x",
            "a b/c",
            "https://huggingface.co/a/b/commits/main",
            "https://huggingface.co/a",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
