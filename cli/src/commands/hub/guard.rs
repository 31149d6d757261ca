//! The flags of `limpet hub` about who may do what, who did what, and who must wait.
//!
//! In: flags with kube-apiserver's names. Out: `GuardOptions`. Never: reads the files that they name.

use crate::duration;
use limpet_hub::{
    audit::{AuditOptions, LogMode},
    auth::{AuthnOptions, AuthzOptions, Oidc, front::FrontOptions},
    flow::FlowOptions,
    guard::GuardOptions,
};
use std::{path::PathBuf, time::Duration};

#[derive(clap::Args)]
#[command(next_help_heading = "Audit log")]
pub struct Flags {
    /// What to record: a file with a Policy of audit.k8s.io/v1
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// Where to write audit events, one line of JSON each; - is the standard output
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// What requests do while the audit log is behind: batch (nothing waits, events may be dropped), blocking (they wait), or
    /// blocking-strict (they also fail when their first event cannot be written)
    #[arg(long, value_name = "MODE", default_value = "blocking")]
    audit_log_mode: LogMode,
    /// MiB of an audit log before the next one is begun; 0: never
    #[arg(long, value_name = "MIB", default_value_t = 100)]
    audit_log_maxsize: u64,
    /// Old audit logs to keep; 0: all
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    audit_log_maxbackup: usize,
    /// Days to keep old audit logs; 0: for ever
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    audit_log_maxage: u64,
    /// Whom to send audit events to: a file in kubeconfig's form
    #[arg(long, value_name = "FILE")]
    audit_webhook_config_file: Option<PathBuf>,
    /// Events that wait for the audit webhook; more are dropped and counted
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    audit_webhook_batch_buffer_size: usize,
    /// Events in one request to the audit webhook
    #[arg(long, value_name = "COUNT", default_value_t = 400)]
    audit_webhook_batch_max_size: usize,
    /// How long an event may wait for others before it is sent
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    audit_webhook_batch_max_wait: Duration,
    /// The first pause after the audit webhook failed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    audit_webhook_initial_backoff: Duration,

    /// Reading requests that are carried out at once; the sum with the next flag is shared by all priority levels
    #[arg(long, value_name = "COUNT", default_value_t = 400, help_heading = "Priority and fairness")]
    max_requests_inflight: u32,
    /// Writing requests that are carried out at once; both 0: no bound
    #[arg(long, value_name = "COUNT", default_value_t = 200, help_heading = "Priority and fairness")]
    max_mutating_requests_inflight: u32,

    #[command(flatten)]
    who: Box<Who>,
    #[command(flatten)]
    may: Box<May>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Authentication")]
struct Who {
    /// Bearer tokens: a file with a line for each: token,user,uid,"group1,group2"
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Issuers of tokens, and where strangers may come: a file with an AuthenticationConfiguration
    #[arg(long, value_name = "FILE", conflicts_with = "oidc_issuer_url")]
    authentication_config: Option<PathBuf>,
    /// An OpenID issuer whose tokens are believed; https only
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// The audience that the issuer's tokens must have
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// The claim that is the user's name
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    oidc_username_claim: String,
    /// What is put before the user's name; - for nothing [default: the issuer's URL and #, but for email]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    oidc_username_prefix: Option<String>,
    /// The claim that names the user's groups
    #[arg(long, value_name = "CLAIM")]
    oidc_groups_claim: Option<String>,
    /// What is put before each group
    #[arg(long, value_name = "TEXT", default_value = "")]
    oidc_groups_prefix: String,
    /// CLAIM=VALUE that the issuer's tokens must have; may be repeated
    #[arg(long, value_name = "CLAIM=VALUE", value_parser = pair)]
    oidc_required_claim: Vec<(String, String)>,
    /// Algorithms of the issuer's signatures
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "RS256")]
    oidc_signing_algs: Vec<String>,
    /// The authority of the issuer's certificate [default: those of this machine]
    #[arg(long, value_name = "FILE")]
    oidc_ca_file: Option<PathBuf>,
    /// Whom to ask about unknown tokens (TokenReview): a file in kubeconfig's form
    #[arg(long, value_name = "FILE")]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// How long its answers are kept
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = time_or_zero)]
    authentication_token_webhook_cache_ttl: Duration,
    /// Whether bootstrap tokens (Secrets of type bootstrap.kubernetes.io/token in kube-system) are believed
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1,
        default_missing_value = "true")]
    enable_bootstrap_token_auth: bool,
    /// Whether strangers may ask; they may do little
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
        default_missing_value = "true")]
    anonymous_auth: bool,
    /// The authority of front proxies that name users in headers
    #[arg(long, value_name = "FILE")]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of such proxies [default: all of that authority]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Headers with the user's name
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "X-Remote-User")]
    requestheader_username_headers: Vec<String>,
    /// Headers with the user's uid
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "X-Remote-Uid")]
    requestheader_uid_headers: Vec<String>,
    /// Headers with the user's groups
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "X-Remote-Group")]
    requestheader_group_headers: Vec<String>,
    /// How headers with more about the user begin
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',', default_value = "X-Remote-Extra-")]
    requestheader_extra_headers_prefix: Vec<String>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Authorization")]
struct May {
    /// Who is asked for rights, in this order: Node, RBAC, ABAC, Webhook, AlwaysAllow, AlwaysDeny
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "Node,RBAC")]
    authorization_mode: Vec<String>,
    /// Rights by ABAC: a file with a Policy in each line
    #[arg(long, value_name = "FILE")]
    authorization_policy_file: Option<PathBuf>,
    /// Whom to ask for rights (SubjectAccessReview): a file in kubeconfig's form
    #[arg(long, value_name = "FILE")]
    authorization_webhook_config_file: Option<PathBuf>,
    /// How long a yes of the webhook is kept
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time_or_zero)]
    authorization_webhook_cache_authorized_ttl: Duration,
    /// How long a no of the webhook is kept
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time_or_zero)]
    authorization_webhook_cache_unauthorized_ttl: Duration,
    /// Who is asked for rights: a file with an AuthorizationConfiguration, instead of --authorization-mode
    #[arg(long, value_name = "FILE", conflicts_with = "authorization_webhook_config_file")]
    authorization_config: Option<PathBuf>,
}

fn time_or_zero(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") { Ok(Duration::ZERO) } else { duration::parse(text) }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(claim, _)| !claim.is_empty());
    pair.map(|(claim, value)| (claim.to_owned(), value.to_owned())).ok_or_else(|| format!("{text:?} is not CLAIM=VALUE"))
}

impl Who {
    fn options(self) -> AuthnOptions {
        let oidc = self.oidc_issuer_url.zip(self.oidc_client_id).map(|(issuer_url, client_id)| Oidc {
            issuer_url,
            client_id,
            username_claim: self.oidc_username_claim,
            username_prefix: self.oidc_username_prefix,
            groups_claim: self.oidc_groups_claim,
            groups_prefix: self.oidc_groups_prefix,
            required_claims: self.oidc_required_claim,
            signing_algs: self.oidc_signing_algs,
            ca_file: self.oidc_ca_file,
        });
        let front = self.requestheader_client_ca_file.map(|client_ca_file| FrontOptions {
            client_ca_file,
            allowed_names: self.requestheader_allowed_names,
            username_headers: self.requestheader_username_headers,
            uid_headers: self.requestheader_uid_headers,
            group_headers: self.requestheader_group_headers,
            extra_headers_prefix: self.requestheader_extra_headers_prefix,
        });
        AuthnOptions {
            token_auth_file: self.token_auth_file,
            authentication_config: self.authentication_config,
            oidc,
            token_webhook_config_file: self.authentication_token_webhook_config_file,
            token_webhook_cache_ttl: self.authentication_token_webhook_cache_ttl,
            anonymous_auth: self.anonymous_auth,
            bootstrap_tokens: self.enable_bootstrap_token_auth,
            front,
        }
    }
}

impl May {
    fn options(self) -> AuthzOptions {
        AuthzOptions {
            modes: self.authorization_mode,
            policy_file: self.authorization_policy_file,
            webhook_config_file: self.authorization_webhook_config_file,
            webhook_cache_authorized_ttl: self.authorization_webhook_cache_authorized_ttl,
            webhook_cache_unauthorized_ttl: self.authorization_webhook_cache_unauthorized_ttl,
            config: self.authorization_config,
        }
    }
}

impl Flags {
    pub fn options(self) -> Result<GuardOptions, String> {
        Ok(GuardOptions {
            authn: self.who.options(),
            authz: self.may.options(),
            flow: FlowOptions {
                max_requests_inflight: self.max_requests_inflight,
                max_mutating_requests_inflight: self.max_mutating_requests_inflight,
            },
            audit: AuditOptions {
                policy_file: self.audit_policy_file,
                log_path: self.audit_log_path,
                log_mode: self.audit_log_mode,
                log_maxsize: self.audit_log_maxsize,
                log_maxbackup: self.audit_log_maxbackup,
                log_maxage: self.audit_log_maxage,
                webhook_config_file: self.audit_webhook_config_file,
                webhook_batch_buffer_size: self.audit_webhook_batch_buffer_size,
                webhook_batch_max_size: self.audit_webhook_batch_max_size,
                webhook_batch_max_wait: self.audit_webhook_batch_max_wait,
                webhook_initial_backoff: self.audit_webhook_initial_backoff,
            },
        })
    }
}
