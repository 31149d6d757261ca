//! Values that the encoder walks through: parsed ones, and ones that borrow their texts from the stored bytes.
//!
//! In: a `Value`, or canonical JSON (`Lean::read`). Out: what a field holds. A list of thousands of objects is read once and
//! thrown away: half of that work were copies of texts and trees of fields.
//! Never: an error for a field that is missing or of another form: it is null.

use serde::{
    Serialize, Serializer,
    de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Number, Value};
use std::{borrow::Cow, fmt};

pub trait Node: Serialize + Sized {
    /// Null when there is none.
    fn field(&self, name: &str) -> &Self;
    fn is_null(&self) -> bool;
    fn is_object(&self) -> bool;
    fn text(&self) -> Option<&str>;
    fn truth(&self) -> Option<bool>;
    fn number(&self) -> Option<&Number>;
    fn items(&self) -> Option<&[Self]>;
    /// In the order of their names.
    fn entries(&self) -> impl Iterator<Item = (&str, &Self)>;

    /// JSON may say 1 as 1.0.
    fn integer(&self) -> i64 {
        let number = self.number();
        number.and_then(|n| n.as_i64().or_else(|| n.as_f64().map(|n| n as i64))).unwrap_or(0)
    }
}

impl Node for Value {
    fn field(&self, name: &str) -> &Value {
        &self[name]
    }

    fn is_null(&self) -> bool {
        self.is_null()
    }

    fn is_object(&self) -> bool {
        self.is_object()
    }

    fn text(&self) -> Option<&str> {
        self.as_str()
    }

    fn truth(&self) -> Option<bool> {
        self.as_bool()
    }

    fn number(&self) -> Option<&Number> {
        self.as_number()
    }

    fn items(&self) -> Option<&[Value]> {
        self.as_array().map(Vec::as_slice)
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
    }
}

/// JSON whose names and texts stay where they are, save those with escapes.
#[derive(Debug, PartialEq)]
pub enum Lean<'a> {
    Null,
    Truth(bool),
    Number(Number),
    Text(Cow<'a, str>),
    Items(Vec<Lean<'a>>),
    Fields(Vec<(Cow<'a, str>, Lean<'a>)>),
}

impl<'a> Lean<'a> {
    pub fn read(json: &'a [u8]) -> serde_json::Result<Lean<'a>> {
        serde_json::from_slice(json)
    }
}

impl Node for Lean<'_> {
    fn field(&self, name: &str) -> &Self {
        let Lean::Fields(fields) = self else { return &Lean::Null };
        fields.iter().find(|(own, _)| own == name).map_or(&Lean::Null, |(_, value)| value)
    }

    fn is_null(&self) -> bool {
        matches!(self, Lean::Null)
    }

    fn is_object(&self) -> bool {
        matches!(self, Lean::Fields(_))
    }

    fn text(&self) -> Option<&str> {
        if let Lean::Text(text) = self { Some(text) } else { None }
    }

    fn truth(&self) -> Option<bool> {
        if let Lean::Truth(truth) = self { Some(*truth) } else { None }
    }

    fn number(&self) -> Option<&Number> {
        if let Lean::Number(number) = self { Some(number) } else { None }
    }

    fn items(&self) -> Option<&[Self]> {
        if let Lean::Items(items) = self { Some(items) } else { None }
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &Self)> {
        let fields = if let Lean::Fields(fields) = self { fields.as_slice() } else { &[] };
        fields.iter().map(|(name, value)| (&**name, value))
    }
}

impl Serialize for Lean<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Lean::Null => to.serialize_unit(),
            Lean::Truth(truth) => to.serialize_bool(*truth),
            Lean::Number(number) => number.serialize(to),
            Lean::Text(text) => to.serialize_str(text),
            Lean::Items(items) => to.collect_seq(items),
            Lean::Fields(fields) => to.collect_map(fields.iter().map(|(name, value)| (name, value))),
        }
    }
}

impl<'de> Deserialize<'de> for Lean<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Lean<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Lean<'de>, E> {
        Ok(Lean::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Lean<'de>, E> {
        Ok(Lean::Truth(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Lean<'de>, E> {
        Ok(Lean::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Lean<'de>, E> {
        Ok(Lean::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Lean<'de>, E> {
        Ok(Number::from_f64(number).map_or(Lean::Null, Lean::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Lean<'de>, E> {
        Ok(Lean::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Lean<'de>, E> {
        Ok(Lean::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Lean<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element()? {
            items.push(item);
        }
        Ok(Lean::Items(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Lean<'de>, A::Error> {
        let mut fields = Vec::with_capacity(8);
        // A name is read as any value is, so that one without escapes is borrowed.
        while let Some(name) = from.next_key()? {
            if let Lean::Text(name) = name {
                fields.push((name, from.next_value()?));
            }
        }
        Ok(Lean::Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_and_says_the_same_as_a_parsed_value() {
        let value = json!({
            "a": null, "b": [true, false, 1, -2, 1.5, "t\n\"é", {}], "c\n": {"d": {"e": "f"}}, "g": 18446744073709551615u64,
        });
        let text = value.to_string();
        let lean = Lean::read(text.as_bytes()).unwrap();
        assert_eq!(serde_json::to_value(&lean).unwrap(), value);
        assert_eq!(lean.field("c\n").field("d").field("e").text(), Some("f"));
        assert!(lean.field("x").field("y").is_null() && lean.field("b").is_null() == Node::field(&value, "b").is_null());
        assert_eq!(lean.entries().map(|(n, _)| n).collect::<Vec<_>>(), value.entries().map(|(n, _)| n).collect::<Vec<_>>());
        let numbers = |items: &[Lean<'_>]| items.iter().map(Node::integer).collect::<Vec<_>>();
        assert_eq!(numbers(lean.field("b").items().unwrap()), [0, 0, 1, -2, 1, 0, 0]);
        assert!(matches!(&lean, Lean::Fields(fields) if matches!(fields[0].0, Cow::Borrowed("a"))));
        assert!(Lean::read(b"{\"a\":}").is_err() && Lean::read(b"{1:2}").is_err());
    }
}
