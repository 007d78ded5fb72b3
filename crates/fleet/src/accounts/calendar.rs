//! Days and months, of UTC, in which pictures are counted.

use time::{Date, Duration, Month, OffsetDateTime, Time};

/// The day (`2026-11-28`) and the month (`2026-11`) of a moment in milliseconds since 1970, each with the milliseconds at which
/// the next one begins.
pub(super) fn periods(at_ms: u64) -> [(String, u64); 2] {
    let at = OffsetDateTime::from_unix_timestamp((at_ms / 1000) as i64).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month) = (at.year(), at.month());
    let tomorrow = at.date().saturating_add(Duration::DAY);
    let next_year = if month == Month::December { year + 1 } else { year };
    let next_month = Date::from_calendar_date(next_year, month.next(), 1).unwrap_or(tomorrow);
    let begin_ms = |date: Date| date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp() as u64 * 1000;
    let month = u8::from(month);
    [
        (format!("{year:04}-{month:02}-{:02}", at.day()), begin_ms(tomorrow)),
        (format!("{year:04}-{month:02}"), begin_ms(next_month)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_and_a_month_end_where_the_next_one_begins() {
        // 2026-12-31 23:59:59.
        let [(day, tomorrow), (month, next)] = periods(1_798_761_599_000);
        assert_eq!((day.as_str(), tomorrow), ("2026-12-31", 1_798_761_600_000));
        assert_eq!((month.as_str(), next), ("2026-12", 1_798_761_600_000));
        // 2024-02-29.
        let [(day, tomorrow), (month, next)] = periods(1_709_164_800_000);
        assert_eq!((day.as_str(), month.as_str()), ("2024-02-29", "2024-02"));
        assert_eq!((tomorrow, next), (1_709_251_200_000, 1_709_251_200_000));
    }
}
