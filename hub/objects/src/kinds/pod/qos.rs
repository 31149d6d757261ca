//! The quality-of-service class of a pod (kubernetes.io/docs/concepts/workloads/pods/pod-qos).
//!
//! In: a pod's spec; what it asks for as a whole goes before what its containers ask for.
//! Out: `Guaranteed`, `Burstable` or `BestEffort`. Never: reads a status.

use serde_json::Value;

use crate::kinds::fill::{list, map};
use crate::quantity::Quantity;

pub fn qos_class(spec: &Value) -> &'static str {
    let whole = super::whole::is_set(spec);
    let containers = list(spec, "initContainers").iter().chain(list(spec, "containers")).filter(|_| !whole);
    let amount = |container: &Value, side: &str, name: &str| -> Option<i64> {
        let value = map(&container["resources"], side).get(name)?;
        Quantity::from_json(value).ok().map(|quantity| quantity.milli_value()).filter(|milli| *milli > 0)
    };
    let mut any = false;
    let mut all_equal = true;
    for container in containers.chain(Some(spec).filter(|_| whole)) {
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount(container, "requests", name), amount(container, "limits", name));
            any |= request.is_some() || limit.is_some();
            all_equal &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, all_equal) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let cases = [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": both, "requests": {"cpu": "1000m", "memory": "1024Mi"}}), "Guaranteed"),
            (json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": both, "requests": {"cpu": "500m", "memory": "1Gi"}}), "Burstable"),
        ];
        for (resources, expect) in cases {
            assert_eq!(qos_class(&json!({"containers": [{"resources": resources}]})), expect, "{resources}");
            // What the pod asks for as a whole decides, whatever its containers ask for.
            if resources != json!({}) {
                let spec = json!({"resources": resources, "containers": [{"resources": {"requests": {"cpu": "1m"}}}]});
                assert_eq!(qos_class(&spec), expect, "{spec}");
            }
        }
    }
}
