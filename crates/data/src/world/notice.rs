//! Whose works the scene generator's pictures are made of.

use super::Sources;
use std::fmt::Write;

/// A work, or several by one hand, under one licence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    pub work: &'static str,
    pub licence: &'static str,
}

const CC0: &str = "Public domain (CC0 1.0)";
const CC_BY: &str = "Creative Commons Attribution 4.0 (https://creativecommons.org/licenses/by/4.0/)";
const APACHE: &str = "Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0)";
const MIT: &str = "MIT License";

const fn credit(licence: &'static str, work: &'static str) -> Credit {
    Credit { work, licence }
}

/// What captions and words are made with, whatever is drawn.
const WORDS: [Credit; 4] = [
    credit(
        APACHE,
        "Universal Sentence Encoder, multilingual, version 3, (c) Google Inc: the text encoders were trained towards its embeddings",
    ),
    credit(MIT, "Emojibase (labels and tags), (c) Miles Johnson"),
    credit(
        "Unicode License v3 (https://www.unicode.org/license.txt)",
        "CLDR annotations, (c) Unicode, Inc",
    ),
    credit(
        "WordNet License (https://wordnet.princeton.edu/license-and-commercial-use)",
        "WordNet 3.1, (c) Princeton University",
    ),
];

const MODELS: Credit = credit(
    CC0,
    "3D models by Quaternius, Kay Lousberg (KayKit), Kenney and The Base Mesh",
);

/// The icon sets that [`Sources::packages`] adds.
const ICONS: [Credit; 3] = [
    credit(
        MIT,
        "Fluent Emoji (3D and flat), (c) Microsoft Corporation; 3D pictures as packaged by LobeHub",
    ),
    credit(APACHE, "Noto Emoji, (c) Google Inc"),
    credit(
        CC_BY,
        "Twemoji, (c) Twitter, Inc and other contributors; drawn at other sizes, placed in scenes",
    ),
];

const PHOTOS: Credit = credit(
    MIT,
    "GroceryStoreDataset (photographs of fruit and vegetables), (c) Marcus Klasson",
);

const PIXEL_ART: Credit = credit(CC0, "Dungeon Crawl Stone Soup tiles, by their artists");

impl Sources {
    /// The works that pictures show.
    pub fn pictured(&self) -> Vec<Credit> {
        let mut credits = vec![MODELS];
        if self.packages.is_some() {
            credits.extend(ICONS);
        }
        credits.extend(self.photos.is_some().then_some(PHOTOS));
        credits.extend(self.pixel_art.is_some().then_some(PIXEL_ART));
        credits
    }

    /// Credits for pictures and words, a paragraph a licence; they travel with weights that learnt from the pictures.
    pub fn notice(&self) -> String {
        let credits = [self.pictured(), WORDS.to_vec()].concat();
        let mut notice =
            "The training pictures were rendered from these works, and the words learnt from those among them.\n"
                .to_owned();
        let mut licences: Vec<&str> = Vec::new();
        for credit in &credits {
            if !licences.contains(&credit.licence) {
                licences.push(credit.licence);
            }
        }
        for licence in licences {
            let _ = write!(notice, "\n{licence}\n");
            for credit in credits.iter().filter(|credit| credit.licence == licence) {
                let _ = writeln!(notice, "  {}", credit.work);
            }
        }
        notice
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn what_was_drawn_is_credited_and_nothing_else() {
        let mut sources = Sources::new(PathBuf::new());
        let notice = sources.notice();
        assert!(notice.contains("Quaternius") && notice.contains("WordNet"), "{notice}");
        assert!(
            !notice.contains("Twemoji") && !notice.contains("GroceryStore"),
            "{notice}"
        );
        sources.packages = Some(PathBuf::new());
        sources.photos = Some(PathBuf::new());
        let notice = sources.notice();
        for work in ["Fluent", "Noto", "Twemoji", "GroceryStore"] {
            assert!(notice.contains(work), "{work}: {notice}");
        }
        assert_eq!(notice.matches(APACHE).count(), 1);
    }
}
