//! `strftime` in the C locale. The time is midnight.
//! Knows nothing of clocks.

use minijinja::{Error, ErrorKind};
use protocol::Date;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Writes a day as Python's `strftime` does. `-` after the percent sign leaves out leading zeros.
///
/// # Errors
/// Fails on a directive that is not known.
pub(super) fn strftime(date: Date, format: &str) -> Result<String, Error> {
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(letter) = rest.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut directive = rest.next();
        let is_short = directive == Some('-');
        if is_short {
            directive = rest.next();
        }
        let written = directive.and_then(|directive| write(date, directive));
        let Some(written) = written else {
            let message = format!("strftime_now does not know `%{}`", directive.unwrap_or(' '));
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        };
        let short = written.trim_start_matches(['0', ' ']);
        out.push_str(match (is_short, short) {
            (true, "") => "0",
            (true, short) => short,
            (false, _) => &written,
        });
    }
    Ok(out)
}

fn write(date: Date, directive: char) -> Option<String> {
    let Date { year, month, day } = date;
    let name =
        |names: &[&str], number: u32| names.get(number as usize).copied().unwrap_or_default().to_owned();
    let short = |name: String| name.chars().take(3).collect::<String>();
    let monday = (date.weekday() + 6) % 7;
    let week = |first: u32| (date.day_of_year() + 6 - first) / 7;
    Some(match directive {
        'Y' => year.to_string(),
        'y' => format!("{:02}", year % 100),
        'C' => format!("{:02}", year / 100),
        'm' => format!("{month:02}"),
        'd' => format!("{day:02}"),
        'e' => format!("{day:2}"),
        'j' => format!("{:03}", date.day_of_year()),
        'B' => name(&MONTHS, month - 1),
        'b' | 'h' => short(name(&MONTHS, month - 1)),
        'A' => name(&DAYS, date.weekday()),
        'a' => short(name(&DAYS, date.weekday())),
        'w' => date.weekday().to_string(),
        'u' => (monday + 1).to_string(),
        'U' => format!("{:02}", week(date.weekday())),
        'W' => format!("{:02}", week(monday)),
        'F' => format!("{year}-{month:02}-{day:02}"),
        'D' | 'x' => format!("{month:02}/{day:02}/{:02}", year % 100),
        'H' | 'M' | 'S' => "00".to_owned(),
        'I' => "12".to_owned(),
        'p' => "AM".to_owned(),
        'f' => "000000".to_owned(),
        'T' | 'X' => "00:00:00".to_owned(),
        'R' => "00:00".to_owned(),
        'r' => "12:00:00 AM".to_owned(),
        'c' => format!(
            "{} {} {day:2} 00:00:00 {year}",
            short(name(&DAYS, date.weekday())),
            short(name(&MONTHS, month - 1))
        ),
        // A time without a zone, as `datetime.now()` returns it.
        'z' | 'Z' => String::new(),
        'n' => "\n".to_owned(),
        't' => "\t".to_owned(),
        '%' => "%".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with Python's `datetime.strftime`.
    #[test]
    fn directives_are_those_of_python() {
        let date = Date::parse("2024-07-06").unwrap();
        let format = |format: &str| strftime(date, format).unwrap();
        assert_eq!(format("%d %b %Y, %A %-d. %B, %e|%j|%y"), "06 Jul 2024, Saturday 6. July,  6|188|24");
        assert_eq!(format("%F %T %I %p %w %u %U %W %%%x"), "2024-07-06 00:00:00 12 AM 6 6 26 27 %07/06/24");
        assert_eq!(format("%-H:%M"), "0:00");
        assert!(strftime(date, "%Q").is_err() && strftime(date, "%").is_err());
    }
}
