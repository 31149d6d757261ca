//! The syntax of label selectors: words and operators, then requirements.
//!
//! In: the text. Out: requirements sorted by key, or the error that upstream's parser gives.
//! Never: recurses.

use super::{Operator, Requirement, SelectorError, check_key, requirement};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

pub fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { items: scan(text), next: 0 };
    let mut found = parser.selector().map_err(SelectorError)?;
    found.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

fn token_of(word: &str) -> Option<Token> {
    Some(match word {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => return None,
    })
}

fn special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn scan(text: &str) -> Vec<(Token, String)> {
    let mut items = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', '\r', '\n']);
    while let Some(first) = rest.chars().next() {
        let taken = if special(first) { scan_special(rest, &mut items) } else { scan_word(rest, &mut items) };
        rest = rest[taken..].trim_start_matches([' ', '\t', '\r', '\n']);
    }
    items.push((Token::End, String::new()));
    items
}

/// The longest known operator wins, as long as every step towards it is known.
fn scan_special(rest: &str, items: &mut Vec<(Token, String)>) -> usize {
    let run = rest.find(|c| !special(c)).unwrap_or(rest.len());
    let longest = (1..=run.min(2)).rev().find_map(|n| token_of(&rest[..n]).map(|t| (n, t)));
    match longest {
        Some((n, token)) => {
            items.push((token, rest[..n].to_string()));
            n
        }
        None => {
            items.push((Token::Error, format!("error expected: keyword found '{}'", &rest[..run])));
            run.max(1)
        }
    }
}

fn scan_word(rest: &str, items: &mut Vec<(Token, String)>) -> usize {
    let end = rest.find(|c: char| special(c) || matches!(c, ' ' | '\t' | '\r' | '\n')).unwrap_or(rest.len());
    let word = &rest[..end];
    items.push((token_of(word).unwrap_or(Token::Identifier), word.to_string()));
    end
}

struct Parser {
    items: Vec<(Token, String)>,
    next: usize,
}

impl Parser {
    /// What comes next where a value may stand: `in` and `notin` are plain words there.
    fn peek(&self) -> (Token, &str) {
        let (token, text) = &self.items[self.next.min(self.items.len() - 1)];
        match token {
            Token::In | Token::NotIn => (Token::Identifier, text),
            token => (*token, text),
        }
    }

    fn take(&mut self) -> (Token, String) {
        let (token, text) = self.peek();
        let taken = (token, text.to_string());
        self.next += 1;
        taken
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut found = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {
                    found.push(self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?);
                    match self.take() {
                        (Token::End, _) => return Ok(found),
                        (Token::Comma, _) => match self.peek() {
                            (Token::Identifier | Token::Not, _) => {}
                            (_, text) => {
                                return Err(format!("found '{text}', expected: identifier after ','"));
                            }
                        },
                        (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(found),
                (_, text) => {
                    return Err(format!("found '{text}', expected: !, identifier, or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.take();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.take();
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        check_key(&key).map_err(|e| e.0)?;
        if negated {
            return requirement(&key, Operator::DoesNotExist, Vec::new()).map_err(|e| e.0);
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return requirement(&key, Operator::Exists, Vec::new()).map_err(|e| e.0);
        }
        let (operator_token, text) = self.items[self.next.min(self.items.len() - 1)].clone();
        self.next += 1;
        let operator = match operator_token {
            Token::In | Token::Equals | Token::DoubleEquals => Operator::In,
            Token::NotIn | Token::NotEquals => Operator::NotIn,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            _ => return Err(format!("found '{text}', expected: {OPERATORS}")),
        };
        let values = match operator_token {
            Token::In | Token::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        requirement(&key, operator, values).map_err(|e| e.0)
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.take() {
            (Token::Identifier, text) => Ok(text),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.take() {
            (Token::Open, _) => {}
            (_, text) => return Err(format!("found '{text}' expected: '('")),
        }
        match self.peek() {
            (Token::Identifier | Token::Comma, _) => {}
            (Token::Close, _) => {
                self.take();
                return Ok(Vec::new());
            }
            (_, text) => return Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
        let values = self.list()?;
        match self.take() {
            (Token::Close, _) => Ok(values),
            (_, text) => Err(format!("found '{text}', expected: ')'")),
        }
    }

    /// Up to the closing parenthesis; nothing between two commas is the empty value.
    fn list(&mut self) -> Result<Vec<String>, String> {
        let mut values = Vec::new();
        loop {
            match self.take() {
                (Token::Identifier, text) => {
                    values.push(text);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            values.push(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            self.take();
                            values.push(String::new());
                        }
                        _ => {}
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }
}
