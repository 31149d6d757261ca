//! Which pods a question is about.
//!
//! In: terms of affinity and spread constraints, and the pod that they are written in. Out: terms that stand alone, so
//! that the same wish of two pods is one. Never: looks at nodes.

use crate::{
    ObjectStore,
    view::{Labels, Namespace, Pod, PodTerm, Selector},
};

/// Pods that one question is about: those that match all of `terms`, or that `owner` controls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Terms(Vec<Term>),
    Owner(Box<str>),
}

/// Pods of some namespaces with some labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term {
    pub namespaces: Vec<Box<str>>,
    pub namespace_selector: Option<Selector>,
    /// `None` matches nothing.
    pub labels: Option<Selector>,
    /// Labels whose value must (true) or must not (false) be this.
    pub same: Vec<(Box<str>, Box<str>, bool)>,
}

impl Term {
    /// A term of `owner`, with everything that depends on `owner` filled in.
    pub fn of(owner: &Pod, t: &PodTerm) -> Term {
        let mut namespaces = t.namespaces.to_vec();
        if namespaces.is_empty() && t.namespace_selector.is_none() {
            namespaces.push(owner.meta.namespace.clone());
        }
        let own = |k: &str| owner.meta.labels.get(k).map(Box::<str>::from);
        let same = t.match_label_keys.iter().filter_map(|k| Some((k.clone(), own(k)?, true)));
        let differs = t.mismatch_label_keys.iter().filter_map(|k| Some((k.clone(), own(k)?, false)));
        Term {
            namespaces,
            namespace_selector: t.namespace_selector.clone(),
            labels: t.label_selector.clone(),
            same: same.chain(differs).collect(),
        }
    }

    pub fn matches(&self, view: &ObjectStore, namespace: &str, labels: &Labels) -> bool {
        let in_namespace = self.namespaces.iter().any(|n| **n == *namespace)
            || self.namespace_selector.as_ref().is_some_and(|s| {
                s.is_empty() || view.get::<Namespace>("", namespace).is_some_and(|n| s.matches(&n.meta.labels))
            });
        in_namespace
            && self.labels.as_ref().is_some_and(|s| s.matches(labels))
            && self.same.iter().all(|(key, value, equal)| (labels.get(key) == Some(&**value)) == *equal)
    }
}

impl Wanted {
    pub fn matches(&self, view: &ObjectStore, pod: &Pod) -> bool {
        match self {
            Wanted::Owner(uid) => pod.meta.controlled_by(uid),
            Wanted::Terms(terms) => terms.iter().all(|t| t.matches(view, &pod.meta.namespace, &pod.meta.labels)),
        }
    }
}
