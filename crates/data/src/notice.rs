/// Credits for the pictures and words; they must travel with the data and with weights trained on it.
pub const NOTICE: &str = "\
The training pictures and words come from these openly licensed works.

Creative Commons Attribution 4.0 (https://creativecommons.org/licenses/by/4.0/)
  Twemoji, (c) Twitter, Inc and other contributors
  EmojiOne, (c) EmojiOne
  Streamline Emojis, (c) Streamline
  Pictures were drawn at 128 px, placed on coloured backgrounds and in part repainted.

Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0)
  Noto Emoji, current and first version, (c) Google Inc
  FxEmoji, (c) Mozilla

MIT License
  Fluent Emoji (3D and flat), (c) Microsoft Corporation; 3D pictures as packaged by LobeHub
  Emojibase (labels and tags), (c) Miles Johnson
  GroceryStoreDataset (photographs of fruit and vegetables), (c) Marcus Klasson

Public domain (CC0 1.0)
  Dungeon Crawl Stone Soup tiles, by their artists
  OpenClipart, by its artists
";
