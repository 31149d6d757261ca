//! An object's metadata and its kind's fields in one reading of its bytes.
//!
//! In: JSON. Out: both, or why not. Kinds do not see the field `metadata`.
//! Never: a copy of what neither of them keeps.

use super::meta::Meta;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{borrow::Cow, fmt, marker::PhantomData};

pub fn read<T: DeserializeOwned>(raw: &[u8]) -> Result<(Meta, T), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(raw);
    let mut meta = None;
    let data = json.deserialize_map(Object { meta: &mut meta, kind: PhantomData })?;
    json.end()?;
    Ok((meta.unwrap_or_default(), data))
}

/// A kind of which only this field is at hand, with its value.
pub fn read_field<T: DeserializeOwned>(name: &'static str, value: &[u8]) -> Result<T, serde_json::Error> {
    let mut field = Field { name: Some(name), json: serde_json::Deserializer::from_slice(value) };
    let data = T::deserialize(MapAccessDeserializer::new(&mut field))?;
    field.json.end()?;
    Ok(data)
}

struct Field<'de> {
    name: Option<&'static str>,
    json: serde_json::Deserializer<serde_json::de::SliceRead<'de>>,
}

impl<'de> MapAccess<'de> for Field<'de> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        self.name.take().map(|name| seed.deserialize(name.into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        seed.deserialize(&mut self.json)
    }
}

struct Object<'m, T> {
    meta: &'m mut Option<Meta>,
    kind: PhantomData<T>,
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Object<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(Rest { map, meta: self.meta }))
    }
}

/// A field's name, borrowed where it can be.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// All fields but the metadata, which goes to its place.
struct Rest<'m, A> {
    map: A,
    meta: &'m mut Option<Meta>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rest<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(Name(name)) = self.map.next_key()? {
            if name == "metadata" {
                *self.meta = Some(self.map.next_value()?);
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
    fn one_field_is_read_as_if_it_were_all() {
        let read = |value: &str| read_field::<DeploymentData>("spec", value.as_bytes());
        assert_eq!(read("{\"replicas\": 3}").unwrap().spec.replicas, Some(3));
        for value in ["", "5", "{}{}", "{\"replicas\": 3}}", "{"] {
            assert!(read(value).is_err(), "{value}");
        }
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        for raw in ["", "null", "[]", "5", "{}{}", "{\"metadata\": null}", "{\"metadata\": {}", "{\"spec\": 5}"] {
            assert!(read::<DeploymentData>(raw.as_bytes()).is_err(), "{raw}");
        }
    }
}
