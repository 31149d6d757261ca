//! Which authorizers are asked, in which order.
//!
//! In: `--authorization-*` flags, or an AuthorizationConfiguration (apiserver.config.k8s.io/v1). Out: the chain.
//! Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/. Never: a chain that asks nobody.

use super::webhook::{Failure, Hook, HookOptions};
use limpet_hub_core::abac::Abac;
use serde::Deserialize;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Authorizers of one chain.
const CHAIN_MAX: usize = 32;

/// The names are kube-apiserver's.
#[derive(Clone, Debug)]
pub struct AuthzOptions {
    pub modes: Vec<String>,
    pub policy_file: Option<PathBuf>,
    pub webhook_config_file: Option<PathBuf>,
    pub webhook_cache_authorized_ttl: Duration,
    pub webhook_cache_unauthorized_ttl: Duration,
    /// Instead of all of the above, but for the policy file.
    pub config: Option<PathBuf>,
}

impl Default for AuthzOptions {
    fn default() -> AuthzOptions {
        AuthzOptions {
            modes: vec!["Node".into(), "RBAC".into()],
            policy_file: None,
            webhook_config_file: None,
            webhook_cache_authorized_ttl: Duration::from_secs(300),
            webhook_cache_unauthorized_ttl: Duration::from_secs(30),
            config: None,
        }
    }
}

/// One of the chain.
pub enum Link {
    Node,
    Rbac,
    Abac(Abac),
    AlwaysAllow,
    AlwaysDeny,
    Webhook(Box<Hook>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    authorizers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    webhook: Option<Webhook>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Webhook {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Option<String>,
    #[serde(default = "yes")]
    cache_authorized_requests: bool,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<String>,
    #[serde(default = "yes")]
    cache_unauthorized_requests: bool,
    timeout: String,
    subject_access_review_version: String,
    #[serde(default)]
    match_condition_subject_access_review_version: String,
    failure_policy: String,
    connection_info: Connection,
    #[serde(default)]
    match_conditions: Vec<Condition>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connection {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    expression: String,
}

impl AuthzOptions {
    /// The error names the file or flag.
    pub fn chain(&self) -> Result<Vec<Link>, String> {
        let chain = match &self.config {
            Some(path) => self.configured(path)?,
            None => self.modes.iter().map(|mode| self.link(mode)).collect::<Result<_, _>>()?,
        };
        if chain.is_empty() || chain.len() > CHAIN_MAX {
            return Err(format!("--authorization-mode: must name 1 to {CHAIN_MAX} authorizers"));
        }
        let named = |wanted: &dyn Fn(&Link) -> bool| chain.iter().any(wanted);
        if self.policy_file.is_some() && !named(&|link| matches!(link, Link::Abac(_))) {
            return Err("--authorization-policy-file needs ABAC among the authorizers".into());
        }
        if self.webhook_config_file.is_some() && !named(&|link| matches!(link, Link::Webhook(_))) {
            return Err("--authorization-webhook-config-file needs Webhook in --authorization-mode".into());
        }
        Ok(chain)
    }

    fn link(&self, mode: &str) -> Result<Link, String> {
        Ok(match mode {
            "Node" => Link::Node,
            "RBAC" => Link::Rbac,
            "AlwaysAllow" => Link::AlwaysAllow,
            "AlwaysDeny" => Link::AlwaysDeny,
            "ABAC" => {
                let path = self.policy_file.as_ref().ok_or("ABAC needs --authorization-policy-file")?;
                let wrong = |why: String| format!("--authorization-policy-file {}: {why}", path.display());
                let text = std::fs::read_to_string(path).map_err(|why| wrong(why.to_string()))?;
                Link::Abac(Abac::parse(&text).map_err(wrong)?)
            }
            "Webhook" => {
                let path = self.webhook_config_file.as_ref();
                let path = path.ok_or("Webhook needs --authorization-webhook-config-file")?;
                let options = HookOptions {
                    name: "default".into(),
                    timeout: Duration::from_secs(30),
                    authorized_ttl: self.webhook_cache_authorized_ttl,
                    unauthorized_ttl: self.webhook_cache_unauthorized_ttl,
                    failure: Failure::NoOpinion,
                    conditions: Vec::new(),
                };
                Link::Webhook(Box::new(Hook::open(path, options)?))
            }
            other => {
                return Err(format!(
                    "the authorizer {other:?} is not known: use Node, RBAC, ABAC, Webhook, AlwaysAllow or AlwaysDeny"
                ));
            }
        })
    }

    fn configured(&self, path: &Path) -> Result<Vec<Link>, String> {
        let wrong = |why: String| format!("{}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|why| wrong(format!("cannot be read: {why}")))?;
        let value: Value = serde_saphyr::from_str(&text).map_err(|why| wrong(format!("is not YAML: {why}")))?;
        let config = Configuration::deserialize(&value).map_err(|why| wrong(why.to_string()))?;
        let version = config.api_version.strip_prefix("apiserver.config.k8s.io/").unwrap_or_default();
        if config.kind != "AuthorizationConfiguration" || !matches!(version, "v1" | "v1beta1" | "v1alpha1") {
            return Err(wrong("must be of kind AuthorizationConfiguration and apiVersion apiserver.config.k8s.io/v1".into()));
        }
        let mut chain = Vec::new();
        for (at, entry) in config.authorizers.iter().enumerate() {
            let wrong = |why: String| wrong(format!("authorizers[{at}]: {why}"));
            if config.authorizers.iter().take(at).any(|other| other.name == entry.name) {
                return Err(wrong(format!("name: Duplicate value: {:?}", entry.name)));
            }
            chain.push(match (&*entry.kind, &entry.webhook) {
                ("Webhook", Some(webhook)) => Link::Webhook(Box::new(webhook.hook(&entry.name).map_err(wrong)?)),
                ("Webhook", None) => return Err(wrong("webhook: Required value".into())),
                (_, Some(_)) => return Err(wrong("webhook: may only be there when type is Webhook".into())),
                (mode, None) => self.link(mode).map_err(wrong)?,
            });
        }
        Ok(chain)
    }
}

impl Webhook {
    fn hook(&self, name: &str) -> Result<Hook, String> {
        if self.subject_access_review_version != "v1" {
            return Err("webhook.subjectAccessReviewVersion: Unsupported value: supported values: \"v1\"".into());
        }
        if !self.match_conditions.is_empty() && self.match_condition_subject_access_review_version != "v1" {
            return Err("webhook.matchConditionSubjectAccessReviewVersion: must be v1".into());
        }
        let timeout = seconds(&self.timeout).filter(|time| !time.is_zero() && time.as_secs() <= 30);
        let ttl = |text: &Option<String>, cached: bool, default: u64| {
            let time = text.as_deref().map_or(Some(Duration::from_secs(default)), seconds);
            time.map(|time| if cached { time } else { Duration::ZERO }).ok_or("webhook: a TTL must be a time like 5m")
        };
        let connection = &self.connection_info;
        let path = match (&*connection.kind, &connection.kube_config_file) {
            ("KubeConfigFile", Some(path)) => path,
            _ => return Err("webhook.connectionInfo: must be of type KubeConfigFile with a kubeConfigFile".into()),
        };
        Hook::open(path, HookOptions {
            name: name.to_owned(),
            timeout: timeout.ok_or("webhook.timeout: must be at most 30s, like 3s")?,
            authorized_ttl: ttl(&self.authorized_ttl, self.cache_authorized_requests, 300)?,
            unauthorized_ttl: ttl(&self.unauthorized_ttl, self.cache_unauthorized_requests, 30)?,
            failure: match &*self.failure_policy {
                "NoOpinion" => Failure::NoOpinion,
                "Deny" => Failure::Deny,
                other => return Err(format!("webhook.failurePolicy: Unsupported value: {other:?}")),
            },
            conditions: self.match_conditions.iter().map(|own| own.expression.clone()).collect(),
        })
    }
}

/// `1h2m3s`, `300ms`: a metav1.Duration.
fn seconds(text: &str) -> Option<Duration> {
    limpet_cel::duration::parse(text).and_then(|nanos| u64::try_from(nanos).ok()).map(Duration::from_nanos)
}
