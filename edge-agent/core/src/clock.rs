//! Time as an argument, and its text form.
//!
//! In: milliseconds from the shell. Out: RFC 3339 text and back.
//! Never: reads a clock.

/// One moment, by both clocks. Durations and timers use `mono_ms`; only text for people uses `wall_ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic milliseconds since some fixed point of this process's life.
    pub mono_ms: u64,
    /// Milliseconds since 1970, never below the last good time known.
    pub wall_ms: u64,
}

/// `2026-11-23T11:00:00Z`, as metav1.Time.
pub fn rfc3339(wall_ms: u64) -> String {
    let (y, mo, d, h, mi, s) = civil(wall_ms / 1000);
    if !(0..10_000).contains(&y) {
        return format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}Z");
    }
    // A pod's status has ten of them.
    let mut text = *b"0000-00-00T00:00:00Z";
    let parts = [(0, y as u64 / 100), (2, y as u64 % 100), (5, mo.into()), (8, d.into()), (11, h), (14, mi), (17, s)];
    for (at, two) in parts {
        (text[at], text[at + 1]) = (b'0' + (two / 10) as u8, b'0' + (two % 10) as u8);
    }
    text.iter().map(|b| char::from(*b)).collect()
}

/// `2026-11-23T11:00:00.000000Z`, as metav1.MicroTime.
pub fn rfc3339_micro(wall_ms: u64) -> String {
    let (y, mo, d, h, mi, s) = civil(wall_ms / 1000);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{:06}Z", wall_ms % 1000 * 1000)
}

/// `2026-11-23T11:00:00.123456789Z`: the stamp of a CRI log line.
pub fn rfc3339_nano(wall_ns: u128) -> String {
    let secs = (wall_ns / 1_000_000_000) as u64;
    let (y, mo, d, h, mi, s) = civil(secs);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{:09}Z", wall_ns % 1_000_000_000)
}

/// Milliseconds since 1970 of an RFC 3339 text with `Z` or an offset; `None` when it is not one, or before 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let b = text.as_bytes();
    if b.len() < 20 || b[4] != b'-' || b[7] != b'-' || b[13] != b':' || b[16] != b':' {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let part = text.get(from..to)?;
        if part.bytes().all(|c| c.is_ascii_digit()) { part.parse().ok() } else { None }
    };
    let days = days_from_civil(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let secs = days * 86_400 + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    let mut rest = text.get(19..)?;
    let mut ms = 0;
    if let Some(frac) = rest.strip_prefix('.') {
        let digits = frac.bytes().take_while(u8::is_ascii_digit).count();
        let three: String = frac[..digits].chars().chain("000".chars()).take(3).collect();
        ms = three.parse::<i64>().ok()?;
        rest = &frac[digits..];
    }
    let offset = match rest.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), ..] if rest.len() == 6 => {
            let o = rest[1..3].parse::<i64>().ok()? * 3600 + rest[4..6].parse::<i64>().ok()? * 60;
            if *sign == b'+' { o } else { -o }
        }
        _ => return None,
    };
    u64::try_from((secs - offset) * 1000 + ms).ok()
}

/// Year, month, day, hour, minute, second of seconds since 1970 (proleptic Gregorian, no leap seconds).
pub(crate) fn civil(secs: u64) -> (i64, u32, u32, u64, u64, u64) {
    let days = (secs / 86_400) as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let doe = days.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    let year = yoe + era * 400 + i64::from(month <= 2);
    let rest = secs % 86_400;
    (year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
}

pub(crate) fn days_from_civil(y: i64, m: i64, d: i64) -> Option<i64> {
    if !(1..=12).contains(&m) || !(1..=31).contains(&d) {
        return None;
    }
    let y = if m <= 2 { y - 1 } else { y };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = (m + 9) % 12;
    let doy = (153 * mp + 2) / 5 + d - 1;
    Some(era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696_000, "2000-02-29T12:34:56Z"),
            (1_795_431_600_000, "2026-11-23T11:00:00Z"),
            (4_102_444_799_000, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
            assert_eq!(parse_rfc3339(text), Some(ms));
        }
        assert_eq!(parse_rfc3339("2026-11-23T12:00:00.5+01:00"), Some(1_795_431_600_500));
        for bad in ["", "2026-11-23", "2026-13-01T00:00:00Z", "2026-11-23T11:00:00", "x026-11-23T11:00:00Z"] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
        assert_eq!(rfc3339_nano(1_795_431_600_123_456_789), "2026-11-23T11:00:00.123456789Z");
    }
}
