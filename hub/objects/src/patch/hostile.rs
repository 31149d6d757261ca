//! Random objects and random patches: nothing panics, what must hold holds, and large lists do not take for ever.
//!
//! In: seeds. Out: the same cases for the same seeds.
//! Never: part of the program.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::fields::Set;
use super::walk::{compare, fields_of};
use super::{Place, apply, join, json, merge, strategic};
use crate::managed::{self, Managers, Writer};
use crate::schema::table;

/// A small generator: the tests need variety, not quality.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len() as u64) as usize]
    }

    /// A Deployment that mostly fits its schema.
    fn deployment(&mut self) -> Value {
        let mut spec = Map::new();
        for (name, value) in [("replicas", json!(self.roll(4))), ("paused", json!(self.roll(2) == 0))] {
            if self.roll(2) == 0 {
                spec.insert(name.into(), value);
            }
        }
        let containers: Vec<Value> =
            (0..1 + self.roll(3)).map(|i| self.container(&["a", "b", "c", "d"][i as usize])).collect();
        spec.insert("template".into(), json!({"spec": {"containers": containers}}));
        let mut labels = Map::from_iter([("w".to_string(), json!("1"))]);
        for _ in 0..self.roll(3) {
            labels.insert(self.pick(&["x", "y", "z"]).into(), json!(self.pick(&["1", "2"])));
        }
        json!({"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","labels":labels},"spec":spec})
    }

    fn container(&mut self, name: &str) -> Value {
        let mut container = json!({"name": name, "image": self.pick(&["i", "j"])});
        let mut env: Vec<Value> = Vec::new();
        for _ in 0..self.roll(4) {
            let entry = json!({"name": self.pick(&["E", "F", "G"]), "value": self.pick(&["1", "2"])});
            if !env.iter().any(|e| e["name"] == entry["name"]) {
                env.push(entry);
            }
        }
        if !env.is_empty() {
            container["env"] = Value::Array(env);
        }
        if self.roll(3) == 0 {
            container["ports"] = json!([{"containerPort": 80 + self.roll(2)}]);
        }
        container
    }

    /// Puts something silly somewhere.
    fn spoil(&mut self, value: &mut Value) {
        match value {
            Value::Object(map) if !map.is_empty() && self.roll(6) != 0 => {
                let key = map.keys().nth(self.roll(map.len() as u64) as usize).cloned().unwrap_or_default();
                if let Some(child) = map.get_mut(&key) {
                    self.spoil(child);
                }
            }
            Value::Array(list) if !list.is_empty() && self.roll(6) != 0 => {
                let at = self.roll(list.len() as u64) as usize;
                self.spoil(&mut list[at]);
            }
            value => *value = self.silly(),
        }
    }

    fn silly(&mut self) -> Value {
        match self.roll(12) {
            0 => Value::Null,
            1 => json!(-1.5e300),
            2 => json!([[null], {}]),
            3 => json!({"$patch": self.pick(&["delete", "replace", "merge", "x"])}),
            4 => json!([{"$patch": "delete"}, {"name": null}]),
            5 => json!({"$retainKeys": ["a", 1], "$setElementOrder/containers": [{"name": "a"}]}),
            6 => json!({"$deleteFromPrimitiveList/finalizers": ["a"], "f:": {}, "": {"": 1}}),
            7 => json!(""),
            8 => json!([1, "a", true, null]),
            9 => json!([{"name": "a"}, {"name": "a"}]),
            10 => json!({"name": {"name": []}}),
            _ => json!(u64::MAX),
        }
    }
}

fn place() -> Place<'static> {
    Place::of(table(), "io.k8s.api.apps.v1.Deployment")
}

fn writer(manager: &str) -> Writer<'_> {
    let now = Timestamp::UNIX_EPOCH;
    Writer { manager, api_version: "apps/v1", subresource: "", now, reset: &["status"] }
}

#[test]
fn applies_hold_what_they_promise() {
    let (mut dice, place) = (Dice(1), place());
    for round in 0..150 {
        let mut live: Option<Value> = None;
        for _ in 0..4 {
            let (manager, config) = (["one", "two"][dice.roll(2) as usize], dice.deployment());
            let force = dice.roll(2) == 0;
            let Ok(outcome) = apply(live.as_ref(), &config, &writer(manager), force, place) else { continue };
            let object = outcome.object;
            // What was applied is there, again it changes nothing, and the owner's set is what the configuration names.
            let missing = fields_of(place, &config).difference(&fields_of(place, &object));
            assert!(missing.is_empty(), "round {round}: {} is gone", missing.to_json());
            let again = apply(Some(&object), &config, &writer(manager), false, place)
                .expect("no conflict with itself");
            assert!(!again.changed, "round {round}");
            assert_eq!(again.object, object);
            let managers = Managers::decode(managed::entries_of(&object)).expect("own entries");
            for entry in managers.entries.values() {
                let beyond = entry.fields.difference(&fields_of(place, &object));
                assert!(beyond.is_empty(), "round {round}: owned but not there: {}", beyond.to_json());
                assert_eq!(Set::from_json(&entry.fields.to_json()).as_ref(), Ok(&entry.fields));
            }
            live = Some(object);
        }
    }
}

#[test]
fn who_applies_alone_gets_exactly_that() {
    let (mut dice, place) = (Dice(2), place());
    for _ in 0..300 {
        let (first, second) = (dice.deployment(), dice.deployment());
        let one = apply(None, &first, &writer("me"), false, place).expect("a first apply").object;
        let two = apply(Some(&one), &second, &writer("me"), false, place).expect("nobody else").object;
        let change = compare(place, &managed::stripped(&two), &second);
        let left = change.modified.union(&change.added).union(&change.removed);
        // Maps and lists that lost everything may stay or go; fields may not differ.
        let leaves = left.paths().into_iter().filter(|p| {
            let text = super::fields::path_text(p);
            !text.ends_with(".labels")
                && !text.ends_with(".spec")
                && !text.ends_with(".template")
                && !text.ends_with("s")
        });
        assert_eq!(leaves.count(), 0, "{} {second}", left.to_json());
    }
}

#[test]
fn nothing_panics() {
    let (mut dice, place) = (Dice(3), place());
    for _ in 0..1_000 {
        let (mut live, mut patch) = (dice.deployment(), dice.deployment());
        managed::update(None, &mut live, &writer("u"), place);
        for _ in 0..dice.roll(3) {
            dice.spoil(&mut live);
        }
        for _ in 0..1 + dice.roll(3) {
            dice.spoil(&mut patch);
        }
        let _ = strategic(&live, &patch, place);
        let _ = merge(&live, &patch);
        let _ = json(&live, patch.to_string().as_bytes());
        let _ = apply(Some(&live), &patch, &writer("a"), dice.roll(2) == 0, place);
        let _ = apply(Some(&live), &patch, &writer("kubectl"), false, Place::deduced(table()));
        join::join(place, &live, &patch);
        managed::update(Some(&live), &mut patch, &writer("v"), place);
        let text = patch.to_string();
        let cut = text.char_indices().nth(dice.roll(60) as usize).map_or(text.len(), |(i, _)| i);
        let _ = crate::strict::decode(&text.as_bytes()[cut..], Default::default());
    }
}

/// With quadratic walks this would take minutes.
#[test]
fn large_lists_are_walked_once() {
    let place = place();
    let env = |from: usize| -> Vec<Value> {
        (from..from + 4_000).map(|i| json!({"name": format!("E{i}")})).collect()
    };
    let config = |from| {
        json!({"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"w"},
            "spec":{"template":{"spec":{"containers":[{"name":"c","env":env(from)}]}}}})
    };
    let count =
        |v: &Value| v["spec"]["template"]["spec"]["containers"][0]["env"].as_array().map_or(0, Vec::len);
    let merged = strategic(&config(0), &config(2_000), place).expect("a merge");
    assert_eq!(count(&merged), 6_000);
    let one = apply(None, &config(0), &writer("one"), false, place).expect("a first apply").object;
    let two =
        apply(Some(&one), &config(2_000), &writer("two"), false, place).expect("the same values").object;
    assert_eq!(count(&two), 6_000);
    let three =
        apply(Some(&two), &config(3_000), &writer("one"), false, place).expect("the same values").object;
    assert_eq!(count(&three), 5_000);
}
