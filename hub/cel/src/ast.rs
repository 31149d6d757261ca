//! The tree of an expression.
//!
//! In: what the parser found. Out: nodes with their place in the text. Never: knows types or values.

/// Where in the text: a byte offset.
pub type Pos = u32;

#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    pub pos: Pos,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Literal(Literal),
    /// A variable or a type's name, dots included where the parser could not tell.
    Ident(String),
    /// `a.b`, `a.?b`
    Select {
        operand: Box<Expr>,
        field: String,
        optional: bool,
    },
    /// `has(a.b)`
    Has {
        operand: Box<Expr>,
        field: String,
    },
    /// Operators are functions too: `_+_`, `_[_]`, `_&&_`.
    Call {
        function: String,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    /// Elements; the flag is that of `[?x]`.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    /// `Object.spec{replicas: 1}`
    Message {
        name: String,
        fields: Vec<(String, Expr, bool, Pos)>,
    },
    Fold(Box<Fold>),
    /// `cel.bind(x, init, body)`
    Bind {
        name: String,
        init: Box<Expr>,
        body: Box<Expr>,
    },
    /// `a.optMap(x, body)`, `a.optFlatMap(x, body)`
    OptMap {
        target: Box<Expr>,
        name: String,
        body: Box<Expr>,
        flat: bool,
    },
}

/// A macro that walks a list or a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Fold {
    pub how: How,
    pub range: Expr,
    /// The element (of a list), the key (of a map); with two variables the index or key.
    pub name: String,
    /// The value, when there are two variables.
    pub second: Option<String>,
    /// What must hold: the predicate, or the filter of `map` and its like.
    pub test: Option<Expr>,
    pub make: Option<Expr>,
    /// The value's expression of `transformMap`.
    pub pos: Pos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
    TransformList,
    TransformMap,
    TransformMapEntry,
}

impl Expr {
    pub fn new(pos: Pos, kind: Kind) -> Self {
        Self { pos, kind }
    }

    pub fn call(pos: Pos, function: &str, args: Vec<Expr>) -> Self {
        Self::new(
            pos,
            Kind::Call {
                function: function.to_owned(),
                target: None,
                args,
            },
        )
    }

    /// Calls `act` for this node and all below.
    pub fn visit<'a>(&'a self, act: &mut impl FnMut(&'a Expr)) {
        act(self);
        match &self.kind {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } | Kind::Has { operand, .. } => operand.visit(act),
            Kind::Call { target, args, .. } => {
                target.iter().for_each(|target| target.visit(act));
                args.iter().for_each(|arg| arg.visit(act));
            }
            Kind::List(items) => items.iter().for_each(|(item, _)| item.visit(act)),
            Kind::Map(entries) => entries.iter().for_each(|(key, value, _)| {
                key.visit(act);
                value.visit(act);
            }),
            Kind::Message { fields, .. } => {
                fields.iter().for_each(|(_, value, ..)| value.visit(act))
            }
            Kind::Fold(fold) => {
                fold.range.visit(act);
                fold.test
                    .iter()
                    .chain(&fold.make)
                    .for_each(|part| part.visit(act));
            }
            Kind::Bind { init, body, .. } => {
                init.visit(act);
                body.visit(act);
            }
            Kind::OptMap { target, body, .. } => {
                target.visit(act);
                body.visit(act);
            }
        }
    }

    /// All literal strings.
    pub fn texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        self.visit(&mut |expr| {
            if let Kind::Literal(Literal::String(text)) = &expr.kind {
                texts.push(text.clone());
            }
        });
        texts
    }

    /// Whether a variable of this name is read anywhere.
    pub fn names(&self, variable: &str) -> bool {
        let mut found = false;
        self.visit(&mut |expr| {
            found |= matches!(&expr.kind, Kind::Ident(name) if name == variable)
        });
        found
    }
}
