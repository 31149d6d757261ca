//! The registry: every resource that the API serves, by path, by kind and by group.
//!
//! In: the rows of `rows.rs`. Out: `registry()`, built once.
//! Never: changes while running; CustomResourceDefinitions bring `Resource`s of their own.

#[rustfmt::skip] // one row a line reads best
mod rows;

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::resource::{Resource, Subresource, api_version, split_api_version};
use rows::{Row, Sub};

/// All built-in resources.
#[derive(Debug)]
pub struct Registry {
    resources: Vec<Resource>,
    by_path: HashMap<(String, String, String), usize>,
    by_kind: HashMap<(String, String), usize>,
    by_storage: HashMap<String, usize>,
    groups: Vec<Group>,
}

/// An API group with its versions, preferred first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Empty for core.
    pub name: String,
    pub versions: Vec<String>,
}

/// The registry of built-in resources.
pub fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| Registry::of(rows::GROUPS.iter().copied().flatten().map(resource).collect()))
}

impl Registry {
    fn of(resources: Vec<Resource>) -> Self {
        let mut registry = Self {
            by_path: HashMap::new(),
            by_kind: HashMap::new(),
            by_storage: HashMap::new(),
            groups: Vec::new(),
            resources,
        };
        for (at, resource) in registry.resources.iter().enumerate() {
            let path = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
            registry.by_path.insert(path, at);
            registry.by_kind.insert((resource.api_version(), resource.kind.clone()), at);
            if resource.is_stored_form() {
                registry.by_storage.insert(resource.storage.clone(), at);
            }
            match registry.groups.iter_mut().find(|group| group.name == resource.group) {
                Some(group) if group.versions.contains(&resource.version) => {}
                Some(group) => group.versions.push(resource.version.clone()),
                None => registry
                    .groups
                    .push(Group { name: resource.group.clone(), versions: vec![resource.version.clone()] }),
            }
        }
        registry
    }

    /// `("apps", "v1", "deployments")`; core has the group "".
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        self.at(self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned())))
    }

    /// `("apps/v1", "Deployment")`.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.at(self.by_kind.get(&(api_version.to_owned(), kind.to_owned())))
    }

    /// The resource of the stored version: `"apps/deployments"`, `"/pods"`.
    pub fn by_storage(&self, storage: &str) -> Option<&Resource> {
        self.at(self.by_storage.get(storage))
    }

    fn at(&self, found: Option<&usize>) -> Option<&Resource> {
        found.and_then(|at| self.resources.get(*at))
    }

    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// Resources of one group and version, in the order of the rows (sorted by plural).
    pub fn of_version(&self, group: &str, version: &str) -> impl Iterator<Item = &Resource> {
        self.resources.iter().filter(move |resource| resource.group == group && resource.version == version)
    }

    /// Groups as discovery lists them; core comes first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }
}

fn resource(row: &Row) -> Resource {
    let (group, version) = split_api_version(row.api);
    let stored = if row.stored_api.is_empty() { row.api } else { row.stored_api };
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: row.plural.to_owned(),
        singular: row.kind.to_ascii_lowercase(),
        kind: row.kind.to_owned(),
        list_kind: format!("{}List", row.kind),
        namespaced: row.namespaced,
        short_names: owned(row.short_names),
        categories: owned(row.categories),
        verbs: owned(row.verbs),
        subresources: row.subresources.iter().map(|sub| subresource(row, sub)).collect(),
        schema: definition_name(row.api, row.kind),
        storage: format!("{}/{}", split_api_version(stored).0, row.plural),
        storage_version: stored.to_owned(),
        has_generation: row.generation,
        has_status: row.subresources.iter().any(|sub| sub.name == "status"),
        behaviour: (row.behaviour)(),
    }
}

fn subresource(row: &Row, sub: &Sub) -> Subresource {
    let api = if sub.api.is_empty() { row.api } else { sub.api };
    let kind = if sub.kind.is_empty() { row.kind } else { sub.kind };
    let (group, version) = split_api_version(api);
    Subresource {
        name: sub.name.to_owned(),
        kind: kind.to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        verbs: sub.verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        schema: (!kind.ends_with("Options")).then(|| definition_name(api, kind)),
    }
}

/// Name of a kind's definition in Kubernetes' OpenAPI.
pub fn definition_name(api: &str, kind: &str) -> String {
    let (group, version) = split_api_version(api);
    match group {
        "" => format!("io.k8s.api.core.{version}.{kind}"),
        "limpet.dev" => format!("dev.limpet.{version}.{kind}"),
        "apiextensions.k8s.io" => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}")
        }
        "apiregistration.k8s.io" => {
            format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{kind}")
        }
        group => {
            let package = group.split('.').next().unwrap_or(group);
            format!("io.k8s.api.{package}.{version}.{kind}")
        }
    }
}

/// `apps`, `v1` -> `apps/v1` (again here, so that users of the registry need one import).
pub fn group_version(group: &str, version: &str) -> String {
    api_version(group, version)
}

#[cfg(test)]
mod tests;
