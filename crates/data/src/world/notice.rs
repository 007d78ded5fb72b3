/// Credits for the models and words; they travel with weights that learnt from the scene generator's pictures.
pub const NOTICE: &str = "\
The training pictures were rendered from these works, and the words learnt from those below them.

Public domain (CC0 1.0)
  3D models by Quaternius, Kay Lousberg (KayKit), Kenney and The Base Mesh

Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0)
  Universal Sentence Encoder, multilingual, version 3, (c) Google Inc: the text encoders were trained towards its embeddings

MIT License
  Emojibase (labels and tags), (c) Miles Johnson

Unicode License v3 (https://www.unicode.org/license.txt)
  CLDR annotations, (c) Unicode, Inc

WordNet License (https://wordnet.princeton.edu/license-and-commercial-use)
  WordNet 3.1, (c) Princeton University
";
