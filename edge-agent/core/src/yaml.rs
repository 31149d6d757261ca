//! YAML as manifests are written: enough for static pods, and an error for everything else.
//!
//! In: text of one document. Out: JSON. Blocks, flows on one line, quoted and plain scalars, `|` and `>`.
//! Never: guesses: anchors, aliases, tags, several documents and plain values over several lines are refused, because
//! a manifest that is understood otherwise than it was meant is worse than one that is not understood.

mod flow;

use flow::Flow;
use serde_json::{Map, Number, Value};

const DEPTH_MAX: usize = 64;
const LINES_MAX: usize = 20_000;

/// The error names the line.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut lines = Vec::new();
    for (at, raw) in text.lines().enumerate().take(LINES_MAX + 1) {
        if at == LINES_MAX {
            return Err(format!("more than {LINES_MAX} lines"));
        }
        lines.push(Line { number: at + 1, indent: raw.len() - raw.trim_start_matches(' ').len(), raw });
    }
    let mut reader = Reader { lines, at: 0 };
    reader.skip_blank();
    if reader.peek().is_some_and(|l| l.raw.trim_end() == "---") {
        reader.at += 1;
        reader.skip_blank();
    }
    let Some(first) = reader.peek() else { return Ok(Value::Null) };
    let value = reader.block(first.indent, 0)?;
    reader.skip_blank();
    match reader.peek() {
        Some(line) if line.raw.starts_with("---") => Err(line.error("a second document; one pod a file")),
        Some(line) if line.raw.trim_end() != "..." => Err(line.error("this line does not belong to anything")),
        _ => Ok(value),
    }
}

#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    indent: usize,
    raw: &'a str,
}

impl<'a> Line<'a> {
    fn error(&self, what: &str) -> String {
        format!("line {}: {what}", self.number)
    }

    fn text(&self) -> &'a str {
        self.raw.get(self.indent..).unwrap_or("")
    }
}

struct Reader<'a> {
    lines: Vec<Line<'a>>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<Line<'a>> {
        self.lines.get(self.at).copied()
    }

    /// Passes over empty lines and comments.
    fn skip_blank(&mut self) {
        while let Some(line) = self.peek() {
            let text = line.text().trim();
            if !text.is_empty() && !text.starts_with('#') {
                return;
            }
            self.at += 1;
        }
    }

    /// A mapping, a sequence or a scalar whose lines begin at `indent`.
    fn block(&mut self, indent: usize, depth: usize) -> Result<Value, String> {
        let Some(line) = self.peek() else { return Ok(Value::Null) };
        if depth > DEPTH_MAX {
            return Err(line.error("nested too deeply"));
        }
        if line.raw.starts_with('\t') || line.text().starts_with('\t') {
            return Err(line.error("indent with blanks, not with tabs"));
        }
        if is_item(line.text()) {
            return self.sequence(indent, depth);
        }
        if split_key(line.text(), line.number)?.is_some() {
            return self.mapping(indent, depth);
        }
        self.at += 1;
        let value = scalar(strip_comment(line.text()), &line)?;
        Ok(value)
    }

    fn sequence(&mut self, indent: usize, depth: usize) -> Result<Value, String> {
        let mut items = Vec::new();
        loop {
            self.skip_blank();
            let Some(line) = self.peek().filter(|l| l.indent == indent && is_item(l.text())) else { break };
            let rest = line.text()[1..].trim_start_matches(' ');
            let inner = line.indent + (line.text().len() - rest.len());
            if strip_comment(rest).is_empty() {
                self.at += 1;
                items.push(self.nested(indent, depth)?);
            } else if is_item(rest) || split_key(rest, line.number)?.is_some() {
                // What stands behind the dash is the first line of a block of its own.
                self.lines[self.at].indent = inner;
                items.push(self.block(inner, depth + 1)?);
            } else {
                self.at += 1;
                items.push(self.value(rest, &line, indent)?);
            }
        }
        Ok(Value::Array(items))
    }

    fn mapping(&mut self, indent: usize, depth: usize) -> Result<Value, String> {
        let mut map = Map::new();
        loop {
            self.skip_blank();
            let Some(line) = self.peek().filter(|l| l.indent == indent && !is_end(l.raw)) else { break };
            let Some((key, rest)) = split_key(line.text(), line.number)? else {
                return Err(line.error("neither `key: value` nor `- item`; a long value goes in quotes or behind `|`"));
            };
            self.at += 1;
            let value = if strip_comment(rest).is_empty() {
                self.skip_blank();
                match self.peek() {
                    // A list may stand at its key's own indentation.
                    Some(next) if next.indent == indent && is_item(next.text()) => self.sequence(indent, depth + 1)?,
                    _ => self.nested(indent, depth)?,
                }
            } else {
                self.value(rest, &line, indent)?
            };
            if map.insert(key.clone(), value).is_some() {
                return Err(line.error(&format!("`{key}` stands here twice")));
            }
        }
        if let Some(line) = self.peek().filter(|l| l.indent > indent) {
            return Err(line.error("indented more than the line before it"));
        }
        Ok(Value::Object(map))
    }

    /// The deeper block that follows, or null when there is none.
    fn nested(&mut self, indent: usize, depth: usize) -> Result<Value, String> {
        self.skip_blank();
        match self.peek() {
            Some(line) if line.indent > indent && !is_end(line.raw) => self.block(line.indent, depth + 1),
            _ => Ok(Value::Null),
        }
    }

    /// What stands behind a key or a dash on its line.
    fn value(&mut self, rest: &str, line: &Line<'_>, indent: usize) -> Result<Value, String> {
        match rest.chars().next() {
            Some(kind @ ('|' | '>')) => self.text_block(kind == '>', strip_comment(rest), line, indent),
            _ => scalar(strip_comment(rest), line),
        }
    }

    /// `|` keeps lines, `>` joins them; `-` drops the last newline, `+` keeps all.
    fn text_block(&mut self, fold: bool, head: &str, line: &Line<'_>, indent: usize) -> Result<Value, String> {
        let chomp = match &head[1..] {
            "" | "-" | "+" => &head[1..],
            _ => return Err(line.error("only `|`, `|-`, `|+`, `>`, `>-` and `>+` are understood")),
        };
        let mut body: Vec<&str> = Vec::new();
        let mut inner = None;
        while let Some(next) = self.peek() {
            let blank = next.raw.trim().is_empty();
            if !blank && next.indent <= indent {
                break;
            }
            if !blank && inner.is_none() {
                inner = Some(next.indent);
            }
            let cut = inner.unwrap_or(0);
            if !blank && next.indent < cut {
                return Err(next.error("indented less than the text's first line"));
            }
            body.push(if blank { "" } else { &next.raw[cut..] });
            self.at += 1;
        }
        let kept = body.iter().rposition(|l| !l.is_empty()).map_or(0, |at| at + 1);
        let (body, extra) = body.split_at(kept);
        let mut text = if fold { folded(body) } else { body.join("\n") };
        match chomp {
            "-" => {}
            "+" => text.push_str(&"\n".repeat(extra.len() + usize::from(!body.is_empty()))),
            _ if body.is_empty() => {}
            _ => text.push('\n'),
        }
        Ok(Value::String(text))
    }
}

fn folded(lines: &[&str]) -> String {
    let mut text = String::new();
    let mut gap = 0;
    for line in lines {
        if line.is_empty() {
            gap += 1;
            continue;
        }
        if !text.is_empty() {
            text.push_str(&if gap == 0 { " ".to_string() } else { "\n".repeat(gap) });
        }
        gap = 0;
        text.push_str(line);
    }
    text
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

fn is_end(raw: &str) -> bool {
    raw.starts_with("---") || raw.trim_end() == "..."
}

/// `key: rest`; the key may be quoted. `None` when the line is no such thing.
fn split_key(text: &str, number: usize) -> Result<Option<(String, &str)>, String> {
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let Some(end) = end_of_quoted(text, quote) else { return Ok(None) };
        let Some(rest) = text[end..].trim_start().strip_prefix(':') else { return Ok(None) };
        let line = Line { number, indent: 0, raw: text };
        let key = quoted(&text[..end], quote, &line)?;
        return Ok(Some((key, rest.trim_start())));
    }
    if text.starts_with(['{', '[', '&', '*', '!', '|', '>', '%', '@', '`']) {
        return Ok(None);
    }
    let mut from = 0;
    while let Some(found) = text[from..].find(':') {
        let at = from + found;
        let rest = &text[at + 1..];
        if text[..at].contains(" #") {
            return Ok(None);
        }
        if rest.is_empty() || rest.starts_with(' ') {
            return Ok(Some((text[..at].trim_end().to_string(), rest.trim_start())));
        }
        from = at + 1;
    }
    Ok(None)
}

/// Where a quoted text that the line begins with ends.
fn end_of_quoted(text: &str, quote: char) -> Option<usize> {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quote == '"' => {
                chars.next();
            }
            c if c == quote => match chars.peek() {
                Some((_, '\'')) if quote == '\'' => {
                    chars.next();
                }
                _ => return Some(at + 1),
            },
            _ => {}
        }
    }
    None
}

/// Text without a comment at its end; quotes are looked through.
fn strip_comment(text: &str) -> &str {
    let start = match text.chars().next() {
        Some('#') => return "",
        Some(quote @ ('"' | '\'')) => end_of_quoted(text, quote).unwrap_or(0),
        _ => 0,
    };
    let end = text[start..].find(" #").map_or(text.len(), |at| start + at);
    text[..end].trim_end()
}

fn scalar(text: &str, line: &Line<'_>) -> Result<Value, String> {
    let first = text.chars().next();
    match first {
        Some('&' | '*' | '!') => Err(line.error("anchors, aliases and tags are not understood; write the value itself")),
        Some('{' | '[') => {
            let mut flow = Flow { rest: text, line, depth: 0 };
            let value = flow.value()?;
            match flow.rest.trim().is_empty() {
                true => Ok(value),
                false => Err(line.error("something stands behind the bracket that ends the value")),
            }
        }
        Some(quote @ ('"' | '\'')) => match end_of_quoted(text, quote) {
            Some(end) if end == text.len() => quoted(text, quote, line).map(Value::String),
            _ => Err(line.error("the quotes do not end with the line")),
        },
        _ => Ok(plain(text)),
    }
}

fn quoted(text: &str, quote: char, line: &Line<'_>) -> Result<String, String> {
    if quote == '\'' {
        return Ok(text[1..text.len() - 1].replace("''", "'"));
    }
    // JSON's escapes are YAML's, but for a few that manifests do not use.
    serde_json::from_str(text).map_err(|_| line.error("an escape in these quotes is not understood"))
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if numeric && let Ok(n) = text.parse::<i64>() {
        // `0644` is octal where Kubernetes reads it.
        let octal = digits.len() > 1 && digits.starts_with('0');
        return i64::from_str_radix(digits, 8).ok().filter(|_| octal).unwrap_or(n).into();
    }
    if let Some(octal) = digits.strip_prefix("0o").and_then(|d| i64::from_str_radix(d, 8).ok()) {
        return octal.into();
    }
    if let Some(hex) = digits.strip_prefix("0x").and_then(|d| i64::from_str_radix(d, 16).ok()) {
        return hex.into();
    }
    let float = || text.parse::<f64>().ok().and_then(Number::from_f64);
    let looks = numeric && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    match float().filter(|_| looks) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_manifest_as_people_write_it() {
        let text = r#"
# a comment
---
apiVersion: v1
kind: Pod
metadata:
  name: web   # behind a value
  labels: {app: web, "a/b": 'it''s', n: 1}
  annotations:
    note: |
      two
        lines

    folded: >-
      one
      line
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 5
  containers:
  - name: c
    image: "hub.limpet/busybox:1"
    command: [sh, -c, "echo $X; sleep 1"]
    env:
    - name: X
      value: "1"
    -
      name: EMPTY
      value:
    args:
      - --url=http://x:80/#y
      - - nested
        - 2
    ports:
    - {containerPort: 80, name: http}
    securityContext: {}
  volumes:
  - name: v
    hostPath: {path: /tmp}
    mode: 0644
  ratio: 0.5
"#;
        let want = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web", "labels": {"app": "web", "a/b": "it's", "n": 1},
                "annotations": {"note": "two\n  lines\n", "folded": "one line"},
            },
            "spec": {
                "hostNetwork": true, "terminationGracePeriodSeconds": 5,
                "containers": [{
                    "name": "c", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", "echo $X; sleep 1"],
                    "env": [{"name": "X", "value": "1"}, {"name": "EMPTY", "value": null}],
                    "args": ["--url=http://x:80/#y", ["nested", 2]],
                    "ports": [{"containerPort": 80, "name": "http"}], "securityContext": {},
                }],
                "volumes": [{"name": "v", "hostPath": {"path": "/tmp"}, "mode": 0o644}],
                "ratio": 0.5,
            },
        });
        assert_eq!(parse(text).unwrap(), want);
        assert_eq!(parse(&want.to_string()).unwrap(), want, "JSON on one line is YAML too");
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        for (text, want) in [
            ("a: 1\na: 2", "line 2: `a` stands here twice"),
            ("a: &x 1", "line 1: anchors, aliases and tags"),
            ("a: *x", "line 1: anchors, aliases and tags"),
            ("a: !!str 1", "line 1: anchors"),
            ("a: 1\n---\nb: 2", "line 2: a second document"),
            ("a: one\n  two", "line 2: indented more"),
            ("a:\n  b: 1\n c: 2", "line 3: "),
            ("a: \"open", "line 1: the quotes do not end"),
            ("a: [1, 2", "line 1: the bracket does not end"),
            ("\ta: 1", "line 1: indent with blanks"),
            ("- a\nb: 1", "line 2: this line does not belong"),
            ("a: |9\n  x", "line 1: only `|`"),
        ] {
            let got = parse(text).unwrap_err();
            assert!(got.starts_with(want), "{text:?}: {got}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse(&format!("a: {deep}")).is_err());
        for text in ["", "#", "---", "a", "'", "\"", "- ", ":", "a:b", "? x", "{", "]", "\u{fffd}: ü"] {
            let _ = parse(text);
        }
    }
}
