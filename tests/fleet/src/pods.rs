//! A pod on each board, by the API, and when it is seen running there.
//!
//! In: numbers of boards. Out: from the request to the watch event that says Running, of each pod.
//! Never: a pod that a scheduler was not asked about.

use http::Method;
use http_body_util::BodyExt;
use limpet_board::{board::COMMON, fleet};
use limpet_load::{
    access::Access,
    connection::{Ask, Connection},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Clients that make pods at the same time.
const CLIENTS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(300);

fn path() -> String {
    format!("/api/v1/namespaces/{}/pods", COMMON.0)
}

/// As a DaemonSet makes it: for one node, which the scheduler confirms. The common ConfigMap is a volume.
fn pod(board: usize) -> Value {
    let node = fleet::name(board);
    let only = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("on-{node}"), "labels": {"app": "common"}}, "spec": {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": only}}},
        "containers": [{"name": "c", "image": "hub.limpet/web:1",
            "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}},
            "volumeMounts": [{"name": "common", "mountPath": "/etc/common"}]}],
        "volumes": [{"name": "common", "configMap": {"name": COMMON.1}}]}})
}

pub async fn make_common(access: &Access) -> Result<(), String> {
    let mut connection = Connection::open(access).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": COMMON.0}}).to_string();
    connection.ask(Ask::new(Method::POST, "/api/v1/namespaces", namespace)).await?;
    let maps = format!("/api/v1/namespaces/{}/configmaps", COMMON.0);
    connection.ask(Ask::new(Method::POST, &maps, common(0).to_string())).await?;
    // Pods are refused until their account is there.
    let account = format!("/api/v1/namespaces/{}/serviceaccounts/default", COMMON.0);
    while connection.try_ask(Ask::get(&account)).await?.0 != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn common(round: u64) -> Value {
    let mut data: BTreeMap<String, String> =
        (0..20).map(|n| (format!("setting-{n}"), format!("the usual value of the setting with number {n}"))).collect();
    data.insert("round".into(), round.to_string());
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": COMMON.1, "namespace": COMMON.0}, "data": data})
}

pub async fn change_common(access: &Access, round: u64) -> Result<(), String> {
    let mut connection = Connection::open(access).await?;
    let map = format!("/api/v1/namespaces/{}/configmaps/{}", COMMON.0, COMMON.1);
    connection.ask(Ask::new(Method::PUT, &map, common(round).to_string())).await.map(drop)
}

/// Makes the pods of these boards at once. Sorted times.
pub async fn run(access: &Access, boards: std::ops::Range<usize>) -> Result<Vec<Duration>, String> {
    let count = boards.len();
    let mut reader = Connection::open(access).await?;
    let list = reader.ask(Ask::get(&format!("{}?limit=1", path()))).await?;
    let list: Value = serde_json::from_slice(&list).map_err(|e| e.to_string())?;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let url = format!("{}?watch=1&resourceVersion={revision}&fieldSelector=status.phase%3DRunning", path());
    let answer = reader.send(Ask::get(&url)).await?;
    let begun: Arc<Mutex<BTreeMap<String, Instant>>> = Arc::default();
    let mut makers = Vec::new();
    for client in 0..CLIENTS {
        let (mut connection, begun) = (Connection::open(access).await?, begun.clone());
        let mine: Vec<usize> = boards.clone().skip(client).step_by(CLIENTS).collect();
        makers.push(tokio::spawn(async move {
            for board in mine {
                let name = format!("on-{}", fleet::name(board));
                begun.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Instant::now());
                connection.ask(Ask::new(Method::POST, &path(), pod(board).to_string())).await?;
            }
            Ok::<_, String>(())
        }));
    }
    let seen = tokio::time::timeout(PATIENCE, running(answer.into_body(), count));
    let (seen, late) = match seen.await {
        Ok(seen) => (seen?, false),
        Err(_) => (BTreeMap::new(), true),
    };
    for maker in makers {
        maker.await.map_err(|e| e.to_string())??;
    }
    if late {
        return Err(format!("the {count} pods do not all run after {PATIENCE:?}"));
    }
    let begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
    let mut times: Vec<Duration> =
        seen.iter().filter_map(|(name, at)| Some(at.saturating_duration_since(*begun.get(name)?))).collect();
    times.sort_unstable();
    Ok(times)
}

/// The first event of each pod that says Running.
async fn running(mut body: hyper::body::Incoming, count: usize) -> Result<BTreeMap<String, Instant>, String> {
    let mut seen = BTreeMap::new();
    let mut rest: Vec<u8> = Vec::new();
    while seen.len() < count {
        let frame = body.frame().await.ok_or("the watch ended")?.map_err(|e| e.to_string())?;
        let now = Instant::now();
        rest.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d));
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).map_err(|e| e.to_string())?;
            if event["type"] == "ERROR" {
                return Err(format!("the watch ended: {}", event["object"]));
            }
            if let Some(name) = event["object"]["metadata"]["name"].as_str() {
                seen.entry(name.to_owned()).or_insert(now);
            }
        }
    }
    Ok(seen)
}
