//! Enrolment: from a join token to a node's certificate.
//!
//! In: what operators ask (tokens) and what devices show (a token, a request). Out: tokens, certificates, refusals.
//! Records live in the store under `limpet/jointokens` and `limpet/identities`; a use is durable before the answer.
//! Never: a certificate for a name that the token does not open, or for a name that another key holds.

mod identity;
mod token;
mod waiting;

pub use identity::{Copy, Identity, fingerprint, key_sha256_of_certificate};
pub use token::{Refusal, TokenRecord};
pub use waiting::{Decision, Devices, Waiting};

use crate::pki::{NODE_DAYS, Pki, PkiError, Subject, hex};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use limpet_protocol::join::{JoinAnswer, JoinAsk, JoinBroker, JoinToken, TOKEN_PREFIX, is_hardware};
use crate::run::peers::everywhere;
use limpet_store::{Check, Draft, Expect, Key, Store, StoreError, Write};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    sync::{Arc, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const TOKENS: &str = "limpet/jointokens";
const IDENTITIES: &str = "limpet/identities";
const TOKENS_MAX: usize = 10_000;
const PATTERNS_MAX: usize = 32;
/// How often a join is tried again that another hub was faster with.
const JOIN_TRIES: usize = 5;
/// Lifetimes that `limpet token create --ttl` takes.
const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Where the hub is reached, as devices are told. Every entry is `host:port`.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    pub api: Vec<String>,
    pub mqtt: Vec<String>,
    pub registry: Vec<String>,
    pub cluster_name: String,
    /// Where hub and devices meet when that is not `mqtt`.
    pub broker: Option<JoinBroker>,
}

/// What the operator asks for (`POST /limpet/v1/tokens`).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenWish {
    pub ttl_seconds: u64,
    #[serde(default)]
    pub uses: Option<u32>,
    #[serde(default)]
    pub node: Option<String>,
    #[serde(default)]
    pub pool: Option<String>,
    #[serde(default)]
    pub wait: bool,
    #[serde(default)]
    pub approve: Vec<String>,
}

/// What the operator gets; the only time that the secret is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenMade {
    pub token: String,
    pub id: String,
    pub expires_ms: u64,
}

/// The caller answers `Refused` with 403, `Wish` and `Pki(Request)` with 400, the rest with 500 and its text.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The caller answers 202; the device asks again.
    #[error(
        "{node} waits to be let in: compare the fingerprint {fingerprint} with the one that the device shows, then \
         `limpet node approve {node}`"
    )]
    Waits { node: String, fingerprint: String },
    #[error("{0}")]
    Wish(String),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("the store did not take it: {0}")]
    Store(#[from] StoreError),
    #[error("a stored record is not readable: {0}")]
    Record(String),
}

/// The enrolment office of a hub.
pub struct Enroll {
    store: Store,
    pki: Arc<RwLock<Pki>>,
    endpoints: Endpoints,
    /// One device after the other where their token counts them: all of a fleet may come with it at the same moment.
    turn: tokio::sync::Mutex<()>,
}

impl Enroll {
    pub fn new(store: Store, pki: Arc<RwLock<Pki>>, endpoints: Endpoints) -> Enroll {
        Enroll { store, pki, endpoints, turn: tokio::sync::Mutex::new(()) }
    }

    /// Makes a token. The secret is 128 random bits and is not kept.
    pub async fn create_token(&self, wish: &TokenWish, now: SystemTime) -> Result<TokenMade, EnrollError> {
        let ttl = Duration::from_secs(wish.ttl_seconds);
        if ttl.is_zero() || ttl > TTL_MAX {
            return Err(EnrollError::Wish("a token lives between 1 second and 10 years (--ttl)".into()));
        }
        if wish.uses == Some(0) {
            return Err(EnrollError::Wish("a token must be good for at least one use (--uses)".into()));
        }
        if let Some(node) = &wish.node
            && !limpet_protocol::topic::valid_node_name(node)
        {
            return Err(Refusal::NodeName(node.chars().take(300).collect()).into());
        }
        if wish.pool.as_ref().is_some_and(|pool| !is_label_value(pool)) {
            return Err(EnrollError::Wish("a pool's name is a label's value: letters, digits, '-', '_', '.', at most 63".into()));
        }
        if wish.approve.len() > PATTERNS_MAX || wish.approve.iter().any(|p| p.is_empty() || p.len() > 253) {
            return Err(EnrollError::Wish(format!("at most {PATTERNS_MAX} patterns of 253 characters (--approve)")));
        }
        self.drop_expired(now).await?;
        if self.store.count(TOKENS) >= TOKENS_MAX {
            return Err(EnrollError::Wish(format!("there are {TOKENS_MAX} tokens already; revoke some")));
        }
        let (id, secret) = (hex(&random::<3>()?), hex(&random::<16>()?));
        let record = TokenRecord {
            id: id.clone(),
            secret_sha256: token::secret_hash(&secret),
            created_ms: millis(now),
            expires_ms: millis(now + ttl),
            uses_left: wish.uses,
            node: wish.node.clone(),
            pool: wish.pool.clone(),
            wait: wish.wait || !wish.approve.is_empty(),
            approve: wish.approve.clone(),
            used_by: Vec::new(),
        };
        self.store.write(put(TOKENS, &id, &record, Expect::Absent)?).await?;
        let content = JoinToken {
            hubs: everywhere(&self.store, &self.endpoints).api,
            ca_sha256: self.pki().ca_sha256(),
            id: id.clone(),
            secret,
        };
        let json = serde_json::to_vec(&content).map_err(|e| EnrollError::Record(e.to_string()))?;
        let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(json));
        Ok(TokenMade { token, id, expires_ms: record.expires_ms })
    }

    /// All tokens, without secrets, oldest first.
    pub fn tokens(&self) -> Vec<TokenRecord> {
        let mut tokens: Vec<TokenRecord> = (self.store.list(TOKENS, None).records.iter())
            .filter_map(|r| serde_json::from_slice(&r.bytes).ok())
            .collect();
        tokens.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        tokens
    }

    /// Whether there was such a token. Nodes that joined with it stay.
    pub async fn revoke_token(&self, id: &str) -> Result<bool, EnrollError> {
        let write = Write::Delete { key: Key::new(TOKENS, "", id), expect: Expect::Any, last: None };
        match self.store.write(write).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound(_)) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Lets a device in, or says why not. Nothing changes when it is refused. `address`: where it asks from, for people.
    pub async fn join(&self, ask: &JoinAsk, address: &str, now: SystemTime) -> Result<JoinAnswer, EnrollError> {
        // Who has no token waits for nobody and lets nobody wait.
        let (token, _) = self.token(ask, now)?;
        // A fleet with one token is let in side by side once the token is not changed by it: one commit serves many.
        let takes_turns = token.wait || token.clone().used(&ask.node_name, false) != token;
        let mut turn = if takes_turns { Some(self.turn.lock().await) } else { None };
        for _ in 0..JOIN_TRIES {
            match self.join_in_turn(ask, address, now).await {
                // Somebody was faster: what was written is read now, and nobody of this hub is faster again.
                Err(EnrollError::Store(StoreError::Conflict { .. } | StoreError::Exists(_) | StoreError::NotFound(_))) => {
                    if turn.is_none() {
                        turn = Some(self.turn.lock().await);
                    }
                }
                other => return other,
            }
        }
        self.join_in_turn(ask, address, now).await
    }

    /// The token that a device shows, when it is good.
    fn token(&self, ask: &JoinAsk, now: SystemTime) -> Result<(TokenRecord, u64), EnrollError> {
        let (token, revision): (TokenRecord, u64) =
            self.get(TOKENS, &ask.token_id)?.ok_or(Refusal::Unknown)?;
        token.check(&ask.token_secret, &ask.node_name, millis(now))?;
        Ok((token, revision))
    }

    async fn join_in_turn(&self, ask: &JoinAsk, address: &str, now: SystemTime) -> Result<JoinAnswer, EnrollError> {
        let (token, revision) = self.token(ask, now)?;
        let key_sha256 = identity::key_sha256_of_request(&ask.csr_pem).map_err(PkiError::Request)?;
        let known: Option<(Identity, u64)> = self.get(IDENTITIES, &ask.node_name)?;
        let again = known.as_ref().is_some_and(|(i, _)| i.key_sha256 == key_sha256 && i.token == token.id);
        token.has_use(again)?;
        if let Some((identity, _)) = &known
            && identity.key_sha256 != key_sha256
            && token.node.as_deref() != Some(ask.node_name.as_str())
        {
            return Err(Refusal::Taken(ask.node_name.clone()).into());
        }
        let answer = self.answer(&ask.node_name, &ask.csr_pem, now)?;
        let waited = token.waits(&ask.node_name) && known.as_ref().is_none_or(|(i, _)| i.key_sha256 != key_sha256);
        if waited {
            self.pass_waiting_room(&token, ask, (&key_sha256, address), now).await?;
        }
        let hardware = Some(&ask.hardware).filter(|h| is_hardware(h)).cloned().unwrap_or_default();
        let identity = Identity {
            pool: token.pool.clone(),
            hardware,
            copy: None,
            node: ask.node_name.clone(),
            key_sha256,
            instance: ask.instance.chars().take(64).collect(),
            description: ask.description.chars().take(256).collect(),
            joined_ms: millis(now),
            token: token.id.clone(),
        };
        let mut writes = vec![put(IDENTITIES, &ask.node_name, &identity, expect(known.map(|k| k.1)))?];
        let used = token.clone().used(&ask.node_name, again);
        // In one transaction: of two devices with the last use at two hubs, one gets a conflict and is refused then, and
        // so is one whose token is revoked at this moment.
        let unchanged = Check { key: Key::new(TOKENS, "", token.id.as_str()), expect: Expect::Revision(revision) };
        if used != token {
            writes.push(put(TOKENS, &token.id, &used, unchanged.expect)?);
            self.store.write_all(writes).await?;
        } else {
            self.store.write_if(vec![unchanged], writes).await?;
        }
        if waited {
            self.leave_waiting_room(&ask.node_name).await?;
        }
        Ok(answer)
    }

    /// Everybody who joined, by name.
    pub fn identities(&self) -> Vec<Identity> {
        let records = self.store.list(IDENTITIES, None).records;
        records.iter().filter_map(|r| serde_json::from_slice(&r.bytes).ok()).collect()
    }

    pub fn identity(&self, node: &str) -> Option<Identity> {
        self.get::<Identity>(IDENTITIES, node).ok().flatten().map(|(identity, _)| identity)
    }

    /// Changes what is kept of a node. Another change meanwhile wins.
    pub async fn note(&self, node: &str, change: impl FnOnce(&mut Identity)) -> Result<(), EnrollError> {
        let Some((old, revision)) = self.get::<Identity>(IDENTITIES, node)? else { return Ok(()) };
        let mut new = old.clone();
        change(&mut new);
        if new != old {
            self.store.write(put(IDENTITIES, node, &new, Expect::Revision(revision))?).await?;
        }
        Ok(())
    }

    /// A new certificate for a node that showed its present one (already verified by TLS).
    pub fn renew(
        &self,
        node: &str,
        certificate: &[u8],
        csr_pem: &str,
        now: SystemTime,
    ) -> Result<JoinAnswer, EnrollError> {
        self.admit(node, certificate)?;
        let wanted = identity::key_sha256_of_request(csr_pem).map_err(PkiError::Request)?;
        if key_sha256_of_certificate(certificate).as_deref() != Ok(wanted.as_str()) {
            return Err(EnrollError::Wish("a renewal keeps the device's key; join again to change it".into()));
        }
        self.answer(node, csr_pem, now)
    }

    /// A new certificate for the holder of a node's key. The request's own signature proves that it has the key, so a
    /// board whose certificate ended while it was away can renew; a copied request gains nothing without the key.
    pub fn renew_by_key(&self, ask: &JoinAsk, now: SystemTime) -> Result<JoinAnswer, EnrollError> {
        let key = identity::key_sha256_of_signed_request(&ask.csr_pem).map_err(PkiError::Request)?;
        let known: Option<(Identity, u64)> = self.get(IDENTITIES, &ask.node_name)?;
        let (identity, _) = known.ok_or_else(|| Refusal::Removed(ask.node_name.chars().take(300).collect()))?;
        if identity.key_sha256 != key {
            return Err(Refusal::Taken(ask.node_name.clone()).into());
        }
        self.answer(&ask.node_name, &ask.csr_pem, now)
    }

    /// Whether a certificate is the one key that this node joined with. Removed nodes are refused here.
    pub fn admit(&self, node: &str, certificate: &[u8]) -> Result<(), EnrollError> {
        let known: Option<(Identity, u64)> = self.get(IDENTITIES, node)?;
        let (identity, _) = known.ok_or_else(|| Refusal::Removed(node.into()))?;
        match key_sha256_of_certificate(certificate) {
            Ok(key) if key == identity.key_sha256 => Ok(()),
            _ => Err(Refusal::Taken(node.into()).into()),
        }
    }

    /// As `admit`, for the holder of a key who has proven it in another way than by TLS.
    pub fn admit_key(&self, node: &str, key: &limpet_sealed::Point) -> Result<(), EnrollError> {
        let known: Option<(Identity, u64)> = self.get(IDENTITIES, node)?;
        let (identity, _) = known.ok_or_else(|| Refusal::Removed(node.into()))?;
        match identity::key_sha256_of_point(key) == identity.key_sha256 {
            true => Ok(()),
            false => Err(Refusal::Taken(node.into()).into()),
        }
    }

    /// Forgets a node's key: its certificate opens nothing from now on. Whether it was known.
    pub async fn remove(&self, node: &str) -> Result<bool, EnrollError> {
        let write = Write::Delete { key: Key::new(IDENTITIES, "", node), expect: Expect::Any, last: None };
        match self.store.write(write).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound(_)) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn answer(&self, node: &str, csr_pem: &str, now: SystemTime) -> Result<JoinAnswer, EnrollError> {
        let pki = self.pki();
        // Of two hubs either may be away when the board looks for one.
        let at = everywhere(&self.store, &self.endpoints);
        Ok(JoinAnswer {
            node_name: node.into(),
            certificate_pem: pki.sign_request(csr_pem, &Subject::node(node), NODE_DAYS, now)?,
            ca_pem: pki.ca_pem().into(),
            mqtt: at.mqtt,
            registry: at.registry,
            api: at.api,
            cluster_name: at.cluster_name,
            time_ms: millis(now),
            update_key: pki.update_key().into(),
            broker: at.broker,
        })
    }

    async fn drop_expired(&self, now: SystemTime) -> Result<(), EnrollError> {
        // Kept for a day after their end, so that a late device hears "expired" and not "unknown".
        let end = millis(now.checked_sub(Duration::from_secs(86_400)).unwrap_or(UNIX_EPOCH));
        for token in self.tokens().into_iter().filter(|t| t.expires_ms < end) {
            self.revoke_token(&token.id).await?;
        }
        Ok(())
    }

    fn get<T: DeserializeOwned>(&self, resource: &str, name: &str) -> Result<Option<(T, u64)>, EnrollError> {
        let Some(record) = self.store.get(&Key::new(resource, "", name)) else { return Ok(None) };
        let value = serde_json::from_slice(&record.bytes)
            .map_err(|e| EnrollError::Record(format!("{resource} {name}: {e}")))?;
        Ok(Some((value, record.revision)))
    }

    fn pki(&self) -> std::sync::RwLockReadGuard<'_, Pki> {
        self.pki.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn put<T: Serialize>(resource: &str, name: &str, value: &T, expect: Expect) -> Result<Write, EnrollError> {
    let bytes = serde_json::to_vec(value).map_err(|e| EnrollError::Record(e.to_string()))?;
    Ok(Write::Put { key: Key::new(resource, "", name), expect, draft: Draft::opaque(bytes) })
}

/// As Kubernetes has it for labels.
fn is_label_value(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    text.len() <= 63 && edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(inner)
}

fn expect(revision: Option<u64>) -> Expect {
    revision.map_or(Expect::Absent, Expect::Revision)
}

fn random<const N: usize>() -> Result<[u8; N], EnrollError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| EnrollError::Wish(format!("no randomness: {e}")))?;
    Ok(bytes)
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests;
