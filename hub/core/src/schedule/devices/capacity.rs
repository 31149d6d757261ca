//! How much of a device one request takes.
//!
//! In: a device, the amounts that a request names. Out: what an allocation takes of each capacity, as the device's policies
//! round it; or that the device cannot give so much. Source: the API reference of CapacityRequirements and
//! CapacityRequestPolicy. Never: knows what others have taken.

use crate::view::{Capacity, Device, RequestPolicy};
use limpet_objects::quantity::Quantity;
use std::collections::BTreeMap;

/// By the name of the capacity, as the device spells it.
pub type Amounts = BTreeMap<Box<str>, Quantity>;

/// By the name of the capacity, as the request spells it.
pub type Wanted = Vec<(Box<str>, Quantity)>;

pub fn wanted(requests: &BTreeMap<Box<str>, Box<str>>) -> Wanted {
    requests.iter().filter_map(|(name, amount)| Some((name.clone(), amount.parse().ok()?))).collect()
}

/// What an allocation takes; `None`: the device has not so much, or has no such capacity.
/// Of a device that only one request may have it takes nothing that would have to be counted.
pub fn taken(driver: &str, device: &Device, wanted: &Wanted) -> Option<Amounts> {
    for (name, _) in wanted {
        named(driver, device, name)?;
    }
    let mut amounts = Amounts::new();
    for (name, capacity) in &device.capacity {
        let asked = wanted.iter().find(|(w, _)| same(driver, w, name)).map(|(_, amount)| *amount);
        let counts = device.allow_multiple_allocations;
        if !counts && asked.is_none() {
            continue;
        }
        let amount = part(capacity, asked)?;
        if amount > value(&capacity.value)? {
            return None;
        }
        if counts {
            amounts.insert(name.clone(), amount);
        }
    }
    Some(amounts)
}

/// The driver's own names need not spell its domain.
fn same(driver: &str, a: &str, b: &str) -> bool {
    fn short<'a>(driver: &str, name: &'a str) -> &'a str {
        name.strip_prefix(driver).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name)
    }
    short(driver, a) == short(driver, b)
}

fn named<'a>(driver: &str, device: &'a Device, name: &str) -> Option<&'a Capacity> {
    device.capacity.iter().find(|(own, _)| same(driver, own, name)).map(|(_, c)| c)
}

fn value(text: &str) -> Option<Quantity> {
    text.parse().ok()
}

/// The amount that is taken, rounded up to what the policy allows; `None`: it allows nothing of that size.
fn part(capacity: &Capacity, asked: Option<Quantity>) -> Option<Quantity> {
    let policy = capacity.request_policy.as_ref();
    let Some(asked) = asked else {
        let default = policy.and_then(|p| p.default.as_deref());
        return value(default.unwrap_or(&capacity.value));
    };
    let Some(RequestPolicy { valid_values, valid_range, .. }) = policy else { return Some(asked) };
    if let Some(range) = valid_range {
        let min = value(&range.min).unwrap_or(Quantity::ZERO);
        let step = range.step.as_deref().and_then(value).unwrap_or(Quantity::ZERO);
        let amount = asked.stepped(min, step);
        let above = range.max.as_deref().and_then(value).is_some_and(|max| amount > max);
        return (!above).then_some(amount);
    }
    if valid_values.is_empty() {
        return Some(asked);
    }
    valid_values.iter().filter_map(|v| value(v)).filter(|v| *v >= asked).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn amounts_are_rounded_as_the_policy_says() {
        let range = |more: Value| {
            let mut range = json!({"min": "2Gi"});
            more.as_object().unwrap().iter().for_each(|(k, v)| range[k] = v.clone());
            json!({"default": "4Gi", "validRange": range})
        };
        let values = json!({"default": "1Gi", "validValues": ["1Gi", "4Gi", "8Gi"]});
        let cases = [
            (Value::Null, Some("3Gi"), Some("3Gi"), "without a policy"),
            (Value::Null, Some("11Gi"), None, "more than there is"),
            (Value::Null, None, Some("10Gi"), "all of it when nothing is asked for"),
            (json!({"default": "2Gi"}), None, Some("2Gi"), "the default"),
            (json!({"default": "2Gi"}), Some("3Gi"), Some("3Gi"), "only a default"),
            (range(json!({})), None, Some("4Gi"), "the default of a range"),
            (range(json!({})), Some("1Gi"), Some("2Gi"), "at least the minimum"),
            (range(json!({})), Some("5Gi"), Some("5Gi"), "no steps"),
            (range(json!({"step": "2Gi"})), Some("5Gi"), Some("6Gi"), "the next step"),
            (range(json!({"step": "2Gi", "max": "6Gi"})), Some("7Gi"), None, "above the maximum"),
            (range(json!({"step": "4Gi"})), Some("9Gi"), Some("10Gi"), "steps begin at the minimum"),
            (range(json!({"step": "3Gi"})), Some("9Gi"), None, "the next step is more than there is"),
            (values.clone(), Some("2Gi"), Some("4Gi"), "the next value"),
            (values.clone(), Some("9Gi"), None, "above all values"),
            (values, None, Some("1Gi"), "the default of values"),
        ];
        for (policy, asked, expected, why) in cases {
            let mut memory = json!({"value": "10Gi"});
            if !policy.is_null() {
                memory["requestPolicy"] = policy;
            }
            let device = |shared: bool| -> Device {
                let capacity = json!({"memory": memory});
                serde_json::from_value(json!({"name": "d", "allowMultipleAllocations": shared, "capacity": capacity})).unwrap()
            };
            let wanted: Wanted = asked.iter().map(|a| ("x.example.org/memory".into(), a.parse().unwrap())).collect();
            let shared = taken("x.example.org", &device(true), &wanted);
            assert_eq!(shared.map(|a| a["memory"].to_string()).as_deref(), expected, "{why}");
            // Alone it is all or nothing: only whether it is large enough.
            let alone = taken("x.example.org", &device(false), &wanted);
            assert_eq!(alone, (expected.is_some() || asked.is_none()).then(Amounts::new), "{why}");
        }
        let none: Device = serde_json::from_value(json!({"name": "d"})).unwrap();
        assert_eq!(taken("x.example.org", &none, &vec![("memory".into(), Quantity::ZERO)]), None, "no such capacity");
    }
}
