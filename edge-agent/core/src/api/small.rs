//! Shapes for what most objects do not have: a node holds its pods in memory, and their empty parts are most of them.
//!
//! In: serde. Out: the same data in less room. Never: another meaning than that of the plain type.

use serde::{Deserialize, Deserializer};
use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
};

/// A part of an object that takes room only when something is set in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rare<T>(Option<Box<T>>);

/// What a part is when nothing is set in it; the same as its `Default`.
pub trait Blank: Default + PartialEq + 'static {
    const BLANK: &'static Self;
}

impl<T: Blank> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::BLANK)
    }
}

impl<T: Blank> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<'de, T: Blank + Deserialize<'de>> Deserialize<'de> for Rare<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Rare<T>, D::Error> {
        let value = T::deserialize(from)?;
        Ok(Rare((value != *T::BLANK).then(|| Box::new(value))))
    }
}

/// Labels or annotations, in order of their keys. Seldom more than a handful: a tree's nodes have room for eleven.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "BTreeMap<String, String>")]
pub struct Words(Box<[(String, String)]>);

impl Words {
    pub fn get(&self, key: &str) -> Option<&String> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl From<BTreeMap<String, String>> for Words {
    fn from(map: BTreeMap<String, String>) -> Words {
        Words(map.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Container, PodSecurityContext, PodSpec, SecurityContext};

    #[test]
    fn what_is_not_set_takes_no_room_and_reads_as_unset() {
        let spec: PodSpec = crate::api::parse(br#"{"securityContext": {}}"#).unwrap();
        assert!(spec.security_context.0.is_none());
        assert_eq!(*spec.security_context, PodSecurityContext::default());
        let mut container: Container = crate::api::parse(br#"{"securityContext": {"privileged": false}}"#).unwrap();
        assert_eq!(container.security_context.privileged, Some(false));
        container.security_context.run_as_user = Some(7);
        assert_eq!(container.security_context.run_as_user, Some(7));
        assert_eq!(*SecurityContext::BLANK, SecurityContext::default());
    }

    #[test]
    fn words_are_found_by_their_key() {
        let words: Words = crate::api::parse(br#"{"b": "2", "a": "1"}"#).unwrap();
        assert_eq!(words.iter().map(|(k, v)| format!("{k}{v}")).collect::<Vec<_>>(), ["a1", "b2"]);
        assert!(words.get("b").is_some_and(|v| v == "2") && !words.contains_key("c"));
    }
}
