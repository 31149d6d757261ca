//! What names, labels and keys may look like, in Kubernetes' words (apimachinery `util/validation`).
//!
//! In: text. Out: what is wrong with it; an empty list is good. Also the suffix of generated names.
//! Never: makes randomness: the bytes are an argument.

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;
/// What `generateName` keeps of its base, so that base and suffix fit a label.
const GENERATED_BASE_MAX: usize = 58;
const SUFFIX_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters \
 or '-', and must \
     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
 characters, '-' or \
     '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
     validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS1035_RULE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', \
 start with an \
     alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex \
     used for \
     validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, \
 '-', '_' or '.', \
     and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or \
     '12345', regex used for \
     validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const NAME_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and \
 end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const KEY_RULE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
 (e.g. 'key.name',  or \
     'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = bytes.iter().all(|byte| lower(*byte) || *byte == b'-');
    inner && bytes.first().is_some_and(|byte| lower(*byte)) && bytes.last().is_some_and(|byte| lower(*byte))
}

/// RFC 1123 label.
pub fn dns_label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_MAX {
        wrong.push(too_long(LABEL_MAX));
    }
    if !is_label(text) {
        wrong.push(LABEL_RULE.to_owned());
    }
    wrong
}

/// RFC 1123 subdomain: what most names are.
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        wrong.push(too_long(SUBDOMAIN_MAX));
    }
    if !text.split('.').all(is_label) {
        wrong.push(SUBDOMAIN_RULE.to_owned());
    }
    wrong
}

/// DNS-1035 label: names of Services.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_MAX {
        wrong.push(too_long(LABEL_MAX));
    }
    if !(is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase())) {
        wrong.push(DNS1035_RULE.to_owned());
    }
    wrong
}

/// Names that are one segment of a path (roles and their bindings, for instance `system:node`).
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    let mut wrong = Vec::new();
    for part in ['/', '%'] {
        if text.contains(part) {
            wrong.push(format!("may not contain '{part}'"));
        }
    }
    wrong
}

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    inner && edge(bytes.first()) && edge(bytes.last())
}

/// Keys of labels: `name` or `prefix/name`.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(dns_subdomain(prefix).into_iter().map(|text| format!("prefix part {text}")));
            }
            name
        }
        _ => {
            let rule = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {NAME_RULE} {rule}")];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        wrong.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !is_name_part(name) {
        wrong.push(format!("name part {NAME_RULE}"));
    }
    wrong
}

/// Values of labels.
pub fn label_value(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_MAX {
        wrong.push(too_long(LABEL_MAX));
    }
    if !text.is_empty() && !is_name_part(text) {
        wrong.push(VALUE_RULE.to_owned());
    }
    wrong
}

/// Keys of ConfigMaps and Secrets.
pub fn config_key(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        wrong.push(too_long(SUBDOMAIN_MAX));
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(legal) {
        wrong.push(KEY_RULE.to_owned());
    } else if text == "." {
        wrong.push("must not be '.'".to_owned());
    } else if text == ".." {
        wrong.push("must not be '..'".to_owned());
    } else if text.starts_with("..") {
        wrong.push("must not start with '..'".to_owned());
    }
    wrong
}

/// Names of environment variables: any printable ASCII but `=`.
pub fn env_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .to_owned(),
    ]
}

/// Names of ports (IANA_SVC_NAME).
pub fn port_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut rule = |broken: bool, words: &str| {
        if broken {
            wrong.push(words.to_owned());
        }
    };
    rule(text.len() > 15, "must be no more than 15 characters");
    let legal = text.bytes().all(|byte| lower(byte) || byte == b'-');
    rule(!legal || text.is_empty(), "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    rule(!text.bytes().any(|byte| byte.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    rule(text.contains("--"), "must not contain consecutive hyphens");
    rule(text.starts_with('-') || text.ends_with('-'), "must not begin or end with a hyphen");
    wrong
}

/// Port numbers.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) {
        Vec::new()
    } else {
        vec!["must be between 1 and 65535, inclusive".to_owned()]
    }
}

/// The five letters that complete `generateName`, from random bytes. Vowels are left out so that no
/// words appear.
pub fn suffix(random: [u8; 5]) -> String {
    random.iter().map(|byte| char::from(SUFFIX_LETTERS[usize::from(*byte) % SUFFIX_LETTERS.len()])).collect()
}

/// `generateName` and a suffix, short enough to be a label.
pub fn generated(base: &str, suffix: &str) -> String {
    let end =
        (0..=base.len().min(GENERATED_BASE_MAX)).rev().find(|at| base.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{suffix}", &base[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_names() {
        type Rule = fn(&str) -> Vec<String>;
        let long = "a".repeat(64);
        let cases: &[(Rule, &str, bool)] = &[
            (dns_label, "web-1", true),
            (dns_label, "Web", false),
            (dns_label, "a.b", false),
            (dns_label, &long, false),
            (dns_label, "-a", false),
            (dns_label, "", false),
            (dns_subdomain, "a.b-c.d", true),
            (dns_subdomain, "a..b", false),
            (dns_subdomain, "ä", false),
            (dns1035_label, "1a", false),
            (dns1035_label, "a1", true),
            (qualified_name, "app.kubernetes.io/name", true),
            (qualified_name, "a/b/c", false),
            (qualified_name, "/b", false),
            (qualified_name, "A_b.c", true),
            (label_value, "", true),
            (label_value, "x y", false),
            (config_key, "app.conf", true),
            (config_key, "..a", false),
            (config_key, "a/b", false),
            (env_name, "my.VAR-1", true),
            (env_name, "a=b", false),
            (port_name, "http", true),
            (port_name, "80", false),
            (port_name, "a--b", false),
            (path_segment, "system:node", true),
            (path_segment, "a/b", false),
        ];
        for (rule, text, good) in cases {
            assert_eq!(rule(text).is_empty(), *good, "{text:?}: {:?}", rule(text));
        }
    }

    #[test]
    fn generates_names_that_fit() {
        assert_eq!(suffix([0, 1, 26, 27, 255]), "bc9bq".to_owned());
        assert_eq!(generated("web-", "abcde"), "web-abcde");
        assert_eq!(generated(&"é".repeat(60), "abcde").len(), 63);
    }
}
