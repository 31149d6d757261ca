//! Whether this board can be a node, question by question, in the order in which one thing needs another.
//!
//! In: the kernel, the directories, the identity; the network for a few seconds. Out: one line a question, for every
//! "no" what to change; as text or JSON. The exit code is 1 when something must be changed.
//! Never: changes anything, or leaves anything behind.

mod board;
mod hub;

use crate::agent::Paths;
use serde_json::json;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It works, but something is missing that some pods need.
    Note,
    Bad,
}

#[derive(Debug)]
struct Finding {
    area: &'static str,
    verdict: Verdict,
    what: String,
    /// What to do when it is not good.
    remedy: String,
}

fn finding(area: &'static str, good: bool, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    let verdict = if good { Verdict::Good } else { Verdict::Bad };
    Finding { area, verdict, what: what.into(), remedy: remedy.into() }
}

/// As `finding`, for what a node can do without.
fn wish(area: &'static str, good: bool, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    let verdict = if good { Verdict::Good } else { Verdict::Note };
    Finding { area, verdict, what: what.into(), remedy: remedy.into() }
}

pub fn doctor(paths: &Paths, as_json: bool) -> i32 {
    let mut findings = board::look(paths);
    findings.extend(hub::look(paths));
    let bad = findings.iter().any(|f| f.verdict == Verdict::Bad);
    let text = if as_json { json_text(&findings, bad) } else { plain_text(&findings, bad) };
    super::print(&text);
    i32::from(bad)
}

fn plain_text(findings: &[Finding], bad: bool) -> String {
    let mut text = String::new();
    let mut area = "";
    for f in findings {
        if f.area != area {
            area = f.area;
            text.push_str(&format!("{area}\n"));
        }
        let mark = match f.verdict {
            Verdict::Good => "  ok   ",
            Verdict::Note => "  note ",
            Verdict::Bad => "  BAD  ",
        };
        text.push_str(&format!("{mark}{}\n", f.what));
        if f.verdict != Verdict::Good {
            text.push_str(&format!("       -> {}\n", f.remedy));
        }
    }
    text.push_str(if bad { "this board cannot be a node yet: see the lines marked BAD\n" } else { "this board can be a node\n" });
    text
}

fn json_text(findings: &[Finding], bad: bool) -> String {
    let all: Vec<_> = findings
        .iter()
        .map(|f| {
            let verdict = match f.verdict {
                Verdict::Good => "ok",
                Verdict::Note => "note",
                Verdict::Bad => "bad",
            };
            let mut value = json!({"area": f.area, "verdict": verdict, "what": f.what});
            if f.verdict != Verdict::Good {
                value["remedy"] = f.remedy.clone().into();
            }
            value
        })
        .collect();
    format!("{:#}\n", json!({"good": !bad, "findings": all}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_no_has_its_remedy_in_both_forms() {
        let findings = [
            finding("kernel", true, "kernel 6.6", "never shown"),
            wish("kernel", false, "no PSI", "boot with psi=1"),
            finding("disk", false, "0 MiB free", "free some"),
        ];
        let text = plain_text(&findings, true);
        assert_eq!(
            text,
            "kernel\n  ok   kernel 6.6\n  note no PSI\n       -> boot with psi=1\ndisk\n  BAD  0 MiB free\n       -> free some\n\
             this board cannot be a node yet: see the lines marked BAD\n"
        );
        let value: serde_json::Value = serde_json::from_str(&json_text(&findings, true)).unwrap();
        assert_eq!((&value["good"], &value["findings"][2]["remedy"]), (&json!(false), &json!("free some")));
        assert!(value["findings"][0]["remedy"].is_null());
    }
}
