//! Every endpoint meets objects of its schema, broken ones, and odd parameters: no panic, no failure of the
//! server's, no connection that breaks.
//!
//! In: a seeded generator over registry and schema table. `LIMPET_FUZZ_REQUESTS` says how many requests,
//! `LIMPET_FUZZ_SEED` with which seed. Out: the request that got an answer which upstream would not give.
//! Never: random without a seed: a failure names the request's own.
#![allow(clippy::unwrap_used)]

#[path = "support/http.rs"]
mod http_client;
#[path = "support/mod.rs"]
mod support;

use bytes::Bytes;
use http_client::Keeping;
use limpet_objects::{
    registry::registry,
    resource::Resource,
    schema::{self, Schema, Table, Type},
};
use serde_json::{Map, Value, json};
use support::Cluster;

const REQUESTS: u64 = 10_000;
const DEPTH_MAX: usize = 8;

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

    /// One time in `of`.
    fn hits(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

const TEXTS: [&str; 16] = [
    "", "a", "b", "web", "A B", "..", "/x/../y", "\u{e9}", "a=b", "Always", "10.96.0.77", "%", "\u{0}",
    "2026-01-01T00:00:00Z", "kubernetes.io/tls", "default",
];
const NAMES: [&str; 10] = ["a", "a", "b", "b", "c", "default", "kubernetes", "x%2Fy", "A_B", "system:node"];

fn make(table: &Table, schema: &Schema, chance: &mut Chance, depth: usize) -> Value {
    let schema = table.resolve(schema);
    if chance.hits(400) {
        return chance.pick(&["null", "-1", "[]", "{}", "\"x\"", "1e99", "[[[]]]", "true"]).parse().unwrap();
    }
    match &schema.kind {
        Type::Any | Type::Deduced => json!({"x": 1}),
        Type::String if !schema.choices.is_empty() && !chance.hits(6) => {
            json!(schema.choices[chance.below(schema.choices.len() as u64) as usize])
        }
        Type::String => json!(chance.pick(&TEXTS)),
        Type::Bytes => json!(chance.pick(&["", "YQ==", "AAAA", "not base64"])),
        Type::Time => json!(chance.pick(&["2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "yesterday"])),
        Type::MicroTime => json!("2026-01-01T00:00:00.123456Z"),
        Type::Quantity => {
            chance.pick(&["1", "100m", "-1", "1Gi", "1e3", "0", "1e400", "x", "99999999999999999999Ei"]).into()
        }
        Type::IntOrString => match chance.below(2) {
            0 => json!(chance.pick(&[0, 1, -1, 80, 70_000])),
            _ => json!(chance.pick(&["25%", "0%", "http", "x", "", "999999999999%"])),
        },
        Type::Int32 => json!(chance.pick(&[0, 1, -1, 5, 80, i32::MAX, i32::MIN])),
        Type::Int64 => json!(chance.pick(&[0, 1, -1, 30, 70_000, i64::MAX, i64::MIN])),
        Type::Number => json!(0.5),
        Type::Boolean => json!(chance.hits(2)),
        Type::List(items) if depth < DEPTH_MAX => {
            (0..chance.below(3)).map(|_| make(table, items, chance, depth + 1)).collect()
        }
        Type::Map(values) if depth < DEPTH_MAX => {
            let keys: Vec<&str> = (0..chance.below(3)).map(|_| chance.pick(&TEXTS)).collect();
            keys.into_iter().map(|key| (key.to_owned(), make(table, values, chance, depth + 1))).collect()
        }
        Type::Object(object) if depth < DEPTH_MAX => {
            let mut fields = Map::new();
            for property in &object.properties {
                if depth == 0 || chance.below(2 + depth as u64) < 2 {
                    fields.insert(property.name.to_string(), make(table, &property.schema, chance, depth + 1));
                }
            }
            Value::Object(fields)
        }
        Type::List(_) => json!([]),
        Type::Map(_) | Type::Object(_) => json!({}),
        Type::Ref(_) => Value::Null,
    }
}

struct Ask {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

const PARAMETERS: [&str; 26] = [
    "limit=1", "limit=-1", "limit=x", "continue=eyJydiI6MSwibnMiOiIiLCJuIjoiIn0", "continue=%00",
    "resourceVersion=0", "resourceVersion=1", "resourceVersion=99999999999", "resourceVersion=x",
    "resourceVersionMatch=Exact", "resourceVersionMatch=NotOlderThan", "labelSelector=a%20in%20(b,c)",
    "labelSelector=!!", "fieldSelector=metadata.name%3Da", "fieldSelector=spec.nodeName%21%3D", "dryRun=All",
    "dryRun=Some", "fieldValidation=Strict", "fieldValidation=Ignore", "fieldManager=m", "force=true",
    "propagationPolicy=Orphan", "gracePeriodSeconds=0", "gracePeriodSeconds=-9", "pretty=1", "includeObject=Object",
];
const ACCEPTS: [&str; 12] = [
    "application/json",
    "application/json",
    "application/json",
    "application/json, */*",
    "application/vnd.kubernetes.protobuf, application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1beta1;g=meta.k8s.io,*/*;q=0.1",
    "image/png",
    "*/*",
];

fn ask(chance: &mut Chance) -> Ask {
    let resources = registry().resources();
    let resource = &resources[chance.below(resources.len() as u64) as usize];
    let (method, form) = chance.pick(&[
        ("GET", ""),
        ("GET", ""),
        ("POST", "application/json"),
        ("POST", "application/json"),
        ("POST", "application/json"),
        ("POST", "application/yaml"),
        ("POST", "application/vnd.kubernetes.protobuf"),
        ("PUT", "application/json"),
        ("PUT", "application/json"),
        ("PATCH", "application/merge-patch+json"),
        ("PATCH", "application/strategic-merge-patch+json"),
        ("PATCH", "application/strategic-merge-patch+json"),
        ("PATCH", "application/json-patch+json"),
        ("PATCH", "application/apply-patch+yaml"),
        ("PATCH", "application/apply-patch+yaml"),
        ("PATCH", "text/plain"),
        ("GET", ""),
        ("GET", ""),
        ("DELETE", "application/json"),
        ("OPTIONS", ""),
    ]);
    let name = chance.pick(&NAMES);
    let path = path(resource, method, name, chance);
    let body = if form.is_empty() { Vec::new() } else { body(resource, method, form, name, chance) };
    let mut headers = vec![("accept", chance.pick(&ACCEPTS)), ("user-agent", "fuzz")];
    if !form.is_empty() && !chance.hits(40) {
        headers.push(("content-type", form));
    }
    Ask { method, path, headers, body }
}

fn path(resource: &Resource, method: &str, name: &str, chance: &mut Chance) -> String {
    let mut path = match resource.group.as_str() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    if resource.namespaced && !chance.hits(12) {
        path.push_str(&format!("/namespaces/{}", chance.pick(&["default", "default", "default", "a", "no"])));
    }
    path.push_str(&format!("/{}", resource.plural));
    let collection = match method {
        "POST" => !chance.hits(6),
        "GET" | "DELETE" => chance.hits(3),
        _ => chance.hits(30),
    };
    if !collection {
        path.push_str(&format!("/{name}"));
        if !resource.subresources.is_empty() && chance.hits(3) {
            let sub = &resource.subresources[chance.below(resource.subresources.len() as u64) as usize];
            path.push_str(&format!("/{}", sub.name));
        }
    }
    let mut separator = '?';
    while chance.hits(2) {
        path.push(separator);
        path.push_str(chance.pick(&PARAMETERS));
        separator = '&';
    }
    path
}

fn body(resource: &Resource, method: &str, form: &str, name: &str, chance: &mut Chance) -> Vec<u8> {
    let table = schema::table();
    let Some(definition) = table.get(&resource.schema) else { return Vec::new() };
    if method == "DELETE" {
        let options = chance.pick(&["", "{}", "{\"propagationPolicy\":\"Foreground\"}", "{\"dryRun\":[\"All\"]}",
            "{\"preconditions\":{\"uid\":\"x\"}}", "{\"gracePeriodSeconds\":\"x\"}"]);
        return options.as_bytes().to_vec();
    }
    let mut object = make(table, &definition.schema, chance, 0);
    if !chance.hits(10) && object.is_object() {
        object["metadata"] = json!({"name": name, "labels": {"a": chance.pick(&TEXTS)}});
    }
    if let Some(fields) = object.as_object_mut().filter(|_| !chance.hits(10)) {
        fields.insert("apiVersion".into(), json!(resource.api_version()));
        fields.insert("kind".into(), json!(resource.kind));
    }
    if form == "application/json-patch+json" {
        let paths = ["/metadata/labels/a", "/spec", "/status", "", "/spec/-", "/metadata/annotations", "/x/0/~1"];
        let verbs = ["add", "remove", "replace", "test", "copy", "move", "nothing"];
        let step = |chance: &mut Chance| {
            json!({"op": chance.pick(&verbs), "path": chance.pick(&paths), "from": chance.pick(&paths),
                "value": chance.pick(&TEXTS)})
        };
        object = (0..1 + chance.below(3)).map(|_| step(chance)).collect();
    } else if form.starts_with("application/strategic") && chance.hits(3) {
        let directives = [
            ("$patch", json!("replace")),
            ("$patch", json!("delete")),
            ("$patch", json!(7)),
            ("$retainKeys", json!(["a"])),
            ("$setElementOrder/containers", json!([{"name": "a"}])),
            ("$deleteFromPrimitiveList/finalizers", json!(["a"])),
        ];
        let (key, value) = &directives[chance.below(directives.len() as u64) as usize];
        let place = if chance.hits(2) && object["spec"].is_object() { &mut object["spec"] } else { &mut object };
        if let Some(fields) = place.as_object_mut() {
            fields.insert((*key).to_owned(), value.clone());
        }
    }
    let mut bytes = object.to_string().into_bytes();
    if form.ends_with("protobuf") {
        bytes.splice(..0, *b"k8s\0\x0a\x07\x0a\x02v1\x12\x01X");
    }
    // Sometimes the bytes themselves are wrong.
    if chance.hits(25) && !bytes.is_empty() {
        let at = chance.below(bytes.len() as u64) as usize;
        match chance.below(3) {
            0 => bytes.truncate(at),
            1 => bytes[at] = chance.below(256) as u8,
            _ => bytes.extend_from_slice(b"}\xff"),
        }
    }
    bytes
}

/// Whether a failure is one that upstream gives too: an apply that does not fit its schema, a strategic patch of a
/// list's item without its key, a version on a new object, a revision of the future, a door that is not open in this cluster.
fn is_known(code: u16, body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let words: &[&str] = match code {
        500 => &["failed to create typed patch object", "resourceVersion should not be set on objects to be created",
            "unable to find api field in struct", "does not contain declared merge key",
            "cannot be handled", "more than one PodDisruptionBudget"],
        503 => &["the hub is still starting", "no endpoints available", "no service port"],
        504 => &["Too large resource version"],
        _ => &[],
    };
    words.iter().any(|w| text.contains(w))
}

#[test]
fn no_request_breaks_the_server() {
    let number = |name: &str, default| {
        std::env::var(name).ok().map_or(default, |text| text.parse::<u64>().expect("a number"))
    };
    let (requests, seed) = (number("LIMPET_FUZZ_REQUESTS", REQUESTS), number("LIMPET_FUZZ_SEED", 1));
    let c = Cluster::start();
    let (mut failures, mut codes) = (Vec::new(), std::collections::BTreeMap::<u16, u64>::new());
    c.runtime.block_on(async {
        let mut client = Keeping::open(c.dir.path(), &c.url).await;
        for at in 0..requests {
            let own = seed.wrapping_mul(1_000_003).wrapping_add(at);
            let ask = ask(&mut Chance(own));
            if !client.is_open().await {
                client = Keeping::open(c.dir.path(), &c.url).await;
            }
            let shown = || {
                let body = String::from_utf8_lossy(&ask.body).chars().take(3000).collect::<String>();
                format!("request {at} (seed {own}): {} {} {:?}\n{body}", ask.method, ask.path, ask.headers)
            };
            match client.ask(ask.method, &ask.path, &ask.headers, Bytes::from(ask.body.clone())).await {
                Ok((head, body)) => {
                    let code = head.status.as_u16();
                    *codes.entry(code).or_default() += 1;
                    if code >= 500 && !is_known(code, &body) {
                        failures.push(format!("{}\n-> {code} {}", shown(), String::from_utf8_lossy(&body)));
                    }
                }
                Err(why) => failures.push(format!("{}\n-> {why}", shown())),
            }
            if failures.len() >= 5 {
                break;
            }
        }
        let (head, _) = Keeping::open(c.dir.path(), &c.url).await.ask("GET", "/readyz", &[], "").await.unwrap();
        assert_eq!(head.status, 200);
    });
    println!("answers by code: {codes:?}");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    // A generator that only makes rubbish would find nothing behind the decoder.
    let count = |code| codes.get(&code).copied().unwrap_or(0);
    assert!(requests < 1000 || (count(201) > requests / 200 && count(200) > requests / 50), "{codes:?}");
}
