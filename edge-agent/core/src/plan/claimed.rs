//! Devices that a container has by claims.
//!
//! In: the container's `resources.claims`, the pod's status, the claims that came with it. Out: names of this node's devices.
//! Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
//! Never: another node's device, or one of a driver that this node does not have.

use super::Context;
use crate::{
    Items,
    api::{Container, Pod},
};
use limpet_protocol::ItemKind;
use serde::Deserialize;

/// As the hub names the driver of boards' devices.
const DRIVER: &str = "devices.limpet.dev";
/// Claims on devices have this before their name.
const ITEM: &str = "resourceclaims/";

#[derive(Deserialize)]
struct Claim {
    #[serde(default)]
    results: Vec<Allocated>,
}

/// A device that a claim was given.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub struct Allocated {
    /// `request`, or `request/alternative`.
    request: String,
    pub driver: String,
    pub pool: String,
    pub device: String,
}

/// Names of devices as the node offers them, each once. The error is kubelet's.
pub fn devices(context: &Context<'_>, items: &Items, container: &Container) -> Result<Vec<String>, String> {
    let mut devices = Vec::new();
    each(context.pod, items, container, &mut |_, result| {
        if result.driver != DRIVER || result.pool != context.host.node_name {
            let driver = &result.driver;
            return Err(format!(
                "failed to prepare dynamic resources: DRA driver {driver} is not registered on this node, which has \
                 {DRIVER} only"
            ));
        }
        if !devices.contains(&result.device) {
            devices.push(result.device);
        }
        Ok(())
    })?;
    Ok(devices)
}

/// With the claim's name, what a container has by claims; nothing where that is not known.
pub fn claimed(pod: &Pod, items: &Items, container: &Container) -> Vec<(String, Allocated)> {
    let mut all = Vec::new();
    let known = each(pod, items, container, &mut |claim, result| {
        all.push((claim.to_string(), result));
        Ok(())
    });
    known.map_or_else(|_| Vec::new(), |()| all)
}

/// What claims say that the container names, in its order.
fn each(
    pod: &Pod,
    items: &Items,
    container: &Container,
    take: &mut dyn FnMut(&str, Allocated) -> Result<(), String>,
) -> Result<(), String> {
    let mut of_claim = |claim: &str, request: Option<&str>| -> Result<(), String> {
        for result in results(items, pod, claim)? {
            let asked = |r: &str| r == result.request || result.request.split('/').next() == Some(r);
            if request.is_none_or(asked) {
                take(claim, result)?;
            }
        }
        Ok(())
    };
    for wanted in &container.resources.claims {
        let name = claim_name(pod, &wanted.name).ok_or_else(|| {
            format!("failed to prepare dynamic resources: the pod has no resource claim \"{}\"", wanted.name)
        })?;
        of_claim(&name, wanted.request.as_deref().filter(|r| !r.is_empty()))?;
    }
    let extended = &pod.status.extended_resource_claim_status;
    for mapping in extended.request_mappings.iter().filter(|m| m.container_name == container.name) {
        of_claim(&extended.resource_claim_name, Some(&mapping.request_name))?;
    }
    Ok(())
}

fn claim_name(pod: &Pod, own: &str) -> Option<String> {
    let named = pod.spec.resource_claims.iter().find(|c| c.name == own)?;
    let made = || pod.status.resource_claim_statuses.iter().find(|c| c.name == own);
    named.resource_claim_name.clone().or_else(|| made()?.resource_claim_name.clone())
}

fn results(items: &Items, pod: &Pod, claim: &str) -> Result<Vec<Allocated>, String> {
    let found: Option<Claim> = items.read(ItemKind::Claim, &pod.metadata.namespace, &format!("{ITEM}{claim}"));
    found.map(|c| c.results).ok_or_else(|| format!("failed to prepare dynamic resources: ResourceClaim {claim} is not allocated"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::HostFacts;
    use limpet_protocol::ItemKey;
    use serde_json::{Value, json};

    fn found(claims: Value, name: &str) -> Result<Vec<String>, String> {
        let pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {
                "resourceClaims": [{"name": "own", "resourceClaimName": "c"}, {"name": "made", "resourceClaimTemplateName": "t"}],
                "containers": [{"name": name, "resources": {"claims": claims}}]},
            "status": {"resourceClaimStatuses": [{"name": "made", "resourceClaimName": "p-made-1"}],
                "extendedResourceClaimStatus": {"resourceClaimName": "e", "requestMappings": [
                    {"containerName": "old", "resourceName": "a.b/c", "requestName": "container-0-request-0"}]}}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let host = HostFacts { node_name: "n1".into(), ..HostFacts::default() };
        let mut items = Items::default();
        let one = |request: &str, pool: &str, driver: &str, device: &str| {
            json!({"request": request, "pool": pool, "driver": driver, "device": device})
        };
        for (claim, results) in [
            ("c", json!([one("a", "n1", DRIVER, "d0"), one("b/first", "n1", DRIVER, "d1"), one("b/first", "n1", DRIVER, "d0")])),
            ("p-made-1", json!([one("a", "n1", "gpu.example.com", "g0")])),
            ("e", json!([one("container-0-request-0", "n1", DRIVER, "d7"), one("container-1-request-0", "n1", DRIVER, "d8")])),
            ("elsewhere", json!([one("a", "n2", DRIVER, "d0")])),
        ] {
            let key = ItemKey::new(ItemKind::Claim, "a", &format!("{ITEM}{claim}"));
            items.put(key, 1, json!({"results": results}).to_string().as_bytes());
        }
        let context = Context { pod: &pod, host: &host, pod_ips: &[], env_files: &crate::plan::NO_ENV_FILES };
        devices(&context, &items, &pod.spec.containers[0])
    }

    #[test]
    fn a_container_has_what_it_names() {
        let cases = [
            (json!([]), Ok(vec![])),
            (json!([{"name": "own"}]), Ok(vec!["d0", "d1"])),
            (json!([{"name": "own", "request": "a"}]), Ok(vec!["d0"])),
            (json!([{"name": "own", "request": "b"}]), Ok(vec!["d1", "d0"])),
            (json!([{"name": "own", "request": "none"}]), Ok(vec![])),
            (json!([{"name": "made"}]), Err("DRA driver gpu.example.com is not registered")),
            (json!([{"name": "missing"}]), Err("no resource claim \"missing\"")),
        ];
        for (claims, expected) in cases {
            match (found(claims.clone(), "main"), expected) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{claims}"),
                (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
                (got, want) => panic!("{claims}: {got:?}, not {want:?}"),
            }
        }
        assert_eq!(found(json!([]), "old").unwrap(), ["d7"], "asked for as an extended resource");
    }
}
