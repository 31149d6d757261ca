//! What is wrong with an expression, as cel-go shows it.
//!
//! In: a place and a reason. Out: `ERROR: <input>:1:6: …` with the line and a mark under it.
//! Never: shows more than one line of the text.

use super::ast::Pos;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    pub pos: Pos,
    pub why: String,
}

impl Issue {
    pub fn new(pos: Pos, why: impl Into<String>) -> Self {
        Self {
            pos,
            why: why.into(),
        }
    }

    /// The issue with the line of `text` in which it is.
    pub fn show(&self, text: &str) -> String {
        let at = (self.pos as usize).min(text.len());
        let before = text.get(..at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        let whole = text[begin..].lines().next().unwrap_or_default();
        let column = before[begin..].chars().count();
        let mark = format!("{}^", ".".repeat(column));
        format!(
            "ERROR: <input>:{line}:{}: {}\n | {whole}\n | {mark}",
            column + 1,
            self.why
        )
    }
}

/// All issues, as cel-go joins them.
pub fn show_all(issues: &[Issue], text: &str) -> String {
    issues
        .iter()
        .map(|issue| issue.show(text))
        .collect::<Vec<_>>()
        .join("\n")
}
