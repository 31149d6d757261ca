//! Admission by configuration: policies in CEL, and webhooks.
//!
//! In: a write on its way; the stored policies, bindings and webhook configurations. Out: the object as they changed
//! it, warnings, or a refusal in upstream's words.
//! Never: about the kinds that configure admission itself; a change that its kind does not know.

mod authorizer;
mod policies;
mod webhooks;

use super::Operation;
use crate::{
    api::{
        Api, Target, object,
        write::{Ask, form},
    },
    audit::Trail,
    auth::User,
};
use authorizer::Door;
use webhooks::Webhook;
use limpet_cel::Value as Cel;
use limpet_objects::{
    policy::{Attributes, Given, Policy, compile, matching},
    registry::Registry,
    resource::Resource,
    status::Status,
    strategy,
};
use limpet_store::{Key, Store};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

const GROUP: &str = "admissionregistration.k8s.io";
/// Parts of the hub without which it would not come up, or not go on.
const TRUSTED: [&str; 2] = [
    "system:limpet:limpet-bootstrap",
    "system:limpet:customresourcedefinition-controller",
];

/// What is configured, compiled when it is first needed.
#[derive(Default)]
pub struct Hooks {
    made: Mutex<BTreeMap<(&'static str, String), (u64, Hook)>>,
}

#[derive(Clone)]
enum Hook {
    Policy(Arc<Policy>),
    Webhooks(Arc<[Webhook]>),
    /// A binding.
    Plain(Arc<Value>),
}

impl Hooks {
    /// Everything of one kind, by name.
    fn all(&self, store: &Store, plural: &'static str) -> Vec<(String, Hook)> {
        let storage = format!("{GROUP}/{plural}");
        if store.count(&storage) == 0 {
            return Vec::new();
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let records = store.list(&storage, None).records;
        made.retain(|(own, name), _| *own != plural || records.iter().any(|r| r.key.name.as_str() == name));
        let mut all = Vec::with_capacity(records.len());
        for record in &records {
            let key = (plural, record.key.name.to_string());
            let known = made
                .get(&key)
                .filter(|(revision, _)| *revision == record.revision)
                .map(|(_, hook)| hook.clone());
            let hook = known.unwrap_or_else(|| {
                let value: Value = serde_json::from_slice(&record.bytes).unwrap_or_default();
                let hook = match plural {
                    "validatingadmissionpolicies" => Hook::Policy(Arc::new(compile::policy(&value, false).0)),
                    "mutatingadmissionpolicies" => Hook::Policy(Arc::new(compile::policy(&value, true).0)),
                    "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
                        Hook::Webhooks(webhooks::compiled(value))
                    }
                    _ => Hook::Plain(Arc::new(value)),
                };
                made.insert(key, (record.revision, hook.clone()));
                hook
            });
            all.push((record.key.name.to_string(), hook));
        }
        all
    }

    fn policies(&self, store: &Store, plural: &'static str) -> BTreeMap<String, Arc<Policy>> {
        let only = |(name, hook)| match hook {
            Hook::Policy(policy) => Some((name, policy)),
            Hook::Plain(_) | Hook::Webhooks(_) => None,
        };
        self.all(store, plural).into_iter().filter_map(only).collect()
    }

    fn plain(&self, store: &Store, plural: &'static str) -> Vec<Arc<Value>> {
        let only = |(_, hook)| match hook {
            Hook::Plain(value) => Some(value),
            Hook::Policy(_) | Hook::Webhooks(_) => None,
        };
        self.all(store, plural).into_iter().filter_map(only).collect()
    }

    /// One list for each configuration, in the order of their names.
    fn webhooks(&self, store: &Store, plural: &'static str) -> Vec<Arc<[Webhook]>> {
        let only = |(_, hook)| match hook {
            Hook::Webhooks(webhooks) => Some(webhooks),
            Hook::Policy(_) | Hook::Plain(_) => None,
        };
        self.all(store, plural).into_iter().filter_map(only).collect()
    }
}

/// One request, as policies and webhooks see it.
struct Case<'a> {
    api: &'a Arc<Api>,
    user: &'a Arc<User>,
    target: &'a Target,
    subresource: &'a str,
    operation: Operation,
    name: String,
    dry_run: bool,
    old: Value,
    namespace: Value,
    registry: Arc<Registry>,
    trail: Option<&'a Trail>,
}

impl<'a> Case<'a> {
    /// Nothing when no configuration is about this request.
    fn of(
        ask: &'a Ask,
        operation: Operation,
        old: Option<&Value>,
        kinds: &[&'static str],
    ) -> Option<Case<'a>> {
        let any = |plural: &&str| ask.api.store.count(&format!("{GROUP}/{plural}")) > 0;
        let exempt = matching::is_exempt(&ask.target.resource) || TRUSTED.contains(&ask.user.name.as_str());
        if exempt || !kinds.iter().any(any) {
            return None;
        }
        let namespace = match ask.target.namespace.as_str() {
            "" => Value::Null,
            name => ask
                .api
                .store
                .get(&Key::new("/namespaces", "", name))
                .map_or(Value::Null, |record| {
                    serde_json::from_slice(&record.bytes).unwrap_or_default()
                }),
        };
        Some(Case {
            api: &ask.api,
            user: &ask.user,
            target: &ask.target,
            subresource: &ask.subresource,
            operation,
            name: ask.target.name.clone(),
            dry_run: ask.dry_run,
            old: old.cloned().unwrap_or_default(),
            namespace,
            registry: ask.api.kinds(),
            trail: ask.trail.as_deref(),
        })
    }

    fn operation(&self) -> &'static str {
        match self.operation {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }

    fn attributes<'v>(&'v self, object: &'v Value) -> Attributes<'v> {
        Attributes {
            operation: self.operation(),
            resource: &self.target.resource,
            subresource: self.subresource,
            namespace: &self.target.namespace,
            name: &self.name,
            object,
            old: &self.old,
            namespace_object: &self.namespace,
        }
    }

    /// An object in the version that a configuration asks for.
    fn converted(&self, object: &Value, wanted: &Resource) -> Value {
        self.between(object.clone(), &self.target.resource, wanted)
    }

    /// An object back from the version that a configuration asked for.
    fn converted_back(&self, object: Value, from: &Resource) -> Value {
        self.between(object, from, &self.target.resource)
    }

    /// An object that cannot be converted stays as it is.
    fn between(&self, mut object: Value, from: &Resource, to: &Resource) -> Value {
        if object.is_null() || from.api_version() == to.api_version() {
            return object;
        }
        let before = object.clone();
        match from
            .to_stored(&mut object)
            .and_then(|()| to.from_stored(&mut object))
        {
            Ok(()) => {
                object["kind"] = to.kind.clone().into();
                object
            }
            Err(why) => {
                tracing::warn!(%why, from = from.api_version(), to = to.api_version(), "not converted for admission");
                before
            }
        }
    }

    /// admission.k8s.io AdmissionRequest, without the objects.
    fn request(&self, wanted: &Resource, uid: &str) -> Value {
        let own = &self.target.resource;
        let kind = |r: &Resource| match r
            .subresource(self.subresource)
            .filter(|_| !self.subresource.is_empty())
        {
            Some(sub) => json!({"group": sub.group, "version": sub.version, "kind": sub.kind}),
            None => json!({"group": r.group, "version": r.version, "kind": r.kind}),
        };
        let resource = |r: &Resource| json!({"group": r.group, "version": r.version, "resource": r.plural});
        let options = |kind: &str| json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        let options = match self.operation {
            Operation::Create => options("CreateOptions"),
            Operation::Update => options("UpdateOptions"),
            Operation::Delete => options("DeleteOptions"),
            // What is asked for is the object itself.
            Operation::Connect => Value::Null,
        };
        let mut request = json!({
            "uid": uid, "kind": kind(wanted), "resource": resource(wanted),
            "requestKind": kind(own), "requestResource": resource(own),
            "name": self.name, "operation": self.operation(), "userInfo": self.user.to_value(),
            "dryRun": self.dry_run, "options": options,
        });
        for (field, value) in [
            ("subResource", self.subresource),
            ("requestSubResource", self.subresource),
            ("namespace", &self.target.namespace),
        ] {
            if !value.is_empty() {
                request[field] = json!(value);
            }
        }
        request
    }

    /// The variables of expressions.
    fn given(&self, object: &Value, wanted: &Resource, params: &Value) -> Given {
        let mut request = self.request(wanted, "");
        // Expressions may read what is not there.
        for field in ["subResource", "requestSubResource", "namespace"] {
            if request[field].is_null() {
                request[field] = json!("");
            }
        }
        for field in ["uid", "groups", "extra"] {
            if request["userInfo"][field].is_null() {
                request["userInfo"][field] = match field {
                    "uid" => json!(""),
                    "groups" => json!([]),
                    _ => json!({}),
                };
            }
        }
        Given {
            object: Cel::from_json(&self.converted(object, wanted)),
            old: Cel::from_json(&self.converted(&self.old, wanted)),
            request: Cel::from_json(&request),
            namespace: Cel::from_json(&self.namespace),
            params: Cel::from_json(params),
            authorizer: Some(Arc::new(Door::new(
                self.api,
                self.user,
                self.target,
                self.subresource,
            ))),
        }
    }

    /// What a webhook or policy made, in the form of its kind again.
    fn formed(&self, mut object: Value) -> Result<Value, Status> {
        if self.operation == Operation::Connect {
            return Ok(object);
        }
        let form = form::Validation::Ignore;
        form::conform_target(&mut object, self.target, Vec::new(), form, &mut Vec::new())?;
        strategy::default(&self.target.resource, &mut object);
        if object::name(&object) != object::name(&self.old) && self.operation == Operation::Update {
            return Err(Status::bad_request("admission may not change metadata.name"));
        }
        Ok(object)
    }
}

/// Policies and webhooks that change the object. A delete has no object to change, and a connection's is the call itself.
pub async fn mutate(
    ask: &Ask,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    const KINDS: [&str; 2] = ["mutatingwebhookconfigurations", "mutatingadmissionpolicies"];
    let Some(case) = Case::of(ask, operation, old, &KINDS) else {
        return Ok(());
    };
    let nothing = Value::Null;
    if matches!(operation, Operation::Delete | Operation::Connect) {
        let mut shown = if operation == Operation::Delete { nothing } else { object.clone() };
        return webhooks::mutate(&case, &mut shown, warnings).await.map(|_| ());
    }
    policies::mutate(&case, object)?;
    if webhooks::mutate(&case, object, warnings).await? {
        policies::mutate_again(&case, object)?;
    }
    Ok(())
}

/// Policies and webhooks that only judge. `object` is as it will be stored; null at a delete.
pub async fn validate(
    ask: &Ask,
    operation: Operation,
    object: &Value,
    old: Option<&Value>,
) -> (Vec<String>, Result<(), Status>) {
    const KINDS: [&str; 2] = ["validatingwebhookconfigurations", "validatingadmissionpolicies"];
    let mut warnings = Vec::new();
    let Some(case) = Case::of(ask, operation, old, &KINDS) else {
        return (warnings, Ok(()));
    };
    let outcome = match policies::validate(&case, object, &mut warnings) {
        Ok(()) => webhooks::validate(&case, object, &mut warnings).await,
        refused => refused,
    };
    (warnings, outcome)
}
