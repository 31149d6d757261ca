//! The numbers, names and types of fields, from the generated table.
//!
//! In: `fields-1.36.txt`. Out: the fields of a message. The text is indexed once; a message's line is parsed
//! when asked.
//! Never: holds the parsed table in memory.

use serde_json::{Value, json};
use std::{collections::HashMap, sync::OnceLock};

static TEXT: &str = include_str!("fields-1.36.txt");
const META: &str = super::META;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Plain,
    Optional,
    List,
    Map,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    Text,
    Bool,
    Integer,
    Double,
    Bytes,
    /// A list of texts as the value of a map.
    Items,
    Message(String),
}

impl Base {
    pub fn zero(&self) -> Value {
        match self {
            Base::Text | Base::Bytes => json!(""),
            Base::Bool => json!(false),
            Base::Integer | Base::Double => json!(0),
            Base::Items => json!([]),
            Base::Message(_) => json!({}),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'t> {
    pub number: u32,
    /// Empty: the fields of the message belong to the outer one.
    pub name: &'t str,
    pub form: Form,
    pub base: Base,
}

type Lines = HashMap<(&'static str, &'static str), &'static str>;

fn lines() -> &'static Lines {
    static LINES: OnceLock<Lines> = OnceLock::new();
    LINES.get_or_init(|| {
        let mut package = "";
        let mut lines = HashMap::new();
        for line in TEXT.lines().filter(|l| !l.starts_with('#')) {
            match line.strip_prefix("= ") {
                Some(name) => package = name,
                None => {
                    let (name, fields) = line.split_once(' ').unwrap_or((line, ""));
                    lines.insert((package, name), fields);
                }
            }
        }
        lines
    })
}

/// The fields of `io.k8s.api.core.v1.Pod`.
pub fn message(name: &str) -> Option<Vec<Field<'static>>> {
    let (package, short) = name.rsplit_once('.')?;
    let text = *lines().get(&(package, short))?;
    Some(text.split(' ').filter(|f| !f.is_empty()).filter_map(|f| field(f, package)).collect())
}

fn field(text: &'static str, package: &str) -> Option<Field<'static>> {
    let (number, rest) = text.split_once(':')?;
    let (name, type_) = rest.split_once(':')?;
    let (form, base) = match type_.as_bytes().first()? {
        b'*' => (Form::List, &type_[1..]),
        b'%' => (Form::Map, &type_[1..]),
        b'?' => (Form::Optional, &type_[1..]),
        _ => (Form::Plain, type_),
    };
    let base = match base {
        "s" => Base::Text,
        "b" => Base::Bool,
        "i" => Base::Integer,
        "d" => Base::Double,
        "y" => Base::Bytes,
        "items" => Base::Items,
        other => Base::Message(match other.as_bytes().first()? {
            b'.' => format!("{package}{other}"),
            b'@' => format!("{META}.{}", &other[1..]),
            _ => other.to_owned(),
        }),
    };
    Some(Field { number: number.parse().ok()?, name, form, base })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_readable_and_leads_somewhere() {
        let mut count = 0;
        for (package, name) in lines().keys() {
            let full = format!("{package}.{name}");
            for field in message(&full).unwrap() {
                count += 1;
                let Base::Message(inner) = &field.base else { continue };
                let known = message(inner).is_some() || super::super::special::is_one(inner);
                assert!(known, "{full}.{} has the unknown type {inner}", field.name);
            }
        }
        assert!(count > 2000);
    }
}
