//! Sizes and ages as people write them: `200GB`, `16GiB`, `30d`.
//! Knows nothing of what is limited.

use std::time::Duration;

const SIZES: [(&str, u64); 9] = [
    ("b", 1),
    ("kb", 1000),
    ("mb", 1000_u64.pow(2)),
    ("gb", 1000_u64.pow(3)),
    ("tb", 1000_u64.pow(4)),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

const AGES: [(&str, u64); 5] = [("s", 1), ("m", 60), ("h", 3600), ("d", 24 * 3600), ("w", 7 * 24 * 3600)];

/// Reads a number of bytes; the case of the unit does not matter.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let expected = "a whole number and a unit: B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 200GB";
    parse(&text.to_ascii_lowercase(), &SIZES).ok_or_else(|| format!("expected {expected}"))
}

/// Reads a span of time.
pub(super) fn parse_age(text: &str) -> Result<Duration, String> {
    let expected = "a whole number and a unit: s, m, h, d or w, such as 30d";
    parse(text, &AGES).map(Duration::from_secs).ok_or_else(|| format!("expected {expected}"))
}

/// Writes a span of time in the largest unit that it has one of.
pub(super) fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    let fits = |(_, length): &&(&str, u64)| *length <= seconds;
    // Weeks are for typing: nobody reads 5 w as quickly as 35 d.
    let (unit, length) = AGES[..4].iter().rev().find(fits).unwrap_or(&AGES[0]);
    format!("{} {unit}", seconds / length)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
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
    fn writes_ages() {
        assert_eq!(
            [0, 59, 60, 7200, 40 * 86400].map(|s| age(Duration::from_secs(s))),
            ["0 s", "59 s", "1 m", "2 h", "40 d"]
        );
    }
}
