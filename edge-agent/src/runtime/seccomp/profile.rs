//! Seccomp profiles as data, and reading them from the JSON of the OCI runtime specification.
//!
//! In: a file of the node (`seccompProfile.type: Localhost`). Out: a `Profile`, or a sentence why not.
//! Never: accepts an action, a comparison or a flag that the program would not carry out.

use super::calls;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Calls that one profile may name, and tests of one rule.
const NAMES_MAX: usize = 4096;
const TESTS_MAX: usize = 12;
const CASES_MAX: usize = 64;

/// What the kernel is told: the value that a filter returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Action(pub u32);

impl Action {
    pub const ALLOW: Action = Action(0x7fff_0000);
    const LOG: Action = Action(0x7ffc_0000);
    const KILL_PROCESS: Action = Action(0x8000_0000);
    const KILL_THREAD: Action = Action(0);

    pub const fn errno(errno: i32) -> Action {
        Action(0x0005_0000 | (errno as u32 & 0xffff))
    }

    fn entry(self, names: &[impl AsRef<str>], tests: &[Test]) -> Value {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let mut entry = json!({ "names": names, "action": "SCMP_ACT_ALLOW" });
        if self != Action::ALLOW {
            entry["action"] = "SCMP_ACT_ERRNO".into();
            entry["errnoRet"] = (self.0 & 0xffff).into();
        }
        if !tests.is_empty() {
            entry["args"] = json!(tests);
        }
        entry
    }

    fn parse(word: &str, errno: Option<u32>) -> Result<Action, String> {
        let errno = errno.unwrap_or(libc::EPERM as u32);
        if errno > 4095 {
            return Err(format!("errnoRet {errno} is no error number"));
        }
        Ok(match word {
            "SCMP_ACT_ALLOW" => Action::ALLOW,
            "SCMP_ACT_LOG" => Action::LOG,
            "SCMP_ACT_ERRNO" => Action::errno(errno as i32),
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KILL_THREAD,
            "SCMP_ACT_KILL_PROCESS" => Action::KILL_PROCESS,
            "SCMP_ACT_TRAP" => Action(0x0003_0000),
            "SCMP_ACT_TRACE" => Action(0x7ff0_0000 | errno),
            other => return Err(format!("action \"{other}\" is not supported")),
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    /// `argument & value == datum`
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// A test of one argument of a call, all 64 bits of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Test {
    #[serde(rename = "index")]
    pub argument: u32,
    pub op: Op,
    pub value: u64,
    #[serde(rename = "valueTwo", default)]
    pub datum: u64,
}

/// When all tests hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    pub tests: Vec<Test>,
    pub then: Action,
}

/// What happens to one call: the first case that holds, `otherwise`, or what the profile does by default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rule {
    pub cases: Vec<Case>,
    pub otherwise: Option<Action>,
}

impl Rule {
    pub fn always(action: Action) -> Rule {
        Rule { cases: Vec::new(), otherwise: Some(action) }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    pub default: Action,
    /// Of seccomp(2).
    pub flags: u32,
    pub calls: BTreeMap<Cow<'static, str>, Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Test>>,
}

impl Profile {
    pub fn new(default: Action) -> Profile {
        Profile { default, flags: 0, calls: BTreeMap::new() }
    }

    /// Of two words about one call the first counts; cases add up.
    pub fn add(&mut self, name: impl Into<Cow<'static, str>>, rule: Rule) {
        let known = self.calls.entry(name.into()).or_default();
        known.cases.extend(rule.cases);
        known.otherwise = known.otherwise.or(rule.otherwise);
    }

    /// As the OCI runtime specification writes it, for runtimes that load it themselves. Of the actions only those that
    /// profiles of our own have: to allow, or to answer with an error.
    pub fn to_json(&self) -> Value {
        let mut allowed: Vec<&str> = Vec::new();
        let mut entries: Vec<Value> = Vec::new();
        for (name, rule) in &self.calls {
            for case in &rule.cases {
                entries.push(case.then.entry(&[name], &case.tests));
            }
            match rule.otherwise {
                Some(Action::ALLOW) => allowed.push(name),
                Some(action) => entries.push(action.entry(&[name], &[])),
                None => {}
            }
        }
        entries.push(Action::ALLOW.entry(&allowed, &[]));
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": self.default.0 & 0xffff, "syscalls": entries })
    }

    pub fn parse(text: &[u8]) -> Result<Profile, String> {
        let document: Document = serde_json::from_slice(text).map_err(|err| err.to_string())?;
        let mut profile = Profile::new(Action::parse(&document.default_action, document.default_errno_ret)?);
        for flag in &document.flags {
            profile.flags |= match flag.as_str() {
                // One thread loads it and execve follows: there are no others to synchronise.
                "SECCOMP_FILTER_FLAG_TSYNC" => 0,
                "SECCOMP_FILTER_FLAG_LOG" => 2,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 4,
                other => return Err(format!("flag \"{other}\" is not supported")),
            };
        }
        for entry in document.syscalls {
            let then = Action::parse(&entry.action, entry.errno_ret)?;
            let tests = entry.args.unwrap_or_default();
            if tests.len() > TESTS_MAX || tests.iter().any(|test| test.argument > 5) {
                return Err(format!("a rule tests more than {TESTS_MAX} arguments, or one past the sixth"));
            }
            for name in entry.names {
                if !calls::is_call(&name) {
                    // A newer kernel's call: it falls under the default, which is what the kernel would do with it.
                    continue;
                }
                let rule = match tests.is_empty() {
                    true => Rule::always(then),
                    false => Rule { cases: vec![Case { tests: tests.clone(), then }], otherwise: None },
                };
                profile.add(name, rule);
            }
            if profile.calls.len() > NAMES_MAX || profile.calls.values().any(|rule| rule.cases.len() > CASES_MAX) {
                return Err(format!("more than {CASES_MAX} rules for one call, or more than {NAMES_MAX} calls"));
            }
        }
        Ok(profile)
    }
}
