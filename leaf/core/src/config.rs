//! The configuration: the data of one ConfigMap.
//!
//! In: the items that are held. Out: which ConfigMap the node's annotation names, and what is in it.
//! Never: fails; what cannot be read is not there, and the node's condition says so.

use alloc::{
    borrow::ToOwned,
    collections::BTreeMap,
    string::{String, ToString},
};
use limpet_protocol::{Item, ItemKind};
use serde_json::Value;

/// Annotation of the Node that names its ConfigMap: `namespace/name`.
pub const ANNOTATION: &str = "limpet.dev/leaf-config";
/// Key for the seconds between two sets of readings; 0 or nothing: only when somebody asks.
const TELEMETRY: &str = "telemetrySeconds";
const TELEMETRY_S_MAX: u64 = 86_400;

/// What a firmware is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Namespace and name of the ConfigMap; `None`: the annotation is not there.
    pub source: Option<(String, String)>,
    /// The store's revision at which these values arose; 0: the ConfigMap is not there.
    pub generation: u64,
    pub values: BTreeMap<String, String>,
}

impl Config {
    pub fn of(items: &[Item]) -> Config {
        let source = items.iter().find(|i| i.key.kind == ItemKind::Node).and_then(named);
        let Some((namespace, name)) = &source else { return Config::default() };
        let map = items.iter().find(|i| {
            i.key.kind == ItemKind::ConfigMap && i.key.namespace == *namespace && i.key.name == *name
        });
        let values = map.and_then(|m| serde_json::from_slice::<Value>(&m.body).ok()).map(|object| {
            let data = object["data"].as_object().into_iter().flatten();
            data.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
        });
        Config { generation: map.map_or(0, |m| m.generation), source, values: values.unwrap_or_default() }
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// Milliseconds between two sets of readings; `None`: none are sent. A sentence for a value that makes no sense.
    pub(crate) fn telemetry_ms(&self) -> Result<Option<u64>, String> {
        let Some(text) = self.get(TELEMETRY) else { return Ok(None) };
        let wrong = || "telemetrySeconds is a number from 0 (only when asked) to 86400".to_string();
        let seconds: u64 = text.trim().parse().map_err(|_| wrong())?;
        match seconds {
            0 => Ok(None),
            s if s <= TELEMETRY_S_MAX => Ok(Some(s * 1000)),
            _ => Err(wrong()),
        }
    }
}

fn named(node: &Item) -> Option<(String, String)> {
    let object: Value = serde_json::from_slice(&node.body).ok()?;
    let text = object["metadata"]["annotations"][ANNOTATION].as_str()?;
    let (namespace, name) = text.split_once('/')?;
    Some((namespace.to_string(), name.to_string()))
}
