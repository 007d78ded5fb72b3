//! Words around the caption's own, as people type them: a model that has only read `a red apple on a blue background`
//! falls apart at `a cute cat wearing sunglasses`. It cannot paint what no picture shows, but it can learn to paint the
//! cat.

use crate::draws::{purpose, uniform};

const BEFORE: [&str; 8] = [
    "a picture of",
    "a drawing of",
    "a photo of",
    "an icon of",
    "an emoji of",
    "paint",
    "show me",
    "the best",
];
const ADJECTIVES: [&str; 12] = [
    "cute",
    "beautiful",
    "small",
    "big",
    "happy",
    "funny",
    "sad",
    "shiny",
    "magic",
    "tiny",
    "lovely",
    "wild",
];
const AFTER: [&str; 14] = [
    "wearing sunglasses",
    "wearing a hat",
    "in a garden",
    "in the snow",
    "at night",
    "with a smile",
    "in the rain",
    "riding a bike",
    "on the moon",
    "in space",
    "by the sea",
    "made of glass",
    "with wings",
    "digital art",
];

/// Rewords this share of `captions`: no article, words before it, an adjective, or words after the object.
pub(crate) fn reword(captions: &mut [String], share: f32) {
    let draws = uniform(1, purpose::DROPOUT, 0, 3 * captions.len());
    for (caption, draw) in captions.iter_mut().zip(draws.chunks_exact(3)) {
        if draw[0] < share && !caption.is_empty() {
            *caption = reworded(caption, draw[1], draw[2]);
        }
    }
}

/// `how` and `which`, both in [0, 1), choose the rewording.
fn reworded(caption: &str, how: f32, which: f32) -> String {
    let pick = |words: &[&'static str]| words[(which * words.len() as f32) as usize % words.len()];
    let bare = ["a ", "an "].iter().find_map(|article| caption.strip_prefix(article));
    match ((how * 4.0) as usize, bare) {
        (0, Some(bare)) => bare.to_owned(),
        (1, Some(bare)) => format!("a {} {bare}", pick(&ADJECTIVES)),
        (2, _) => format!("{} {caption}", pick(&BEFORE)),
        _ => {
            let end = caption
                .find(" on a ")
                .or_else(|| caption.find(','))
                .unwrap_or(caption.len());
            let (object, rest) = caption.split_at(end);
            format!("{object} {}{rest}", pick(&AFTER))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_and_its_background_stay_and_words_come_around_them() {
        assert_eq!(reworded("an apple", 0.0, 0.0), "apple");
        assert_eq!(reworded("a cat, flat", 0.3, 0.0), "a cute cat, flat");
        assert_eq!(reworded("a red apple", 0.6, 0.0), "a picture of a red apple");
        assert_eq!(
            reworded("a cat on a blue background, flat", 0.9, 0.0),
            "a cat wearing sunglasses on a blue background, flat"
        );
        assert_eq!(reworded("scissors", 0.0, 0.99), "scissors digital art");
    }

    #[test]
    fn about_the_share_asked_for_is_reworded_and_always_the_same() {
        let plain = vec!["a cat".to_owned(); 2000];
        let (mut once, mut again) = (plain.clone(), plain.clone());
        reword(&mut once, 0.3);
        reword(&mut again, 0.3);
        assert_eq!(once, again);
        let changed = once.iter().filter(|c| *c != "a cat").count();
        assert!((500..700).contains(&changed), "{changed}");
    }
}
