//! Times as people write them: 90s, 15m, 24h, 30d, and sums such as 1h30m.
//!
//! In: text. Out: a duration, and back. Never: a bare number, whose unit nobody knows.

use std::time::Duration;

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time; write 90s, 15m, 24h or 30d");
    let (mut seconds, mut number) = (0u64, None::<u64>);
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            let shifted = number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(digit.into()));
            number = Some(shifted.ok_or_else(wrong)?);
            continue;
        }
        let (_, unit) = UNITS.into_iter().find(|(letter, _)| *letter == c).ok_or_else(wrong)?;
        let part = number.take().and_then(|n| n.checked_mul(unit)).ok_or_else(wrong)?;
        seconds = seconds.checked_add(part).ok_or_else(wrong)?;
    }
    if number.is_some() || seconds == 0 {
        return Err(wrong());
    }
    Ok(Duration::from_secs(seconds))
}

/// The two largest units: `29d23h`.
pub fn text(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    let mut parts = Vec::new();
    for (letter, unit) in UNITS {
        let n = rest / unit;
        rest %= unit;
        if n > 0 || (letter == 's' && parts.is_empty()) {
            parts.push(format!("{n}{letter}"));
        }
    }
    parts.truncate(2);
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (input, seconds, output) in [
            ("90s", 90, "1m30s"),
            ("15m", 900, "15m"),
            ("24h", 86_400, "1d"),
            ("30d", 2_592_000, "30d"),
            ("1d2h3m4s", 93_784, "1d2h"),
        ] {
            let duration = parse(input).unwrap();
            assert_eq!((duration.as_secs(), text(duration).as_str()), (seconds, output));
        }
        for bad in ["", "24", "h", "0s", "1y", "1h30", "-1h", "99999999999999999999d", "9999999999999999999d"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
