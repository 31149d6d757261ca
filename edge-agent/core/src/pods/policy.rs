//! Whether a container that ended runs again.
//!
//! In: a container's rules and policy, its pod's policy, an exit code. Out: what follows.
//! Source: Kubernetes "Pod Lifecycle", sections "Individual container restart policy and rules".

use super::container::Role;
use crate::api::{Container, RestartPolicy, RestartRule};

/// What the end of a container means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Restart,
    /// All containers of the pod begin again, init containers included.
    RestartAll,
    Rest,
}

/// Rules come first, then the container's own policy, then the pod's.
pub(super) fn after(role: Role, container: &Container, pod: RestartPolicy, code: i32) -> After {
    let rule = container.restart_policy_rules.iter().find(|r| matches(r, code));
    match rule.map(|r| r.action.as_str()) {
        Some("Restart") => return After::Restart,
        Some("RestartAllContainers") => return After::RestartAll,
        _ => {}
    }
    let policy = match (role, container.restart_policy) {
        // Somebody looks into a pod with it once; it is never started again.
        (Role::Ephemeral, _) => RestartPolicy::Never,
        (Role::Sidecar, _) => RestartPolicy::Always,
        (_, Some(own)) => own,
        // An init container that succeeded is done also with `Always`.
        (Role::Init, None) if pod == RestartPolicy::Always => RestartPolicy::OnFailure,
        (_, None) => pod,
    };
    match policy {
        RestartPolicy::Always => After::Restart,
        RestartPolicy::OnFailure if code != 0 => After::Restart,
        RestartPolicy::OnFailure | RestartPolicy::Never => After::Rest,
    }
}

fn matches(rule: &RestartRule, code: i32) -> bool {
    rule.exit_codes.as_ref().is_some_and(|codes| match codes.operator.as_str() {
        "In" => codes.values.contains(&code),
        "NotIn" => !codes.values.contains(&code),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn rules_then_the_containers_policy_then_the_pods() {
        use RestartPolicy::{Always, Never, OnFailure};
        let rules = |operator: &str| json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": [42]}}]);
        for (role, container, pod, code, want) in [
            (Role::Main, json!({}), Always, 0, After::Restart),
            (Role::Main, json!({}), OnFailure, 0, After::Rest),
            (Role::Main, json!({}), OnFailure, 1, After::Restart),
            (Role::Main, json!({}), Never, 1, After::Rest),
            (Role::Main, json!({"restartPolicy": "Never"}), Always, 1, After::Rest),
            (Role::Main, json!({"restartPolicy": "OnFailure"}), Never, 1, After::Restart),
            (Role::Main, json!({"restartPolicy": "Never", "restartPolicyRules": rules("In")}), Never, 42, After::Restart),
            (Role::Main, json!({"restartPolicy": "Never", "restartPolicyRules": rules("In")}), Never, 41, After::Rest),
            (Role::Main, json!({"restartPolicy": "Never", "restartPolicyRules": rules("NotIn")}), Never, 41, After::Restart),
            (Role::Init, json!({}), Always, 0, After::Rest),
            (Role::Init, json!({}), Always, 1, After::Restart),
            (Role::Init, json!({"restartPolicy": "Never"}), Always, 1, After::Rest),
            (Role::Sidecar, json!({"restartPolicy": "Always"}), Never, 0, After::Restart),
            (Role::Ephemeral, json!({}), Always, 1, After::Rest),
        ] {
            let parsed: Container = crate::api::parse(container.to_string().as_bytes()).unwrap();
            assert_eq!(after(role, &parsed, pod, code), want, "{role:?} {container} {pod:?} {code}");
        }
        let all: Value = json!({"restartPolicyRules": [{"action": "RestartAllContainers",
            "exitCodes": {"operator": "In", "values": [3]}}]});
        let parsed: Container = crate::api::parse(all.to_string().as_bytes()).unwrap();
        assert_eq!(after(Role::Main, &parsed, Never, 3), After::RestartAll);
    }
}
