//! Calendar functions of a time in seconds, in UTC.

use super::Function;

/// The function on a time, for those of the calendar.
pub(crate) fn unary(function: Function) -> Option<fn(f64) -> f64> {
    let calendar: fn(f64) -> f64 = match function {
        Function::Minute => |t| (second_of_day(t) / 60 % 60) as f64,
        Function::Hour => |t| (second_of_day(t) / 3600) as f64,
        // The first day of the epoch was a Thursday.
        Function::DayOfWeek => |t| (days(t) + 4).rem_euclid(7) as f64,
        Function::DayOfMonth => |t| civil(t).2 as f64,
        Function::DayOfYear => |t| {
            let (year, _, _) = civil(t);
            (days(t) - days_to(year, 1, 1) + 1) as f64
        },
        Function::DaysInMonth => |t| {
            let (year, month, _) = civil(t);
            let next = if month == 12 { days_to(year + 1, 1, 1) } else { days_to(year, month + 1, 1) };
            (next - days_to(year, month, 1)) as f64
        },
        Function::Month => |t| civil(t).1 as f64,
        Function::Year => |t| civil(t).0 as f64,
        _ => return None,
    };
    Some(calendar)
}

/// Seconds from the year -292277022400, with which the reference's calendar begins, to the epoch; whole days.
const BEFORE_EPOCH: i64 = 9_223_372_028_741_760_000;

/// Whole seconds since [`BEFORE_EPOCH`]. As there, a time that is no number, or beyond 64 bits, is the
/// lowest number of 64 bits, and what lies before the calendar's first year wraps round to its last ones.
#[expect(clippy::cast_possible_truncation, reason = "the bounds were checked")]
fn seconds(t: f64) -> u64 {
    let inside = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&t);
    let seconds = if inside { t as i64 } else { i64::MIN };
    seconds.wrapping_add(BEFORE_EPOCH).cast_unsigned()
}

#[expect(clippy::cast_possible_wrap, reason = "2^64 seconds are fewer than 2^63 days")]
fn days(t: f64) -> i64 {
    (seconds(t) / 86_400) as i64 - BEFORE_EPOCH / 86_400
}

fn second_of_day(t: f64) -> u64 {
    seconds(t) % 86_400
}

/// Days from the epoch to a date of the proleptic Gregorian calendar. Years are counted from March,
/// so that the leap day is the last; eras are 400 years of 146,097 days.
fn days_to(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a time.
fn civil(t: f64) -> (i64, i64, i64) {
    let shifted = days(t) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// A time in milliseconds as `2006-01-02T15:04:05Z`; a fraction of a second is left out.
pub(crate) fn format_rfc3339(ms: i64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "seconds of any calendar fit a float")]
    let t = (ms / 1000) as f64;
    let ((year, month, day), second) = (civil(t), second_of_day(t));
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_there_and_back() {
        for day in (-800_000i64..800_000).step_by(13) {
            let (year, month, day_of_month) = civil(day as f64 * 86_400.0);
            assert_eq!(days_to(year, month, day_of_month), day);
        }
    }

    #[test]
    fn known_dates() {
        let at = |function, t: f64| unary(function).map(|f| f(t));
        // 2008-12-31T23:59:59Z, a Wednesday, the last second of a leap year.
        let t = 1_230_767_999.0;
        assert_eq!(at(Function::Year, t), Some(2008.0));
        assert_eq!(at(Function::Month, t), Some(12.0));
        assert_eq!(at(Function::DayOfMonth, t), Some(31.0));
        assert_eq!(at(Function::DayOfYear, t), Some(366.0));
        assert_eq!(at(Function::DayOfWeek, t), Some(3.0));
        assert_eq!(at(Function::Hour, t), Some(23.0));
        assert_eq!(at(Function::Minute, t), Some(59.0));
        assert_eq!(at(Function::DaysInMonth, 1_456_790_399.0), Some(29.0));
        assert_eq!(at(Function::Minute, -1.0), Some(59.0));
        assert_eq!(format_rfc3339(1_230_767_999_999), "2008-12-31T23:59:59Z");
    }

    #[test]
    fn what_is_no_time_is_where_the_reference_has_it() {
        let at = |function, t: f64| unary(function).map(|f| f(t));
        for t in [f64::NAN, f64::INFINITY, -1e300] {
            assert_eq!(at(Function::Year, t), Some(292_277_026_596.0));
            assert_eq!(at(Function::DayOfWeek, t), Some(0.0));
            assert_eq!(at(Function::Minute, t), Some(30.0));
        }
    }
}
