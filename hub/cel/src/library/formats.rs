//! Named formats of names and texts, and `string.format`.
//!
//! In: texts. Out: what is wrong with them; formatted texts. Source: the Kubernetes page on CEL, "Kubernetes format
//! library". Never: a text longer than `TEXT_MAX`.

use super::convert::shown_double;
use super::some;
use crate::eval::{Failure, Meter, Outcome, error};
use crate::re2;
use crate::value::Value;

const TEXT_MAX: usize = 1024 * 1024;

const NAMES: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

pub fn call(function: &str, values: &[Value], meter: &mut Meter) -> Option<Outcome> {
    let outcome = match (function, values) {
        ("format.named", [Value::String(name)]) => {
            let found = NAMES.iter().find(|own| **own == &**name);
            Ok(found.map_or(Value::Optional(None), |own| some(Value::Format(own))))
        }
        ("validate", [Value::Format(name), Value::String(text)]) => validate(name, text, meter),
        (function, []) => {
            let name = function.strip_prefix("format.")?;
            Ok(Value::Format(NAMES.iter().find(|own| **own == name)?))
        }
        _ => return None,
    };
    Some(meter.charge(1).and(outcome))
}

fn validate(name: &str, text: &str, meter: &mut Meter) -> Outcome {
    meter.charge((text.len() as u64 + 1).div_ceil(10).saturating_mul(10))?;
    let label = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
    let subdomain = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    let label_1035 = r"^[a-z]([-a-z0-9]*[a-z0-9])?$";
    let matches =
        |pattern: &str, text: &str| re2::compile(pattern).is_ok_and(|regex| regex.is_match(text));
    let masked = || {
        text.strip_suffix('-')
            .map_or_else(|| text.to_owned(), |base| format!("{base}a"))
    };
    let (fits, words) = match name {
        "dns1123Label" => (
            text.len() <= 63 && matches(label, text),
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ),
        "dns1123LabelPrefix" => (
            text.len() <= 63 && matches(label, &masked()),
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ),
        "dns1123Subdomain" => (
            text.len() <= 253 && matches(subdomain, text),
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        "dns1123SubdomainPrefix" => (
            text.len() <= 253 && matches(subdomain, &masked()),
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'",
        ),
        "dns1035Label" => (
            text.len() <= 63 && matches(label_1035, text),
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
        ),
        "dns1035LabelPrefix" => (
            text.len() <= 63 && matches(label_1035, &masked()),
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-'",
        ),
        "labelValue" => (
            text.len() <= 63
                && (text.is_empty()
                    || matches(r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", text)),
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        "qualifiedName" => {
            let (prefix, own) = text
                .rsplit_once('/')
                .map_or((None, text), |(prefix, own)| (Some(prefix), own));
            let fits = own.len() <= 63
                && matches(r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", own)
                && prefix.is_none_or(|prefix| prefix.len() <= 253 && matches(subdomain, prefix));
            (
                fits,
                "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            )
        }
        "uri" => (
            matches(r"^([A-Za-z][A-Za-z0-9+.-]*:|/)[^\x00-\x20\x7f]*$", text),
            "invalid URI for request",
        ),
        "uuid" => (
            matches(
                r"^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$",
                text,
            ),
            "does not match the UUID format",
        ),
        "byte" => (
            text.len().is_multiple_of(4) && matches(r"^[A-Za-z0-9+/_-]*={0,2}$", text),
            "invalid base64",
        ),
        "date" => (
            text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
            "invalid date",
        ),
        _ => (
            text.len() >= 20 && text.parse::<jiff::Timestamp>().is_ok(),
            "invalid datetime",
        ),
    };
    Ok(match fits {
        true => Value::Optional(None),
        false => some(Value::list(vec![Value::text(words)])),
    })
}

/// `'%s has %d'.format([a, b])`
pub(super) fn printf(text: &str, values: &[Value], meter: &mut Meter) -> Outcome {
    let mut out = String::new();
    let mut values = values.iter();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        if letters.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut precision = None;
        if letters.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            precision = digits.parse::<usize>().ok().filter(|p| *p <= 100);
        }
        let Some(verb) = letters.next() else {
            return error("unexpected end of format string");
        };
        let Some(value) = values.next() else {
            return error("index out of range: not enough arguments to format");
        };
        let part = match print(verb, precision, value) {
            Some(part) => part,
            None => {
                return error(format!(
                    "error during formatting: %{verb} of a {}",
                    value.type_name()
                ));
            }
        };
        meter.walk(part.len() as u64 + 1)?;
        out.push_str(&part);
        if out.len() > TEXT_MAX {
            return Err(Failure::Error("the string would be too long".to_owned()));
        }
    }
    Ok(Value::text(out))
}

fn print(verb: char, precision: Option<usize>, value: &Value) -> Option<String> {
    Some(match (verb, value) {
        ('s', value) => shown(value),
        ('d', Value::Int(n)) => n.to_string(),
        ('d', Value::Uint(n)) => n.to_string(),
        ('d', Value::Double(n)) => shown_double(*n),
        ('f', Value::Double(n)) => format!("{n:.*}", precision.unwrap_or(6)),
        ('f', Value::Int(n)) => format!("{:.*}", precision.unwrap_or(6), *n as f64),
        ('e', Value::Double(n)) => {
            let text = format!("{n:.*e}", precision.unwrap_or(6));
            let (digits, power) = text.split_once('e')?;
            let (sign, power) = power
                .strip_prefix('-')
                .map_or(('+', power), |power| ('-', power));
            format!("{digits}e{sign}{power:0>2}")
        }
        ('b', Value::Int(n)) => {
            if *n < 0 {
                format!("-{:b}", n.unsigned_abs())
            } else {
                format!("{n:b}")
            }
        }
        ('b', Value::Uint(n)) => format!("{n:b}"),
        ('b', Value::Bool(value)) => u8::from(*value).to_string(),
        ('o', Value::Int(n)) => {
            if *n < 0 {
                format!("-{:o}", n.unsigned_abs())
            } else {
                format!("{n:o}")
            }
        }
        ('o', Value::Uint(n)) => format!("{n:o}"),
        ('x' | 'X', value) => {
            let hex = match value {
                Value::Int(n) if *n < 0 => format!("-{:x}", n.unsigned_abs()),
                Value::Int(n) => format!("{n:x}"),
                Value::Uint(n) => format!("{n:x}"),
                Value::String(text) => text.bytes().map(|b| format!("{b:02x}")).collect(),
                Value::Bytes(bytes) => bytes.iter().map(|b| format!("{b:02x}")).collect(),
                _ => return None,
            };
            if verb == 'X' { hex.to_uppercase() } else { hex }
        }
        _ => return None,
    })
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) => shown_double(*n),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Timestamp(time) => time.to_string(),
        Value::Duration(nanos) => format!("{}s", shown_double(*nanos as f64 / 1e9)),
        Value::Type(name) => name.to_string(),
        Value::List(items, _) => {
            format!(
                "[{}]",
                items.iter().map(shown).collect::<Vec<_>>().join(", ")
            )
        }
        Value::Map(entries) => {
            let parts = entries
                .iter()
                .map(|(key, value)| format!("{key}: {}", shown(value)));
            format!("{{{}}}", parts.collect::<Vec<_>>().join(", "))
        }
        other => match super::call(
            "string",
            false,
            std::slice::from_ref(other),
            &mut Meter::new(u64::MAX),
        ) {
            Ok(Value::String(text)) => text.to_string(),
            _ => other.type_name().to_owned(),
        },
    }
}
