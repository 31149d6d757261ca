//! Strings: searching, cutting, joining, formatting, regular expressions.
//!
//! In: strings of any length. Out: values, in time that was charged before. Positions count letters.
//! Never: a result larger than `TEXT_MAX`.

use super::no_overload;
use crate::eval::{Failure, Meter, Outcome, error};
use crate::re2;
use crate::value::Value;

/// Bytes of a string that an expression makes.
const TEXT_MAX: usize = 4 * 1024 * 1024;

pub fn call(function: &str, values: &[Value], meter: &mut Meter) -> Option<Outcome> {
    if let (function, [Value::String(text), args @ ..]) = (function, values) {
        if let Some(outcome) = search(function, text, args, meter) {
            return Some(outcome);
        }
        if let Some(outcome) = cut(function, text, args, meter) {
            return Some(outcome);
        }
    }
    let outcome = match (function, values) {
        ("join", [Value::List(items, _), rest @ ..]) => join(items, rest, meter),
        ("base64.encode", [Value::Bytes(bytes)]) => meter.walk(bytes.len() as u64).map(|()| {
            Value::text(base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                bytes,
            ))
        }),
        ("base64.decode", [Value::String(text)]) => {
            meter.walk(text.len() as u64).and_then(|()| decode(text))
        }
        _ => return None,
    };
    Some(outcome)
}

fn search(function: &str, text: &str, args: &[Value], meter: &mut Meter) -> Option<Outcome> {
    let length = text.len() as u64;
    let outcome = match (function, args) {
        ("contains", [Value::String(part)]) => {
            let cost = length
                .div_ceil(10)
                .saturating_mul((part.len() as u64).div_ceil(10).max(1));
            meter
                .charge(cost)
                .map(|()| Value::Bool(text.contains(&**part)))
        }
        ("startsWith", [Value::String(part)]) => meter
            .walk(part.len() as u64)
            .map(|()| Value::Bool(text.starts_with(&**part))),
        ("endsWith", [Value::String(part)]) => meter
            .walk(part.len() as u64)
            .map(|()| Value::Bool(text.ends_with(&**part))),
        ("matches", [Value::String(pattern)]) => {
            regex(text, pattern, meter).map(|regex| Value::Bool(regex.is_match(text)))
        }
        ("find", [Value::String(pattern)]) => regex(text, pattern, meter).map(|regex| {
            Value::text(
                regex.find(text).unwrap_or_default(),
            )
        }),
        ("findAll", [Value::String(pattern), rest @ ..]) => {
            regex(text, pattern, meter).and_then(|regex| {
                let limit = match rest {
                    [] => usize::MAX,
                    [Value::Int(limit)] => usize::try_from(*limit).unwrap_or(usize::MAX),
                    _ => return no_overload(),
                };
                Ok(Value::list(
                    regex
                        .find_iter(text)
                        .take(limit)
                        .map(Value::text)
                        .collect(),
                ))
            })
        }
        ("indexOf" | "lastIndexOf", [Value::String(part), rest @ ..]) => {
            let cost = length
                .div_ceil(10)
                .saturating_mul((part.len() as u64).div_ceil(10).max(1));
            meter
                .charge(cost)
                .and_then(|()| index_of(function, text, part, rest))
        }
        _ => return None,
    };
    Some(outcome)
}

fn regex(text: &str, pattern: &str, meter: &mut Meter) -> Result<re2::Regex, Failure> {
    let cost = (text.len() as u64 + 1)
        .div_ceil(10)
        .saturating_mul((pattern.len() as u64).div_ceil(4).max(1));
    meter.charge(cost)?;
    re2::compile(pattern).map_err(|why| Failure::Error(format!("error parsing regexp: {why}")))
}

fn index_of(function: &str, text: &str, part: &str, rest: &[Value]) -> Outcome {
    let letters = text.chars().count() as i64;
    let count = |bytes: usize| text[..bytes].chars().count() as i64;
    let byte = |letter: i64| {
        text.char_indices()
            .nth(letter as usize)
            .map_or(text.len(), |(at, _)| at)
    };
    let first = function == "indexOf";
    let offset = match rest {
        [] => None,
        [Value::Int(offset)] if (0..=letters).contains(offset) => Some(*offset),
        [Value::Int(offset)] if part.is_empty() && *offset > letters => {
            return Ok(Value::Int(letters));
        }
        [Value::Int(offset)] => return error(format!("index out of range: {offset}")),
        _ => return no_overload(),
    };
    let found = match (first, offset) {
        (true, None) => text.find(part).map(count),
        (true, Some(offset)) => text[byte(offset)..]
            .find(part)
            .map(|at| count(byte(offset) + at)),
        (false, None) => text.rfind(part).map(count),
        (false, Some(offset)) => {
            let end = (byte(offset) + part.len()).min(text.len());
            let end = (end..=text.len())
                .find(|at| text.is_char_boundary(*at))
                .unwrap_or(text.len());
            text[..end].rfind(part).map(count)
        }
    };
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn cut(function: &str, text: &str, args: &[Value], meter: &mut Meter) -> Option<Outcome> {
    const OWN: [&str; 11] = [
        "charAt",
        "lowerAscii",
        "upperAscii",
        "replace",
        "split",
        "substring",
        "trim",
        "reverse",
        "format",
        "strings.quote",
        "size",
    ];
    if !OWN.contains(&function) {
        return None;
    }
    if function == "size" {
        return Some(
            meter
                .charge(1)
                .map(|()| Value::Int(text.chars().count() as i64)),
        );
    }
    if let Err(failure) = meter.walk(text.len() as u64 + 1) {
        return Some(Err(failure));
    }
    let letters = || text.chars().count() as i64;
    Some(match (function, args) {
        ("charAt", [Value::Int(at)]) => {
            match usize::try_from(*at).ok().filter(|_| *at <= letters()) {
                Some(at) => Ok(Value::text(
                    text.chars().nth(at).map(String::from).unwrap_or_default(),
                )),
                None => error(format!("index out of range: {at}")),
            }
        }
        ("lowerAscii", []) => Ok(Value::text(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Value::text(text.to_ascii_uppercase())),
        ("trim", []) => Ok(Value::text(text.trim())),
        ("reverse", []) => Ok(Value::text(text.chars().rev().collect::<String>())),
        ("strings.quote", []) => Ok(Value::text(quote(text))),
        ("substring", [Value::Int(from)]) => substring(text, *from, letters()),
        ("substring", [Value::Int(from), Value::Int(to)]) => substring(text, *from, *to),
        ("replace", [Value::String(old), Value::String(new)]) => replace(text, old, new, -1, meter),
        ("replace", [Value::String(old), Value::String(new), Value::Int(limit)]) => {
            replace(text, old, new, *limit, meter)
        }
        ("split", [Value::String(mark)]) => Ok(split(text, mark, -1)),
        ("split", [Value::String(mark), Value::Int(limit)]) => Ok(split(text, mark, *limit)),
        ("format", [Value::List(values, _)]) => super::formats::printf(text, values, meter),
        _ => no_overload(),
    })
}

fn substring(text: &str, from: i64, to: i64) -> Outcome {
    let letters = text.chars().count() as i64;
    if from < 0 || from > letters || to < 0 || to > letters || from > to {
        return error(format!("invalid substring range. start: {from}, end: {to}"));
    }
    Ok(Value::text(
        text.chars()
            .skip(from as usize)
            .take((to - from) as usize)
            .collect::<String>(),
    ))
}

fn replace(text: &str, old: &str, new: &str, limit: i64, meter: &mut Meter) -> Outcome {
    let places = if old.is_empty() {
        text.chars().count() + 1
    } else {
        text.matches(old).count()
    };
    let places = usize::try_from(limit).map_or(places, |limit| places.min(limit));
    let size = text.len().saturating_add(places.saturating_mul(new.len()));
    if size > TEXT_MAX {
        return error("the string would be too long");
    }
    meter.walk(size as u64)?;
    Ok(Value::text(match usize::try_from(limit) {
        Ok(limit) => text.replacen(old, new, limit),
        Err(_) => text.replace(old, new),
    }))
}

fn split(text: &str, mark: &str, limit: i64) -> Value {
    let letters: Vec<String> = text.chars().map(String::from).collect();
    let parts: Vec<Value> = match (limit, mark.is_empty()) {
        (0, _) => Vec::new(),
        (1, _) => vec![Value::text(text)],
        (limit, true) => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let mut parts: Vec<Value> = letters
                .iter()
                .take(limit.saturating_sub(1))
                .map(Value::text)
                .collect();
            if letters.len() > parts.len() {
                parts.push(Value::text(letters[parts.len()..].concat()));
            }
            if limit == usize::MAX {
                letters.iter().map(Value::text).collect()
            } else {
                parts
            }
        }
        (limit, false) if limit < 0 => text.split(mark).map(Value::text).collect(),
        (limit, false) => text.splitn(limit as usize, mark).map(Value::text).collect(),
    };
    Value::list(parts)
}

fn join(items: &[Value], rest: &[Value], meter: &mut Meter) -> Outcome {
    let mark = match rest {
        [] => "",
        [Value::String(mark)] => &**mark,
        _ => return no_overload(),
    };
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        let Value::String(text) = item else {
            return no_overload();
        };
        texts.push(&**text);
    }
    let size: usize = texts.iter().map(|text| text.len() + mark.len()).sum();
    if size > TEXT_MAX {
        return error("the string would be too long");
    }
    meter.walk(size as u64 + items.len() as u64)?;
    Ok(Value::text(texts.join(mark)))
}

fn decode(text: &str) -> Outcome {
    use base64::Engine;
    let engines = [
        &base64::engine::general_purpose::STANDARD,
        &base64::engine::general_purpose::STANDARD_NO_PAD,
    ];
    match engines.iter().find_map(|engine| engine.decode(text).ok()) {
        Some(bytes) => Ok(Value::Bytes(bytes.into())),
        None => error("illegal base64 data"),
    }
}

pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
