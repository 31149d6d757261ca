//! Flows of YAML, `[a, b]` and `{a: b}`, on one line.
//!
//! In: what follows on the line. Out: JSON, and what is left of the line.
//! Never: a flow over several lines.

use super::*;

/// `[a, b]` and `{a: b}` on one line.
pub(super) struct Flow<'a, 'b> {
    pub rest: &'a str,
    pub line: &'b Line<'b>,
    pub depth: usize,
}

impl<'a> Flow<'a, '_> {
    pub fn value(&mut self) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.line.error("nested too deeply"));
        }
        self.rest = self.rest.trim_start();
        let value = match self.rest.chars().next() {
            Some('[') => self.list(),
            Some('{') => self.map(),
            _ => {
                let text = self.word(&[',', ']', '}'])?;
                scalar(text, self.line)
            }
        };
        self.depth -= 1;
        value
    }

    fn list(&mut self) -> Result<Value, String> {
        self.rest = &self.rest[1..];
        let mut items = Vec::new();
        loop {
            if self.eat(']') {
                return Ok(Value::Array(items));
            }
            items.push(self.value()?);
            if !self.eat(',') && !self.rest.trim_start().starts_with(']') {
                return Err(self.unfinished());
            }
        }
    }

    fn map(&mut self) -> Result<Value, String> {
        self.rest = &self.rest[1..];
        let mut map = Map::new();
        loop {
            if self.eat('}') {
                return Ok(Value::Object(map));
            }
            let key = match scalar(self.word(&[':', ',', '}'])?, self.line)? {
                Value::String(text) => text,
                other => other.to_string(),
            };
            let value = if self.eat(':') { self.value()? } else { Value::Null };
            if map.insert(key.clone(), value).is_some() {
                return Err(self.line.error(&format!("`{key}` stands here twice")));
            }
            if !self.eat(',') && !self.rest.trim_start().starts_with('}') {
                return Err(self.unfinished());
            }
        }
    }

    fn unfinished(&self) -> String {
        self.line.error("the bracket does not end on this line")
    }

    fn eat(&mut self, c: char) -> bool {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A quoted text, or everything up to one of `ends`.
    fn word(&mut self, ends: &[char]) -> Result<&'a str, String> {
        self.rest = self.rest.trim_start();
        let end = match self.rest.chars().next() {
            Some(quote @ ('"' | '\'')) => end_of_quoted(self.rest, quote).ok_or_else(|| self.unfinished())?,
            _ => self.rest.find(ends).ok_or_else(|| self.unfinished())?,
        };
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word.trim_end())
    }
}
