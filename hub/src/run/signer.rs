//! Has CertificateSigningRequests of Kubernetes' built-in signers approved, and signs approved ones.
//!
//! In: approved requests, the hub's CA. Out: `status.certificate`, or the condition Failed that says what is wrong with it.
//! Semantics: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers
//! Never: signs for a signer that is not the cluster's own.

use super::{Applier, Listener, approver, clock, queue::Queue};
use crate::{
    auth::Authorizer,
    pki::{CsrAsk, Pki},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use limpet_hub_core::{
    Change, Changed, ObjectStore,
    view::{CertificateSigningRequest, Kind},
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

const BY: &str = "csrsigning-controller";
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const LEAST: Duration = Duration::from_secs(600);

/// What a signer lets a certificate be.
struct Rules {
    name: &'static str,
    usages: &'static [&'static str],
    needed: &'static str,
    node: bool,
    server: bool,
}

const SIGNERS: [Rules; 3] = [
    Rules {
        name: "kubernetes.io/kube-apiserver-client",
        usages: &["client auth", "digital signature", "key encipherment"],
        needed: "client auth",
        node: false,
        server: false,
    },
    Rules {
        name: "kubernetes.io/kube-apiserver-client-kubelet",
        usages: &["client auth", "digital signature", "key encipherment"],
        needed: "client auth",
        node: true,
        server: false,
    },
    Rules {
        name: "kubernetes.io/kubelet-serving",
        usages: &["server auth", "digital signature", "key encipherment"],
        needed: "server auth",
        node: true,
        server: true,
    },
];

pub struct Signer {
    queue: Queue<String>,
    pki: Arc<RwLock<Pki>>,
    applier: Arc<Applier>,
    authorizer: Authorizer,
}

impl Signer {
    /// `authorizer`: decides whose requests are approved.
    pub fn new(pki: Arc<RwLock<Pki>>, applier: Arc<Applier>, authorizer: Authorizer) -> Arc<Signer> {
        Arc::new(Signer { queue: Queue::new(), pki, applier, authorizer })
    }

    /// Starts the one worker; it ends with the runtime.
    pub fn start(self: &Arc<Self>) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                this.applier.lead().wait().await;
                let name = this.queue.next().await;
                match this.work(&name).await {
                    Ok(()) => this.queue.done(name),
                    Err(why) => {
                        tracing::debug!(name, "a certificate request is tried again: {why}");
                        this.queue.failed(name);
                    }
                }
            }
        });
    }

    async fn work(&self, name: &str) -> Result<(), String> {
        let now = clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let (request, uid) = {
            let view = self.applier.world().read();
            let Some(csr) = view.get::<CertificateSigningRequest>("", name) else { return Ok(()) };
            let request = csr.value();
            (request, csr.meta.uid.to_string())
        };
        if let Some(conditions) = approver::approve(&self.authorizer, &request, &now).await {
            // The event of this change brings the request back, to be signed.
            let change = patch(name, uid, "approval", json!({"conditions": conditions}));
            return self.applier.apply(approver::BY, vec![change]).await.map(drop).map_err(|s| s.message);
        }
        let Some(rules) = due(&request) else { return Ok(()) };
        let status = match self.sign(&request["spec"], rules) {
            Ok(pem) => json!({"certificate": BASE64_STANDARD.encode(pem)}),
            Err(why) => {
                let mut all = request["status"]["conditions"].as_array().cloned().unwrap_or_default();
                all.push(json!({"type": "Failed", "status": "True", "reason": "SignerValidationFailure",
                    "message": why, "lastUpdateTime": now, "lastTransitionTime": now}));
                json!({"conditions": all})
            }
        };
        let change = patch(name, uid, "status", status);
        self.applier.apply(BY, vec![change]).await.map(drop).map_err(|s| s.message)
    }

    fn sign(&self, spec: &Value, rules: &Rules) -> Result<String, String> {
        let usages: Vec<&str> = spec["usages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if let Some(other) = usages.iter().find(|u| !rules.usages.contains(u)) {
            return Err(format!("usage \"{other}\" is not permitted by {}", rules.name));
        }
        if !usages.contains(&rules.needed) {
            return Err(format!("usage \"{}\" is required by {}", rules.needed, rules.name));
        }
        let pem = BASE64_STANDARD.decode(spec["request"].as_str().unwrap_or_default()).map_err(|e| e.to_string())?;
        let pem = String::from_utf8(pem).map_err(|_| "spec.request is not PEM".to_string())?;
        let ask = CsrAsk::read(&pem).map_err(|e| e.to_string())?;
        check(&ask, rules)?;
        let asked = spec["expirationSeconds"].as_u64().map_or(YEAR, Duration::from_secs);
        let life = asked.clamp(LEAST, YEAR);
        let pki = self.pki.read().unwrap_or_else(PoisonError::into_inner);
        pki.sign_csr(&ask, rules.server, life, SystemTime::now()).map_err(|e| e.to_string())
    }
}

fn patch(name: &str, uid: String, subresource: &'static str, status: Value) -> Change {
    Change::Patch {
        resource: CertificateSigningRequest::RESOURCE.into(),
        namespace: String::new(),
        name: name.into(),
        uid,
        resource_version: None,
        subresource: Some(subresource),
        merge: json!({"status": status}),
    }
}

/// What node certificates have to look like; nobody becomes an administrator this way.
fn check(ask: &CsrAsk, rules: &Rules) -> Result<(), String> {
    let groups = &ask.subject.organizations;
    if groups.iter().any(|g| g == "system:masters") {
        return Err("organization \"system:masters\" is not signed".into());
    }
    if rules.node {
        if !ask.subject.common_name.starts_with("system:node:") {
            return Err("subject common name does not begin with \"system:node:\"".into());
        }
        if groups.len() != 1 || groups[0] != "system:nodes" {
            return Err("subject organization is not system:nodes".into());
        }
    }
    match (rules.server, ask.subject.names.is_empty()) {
        (true, true) => Err("DNS or IP subjectAltName is required".into()),
        (false, false) if rules.node => Err("DNS and IP subjectAltNames are not allowed".into()),
        _ => Ok(()),
    }
}

/// The rules of an approved request that has no answer yet.
fn due(csr: &Value) -> Option<&'static Rules> {
    let is = |type_: &str| {
        let all = csr["status"]["conditions"].as_array().into_iter().flatten();
        all.into_iter().any(|c| c["type"] == type_ && c["status"] != "False")
    };
    let answered = csr["status"]["certificate"].as_str().is_some_and(|c| !c.is_empty());
    if answered || !is("Approved") || is("Denied") || is("Failed") {
        return None;
    }
    SIGNERS.iter().find(|s| csr["spec"]["signerName"] == s.name)
}

impl Listener for Signer {
    fn is_of_leader(&self) -> bool {
        true
    }

    fn changed(&self, _view: &ObjectStore, changed: &Changed) {
        if changed.is::<CertificateSigningRequest>() && changed.new.is_some() {
            self.queue.add(changed.key.name.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn csr(cn: &str, org: &str, names: &[&str]) -> CsrAsk {
        let mut params = CertificateParams::new(names.iter().map(|n| n.to_string()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, cn);
        params.distinguished_name.push(DnType::OrganizationName, org);
        let key = KeyPair::generate().unwrap();
        CsrAsk::read(&params.serialize_request(&key).unwrap().pem().unwrap()).unwrap()
    }

    #[test]
    fn each_signer_has_its_rules() {
        let [client, kubelet, serving] = &SIGNERS;
        let cases = [
            (client, csr("jane", "devs", &[]), ""),
            (client, csr("jane", "system:masters", &[]), "system:masters"),
            (kubelet, csr("system:node:a", "system:nodes", &[]), ""),
            (kubelet, csr("jane", "system:nodes", &[]), "common name"),
            (kubelet, csr("system:node:a", "devs", &[]), "organization"),
            (kubelet, csr("system:node:a", "system:nodes", &["a.example"]), "not allowed"),
            (serving, csr("system:node:a", "system:nodes", &["a.example", "10.0.0.1"]), ""),
            (serving, csr("system:node:a", "system:nodes", &[]), "is required"),
        ];
        for (rules, ask, want) in cases {
            let got = check(&ask, rules).err().unwrap_or_default();
            assert!(got.contains(want) && got.is_empty() == want.is_empty(), "{}: {got}", rules.name);
        }
    }

    #[test]
    fn only_approved_requests_of_known_signers_are_due() {
        let csr = |signer: &str, types: &[&str], certificate: &str| {
            let all: Vec<Value> = types.iter().map(|t| json!({"type": t, "status": "True"})).collect();
            json!({"spec": {"signerName": signer}, "status": {"conditions": all, "certificate": certificate}})
        };
        let ours = "kubernetes.io/kube-apiserver-client";
        assert!(due(&csr(ours, &["Approved"], "")).is_some());
        for other in [
            csr(ours, &[], ""),
            csr(ours, &["Approved", "Denied"], ""),
            csr(ours, &["Approved", "Failed"], ""),
            csr(ours, &["Approved"], "x"),
            csr("example.com/other", &["Approved"], ""),
        ] {
            assert!(due(&other).is_none(), "{other}");
        }
    }
}
