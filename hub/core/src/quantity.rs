//! Kubernetes quantities as integers.
//!
//! In: text such as `100m`, `1.5Gi`, `12e6`. Out: whole numbers in milli-units or units, rounded up.
//! Never: floating point; overflow saturates.

/// Value in thousandths, rounded up. `None`: not a quantity.
pub fn milli(text: &str) -> Option<i64> {
    parse(text, 1000)
}

/// Value in whole units, rounded up. `None`: not a quantity.
pub fn units(text: &str) -> Option<i64> {
    parse(text, 1)
}

fn parse(text: &str, per_unit: i128) -> Option<i64> {
    let text = text.trim();
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 20 || fraction.contains('.') {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(9)];
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let (up, down) = scale(suffix)?;
    let divisor = 10_i128.checked_pow(fraction.len() as u32)?.checked_mul(down)?;
    let value = digits.saturating_mul(up).saturating_mul(per_unit);
    let rounded = value / divisor + i128::from(value % divisor != 0);
    let signed = if negative { -rounded } else { rounded };
    Some(i64::try_from(signed).unwrap_or(if negative { i64::MIN } else { i64::MAX }))
}

/// A suffix as (multiplier, divisor).
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |n: u32| Some((1024_i128.pow(n), 1));
    let decimal = |n: u32| Some((1000_i128.pow(n), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => exponent(suffix),
    }
}

fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let p = 10_i128.checked_pow(power.unsigned_abs()).filter(|_| power.abs() <= 18)?;
    Some(if power < 0 { (1, p) } else { (p, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubernetes_writes() {
        let cases = [
            ("100m", Some(100), Some(1)),
            ("1", Some(1000), Some(1)),
            ("0.5", Some(500), Some(1)),
            ("1.5Gi", Some(1_610_612_736_000), Some(1_610_612_736)),
            ("128Mi", Some(134_217_728_000), Some(134_217_728)),
            ("2k", Some(2_000_000), Some(2000)),
            ("12e3", Some(12_000_000), Some(12_000)),
            ("1E", Some(1_000_000_000_000_000_000_i64.saturating_mul(1000)), Some(1_000_000_000_000_000_000)),
            ("1u", Some(1), Some(1)),
            ("-1", Some(-1000), Some(-1)),
            ("", None, None),
            ("abc", None, None),
            ("1.2.3", None, None),
            ("1Xi", None, None),
            ("9999999999999999999Ei", Some(i64::MAX), Some(i64::MAX)),
        ];
        for (text, m, u) in cases {
            assert_eq!((milli(text), units(text)), (m, u), "{text}");
        }
    }
}
