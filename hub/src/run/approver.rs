//! Approves requests of nodes for their own client certificates, when they have the right to them.
//!
//! In: one pending CertificateSigningRequest, the roles in the view. Out: the condition Approved with its reason.
//! Semantics: https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/#approval; the rights are
//! `create` of `certificatesigningrequests/nodeclient` and `/selfnodeclient`. Never: approves for another signer (serving
//! certificates are for people to approve), or denies.

use crate::pki::CsrAsk;
use base64::{Engine, prelude::BASE64_STANDARD};
use limpet_hub_core::{
    ObjectStore,
    rbac::{Attributes, authorize},
};
use serde_json::{Value, json};

pub(super) const BY: &str = "csrapproving-controller";
const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const GROUP: &str = "certificates.k8s.io";

/// `status.conditions` of an approved request; `None`: it stays as it is.
pub(super) fn approve(view: &ObjectStore, csr: &Value, now: &str) -> Option<Value> {
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
    if !is_client {
        return None;
    }
    let may = |subresource: &str| {
        let groups: Vec<String> = texts(&spec["groups"]).map(str::to_owned).collect();
        let user = spec["username"].as_str().unwrap_or_default();
        let resource = "certificatesigningrequests";
        let asked = Attributes { user, groups: &groups, verb: "create", api_group: GROUP, resource, subresource,
            ..Attributes::default() };
        authorize(view, &asked).is_allowed()
    };
    let is_self = spec["username"] == name.as_str();
    let message = if is_self && may("selfnodeclient") {
        "Auto approving self kubelet client certificate after SubjectAccessReview."
    } else if may("nodeclient") {
        "Auto approving kubelet client certificate after SubjectAccessReview."
    } else {
        return None;
    };
    Some(json!([{"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message,
        "lastUpdateTime": now, "lastTransitionTime": now}]))
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
    use rcgen::{CertificateParams, DnType, KeyPair};

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
            let got = approve(&view(), &csr, "2026-11-23T10:00:00Z");
            let message = got.as_ref().and_then(|c| c[0]["message"].as_str()).unwrap_or_default();
            assert!(message.starts_with(want) && message.is_empty() == want.is_empty(), "{csr} {message}");
        }
        let mut decided = csr(joiner, group, &good, &client, SIGNER);
        decided["status"]["conditions"] = json!([{"type": "Denied", "status": "True"}]);
        assert_eq!(approve(&view(), &decided, ""), None);
    }
}
