//! Kubernetes quantities (`100m`, `64Mi`, `1e3`) as numbers.
//!
//! In: text from a manifest. Out: whole units or thousandths, rounded up as Kubernetes does.
//! Never: floating point. Source: the resource.Quantity serialization format of the Kubernetes API reference.

const NANO: i128 = 1_000_000_000;

/// Whole units (bytes, cores), rounded up. `None` when the text is no quantity.
pub fn value(text: &str) -> Option<i64> {
    i64::try_from(ceil_div(nano(text)?, NANO)).ok()
}

/// Thousandths (milli-CPU), rounded up.
pub fn milli(text: &str) -> Option<i64> {
    i64::try_from(ceil_div(nano(text)?, NANO / 1000)).ok()
}

/// Bytes in the largest binary unit that divides them.
pub fn binary(bytes: u64) -> String {
    let units = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let fits = units.iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    fits.map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

fn ceil_div(a: i128, b: i128) -> i128 {
    a.div_euclid(b) + i128::from(a.rem_euclid(b) != 0)
}

fn nano(text: &str) -> Option<i128> {
    if text.len() > 64 {
        return None;
    }
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits = rest.bytes().take_while(|c| c.is_ascii_digit() || *c == b'.').count();
    let (number, suffix) = rest.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 20 {
        return None;
    }
    // Scale is num/den with everything in billionths.
    let (num, den) = scale(suffix)?;
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nine: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let billionths = whole.checked_mul(NANO)?.checked_add(nine.parse::<i128>().ok()?)?;
    let scaled = ceil_div(billionths.checked_mul(num)?, den);
    Some(if negative { -scaled } else { scaled })
}

fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs()).filter(|_| exponent.abs() <= 18)?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubernetes_writes() {
        for (text, whole, thousandths) in [
            ("0", 0, 0),
            ("1", 1, 1000),
            ("100m", 1, 100),
            ("1500m", 2, 1500),
            ("0.5", 1, 500),
            (".5", 1, 500),
            ("64Mi", 67_108_864, 67_108_864_000),
            ("1.5Ki", 1536, 1_536_000),
            ("1e3", 1000, 1_000_000),
            ("12E", 12_000_000_000_000_000_000i128 as i64, 0),
            ("1n", 1, 1),
            ("-1", -1, -1000),
        ] {
            if text != "12E" {
                assert_eq!(value(text), Some(whole), "{text}");
                assert_eq!(milli(text), Some(thousandths), "{text}");
            } else {
                assert_eq!(value(text), None);
            }
        }
        for bad in ["", "x", "1x", "1..2", "Mi", "1e99", "--1", "99999999999999999999999"] {
            assert_eq!(value(bad), None, "{bad}");
        }
    }
}
