//! How fast an autoscaler may follow its figures.
//!
//! In: `spec.behavior`, the bounds, what was recommended and done lately. Out: the number of replicas for now, and what to
//! say about it. Never: beyond the bounds.

use super::memory::Memories;
use crate::Timestamp;
use limpet_objects::quantity::Quantity;
use serde_json::{Value, json};

const DOWN_WINDOW_S: i64 = 300;
const TOLERANCE_MILLI: i64 = 100;

#[derive(Clone, Copy)]
pub struct Limits {
    pub least: i32,
    pub most: i32,
    pub wanted: i32,
}

pub struct Past<'a> {
    pub memories: &'a Memories,
    pub uid: &'a str,
    pub now: Timestamp,
    /// `spec.replicas` before.
    pub wanted: i32,
}

pub struct Settled {
    pub replicas: i32,
    pub able: (bool, &'static str, &'static str),
    pub limited: (bool, &'static str, &'static str),
}

/// (up, down): parts of the target, in thousandths, by which figures may be off without any change.
pub fn tolerances(behavior: &Value) -> (i64, i64) {
    let of = |side: &str| {
        let given = &behavior[side]["tolerance"];
        Quantity::from_json(given).map_or(TOLERANCE_MILLI, |q| q.milli_value())
    };
    (of("scaleUp"), of("scaleDown"))
}

/// The window and the policies of one side, with the API's defaults.
struct Rules {
    window_s: i64,
    disabled: bool,
    least: bool,
    policies: Vec<(bool, i32, i64)>,
}

fn rules(behavior: &Value, side: &str) -> Rules {
    let up = side == "scaleUp";
    let defaults = if up {
        json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}])
    } else {
        json!([{"type": "Percent", "value": 100, "periodSeconds": 15}])
    };
    let own = &behavior[side];
    let policies = if own["policies"].as_array().is_some_and(|p| !p.is_empty()) { &own["policies"] } else { &defaults };
    let one = |p: &Value| {
        let value = i32::try_from(p["value"].as_i64().unwrap_or(0)).unwrap_or(i32::MAX);
        (p["type"] == "Percent", value, p["periodSeconds"].as_i64().unwrap_or(15))
    };
    Rules {
        window_s: own["stabilizationWindowSeconds"].as_i64().unwrap_or(if up { 0 } else { DOWN_WINDOW_S }),
        disabled: own["selectPolicy"] == "Disabled",
        least: own["selectPolicy"] == "Min",
        policies: policies.as_array().into_iter().flatten().map(one).collect(),
    }
}

pub fn normalize(behavior: &Value, limits: Limits, proposed: i32, past: Past<'_>) -> Settled {
    let (up, down) = (rules(behavior, "scaleUp"), rules(behavior, "scaleDown"));
    past.memories.recommended(past.uid, proposed, past.now);
    let stable = stabilize(&up, &down, proposed, &past);
    let able = if stable == proposed {
        (true, "ReadyForNewScale", "recommended size matches current size")
    } else if stable < proposed {
        (
            true,
            "ScaleUpStabilized",
            "recent recommendations were lower than current one, applying the lowest recent recommendation",
        )
    } else {
        (
            true,
            "ScaleDownStabilized",
            "recent recommendations were higher than current one, applying the highest recent recommendation",
        )
    };
    let (replicas, limited) = bound(&up, &down, limits, stable, &past);
    Settled { replicas, able, limited }
}

/// Up: no higher than the lowest of its window; down: no lower than the highest of its window.
fn stabilize(up: &Rules, down: &Rules, proposed: i32, past: &Past<'_>) -> i32 {
    let lowest = past.memories.since(past.uid, up.window_s, past.now).into_iter().fold(proposed, i32::min);
    let highest = past.memories.since(past.uid, down.window_s, past.now).into_iter().fold(proposed, i32::max);
    past.wanted.max(lowest).min(highest)
}

type Said = (bool, &'static str, &'static str);

fn bound(up: &Rules, down: &Rules, limits: Limits, stable: i32, past: &Past<'_>) -> (i32, Said) {
    let fine = (false, "DesiredWithinRange", "the desired count is within the acceptable range");
    if stable > limits.wanted {
        let speed = speed_up(up, limits.wanted, past);
        let top = speed.min(limits.most);
        if stable <= top {
            return (stable, fine);
        }
        let said = if speed < limits.most {
            (true, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
        } else {
            (true, "TooManyReplicas", "the desired replica count is more than the maximum replica count")
        };
        return (top.max(limits.wanted), said);
    }
    if stable < limits.wanted {
        let speed = speed_down(down, limits.wanted, past);
        let floor = speed.max(limits.least);
        if stable >= floor {
            return (stable, fine);
        }
        let said = if speed > limits.least {
            (true, "ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
        } else {
            (true, "TooFewReplicas", "the desired replica count is less than the minimum replica count")
        };
        return (floor.min(limits.wanted), said);
    }
    (stable, fine)
}

/// The highest number that the policies allow now.
fn speed_up(rules: &Rules, wanted: i32, past: &Past<'_>) -> i32 {
    if rules.disabled {
        return wanted;
    }
    let allowed = rules.policies.iter().map(|(percent, value, period_s)| {
        let (added, taken) = past.memories.moved(past.uid, *period_s, past.now);
        let start = i64::from(wanted) - i64::from(added) + i64::from(taken);
        let top = if *percent { (start * (100 + i64::from(*value)) + 99).div_euclid(100) } else { start + i64::from(*value) };
        i32::try_from(top).unwrap_or(i32::MAX)
    });
    let chosen = if rules.least { allowed.min() } else { allowed.max() };
    chosen.unwrap_or(wanted).max(wanted)
}

/// The lowest number that the policies allow now.
fn speed_down(rules: &Rules, wanted: i32, past: &Past<'_>) -> i32 {
    if rules.disabled {
        return wanted;
    }
    let allowed = rules.policies.iter().map(|(percent, value, period_s)| {
        let (added, taken) = past.memories.moved(past.uid, *period_s, past.now);
        let start = i64::from(wanted) - i64::from(added) + i64::from(taken);
        let floor = if *percent { start * (100 - i64::from(*value)) / 100 } else { start - i64::from(*value) };
        i32::try_from(floor.max(0)).unwrap_or(0)
    });
    // The policy that allows most change is the one with the lowest floor.
    let chosen = if rules.least { allowed.max() } else { allowed.min() };
    chosen.unwrap_or(wanted).min(wanted)
}
