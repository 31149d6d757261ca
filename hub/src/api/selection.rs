//! Label and field selectors of lists, watches and collections.
//!
//! In: the query of a request, hostile; stored records. Out: whether a record is selected.
//! Never: parses a whole object when labels or the name are enough.

use super::query::Query;
use limpet_objects::{
    resource::Resource,
    select::{FieldSelector, LabelSelector},
    status::Status,
};
use limpet_store::Record;
use serde::Deserialize;
use serde_json::Value;
use std::{borrow::Cow, collections::BTreeMap};

pub struct Selection {
    /// The one name that the request is about; empty for all. Rights may have been given for it alone.
    only: String,
    labels: LabelSelector,
    fields: FieldSelector,
    /// Whether the fields are only name and namespace, which are in the key.
    by_key: bool,
}

impl Selection {
    pub fn everything() -> Selection {
        let (labels, fields) = (LabelSelector::everything(), FieldSelector::default());
        Selection { only: String::new(), labels, fields, by_key: true }
    }

    /// `name`: the one that the request's path names, or its field selector.
    pub fn parse(query: &Query, resource: &Resource, name: &str) -> Result<Selection, Status> {
        let labels = query.get("labelSelector").unwrap_or_default();
        let labels = LabelSelector::parse(labels).map_err(|e| Status::bad_request(e.to_string()))?;
        let fields = query.get("fieldSelector").unwrap_or_default();
        let fields = FieldSelector::parse(fields).map_err(|e| Status::bad_request(e.to_string()))?;
        let known = resource.selectable(&Value::Null);
        let mut known: Vec<&str> = known.iter().map(|(name, _)| &**name).collect();
        known.push("metadata.name");
        if resource.namespaced {
            known.push("metadata.namespace");
        }
        if let Some(words) = fields.unsupported(&known) {
            return Err(Status::bad_request(words));
        }
        let by_key = fields.terms.iter().all(|t| t.field.starts_with("metadata.name"));
        Ok(Selection { only: name.to_owned(), labels, fields, by_key })
    }

    pub fn is_everything(&self) -> bool {
        self.only.is_empty() && self.labels.is_everything() && self.fields.is_everything()
    }

    /// The one name that can be selected, when a field selector names it.
    pub fn name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    pub fn matches(&self, resource: &Resource, record: &Record) -> bool {
        (self.only.is_empty() || record.key.name == self.only)
            && self.fields_match(resource, record)
            && self.labels_match(record)
    }

    fn labels_match(&self, record: &Record) -> bool {
        if self.labels.is_everything() {
            return true;
        }
        let Ok(light) = serde_json::from_slice::<Light<'_>>(&record.bytes) else { return false };
        let labels = light.metadata.labels.unwrap_or_default();
        self.labels.matches_with(|key| labels.get(key).map(|v| &**v))
    }

    fn fields_match(&self, resource: &Resource, record: &Record) -> bool {
        if self.fields.is_everything() {
            return true;
        }
        let key = &record.key;
        let of_key = |field: &str| match field {
            "metadata.name" => Some(key.name.as_str()),
            "metadata.namespace" => Some(key.namespace.as_str()),
            _ => None,
        };
        if self.by_key {
            return self.fields.matches(of_key);
        }
        let Ok(object) = super::target::parse(resource, &record.bytes) else { return false };
        let pairs = resource.selectable(&object);
        self.fields.matches(|field| {
            of_key(field).or_else(|| pairs.iter().find(|(name, _)| name == field).map(|(_, v)| v.as_str()))
        })
    }
}

/// Just the labels of an object.
#[derive(Deserialize)]
struct Light<'a> {
    #[serde(borrow)]
    metadata: LightMeta<'a>,
}

#[derive(Deserialize)]
struct LightMeta<'a> {
    #[serde(borrow, default)]
    labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}
