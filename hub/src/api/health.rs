//! `/readyz`, `/livez`, `/healthz`, `/version`.
//!
//! In: a path. Out: short answers without rights. Never: figures or objects.

use super::{Api, ISSUER, Reply, negotiate::Wanted, query::Query, reply};
use serde_json::{Value, json};

/// The Kubernetes version whose API this is.
pub const MAJOR: &str = "1";
pub const MINOR: &str = "36";

/// `None` when the path is none of these.
pub fn answer(api: &Api, path: &str, query: &Query) -> Option<Reply> {
    let json = |value: Value| Some(reply::value(200, &value, Wanted::JSON));
    let path = path.trim_matches('/');
    let (first, check) = path.split_once('/').unwrap_or((path, ""));
    match (first, check) {
        ("readyz" | "livez" | "healthz", _) => Some(health(api, first, check, query.has("verbose"))),
        ("version", "") => json(version()),
        _ => None,
    }
}

fn health(api: &Api, door: &str, check: &str, verbose: bool) -> Reply {
    // Alive is who answers; ready is who has loaded its objects and made its own.
    let checks = [("ping", true), ("store", true), ("bootstrap", door == "livez" || api.is_ready())];
    let asked: Vec<_> = checks.into_iter().filter(|(name, _)| check.is_empty() || *name == check).collect();
    if asked.is_empty() {
        return reply::text(404, "404 page not found\n");
    }
    let good = asked.iter().all(|(_, good)| *good);
    if good && !verbose {
        return reply::text(200, "ok");
    }
    let mut text = String::new();
    for (name, good) in asked {
        text.push_str(&match good {
            true => format!("[+]{name} ok\n"),
            false => format!("[-]{name} failed: the hub is still starting\n"),
        });
    }
    text.push_str(&format!("{door} check {}\n", if good { "passed" } else { "failed" }));
    reply::text(if good { 200 } else { 500 }, text)
}

pub fn version() -> Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "35",
        "gitVersion": format!("v{MAJOR}.{MINOR}.0+limpet.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none (Rust)",
        "compiler": "rustc",
        "platform": format!("linux/{}", architecture()),
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The hub as an OpenID issuer, for those who may read it (`system:service-account-issuer-discovery`).
pub fn openid() -> Value {
    json!({
        "issuer": ISSUER,
        "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}
