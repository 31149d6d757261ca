//! Expressions that are ready to run.
//!
//! In: text, variables with their types, the type that must come out. Out: a `Program`, or what is wrong with the
//! text in cel-go's words; later a value within a budget. Never: runs what was not checked.

use super::ast::Expr;
use super::check::{self, Messages, Scope};
use super::cost;
use super::eval::{self, Meter, Outcome, Variables};
use super::issue::{Issue, show_all};
use super::parser;
use super::types::{Decl, Type};

/// The variables of an expression.
#[derive(Debug, Clone, Default)]
pub struct Env {
    pub variables: Vec<(String, Decl)>,
}

#[derive(Debug, Clone)]
pub struct Program {
    expr: Expr,
    pub type_: Type,
    pub text: String,
}

impl Env {
    pub fn with(mut self, name: &str, decl: Decl) -> Self {
        self.variables.push((name.to_owned(), decl));
        self
    }

    fn scope(&self) -> Scope {
        self.variables
            .iter()
            .map(|(name, decl)| (name.clone(), decl.type_.clone()))
            .collect()
    }
}

impl Program {
    /// Reads and checks an expression. The error is one text with all issues.
    pub fn compile(text: &str, env: &Env) -> Result<Self, String> {
        Self::compile_with(text, env, &|_| None)
    }

    /// `messages` are the types that `Name{…}` makes.
    pub fn compile_with(text: &str, env: &Env, messages: Messages<'_>) -> Result<Self, String> {
        let expr = parser::parse(text).map_err(|issue: Issue| issue.show(text))?;
        let type_ = check::check(&expr, &env.scope(), messages)
            .map_err(|issues| show_all(&issues, text))?;
        Ok(Self {
            expr,
            type_,
            text: text.to_owned(),
        })
    }

    /// Whether a variable is read.
    pub fn reads(&self, variable: &str) -> bool {
        self.expr.names(variable)
    }

    /// The texts that are written in it, in order.
    pub fn texts(&self) -> Vec<String> {
        self.expr.texts()
    }

    /// Whether its value is, or may turn out to be, of this type.
    pub fn gives(&self, wanted: &Type) -> bool {
        self.type_ == *wanted || self.type_ == Type::Dyn
    }

    /// The most that a run can cost.
    pub fn estimate(&self, env: &Env, unknown: u64) -> u64 {
        cost::estimate(&self.expr, &env.variables, unknown)
    }

    pub fn run(&self, variables: &dyn Variables, meter: &mut Meter) -> Outcome {
        eval::run(&self.expr, variables, meter)
    }
}
