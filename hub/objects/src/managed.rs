//! managedFields: who owns which fields of an object, kept at every write.
//!
//! In: the object before and after a write, who writes and when. Out: the object's
//! `metadata.managedFields`.
//! Source: the Kubernetes documentation's "Server-Side Apply"; FieldsV1 in `patch::fields`.
//! Never: decides conflicts (see `patch::apply`), reads the clock.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::patch::fields::{Element, FieldsError, Set};
use crate::patch::join::zero;
use crate::patch::typed::Place;
use crate::patch::walk::{Comparison, compare, reconciled};
use crate::time;

/// Entries of Update managers that an object keeps; older ones are folded into one, as upstream.
pub const UPDATE_MANAGERS_MAX: usize = 10;
/// Bytes of a manager's name.
pub const MANAGER_NAME_MAX: usize = 128;
const ANCIENT: &str = "ancient-changes";
pub const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// See `manager_name`.
    pub manager: &'a str,
    /// Of the request: `apps/v1`.
    pub api_version: &'a str,
    /// `status`, `scale`, or empty.
    pub subresource: &'a str,
    pub now: Timestamp,
    /// Top fields that this endpoint does not write (`status` for the main resource, `spec` for
    /// `/status`): never owned through it. Nested ones with dots: `metadata.labels`.
    pub reset: &'a [&'a str],
}

/// What tells entries apart. Appliers have no version: they are one entry whatever version they apply with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManagerId {
    pub manager: String,
    pub apply: bool,
    /// Empty for appliers.
    pub api_version: String,
    pub subresource: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub api_version: String,
    pub fields: Set,
    pub time: Option<String>,
}

/// The decoded managedFields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers {
    pub entries: BTreeMap<ManagerId, Entry>,
}

/// The manager's name of a request: its `fieldManager`, else the user agent up to the first slash.
pub fn manager_name(field_manager: Option<&str>, user_agent: Option<&str>) -> String {
    if let Some(name) = field_manager.filter(|name| !name.is_empty()) {
        return name.to_string();
    }
    let agent = user_agent.unwrap_or_default().split('/').next().unwrap_or_default();
    let mut name = String::new();
    for c in agent.chars().filter(|c| !c.is_control()) {
        if name.len() + c.len_utf8() > MANAGER_NAME_MAX {
            break;
        }
        name.push(c);
    }
    if name.is_empty() { "unknown".into() } else { name }
}

/// What is wrong with a `fieldManager` parameter, in upstream's words.
pub fn check_manager_name(name: &str) -> Option<String> {
    if name.len() > MANAGER_NAME_MAX {
        return Some(format!("fieldManager: Too long: may not be more than {MANAGER_NAME_MAX} bytes"));
    }
    let bad = name.chars().position(|c| c.is_control())?;
    Some(format!("fieldManager: Invalid value: {name:?}: invalid character at position {bad}"))
}

/// Keeps managedFields at a create, update or patch that is no server-side apply.
///
/// `new` is the object as it will be stored, `old` the stored one (None for a create). A `new` that
/// carries managedFields of its own sets them (that is how clients edit them); `[{}]` resets them; through
/// a subresource they are not settable. Objects that track nothing (stored before, without managedFields)
/// keep tracking nothing.
pub fn update(old: Option<&Value>, new: &mut Value, writer: &Writer<'_>, place: Place<'_>) {
    let sent = take(new);
    let kept = old.map(|o| Managers::decode(entries_of(o)).unwrap_or_default()).unwrap_or_default();
    let mut managers = if writer.subresource.is_empty() { start(sent.as_ref(), kept) } else { kept };
    if managers.entries.is_empty() && old.is_some() {
        return;
    }
    if old.is_none() && managers.entries.is_empty() && writer.reset.iter().all(|path| !path.contains('.')) {
        return first(new, writer, place);
    }
    let before = old.map_or_else(|| Cow::Owned(zero(place, new)), Cow::Borrowed);
    managers.record_update(&before, new, writer, place);
    managers.encode_into(new);
}

/// Nobody owned anything: all is the creator's.
fn first(new: &mut Value, writer: &Writer<'_>, place: Place<'_>) {
    let fields = fresh::fields(place, new, writer.reset);
    if fields.is_empty() {
        return;
    }
    let id = writer.id(false);
    let entry = encode(&id, writer.api_version, Value::Object(fields), Some(&time::rfc3339(writer.now)));
    if let Value::Object(object) = new
        && let Value::Object(metadata) = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()))
    {
        metadata.insert("managedFields".into(), Value::Array(vec![entry]));
    }
}

/// Which managers an update starts from.
fn start(sent: Option<&Value>, kept: Managers) -> Managers {
    if is_reset(sent) {
        return Managers::default();
    }
    match sent.map(Managers::decode_value) {
        Some(Ok(managers)) if !managers.entries.is_empty() => managers,
        _ => kept,
    }
}

/// `[{}]` is the documented way to clear managedFields.
fn is_reset(sent: Option<&Value>) -> bool {
    match sent.and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::Object(only)]) => only.is_empty(),
        _ => false,
    }
}

/// The object without managedFields.
pub(crate) fn stripped(object: &Value) -> Value {
    let Some(fields) = object.as_object() else { return object.clone() };
    let copy = |(name, value): (&String, &Value)| {
        let inner = value.as_object().filter(|_| name == "metadata");
        let kept = inner.map(|inner| inner.iter().filter(|(name, _)| *name != "managedFields"));
        let kept = kept.map(|kept| kept.map(|(name, value)| (name.clone(), value.clone())).collect());
        (name.clone(), kept.map_or_else(|| value.clone(), Value::Object))
    };
    fields.iter().map(copy).collect()
}

pub(crate) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

pub(crate) fn entries_of(object: &Value) -> &[Value] {
    object.pointer("/metadata/managedFields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The fields that every object has and nobody owns.
pub(crate) fn unowned() -> &'static Set {
    static UNOWNED: OnceLock<Set> = OnceLock::new();
    UNOWNED.get_or_init(make_unowned)
}

/// Of `metadata`.
const UNOWNED_META: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

fn make_unowned() -> Set {
    let mut set = Set::default();
    for top in ["apiVersion", "kind", "metadata"] {
        set.insert(&[Element::field(top)]);
    }
    for name in UNOWNED_META {
        set.insert(&[Element::field("metadata"), Element::field(name)]);
    }
    set
}

pub(crate) fn reset_set(reset: &[&str]) -> Set {
    let mut set = Set::default();
    for path in reset {
        let path: Vec<Element> = path.split('.').map(Element::field).collect();
        set.insert(&path);
    }
    set
}

impl Writer<'_> {
    pub(crate) fn id(&self, apply: bool) -> ManagerId {
        ManagerId {
            manager: self.manager.to_string(),
            apply,
            api_version: if apply { String::new() } else { self.api_version.to_string() },
            subresource: self.subresource.to_string(),
        }
    }
}

impl Managers {
    pub fn decode_value(value: &Value) -> Result<Managers, FieldsError> {
        match value {
            Value::Array(entries) => Managers::decode(entries),
            _ => Err(FieldsError("managedFields is not a list".into())),
        }
    }

    pub fn decode(entries: &[Value]) -> Result<Managers, FieldsError> {
        let mut managers = Managers::default();
        for entry in entries {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
            let apply = match text("operation").as_str() {
                "Apply" => true,
                "Update" => false,
                other => return Err(FieldsError(format!("invalid operation {other:?} in managedFields"))),
            };
            if text("fieldsType") != "FieldsV1" {
                return Err(FieldsError(format!(
                    "unsupported fieldsType {:?} in managedFields",
                    text("fieldsType")
                )));
            }
            let api_version = text("apiVersion");
            let fields = match entry.get("fieldsV1") {
                Some(fields) if !fields.is_null() => Set::from_json(fields)?,
                _ => Set::default(),
            };
            let id = ManagerId {
                manager: text("manager"),
                apply,
                api_version: if apply { String::new() } else { api_version.clone() },
                subresource: text("subresource"),
            };
            let time = entry.get("time").and_then(Value::as_str).map(str::to_string);
            managers.entries.insert(id, Entry { api_version, fields, time });
        }
        Ok(managers)
    }

    /// Sorted as upstream: Apply before Update, then by time and name.
    pub fn encode(&self) -> Vec<Value> {
        let mut entries: Vec<(&ManagerId, &Entry)> = self.entries.iter().collect();
        entries.sort_by_key(|(id, e)| {
            (!id.apply, e.time.clone(), id.manager.clone(), e.api_version.clone(), id.subresource.clone())
        });
        entries.into_iter().map(|(id, entry)| encode_entry(id, entry)).collect()
    }

    /// Puts the entries into an object; none removes the field.
    pub fn encode_into(&self, object: &mut Value) {
        let Value::Object(object) = object else { return };
        let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(metadata) = metadata else { return };
        if self.entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".into(), Value::Array(self.encode()));
        }
    }

    /// What an Update does to ownership: what it changed is its own, what it removed is nobody's.
    ///
    /// `old` may still carry its managedFields: nobody owns those.
    pub(crate) fn record_update(&mut self, old: &Value, new: &Value, writer: &Writer<'_>, place: Place<'_>) {
        self.reconcile(old, place);
        let change = compare(place, old, new).without(&reset_set(writer.reset));
        let Comparison { added, modified: mut taken, removed } = change;
        taken.absorb(added);
        let id = writer.id(false);
        let mut own = self.entries.get(&id).map(|e| e.fields.clone()).unwrap_or_default();
        for entry in self.entries.values_mut() {
            entry.fields.subtract(&taken);
            entry.fields.subtract(&removed);
        }
        taken.subtract(unowned());
        if !taken.is_empty() {
            own.subtract(&removed);
            own.absorb(taken);
            let api_version = writer.api_version.to_string();
            self.entries.insert(id, Entry { api_version, fields: own, time: Some(time::rfc3339(writer.now)) });
        }
        self.drop_empty();
        self.cap();
    }

    pub(crate) fn drop_empty(&mut self) {
        self.entries.retain(|_, entry| !entry.fields.is_empty());
    }

    /// Follows changes of the schema (a list that became atomic).
    pub(crate) fn reconcile(&mut self, live: &Value, place: Place<'_>) {
        for entry in self.entries.values_mut() {
            entry.fields = reconciled(place, live, &entry.fields);
        }
    }

    /// Folds the oldest Update entries of each version into one.
    pub(crate) fn cap(&mut self) {
        let mut updaters: Vec<(Option<String>, ManagerId)> = self
            .entries
            .iter()
            .filter(|(id, _)| !id.apply)
            .map(|(id, e)| (e.time.clone(), id.clone()))
            .collect();
        let mut count = updaters.len();
        updaters.sort();
        let mut first: BTreeMap<String, ManagerId> = BTreeMap::new();
        for (_, id) in updaters {
            if count <= UPDATE_MANAGERS_MAX {
                return;
            }
            let version = id.api_version.clone();
            let Some(earlier) = first.get(&version) else {
                first.insert(version, id);
                continue;
            };
            let bucket = ManagerId {
                manager: ANCIENT.into(),
                apply: false,
                api_version: version,
                subresource: String::new(),
            };
            let older = self.entries.remove(earlier).or_else(|| self.entries.remove(&bucket));
            let (Some(mut newer), older) = (self.entries.remove(&id), older) else { continue };
            if let Some(older) = older {
                newer.fields = newer.fields.union(&older.fields);
            }
            self.entries.insert(bucket, newer);
            count -= 1;
        }
    }
}

fn encode_entry(id: &ManagerId, entry: &Entry) -> Value {
    encode(id, &entry.api_version, entry.fields.to_json(), entry.time.as_deref())
}

fn encode(id: &ManagerId, api_version: &str, fields: Value, time: Option<&str>) -> Value {
    let mut value = json!({
        "manager": id.manager,
        "operation": if id.apply { "Apply" } else { "Update" },
        "apiVersion": api_version,
        "fieldsType": "FieldsV1",
    });
    value["fieldsV1"] = fields;
    if let Some(time) = time {
        value["time"] = json!(time);
    }
    if !id.subresource.is_empty() {
        value["subresource"] = json!(id.subresource);
    }
    value
}

mod fresh;
#[cfg(test)]
mod tests;
