//! A day.
//! Knows nothing of clocks, nor of how a day is written in a prompt.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Date {
    /// The year.
    pub year: u32,
    /// The month, from 1.
    pub month: u32,
    /// The day of the month, from 1.
    pub day: u32,
}

impl Date {
    /// Reads a day such as `2026-01-31`. Returns `None` if there is no such day.
    pub fn parse(text: &str) -> Option<Self> {
        let is_form = text.len() == 10
            && text.bytes().enumerate().all(|(place, byte)| match place {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u32>().ok();
        let date = Self { year: number(0..4)?, month: number(5..7)?, day: number(8..10)? };
        let is_day = (1..=12).contains(&date.month) && (1..=date.days()).contains(&date.day) && date.year > 0;
        (is_form && is_day).then_some(date)
    }

    /// Returns the day that is so many days after 1970-01-01. The last one is in the year 9999.
    pub fn after_epoch(days: u64) -> Self {
        let mut days = u32::try_from(days).unwrap_or(u32::MAX);
        let mut date = Self { year: 1970, month: 1, day: 1 };
        while date.year < 9999 && days >= 365 + u32::from(date.is_leap()) {
            days -= 365 + u32::from(date.is_leap());
            date.year += 1;
        }
        while date.month < 12 && days >= date.days() {
            days -= date.days();
            date.month += 1;
        }
        Self { day: (days + 1).min(date.days()), ..date }
    }

    /// Returns the number of days in its month.
    fn days(self) -> u32 {
        match self.month {
            2 if self.is_leap() => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    fn is_leap(self) -> bool {
        self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400))
    }

    /// Returns the number of its day in the year, from 1.
    pub fn day_of_year(self) -> u32 {
        (1..self.month).map(|month| Self { month, ..self }.days()).sum::<u32>() + self.day
    }

    /// Returns the day of the week, from 0 for Sunday.
    pub fn weekday(self) -> u32 {
        let past = self.year - 1;
        (past * 365 + past / 4 - past / 100 + past / 400 + self.day_of_year()) % 7
    }
}

impl Default for Date {
    /// The day of a suite that names none.
    fn default() -> Self {
        Self { year: 2026, month: 1, day: 1 }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        date.to_string()
    }
}

impl TryFrom<String> for Date {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{}` is not a day such as 2026-01-31", text.escape_debug()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_the_epoch() {
        let after = |days| Date::after_epoch(days).to_string();
        assert_eq!([after(0), after(59), after(789)], ["1970-01-01", "1970-03-01", "1972-02-29"]);
        assert_eq!([after(20_784), after(u64::MAX)], ["2026-11-27", "9999-12-31"]);
    }

    #[test]
    fn days_that_exist_are_read() {
        assert_eq!(Date::parse("2024-02-29"), Some(Date { year: 2024, month: 2, day: 29 }));
        for wrong in [
            "2026-02-29",
            "1900-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-1-01",
            "26-01-01",
            "2026-01-01x",
            "",
        ] {
            assert_eq!(Date::parse(wrong), None, "{wrong}");
        }
    }
}
