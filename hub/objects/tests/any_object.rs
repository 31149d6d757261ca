//! Every kind meets arbitrary objects of its schema: nothing panics, and what comes out still fits the
//! schema.
//!
//! In: objects made from the schema table by a seeded generator. Out: a panic or a broken rule fails
//! the test.
//! Never: random without a seed: a failure names the seed that repeats it.

use limpet_objects::behaviour::Ctx;
use limpet_objects::managed::{self, Writer};
use limpet_objects::registry::registry;
use limpet_objects::resource::Resource;
use limpet_objects::schema::{self, Schema, Table, Type};
use limpet_objects::{sieve, strategy, table};
use serde_json::{Map, Value, json};

const ROUNDS: u64 = 40;
const DEPTH_MAX: usize = 9;

/// SplitMix64: small, seeded, the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

const TEXTS: [&str; 12] = [
    "",
    "a",
    "web",
    "A B",
    "..",
    "/x/../y",
    "é",
    "a=b",
    "Always",
    "kubernetes.io/tls",
    "%",
    "2026-01-01T00:00:00Z",
];

fn make(table: &Table, schema: &Schema, chance: &mut Chance, depth: usize) -> Value {
    let schema = table.resolve(schema);
    match &schema.kind {
        Type::Any | Type::Deduced => json!({"x": 1}),
        Type::String if !schema.choices.is_empty() && chance.below(4) > 0 => {
            let at = chance.below(schema.choices.len() as u64) as usize;
            json!(schema.choices[at])
        }
        Type::String => json!(chance.pick(&TEXTS)),
        Type::Bytes => json!(chance.pick(&["", "YQ==", "AAAA"])),
        Type::Time => {
            json!(chance.pick(&["2026-01-01T00:00:00Z", "1970-01-01T00:00:00+01:00", "9999-12-30T00:00:00Z"]))
        }
        Type::MicroTime => json!("2026-01-01T00:00:00.123456Z"),
        Type::Quantity => chance.pick(&["1", "100m", "-1", "1Gi", "1e3", "0"]).into(),
        Type::IntOrString => match chance.below(2) {
            0 => json!(chance.pick(&[0, 1, -1, 80, 70_000])),
            _ => json!(chance.pick(&["25%", "0%", "http", "x", ""])),
        },
        Type::Int32 => json!(chance.pick(&[0, 1, -1, 5, 80, i32::MAX, i32::MIN])),
        Type::Int64 => json!(chance.pick(&[0, 1, -1, 30, 70_000, i64::MAX, i64::MIN])),
        Type::Number => json!(0.5),
        Type::Boolean => json!(chance.below(2) == 0),
        Type::List(items) => match depth < DEPTH_MAX {
            true => (0..chance.below(3)).map(|_| make(table, items, chance, depth + 1)).collect(),
            false => json!([]),
        },
        Type::Map(values) => {
            let keys = (0..chance.below(3)).map(|_| chance.pick(&TEXTS)).collect::<Vec<_>>();
            let entries =
                keys.into_iter().map(|key| (key.to_owned(), make(table, values, chance, depth + 1)));
            Value::Object(entries.collect())
        }
        Type::Object(object) => {
            let mut fields = Map::new();
            for property in &object.properties {
                // Deeper objects have fewer fields, so that objects stay small.
                if depth == 0 || (depth < DEPTH_MAX && chance.below(2 + depth as u64) < 2) {
                    fields
                        .insert(property.name.to_string(), make(table, &property.schema, chance, depth + 1));
                }
            }
            Value::Object(fields)
        }
        Type::Ref(_) => Value::Null,
    }
}

fn definition(resource: &Resource) -> &'static schema::Definition {
    schema::table().get(&resource.schema).unwrap_or_else(|| panic!("{} is not in the table", resource.schema))
}

fn object_of(resource: &Resource, chance: &mut Chance) -> Value {
    let table = schema::table();
    let definition = definition(resource);
    let mut object = make(table, &definition.schema, chance, 0);
    schema::prune(&mut object, definition);
    object["metadata"] = json!({"name": chance.pick(&TEXTS), "generateName": chance.pick(&["", "a-"]),
        "labels": {"a": chance.pick(&TEXTS)}});
    object
}

fn assert_fits(resource: &Resource, object: &Value, seed: u64, when: &str) {
    let definition = definition(resource);
    assert_eq!(schema::check(object, definition), Vec::<String>::new(), "{resource:?} seed {seed} {when}");
    let mut copy = object.clone();
    assert_eq!(schema::prune(&mut copy, definition), Vec::<String>::new(), "{resource:?} seed {seed} {when}");
}

#[test]
fn nothing_panics_and_everything_fits() {
    let now = "2026-11-23T00:00:00Z".parse().unwrap();
    let ctx =
        Ctx { now, user: "jane", groups: &[], uid: "5f0e3d2c-0000-4000-8000-000000000000", suffix: "bcdfg" };
    let namespace = |resource: &Resource| resource.namespaced.then_some("default");
    for resource in registry().resources().iter().filter(|resource| resource.is_persistent()) {
        for seed in 0..ROUNDS {
            let mut chance = Chance(seed);
            let mut object = object_of(resource, &mut chance);
            strategy::default(resource, &mut object);
            let once = object.clone();
            strategy::default(resource, &mut object);
            assert_eq!(object, once, "defaulting {resource:?} twice changes it, seed {seed}");
            assert_fits(resource, &object, seed, "after default");
            _ = strategy::create(resource, &mut object, namespace(resource), &ctx);
            assert_fits(resource, &object, seed, "after create");
            let subresources = resource.subresources.iter().map(|sub| sub.name.as_str());
            for subresource in subresources.chain([""]) {
                let mut new = object_of(resource, &mut chance);
                _ = strategy::update(resource, &mut new, &object, subresource, &ctx);
                assert_fits(resource, &new, seed, "after update");
            }
            let drawn = table::render(resource, std::slice::from_ref(&object), now, table::Include::Object);
            let cells = drawn["rows"][0]["cells"].as_array().unwrap().len();
            assert_eq!(cells, drawn["columnDefinitions"].as_array().unwrap().len());
            let sieved = sieve::read(object.to_string().as_bytes(), resource.behaviour.row_looks_at()).unwrap();
            let row = resource.behaviour.row(&sieved, now);
            assert_eq!(drawn["rows"][0]["cells"], json!(row), "{} looks at more than it says, seed {seed}", resource.kind);
            _ = resource.behaviour.selectable_fields(&object);
            let mut stored = object.clone();
            resource.behaviour.to_storage(&mut stored);
            let home = registry().by_storage(&resource.storage).unwrap();
            assert_fits(home, &stored, seed, "as stored");
            resource.behaviour.from_storage(&mut stored);
            assert_fits(resource, &stored, seed, "read back");
        }
    }
}

/// A create has a way of its own to say who owns what; where somebody else owns something already the fields are compared.
#[test]
fn the_creator_owns_what_a_comparison_with_nothing_finds() {
    let now = "2026-11-23T00:00:00Z".parse().unwrap();
    let other = json!([{"manager": "other", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:annotations": {"f:never": {}}}}}]);
    for resource in registry().resources().iter().filter(|resource| resource.is_persistent()) {
        let api_version = resource.api_version();
        for (seed, reset) in (0..ROUNDS).flat_map(|seed| [(seed, &["status"][..]), (seed, &[][..])]) {
            let writer = Writer { manager: "me", api_version: &api_version, subresource: "", now, reset };
            let mut alone = object_of(resource, &mut Chance(seed));
            alone["metadata"]["finalizers"] = json!(["a/b", "a/c", "a/b"]);
            alone["metadata"]["uid"] = json!("u");
            let mut beside = alone.clone();
            beside["metadata"]["managedFields"] = other.clone();
            managed::update(None, &mut alone, &writer, resource.place());
            managed::update(None, &mut beside, &writer, resource.place());
            let mine = |object: &Value| {
                let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
                entries.into_iter().find(|entry| entry["manager"] == "me")
            };
            assert_eq!(mine(&alone), mine(&beside), "{resource:?} seed {seed} {alone}");
            assert!(mine(&alone).is_some());
        }
    }
}

#[test]
fn an_empty_object_is_refused_or_made_whole() {
    let now = "2026-11-23T00:00:00Z".parse().unwrap();
    let ctx = Ctx { now, user: "jane", groups: &[], uid: "u", suffix: "bcdfg" };
    for resource in registry().resources().iter().filter(|resource| resource.is_persistent()) {
        let mut object = json!({"metadata": {"name": "a"}});
        let namespace = resource.namespaced.then_some("default");
        if let Err(status) = strategy::create(resource, &mut object, namespace, &ctx) {
            assert_eq!(status.code, 422, "{resource:?}: {}", status.message);
        }
    }
}
