//! PEM, both ways.
//!
//! In: text with one or more blocks, or bytes. Out: the bytes of the first block, or text. Source: RFC 7468.
//! Never: more than is in the text.

use alloc::{format, string::String, vec::Vec};
use base64::{Engine, engine::general_purpose::STANDARD};

pub fn first(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (_, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    STANDARD.decode(body).ok()
}

pub fn text(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = (0..body.len()).step_by(64).map(|at| &body[at..(at + 64).min(body.len())]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for len in [0, 1, 47, 48, 49, 500] {
            let bytes = alloc::vec![7; len];
            assert_eq!(first(&text("X", &bytes)).as_deref(), Some(&bytes[..]));
        }
        assert_eq!(first("-----BEGIN X-----\n!!\n-----END X-----"), None);
        assert_eq!(first("-----BEGIN X-----\nAAAA"), None);
    }
}
