//! A change of the key that seals, in an etcd that hubs share.
//!
//! In: the steps, which every hub is told. Out: all sealed records sealed with the newest key, each by a transaction that
//! compares that nobody changed it meanwhile; who did has sealed it with the new key.
//! Never: forgets a key while a record could still come that needs it.

use super::{CALL_TIME, Etcd, feed::FeedError, limits, refused, session, session::PROBE, value, wire};
use crate::{Draft, Expect, Key, KeyStep, Revision, StoreError, Write, backend::Backend, seal::Sealer};
use tokio::time::Instant;
use wire::{PutRequest, PutResponse, RangeRequest, RangeResponse};

const PAGE_OBJECTS: i64 = 100;

impl Etcd {
    pub(super) fn sealer(&self) -> Result<&Sealer, StoreError> {
        self.inner.sealer.as_ref().ok_or(StoreError::NotHere("this store seals nothing"))
    }

    pub(super) async fn step(&self, step: KeyStep) -> Result<(), StoreError> {
        match step {
            KeyStep::Learn { id, hex } => self.sealer()?.learn(id, &hex),
            KeyStep::Seal { id } => {
                self.sealer()?.seal_with(id)?;
                // All room at once: every transaction that was sealed with the old key has its answer.
                let all = u32::try_from(limits::GROUP_REQUESTS_MAX).unwrap_or(u32::MAX);
                self.room.acquire_many(all).await.map(drop).map_err(|_| StoreError::Closed)
            }
            KeyStep::Retire { id } => {
                // What was sealed with old keys has come through the feed.
                self.catch_up().await?;
                self.sealer()?.retire_all_but(id)
            }
        }
    }

    pub(super) async fn seal_all_again(&self, resources: Vec<&'static str>) -> Result<usize, StoreError> {
        let mut count = 0;
        for resource in resources {
            let example = value::key(&self.inner.options.prefix, &Key::new(resource, "", "-")).ok_or(StoreError::BadKey)?;
            let place = example.strip_suffix("/-/-").ok_or(StoreError::BadKey)?;
            let (mut from, end) = (format!("{place}/").into_bytes(), format!("{place}0").into_bytes());
            loop {
                let page = self.page(from, &end).await?;
                let next = page.kvs.last().map(|kv| [&kv.key[..], &[0]].concat());
                for kv in &page.kvs {
                    let (key, at, draft) = self.found(kv)?;
                    count += self.again(key, at, draft).await?;
                }
                match next {
                    Some(next) if page.more => from = next,
                    _ => break,
                }
            }
        }
        self.seal_probe_again().await?;
        Ok(count)
    }

    /// What tells a hub with other keys that it does not belong here.
    async fn seal_probe_again(&self) -> Result<(), StoreError> {
        let key = &self.inner.keys.format;
        let value = value::encode(key, &Draft::opaque(PROBE.to_vec()), self.inner.sealer.as_ref())?;
        let session = session(&self.inner, 0, Instant::now() + CALL_TIME).await?;
        let ask = PutRequest { key: key.clone().into_bytes(), value };
        session.channel.ask::<PutResponse>(wire::PUT, &ask, CALL_TIME).await.map(drop).map_err(refused)
    }

    async fn page(&self, from: Vec<u8>, end: &[u8]) -> Result<RangeResponse, StoreError> {
        let session = session(&self.inner, 0, Instant::now() + CALL_TIME).await?;
        let ask = RangeRequest { key: from, range_end: end.to_vec(), limit: PAGE_OBJECTS, ..RangeRequest::default() };
        session.channel.ask::<RangeResponse>(wire::RANGE, &ask, CALL_TIME).await.map_err(refused)
    }

    fn found(&self, kv: &wire::KeyValue) -> Result<(Key, Revision, Draft), StoreError> {
        let name = String::from_utf8_lossy(&kv.key).into_owned();
        let foreign = |why: String| StoreError::Foreign { prefix: self.inner.options.prefix.clone(), why };
        let rest = name.strip_prefix(&self.inner.keys.objects).and_then(value::parse);
        let key = rest.ok_or_else(|| foreign(format!("{name} is not the key of an object")))?;
        let draft = value::decode(&name, &kv.value, self.inner.sealer.as_ref());
        let draft = draft.map_err(|why| foreign(FeedError::Value { key: name, why }.to_string()))?;
        Ok((key, wire::revision(kv.mod_revision), draft))
    }

    /// One record as it is, sealed anew.
    async fn again(&self, key: Key, at: Revision, draft: Draft) -> Result<usize, StoreError> {
        match self.write(Vec::new(), vec![Write::Put { key, expect: Expect::Revision(at), draft }]).await {
            Ok(_) => Ok(1),
            // Whoever was faster has sealed it with the new key, or it is gone.
            Err(StoreError::Conflict { .. } | StoreError::NotFound(_)) => Ok(0),
            Err(error) => Err(error),
        }
    }
}
