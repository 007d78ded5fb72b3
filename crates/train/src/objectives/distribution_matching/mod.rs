//! Students whose pictures are distributed as the teacher's, whichever noise each of them comes from.

mod dmd2;

#[cfg(test)]
pub(crate) use dmd2::Dmd2;
pub(crate) use dmd2::Dmd2Config;
