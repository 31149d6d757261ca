//! The API for the hub's own parts: no HTTP, no rights to check, the same way of every write.
//!
//! In: what controllers, the scheduler and node sessions want written. Out: the revision after which it is
//! so.
//! Never: skips defaults, validation, admission or managedFields.

use super::{
    Api, Target, object,
    subresources::{binding, token},
    write::{self, Ask, DeleteOptions, Made, Written, form},
};
use crate::{
    auth::User,
    run::{self, Answer, Delete, Lead, Patch},
};
use limpet_objects::{patch, status::Status};
use limpet_store::Revision;
use serde_json::Value;
use std::sync::Arc;

/// Handle for the hub's own parts; clones share the API.
#[derive(Clone)]
pub struct Client {
    api: Arc<Api>,
    lead: Lead,
}

impl Client {
    pub fn new(api: Arc<Api>) -> Client {
        Client::of_leader(api, Lead::alone())
    }

    /// Writes only while this hub leads.
    pub fn of_leader(api: Arc<Api>, lead: Lead) -> Client {
        Client { api, lead }
    }

    fn ask(&self, by: &str, target: Target, subresource: &str) -> Ask {
        Ask {
            api: Arc::clone(&self.api),
            user: Arc::new(User::internal(&format!("system:limpet:{by}"))),
            target,
            subresource: subresource.to_owned(),
            dry_run: false,
            manager: by.to_owned(),
            warnings: Vec::new(),
            trail: None,
            checks: self.lead.check().into_iter().collect(),
        }
    }

    /// Creates an object of a storage id (`/pods`, `apps/deployments`).
    pub async fn create(
        &self,
        by: &str,
        resource: &str,
        namespace: &str,
        object: Value,
    ) -> Result<Written, Status> {
        let target = Target::stored(&self.api.kinds(), resource, namespace, object::name(&object))?;
        let object = formed(&target, object)?;
        write::create(&mut self.ask(by, target, ""), object).await
    }

    /// Replaces an object; its resourceVersion, where there is one, must be the stored one.
    pub async fn update(
        &self,
        by: &str,
        resource: &str,
        subresource: &str,
        object: Value,
    ) -> Result<Written, Status> {
        let target = Target::stored(&self.api.kinds(), resource, object::namespace(&object), object::name(&object))?;
        let object = formed(&target, object)?;
        write::update(&mut self.ask(by, target, subresource), |_, _| Ok(Made::from(object.clone()))).await
    }

    pub async fn patch(&self, by: &str, asked: Patch) -> Result<Written, Status> {
        let target = Target::stored(&self.api.kinds(), &asked.resource, &asked.namespace, &asked.name)?;
        let mut ask = self.ask(by, target, asked.subresource.unwrap_or_default());
        write::update(&mut ask, |ask, old| {
            let uid = object::uid(old);
            if !asked.uid.is_empty() && asked.uid != uid {
                return Err(ask.target.conflict_because(&format!(
                    "Precondition failed: UID in precondition: {}, UID in object meta: {uid}",
                    asked.uid
                )));
            }
            let mut new = patch::merge(old, &asked.merge).map_err(|e| Status::bad_request(e.to_string()))?;
            if let Some(version) = asked.resource_version {
                object::set_meta(&mut new, "resourceVersion", version.to_string().into());
            }
            Ok(Made::from(formed(&ask.target, new)?))
        })
        .await
    }

    pub async fn delete(&self, by: &str, asked: Delete) -> Result<Revision, Status> {
        let target = Target::stored(&self.api.kinds(), &asked.resource, &asked.namespace, &asked.name)?;
        let options = DeleteOptions {
            grace: asked.grace,
            propagation: asked.propagation,
            uid: (!asked.uid.is_empty()).then_some(asked.uid),
            resource_version: None,
        };
        let deleted = write::delete(&mut self.ask(by, target, ""), &options).await?;
        Ok(deleted.last.revision)
    }

    pub async fn bind(
        &self,
        by: &str,
        namespace: &str,
        name: &str,
        uid: &str,
        node: &str,
    ) -> Result<Written, Status> {
        let target = Target::stored(&self.api.kinds(), "/pods", namespace, name)?;
        binding::bind(&mut self.ask(by, target, "binding"), node, uid).await
    }

    /// Answers a TokenRequest.
    pub fn token(&self, namespace: &str, account: &str, request: Value) -> Result<Value, Status> {
        token::issue(&self.api, &Target::stored(&self.api.kinds(), "/serviceaccounts", namespace, account)?, request)
    }

    pub fn has(&self, resource: &str, namespace: &str, name: &str) -> bool {
        self.api.store.get(&limpet_store::Key::new(resource, namespace, name)).is_some()
    }

    /// The stored object.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let target = Target::stored(&self.api.kinds(), resource, namespace, name).ok()?;
        target.parse(&self.api.store.get(&target.key())?).ok()
    }
}

/// The hub's own parts are held to the same forms; what they get wrong is an error, not a warning.
fn formed(target: &Target, mut object: Value) -> Result<Value, Status> {
    form::conform_target(&mut object, target, Vec::new(), form::Validation::Strict, &mut Vec::new())?;
    Ok(object)
}

impl run::Api for Client {
    fn create(
        &self,
        by: &'static str,
        resource: String,
        namespace: String,
        object: Value,
    ) -> Answer<'_, Revision> {
        Box::pin(
            async move { Client::create(self, by, &resource, &namespace, object).await.map(|w| w.revision) },
        )
    }

    fn patch(&self, by: &'static str, ask: Patch) -> Answer<'_, Revision> {
        Box::pin(async move { Client::patch(self, by, ask).await.map(|w| w.revision) })
    }

    fn delete(&self, by: &'static str, ask: Delete) -> Answer<'_, Revision> {
        Box::pin(Client::delete(self, by, ask))
    }

    fn bind(
        &self,
        by: &'static str,
        namespace: String,
        name: String,
        uid: String,
        node: String,
    ) -> Answer<'_, Revision> {
        Box::pin(
            async move { Client::bind(self, by, &namespace, &name, &uid, &node).await.map(|w| w.revision) },
        )
    }

    fn token(&self, namespace: String, service_account: String, request: Value) -> Answer<'_, Value> {
        Box::pin(async move { Client::token(self, &namespace, &service_account, request) })
    }
}
