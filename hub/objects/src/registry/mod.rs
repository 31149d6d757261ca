//! The registry: every resource that the API serves, by path, by kind and by group.
//!
//! In: the rows of `rows.rs`, and the resources that CustomResourceDefinitions bring. Out: `registry()`, the
//! built-in ones, built once; `Registry::with`, those and the custom ones.
//! Never: changes; a new CustomResourceDefinition makes a new registry.

#[rustfmt::skip] // one row a line reads best
mod rows;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::resource::{Resource, Subresource, api_version, split_api_version};
use rows::{Row, Sub};

/// All resources that are served.
#[derive(Debug)]
pub struct Registry {
    resources: Vec<Arc<Resource>>,
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
    REGISTRY.get_or_init(|| {
        Registry::of(rows::GROUPS.iter().copied().flatten().map(|row| Arc::new(resource(row))).collect())
    })
}

impl Registry {
    fn of(resources: Vec<Arc<Resource>>) -> Self {
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
            // A stored version that is not served leaves its objects to the others.
            if resource.is_stored_form() {
                registry.by_storage.insert(resource.storage.clone(), at);
            } else if resource.custom.is_some() {
                registry.by_storage.entry(resource.storage.clone()).or_insert(at);
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

    /// This registry's resources and custom ones after them. What is there already stays: a custom resource
    /// never takes the place of another.
    pub fn with(&self, custom: Vec<Arc<Resource>>) -> Self {
        let free = |resource: &Arc<Resource>| {
            self.by_path(&resource.group, &resource.version, &resource.plural).is_none()
        };
        let mut all = self.resources.clone();
        all.extend(custom.into_iter().filter(free));
        let mut registry = Self::of(all);
        for group in &mut registry.groups {
            if self.groups.iter().all(|own| own.name != group.name) {
                group.versions.sort_by(|a, b| version_order(b, a));
            }
        }
        registry
    }

    /// `("apps", "v1", "deployments")`; core has the group "".
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.at(self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned())))
    }

    /// `("apps/v1", "Deployment")`.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.at(self.by_kind.get(&(api_version.to_owned(), kind.to_owned())))
    }

    /// The resource of the stored version: `"apps/deployments"`, `"/pods"`.
    pub fn by_storage(&self, storage: &str) -> Option<&Arc<Resource>> {
        self.at(self.by_storage.get(storage))
    }

    fn at(&self, found: Option<&usize>) -> Option<&Arc<Resource>> {
        found.and_then(|at| self.resources.get(*at))
    }

    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// Resources of one group and version, in the order of the rows (sorted by plural).
    pub fn of_version(&self, group: &str, version: &str) -> impl Iterator<Item = &Arc<Resource>> {
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
        custom: None,
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
        "metrics.k8s.io" => format!("io.k8s.metrics.pkg.apis.metrics.{version}.{kind}"),
        group => {
            let package = group.split('.').next().unwrap_or(group);
            format!("io.k8s.api.{package}.{version}.{kind}")
        }
    }
}

/// Kubernetes' order of versions, ascending: `foo1` < `v1alpha1` < `v1beta2` < `v1` < `v2`.
pub fn version_order(a: &str, b: &str) -> std::cmp::Ordering {
    match (stability(a), stability(b)) {
        (Some(x), Some(y)) => x.cmp(&y),
        (Some(_), None) => std::cmp::Ordering::Greater,
        (None, Some(_)) => std::cmp::Ordering::Less,
        // Other names are sorted backwards, so that `a` is preferred to `b`.
        (None, None) => b.cmp(a),
    }
}

/// (2 for GA, 1 for beta, 0 for alpha; major; minor) of `v1beta2`.
fn stability(version: &str) -> Option<(u8, u64, u64)> {
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| !text.starts_with(['0', '+']));
    let rest = version.strip_prefix('v')?;
    let (level, split) = match (rest.split_once("alpha"), rest.split_once("beta")) {
        (Some(split), _) => (0, Some(split)),
        (None, Some(split)) => (1, Some(split)),
        (None, None) => (2, None),
    };
    match split {
        Some((major, minor)) => Some((level, number(major)?, number(minor)?)),
        None => Some((level, number(rest)?, 0)),
    }
}

/// `apps`, `v1` -> `apps/v1` (again here, so that users of the registry need one import).
pub fn group_version(group: &str, version: &str) -> String {
    api_version(group, version)
}

#[cfg(test)]
mod tests;
