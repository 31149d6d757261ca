//! Approves requests of nodes for their own client certificates, when they have the right to them.
//!
//! In: one pending CertificateSigningRequest, the configured authorizers. Out: the condition Approved with its reason.
//! Semantics: https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/#approval; the rights are
//! `create` of `certificatesigningrequests/nodeclient` and `/selfnodeclient`. Never: approves for another signer (serving
//! certificates are for people to approve), or denies.

use crate::{
    auth::{Asked, Authorizer, User},
    pki::CsrAsk,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

pub(super) const BY: &str = "csrapproving-controller";
const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const GROUP: &str = "certificates.k8s.io";

/// `status.conditions` of an approved request; `None`: it stays as it is.
pub(super) async fn approve(authorizer: &Authorizer, csr: &Value, now: &str) -> Option<Value> {
    let candidate = Candidate::of(csr)?;
    let message = if candidate.is_self && candidate.may(authorizer, "selfnodeclient").await {
        "Auto approving self kubelet client certificate after SubjectAccessReview."
    } else if candidate.may(authorizer, "nodeclient").await {
        "Auto approving kubelet client certificate after SubjectAccessReview."
    } else {
        return None;
    };
    Some(json!([{"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message,
        "lastUpdateTime": now, "lastTransitionTime": now}]))
}

/// Who asks for a node's client certificate in the right form.
struct Candidate {
    user: User,
    is_self: bool,
}

impl Candidate {
    fn of(csr: &Value) -> Option<Candidate> {
        let name = node_of(csr)?;
        let spec = &csr["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        let extra = spec["extra"].as_object().into_iter().flatten();
        let extra = extra.map(|(key, values)| (key.clone(), texts(values).map(str::to_owned).collect()));
        let groups = texts(&spec["groups"]).map(str::to_owned).collect();
        let user = User { name: text("username"), uid: text("uid"), groups, extra: extra.collect() };
        Some(Candidate { is_self: user.name == name, user })
    }

    async fn may(&self, authorizer: &Authorizer, subresource: &str) -> bool {
        let resource = "certificatesigningrequests";
        let asked = Asked { verb: "create", group: GROUP, version: "v1", resource, subresource, ..Asked::default() };
        authorizer.judge(&self.user, &asked).await.is_allowed()
    }
}

/// The user that a pending request is for, when it is one for a node's client certificate.
fn node_of(csr: &Value) -> Option<String> {
    let spec = &csr["spec"];
    let answered = csr["status"]["certificate"].as_str().is_some_and(|c| !c.is_empty());
    let decided = csr["status"]["conditions"].as_array().is_some_and(|c| !c.is_empty());
    if answered || decided || spec["signerName"] != SIGNER {
        return None;
    }
    let pem = BASE64_STANDARD.decode(spec["request"].as_str()?).ok()?;
    let ask = CsrAsk::read(std::str::from_utf8(&pem).ok()?).ok()?;
    let name = &ask.subject.common_name;
    let is_client = ask.subject.organizations == ["system:nodes"]
        && ask.subject.names.is_empty()
        && name.starts_with("system:node:")
        && are_client_usages(&spec["usages"]);
    is_client.then(|| name.clone())
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn are_client_usages(usages: &Value) -> bool {
    let known = ["client auth", "digital signature", "key encipherment"];
    let has = |usage: &str| texts(usages).any(|u| u == usage);
    texts(usages).all(|u| known.contains(&u)) && has("client auth") && has("digital signature")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::authz::Link;
    use futures_util::FutureExt;
    use limpet_hub_core::ObjectStore;
    use rcgen::{CertificateParams, DnType, KeyPair};
    use std::sync::{Arc, RwLock};

    fn request(cn: &str, org: &str, names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, cn);
        params.distinguished_name.push(DnType::OrganizationName, org);
        let key = KeyPair::generate().unwrap();
        BASE64_STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap())
    }

    fn view() -> ObjectStore {
        let mut view = ObjectStore::new();
        let mut put = |resource: &str, object: Value| {
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            view.apply(1, resource, "", &name, Some(object.to_string().into_bytes().into()));
        };
        for (name, who) in [("nodeclient", "system:bootstrappers"), ("selfnodeclient", "system:nodes")] {
            let rule = json!([{"apiGroups": [GROUP], "resources": [format!("certificatesigningrequests/{name}")],
                "verbs": ["create"]}]);
            put("rbac.authorization.k8s.io/clusterroles", json!({"metadata": {"name": name}, "rules": rule}));
            let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
            let subjects = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": who}]);
            let binding = json!({"metadata": {"name": name}, "roleRef": role, "subjects": subjects});
            put("rbac.authorization.k8s.io/clusterrolebindings", binding);
        }
        view
    }

    fn chain(links: Vec<Link>) -> Authorizer {
        Authorizer::new(Arc::new(RwLock::new(view())), links.into())
    }

    fn approve(authorizer: &Authorizer, csr: &Value) -> Option<Value> {
        super::approve(authorizer, csr, "2026-11-23T10:00:00Z").now_or_never().unwrap()
    }

    #[test]
    fn who_may_gets_a_client_certificate_and_nothing_else() {
        let client = json!(["client auth", "digital signature"]);
        let (node, good) = ("system:node:n1", request("system:node:n1", "system:nodes", &[]));
        let csr = |user: &str, group: &str, request: &str, usages: &Value, signer: &str| {
            json!({"spec": {"username": user, "groups": [group], "request": request, "usages": usages, "signerName": signer}})
        };
        let (joiner, group) = ("system:bootstrap:abcdef", "system:bootstrappers");
        let both = json!(["client auth", "digital signature", "key encipherment"]);
        let server = json!(["server auth", "digital signature"]);
        let serving = "kubernetes.io/kubelet-serving";
        let cases = [
            (csr(joiner, group, &good, &client, SIGNER), "Auto approving kubelet"),
            (csr(node, "system:nodes", &good, &both, SIGNER), "Auto approving self"),
            (csr("system:node:n2", "system:nodes", &good, &both, SIGNER), ""),
            (csr("jane", "devs", &good, &client, SIGNER), ""),
            (csr(joiner, group, &good, &server, SIGNER), ""),
            (csr(joiner, group, &good, &client, serving), ""),
            (csr(joiner, group, &request("jane", "system:nodes", &[]), &client, SIGNER), ""),
            (csr(joiner, group, &request(node, "system:masters", &[]), &client, SIGNER), ""),
            (csr(joiner, group, &request(node, "system:nodes", &["n1"]), &client, SIGNER), ""),
            (csr(joiner, group, "bm8=", &client, SIGNER), ""),
        ];
        for (csr, want) in cases {
            let got = approve(&chain(vec![Link::Rbac]), &csr);
            let message = got.as_ref().and_then(|c| c[0]["message"].as_str()).unwrap_or_default();
            assert!(message.starts_with(want) && message.is_empty() == want.is_empty(), "{csr} {message}");
        }
        let mut decided = csr(joiner, group, &good, &client, SIGNER);
        decided["status"]["conditions"] = json!([{"type": "Denied", "status": "True"}]);
        assert_eq!(approve(&chain(vec![Link::Rbac]), &decided), None);
        // The chain decides, not the roles.
        let stranger = csr("jane", "devs", &good, &client, SIGNER);
        assert!(approve(&chain(vec![Link::Node, Link::AlwaysAllow]), &stranger).is_some());
        assert_eq!(approve(&chain(vec![Link::AlwaysDeny]), &csr(joiner, group, &good, &client, SIGNER)), None);
    }
}
