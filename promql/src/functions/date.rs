//! Calendar functions of a time in seconds, in UTC.

use super::Function;

/// The function on a time, for those of the calendar.
pub(crate) fn unary(function: Function) -> Option<fn(f64) -> f64> {
    let calendar: fn(f64) -> f64 = match function {
        Function::Minute => |t| second_of_day(t).div_euclid(60).rem_euclid(60) as f64,
        Function::Hour => |t| second_of_day(t).div_euclid(3600) as f64,
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

#[expect(clippy::cast_possible_truncation, reason = "saturates; NaN becomes 0")]
fn seconds(t: f64) -> i64 {
    // Far beyond any calendar, but far from overflow too.
    (t as i64).clamp(-1 << 50, 1 << 50)
}

fn days(t: f64) -> i64 {
    seconds(t).div_euclid(86_400)
}

fn second_of_day(t: f64) -> i64 {
    seconds(t).rem_euclid(86_400)
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
    }
}
