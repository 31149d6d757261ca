//! Image names as people write them, normalised.
//!
//! In: `nginx`, `localhost:5000/a/b:v1`, `hub.limpet/web@sha256:…`. Out: registry, repository, tag and digest, as the
//! grammar of github.com/distribution/reference has them, which kubelet uses (a bad name is `InvalidImageName`).
//! Never: touches the network, or guesses a registry other than docker.io.

use crate::digest::Digest;
use crate::limits::{REFERENCE_BYTES_MAX, REPOSITORY_BYTES_MAX};
use std::fmt;

pub const DEFAULT_REGISTRY: &str = "docker.io";
pub const DEFAULT_TAG: &str = "latest";

/// A normalised reference; without tag and digest it never is (the tag becomes `latest`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reference {
    /// Host with an optional port: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub registry: String,
    /// `library/nginx`.
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

/// Nobody retries: the text in the pod must change. kubelet's reason for it is `InvalidImageName`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("couldn't parse image name {name:?}: {why}")]
pub struct InvalidImageName {
    pub name: String,
    pub why: &'static str,
}

impl Reference {
    pub fn parse(text: &str) -> Result<Reference, InvalidImageName> {
        parse_parts(text).map_err(|why| InvalidImageName { name: text.chars().take(300).collect(), why })
    }

    /// The host that serves the registry's API: `registry-1.docker.io` for `docker.io`.
    pub fn api_host(&self) -> &str {
        match self.registry.as_str() {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            other => other,
        }
    }

    /// Host without its port.
    pub fn host(&self) -> &str {
        host_without_port(&self.registry)
    }

    /// `docker.io/library/nginx`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What to ask the registry for: the digest if there is one, the tag otherwise.
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_string(),
        }
    }

    /// Kubernetes pulls `:latest` always unless told otherwise.
    pub fn is_latest(&self) -> bool {
        self.digest.is_none() && self.tag.as_deref() == Some(DEFAULT_TAG)
    }

    /// `docker.io/library/nginx@sha256:…`: how a node reports what it runs.
    pub fn with_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Reference {
    type Err = InvalidImageName;
    fn from_str(text: &str) -> Result<Reference, InvalidImageName> {
        Reference::parse(text)
    }
}

/// `host` of `host:port` or `[v6]:port`.
pub fn host_without_port(registry: &str) -> &str {
    if let Some(rest) = registry.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    registry.split(':').next().unwrap_or(registry)
}

fn parse_parts(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("the name is empty");
    }
    if text.len() > REFERENCE_BYTES_MAX {
        return Err("the name is too long");
    }
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err("64 hexadecimal digits could be an image id, which cannot be pulled");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(Digest::parse(digest).map_err(|_| "invalid digest after @")?)),
        None => (text, None),
    };
    let (registry, remainder) = split_registry(rest);
    let (repository, tag) = match remainder.rsplit_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (remainder, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    check_registry(registry)?;
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    let short = registry == DEFAULT_REGISTRY && !repository.contains('/');
    let repository = if short { format!("library/{repository}") } else { repository.to_string() };
    check_repository(&repository)?;
    let tag = match (tag, &digest) {
        (Some(tag), _) => Some(tag.to_string()),
        (None, None) => Some(DEFAULT_TAG.to_string()),
        (None, Some(_)) => None,
    };
    Ok(Reference { registry: registry.to_string(), repository, tag, digest })
}

/// The first component is a registry when it could not be anything else: it has a dot, a port, is `localhost`, or has
/// upper-case letters (which no repository has).
fn split_registry(rest: &str) -> (&str, &str) {
    match rest.split_once('/') {
        Some((first, remainder)) => {
            let host = first.contains(['.', ':', '['])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase());
            if host { (first, remainder) } else { (DEFAULT_REGISTRY, rest) }
        }
        None => (DEFAULT_REGISTRY, rest),
    }
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let wrong = "invalid registry host";
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or(wrong)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong)?;
            ("", after.strip_prefix(':').or(if after.is_empty() { Some("1") } else { None }).ok_or(wrong)?)
        }
        None => registry.split_once(':').unwrap_or((registry, "1")),
    };
    if port.is_empty() || port.len() > 5 || port.parse::<u16>().map_or(true, |p| p == 0) {
        return Err("invalid port of the registry");
    }
    if registry.starts_with('[') {
        return Ok(());
    }
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if host.len() > 253 || !host.split('.').all(label) { Err(wrong) } else { Ok(()) }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/…)*` of the distribution spec.
pub fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.len() > REPOSITORY_BYTES_MAX {
        return Err("the repository name is longer than 255 characters");
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("invalid reference format: repository name must be lowercase");
    }
    if repository.split('/').all(is_path_component) { Ok(()) } else { Err("invalid reference format") }
}

fn is_path_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let word = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase();
    let ends_fine = bytes.first().is_some_and(|b| word(*b)) && bytes.last().is_some_and(|b| word(*b));
    if !ends_fine || !bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'_' | b'-')) {
        return false;
    }
    bytes
        .split(|b| word(*b))
        .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|b| *b == b'-'))
}

/// `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
pub fn check_tag(tag: &str) -> Result<(), &'static str> {
    let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let first = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if first && tag.len() <= 128 && tag.bytes().all(rest) { Ok(()) } else { Err("invalid tag") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_as_kubelet_does() {
        let hex = "a".repeat(64);
        for (text, expect) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("grafana/grafana", "docker.io/grafana/grafana:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
            ("docker.io/library/nginx:x", "docker.io/library/nginx:x"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a/b/c:v1", "localhost:5000/a/b/c:v1"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("hub.limpet/demo-web:1", "hub.limpet/demo-web:1"),
            ("Upper.example/a", "Upper.example/a:latest"),
            ("UPPER/a", "UPPER/a:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("[2001:db8::1]/a:x", "[2001:db8::1]/a:x"),
            ("10.0.0.1:5000/x__y/z-------w.v", "10.0.0.1:5000/x__y/z-------w.v:latest"),
            ("a.b/c:Tag_1.2-3", "a.b/c:Tag_1.2-3"),
        ] {
            assert_eq!(Reference::parse(text).map(|r| r.to_string()).as_deref(), Ok(expect), "{text}");
        }
        let digested = Reference::parse(&format!("a.b/c@sha256:{hex}")).unwrap();
        assert_eq!(digested.to_string(), format!("a.b/c@sha256:{hex}"));
        assert_eq!(digested.tag, None);
        let both = Reference::parse(&format!("nginx:1@sha256:{hex}")).unwrap();
        assert_eq!(both.to_string(), format!("docker.io/library/nginx:1@sha256:{hex}"));
        assert_eq!(both.target(), format!("sha256:{hex}"));
        assert!(!both.is_latest());
        assert!(Reference::parse("nginx").unwrap().is_latest());
        assert_eq!(Reference::parse("nginx").unwrap().api_host(), "registry-1.docker.io");
        assert_eq!(Reference::parse("[::1]:5000/a").unwrap().host(), "::1");
    }

    #[test]
    fn bad_names_are_refused() {
        let hex = "a".repeat(64);
        let long = format!("a.b/{}", "a".repeat(300));
        let tag = format!("nginx:{}", "t".repeat(129));
        for text in [
            "", ":", "nginx:", ":tag", "nginx:a:b", "nginx@", "nginx@sha256:abc", "nginx@md5:aaaa", "Nginx",
            "a.b/Nginx", "a.b/", "a.b//c", "/a", "a.b/c/", "a.b/../c", "a.b/.c", "a.b/-c", "a.b/c-", "a.b/c..d",
            "a.b/c___d", "a.b/c._d", "ng inx", "nginx:-x", "nginx:.x", "localhost:0/a", "localhost:99999/a",
            "localhost:/a", "-a.b/c", "a..b/c", "[::1/a", "[zz]:1/a", "[::1]x/a", "http://a.b/c", "nginx\n",
            "nginx\0", "náme", "a.b/%2e%2e", &hex, &long, &tag,
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_error_names_the_image() {
        let error = Reference::parse("Bad Name").unwrap_err();
        assert!(error.to_string().contains("\"Bad Name\""), "{error}");
    }
}
