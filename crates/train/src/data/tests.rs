//! What the data must be like.
