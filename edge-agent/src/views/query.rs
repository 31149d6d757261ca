//! `/logs/?query=`: the log of a service of the board, by journald or from /var/log, as kubelets with `NodeLogQuery` have it.
//!
//! In: the query of a request. Out: a file, or the words with which journalctl is started.
//! Never: a word for journalctl that is not checked, or one that a shell reads. Source: KEP-2258.

use super::LogFiles;
use limpet_agent_core::clock::{parse_rfc3339, rfc3339};
use std::path::Path;

/// Where journald is, when it runs.
const JOURNAL: &str = "run/systemd/journal/socket";
pub const JOURNALCTL: &str = "/usr/bin/journalctl";
/// What everybody asks nodes for; it is this agent's unit.
const KUBELET: &str = "kubelet";
const OWN_UNIT: &str = "limpet-agent";
const SERVICES_MAX: usize = 16;
const NAME_BYTES_MAX: usize = 256;
const PATTERN_BYTES_MAX: usize = 1024;
const LINES_MAX: u64 = 100_000;

/// What is to be shown.
#[derive(Debug)]
pub enum Found {
    Files(LogFiles),
    /// Arguments for journalctl.
    Journal(Vec<String>),
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    services: Vec<String>,
    files: Vec<String>,
    /// For journalctl only.
    options: Vec<String>,
}

/// `None`: the request asks for no service. The error is a sentence.
pub fn find(query: &str) -> Option<Result<Found, String>> {
    find_below(Path::new("/"), query)
}

fn find_below(root: &Path, query: &str) -> Option<Result<Found, String>> {
    let parsed = parse(query).transpose()?;
    Some(parsed.and_then(|query| open(root, query)))
}

fn parse(query: &str) -> Result<Option<Query>, String> {
    let mut found = Query::default();
    let (mut since, mut until) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value).ok_or_else(|| format!("{key}: broken escapes in \"{value}\""))?;
        let bad = |what: &str| Err(format!("{key}: Invalid value: {value:?}: {what}"));
        let time = || parse_rfc3339(&value).ok_or_else(|| format!("{key}: Invalid value: {value:?}: must be an RFC3339 time"));
        let said = |ms: u64| rfc3339(ms).replace('T', " ").replace('Z', " UTC");
        match key {
            "query" if value.contains('/') => found.files.push(value),
            "query" if !is_service(&value) => return bad("must be the name of a service, or a file below /var/log with a /"),
            "query" => found.services.push(value),
            "sinceTime" => {
                since = Some(time()?);
                found.options.extend(since.map(|ms| format!("--since={}", said(ms))));
            }
            "untilTime" => {
                until = Some(time()?);
                found.options.extend(until.map(|ms| format!("--until={}", said(ms))));
            }
            "tailLines" => match value.parse::<u64>() {
                Ok(n) if n <= LINES_MAX => found.options.push(format!("--lines={n}")),
                _ => return bad("must be between 0 and 100000, inclusive"),
            },
            "boot" => match value.parse::<i32>() {
                Ok(n) if n <= 0 => found.options.push(format!("--boot={n}")),
                _ => return bad("must be 0 or less"),
            },
            "pattern" if value.len() > PATTERN_BYTES_MAX || value.contains('\0') => return bad("must be shorter"),
            "pattern" => found.options.push(format!("--grep={value}")),
            _ => {}
        }
    }
    if since.zip(until).is_some_and(|(since, until)| since > until) {
        return Err("untilTime: Invalid value: must be after `sinceTime`".into());
    }
    match (found.services.len(), found.files.len()) {
        (0, 0) => Ok(None),
        (0, 1) if found.options.is_empty() => Ok(Some(found)),
        (0, 1) => Err("query: a file is shown as it is, without sinceTime, untilTime, tailLines, pattern, boot".into()),
        (1..=SERVICES_MAX, 0) => Ok(Some(found)),
        _ => Err("query: one file, or up to 16 services, and not both".into()),
    }
}

fn is_service(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@".contains(&b);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.starts_with(['-', '.']) && name.bytes().all(plain)
}

fn open(root: &Path, query: Query) -> Result<Found, String> {
    let logs = root.join("var/log");
    if let Some(file) = query.files.first() {
        return LogFiles::open_below(&logs, file).map(Found::Files);
    }
    if root.join(JOURNAL).exists() && root.join(JOURNALCTL.trim_start_matches('/')).exists() {
        let unit = |name: String| format!("--unit={}", if name == KUBELET { OWN_UNIT.into() } else { name });
        let words = ["--utc", "--no-pager", "--output=short-precise"].map(String::from).into_iter();
        return Ok(Found::Journal(words.chain(query.options).chain(query.services.into_iter().map(unit)).collect()));
    }
    let [service] = query.services.as_slice() else {
        return Err("query: journald does not run on this node: one service at a time".into());
    };
    let places = [format!("{service}/{service}.log"), format!("{service}.log"), service.clone()];
    let file = places.iter().find(|place| logs.join(place).is_file());
    let file = file.ok_or_else(|| {
        format!("query: journald does not run on this node, and /var/log has none of {}", places.join(", "))
    })?;
    match query.options.is_empty() {
        true => LogFiles::open_below(&logs, file).map(Found::Files),
        false => Err(format!("query: the log of {service} is a file, which is shown without sinceTime, untilTime, tailLines, \
                              pattern, boot")),
    }
}

/// Of a query's value.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut from) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = from.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |b: u8| char::from(b).to_digit(16);
                let (high, low) = (digit(from.next()?)?, digit(from.next()?)?);
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_checked_word_by_word() {
        let words = "query=kubelet&query=ssh&tailLines=5&sinceTime=2026-01-02T03:04:05Z&boot=-1&pattern=a%20%22b%22%3B";
        let query = parse(words).unwrap().unwrap();
        assert_eq!(query.services, ["kubelet", "ssh"]);
        assert_eq!(query.options, ["--lines=5", "--since=2026-01-02 03:04:05 UTC", "--boot=-1", "--grep=a \"b\";"]);
        assert_eq!(parse("").unwrap(), None);
        assert_eq!(parse("tailLines=5").unwrap(), None, "no service is asked for");
        for (bad, words) in [
            ("query=", "name of a service"),
            ("query=--unit", "name of a service"),
            ("query=a%20b", "name of a service"),
            ("query=a%00", "name of a service"),
            ("query=%zz", "broken escapes"),
            ("query=%ff", "broken escapes"),
            ("query=a&query=/b", "not both"),
            ("query=/a&query=/b", "not both"),
            ("query=/a&tailLines=1", "as it is"),
            ("query=a&tailLines=-1", "between 0"),
            ("query=a&tailLines=100001", "between 0"),
            ("query=a&boot=1", "0 or less"),
            ("query=a&sinceTime=yesterday", "RFC3339"),
            ("query=a&sinceTime=2026-01-02T00:00:00Z&untilTime=2026-01-01T00:00:00Z", "after"),
        ] {
            let err = parse(bad).unwrap_err();
            assert!(err.contains(words), "{bad}: {err}");
        }
        assert!(parse(&format!("query=a&pattern={}", "x".repeat(2000))).is_err());
        assert!(parse(&"query=a&".repeat(17)).is_err());
    }

    #[test]
    fn journald_or_files() {
        let root = std::env::temp_dir().join(format!("limpet-log-query-{}", std::process::id()));
        for dir in ["var/log/chrony", "run/systemd/journal", "usr/bin"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        std::fs::write(root.join("var/log/chrony/chrony.log"), "from chrony").unwrap();
        std::fs::write(root.join("secret"), "no").unwrap();
        let look = |query: &str| match find_below(&root, query).unwrap() {
            Ok(Found::Files(mut file)) => Ok(String::from_utf8(file.next()).unwrap()),
            Ok(Found::Journal(words)) => Ok(words.join("|")),
            Err(why) => Err(why),
        };
        assert_eq!(look("query=chrony").unwrap(), "from chrony");
        assert_eq!(look("query=/chrony/chrony.log").unwrap(), "from chrony");
        assert!(look("query=/../../secret").is_err() && look("query=..").is_err());
        assert!(look("query=none").unwrap_err().contains("none/none.log"));
        assert!(look("query=chrony&tailLines=1").unwrap_err().contains("is a file"));
        assert!(look("query=chrony&query=other").unwrap_err().contains("one service"));
        for file in [JOURNAL, "usr/bin/journalctl"] {
            std::fs::write(root.join(file), "").unwrap();
        }
        assert_eq!(look("query=kubelet&tailLines=3").unwrap(),
            "--utc|--no-pager|--output=short-precise|--lines=3|--unit=limpet-agent");
        assert!(find_below(&root, "x=y").is_none());
        std::fs::remove_dir_all(root).unwrap();
    }
}
