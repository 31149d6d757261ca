//! Text to tokens.
//!
//! In: an expression, hostile. Out: tokens with their places; a place and a reason when it is none.
//! Source: the CEL language definition. Never: recurses.

use super::ast::{Literal, Pos};
use super::issue::Issue;

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Literal(Literal),
    Ident(String),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

const SIGNS: [&str; 27] = [
    "==", "!=", "<=", ">=", "&&", "||", "[?", ".?", "{?", "+", "-", "*", "/", "%", "<", ">", "!",
    "?", ":", ",", ".", "(", ")", "[", "]", "{", "}",
];

pub fn lex(text: &str) -> Result<Vec<(Pos, Token)>, Issue> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.blank();
        let pos = lexer.at as Pos;
        let token = lexer.token()?;
        let end = token == Token::End;
        tokens.push((pos, token));
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn blank(&mut self) {
        loop {
            let rest = self.rest();
            let spaces = rest.len()
                - rest
                    .trim_start_matches([' ', '\t', '\n', '\r', '\x0c'])
                    .len();
            self.at += spaces;
            if !self.rest().starts_with("//") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn wrong(&self, why: impl Into<String>) -> Issue {
        Issue {
            pos: self.at as Pos,
            why: format!("Syntax error: {}", why.into()),
        }
    }

    fn token(&mut self) -> Result<Token, Issue> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        if first.is_ascii_digit()
            || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            return self.number();
        }
        if let Some((raw, bytes, prefix)) = quoted(rest) {
            self.at += prefix;
            return self.string(raw, bytes);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let word = rest[..end].to_owned();
            self.at += end;
            return Ok(match word.as_str() {
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                "in" => Token::Sign("in"),
                _ => Token::Ident(word),
            });
        }
        if first == '`' {
            let Some(end) = rest[1..].find('`') else {
                return Err(self.wrong("an escaped name does not end"));
            };
            let word = rest[1..=end].to_owned();
            self.at += end + 2;
            return Ok(Token::Ident(word));
        }
        match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            None => Err(self.wrong(format!("token recognition error at: '{first}'"))),
        }
    }

    fn number(&mut self) -> Result<Token, Issue> {
        let rest = self.rest();
        if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let end = hex
                .find(|c: char| !c.is_ascii_hexdigit())
                .unwrap_or(hex.len());
            let (digits, after) = hex.split_at(end);
            let unsigned = after.starts_with(['u', 'U']);
            let number =
                u64::from_str_radix(digits, 16).map_err(|_| self.wrong("invalid int literal"))?;
            self.at += 2 + end + usize::from(unsigned);
            return self.integer(number, unsigned);
        }
        let digits = |text: &str| {
            text.find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len())
        };
        let mut end = digits(rest);
        let mut double = false;
        if rest[end..].starts_with('.') && rest[end + 1..].starts_with(|c: char| c.is_ascii_digit())
        {
            end += 1 + digits(&rest[end + 1..]);
            double = true;
        }
        if rest[end..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
            let power = digits(&rest[end + 1 + sign..]);
            if power > 0 {
                end += 1 + sign + power;
                double = true;
            }
        }
        let number = &rest[..end];
        if double {
            let value = number
                .parse()
                .map_err(|_| self.wrong("invalid double literal"))?;
            self.at += end;
            return Ok(Token::Literal(Literal::Double(value)));
        }
        let unsigned = rest[end..].starts_with(['u', 'U']);
        let value = number
            .parse()
            .map_err(|_| self.wrong("invalid int literal"))?;
        self.at += end + usize::from(unsigned);
        self.integer(value, unsigned)
    }

    fn integer(&self, number: u64, unsigned: bool) -> Result<Token, Issue> {
        if unsigned {
            return Ok(Token::Literal(Literal::Uint(number)));
        }
        match i64::try_from(number) {
            Ok(number) => Ok(Token::Literal(Literal::Int(number))),
            // Only as the operand of a minus; the parser knows.
            Err(_) if number == 1 << 63 => Ok(Token::Literal(Literal::Int(i64::MIN))),
            Err(_) => Err(self.wrong("invalid int literal")),
        }
    }

    /// Stands on the quotes.
    fn string(&mut self, raw: bool, bytes: bool) -> Result<Token, Issue> {
        let rest = self.rest();
        let quote = rest[..1].to_owned();
        let triple = rest.starts_with(&quote.repeat(3));
        let mark = if triple { quote.repeat(3) } else { quote };
        let body = &rest[mark.len()..];
        let mut out = Vec::new();
        let mut letters = body.char_indices();
        while let Some((at, letter)) = letters.next() {
            if body[at..].starts_with(&mark) {
                self.at += mark.len() * 2 + at;
                if bytes {
                    return Ok(Token::Literal(Literal::Bytes(out)));
                }
                let text =
                    String::from_utf8(out).map_err(|_| self.wrong("invalid string literal"))?;
                return Ok(Token::Literal(Literal::String(text)));
            }
            if letter == '\\' && !raw {
                let (value, taken) = escape(&body[at + 1..], bytes)
                    .ok_or_else(|| self.wrong("invalid escape in a string"))?;
                out.extend(value);
                for _ in body[at + 1..at + 1 + taken].chars() {
                    letters.next();
                }
            } else if matches!(letter, '\n' | '\r') && !triple {
                break;
            } else {
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        Err(self.wrong("a string does not end"))
    }
}

/// (raw, bytes, length of the prefix) when a string begins here.
fn quoted(rest: &str) -> Option<(bool, bool, usize)> {
    // Not more than this is looked at: it happens at every token.
    let prefix = rest
        .bytes()
        .take(3)
        .position(|byte| matches!(byte, b'"' | b'\''))?;
    let letters = rest[..prefix].to_ascii_lowercase();
    match letters.as_str() {
        "" => Some((false, false, 0)),
        "r" => Some((true, false, 1)),
        "b" => Some((false, true, 1)),
        "rb" | "br" => Some((true, true, 2)),
        _ => None,
    }
}

/// What follows a backslash: its bytes, and how much text it took.
fn escape(text: &str, bytes: bool) -> Option<(Vec<u8>, usize)> {
    let first = text.chars().next()?;
    let simple = |byte: u8| Some((vec![byte], 1));
    let coded = |skip: usize, length: usize, radix: u32| {
        let digits = text.get(skip..skip + length)?;
        let code = u32::from_str_radix(digits, radix).ok()?;
        if bytes && skip + length <= 3 {
            return Some((vec![u8::try_from(code).ok()?], skip + length));
        }
        Some((
            char::from_u32(code)?.to_string().into_bytes(),
            skip + length,
        ))
    };
    match first {
        'n' => simple(b'\n'),
        't' => simple(b'\t'),
        'r' => simple(b'\r'),
        'a' => simple(7),
        'b' => simple(8),
        'f' => simple(12),
        'v' => simple(11),
        '\\' | '\'' | '"' | '`' | '?' => simple(first as u8),
        'x' | 'X' => coded(1, 2, 16),
        'u' if !bytes => coded(1, 4, 16),
        'U' if !bytes => coded(1, 8, 16),
        '0'..='3' => coded(0, 3, 8),
        _ => None,
    }
}
