//! A new key for Secrets in an etcd that hubs share.
//!
//! In: an operator's wish at one hub. Out: every hub has learned the new key, then all seal with it, then all is sealed anew,
//! then all forget the old ones. What goes wrong in between leaves every hub able to read everything; the next try begins anew.
//! Never: begins while a hub that may come back is away, or while another hub does the same.

use super::{KeyWord, road::Road};
use crate::run::Peers;
use limpet_store::{Draft, Expect, Key, KeyStep, Revision, StoreError, Write};
use serde_json::{Value, json};

/// Who changes keys now.
const TURN: &str = "limpet/rotations";

impl From<KeyWord> for KeyStep {
    fn from(word: KeyWord) -> KeyStep {
        match word {
            KeyWord::Learn { id, hex } => KeyStep::Learn { id, hex },
            KeyWord::Seal { id } => KeyStep::Seal { id },
            KeyWord::Retire { id } => KeyStep::Retire { id },
        }
    }
}

/// Says how many records were sealed anew. The error is a sentence for the operator.
pub async fn rotate(road: &Road) -> Result<usize, String> {
    let peers = road.peers();
    let _one = road.turn.lock().await;
    let at = begin(peers).await?;
    let outcome = steps(road, peers).await;
    // Were it left behind, the next try of this hub would take it over.
    let end = Write::Delete { key: turn(), expect: Expect::Revision(at), last: None };
    if let Err(error) = peers.store().write(end).await {
        tracing::warn!(%error, "the record of a change of keys stays behind");
    }
    outcome
}

async fn steps(road: &Road, peers: &Peers) -> Result<usize, String> {
    if let Some(hub) = peers.missing() {
        return Err(format!(
            "hub {hub} is not there and would not be able to read Secrets when it comes back; start it first, or wait until \
             it is forgotten, an hour after its end (then it needs store.keys of this hub before its next start)"
        ));
    }
    let (store, others) = (peers.store(), peers.others());
    let failed = |hub: &str, why: String| format!("hub {hub} does not follow: {why}. Nothing is lost; try again");
    let (id, hex) = store.make_key().map_err(|why| why.to_string())?;
    for step in [KeyWord::Learn { id, hex }, KeyWord::Seal { id }] {
        for hub in &others {
            road.key(hub, step.clone()).await.map_err(|why| failed(hub, why))?;
        }
        store.key_step(step.into()).await.map_err(|why| why.to_string())?;
    }
    let records = store.seal_again().await.map_err(|why| format!("{why}. Nothing is lost; try again"))?;
    // A hub that came while this went on has the old keys only.
    if let Some(hub) = peers.others().into_iter().find(|hub| !others.contains(hub)) {
        return Err(format!("hub {hub} came meanwhile; nothing is lost, try again"));
    }
    for hub in &others {
        road.key(hub, KeyWord::Retire { id }).await.map_err(|why| failed(hub, why))?;
    }
    store.key_step(KeyStep::Retire { id }).await.map_err(|why| why.to_string())?;
    Ok(records)
}

fn turn() -> Key {
    Key::new(TURN, "", "keys")
}

/// The revision of this hub's turn.
async fn begin(peers: &Peers) -> Result<Revision, String> {
    let store = peers.store();
    let draft = || Draft::opaque(json!({"hub": peers.own()}).to_string().into_bytes());
    let mut expect = Expect::Absent;
    loop {
        match store.write(Write::Put { key: turn(), expect, draft: draft() }).await {
            Ok(record) => return Ok(record.revision),
            Err(StoreError::Exists(_)) => {}
            Err(why) => return Err(why.to_string()),
        }
        let Some(found) = store.get(&turn()) else { continue };
        let value: Value = serde_json::from_slice(&found.bytes).unwrap_or_default();
        let hub = value["hub"].as_str().unwrap_or_default();
        if hub != peers.own() && peers.is_there(hub) {
            return Err(format!("hub {hub} is changing the key at this moment"));
        }
        expect = Expect::Revision(found.revision);
    }
}
