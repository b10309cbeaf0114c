//! Sizes and ages as people write and read them: `200GB`, `16GiB`, `30d`.
//! Knows nothing of what is measured or limited.

use std::time::Duration;

/// The units of sizes, each with its length in bytes.
pub const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1000_u64.pow(2)),
    ("GB", 1000_u64.pow(3)),
    ("TB", 1000_u64.pow(4)),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// The units of ages, each with its length in seconds.
const AGES: [(&str, u64); 5] = [("s", 1), ("m", 60), ("h", 3600), ("d", 24 * 3600), ("w", 7 * 24 * 3600)];

/// Reads a size such as `200GB` and returns it in bytes. The case of the unit does not matter.
///
/// # Errors
/// Fails when `text` is not a whole number with a known unit, or when the size does not fit into 64 bits.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let expected = "a whole number and a unit: B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 200GB";
    parse(text, &SIZES, str::eq_ignore_ascii_case).ok_or_else(|| format!("expected {expected}"))
}

/// Reads a span of time such as `30d`. The units are lowercase.
///
/// # Errors
/// Fails when `text` is not a whole number with a known unit, or when the seconds do not fit into 64 bits.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    let expected = "a whole number and a unit: s, m, h, d or w, such as 30d";
    parse(text, &AGES, str::eq).map(Duration::from_secs).ok_or_else(|| format!("expected {expected}"))
}

/// Writes a span of time, rounded down, in the largest unit up to days that fits into it: `35 d`.
pub fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    let fits = |(_, length): &&(&str, u64)| *length <= seconds;
    // Weeks are only for input: `35 d` is easier to read than `5 w`.
    let (unit, length) = AGES[..4].iter().rev().find(fits).unwrap_or(&AGES[0]);
    format!("{} {unit}", seconds / length)
}

fn parse(text: &str, units: &[(&str, u64)], same: fn(&str, &str) -> bool) -> Option<u64> {
    // Nothing is nothing in every unit.
    if text == "0" {
        return Some(0);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| same(name, unit.trim_start()))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Writes a number of bytes in decimal units, as disks and downloads do: `2.7 MB`.
pub fn bytes(count: u64) -> String {
    size(count as f64)
}

/// Writes a number of bytes as [`bytes`] does; the number need not be whole.
pub fn size(bytes: f64) -> String {
    if bytes < 999.5 {
        return format!("{bytes:.0} B");
    }
    let mut value = bytes / 1000.0;
    for unit in ["kB", "MB", "GB"] {
        if value < 999.5 {
            return format!("{value:.1} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// Writes a speed in tokens per second, with one decimal place below 10: `0.9 t/s`, `118 t/s`.
pub fn speed(tokens_per_second: f64) -> String {
    let places = usize::from(tokens_per_second < 9.95);
    format!("{tokens_per_second:.places$} t/s")
}

/// Writes how long something will take, roughly: `40 s`, `9 min`, `2.5 h`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        ..90.0 => format!("{:.0} s", seconds.max(1.0)),
        ..5400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes_and_ages() {
        assert_eq!(parse_size("200GB"), Ok(200_000_000_000));
        assert_eq!(parse_size("0 B"), Ok(0));
        assert_eq!(parse_size("3kib"), Ok(3072));
        assert_eq!(parse_age("2w"), Ok(Duration::from_secs(14 * 24 * 3600)));
        for wrong in ["", "GB", "200", "-1GB", "1.5GB", "1PB", "99999999999999TB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
        assert!(parse_age("30 days").is_err());
    }

    #[test]
    fn writes_speeds_and_durations() {
        assert_eq!([0.94, 9.94, 9.96, 118.4].map(speed), ["0.9 t/s", "9.9 t/s", "10 t/s", "118 t/s"]);
        assert_eq!([0.2, 89.0, 540.0, 9000.0].map(duration), ["1 s", "89 s", "9 min", "2.5 h"]);
    }

    #[test]
    fn writes_ages() {
        assert_eq!(
            [0, 59, 60, 7200, 40 * 86400].map(|s| age(Duration::from_secs(s))),
            ["0 s", "59 s", "1 m", "2 h", "40 d"]
        );
    }
}
