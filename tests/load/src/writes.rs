//! Objects created, read, replaced, patched and deleted, one by one, by many clients at once.
//!
//! In: a server and a namespace of our own. Out: rates, times, processor time of each kind of operation.
//! Never: two kinds of operations at the same time.

use crate::{
    access::Access,
    connection::{Ask, Connection},
    crowd::{self, AsyncOperation},
    figures::Figures,
    objects,
    proc::Server,
};
use bytes::Bytes;
use http::Method;
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// The namespace in which everything happens.
pub struct Place {
    pub namespace: String,
}

impl Place {
    pub async fn make(access: &Access) -> Result<Place, String> {
        let namespace = format!("load-{}", std::process::id());
        let mut connection = Connection::open(access).await?;
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        connection.ask(Ask::new(Method::POST, "/api/v1/namespaces", object.to_string())).await?;
        // Pods need it; where a controller makes it, that one comes first or finds it.
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        match connection.try_ask(Ask::new(Method::POST, &accounts, account.to_string())).await? {
            (201 | 409, _) => {}
            (code, body) => return Err(format!("no ServiceAccount: {code} {}", String::from_utf8_lossy(&body))),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(Place { namespace })
    }

    pub fn path(&self, resource: &str) -> String {
        format!("/api/v1/namespaces/{}/{resource}", self.namespace)
    }

    pub async fn remove(&self, access: &Access) -> Result<(), String> {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        Connection::open(access).await?.ask(Ask::new(Method::DELETE, &path, Bytes::new())).await.map(drop)
    }
}

pub struct Load<'a> {
    pub access: &'a Access,
    pub server: &'a Server,
    pub place: &'a Place,
    pub clients: usize,
    pub objects: usize,
    pub pods: usize,
}

/// One request about one object of a resource.
#[derive(Clone)]
struct OnObject {
    method: Method,
    collection: Arc<str>,
    content_type: &'static str,
    body: fn(usize) -> Bytes,
    /// Of how many objects; a larger number begins again.
    modulus: usize,
}

impl AsyncOperation for OnObject {
    async fn call(&self, connection: &mut Connection, number: usize) -> Result<(), String> {
        let number = number % self.modulus;
        let path = match self.method {
            Method::POST => self.collection.to_string(),
            _ => format!("{}/{}", self.collection, objects::name(number)),
        };
        let mut ask = Ask::new(self.method.clone(), &path, (self.body)(number));
        ask.content_type = self.content_type;
        connection.ask(ask).await.map(drop)
    }
}

fn nothing(_: usize) -> Bytes {
    Bytes::new()
}

impl Load<'_> {
    pub async fn config_maps(&self, figures: &mut Figures) -> Result<(), String> {
        let n = self.objects;
        let map = |number| objects::config_map(number, 0);
        self.one("ConfigMap creates", Method::POST, "configmaps", map, n, "≥ 3,932/s", figures).await?;
        self.one("GETs", Method::GET, "configmaps", nothing, n * 2, "≥ 8,424/s", figures).await?;
        let map = |number| objects::config_map(number, 1);
        self.one("PUTs", Method::PUT, "configmaps", map, n, "≥ 2,884/s", figures).await?;
        let patch = |_| objects::patch(2);
        self.one("merge PATCHes", Method::PATCH, "configmaps", patch, n, "≥ 1,112/s", figures).await
    }

    pub async fn pods(&self, figures: &mut Figures) -> Result<(), String> {
        self.one("pod creates", Method::POST, "pods", objects::pod, self.pods, "≥ 2,076/s", figures).await
    }

    pub async fn deletes(&self, figures: &mut Figures) -> Result<(), String> {
        self.one("ConfigMap deletes", Method::DELETE, "configmaps", nothing, self.objects, "≥ 1,340/s", figures).await?;
        self.one("pod deletes", Method::DELETE, "pods", nothing, self.pods, "", figures).await
    }

    #[allow(clippy::too_many_arguments)]
    async fn one(
        &self,
        what: &'static str,
        method: Method,
        resource: &str,
        body: fn(usize) -> Bytes,
        count: usize,
        mark: &'static str,
        figures: &mut Figures,
    ) -> Result<(), String> {
        let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        // Reads and changes that nothing later needs are left out when nobody wants their figure.
        if !figures.wants(what) && !matches!(method, Method::POST) {
            return Ok(());
        }
        let objects = if resource == "pods" { self.pods } else { self.objects };
        let collection = self.place.path(resource).into();
        let operation = OnObject { method, collection, content_type, body, modulus: objects };
        let connections = Connection::many(self.access, self.clients).await?;
        let took = crowd::run(connections, count, self.server, operation).await?;
        figures.say(format!("{what}, {} clients", self.clients), took.words(), mark);
        Ok(())
    }
}
