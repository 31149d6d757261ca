//! Queries and percent-encoding.
//!
//! In: the query of a URI, hostile. Out: decoded pairs, and typed looks at them.
//! Never: more pairs than `limits::QUERY_PAIRS_MAX`, or text that is not UTF-8.

use super::limits;

/// The decoded pairs of one query, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// `None` when the query is malformed or has too many pairs.
    pub fn parse(text: &str) -> Option<Query> {
        let mut pairs = Vec::new();
        for part in text.split('&').filter(|p| !p.is_empty()) {
            if pairs.len() == limits::QUERY_PAIRS_MAX {
                return None;
            }
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((decode(key, true)?, decode(value, true)?));
        }
        Some(Query(pairs))
    }

    /// As it can stand behind a question mark again; empty, or with the mark.
    pub fn written(&self) -> String {
        let escaped = |text: &str| -> String {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/:".contains(&b);
            text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
        };
        let pairs: Vec<String> = self.0.iter().map(|(key, value)| format!("{}={}", escaped(key), escaped(value))).collect();
        if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Value of the key when it is there and not empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|v| !v.is_empty())
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// `watch`, `watch=1`, `watch=true` are true; absent, `0` and `false` are not (upstream's conversion).
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    pub fn number(&self, key: &str) -> Result<Option<i64>, String> {
        match self.text(key) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                format!("unable to decode query parameter {key}: strconv.ParseInt: parsing {text:?}: invalid syntax")
            }),
        }
    }
}

/// Undoes percent-encoding; `plus` makes `+` a blank, as in queries.
pub fn decode(text: &str, plus: bool) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                out.push((high * 16 + low) as u8);
            }
            b'+' if plus => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes() {
        for (input, expect) in [
            ("a", Some("a")),
            ("a%3Db", Some("a=b")),
            ("a+b", Some("a b")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%ff", None),
        ] {
            assert_eq!(decode(input, true).as_deref(), expect, "{input}");
        }
    }

    #[test]
    fn looks() {
        let q = Query::parse("watch&limit=5&x=&command=a&command=b").unwrap();
        assert!(q.flag("watch") && !q.flag("nothing"));
        assert_eq!(q.number("limit"), Ok(Some(5)));
        assert_eq!(q.number("x"), Ok(None));
        assert_eq!(q.all("command").collect::<Vec<_>>(), ["a", "b"]);
        assert!(Query::parse("limit=x").unwrap().number("limit").is_err());
        assert!(Query::parse(&"a=1&".repeat(100)).is_none());
    }
}
