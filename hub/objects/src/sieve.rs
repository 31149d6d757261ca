//! Reads of an object only what somebody looks at: a row of a table needs a twentieth of a pod.
//!
//! In: the JSON of an object, and a tree of what is wanted. Out: the object without the rest.
//! Never: an error that the whole parser would not have for a wanted part; allocates for what is left out.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::{borrow::Cow, fmt};

/// What is wanted of a value. Lists are looked through: it says what is wanted of each item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    All,
    Nothing,
    /// These fields.
    Of(&'static [(&'static str, Part)]),
    /// Everything; of these fields only so much.
    But(&'static [(&'static str, Part)]),
}

impl Part {
    /// Who wrote which field is in no table.
    pub const UNMANAGED: Part = Part::But(&[("metadata", Part::But(&[("managedFields", Part::Nothing)]))]);

    fn of(self, field: &str) -> Part {
        let (fields, others) = match self {
            Part::Of(fields) => (fields, Part::Nothing),
            Part::But(fields) => (fields, Part::All),
            whole => return whole,
        };
        fields.iter().find(|(name, _)| *name == field).map_or(others, |(_, part)| *part)
    }
}

pub fn read(json: &[u8], part: Part) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = part.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

impl<'de> DeserializeSeed<'de> for Part {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        match self {
            Part::All => Value::deserialize(from),
            Part::Nothing => IgnoredAny::deserialize(from).map(|_| Value::Null),
            part => from.deserialize_any(Reading(part)),
        }
    }
}

/// A field's name, borrowed where it has no escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Cow<'de, str>, D::Error> {
        from.deserialize_str(Name)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a field's name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

struct Reading(Part);

impl<'de> Visitor<'de> for Reading {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = from.next_key_seed(Name)? {
            match self.0.of(&name) {
                Part::Nothing => _ = from.next_value::<IgnoredAny>()?,
                part => _ = fields.insert(name.into_owned(), from.next_value_seed(part)?),
            }
        }
        Ok(Value::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(self.0)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wanted_is_there_and_nothing_else() {
        let object = json!({
            "metadata": {"name": "a", "managedFields": [{"manager": "x"}], "labels": {"b": "c"}},
            "spec": {"list": [{"name": "one", "more": [1, 2.5]}, {"name": "two"}, null, "text"], "n": -1, "t": true},
            "status": "odd", "escaped\nname": 1,
        });
        let text = object.to_string();
        let sieved = |part| read(text.as_bytes(), part).unwrap();
        assert_eq!(sieved(Part::All), object);
        assert_eq!(sieved(Part::Nothing), Value::Null);
        assert_eq!(sieved(Part::But(&[])), object);
        assert_eq!(sieved(Part::Of(&[])), json!({}));
        let mut unmanaged = object.clone();
        unmanaged["metadata"].as_object_mut().unwrap().remove("managedFields");
        assert_eq!(sieved(Part::UNMANAGED), unmanaged);
        const NAMES: Part = Part::Of(&[("list", Part::Of(&[("name", Part::All)])), ("n", Part::All)]);
        assert_eq!(
            sieved(Part::Of(&[("spec", NAMES), ("status", NAMES), ("escaped\nname", Part::All)])),
            json!({
                "spec": {"list": [{"name": "one"}, {"name": "two"}, null, "text"], "n": -1},
                "status": "odd", "escaped\nname": 1,
            })
        );
    }

    #[test]
    fn what_is_broken_is_refused() {
        for text in ["", "{", "{\"a\":1}x", "{\"a\":}", "{\"b\":{]}", "[1,]", "{\"b\":1,}"] {
            for part in [Part::All, Part::Nothing, Part::Of(&[("a", Part::All)]), Part::UNMANAGED] {
                assert!(read(text.as_bytes(), part).is_err(), "{text} {part:?}");
            }
        }
        let deep = "[".repeat(100_000);
        assert!(read(deep.as_bytes(), Part::UNMANAGED).is_err());
    }
}
