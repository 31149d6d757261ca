//! Whether other servers are there: the condition Available of APIServices.
//!
//! In: APIServices, their Services, what the servers answer to discovery. Out: the table of other servers, conditions in
//! kube-aggregator's words, APIServices of the hub's own groups.
//! Never: looks again and again when there is no other server.

use super::{Remote, Remotes, STORAGE, get, local, reach};
use crate::{
    api::{Api, Client, object},
    auth::User,
};
use futures_util::future::join_all;
use limpet_objects::time;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const BY: &str = "kube-aggregator";
/// As upstream: how often a server is asked again, and how long it may take.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// One that was not well is asked sooner.
const LOOK_AGAIN_TROUBLED: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(5);

/// Follows the APIServices until the hub stops.
pub async fn keep(api: Arc<Api>) {
    let client = Client::new(Arc::clone(&api));
    let mut kinds = api.kinds.changes();
    loop {
        let revision = api.store.revision();
        kinds.mark_unchanged();
        local::register(&api, &client).await;
        let good = look(&api, &client).await;
        let remotes = api.aggregate.remotes();
        let troubled = !good || remotes.values().any(|r| !r.available);
        let again = if troubled { LOOK_AGAIN_TROUBLED } else { LOOK_AGAIN };
        let Ok(mut changes) = api.store.watch(STORAGE, None, revision) else { continue };
        tokio::select! {
            () = foreign(&mut changes) => {}
            _ = kinds.changed() => {}
            () = tokio::time::sleep(again), if troubled || !remotes.is_empty() => {}
            () = api.stopped() => return,
        }
    }
}

/// Until an APIService is changed, perhaps by ourselves: then the next look finds nothing to do.
async fn foreign(changes: &mut limpet_store::Watch) {
    _ = changes.next().await;
}

/// One look at all; whether everything could be written.
async fn look(api: &Arc<Api>, client: &Client) -> bool {
    let records = api.store.list(STORAGE, None).records;
    let objects: Vec<Value> = records.iter().filter_map(|r| serde_json::from_slice(&r.bytes).ok()).collect();
    let kinds = api.kinds();
    let known = api.aggregate.remotes();
    let mut found = Remotes::new();
    for mut remote in objects.iter().filter_map(Remote::read) {
        let key = (remote.group.clone(), remote.version.clone());
        if kinds.of_version(&remote.group, &remote.version).next().is_some() {
            continue;
        }
        // Until it is asked again it is as it was.
        if let Some(before) = known.get(&key) {
            (remote.available, remote.resources) = (before.available, before.resources.clone());
        }
        found.insert(key, Arc::new(remote));
    }
    api.aggregate.set_remotes(found.clone());
    let asked = found.into_iter().map(|(key, remote)| async move {
        let outcome = check(api, &remote).await;
        (key, remote, outcome)
    });
    let mut conditions = std::collections::BTreeMap::new();
    let mut remotes = Remotes::new();
    for (key, remote, outcome) in join_all(asked).await {
        let mut remote = Remote::clone(&remote);
        remote.available = outcome.is_ok();
        let condition = match outcome {
            Ok(resources) => {
                remote.resources = resources;
                ("True", "Passed", "all checks passed".to_owned())
            }
            Err((reason, message)) => ("False", reason, message),
        };
        conditions.insert(key.clone(), condition);
        remotes.insert(key, Arc::new(remote));
    }
    api.aggregate.set_remotes(remotes);
    let mut good = true;
    for object in objects {
        let text = |field: &str| object["spec"][field].as_str().unwrap_or_default().to_owned();
        let own = ("True", "Local", "Local APIServices are always available".to_owned());
        let (status, reason, message) = conditions.remove(&(text("group"), text("version"))).unwrap_or(own);
        good &= say(api, client, object, status, reason, &message).await;
    }
    good
}

async fn say(api: &Api, client: &Client, mut object: Value, status: &str, reason: &str, message: &str) -> bool {
    let list = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let old = list.iter().find(|c| c["type"] == "Available");
    if old.is_some_and(|c| c["status"] == status && c["reason"] == reason && c["message"] == message) {
        return true;
    }
    let since = old.filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
    let since = since.unwrap_or_else(|| json!(time::rfc3339(api.now())));
    let mut conditions: Vec<Value> = list.into_iter().filter(|c| c["type"] != "Available").collect();
    conditions.push(json!({"type": "Available", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since}));
    object["status"] = json!({"conditions": conditions});
    let name = object::name(&object).to_owned();
    match client.update(BY, STORAGE, "status", object).await {
        Ok(_) => true,
        Err(status) => {
            // A conflict or a deletion shows as a change, and so is looked at again.
            tracing::debug!(%name, why = status.message, "the condition of an APIService was not written");
            matches!(status.code, 404 | 409)
        }
    }
}

/// The server's resources, or the reason and message of a failed check.
async fn check(api: &Api, remote: &Remote) -> Result<Value, (&'static str, String)> {
    let (name, namespace) = (&remote.service, &remote.namespace);
    let Some(service) = reach::service(api, remote) else {
        return Err(("ServiceNotFound", format!("service/{name} in {namespace:?} is not present")));
    };
    if service["spec"]["type"] != "ExternalName" {
        let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let Some(port) = ports.find(|p| p["port"] == u64::from(remote.port)) else {
            let why = format!("service/{name} in {namespace:?} is not listening on port {}", remote.port);
            return Err(("ServicePortError", why));
        };
        let port = port["name"].as_str().unwrap_or_default().to_owned();
        endpoints(api, remote, &port)?;
    }
    let path = remote.path();
    let user = User::internal("system:kube-aggregator");
    get(api, remote, &user, &path, PATIENCE).await.map_err(|why| {
        let place = format!("https://{name}.{namespace}.svc:{}{path}", remote.port);
        ("FailedDiscoveryCheck", format!("failing or missing response from {place}: {why}"))
    })
}

fn endpoints(api: &Api, remote: &Remote, port: &str) -> Result<(), (&'static str, String)> {
    let (name, namespace) = (&remote.service, &remote.namespace);
    let listing = api.store.list("discovery.k8s.io/endpointslices", Some(namespace));
    let slices = listing.records.iter().filter_map(|r| serde_json::from_slice::<Value>(&r.bytes).ok());
    let slices: Vec<Value> =
        slices.filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == name.as_str()).collect();
    if slices.is_empty() {
        return Err(("EndpointsNotFound", format!("cannot find endpointslices for service/{name} in {namespace:?}")));
    }
    let has = |slice: &Value| {
        let mut ports = slice["ports"].as_array().into_iter().flatten();
        let mut ends = slice["endpoints"].as_array().into_iter().flatten();
        ports.any(|p| p["name"].as_str().unwrap_or_default() == port) && ends.any(|e| e["conditions"]["ready"] != false)
    };
    match slices.iter().any(has) {
        true => Ok(()),
        false => Err((
            "MissingEndpoints",
            format!("endpointslices for service/{name} in {namespace:?} have no addresses with port name {port:?}"),
        )),
    }
}
