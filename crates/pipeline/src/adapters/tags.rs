//! `<lora:name:0.8>` in prompts, as A1111 reads it (`extensions-builtin/Lora/extra_networks_lora.py`): the weight of the text
//! encoders, then that of the UNet where it is another; or by name, `te=0.5`, `unet=1`.

use super::LoraChoice;

/// What a tag asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tag {
    pub name: String,
    pub unet: f32,
    pub text: f32,
}

/// A prompt without its tags, the tags, and what is to be said about them, a sentence each; `None` if it has none.
pub(crate) fn extract(prompt: &str) -> Option<(String, Vec<Tag>, Vec<String>)> {
    if !prompt.contains('<') {
        return None;
    }
    let (mut text, mut tags, mut said, mut found) = (String::new(), Vec::new(), Vec::new(), false);
    let mut rest = prompt;
    while let Some(at) = rest.find('<') {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        let inside = from[1..].split_once('>');
        match inside.and_then(|(inside, after)| Some((inside.split_once(':')?, after))) {
            Some(((kind, arguments), after)) if ["lora", "lyco"].contains(&kind) => {
                found = true;
                tags.push(tag(arguments, &mut said));
                rest = after;
            }
            Some((("hypernet", arguments), after)) => {
                found = true;
                said.push(format!(
                    "hypernetworks are not supported: <hypernet:{arguments}> has no effect"
                ));
                rest = after;
            }
            _ => {
                text.push('<');
                rest = &from[1..];
            }
        }
    }
    text.push_str(rest);
    found.then_some((text, tags, said))
}

fn tag(arguments: &str, said: &mut Vec<String>) -> Tag {
    let mut parts = arguments.split(':').map(str::trim);
    let name = parts.next().unwrap_or_default().to_owned();
    let mut number = |text: &str| {
        let number = text.parse().ok().filter(|number| LoraChoice::is_weight(*number));
        number.unwrap_or_else(|| {
            said.push(format!(
                "<lora:{arguments}>: {text:?} is no weight from -{0} to {0}, and counts as 1",
                LoraChoice::MOST
            ));
            1.0
        })
    };
    let (named, positional): (Vec<&str>, Vec<&str>) = parts.partition(|part| part.contains('='));
    let mut text = positional.first().map_or(1.0, |part| number(part));
    let mut unet = positional.get(1).map(|part| number(part));
    let mut unknown = positional.get(2..).unwrap_or_default().to_vec();
    for part in named {
        match part.split_once('=') {
            Some(("te", value)) => text = number(value),
            Some(("unet", value)) => unet = Some(number(value)),
            _ => unknown.push(part),
        }
    }
    if !unknown.is_empty() {
        said.push(format!("<lora:{arguments}>: {} has no effect", unknown.join(", ")));
    }
    Tag {
        name,
        unet: unet.unwrap_or(text),
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_leave_the_prompt_and_weigh_text_encoders_and_unet_as_in_the_web_ui() {
        let of = |prompt: &str| {
            extract(prompt).map(|(text, tags, _)| {
                let tags: Vec<_> = tags.into_iter().map(|tag| (tag.name, tag.text, tag.unet)).collect();
                (text, tags)
            })
        };
        let one = |name: &str, text, unet| vec![(name.to_owned(), text, unet)];
        assert_eq!(of("a cat <3 b > c"), None);
        assert_eq!(of("a cat <lora:x"), None);
        assert_eq!(of("a <lora:x> b"), Some(("a  b".into(), one("x", 1.0, 1.0))));
        assert_eq!(of("a <lora:x:0.8>"), Some(("a ".into(), one("x", 0.8, 0.8))));
        assert_eq!(of("<lora:x y:0.5:-1>a"), Some(("a".into(), one("x y", 0.5, -1.0))));
        assert_eq!(of("<lyco:x:te=0:unet=0.3>"), Some((String::new(), one("x", 0.0, 0.3))));
        let (text, tags) = of("1 < 2 <lora:a:1>, <lora:b:2>").unwrap();
        assert_eq!((text.as_str(), tags.len()), ("1 < 2 , ", 2));
    }

    #[test]
    fn what_a_tag_says_in_vain_is_told() {
        let said = |prompt: &str| extract(prompt).unwrap().2.join(" ");
        assert!(said("<lora:x:much>").contains("counts as 1"));
        assert!(said("<lora:x:1:1:16>").contains("16 has no effect"));
        assert!(said("<hypernet:x:1>").contains("not supported"));
        assert_eq!(said("<lora:x:0.5>"), "");
    }
}
