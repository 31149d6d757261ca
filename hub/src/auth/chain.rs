//! Everybody who may say who somebody is, in upstream's order.
//!
//! In: the other end of a connection, the headers. Out: a user: told by a front proxy, shown by a certificate, or by a
//! token of the file, of this hub, of a Secret, of an issuer, of the webhook; a stranger where strangers may come; or a 401.
//! Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/. Never: a right.

use super::{
    Peer, bootstrap,
    front::Front,
    oidc::{
        Issuer,
        config::{Anonymous, Configuration, Jwt},
        keys::{self, Algorithm},
    },
    static_tokens::StaticTokens,
    token_webhook::TokenWebhook,
    tokens::Tokens,
    user::User,
};
use crate::api::limits;
use http::{HeaderMap, header};
use jiff::Timestamp;
use limpet_objects::status::Status;
use serde_json::Value;
use std::{path::PathBuf, time::Duration};

/// The names are kube-apiserver's.
#[derive(Clone, Debug)]
pub struct AuthnOptions {
    pub token_auth_file: Option<PathBuf>,
    pub authentication_config: Option<PathBuf>,
    /// `--oidc-*`, as one issuer.
    pub oidc: Option<Oidc>,
    pub token_webhook_config_file: Option<PathBuf>,
    pub token_webhook_cache_ttl: Duration,
    pub anonymous_auth: bool,
    /// Whether tokens in Secrets of kube-system are believed.
    pub bootstrap_tokens: bool,
    pub front: Option<super::front::FrontOptions>,
}

/// An issuer by flags.
#[derive(Clone, Debug)]
pub struct Oidc {
    pub issuer_url: String,
    pub client_id: String,
    pub username_claim: String,
    /// None: the issuer's URL and `#`, unless the claim is `email`; `-` is none.
    pub username_prefix: Option<String>,
    pub groups_claim: Option<String>,
    pub groups_prefix: String,
    pub required_claims: Vec<(String, String)>,
    pub signing_algs: Vec<String>,
    pub ca_file: Option<PathBuf>,
}

impl Default for AuthnOptions {
    fn default() -> AuthnOptions {
        AuthnOptions {
            token_auth_file: None,
            authentication_config: None,
            oidc: None,
            token_webhook_config_file: None,
            token_webhook_cache_ttl: Duration::from_secs(120),
            anonymous_auth: true,
            bootstrap_tokens: false,
            front: None,
        }
    }
}

/// Who is who, beside the hub's own certificates and ServiceAccounts.
pub struct Authenticators {
    front: Option<Front>,
    files: StaticTokens,
    issuers: Vec<Issuer>,
    webhook: Option<TokenWebhook>,
    anonymous: Anonymous,
    bootstrap_tokens: bool,
}

impl Authenticators {
    /// The error names the file or flag.
    pub fn open(options: &AuthnOptions) -> Result<Authenticators, String> {
        let mut anonymous = Anonymous { enabled: options.anonymous_auth, conditions: Vec::new() };
        let mut issuers = Vec::new();
        if let Some(path) = &options.authentication_config {
            if options.oidc.is_some() {
                return Err("--authentication-config and --oidc-* flags exclude each other".into());
            }
            let wrong = |why: String| format!("{}: {why}", path.display());
            let text = std::fs::read_to_string(path).map_err(|why| wrong(format!("cannot be read: {why}")))?;
            let value: Value = serde_saphyr::from_str(&text).map_err(|why| wrong(format!("is not YAML: {why}")))?;
            let config = Configuration::parse(&value).map_err(wrong)?;
            for (at, jwt) in config.jwt.iter().enumerate() {
                issuers.push(Issuer::new(jwt).map_err(|why| wrong(format!("jwt[{at}].{why}")))?);
            }
            if let Some(own) = config.anonymous {
                if !options.anonymous_auth {
                    return Err(wrong("anonymous: excluded by --anonymous-auth=false".into()));
                }
                anonymous = own;
            }
        }
        if let Some(flags) = &options.oidc {
            issuers.push(flags.issuer()?);
        }
        let files = options.token_auth_file.as_deref().map(StaticTokens::read).transpose()?;
        let ttl = options.token_webhook_cache_ttl;
        let webhook = options.token_webhook_config_file.as_deref();
        Ok(Authenticators {
            front: options.front.as_ref().map(Front::open).transpose()?,
            files: files.unwrap_or_default(),
            issuers,
            webhook: webhook.map(|path| TokenWebhook::open(path, ttl)).transpose()?,
            anonymous,
            bootstrap_tokens: options.bootstrap_tokens,
        })
    }

    /// Authorities, beside the hub's own, whose client certificates the TLS handshake lets in.
    pub fn front_pem(&self) -> Option<&[u8]> {
        self.front.as_ref().map(Front::authorities)
    }

    /// Tells which certificates are the hub's own.
    pub fn own_authority(&self, pem: &str) -> Result<(), String> {
        self.front.as_ref().map_or(Ok(()), |front| front.own_authority(pem))
    }

    /// A certificate that TLS has let in, as one of the hub's own authority and as one of a front proxy.
    pub fn told_apart(&self, certificate: Vec<u8>, now: Timestamp) -> (Vec<u8>, Vec<u8>) {
        match &self.front {
            None => (certificate, Vec::new()),
            Some(front) if front.is_own(&certificate, now) => (certificate.clone(), certificate),
            Some(_) => (Vec::new(), certificate),
        }
    }

    /// The user behind a request; as whom it is made is another question.
    pub async fn user(
        &self,
        tokens: &Tokens,
        peer: &Peer,
        headers: &HeaderMap,
        path: &str,
        now: Timestamp,
    ) -> Result<User, Status> {
        if let Some(user) = self.front.as_ref().and_then(|front| front.user(peer, headers, now)) {
            return Ok(user);
        }
        if let Some(user) = &peer.user {
            return Ok(user.clone());
        }
        let Some(value) = headers.get(header::AUTHORIZATION) else { return self.stranger(path) };
        let text = value.to_str().map_err(|_| Status::unauthorized())?;
        let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let token = token.map(|(_, token)| token.trim()).ok_or_else(Status::unauthorized)?;
        let known = self.token(tokens, token, &[], now).await;
        known.map(|(user, _)| user).map_err(|why| {
            tracing::debug!(%why, "bearer token refused");
            Status::unauthorized()
        })
    }

    fn stranger(&self, path: &str) -> Result<User, Status> {
        let conditions = &self.anonymous.conditions;
        let here = conditions.is_empty() || conditions.iter().any(|condition| condition.path == path);
        if self.anonymous.enabled && here { Ok(User::anonymous()) } else { Err(Status::unauthorized()) }
    }

    /// The user of a token, and the audiences that it has in common with the asked ones.
    pub async fn token(
        &self,
        tokens: &Tokens,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<(User, Vec<String>), String> {
        if token.len() > limits::TOKEN_BYTES_MAX {
            return Err("the token is too long".into());
        }
        // Who does not know audiences vouches for the API itself only: a token for the hub must not open another's door.
        let own = [tokens.issuer().to_owned()];
        let wanted = if audiences.is_empty() { &own[..] } else { audiences };
        let for_hub = wanted.contains(&own[0]);
        if let Some(user) = self.files.user(token).filter(|_| for_hub) {
            return Ok((user, own.to_vec()));
        }
        let mut why = match tokens.user(token, audiences, now) {
            Ok(found) => return Ok(found),
            Err(why) => why.to_string(),
        };
        if let Some(user) = bootstrap::user(tokens.store(), token, now).filter(|_| for_hub && self.bootstrap_tokens) {
            return Ok((user, own.to_vec()));
        }
        if let Some(parts) = keys::take_apart(token).filter(|_| for_hub && !self.issuers.is_empty())
            && let Some(issuer) = self.issuers.iter().find(|issuer| issuer.is_of(&parts))
        {
            match issuer.user(&parts, now).await {
                Ok(user) => return Ok((user, own.to_vec())),
                Err(other) => why = other,
            }
        }
        match &self.webhook {
            Some(webhook) => webhook.user(token, wanted, &own).await,
            None => Err(why),
        }
    }
}

impl Oidc {
    fn issuer(&self) -> Result<Issuer, String> {
        let prefix = match self.username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(own) => own.to_owned(),
            None if self.username_claim == "email" => String::new(),
            None => format!("{}#", self.issuer_url),
        };
        let ca = self.ca_file.as_ref().map(|path| {
            std::fs::read_to_string(path).map_err(|why| format!("--oidc-ca-file {}: {why}", path.display()))
        });
        let required = self.required_claims.iter().map(|(claim, value)| {
            serde_json::json!({"claim": claim, "requiredValue": value})
        });
        let groups = self.groups_claim.as_ref().map(|claim| serde_json::json!({"claim": claim, "prefix": self.groups_prefix}));
        let jwt = serde_json::json!({
            "issuer": {"url": self.issuer_url, "audiences": [self.client_id], "certificateAuthority": ca.transpose()?},
            "claimValidationRules": required.collect::<Vec<_>>(),
            "claimMappings": {
                "username": {"claim": self.username_claim, "prefix": prefix},
                "groups": groups.unwrap_or_else(|| serde_json::json!({})),
            },
        });
        let jwt: Jwt = serde_json::from_value(jwt).map_err(|why| format!("--oidc flags: {why}"))?;
        let mut issuer = Issuer::new(&jwt).map_err(|why| format!("--oidc flags: {why}"))?;
        let unknown = |name: &String| format!("--oidc-signing-algs: {name:?} is not supported");
        let named = |name: &String| Algorithm::named(name).ok_or_else(|| unknown(name));
        issuer.only(self.signing_algs.iter().map(named).collect::<Result<_, _>>()?);
        Ok(issuer)
    }
}
