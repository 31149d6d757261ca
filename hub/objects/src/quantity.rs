//! Quantities (`250m`, `1.5Gi`, `1e3`) as Kubernetes' resource.Quantity reads, compares, adds and writes
//! them.
//!
//! In: text or a JSON number. Out: an exact number of nano units (magnitude capped at 2^63-1, finer than
//! nano is rounded away from zero) and its canonical text.
//! Never: uses floating point.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

const NANO: i128 = 1_000_000_000;
const MAX: i128 = i64::MAX as i128 * NANO;
/// Digits that are read: beyond these a number is capped or below nano anyway.
const TEXT_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `k`, `M`, `G`… and `m`, `u`, `n`
    DecimalSi,
    /// `Ki`, `Mi`, `Gi`…
    BinarySi,
    /// `e3`, `e6`…
    DecimalExponent,
}

#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    pub fn from_value_of(value: i64, format: Format) -> Quantity {
        Quantity { nanos: (i128::from(value) * NANO).clamp(-MAX, MAX), format }
    }

    pub fn from_milli(milli: i64) -> Quantity {
        Quantity { nanos: i128::from(milli) * (NANO / 1000), format: Format::DecimalSi }
    }

    pub fn from_bytes(bytes: i64) -> Quantity {
        Quantity::from_value_of(bytes, Format::BinarySi)
    }

    /// From a JSON string or number.
    pub fn from_json(value: &Value) -> Result<Quantity, QuantityError> {
        match value {
            Value::String(text) => text.parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError::Format),
        }
    }

    /// Whole units, rounded up (away from zero), as Go's `Value()`.
    pub fn value(&self) -> i64 {
        divide_away(self.nanos, NANO) as i64
    }

    /// Thousandths, rounded up, as Go's `MilliValue()`, saturating.
    pub fn milli_value(&self) -> i64 {
        divide_away(self.nanos, NANO / 1000).clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// The sum; the format is that of the first that is not zero.
    pub fn plus(self, other: Quantity) -> Quantity {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Quantity { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }

    pub fn minus(self, other: Quantity) -> Quantity {
        self.plus(Quantity { nanos: -other.nanos, format: other.format })
    }

    /// The least `from + n * step` (n ≥ 0) that is not below this; a step that is not above zero: the larger of both.
    pub fn stepped(self, from: Quantity, step: Quantity) -> Quantity {
        if self.nanos <= from.nanos || step.nanos <= 0 {
            return self.max(from);
        }
        let steps = divide_away(self.nanos - from.nanos, step.nanos);
        Quantity { nanos: (from.nanos + steps * step.nanos).clamp(-MAX, MAX), format: self.format }
    }

    pub fn max(self, other: Quantity) -> Quantity {
        if other > self { other } else { self }
    }
}

/// The canonical text of a quantity in text or number form; what the API server stores.
pub fn canonical(value: &Value) -> Result<String, QuantityError> {
    Quantity::from_json(value).map(|q| q.to_string())
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

fn divide_away(n: i128, by: i128) -> i128 {
    let quotient = n / by;
    if n % by == 0 { quotient } else { quotient + n.signum() }
}

enum Suffix {
    Ten(i32),
    Two(u32),
}

fn suffix(text: &str) -> Result<(Suffix, Format), QuantityError> {
    let decimal = |e| Ok((Suffix::Ten(e), Format::DecimalSi));
    let binary = |e| Ok((Suffix::Two(e), Format::BinarySi));
    match text {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let digits = text.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let exponent: i32 = digits.parse().map_err(|_| QuantityError::Suffix)?;
            Ok((Suffix::Ten(exponent), Format::DecimalExponent))
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        if text.is_empty() || text.len() > TEXT_MAX {
            return Err(QuantityError::Format);
        }
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, rest) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Format);
        }
        let plausible = |c: char| "eEinumkKMGTP+-0123456789".contains(c);
        if !rest.chars().all(plausible) {
            return Err(QuantityError::Format);
        }
        let (suffix, format) = suffix(rest)?;
        let digits = format!("{whole}{fraction}");
        let nanos = scaled(digits.trim_start_matches('0'), fraction.len() as i32, suffix);
        Ok(Quantity { nanos: if text.starts_with('-') { -nanos } else { nanos }, format })
    }
}

/// digits × 10^-fraction × suffix in nano units, rounded up, capped.
fn scaled(digits: &str, fraction: i32, suffix: Suffix) -> i128 {
    if digits.is_empty() {
        return 0;
    }
    let (ten, two) = match suffix {
        Suffix::Ten(e) => (e, 0),
        Suffix::Two(bits) => (0, bits),
    };
    // The decimal exponent of the last digit, in nano units.
    let mut exponent = ten.saturating_sub(fraction).saturating_add(9);
    if exponent.saturating_add(digits.len() as i32) > 40 {
        return MAX;
    }
    let mut digits = digits;
    let mut inexact = false;
    // With more than 38 digits the last ones cannot matter beyond rounding.
    while digits.len() > 20 && exponent < -18 {
        inexact |= !digits.ends_with('0');
        digits = &digits[..digits.len() - 1];
        exponent += 1;
    }
    let Ok(mut n) = digits.parse::<i128>() else { return MAX };
    let Some(shifted) = n.checked_mul(1i128 << two) else { return MAX };
    n = shifted;
    while exponent > 0 {
        match n.checked_mul(10) {
            Some(next) if next <= MAX => n = next,
            _ => return MAX,
        }
        exponent -= 1;
    }
    while exponent < 0 && n > 0 {
        inexact |= n % 10 != 0;
        n /= 10;
        exponent += 1;
    }
    (n + i128::from(inexact)).min(MAX)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::BinarySi && !small && self.nanos % NANO == 0 {
            return binary_text(self.nanos / NANO, f);
        }
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{mantissa}") } else { write!(f, "{mantissa}e{exponent}") };
        }
        let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((exponent + 9) / 3) as usize];
        write!(f, "{mantissa}{suffix}")
    }
}

fn binary_text(mut value: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut step = 0;
    while value % 1024 == 0 && step < 6 {
        value /= 1024;
        step += 1;
    }
    write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn canonical_text() {
        let cases = [
            ("0", "0"),
            ("0Gi", "0"),
            ("1", "1"),
            ("-1", "-1"),
            ("+5", "5"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1.25", "1250m"),
            ("0.001", "1m"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("1000000", "1M"),
            ("1024", "1024"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1000Ki", "1000Ki"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.5Gi", "512Mi"),
            ("100Ki", "100Ki"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1000e0", "1e3"),
            ("12e6", "12e6"),
            ("5e-3", "5e-3"),
            ("1e2", "100"),
            ("0.1n", "1n"),
            ("1.0001u", "1001n"),
            ("-0.1n", "-1n"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775807"),
            ("100E", "9223372036854775807"),
            ("1e100", "9223372036854775807"),
            ("1E", "1E"),
            ("8Ei", "9223372036854775807"),
            ("0.1Ki", "102400m"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("129M", "129M"),
            ("128974848000m", "128974848"),
            ("123Mi", "123Mi"),
            ("1e-30", "1e-9"),
            ("0000001", "1"),
            ("1000000000000000000000m", "1E"),
        ];
        for (text, expected) in cases {
            let got = text.parse::<Quantity>().map(|q| q.to_string());
            assert_eq!(got.as_deref(), Ok(expected), "{text}");
            assert_eq!(expected.parse::<Quantity>().unwrap(), text.parse().unwrap(), "{text} again");
        }
    }

    #[test]
    fn refusals() {
        for text in ["", " ", "1 ", "abc", "1.2.3", ".", "-", "1,5", "1Q", "1KI", "１"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Format), "{text:?}");
        }
        for text in ["1i", "1mi", "1e", "1e+", "1ee3", "1K", "1kk", "5e3k", "1e99999999999"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Suffix), "{text:?}");
        }
        assert_eq!("9".repeat(300).parse::<Quantity>(), Err(QuantityError::Format));
    }

    #[test]
    fn values_round_up() {
        let cases = [
            ("1", 1, 1000),
            ("100m", 1, 100),
            ("1500m", 2, 1500),
            ("-1500m", -2, -1500),
            ("1Ki", 1024, 1_024_000),
            ("1u", 1, 1),
        ];
        for (text, value, milli) in cases {
            let q: Quantity = text.parse().unwrap();
            assert_eq!((q.value(), q.milli_value()), (value, milli), "{text}");
        }
        assert_eq!("8E".parse::<Quantity>().unwrap().milli_value(), i64::MAX);
    }

    #[test]
    fn sums_and_comparisons() {
        let q = |t: &str| t.parse::<Quantity>().unwrap();
        let sums = [
            ("1Gi", "1Gi", "2Gi"),
            ("0", "1Gi", "1Gi"),
            ("100m", "1", "1100m"),
            ("1Gi", "1G", "2073741824"),
            ("8E", "8E", "9223372036854775807"),
        ];
        for (a, b, sum) in sums {
            assert_eq!(q(a).plus(q(b)).to_string(), sum);
        }
        assert_eq!(q("2Gi").minus(q("1Gi")).to_string(), "1Gi");
        assert!(q("1000m") == q("1") && q("1Ki") > q("1k") && q("-1") < q("0") && q("999m") < q("1"));
        assert_eq!(canonical(&json!(2)).as_deref(), Ok("2"));
        assert_eq!(canonical(&json!(0.5)).as_deref(), Ok("500m"));
        assert_eq!(canonical(&json!(true)), Err(QuantityError::Format));
        assert_eq!(Quantity::from_milli(250).to_string(), "250m");
        assert_eq!(Quantity::from_bytes(3 << 20).to_string(), "3Mi");
    }
}
