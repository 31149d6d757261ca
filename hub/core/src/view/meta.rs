//! The part of ObjectMeta that decisions read.
//!
//! In: canonical JSON. Out: `Meta`, `Labels`, `OwnerRef`, small in memory.
//! Never: keeps managedFields or kubectl's last-applied configuration.

use crate::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value};
use std::fmt;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// String pairs, sorted by key: labels, annotations, node selectors.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn to_value(&self) -> Value {
        Value::Object(self.iter().map(|(k, v)| (k.to_owned(), Value::from(v))).collect::<Map<_, _>>())
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Self {
        let mut v: Vec<(Box<str>, Box<str>)> = iter.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        v.sort_by(|a, b| a.0.cmp(&b.0));
        v.dedup_by(|later, kept| later.0 == kept.0);
        Labels(v.into())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs: Vec<(Box<str>, Box<str>)> = Vec::new();
                while let Some(key) = map.next_key::<Box<str>>()? {
                    if &*key == LAST_APPLIED {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    pairs.push((key, map.next_value::<Scalar>()?.0));
                }
                Ok(pairs.into_iter().collect())
            }
            fn visit_unit<E>(self) -> Result<Labels, E> {
                Ok(Labels::default())
            }
        }
        d.deserialize_any(Pairs)
    }
}

/// A text; numbers (quantities may be written so) and booleans as they are printed, null as nothing.
struct Scalar(Box<str>);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, v: &str) -> Result<Scalar, E> {
                Ok(Scalar(v.into()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string().into()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string().into()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string().into()))
            }
            fn visit_bool<E>(self, v: bool) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string().into()))
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar("".into()))
            }
        }
        d.deserialize_any(Any)
    }
}

/// metav1.OwnerReference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OwnerRef {
    pub api_version: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub controller: bool,
    #[serde(deserialize_with = "or_default")]
    pub block_owner_deletion: bool,
}

/// metav1.ObjectMeta without what no decision reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Meta {
    pub name: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub namespace: Box<str>,
    pub uid: Box<str>,
    #[serde(deserialize_with = "number_in_text")]
    pub resource_version: u64,
    #[serde(deserialize_with = "or_default")]
    pub generation: i64,
    #[serde(rename = "creationTimestamp")]
    pub created: Option<Timestamp>,
    /// When a graceful deletion ends; set: the object is being deleted.
    #[serde(rename = "deletionTimestamp")]
    pub deleting: Option<Timestamp>,
    #[serde(rename = "deletionGracePeriodSeconds")]
    pub deletion_grace_s: Option<i64>,
    pub labels: Labels,
    pub annotations: Labels,
    #[serde(rename = "ownerReferences", deserialize_with = "or_default")]
    pub owners: Box<[OwnerRef]>,
    #[serde(deserialize_with = "or_default")]
    pub finalizers: Box<[Box<str>]>,
}

impl Meta {
    /// The one owner that manages this object.
    pub fn controller(&self) -> Option<&OwnerRef> {
        self.owners.iter().find(|o| o.controller)
    }

    pub fn controlled_by(&self, uid: &str) -> bool {
        self.controller().is_some_and(|o| &*o.uid == uid)
    }

    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|f| &**f == name)
    }

    /// Creation time, or the beginning of time for objects without one.
    pub fn created_at(&self) -> Timestamp {
        self.created.unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// `null` counts as missing.
pub fn or_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

fn number_in_text<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    let text = Option::<Box<str>>::deserialize(d)?;
    Ok(text.and_then(|t| t.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_metadata_and_drops_the_rest() {
        let meta: Meta = serde_json::from_str(
            r#"{"name":"a","namespace":"b","uid":"u","resourceVersion":"12","creationTimestamp":null,
            "labels":{"z":"1","a":"2"},"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}","x":"y"},
            "managedFields":[{"manager":"k"}],"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet",
            "name":"r","uid":"ru","controller":true}],"finalizers":null}"#,
        )
        .unwrap();
        assert_eq!(
            (meta.resource_version, meta.labels.get("a"), meta.labels.get("b")),
            (12, Some("2"), None)
        );
        assert_eq!(meta.annotations.len(), 1);
        assert!(meta.controlled_by("ru") && !meta.controlled_by("x"));
    }
}
