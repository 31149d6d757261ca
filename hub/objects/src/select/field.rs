//! Field selectors: `metadata.name=web,status.phase!=Running`.
//!
//! In: the text. Out: terms, and whether an object's selectable fields satisfy them.
//! Never: knows the fields of a kind.

use super::{SELECTOR_BYTES_MAX, SelectorError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

/// A conjunction of terms; none: everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError(format!("selector is longer than {SELECTOR_BYTES_MAX} bytes")));
        }
        let mut terms = Vec::new();
        for part in split(text)? {
            if part.is_empty() {
                continue;
            }
            let Some((field, equal, value)) = operator(part) else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            terms.push(FieldTerm { field: field.to_string(), equal, value: unescape(value)? });
        }
        terms.sort_by(|a, b| a.field.cmp(&b.field));
        Ok(FieldSelector { terms })
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// `field` gives the value of a selectable field; an unset one is the empty string.
    pub fn matches<'v>(&self, field: impl Fn(&str) -> Option<&'v str>) -> bool {
        self.terms.iter().all(|t| (field(&t.field).unwrap_or_default() == t.value) == t.equal)
    }

    /// The same over the pairs that a kind's row gives.
    pub fn matches_pairs(&self, fields: &[(&str, String)]) -> bool {
        self.matches(|name| fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str()))
    }

    /// The value that a field must have, for a list that can go straight to one object or one namespace.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }

    /// The first field that a kind does not know, with upstream's words for it.
    pub fn unsupported(&self, known: &[&str]) -> Option<String> {
        let term = self.terms.iter().find(|t| !known.contains(&t.field.as_str()))?;
        Some(format!("field label not supported: {}", term.field))
    }
}

/// At commas that are not escaped.
fn split(text: &str) -> Result<Vec<&str>, SelectorError> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    Ok(parts)
}

/// The leftmost operator wins.
fn operator(part: &str) -> Option<(&str, bool, &str)> {
    for i in part.char_indices().map(|(i, _)| i) {
        let rest = &part[i..];
        for (word, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(word) {
                return Some((&part[..i], equal, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    if !value.contains(['\\', '=']) {
        return Ok(value.to_string());
    }
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => {
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence: \\{c}"
                    )));
                }
                None => {
                    return Err(SelectorError("invalid field selector: invalid escape sequence: \\".into()));
                }
            },
            '=' => {
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped '=' in value: {value}"
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}
