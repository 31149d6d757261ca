//! Which flow a request belongs to.
//!
//! In: the schemas, a request's attributes. Out: the first schema that is about it, and the hash of its flow.
//! Never: no answer; the last schema is about everybody.

use super::config::{Config, Distinguisher, PathRule, ResourceRule, Rule, Schema, Subject};
use crate::rbac::Attributes;
use std::sync::Arc;

/// What a request belongs to.
#[derive(Clone, Debug)]
pub struct Flow {
    pub schema: Arc<Schema>,
    pub hash: u64,
}

impl Config {
    /// `None` only where there are no schemas at all.
    pub fn classify(&self, asked: &Attributes<'_>) -> Option<Flow> {
        let found = self.schemas.iter().find(|schema| schema.rules.iter().any(|rule| rule.is_about(asked)));
        let schema = Arc::clone(found.or(self.schemas.last())?);
        let who = match schema.by {
            Distinguisher::None => "",
            Distinguisher::User => asked.user,
            Distinguisher::Namespace => asked.namespace,
        };
        let hash = hash(&schema.name, who);
        Some(Flow { schema, hash })
    }
}

/// FNV-1a over both words, then mixed so that all bits count.
fn hash(schema: &str, who: &str) -> u64 {
    let bytes = schema.bytes().chain(std::iter::once(0)).chain(who.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

impl Rule {
    fn is_about(&self, asked: &Attributes<'_>) -> bool {
        self.subjects.iter().any(|subject| subject.is(asked))
            && match asked.path {
                Some(path) => self.paths.iter().any(|rule| rule.is_about(asked.verb, path)),
                None => self.resources.iter().any(|rule| rule.is_about(asked)),
            }
    }
}

impl Subject {
    fn is(&self, asked: &Attributes<'_>) -> bool {
        match self {
            Subject::User(name) => name == "*" || name == asked.user,
            Subject::Group(name) => name == "*" || asked.groups.contains(name),
            Subject::ServiceAccount(namespace, name) => {
                let own = asked.user.strip_prefix("system:serviceaccount:").and_then(|user| user.split_once(':'));
                own.is_some_and(|(home, account)| home == namespace && (name == "*" || name == account))
            }
        }
    }
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|own| own == "*" || own == word)
}

impl ResourceRule {
    fn is_about(&self, asked: &Attributes<'_>) -> bool {
        let place = match asked.namespace {
            "" => self.cluster,
            namespace => has(&self.namespaces, namespace),
        };
        place && has(&self.verbs, asked.verb) && has(&self.groups, asked.api_group) && self.names(asked)
    }

    fn names(&self, asked: &Attributes<'_>) -> bool {
        self.resources.iter().any(|own| match own.split_once('/') {
            None => own == "*" || (asked.subresource.is_empty() && own == asked.resource),
            Some((resource, sub)) => resource == asked.resource && sub == asked.subresource,
        })
    }
}

impl PathRule {
    fn is_about(&self, verb: &str, path: &str) -> bool {
        has(&self.verbs, verb)
            && self.paths.iter().any(|own| match own.strip_suffix('*') {
                Some(begin) => path.starts_with(begin),
                None => own == path,
            })
    }
}
