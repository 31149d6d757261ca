//! FlowSchemas and PriorityLevelConfigurations, as decisions need them.
//!
//! In: the objects as JSON. Out: schemas in the order in which they are tried, levels with their shares.
//! Never: fails; what is missing or absurd gets the API's defaults, and the mandatory ones are always there.

use super::defaults;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, Default)]
pub struct Config {
    /// By precedence, then by name.
    pub schemas: Vec<Arc<Schema>>,
    pub levels: BTreeMap<Arc<str>, Level>,
}

#[derive(Debug)]
pub struct Schema {
    pub name: Arc<str>,
    pub uid: String,
    pub level: Arc<str>,
    pub precedence: i64,
    pub(super) by: Distinguisher,
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distinguisher {
    None,
    User,
    Namespace,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub subjects: Vec<Subject>,
    pub resources: Vec<ResourceRule>,
    pub paths: Vec<PathRule>,
}

#[derive(Debug)]
pub(super) enum Subject {
    User(String),
    Group(String),
    ServiceAccount(String, String),
}

#[derive(Debug)]
pub(super) struct ResourceRule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub cluster: bool,
    pub namespaces: Vec<String>,
}

#[derive(Debug)]
pub(super) struct PathRule {
    pub verbs: Vec<String>,
    pub paths: Vec<String>,
}

/// A priority level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    pub uid: String,
    pub exempt: bool,
    pub shares: u32,
    pub lendable_percent: u32,
    /// None: as much as there is.
    pub borrowing_percent: Option<u32>,
    /// None: what cannot run is sent away.
    pub queuing: Option<Queuing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    pub queues: u32,
    pub hand: u32,
    pub length_max: u32,
}

/// Queues of one level, whatever its object says.
const QUEUES_MAX: i64 = 1024;
const HAND_MAX: i64 = 10;
const LENGTH_MAX: i64 = 10_000;

impl Config {
    pub fn of(schemas: &[Value], levels: &[Value]) -> Config {
        let mut config = Config::default();
        let (own_schemas, own_levels) = defaults::mandatory();
        for value in own_levels.iter().chain(levels) {
            config.levels.insert(name_of(value), level(value));
        }
        let mut all: BTreeMap<Arc<str>, Schema> = BTreeMap::new();
        for value in own_schemas.iter().chain(schemas) {
            all.insert(name_of(value), schema(value));
        }
        // A schema without its level decides nothing.
        all.retain(|_, schema| config.levels.contains_key(&schema.level));
        config.schemas = all.into_values().map(Arc::new).collect();
        // Equal ones stay in the order of names.
        config.schemas.sort_by_key(|schema| schema.precedence);
        config
    }
}

fn name_of(value: &Value) -> Arc<str> {
    value["metadata"]["name"].as_str().unwrap_or_default().into()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn number(value: &Value, default: i64, range: (i64, i64)) -> u32 {
    u32::try_from(value.as_i64().unwrap_or(default).clamp(range.0, range.1)).unwrap_or(0)
}

fn level(value: &Value) -> Level {
    let spec = &value["spec"];
    let exempt = spec["type"] == "Exempt";
    let own = if exempt { &spec["exempt"] } else { &spec["limited"] };
    let response = &own["limitResponse"];
    let queuing = &response["queuing"];
    let percent = |value: &Value| number(value, 0, (0, 100));
    Level {
        uid: text(&value["metadata"]["uid"]),
        exempt,
        shares: number(&own["nominalConcurrencyShares"], if exempt { 0 } else { 30 }, (0, 1_000_000)),
        lendable_percent: percent(&own["lendablePercent"]),
        borrowing_percent: own["borrowingLimitPercent"].as_i64().map(|n| u32::try_from(n).unwrap_or(0)),
        queuing: (!exempt && response["type"] == "Queue").then(|| Queuing {
            queues: number(&queuing["queues"], 64, (1, QUEUES_MAX)),
            hand: number(&queuing["handSize"], 8, (1, HAND_MAX)),
            length_max: number(&queuing["queueLengthLimit"], 50, (1, LENGTH_MAX)),
        }),
    }
}

fn schema(value: &Value) -> Schema {
    let spec = &value["spec"];
    let rules = spec["rules"].as_array().into_iter().flatten();
    Schema {
        name: name_of(value),
        uid: text(&value["metadata"]["uid"]),
        level: spec["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default().into(),
        precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
        by: match spec["distinguisherMethod"]["type"].as_str() {
            Some("ByUser") => Distinguisher::User,
            Some("ByNamespace") => Distinguisher::Namespace,
            _ => Distinguisher::None,
        },
        rules: rules.map(rule).collect(),
    }
}

fn rule(value: &Value) -> Rule {
    let list = |field: &str| value[field].as_array().cloned().unwrap_or_default();
    let subject = |value: &Value| {
        Some(match value["kind"].as_str()? {
            "User" => Subject::User(text(&value["user"]["name"])),
            "Group" => Subject::Group(text(&value["group"]["name"])),
            "ServiceAccount" => {
                let account = &value["serviceAccount"];
                Subject::ServiceAccount(text(&account["namespace"]), text(&account["name"]))
            }
            _ => return None,
        })
    };
    let resource = |value: &Value| ResourceRule {
        verbs: words(&value["verbs"]),
        groups: words(&value["apiGroups"]),
        resources: words(&value["resources"]),
        cluster: value["clusterScope"] == true,
        namespaces: words(&value["namespaces"]),
    };
    let path =
        |value: &Value| PathRule { verbs: words(&value["verbs"]), paths: words(&value["nonResourceURLs"]) };
    Rule {
        subjects: list("subjects").iter().filter_map(subject).collect(),
        resources: list("resourceRules").iter().map(resource).collect(),
        paths: list("nonResourceRules").iter().map(path).collect(),
    }
}
