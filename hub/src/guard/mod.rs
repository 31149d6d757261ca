//! Who may do what, who did what, who must wait: what the operator configured of it.
//!
//! In: `GuardOptions`, the files that they name. Out: a `Guard` that the API asks. Never: a default that is less safe
//! than upstream's.

use crate::{
    audit::{Audit, AuditOptions},
    auth::{Authenticators, AuthnOptions, AuthzOptions, authz::Link},
    flow::{FlowControl, FlowOptions},
};
use std::sync::Arc;

/// The flags of `limpet hub` about it. Without any, nothing is recorded.
#[derive(Clone, Debug, Default)]
pub struct GuardOptions {
    pub audit: AuditOptions,
    pub flow: FlowOptions,
    pub authn: AuthnOptions,
    pub authz: AuthzOptions,
}

pub struct Guard {
    pub audit: Option<Arc<Audit>>,
    pub flow: Arc<FlowControl>,
    pub authn: Authenticators,
    pub authz: Arc<[Link]>,
}

impl Guard {
    /// The error tells the file and what is wrong with it. Needs a running tokio.
    pub fn open(options: &GuardOptions) -> Result<Guard, String> {
        Ok(Guard {
            audit: Audit::open(&options.audit)?,
            flow: FlowControl::new(&options.flow),
            authn: Authenticators::open(&options.authn)?,
            authz: options.authz.chain()?.into(),
        })
    }

    /// Waits until what must be written is written.
    pub async fn end(&self) {
        if let Some(audit) = &self.audit {
            audit.end().await;
        }
    }

    /// Prometheus' text.
    pub fn figures(&self) -> String {
        let mut text = self.audit.as_ref().map(|audit| audit.figures()).unwrap_or_default();
        text.push_str(&self.flow.figures());
        text
    }
}
