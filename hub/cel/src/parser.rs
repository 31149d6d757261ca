//! Tokens to a tree, macros expanded.
//!
//! In: an expression, hostile. Out: the tree, or the first thing that is wrong. Source: the CEL language definition's
//! grammar and macros. Never: nests deeper than `DEPTH_MAX`, or takes a text longer than `TEXT_BYTES_MAX`.

use super::ast::{Expr, Fold, How, Kind, Literal, Pos};
use super::issue::Issue;
use super::lexer::{Token, lex};

pub const TEXT_BYTES_MAX: usize = 100 * 1024;
/// Every walk over a tree is recursive.
pub const DEPTH_MAX: usize = 96;
const NODES_MAX: usize = 20_000;

pub fn parse(text: &str) -> Result<Expr, Issue> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Issue::new(
            0,
            format!(
                "expression code point size exceeds limit: size: {}, limit {TEXT_BYTES_MAX}",
                text.len()
            ),
        ));
    }
    let mut parser = Parser {
        tokens: lex(text)?,
        at: 0,
        depth: 0,
        nodes: 0,
    };
    let expr = parser.ternary()?;
    match parser.peek() {
        Token::End => {}
        other => return Err(parser.unexpected(&other.clone())),
    }
    if depth(&expr, DEPTH_MAX * 2).is_none() {
        return Err(Issue::new(0, "expression recursion limit exceeded"));
    }
    Ok(expr)
}

/// The height of a tree, unless it is above `left`.
fn depth(expr: &Expr, left: usize) -> Option<usize> {
    if left == 0 {
        return None;
    }
    let mut parts: Vec<&Expr> = Vec::new();
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select { operand, .. } | Kind::Has { operand, .. } => parts.push(operand),
        Kind::Call { target, args, .. } => {
            parts.extend(target.as_deref());
            parts.extend(args);
        }
        Kind::List(items) => parts.extend(items.iter().map(|(item, _)| item)),
        Kind::Map(entries) => parts.extend(entries.iter().flat_map(|(key, value, _)| [key, value])),
        Kind::Message { fields, .. } => parts.extend(fields.iter().map(|(_, value, ..)| value)),
        Kind::Fold(fold) => {
            parts.push(&fold.range);
            parts.extend(fold.test.iter().chain(&fold.make));
        }
        Kind::Bind { init, body, .. } => parts.extend([&**init, &**body]),
        Kind::OptMap { target, body, .. } => parts.extend([&**target, &**body]),
    }
    parts.into_iter().try_fold(1, |height, part| {
        Some(height.max(depth(part, left - 1)? + 1))
    })
}

struct Parser {
    tokens: Vec<(Pos, Token)>,
    at: usize,
    depth: usize,
    nodes: usize,
}

type Parsed = Result<Expr, Issue>;

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens
            .get(self.at)
            .map_or(&Token::End, |(_, token)| token)
    }

    fn pos(&self) -> Pos {
        self.tokens.get(self.at).map_or(0, |(pos, _)| *pos)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn takes(&mut self, sign: &str) -> bool {
        let fits = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.at += usize::from(fits);
        fits
    }

    fn needs(&mut self, sign: &str) -> Result<(), Issue> {
        if self.takes(sign) {
            return Ok(());
        }
        let found = self.peek().clone();
        let mut issue = self.unexpected(&found);
        issue.why.push_str(&format!(" expecting '{sign}'"));
        Err(issue)
    }

    fn unexpected(&self, found: &Token) -> Issue {
        let word = match found {
            Token::End => "<EOF>".to_owned(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::Ident(name) => name.clone(),
            Token::Literal(literal) => format!("{literal:?}"),
        };
        Issue::new(
            self.pos(),
            format!("Syntax error: mismatched input '{word}'"),
        )
    }

    fn ident(&mut self) -> Result<String, Issue> {
        match self.next() {
            Token::Ident(name) => Ok(name),
            // Keywords are fine as names of fields.
            Token::Sign("in") => Ok("in".to_owned()),
            Token::Literal(Literal::Bool(value)) => Ok(value.to_string()),
            Token::Literal(Literal::Null) => Ok("null".to_owned()),
            other => {
                self.at -= 1;
                Err(self.unexpected(&other))
            }
        }
    }

    fn enter(&mut self) -> Result<(), Issue> {
        self.depth += 1;
        self.nodes += 1;
        if self.depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Err(Issue::new(
                self.pos(),
                "expression recursion limit exceeded",
            ));
        }
        Ok(())
    }

    fn ternary(&mut self) -> Parsed {
        self.enter()?;
        let condition = self.chain("||", "_||_", Self::and)?;
        let pos = self.pos();
        let expr = if self.takes("?") {
            let yes = self.chain("||", "_||_", Self::and)?;
            self.needs(":")?;
            let no = self.ternary()?;
            Expr::call(pos, "_?_:_", vec![condition, yes, no])
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    /// Long chains become balanced trees, so that they do not nest.
    fn chain(&mut self, sign: &str, function: &str, below: fn(&mut Self) -> Parsed) -> Parsed {
        let mut parts = vec![below(self)?];
        let mut places = Vec::new();
        loop {
            let pos = self.pos();
            if !self.takes(sign) {
                return Ok(balance(parts, &places, function));
            }
            self.nodes += 1;
            if self.nodes > NODES_MAX {
                return Err(Issue::new(pos, "expression recursion limit exceeded"));
            }
            places.push(pos);
            parts.push(below(self)?);
        }
    }

    fn and(&mut self) -> Parsed {
        self.chain("&&", "_&&_", Self::relation)
    }

    fn relation(&mut self) -> Parsed {
        const SIGNS: [&str; 7] = ["==", "!=", "<=", ">=", "<", ">", "in"];
        self.binary(&SIGNS, Self::sum)
    }

    fn sum(&mut self) -> Parsed {
        self.binary(&["+", "-"], Self::product)
    }

    fn product(&mut self) -> Parsed {
        self.binary(&["*", "/", "%"], Self::unary)
    }

    fn binary(&mut self, signs: &[&str], below: fn(&mut Self) -> Parsed) -> Parsed {
        let mut left = below(self)?;
        let mut count = 0;
        loop {
            let pos = self.pos();
            let Some(sign) = signs.iter().find(|sign| self.takes(sign)) else {
                return Ok(left);
            };
            count += 1;
            self.nodes += 1;
            if count > DEPTH_MAX || self.nodes > NODES_MAX {
                return Err(Issue::new(pos, "expression recursion limit exceeded"));
            }
            let right = below(self)?;
            let function = if *sign == "in" {
                "@in".to_owned()
            } else {
                format!("_{sign}_")
            };
            left = Expr::call(pos, &function, vec![left, right]);
        }
    }

    fn unary(&mut self) -> Parsed {
        let pos = self.pos();
        let mut nots = 0;
        while self.takes("!") {
            nots += 1;
        }
        if nots > 0 {
            let expr = self.member()?;
            return Ok(if nots % 2 == 1 {
                Expr::call(pos, "!_", vec![expr])
            } else {
                expr
            });
        }
        let mut minuses = 0;
        while self.takes("-") {
            minuses += 1;
        }
        if minuses == 0 {
            let expr = self.member()?;
            return match &expr.kind {
                Kind::Literal(Literal::Int(i64::MIN)) => {
                    Err(Issue::new(pos, "Syntax error: invalid int literal"))
                }
                _ => Ok(expr),
            };
        }
        if minuses % 2 == 1
            && let Token::Literal(literal @ (Literal::Int(_) | Literal::Double(_))) =
                self.peek().clone()
        {
            self.at += 1;
            let negative = match literal {
                Literal::Int(number) => Literal::Int(number.wrapping_neg()),
                Literal::Double(number) => Literal::Double(-number),
                other => other,
            };
            return self.selections(Expr::new(pos, Kind::Literal(negative)));
        }
        let expr = self.member()?;
        Ok(if minuses % 2 == 1 {
            Expr::call(pos, "-_", vec![expr])
        } else {
            expr
        })
    }

    fn member(&mut self) -> Parsed {
        self.enter()?;
        let primary = self.primary()?;
        let expr = self.selections(primary)?;
        self.depth -= 1;
        Ok(expr)
    }

    fn selections(&mut self, mut expr: Expr) -> Parsed {
        let mut count = 0;
        loop {
            count += 1;
            self.nodes += 1;
            if count > DEPTH_MAX || self.nodes > NODES_MAX {
                return Err(Issue::new(
                    self.pos(),
                    "expression recursion limit exceeded",
                ));
            }
            let pos = self.pos();
            if self.takes(".?") {
                let field = self.ident()?;
                expr = Expr::new(
                    pos,
                    Kind::Select {
                        operand: Box::new(expr),
                        field,
                        optional: true,
                    },
                );
            } else if self.takes(".") {
                let field = self.ident()?;
                expr = if self.takes("(") {
                    let args = self.arguments(")")?;
                    method(pos, expr, field, args)?
                } else {
                    Expr::new(
                        pos,
                        Kind::Select {
                            operand: Box::new(expr),
                            field,
                            optional: false,
                        },
                    )
                };
            } else if self.takes("[?") {
                let index = self.ternary()?;
                self.needs("]")?;
                expr = Expr::call(pos, "_[?_]", vec![expr, index]);
            } else if self.takes("[") {
                let index = self.ternary()?;
                self.needs("]")?;
                expr = Expr::call(pos, "_[_]", vec![expr, index]);
            } else if let Some(name) = message_name(&expr)
                && matches!(self.peek(), Token::Sign("{" | "{?"))
            {
                expr = self.message(expr.pos, name)?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn arguments(&mut self, end: &str) -> Result<Vec<Expr>, Issue> {
        let mut args = Vec::new();
        if self.takes(end) {
            return Ok(args);
        }
        loop {
            args.push(self.ternary()?);
            if self.takes(end) {
                return Ok(args);
            }
            self.needs(",")?;
        }
    }

    fn primary(&mut self) -> Parsed {
        let pos = self.pos();
        match self.next() {
            Token::Literal(literal) => Ok(Expr::new(pos, Kind::Literal(literal))),
            Token::Ident(name) => {
                if self.takes("(") {
                    let args = self.arguments(")")?;
                    return function(pos, name, args);
                }
                if RESERVED.contains(&name.as_str()) {
                    return Err(Issue::new(pos, format!("reserved identifier: {name}")));
                }
                Ok(Expr::new(pos, Kind::Ident(name)))
            }
            Token::Sign("(") => {
                let expr = self.ternary()?;
                self.needs(")")?;
                Ok(expr)
            }
            Token::Sign(open @ ("[" | "[?")) => self.list(pos, open == "[?"),
            Token::Sign(open @ ("{" | "{?")) => self.map(pos, open == "{?"),
            // A leading dot means the root of names, which is where all of ours are.
            Token::Sign(".") => {
                let name = self.ident()?;
                Ok(Expr::new(pos, Kind::Ident(name)))
            }
            other => {
                self.at -= 1;
                Err(self.unexpected(&other))
            }
        }
    }

    fn list(&mut self, pos: Pos, mut optional: bool) -> Parsed {
        let mut items = Vec::new();
        loop {
            if !optional && self.takes("]") {
                return Ok(Expr::new(pos, Kind::List(items)));
            }
            items.push((self.ternary()?, optional));
            if self.takes("]") {
                return Ok(Expr::new(pos, Kind::List(items)));
            }
            self.needs(",")?;
            optional = self.takes("?");
        }
    }

    fn map(&mut self, pos: Pos, mut optional: bool) -> Parsed {
        let mut entries = Vec::new();
        loop {
            if !optional && self.takes("}") {
                return Ok(Expr::new(pos, Kind::Map(entries)));
            }
            let key = self.ternary()?;
            self.needs(":")?;
            entries.push((key, self.ternary()?, optional));
            if self.takes("}") {
                return Ok(Expr::new(pos, Kind::Map(entries)));
            }
            self.needs(",")?;
            optional = self.takes("?");
        }
    }

    fn message(&mut self, pos: Pos, name: String) -> Parsed {
        let mut optional = self.takes("{?");
        if !optional {
            self.needs("{")?;
        }
        let mut fields = Vec::new();
        loop {
            if !optional && self.takes("}") {
                return Ok(Expr::new(pos, Kind::Message { name, fields }));
            }
            let at = self.pos();
            let field = self.ident()?;
            self.needs(":")?;
            fields.push((field, self.ternary()?, optional, at));
            if self.takes("}") {
                return Ok(Expr::new(pos, Kind::Message { name, fields }));
            }
            self.needs(",")?;
            optional = self.takes("?");
        }
    }
}

/// Words that name nothing in an expression (the CEL specification's list), beside its literals and `in`.
#[rustfmt::skip]
pub const RESERVED: [&str; 17] = [
    "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package", "namespace",
    "return", "var", "void", "while",
];

fn balance(mut parts: Vec<Expr>, places: &[Pos], function: &str) -> Expr {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let middle = parts.len() / 2;
    let right = parts.split_off(middle);
    let left = balance(parts, &places[..middle - 1], function);
    let right = balance(right, &places[middle..], function);
    Expr::call(places[middle - 1], function, vec![left, right])
}

/// `Object.spec` in front of a brace names a type.
fn message_name(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select {
            operand,
            field,
            optional: false,
        } => Some(format!("{}.{field}", message_name(operand)?)),
        _ => None,
    }
}

fn simple(expr: &Expr) -> Result<String, Issue> {
    match &expr.kind {
        Kind::Ident(name) => Ok(name.clone()),
        _ => Err(Issue::new(expr.pos, "argument must be a simple name")),
    }
}

fn function(pos: Pos, name: String, mut args: Vec<Expr>) -> Parsed {
    if name == "has" && args.len() == 1 {
        return match args.remove(0).kind {
            Kind::Select { operand, field, .. } => Ok(Expr::new(pos, Kind::Has { operand, field })),
            _ => Err(Issue::new(pos, "invalid argument to has() macro")),
        };
    }
    Ok(Expr::new(
        pos,
        Kind::Call {
            function: name,
            target: None,
            args,
        },
    ))
}

fn method(pos: Pos, target: Expr, name: String, mut args: Vec<Expr>) -> Parsed {
    let own = match &target.kind {
        Kind::Ident(own) => own.as_str(),
        _ => "",
    };
    if own == "cel" && name == "bind" && args.len() == 3 {
        let body = Box::new(args.remove(2));
        let init = Box::new(args.remove(1));
        return Ok(Expr::new(
            pos,
            Kind::Bind {
                name: simple(&args[0])?,
                init,
                body,
            },
        ));
    }
    if own == "optional"
        || own == "math"
        || own == "strings"
        || own == "base64"
        || own == "format"
        || own == "ip"
        || own == "cidr"
        || own == "lists"
        || own == "jsonpatch"
    {
        let function = format!("{own}.{name}");
        if super::signatures::is_function(&function) {
            return Ok(Expr::new(
                pos,
                Kind::Call {
                    function,
                    target: None,
                    args,
                },
            ));
        }
    }
    if matches!(name.as_str(), "optMap" | "optFlatMap") && args.len() == 2 {
        let (flat, body) = (name == "optFlatMap", Box::new(args.remove(1)));
        return Ok(Expr::new(
            pos,
            Kind::OptMap {
                target: Box::new(target),
                name: simple(&args[0])?,
                body,
                flat,
            },
        ));
    }
    fold(pos, target, name, args)
}

fn fold(pos: Pos, target: Expr, name: String, mut args: Vec<Expr>) -> Parsed {
    let (how, variables, filtered) = match (name.as_str(), args.len()) {
        ("all", 2) => (How::All, 1, false),
        ("all", 3) => (How::All, 2, false),
        ("exists", 2) => (How::Exists, 1, false),
        ("exists", 3) => (How::Exists, 2, false),
        ("exists_one" | "existsOne", 2) => (How::ExistsOne, 1, false),
        ("exists_one" | "existsOne", 3) => (How::ExistsOne, 2, false),
        ("filter", 2) => (How::Filter, 1, false),
        ("map", 2) => (How::Map, 1, false),
        ("map", 3) => (How::Map, 1, true),
        ("transformList", 3) => (How::TransformList, 2, false),
        ("transformList", 4) => (How::TransformList, 2, true),
        ("transformMap", 3) => (How::TransformMap, 2, false),
        ("transformMap", 4) => (How::TransformMap, 2, true),
        ("transformMapEntry", 3) => (How::TransformMapEntry, 2, false),
        ("transformMapEntry", 4) => (How::TransformMapEntry, 2, true),
        _ => {
            return Ok(Expr::new(
                pos,
                Kind::Call {
                    function: name,
                    target: Some(Box::new(target)),
                    args,
                },
            ));
        }
    };
    let last = args.pop();
    let makes = !matches!(how, How::All | How::Exists | How::ExistsOne | How::Filter);
    let (test, make) = match (makes, filtered) {
        (false, _) => (last, None),
        (true, true) => (args.pop(), last),
        (true, false) => (None, last),
    };
    let second = if variables == 2 {
        Some(simple(&args[1])?)
    } else {
        None
    };
    let name = simple(&args[0])?;
    Ok(Expr::new(
        pos,
        Kind::Fold(Box::new(Fold {
            how,
            range: target,
            name,
            second,
            test,
            make,
            pos,
        })),
    ))
}
