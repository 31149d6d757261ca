//! Custom resources for patches and server-side apply: the structural schema in the terms of the schema table.
//!
//! In: a structural schema. Out: a `Schema` that refers to the table's ObjectMeta. Never: judges values.

use super::structural::{Additional, Kind, Structural};
use crate::schema::{self, Object, Property, Schema, Type};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The schema of a whole object.
pub fn root(structural: &Structural) -> Schema {
    resource(structural)
}

/// An object with apiVersion, kind and metadata of its own.
fn resource(structural: &Structural) -> Schema {
    let mut schema = node(structural);
    let text = |name: &str| Property {
        name: name.into(),
        schema: of(Type::String),
    };
    let metadata = schema::table().id(OBJECT_META).map_or(Type::Any, Type::Ref);
    let fixed = [
        text("apiVersion"),
        text("kind"),
        Property {
            name: "metadata".into(),
            schema: of(metadata),
        },
    ];
    if let Type::Object(object) = &mut schema.kind {
        let mut all: Vec<Property> = std::mem::take(&mut object.properties).into();
        all.retain(|property| !matches!(&*property.name, "apiVersion" | "kind" | "metadata"));
        all.extend(fixed);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        object.properties = all.into();
    }
    schema
}

fn of(kind: Type) -> Schema {
    Schema {
        kind,
        ..Schema::default()
    }
}

fn place(structural: &Structural) -> Schema {
    if structural.embedded {
        resource(structural)
    } else {
        node(structural)
    }
}

fn node(structural: &Structural) -> Schema {
    let kind = match structural.kind {
        _ if structural.int_or_string => Type::IntOrString,
        Kind::Object => object(structural),
        Kind::Array => Type::List(Box::new(
            structural
                .items
                .as_deref()
                .map_or_else(|| of(Type::Deduced), place),
        )),
        Kind::String => Type::String,
        Kind::Integer => Type::Int64,
        Kind::Number => Type::Number,
        Kind::Boolean => Type::Boolean,
        Kind::None | Kind::Unknown => Type::Deduced,
    };
    Schema {
        kind,
        list_type: structural.list_type,
        list_keys: structural
            .list_keys
            .iter()
            .map(|key| Box::from(key.as_str()))
            .collect(),
        map_type: structural.map_type,
        default: structural.default.clone().map(Box::new),
        ..Schema::default()
    }
}

fn object(structural: &Structural) -> Type {
    match &structural.additional {
        Additional::Schema(values) => return Type::Map(Box::new(place(values))),
        Additional::Any => return Type::Map(Box::new(of(Type::Deduced))),
        Additional::None | Additional::Forbidden => {}
    }
    let property = |(name, schema): (&String, &Structural)| Property {
        name: name.as_str().into(),
        schema: place(schema),
    };
    Type::Object(Box::new(Object {
        properties: structural.properties.iter().map(property).collect(),
        required: structural
            .required
            .iter()
            .map(|name| Box::from(name.as_str()))
            .collect(),
        always: Box::default(),
        open: structural.preserve_unknown,
    }))
}
