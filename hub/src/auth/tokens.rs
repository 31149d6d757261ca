//! ServiceAccount tokens: what they claim, and whether the claims still hold.
//!
//! In: an account and what its token is bound to; or a bearer token, hostile. Out: a token; or the user.
//! Source: the Kubernetes page "Managing Service Accounts" (bound tokens). Never: a token whose account, pod
//! or secret is gone or was made anew.

use super::{
    jwt::{Signer, TokenError},
    legacy::{self, Uses},
    user::User,
};
use crate::api::object;
use jiff::Timestamp;
use limpet_hub_core::control::accounttoken::{self, TokenSigner};
use limpet_store::{Key, Store};
use serde_json::{Value, json};

/// A pod that is being deleted keeps its token's rights for so many seconds.
const DELETED_POD_GRACE_S: i64 = 60;
/// Clocks may differ by so much.
const LEEWAY_S: i64 = 10;

/// What a new token is for.
#[derive(Clone, Debug, Default)]
pub struct TokenAsk<'a> {
    pub namespace: &'a str,
    pub account: &'a str,
    pub account_uid: &'a str,
    /// Empty: the API server's own.
    pub audiences: Vec<String>,
    pub seconds: i64,
    /// Kind, name and uid of a Pod, Secret or Node.
    pub bound: Option<(&'a str, &'a str, &'a str)>,
    /// Name and uid of the node on which the bound pod is.
    pub node: Option<(&'a str, &'a str)>,
}

/// Why a token is not accepted; said in logs, never to the client.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the token is for {0:?}")]
    Issuer(String),
    #[error("the token is not valid now")]
    Time,
    #[error("the token is for other audiences")]
    Audience,
    #[error("{0} is gone or was made anew")]
    Gone(&'static str),
    #[error("the token of Secret {0}/{1} is labelled as invalid, since nobody used it for long")]
    Invalid(String, String),
}

pub struct Tokens {
    signer: Signer,
    issuer: String,
    store: Store,
    /// Uses of tokens without an end that are to be noted.
    pub uses: Uses,
}

impl Tokens {
    pub fn new(signer: Signer, issuer: String, store: Store) -> Tokens {
        Tokens { signer, issuer, store, uses: Uses::default() }
    }

    /// Where Secrets are.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub fn jwks(&self) -> Value {
        self.signer.jwks()
    }

    /// The token and when it ends.
    pub fn issue(&self, ask: &TokenAsk<'_>, id: &str, now: Timestamp) -> Result<(String, Timestamp), String> {
        let start = now.as_second();
        let end = start.saturating_add(ask.seconds);
        let audiences = match ask.audiences.is_empty() {
            true => vec![self.issuer.clone()],
            false => ask.audiences.clone(),
        };
        let mut about = json!({
            "namespace": ask.namespace,
            "serviceaccount": {"name": ask.account, "uid": ask.account_uid},
        });
        if let Some((kind, name, uid)) = ask.bound {
            about[kind.to_ascii_lowercase()] = json!({"name": name, "uid": uid});
        }
        if let Some((name, uid)) = ask.node {
            about["node"] = json!({"name": name, "uid": uid});
        }
        let claims = json!({
            "aud": audiences, "exp": end, "iat": start, "nbf": start, "iss": self.issuer, "jti": id,
            "sub": format!("system:serviceaccount:{}:{}", ask.namespace, ask.account),
            "kubernetes.io": about,
        });
        let end = Timestamp::from_second(end).map_err(|e| e.to_string())?;
        Ok((self.signer.sign(&claims)?, end))
    }

    /// The user whose token this is, and the audiences that token and asker have in common.
    pub fn user(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<(User, Vec<String>), Refused> {
        let claims = self.signer.verify(token)?;
        let issuer = claims["iss"].as_str().unwrap_or_default();
        if issuer == accounttoken::ISSUER {
            // Such a token is for this API alone.
            if !audiences.is_empty() && !audiences.contains(&self.issuer) {
                return Err(Refused::Audience);
            }
            let user = legacy::holder(&self.store, &self.uses, &claims, token, now)?;
            return Ok((user, vec![self.issuer.clone()]));
        }
        if issuer != self.issuer {
            return Err(Refused::Issuer(issuer.to_owned()));
        }
        let second = now.as_second();
        let number = |name: &str| claims[name].as_i64();
        let ends = number("exp").ok_or(Refused::Time)?;
        if ends <= second || number("nbf").is_some_and(|from| from > second + LEEWAY_S) {
            return Err(Refused::Time);
        }
        let own = [self.issuer.clone()];
        let wanted = if audiences.is_empty() { &own[..] } else { audiences };
        let shared: Vec<String> = wanted
            .iter()
            .filter(|a| object::strings(&claims["aud"]).any(|b| b == a.as_str()))
            .cloned()
            .collect();
        if shared.is_empty() {
            return Err(Refused::Audience);
        }
        Ok((self.holder(&claims, second)?, shared))
    }

    fn holder(&self, claims: &Value, second: i64) -> Result<User, Refused> {
        let about = &claims["kubernetes.io"];
        let namespace = about["namespace"].as_str().unwrap_or_default();
        let named = |part: &str| {
            let part = about.get(part)?;
            Some((part["name"].as_str()?.to_owned(), part["uid"].as_str()?.to_owned()))
        };
        let (account, uid) = named("serviceaccount").ok_or(Refused::Gone("the ServiceAccount"))?;
        let found = self
            .live("/serviceaccounts", namespace, &account, &uid)
            .ok_or(Refused::Gone("the ServiceAccount"))?;
        if deleted_before(&found, second - DELETED_POD_GRACE_S) {
            return Err(Refused::Gone("the ServiceAccount"));
        }
        let mut user = User::of_service_account(namespace, &account, &uid);
        if let Some(id) = claims["jti"].as_str() {
            user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
        }
        if let Some((name, uid)) = named("secret") {
            self.live("/secrets", namespace, &name, &uid).ok_or(Refused::Gone("the Secret"))?;
        }
        if let Some((name, uid)) = named("pod") {
            let pod = self.live("/pods", namespace, &name, &uid).ok_or(Refused::Gone("the Pod"))?;
            if deleted_before(&pod, second - DELETED_POD_GRACE_S) {
                return Err(Refused::Gone("the Pod"));
            }
            user.extra.insert("authentication.kubernetes.io/pod-name".into(), vec![name]);
            user.extra.insert("authentication.kubernetes.io/pod-uid".into(), vec![uid]);
        }
        if let Some((name, uid)) = named("node") {
            if named("pod").is_none() {
                self.live("/nodes", "", &name, &uid).ok_or(Refused::Gone("the Node"))?;
            }
            user.extra.insert("authentication.kubernetes.io/node-name".into(), vec![name]);
            user.extra.insert("authentication.kubernetes.io/node-uid".into(), vec![uid]);
        }
        Ok(user)
    }

    fn live(&self, resource: &str, namespace: &str, name: &str, uid: &str) -> Option<Value> {
        let record = self.store.get(&Key::new(resource, namespace, name))?;
        let object: Value = serde_json::from_slice(&record.bytes).ok()?;
        (object::uid(&object) == uid).then_some(object)
    }
}

impl TokenSigner for Tokens {
    fn sign(&self, claims: &Value) -> Option<String> {
        self.signer.sign(claims).ok()
    }
}

fn deleted_before(object: &Value, second: i64) -> bool {
    let at = object["metadata"]["deletionTimestamp"].as_str().and_then(limpet_objects::time::parse);
    at.is_some_and(|at| at.as_second() < second)
}
