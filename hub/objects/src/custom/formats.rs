//! The formats of strings that Kubernetes checks.
//!
//! In: a format's name and a text, hostile. Out: whether the text has it; formats that Kubernetes does not know
//! fit every text. Never: allocates in proportion to more than the text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Formats that appear in published documents; others are dropped there.
pub const KNOWN: [&str; 24] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "date-time",
];

pub fn matches(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => date_time(text),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => limpet_cel::duration::parse(text).is_some() || words_duration(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => cidr(text),
        "mac" => mac(text),
        "uuid" => uuid(text, None),
        "uuid3" => uuid(text, Some('3')),
        "uuid4" => uuid(text, Some('4')),
        "uuid5" => uuid(text, Some('5')),
        "byte" => base64(text),
        "hexcolor" => hex_color(text),
        "rgbcolor" => rgb_color(text),
        "uri" => uri(text),
        "email" => email(text),
        "hostname" => hostname(text),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "ssn" => digits_like(text, &[3, 2, 4], &['-', ' ']),
        "isbn" => isbn(text, 10) || isbn(text, 13),
        "isbn10" => isbn(text, 10),
        "isbn13" => isbn(text, 13),
        "creditcard" => credit_card(text),
        "k8s-short-name" => crate::names::dns_label(text).is_empty(),
        "k8s-long-name" => crate::names::dns_subdomain(text).is_empty(),
        _ => true,
    }
}

fn date_time(text: &str) -> bool {
    // jiff reads more than RFC 3339 does.
    let shaped = text.len() >= 20 && matches!(text.as_bytes()[10], b'T' | b't' | b' ');
    shaped && text.parse::<jiff::Timestamp>().is_ok()
}

/// `3 days`, as go-openapi reads durations.
fn words_duration(text: &str) -> bool {
    let mut parts = text.split_whitespace();
    let (Some(number), Some(unit), None) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let unit = unit.trim_end_matches('s');
    let known = [
        "nano", "micro", "milli", "second", "sec", "minute", "min", "hour", "hr", "day", "week",
        "wk",
    ];
    number.parse::<u64>().is_ok() && known.contains(&unit)
}

fn cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let max = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    let plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    plain && length.len() <= 3 && length.parse::<u8>().is_ok_and(|length| length <= max)
}

fn mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len(), 6 | 8 | 20)
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn uuid(text: &str, version: Option<char>) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let dashes_fit = text.len() == 32
        || (text.len() == 36
            && [8, 13, 18, 23]
                .iter()
                .all(|at| text.as_bytes()[*at] == b'-'));
    plain.len() == 32
        && dashes_fit
        && plain.bytes().all(|b| b.is_ascii_hexdigit())
        && version.is_none_or(|version| plain.chars().nth(12) == Some(version))
}

fn base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - body.len() <= 2
        && body
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_'))
}

fn hex_color(text: &str) -> bool {
    let body = text.strip_prefix('#').unwrap_or(text);
    matches!(body.len(), 3 | 6) && body.bytes().all(|b| b.is_ascii_hexdigit())
}

fn rgb_color(text: &str) -> bool {
    let Some(body) = text
        .strip_prefix("rgb(")
        .and_then(|text| text.strip_suffix(')'))
    else {
        return false;
    };
    let parts: Vec<&str> = body.split(',').map(str::trim).collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
}

/// An absolute URI, or a path that begins with a slash (as Go's ParseRequestURI).
fn uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let starts = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    starts
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && !rest.is_empty()
}

fn email(text: &str) -> bool {
    let Some((user, host)) = text.rsplit_once('@') else {
        return false;
    };
    let plain = |c: char| c.is_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(c);
    !user.is_empty()
        && user.chars().all(plain)
        && !user.starts_with('.')
        && !user.ends_with('.')
        && hostname(host)
}

fn hostname(text: &str) -> bool {
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    !text.is_empty() && text.len() <= 255 && text.trim_end_matches('.').split('.').all(fits)
}

fn digits_like(text: &str, groups: &[usize], separators: &[char]) -> bool {
    let parts: Vec<&str> = text.split(separators).collect();
    parts.len() == groups.len()
        && parts
            .iter()
            .zip(groups)
            .all(|(part, length)| part.len() == *length && part.bytes().all(|b| b.is_ascii_digit()))
}

fn isbn(text: &str, length: usize) -> bool {
    let digits: Vec<char> = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    if digits.len() != length {
        return false;
    }
    let value = |at: usize| match digits[at] {
        'X' | 'x' if length == 10 && at == 9 => Some(10),
        c => c.to_digit(10),
    };
    let weights = |at: usize| {
        if length == 10 {
            10 - at as u32
        } else {
            1 + 2 * (at as u32 % 2)
        }
    };
    let sum = (0..length).try_fold(0, |sum, at| Some(sum + value(at)? * weights(at)));
    sum.is_some_and(|sum: u32| sum.is_multiple_of(if length == 10 { 11 } else { 10 }))
}

fn credit_card(text: &str) -> bool {
    let digits: Option<Vec<u32>> = text
        .chars()
        .filter(|c| !matches!(c, '-' | ' '))
        .map(|c| c.to_digit(10))
        .collect();
    let Some(digits) = digits.filter(|digits| (13..=19).contains(&digits.len())) else {
        return false;
    };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            if at % 2 == 1 {
                digit * 2 / 10 + digit * 2 % 10
            } else {
                *digit
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_formats() {
        let cases = [
            ("date-time", "2026-01-02T03:04:05Z", true),
            ("date-time", "2026-01-02T03:04:05.123+02:00", true),
            ("date-time", "2026-01-02", false),
            ("date", "2026-02-29", false),
            ("date", "2026-02-28", true),
            ("duration", "1h30m", true),
            ("duration", "3 days", true),
            ("duration", "soon", false),
            ("ipv4", "10.0.0.1", true),
            ("ipv4", "10.0.0.256", false),
            ("ipv6", "fe80::1", true),
            ("cidr", "10.0.0.0/8", true),
            ("cidr", "10.0.0.0/33", false),
            ("cidr", "10.0.0.0", false),
            ("mac", "aa:bb:cc:00:11:22", true),
            ("mac", "aa:bb:cc:00:11", false),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", true),
            ("uuid4", "123e4567-e89b-12d3-a456-426614174000", false),
            ("byte", "aGk=", true),
            ("byte", "aGk", false),
            ("uri", "https://a.b/c", true),
            ("uri", "a b", false),
            ("email", "a@b.io", true),
            ("email", "a", false),
            ("hostname", "a.b-c", true),
            ("hostname", "-a", false),
            ("isbn10", "0-306-40615-2", true),
            ("isbn13", "978-0-306-40615-7", true),
            ("isbn", "978-0-306-40615-8", false),
            ("creditcard", "4111 1111 1111 1111", true),
            ("creditcard", "4111 1111 1111 1112", false),
            ("ssn", "111-22-3333", true),
            ("hexcolor", "#ff00aa", true),
            ("rgbcolor", "rgb(1, 2, 300)", false),
            ("no-such-format", "anything", true),
        ];
        for (format, text, expect) in cases {
            assert_eq!(matches(format, text), expect, "{format} {text}");
        }
    }
}
