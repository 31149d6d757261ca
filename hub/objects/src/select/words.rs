//! Checks of label keys and values, with Kubernetes' explanations.
//!
//! In: a text. Out: what is wrong with it, empty when nothing.
//! Never: stops at the first finding.

pub const NAME_MAX: usize = 63;
pub const SUBDOMAIN_MAX: usize = 253;

const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
    an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' \
    or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', \
    regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
    or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation \
    is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
    must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation \
    is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

/// A label key, annotation key, finalizer or resource name: `[prefix/]name`.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                findings.push("prefix part must be non-empty".to_string());
            } else {
                findings.extend(dns1123_subdomain(prefix).into_iter().map(|f| format!("prefix part {f}")));
            }
            name
        }
        _ => {
            let more = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {QUALIFIED} {more}")];
        }
    };
    if name.is_empty() {
        findings.push("name part must be non-empty".into());
    } else if name.len() > NAME_MAX {
        findings.push(format!("name part must be no more than {NAME_MAX} characters"));
    }
    if !word(name, is_qualified, false) {
        findings.push(format!("name part {QUALIFIED}"));
    }
    findings
}

pub fn label_value(text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if text.len() > NAME_MAX {
        findings.push(format!("must be no more than {NAME_MAX} characters"));
    }
    if !word(text, is_qualified, true) {
        findings.push(LABEL_VALUE.into());
    }
    findings
}

pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        findings.push(format!("must be no more than {SUBDOMAIN_MAX} characters"));
    }
    if !text.split('.').all(|part| word(part, is_dns, false)) {
        findings.push(SUBDOMAIN.into());
    }
    findings
}

pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if text.len() > NAME_MAX {
        findings.push(format!("must be no more than {NAME_MAX} characters"));
    }
    if !word(text, is_dns, false) {
        findings.push(LABEL.into());
    }
    findings
}

fn is_qualified(c: u8, edge: bool) -> bool {
    c.is_ascii_alphanumeric() || (!edge && b"-_.".contains(&c))
}

fn is_dns(c: u8, edge: bool) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || (!edge && c == b'-')
}

fn word(text: &str, allowed: fn(u8, bool) -> bool, empty: bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            allowed(*first, true) && allowed(*last, true) && bytes.iter().all(|c| allowed(*c, false))
        }
        _ => empty,
    }
}
