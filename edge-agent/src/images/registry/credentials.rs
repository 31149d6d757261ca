//! Pull secrets: which user and password belong to which registry.
//!
//! In: `.dockerconfigjson` and `.dockercfg` documents. Out: credentials for a repository, the most specific first.
//! Matching is kubelet's (kubernetes.io/docs/concepts/containers/images, "Interpretation of config.json"): host with
//! globs per label, an optional port, an optional path prefix.
//! Never: shows a password in Debug.

use crate::images::limits::{CREDENTIALS_MAX, CREDENTIALS_TRIED_MAX, SECRET_BYTES_MAX};
use base64::Engine as _;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub user: String,
    pub password: String,
    /// A refresh token for OAuth2 token servers, instead of a password.
    pub identity_token: Option<String>,
}

impl Credential {
    /// By which it is known again, and which says nothing about it.
    pub fn fingerprint(&self) -> String {
        let parts = [self.user.as_str(), &self.password, self.identity_token.as_deref().unwrap_or_default()];
        limpet_oci::Digest::of(parts.join("\0").as_bytes()).hex().to_string()
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({:?}, …)", self.user)
    }
}

/// All pull secrets of one pod.
#[derive(Clone, Default, Debug)]
pub struct Keyring {
    entries: Vec<(Pattern, Credential)>,
}

#[derive(Clone, Debug)]
struct Pattern {
    host: String,
    path: String,
}

#[derive(Deserialize)]
struct DockerConfig {
    auths: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identitytoken: Option<String>,
}

impl Keyring {
    /// Documents that cannot be read are left out, as kubelet does.
    pub fn new(documents: &[Vec<u8>]) -> Keyring {
        let mut keyring = Keyring::default();
        for document in documents.iter().filter(|d| d.len() <= SECRET_BYTES_MAX) {
            let Some(auths) = read(document) else {
                log::warn!("images: a pull secret is neither a .dockerconfigjson nor a .dockercfg: left out");
                continue;
            };
            for (key, auth) in auths {
                if let (Some(credential), true) = (auth.credential(), keyring.entries.len() < CREDENTIALS_MAX) {
                    keyring.entries.push((Pattern::new(&key), credential));
                }
            }
        }
        // Longer paths are more specific; sorting is stable, so the order of the secrets decides between equals.
        keyring.entries.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.path.len()));
        keyring
    }

    /// Credentials for `repository` on `host` (with its port, if there is one), each once, in the order in which they are tried.
    pub fn find(&self, host: &str, repository: &str) -> Vec<&Credential> {
        let mut found: Vec<&Credential> = Vec::new();
        for (pattern, credential) in &self.entries {
            if found.len() < CREDENTIALS_TRIED_MAX && pattern.matches(host, repository) && !found.contains(&credential) {
                found.push(credential);
            }
        }
        found
    }
}

fn read(document: &[u8]) -> Option<BTreeMap<String, Auth>> {
    let config: Result<DockerConfig, _> = serde_json::from_slice(document);
    match config {
        Ok(DockerConfig { auths: Some(auths) }) => Some(auths),
        _ => serde_json::from_slice(document).ok(),
    }
}

impl Auth {
    fn credential(&self) -> Option<Credential> {
        let identity_token = self.identitytoken.clone().filter(|t| !t.is_empty());
        let (user, password) = match (&self.username, &self.password, &self.auth) {
            (Some(user), Some(password), _) if !user.is_empty() => (user.clone(), password.clone()),
            (_, _, Some(auth)) => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok()?;
                let text = String::from_utf8(bytes).ok()?;
                let (user, password) = text.trim_end_matches('\0').split_once(':')?;
                (user.to_string(), password.to_string())
            }
            _ if identity_token.is_some() => (String::new(), String::new()),
            _ => return None,
        };
        Some(Credential { user, password, identity_token })
    }
}

impl Pattern {
    fn new(key: &str) -> Pattern {
        let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        // `https://index.docker.io/v1/` is how everybody's tool writes Docker Hub.
        let path = path.trim_matches('/');
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        Pattern { host: canonical(host).to_string(), path: path.to_string() }
    }

    fn matches(&self, host: &str, repository: &str) -> bool {
        let prefix = repository.strip_prefix(self.path.as_str());
        let path_fits = prefix.is_some_and(|rest| self.path.is_empty() || rest.is_empty() || rest.starts_with('/'));
        path_fits && host_matches(&self.host, canonical(host))
    }
}

fn canonical(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

/// Label by label; `*` stands for any part of one label, never for a dot.
fn host_matches(pattern: &str, host: &str) -> bool {
    let (pattern, pattern_port) = pattern.split_once(':').map_or((pattern, None), |(h, p)| (h, Some(p)));
    let (host, port) = host.split_once(':').map_or((host, None), |(h, p)| (h, Some(p)));
    if pattern_port != port || pattern.split('.').count() != host.split('.').count() {
        return false;
    }
    pattern.split('.').zip(host.split('.')).all(|(p, h)| label_matches(p.as_bytes(), h.as_bytes()))
}

fn label_matches(pattern: &[u8], label: &[u8]) -> bool {
    match pattern.split_first() {
        None => label.is_empty(),
        Some((b'*', rest)) => (0..=label.len()).any(|n| label_matches(rest, &label[n..])),
        Some((p, rest)) => label.split_first().is_some_and(|(l, more)| l == p && label_matches(rest, more)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(json: &str) -> Keyring {
        Keyring::new(&[json.as_bytes().to_vec()])
    }

    #[test]
    fn hosts_and_paths_match_as_kubelet_does() {
        let auth = |user: &str| base64::engine::general_purpose::STANDARD.encode(format!("{user}:pw"));
        let ring = keyring(&format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{}"}},"*.example.com":{{"auth":"{}"}},
            "reg.example.com/team":{{"auth":"{}"}},"port.example.org:5000":{{"username":"p","password":"q"}}}}}}"#,
            auth("hub"),
            auth("glob"),
            auth("team")
        ));
        for (host, repository, expect) in [
            ("docker.io", "library/nginx", Some("hub")),
            ("registry-1.docker.io", "library/nginx", Some("hub")),
            ("a.example.com", "x", Some("glob")),
            ("reg.example.com", "x", Some("glob")),
            ("reg.example.com", "team", Some("team")),
            ("reg.example.com", "team/app", Some("team")),
            ("reg.example.com", "teamwork/app", Some("glob")),
            ("a.b.example.com", "x", None),
            ("example.com", "x", None),
            ("evil.com", "a.example.com", None),
            ("a.example.com:5000", "x", None),
            ("port.example.org:5000", "x", Some("p")),
            ("port.example.org", "x", None),
        ] {
            assert_eq!(ring.find(host, repository).first().map(|c| c.user.as_str()), expect, "{host}/{repository}");
        }
        let users: Vec<&str> = ring.find("reg.example.com", "team/app").iter().map(|c| c.user.as_str()).collect();
        assert_eq!(users, ["team", "glob"], "who is refused with the first tries the next");
    }

    #[test]
    fn other_writings_and_nonsense() {
        let old = keyring(r#"{"a.b":{"username":"u","password":"p:w"}}"#);
        assert_eq!(old.find("a.b", "x").first().map(|c| c.password.as_str()), Some("p:w"));
        let token = keyring(r#"{"auths":{"a.b":{"identitytoken":"t"}}}"#);
        assert_eq!(token.find("a.b", "x").first().and_then(|c| c.identity_token.as_deref()), Some("t"));
        for nonsense in ["", "null", "[]", r#"{"auths":7}"#, r#"{"auths":{"a.b":{"auth":"%%%"}}}"#] {
            assert!(keyring(nonsense).find("a.b", "x").is_empty(), "{nonsense}");
        }
        assert!(!format!("{:?}", old).contains("p:w"));
    }

    #[test]
    fn globs_stay_inside_a_label() {
        assert!(label_matches(b"a*c", b"abbc"));
        assert!(label_matches(b"*", b""));
        assert!(!label_matches(b"a*c", b"abb"));
        assert!(!host_matches("*", "a.b"));
    }
}
