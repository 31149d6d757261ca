//! Bootstrap tokens: `<id>.<secret>`, kept in Secrets of kube-system.
//!
//! In: a bearer token, the store. Out: `system:bootstrap:<id>` in `system:bootstrappers` and the groups that the Secret names.
//! Source: the Kubernetes page "Authenticating with Bootstrap Tokens". Never: another group than bootstrappers', whatever the
//! Secret says; compares the secret letter by letter.

use super::user::{AUTHENTICATED, User};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use limpet_objects::time;
use limpet_store::{Key, Store};
use serde_json::Value;
use sha2::{Digest, Sha256};

const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const GROUP_BYTES_MAX: usize = 256;

/// `None`: the token is none of these, or not good any more; whoever looks for it learns no more.
pub fn user(store: &Store, token: &str, now: Timestamp) -> Option<User> {
    let (id, secret) = token.split_once('.')?;
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if id.len() != 6 || secret.len() != 16 || !is_plain(id) || !is_plain(secret) {
        return None;
    }
    let record = store.get(&Key::new("/secrets", "kube-system", &format!("bootstrap-token-{id}")))?;
    let object: Value = serde_json::from_slice(&record.bytes).ok()?;
    let field = |name: &str| {
        let bytes = BASE64_STANDARD.decode(object["data"][name].as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    let same = |own: Option<String>, asked: &str| own.is_some_and(|own| Sha256::digest(own) == Sha256::digest(asked));
    let lives = object["type"] == TYPE && object["metadata"]["deletionTimestamp"].is_null();
    if !lives || !same(field("token-secret"), secret) || field("token-id").as_deref() != Some(id) {
        return None;
    }
    let ends = field("expiration").filter(|text| !text.is_empty());
    if ends.is_some_and(|text| time::parse(&text).is_none_or(|ends| ends <= now)) {
        return None;
    }
    if field("usage-bootstrap-authentication").as_deref() != Some("true") {
        return None;
    }
    let extra = field("auth-extra-groups").unwrap_or_default();
    let mut groups: Vec<String> = extra.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect();
    if !groups.iter().all(|group| is_group(group)) {
        tracing::warn!(id, "a bootstrap token names a group that is none of bootstrappers");
        return None;
    }
    groups.push(GROUP.into());
    groups.sort();
    groups.dedup();
    groups.push(AUTHENTICATED.into());
    Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
}

/// `system:bootstrappers:` and letters, digits, dashes and colons, ending in one of the first two.
fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    rest.len() <= GROUP_BYTES_MAX
        && rest.bytes().all(|b| is_word(b) || b == b':' || b == b'-')
        && rest.bytes().last().is_some_and(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups() {
        for (group, expect) in [
            ("system:bootstrappers:boards", true),
            ("system:bootstrappers:a:b-1", true),
            ("system:bootstrappers:", false),
            ("system:bootstrappers:a-", false),
            ("system:bootstrappers:A", false),
            ("system:bootstrappers", false),
            ("system:masters", false),
        ] {
            assert_eq!(is_group(group), expect, "{group}");
        }
    }
}
