//! Link policies: how much a board may send and get in a month, when, and what.
//!
//! In: the `link` of a NodePool, or the annotation `limpet.dev/link-policy` of a node. Out: what is wrong with it; the form
//! that the board reads. Never: looks at nodes.

use super::fill::{list, text};
use super::fleet_rollout::window_rules;
use super::rules::{Errors, join, one_of};
use crate::field::FieldError;
use crate::quantity::Quantity;
use jiff::{Timestamp, civil, tz::TimeZone};
use serde_json::{Map, Value, json};

/// What travels besides state and status.
pub const TRAFFIC: [&str; 6] = ["events", "logs", "streams", "messages", "images", "updates"];
const WHEN: [&str; 3] = ["Always", "InWindow", "Never"];
const WINDOWS_MAX: usize = 32;
/// Clock changes that are told ahead: four years.
const OFFSETS_MAX: usize = 8;

pub fn link_rules(policy: &Value, path: &str, errors: &mut Errors) {
    let at = |field: &str| join(path, field);
    if let Some(budget) = policy.get("bytesPerMonth").filter(|b| !b.is_null())
        && Quantity::from_json(budget).map_or(true, |q| q.value() < 64 * 1024)
    {
        let words = "must be an amount of bytes of at least 64Ki, such as 50Mi";
        errors.push(FieldError::invalid(at("bytesPerMonth"), budget.clone(), words));
    }
    let between = |field: &str, low: i64, high: i64, errors: &mut Errors| {
        if let Some(n) = policy.get(field).filter(|n| !n.is_null())
            && !n.as_i64().is_some_and(|n| (low..=high).contains(&n))
        {
            errors.push(FieldError::invalid(at(field), n.clone(), format!("must be between {low} and {high}")));
        }
    };
    between("resetDay", 1, 28, errors);
    between("keepaliveSeconds", 5, 3600, errors);
    one_of(policy, "whenUsedUp", path, &["Essentials", "Hold"], errors);
    let zone = text(policy, "timeZone");
    if !zone.is_empty() && TimeZone::get(zone).is_err() {
        errors.push(FieldError::invalid(at("timeZone"), zone, "is not a time zone that is known"));
    }
    let windows = list(policy, "windows");
    if windows.len() > WINDOWS_MAX {
        errors.push(FieldError::invalid(at("windows"), windows.len(), format!("must be {WINDOWS_MAX} at most")));
    }
    for (index, window) in windows.iter().enumerate() {
        window_rules(window, &format!("{}[{index}]", at("windows")), errors);
    }
    let travels = &policy["travels"];
    for (traffic, when) in travels.as_object().into_iter().flatten() {
        if !TRAFFIC.contains(&traffic.as_str()) {
            errors.push(FieldError::not_supported(at("travels"), traffic.as_str(), &TRAFFIC));
        }
        if when == "InWindow" && windows.is_empty() {
            let words = "needs at least one of `windows`; without one it would never travel";
            errors.push(FieldError::invalid(format!("{}.{traffic}", at("travels")), when.clone(), words));
        }
    }
    for traffic in TRAFFIC {
        one_of(travels, traffic, &at("travels"), &WHEN, errors);
    }
}

/// The policy as the board reads it, without a time zone database. `now`: clock changes are told from the beginning of its year
/// on. `None`: it is not a policy (`link_rules` says why).
pub fn link_for_board(policy: &Value, name: &str, now: Timestamp) -> Option<Value> {
    let mut errors = Errors::new();
    link_rules(policy, "link", &mut errors);
    if !errors.is_empty() || !policy.is_object() {
        return None;
    }
    let mut board = Map::new();
    board.insert("name".into(), name.into());
    if let Some(budget) = policy.get("bytesPerMonth").and_then(|b| Quantity::from_json(b).ok()) {
        board.insert("bytesPerMonth".into(), budget.value().into());
    }
    for field in ["resetDay", "keepaliveSeconds", "whenUsedUp", "travels"] {
        if let Some(value) = policy.get(field).filter(|v| !v.is_null()) {
            board.insert(field.into(), value.clone());
        }
    }
    let plain = |w: &Value| json!({"start": w["start"], "end": w["end"], "days": list(w, "days")});
    let windows: Vec<Value> = list(policy, "windows").iter().map(plain).collect();
    if !windows.is_empty() {
        board.insert("windows".into(), windows.into());
    }
    let zone = text(policy, "timeZone");
    if !zone.is_empty() {
        board.insert("offsets".into(), offsets(&TimeZone::get(zone).ok()?, now).into());
    }
    Some(Value::Object(board))
}

fn offsets(zone: &TimeZone, now: Timestamp) -> Vec<Value> {
    let year = civil::date(now.to_zoned(TimeZone::UTC).year(), 1, 1);
    let from = year.to_zoned(TimeZone::UTC).map_or(now, |z| z.timestamp());
    let first = json!([from.as_second(), zone.to_offset(from).seconds()]);
    let later = zone.following(from).take(OFFSETS_MAX);
    let later = later.map(|t| json!([t.timestamp().as_second(), t.offset().seconds()]));
    std::iter::once(first).chain(later).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_checked() {
        let window = json!([{"start": "02:00", "end": "05:00", "days": ["Mon"]}]);
        for (policy, words) in [
            (json!({}), ""),
            (json!({"bytesPerMonth": "50Mi", "resetDay": 15, "keepaliveSeconds": 1200, "timeZone": "Europe/Berlin",
                "windows": window, "travels": {"images": "InWindow", "streams": "Never"}, "whenUsedUp": "Hold"}), ""),
            (json!({"bytesPerMonth": "5"}), "bytesPerMonth: Invalid value"),
            (json!({"bytesPerMonth": "much"}), "at least 64Ki"),
            (json!({"resetDay": 31}), "must be between 1 and 28"),
            (json!({"keepaliveSeconds": 1}), "must be between 5 and 3600"),
            (json!({"timeZone": "Mars/Base"}), "not a time zone"),
            (json!({"windows": [{"start": "2", "end": "05:00"}]}), "spec.link.windows[0].start"),
            (json!({"travels": {"images": "InWindow"}}), "needs at least one of `windows`"),
            (json!({"travels": {"images": "Sometimes"}}), "Unsupported value: \"Sometimes\""),
            (json!({"travels": {"cats": "Never"}}), "Unsupported value: \"cats\""),
            (json!({"whenUsedUp": "Cry"}), "Unsupported value: \"Cry\""),
        ] {
            let mut errors = Errors::new();
            link_rules(&policy, "spec.link", &mut errors);
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let all = all.join("\n");
            assert!(if words.is_empty() { all.is_empty() } else { all.contains(words) }, "{policy}: {all}");
        }
    }

    #[test]
    fn boards_get_numbers_and_offsets() {
        let now: Timestamp = "2026-11-25T10:00:00Z".parse().unwrap();
        let policy = json!({"bytesPerMonth": "1Mi", "timeZone": "Europe/Berlin",
            "windows": [{"start": "02:00", "end": "05:00"}], "travels": {"images": "InWindow"}});
        let board = link_for_board(&policy, "NodePool tills", now).unwrap();
        assert_eq!(board["bytesPerMonth"], 1_048_576);
        assert_eq!(board["windows"], json!([{"start": "02:00", "end": "05:00", "days": []}]));
        let winter = json!([1_767_225_600, 3600]);
        assert_eq!((&board["offsets"][0], &board["offsets"][1]), (&winter, &json!([1_774_746_000, 7200])));
        assert_eq!(board["offsets"].as_array().map(Vec::len), Some(OFFSETS_MAX + 1));
        let same = link_for_board(&policy, "NodePool tills", "2026-01-02T00:00:00Z".parse().unwrap());
        assert_eq!(same, Some(board), "the same all year");
        assert_eq!(link_for_board(&json!({"resetDay": 0}), "x", now), None);
        assert_eq!(link_for_board(&json!([]), "x", now), None);
    }
}
