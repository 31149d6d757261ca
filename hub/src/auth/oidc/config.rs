//! Which issuers are believed, and what their claims mean.
//!
//! In: an AuthenticationConfiguration (apiserver.config.k8s.io/v1), or the `--oidc-*` flags. Out: issuers with compiled
//! expressions, and the rule for strangers. Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/.
//! Never: fetches anything.

use super::keys::Algorithm;
use limpet_cel::{Decl, Env, Program, Type};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

const ISSUERS_MAX: usize = 64;
/// Letters and entries that are assumed of claims when an expression's cost is estimated.
const CLAIM_SIZE: u64 = 8 * 1024;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    pub jwt: Vec<Jwt>,
    pub anonymous: Option<Anonymous>,
}

/// Who may come without saying who they are.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Anonymous {
    pub enabled: bool,
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    pub path: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jwt {
    pub issuer: Issuer,
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimRule>,
    pub claim_mappings: Mappings,
    #[serde(default)]
    pub user_validation_rules: Vec<UserRule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    pub url: String,
    #[serde(rename = "discoveryURL")]
    pub discovery_url: Option<String>,
    /// PEM.
    pub certificate_authority: Option<String>,
    pub audiences: Vec<String>,
    #[serde(default)]
    pub audience_match_policy: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimRule {
    pub claim: Option<String>,
    #[serde(default)]
    pub required_value: String,
    pub expression: Option<String>,
    #[serde(default)]
    pub message: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserRule {
    pub expression: String,
    #[serde(default)]
    pub message: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mappings {
    pub username: Mapping,
    #[serde(default)]
    pub groups: Mapping,
    #[serde(default)]
    pub uid: Mapping,
    #[serde(default)]
    pub extra: Vec<Extra>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mapping {
    pub claim: Option<String>,
    pub prefix: Option<String>,
    pub expression: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Extra {
    pub key: String,
    pub value_expression: String,
}

/// One value that comes out of the claims.
#[derive(Debug)]
pub enum Source {
    Nothing,
    Claim { name: String, prefix: String },
    Expression(Program),
}

/// An issuer's rules, ready to be used.
#[derive(Debug)]
pub struct Rules {
    pub audiences: Vec<String>,
    pub algorithms: Vec<Algorithm>,
    pub required: Vec<(String, String)>,
    pub claim_rules: Vec<(Program, String)>,
    pub user_rules: Vec<(Program, String)>,
    pub username: Source,
    pub groups: Source,
    pub uid: Source,
    pub extra: BTreeMap<String, Program>,
    /// Whether an expression looks at `email_verified` itself, so that it need not be looked at here.
    pub reads_email_verified: bool,
}

impl Configuration {
    pub fn parse(value: &Value) -> Result<Configuration, String> {
        let config = Configuration::deserialize(value).map_err(|why| why.to_string())?;
        let version = config.api_version.strip_prefix("apiserver.config.k8s.io/").unwrap_or_default();
        if config.kind != "AuthenticationConfiguration" || !matches!(version, "v1" | "v1beta1" | "v1alpha1") {
            return Err("must be of kind AuthenticationConfiguration and apiVersion apiserver.config.k8s.io/v1".into());
        }
        if config.jwt.len() > ISSUERS_MAX {
            return Err(format!("jwt: must have at most {ISSUERS_MAX} issuers"));
        }
        for (at, jwt) in config.jwt.iter().enumerate() {
            if config.jwt.iter().take(at).any(|other| other.issuer.url == jwt.issuer.url) {
                return Err(format!("jwt[{at}].issuer.url: Duplicate value: {:?}", jwt.issuer.url));
            }
        }
        if config.anonymous.as_ref().is_some_and(|own| !own.enabled && !own.conditions.is_empty()) {
            return Err("anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined".into());
        }
        Ok(config)
    }
}

fn claims_env() -> Env {
    Env::default().with("claims", Decl::of(Type::map(Type::String, Type::Dyn), CLAIM_SIZE))
}

fn user_env() -> Env {
    let strings = || Type::list(Type::String);
    let user = Type::object(
        "kubernetes.UserInfo",
        [
            ("username".to_owned(), Type::String),
            ("uid".to_owned(), Type::String),
            ("groups".to_owned(), strings()),
            ("extra".to_owned(), Type::map(Type::String, strings())),
        ],
    );
    Env::default().with("user", Decl::of(user, CLAIM_SIZE))
}

fn compile(text: &str, env: &Env, wanted: &[Type], field: &str) -> Result<Program, String> {
    let program = Program::compile(text, env).map_err(|why| format!("{field}: compilation failed: {why}"))?;
    match wanted.iter().any(|wanted| program.gives(wanted)) {
        true => Ok(program),
        false => Err(format!("{field}: must evaluate to {}", wanted.first().map_or("", |_| words(wanted)))),
    }
}

fn words(wanted: &[Type]) -> &'static str {
    match wanted {
        [Type::Bool] => "bool",
        [Type::String] => "string",
        _ => "a string or a list of strings",
    }
}

impl Jwt {
    /// Checks and compiles; the error begins with the field.
    pub fn rules(&self) -> Result<Rules, String> {
        let (issuer, mappings) = (&self.issuer, &self.claim_mappings);
        if !issuer.url.starts_with("https://") {
            return Err("issuer.url: URL scheme must be https".into());
        }
        if issuer.url.contains(['?', '#']) {
            return Err("issuer.url: URL must not contain a query or a fragment".into());
        }
        let discovery = issuer.discovery_url.as_ref();
        if discovery.is_some_and(|url| !url.starts_with("https://") || *url == issuer.url) {
            return Err("issuer.discoveryURL: must be another URL than issuer.url, with scheme https".into());
        }
        if issuer.audiences.is_empty() || issuer.audiences.iter().any(String::is_empty) {
            return Err("issuer.audiences: Required value: at least one audience is required".into());
        }
        match (issuer.audience_match_policy.as_str(), issuer.audiences.len()) {
            ("MatchAny", _) | ("", 1) => {}
            ("", _) => return Err("issuer.audienceMatchPolicy: must be MatchAny for multiple audiences".into()),
            (other, _) => return Err(format!("issuer.audienceMatchPolicy: Invalid value: {other:?}")),
        }
        let env = claims_env();
        let strings = [Type::String, Type::list(Type::String), Type::list(Type::Dyn)];
        let username = source(&mappings.username, &env, &strings[..1], "claimMappings.username", true)?;
        if matches!(username, Source::Nothing) {
            return Err("claimMappings.username: Required value: claim or expression is required".into());
        }
        let groups = source(&mappings.groups, &env, &strings, "claimMappings.groups", true)?;
        let uid = source(&mappings.uid, &env, &strings[..1], "claimMappings.uid", false)?;
        let (mut required, mut claim_rules) = (Vec::new(), Vec::new());
        for (at, rule) in self.claim_validation_rules.iter().enumerate() {
            let field = format!("claimValidationRules[{at}]");
            match (&rule.claim, &rule.expression) {
                (Some(claim), None) if !claim.is_empty() => required.push((claim.clone(), rule.required_value.clone())),
                (None, Some(text)) => {
                    claim_rules.push((compile(text, &env, &[Type::Bool], &field)?, said(&rule.message, text)));
                }
                _ => return Err(format!("{field}: exactly one of claim and expression is required")),
            }
        }
        let mut user_rules = Vec::new();
        for (at, rule) in self.user_validation_rules.iter().enumerate() {
            let field = format!("userValidationRules[{at}].expression");
            let program = compile(&rule.expression, &user_env(), &[Type::Bool], &field)?;
            user_rules.push((program, said(&rule.message, &rule.expression)));
        }
        let mut extra = BTreeMap::new();
        for (at, own) in mappings.extra.iter().enumerate() {
            let field = format!("claimMappings.extra[{at}]");
            let key = own.key.as_str();
            let good = key.split_once('/').is_some_and(|(domain, path)| !domain.is_empty() && !path.is_empty());
            if !good || key != key.to_lowercase() || key.contains("kubernetes.io/") || key.contains("k8s.io/") {
                return Err(format!("{field}.key: must be a lower-case path with a domain of its own, is {key:?}"));
            }
            let program = compile(&own.value_expression, &env, &strings, &format!("{field}.valueExpression"))?;
            if extra.insert(own.key.clone(), program).is_some() {
                return Err(format!("{field}.key: Duplicate value: {key:?}"));
            }
        }
        let texts = self.claim_validation_rules.iter().filter_map(|rule| rule.expression.as_deref());
        let texts = texts.chain(mappings.username.expression.as_deref());
        let reads_email_verified = texts.into_iter().any(|text| text.contains("email_verified"));
        let own = mappings.username.expression.as_deref().unwrap_or_default();
        if own.contains("claims.email") && !reads_email_verified {
            return Err("claimMappings.username.expression: claims.email_verified must be used in \
                claimMappings.username.expression or claimValidationRules[*].expression when claims.email is used".into());
        }
        Ok(Rules {
            audiences: issuer.audiences.clone(),
            algorithms: Algorithm::all(),
            required,
            claim_rules,
            user_rules,
            username,
            groups,
            uid,
            extra,
            reads_email_verified,
        })
    }
}

fn said(message: &str, expression: &str) -> String {
    if message.is_empty() { format!("validation expression '{expression}' failed") } else { message.to_owned() }
}

fn source(mapping: &Mapping, env: &Env, wanted: &[Type], field: &str, prefix: bool) -> Result<Source, String> {
    match (&mapping.claim, &mapping.expression) {
        (None, None) => Ok(Source::Nothing),
        (Some(_), Some(_)) => Err(format!("{field}: claim and expression can't both be set")),
        (None, Some(_)) if mapping.prefix.is_some() => Err(format!("{field}: prefix can't be set when expression is set")),
        (None, Some(text)) => Ok(Source::Expression(compile(text, env, wanted, &format!("{field}.expression"))?)),
        (Some(_), None) if prefix && mapping.prefix.is_none() => {
            Err(format!("{field}.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing"))
        }
        (Some(name), None) => {
            Ok(Source::Claim { name: name.clone(), prefix: mapping.prefix.clone().unwrap_or_default() })
        }
    }
}
