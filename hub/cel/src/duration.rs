//! Durations as Go writes them: `1h30m`, `-1.5s`, `300ms`.
//!
//! In: text, hostile. Out: nanoseconds, or text. Never: overflows.

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Nanoseconds; `None` when the text is no duration or too long a one.
pub fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        sum = sum.checked_add(scaled(number, scale)?)?;
        rest = after;
    }
    i64::try_from(if negative { -sum } else { sum }).ok()
}

fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() || part.contains('.') || whole.len() > 20 {
        return None;
    }
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut sum = whole.checked_mul(scale)?;
    let mut step = scale;
    for digit in part.bytes().take(18) {
        step /= 10;
        sum += step * i128::from(digit - b'0');
    }
    Some(sum)
}

/// `1h30m0s`, as Go prints it.
pub fn print(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let fraction = |whole: u64, part: u64, width: usize| {
        let text = format!("{part:0width$}");
        let text = text.trim_end_matches('0');
        if text.is_empty() {
            whole.to_string()
        } else {
            format!("{whole}.{text}")
        }
    };
    if n < 1_000 {
        return format!("{sign}{n}ns");
    }
    if n < 1_000_000 {
        return format!("{sign}{}µs", fraction(n / 1_000, n % 1_000, 3));
    }
    if n < 1_000_000_000 {
        return format!("{sign}{}ms", fraction(n / 1_000_000, n % 1_000_000, 6));
    }
    let (seconds, part) = (n / 1_000_000_000, n % 1_000_000_000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let last = format!("{}s", fraction(seconds % 60, part, 9));
    match (hours, minutes) {
        (0, 0) => format!("{sign}{last}"),
        (0, minutes) => format!("{sign}{minutes}m{last}"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_reads_and_prints() {
        let cases = [
            ("1h30m", Some((5_400_000_000_000, "1h30m0s"))),
            ("1.5s", Some((1_500_000_000, "1.5s"))),
            ("-300ms", Some((-300_000_000, "-300ms"))),
            ("0", Some((0, "0s"))),
            (".5us", Some((500, "500ns"))),
            ("1500us", Some((1_500_000, "1.5ms"))),
            ("", None),
            ("1", None),
            ("1d", None),
            (".s", None),
            ("1..0s", None),
            ("9999999999h", None),
        ];
        for (text, expect) in cases {
            let got = parse(text);
            assert_eq!(got, expect.map(|(nanos, _)| nanos), "{text}");
            assert_eq!(got.map(print).as_deref(), expect.map(|(_, text)| text));
        }
    }
}
