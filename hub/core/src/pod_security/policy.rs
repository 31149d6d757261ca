//! The labels of a namespace that say which level it enforces, audits and warns about.
//!
//! In: labels. Out: a `Policy`; for labels that say nothing sensible the field errors that their writer gets.
//! Never: fails an existing namespace: what cannot be read counts as the strictest level, as upstream decides it.

use limpet_objects::field::FieldError;
use serde_json::Value;

pub const LABEL_PREFIX: &str = "pod-security.kubernetes.io/";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }

    fn parse(text: &str) -> Option<Level> {
        [Level::Privileged, Level::Baseline, Level::Restricted].into_iter().find(|l| l.name() == text)
    }
}

/// `latest`, or the minor of `v1.<minor>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Minor(u32),
    Latest,
}

impl Version {
    /// Whether rules that came with this minor apply.
    pub fn has(self, minor: u32) -> bool {
        self >= Version::Minor(minor)
    }

    fn parse(text: &str) -> Option<Version> {
        if text == "latest" {
            return Some(Version::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain =
            !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
        plain.then(|| minor.parse().ok()).flatten().map(Version::Minor)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelVersion {
    pub level: Level,
    pub version: Version,
}

impl std::fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.version {
            Version::Latest => write!(f, "{}:latest", self.level.name()),
            Version::Minor(minor) => write!(f, "{}:v1.{minor}", self.level.name()),
        }
    }
}

const DEFAULT: LevelVersion = LevelVersion { level: Level::Privileged, version: Version::Latest };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    Audit,
    Warn,
}

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::Enforce, Mode::Audit, Mode::Warn];

    pub fn name(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
            Mode::Warn => "warn",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

impl Policy {
    /// From a namespace's `metadata.labels`.
    pub fn of(labels: &Value) -> Policy {
        let [enforce, audit, warn] = Mode::ALL.map(|mode| read(labels, mode));
        // Who enforces a level and says nothing of warnings, warns about at least that level.
        let given = |mode: Mode| labels[format!("{LABEL_PREFIX}{}", mode.name())].is_string();
        let warn = if !given(Mode::Warn) && enforce.level > warn.level { enforce } else { warn };
        Policy { enforce, audit, warn }
    }

    pub fn of_mode(&self, mode: Mode) -> LevelVersion {
        match mode {
            Mode::Enforce => self.enforce,
            Mode::Audit => self.audit,
            Mode::Warn => self.warn,
        }
    }

    pub fn is_privileged(&self) -> bool {
        Mode::ALL.iter().all(|mode| self.of_mode(*mode).level == Level::Privileged)
    }
}

fn read(labels: &Value, mode: Mode) -> LevelVersion {
    let label = |suffix: &str| labels[format!("{LABEL_PREFIX}{}{suffix}", mode.name())].as_str();
    let unreadable = if mode == Mode::Enforce { Level::Restricted } else { Level::Privileged };
    let level = label("").map_or(DEFAULT.level, |text| Level::parse(text).unwrap_or(unreadable));
    let version = label("-version").and_then(Version::parse).unwrap_or(DEFAULT.version);
    LevelVersion { level, version }
}

/// What is wrong with the labels that a writer gives a namespace; labels that `old` had already are let be.
pub fn check_labels(labels: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for mode in Mode::ALL {
        for suffix in ["", "-version"] {
            let key = format!("{LABEL_PREFIX}{}{suffix}", mode.name());
            let Some(text) = labels[&key].as_str().filter(|text| old[&key].as_str() != Some(text)) else { continue };
            let message = match suffix {
                "" if Level::parse(text).is_none() => "must be one of privileged, baseline, restricted",
                "-version" if Version::parse(text).is_none() => r#"must be "latest" or "v1.x""#,
                _ => continue,
            };
            wrong.push(FieldError::invalid(format!("metadata.labels[{key}]"), text, message));
        }
    }
    wrong
}
