//! Ends in time, as people name them, in the time zone of whoever names them.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, ToSpan, civil, tz::TimeZone};

/// An end: `friday`, `tomorrow`, `2027-03-31` (the end of that day), `2027-03-31 18:00`, or `7d`, `12h`, `90m`, `30s` from now.
/// Milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End(pub i64);

/// An end, or the word `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrNever(pub Option<i64>);

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text.trim(), Timestamp::now(), &TimeZone::system()).map(Self)
    }
}

impl FromStr for OrNever {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "never" => Ok(Self(None)),
            _ => text.parse().map(|End(end)| Self(Some(end))),
        }
    }
}

fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Result<i64, String> {
    let error = || format!("{text:?} is no end; write for instance friday, tomorrow, 2027-03-31, \"2027-03-31 18:00\", 7d or 12h");
    let moment = match moment(text, now, zone) {
        Some(moment) => moment.ok_or_else(error)?,
        None => now.as_millisecond().checked_add(span(text).ok_or_else(error)?).ok_or_else(error)?,
    };
    match moment > now.as_millisecond() {
        true => Ok(moment),
        false => Err(format!("{text:?} is over already")),
    }
}

/// A day or a time of day; `Some(None)`: there is no such moment.
fn moment(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Option<i64>> {
    let today = zone.to_datetime(now).date();
    let in_zone = |time| zone.to_timestamp(time).ok().map(|moment| moment.as_millisecond());
    let lower = text.to_ascii_lowercase();
    let weekdays = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let day = match lower.as_str() {
        "today" => Some(today),
        "tomorrow" => Some(today.tomorrow().ok()?),
        _ => weekdays.iter().position(|name| *name == lower || (lower.len() == 3 && name.starts_with(&lower))).map(|index| {
            let ahead = (index as i64 - i64::from(today.weekday().to_monday_zero_offset())).rem_euclid(7);
            today.saturating_add(ahead.days())
        }),
    };
    let day = day.or_else(|| text.parse().ok().filter(|_| text.len() == "2027-03-31".len()));
    match day {
        // Where the next day begins.
        Some(day) => Some(day.tomorrow().ok().and_then(|next| in_zone(next.at(0, 0, 0, 0)))),
        None if text.len() > "2027-03-31".len() && text.starts_with(|c: char| c.is_ascii_digit()) => {
            let time: civil::DateTime = text.parse().ok()?;
            Some(in_zone(time))
        }
        None => None,
    }
}

/// Milliseconds.
fn span(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    let number: i64 = number.parse().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()))?;
    number.checked_mul(seconds)?.checked_mul(1_000)
}

/// A moment in the host's time zone: a day by its date, what lies within one with the time.
pub(crate) fn shown(moment: i64) -> String {
    Moment(moment, &TimeZone::system()).to_string()
}

struct Moment<'a>(i64, &'a TimeZone);

impl fmt::Display for Moment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(moment) = Timestamp::from_millisecond(self.0) else { return f.write_str("the end of time") };
        let local = self.1.to_datetime(moment);
        let (date, time) = (local.date(), local.time());
        match (time == civil::Time::midnight(), date.yesterday()) {
            (true, Ok(day)) => write!(f, "the end of {day}"),
            _ => write!(f, "{date} {:02}:{:02}", time.hour(), time.minute()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wednesday, with a change of summer time on the Sunday after.
    fn read(text: &str) -> Result<i64, String> {
        let zone = zone();
        let now = zone.to_timestamp(civil::date(2027, 3, 24).at(15, 30, 0, 0)).unwrap();
        parse(text, now, &zone)
    }

    fn zone() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn at(text: &str) -> String {
        let end = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        Moment(end, &zone()).to_string()
    }

    #[test]
    fn days_end_where_the_next_one_begins_in_the_hosts_time_zone() {
        for (text, end) in [
            ("today", "2027-03-24"),
            ("tomorrow", "2027-03-25"),
            ("friday", "2027-03-26"),
            ("Fri", "2027-03-26"),
            ("wednesday", "2027-03-24"),
            ("tuesday", "2027-03-30"),
            ("2027-03-31", "2027-03-31"),
            ("2027-03-28", "2027-03-28"),
        ] {
            assert_eq!(at(text), format!("the end of {end}"), "{text}");
        }
        assert_eq!(at("2027-03-31 18:00"), "2027-03-31 18:00");
        assert_eq!(at("2027-03-31T18:00:30"), "2027-03-31 18:00");
    }

    #[test]
    fn spans_count_from_now() {
        for (text, end) in
            [("30s", "2027-03-24 15:30"), ("90m", "2027-03-24 17:00"), ("12h", "2027-03-25 03:30"), ("2d", "2027-03-26 15:30")]
        {
            assert_eq!(at(text), end, "{text}");
        }
        // Seven days are 168 hours, also where a clock is put forward.
        assert_eq!((at("7d"), at("1w")), ("2027-03-31 16:30".to_owned(), "2027-03-31 16:30".to_owned()));
    }

    #[test]
    fn what_is_over_or_no_end_is_refused() {
        for bad in ["", "2027-03-23", "2027-03-24 15:29", "0d"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        for bad in ["soon", "fr", "2027-13-01", "2027-3-1", "-7d", "7y", "7", "+7d", "99999999999999999d", "2027-03-31 25:00", "d"] {
            assert!(read(bad).is_err_and(|error| error.contains("no end")), "{bad}");
        }
        assert_eq!("never".parse(), Ok(OrNever(None)));
        assert!("7d".parse::<OrNever>().unwrap().0.is_some());
    }
}
