//! The one check of a config's numbers: file, field, value and what is allowed.

use crate::Error;
use std::fmt::Display;
use std::ops::{Bound, RangeBounds};

/// Refuses a number outside of `allowed` (for floats that includes NaN), as [`Error::Range`].
pub fn in_range<T: PartialOrd + Display>(
    file: &str,
    field: &str,
    value: T,
    allowed: impl RangeBounds<T>,
) -> Result<(), Error> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let low = match allowed.start_bound() {
        Bound::Included(low) => format!("at least {low}"),
        Bound::Excluded(low) => format!("more than {low}"),
        Bound::Unbounded => String::new(),
    };
    let high = match allowed.end_bound() {
        Bound::Included(high) => format!("at most {high}"),
        Bound::Excluded(high) => format!("less than {high}"),
        Bound::Unbounded => String::new(),
    };
    let and = if low.is_empty() || high.is_empty() { "" } else { " and " };
    Err(Error::Range {
        file: file.to_owned(),
        field: field.to_owned(),
        value: value.to_string(),
        allowed: format!("{low}{and}{high}"),
    })
}
