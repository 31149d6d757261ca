//! What a registry asks for with 401, and how to answer it.
//!
//! In: WWW-Authenticate headers (RFC 9110, 11.6.1), a credential. Out: an Authorization header, or a request to a token server
//! (distribution.github.io/distribution/spec/auth/token).
//! Never: sends a password to a token server over http, unless the registry itself is spoken to over http.

use super::credentials::Credential;
use super::endpoint::Authority;
use base64::Engine as _;
use http::{HeaderMap, Uri, header::WWW_AUTHENTICATE};
use serde::Deserialize;

#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The challenge to answer; Bearer before Basic when both are offered.
pub fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut found = None;
    for value in headers.get_all(WWW_AUTHENTICATE).iter().take(8).filter_map(|v| v.to_str().ok()) {
        match parse(value) {
            Some(bearer @ Challenge::Bearer { .. }) => return Some(bearer),
            Some(basic) => found = Some(basic),
            None => {}
        }
    }
    found
}

fn parse(value: &str) -> Option<Challenge> {
    let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    for (key, value) in parameters(rest) {
        match key.to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value),
            _ => {}
        }
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// `key="value", key=value`: quotes may hold commas and escaped quotes.
fn parameters(mut text: &str) -> Vec<(String, String)> {
    let mut list = Vec::new();
    while let Some((key, rest)) = text.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_string();
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim().to_string(), &rest[end..])
            }
        };
        list.push((key, value));
        text = after;
        if list.len() == 16 {
            break;
        }
    }
    list
}

fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

pub fn basic(credential: &Credential) -> String {
    let plain = format!("{}:{}", credential.user, credential.password);
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain))
}

/// A request to a token server.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenAsk {
    pub authority: Authority,
    pub path_and_query: String,
    /// Authorization header, for GET.
    pub authorization: Option<String>,
    /// Form body, for POST (OAuth2 with a refresh token).
    pub form: Option<String>,
}

pub fn token_ask(
    challenge: &Challenge,
    registry: &Authority,
    repository: &str,
    credential: Option<&Credential>,
) -> Result<TokenAsk, String> {
    let Challenge::Bearer { realm, service, scope } = challenge else {
        return Err("not a bearer challenge".to_string());
    };
    let bad = || format!("the registry names a bad token server {realm:?}");
    let uri: Uri = realm.parse().map_err(|_| bad())?;
    let https = match uri.scheme_str() {
        Some("https") => true,
        Some("http") if !registry.https => false,
        Some("http") => return Err("the registry asks for credentials over http: refused".to_string()),
        _ => return Err(bad()),
    };
    let authority = uri.authority().filter(|a| !a.as_str().contains('@')).ok_or_else(bad)?;
    let authority = Authority::parse(https, authority.as_str()).ok_or_else(bad)?;
    let scope = scope.clone().unwrap_or_else(|| format!("repository:{repository}:pull"));
    let identity = credential.and_then(|c| c.identity_token.as_deref());
    let service = service.as_deref().unwrap_or_default();
    if let Some(token) = identity {
        let form = [
            ("grant_type", "refresh_token"),
            ("service", service),
            ("client_id", "limpet"),
            ("scope", &scope),
            ("refresh_token", token),
        ];
        let form = form.map(|(key, value)| format!("{key}={}", percent(value))).join("&");
        let path_and_query = uri.path().to_string();
        return Ok(TokenAsk { authority, path_and_query, authorization: None, form: Some(form) });
    }
    let mut query: Vec<String> = uri.query().map(str::to_string).into_iter().collect();
    if !service.is_empty() {
        query.push(format!("service={}", percent(service)));
    }
    query.push(format!("scope={}", percent(&scope)));
    let path_and_query = format!("{}?{}", uri.path(), query.join("&"));
    Ok(TokenAsk { authority, path_and_query, authorization: credential.map(basic), form: None })
}

/// The token in a token server's answer.
pub fn token(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = answer.token.or(answer.access_token).filter(|t| !t.is_empty())?;
    token.bytes().all(|b| b.is_ascii_graphic()).then_some(token)
}

pub fn percent(text: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    text.bytes().map(|b| if plain(&b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(text: &str) -> Option<Challenge> {
        parse(text)
    }

    #[test]
    fn challenges() {
        let docker = concat!(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io","#,
            r#"scope="repository:library/nginx:pull,push""#
        );
        let Some(Challenge::Bearer { realm, service, scope }) = bearer(docker) else { panic!() };
        assert_eq!(realm, "https://auth.docker.io/token");
        assert_eq!(service.as_deref(), Some("registry.docker.io"));
        assert_eq!(scope.as_deref(), Some("repository:library/nginx:pull,push"));
        assert_eq!(parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(parse("basic"), Some(Challenge::Basic));
        assert_eq!(parse("Negotiate abc"), None);
        assert_eq!(parse("Bearer"), None);
        assert_eq!(parse("Bearer realm"), None);
        assert!(parse(r#"Bearer realm="unterminated"#).is_some());
        assert_eq!(parameters(r#"a="x\"y, z" , b=c,"#), [("a".into(), "x\"y, z".into()), ("b".into(), "c".into())]);
    }

    #[test]
    fn token_servers_get_credentials_only_over_tls() {
        let registry = Authority::parse(true, "reg.example").unwrap();
        let credential = Credential { user: "u".into(), password: "p".into(), identity_token: None };
        let ask = |realm: &str, registry: &Authority| {
            let challenge = Challenge::Bearer { realm: realm.into(), service: Some("s v".into()), scope: None };
            token_ask(&challenge, registry, "a/b", Some(&credential))
        };
        let good = ask("https://auth.example/token?x=1", &registry).unwrap();
        assert_eq!(good.path_and_query, "/token?x=1&service=s%20v&scope=repository%3Aa%2Fb%3Apull");
        assert_eq!(good.authorization.as_deref(), Some("Basic dTpw"));
        assert!(ask("http://auth.example/token", &registry).is_err());
        assert!(ask("ftp://auth.example/token", &registry).is_err());
        assert!(ask("https://user@auth.example/token", &registry).is_err());
        assert!(ask("/token", &registry).is_err());
        let plain = Authority::parse(false, "localhost:5000").unwrap();
        assert!(ask("http://localhost:5001/token", &plain).is_ok());
    }

    #[test]
    fn refresh_tokens_are_posted() {
        let registry = Authority::parse(true, "reg.example").unwrap();
        let credential = Credential { user: "".into(), password: "".into(), identity_token: Some("t/".into()) };
        let challenge = Challenge::Bearer { realm: "https://a.b/t".into(), service: None, scope: Some("s".into()) };
        let ask = token_ask(&challenge, &registry, "a/b", Some(&credential)).unwrap();
        assert!(ask.form.unwrap().ends_with("scope=s&refresh_token=t%2F"));
        assert_eq!(ask.authorization, None);
    }

    #[test]
    fn tokens() {
        assert_eq!(token(br#"{"token":"abc"}"#).as_deref(), Some("abc"));
        assert_eq!(token(br#"{"access_token":"abc"}"#).as_deref(), Some("abc"));
        assert_eq!(token(br#"{"token":""}"#), None);
        assert_eq!(token(br#"{"token":"a\r\nX: y"}"#), None);
        assert_eq!(token(b"null"), None);
    }
}
