//! The flags of `limpet hub` about who may do what, who did what, and who must wait.
//!
//! In: flags with kube-apiserver's names. Out: `GuardOptions`. Never: reads the files that they name.

use crate::duration;
use limpet_hub::{audit::AuditOptions, flow::FlowOptions, guard::GuardOptions};
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
}

impl Flags {
    pub fn options(self) -> Result<GuardOptions, String> {
        Ok(GuardOptions {
            flow: FlowOptions {
                max_requests_inflight: self.max_requests_inflight,
                max_mutating_requests_inflight: self.max_mutating_requests_inflight,
            },
            audit: AuditOptions {
                policy_file: self.audit_policy_file,
                log_path: self.audit_log_path,
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
