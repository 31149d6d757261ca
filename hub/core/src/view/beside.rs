//! An object's metadata and its kind's fields in one reading of its bytes.
//!
//! In: JSON. Out: both, or why not. Kinds do not see the field `metadata`.
//! Never: a copy of what neither of them keeps.

use super::meta::Meta;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, IgnoredAny, IntoDeserializer, MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{borrow::Cow, fmt, marker::PhantomData};

pub fn read<T: DeserializeOwned>(raw: &[u8]) -> Result<(Meta, T), serde_json::Error> {
    read_some(raw, "")
}

/// As `read`; the kind does not see the field `without` either.
pub fn read_some<T: DeserializeOwned>(raw: &[u8], without: &str) -> Result<(Meta, T), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(raw);
    let mut meta = None;
    let data = json.deserialize_map(Object { meta: &mut meta, without, kind: PhantomData })?;
    json.end()?;
    Ok((meta.unwrap_or_default(), data))
}

struct Object<'m, T> {
    meta: &'m mut Option<Meta>,
    without: &'m str,
    kind: PhantomData<T>,
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Object<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(Rest { map, meta: self.meta, without: self.without }))
    }
}

/// A field's name, borrowed where it can be.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// All fields but the metadata, which goes to its place.
struct Rest<'m, A> {
    map: A,
    meta: &'m mut Option<Meta>,
    without: &'m str,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rest<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(Name(name)) = self.map.next_key()? {
            if name == "metadata" {
                *self.meta = Some(self.map.next_value()?);
            } else if name == self.without {
                self.map.next_value::<IgnoredAny>()?;
            } else {
                return seed.deserialize(name.into_deserializer()).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::kinds::{ConfigMapData, DeploymentData};

    #[test]
    fn metadata_may_stand_anywhere() {
        for raw in [
            r#"{"metadata": {"name": "a", "uid": "u"}, "spec": {"replicas": 3}, "status": {}}"#,
            r#"{"spec": {"replicas": 3}, "other": [1, {"metadata": {"name": "b"}}], "metadata": {"uid": "u", "name": "a"}}"#,
        ] {
            let (meta, data) = read::<DeploymentData>(raw.as_bytes()).unwrap();
            assert_eq!((&*meta.name, &*meta.uid, data.spec.replicas), ("a", "u", Some(3)), "{raw}");
        }
        assert_eq!(read::<ConfigMapData>(b"{}").unwrap().0.name, Meta::default().name);
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        for raw in ["", "null", "[]", "5", "{}{}", "{\"metadata\": null}", "{\"metadata\": {}", "{\"spec\": 5}"] {
            assert!(read::<DeploymentData>(raw.as_bytes()).is_err(), "{raw}");
        }
    }
}
