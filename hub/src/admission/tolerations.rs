//! DefaultTolerationSeconds: a pod stays for five minutes on a node that is not ready or not reachable.
//!
//! In: new pods. Out: two tolerations, unless the pod has its own for these taints. Never: changes one that
//! is there.

use super::Review;
use crate::api::object;
use serde_json::{Value, json};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) fn admit(review: &mut Review<'_>) {
    let Some(list) = object::map(review.object, "spec").and_then(|s| object::list(s, "tolerations")) else {
        return;
    };
    for key in TAINTS {
        if !list.iter().any(|t| tolerates(t, key)) {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
}

fn tolerates(toleration: &Value, key: &str) -> bool {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    (text("key") == key || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
}
