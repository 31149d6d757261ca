//! OpenAPI version 2 as protobuf: gnostic's `openapi.v2.Document`, which client-go insists on.
//!
//! In: path items and definitions in the JSON form of version 2. Out: the message's bytes.
//! Never: reads protobuf. Field numbers are those of gnostic's OpenAPIv2.proto.

use serde_json::Value;

/// Writes protobuf fields; zero values are left out as proto3 does.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn value_text(&mut self, field: u32, value: &Value) {
        self.text(field, value.as_str().unwrap_or_default());
    }

    fn flag(&mut self, field: u32, value: &Value) {
        if value == true {
            self.varint(u64::from(field) << 3);
            self.varint(1);
        }
    }

    fn message(&mut self, field: u32, message: Message) {
        self.bytes(field, &message.0);
    }

    fn texts(&mut self, field: u32, values: &Value) {
        for value in values.as_array().into_iter().flatten() {
            self.bytes(field, value.as_str().unwrap_or_default().as_bytes());
        }
    }
}

/// The whole document; paths and definitions are taken one at a time.
pub fn document(
    title: &str,
    version: &str,
    paths: impl Iterator<Item = (String, Value)>,
    definitions: impl Iterator<Item = (String, Value)>,
) -> Vec<u8> {
    let mut info = Message::default();
    info.text(1, title);
    info.text(2, version);
    let mut all_paths = Message::default();
    for (name, item) in paths {
        all_paths.message(2, named(&name, path_item(&item)));
    }
    let mut all_definitions = Message::default();
    for (name, definition) in definitions {
        all_definitions.message(1, named(&name, schema(&definition)));
    }
    let mut document = Message::default();
    document.text(1, "2.0");
    document.message(2, info);
    document.message(8, all_paths);
    document.message(9, all_definitions);
    document.0
}

/// `NamedSchema`, `NamedPathItem`, `NamedResponseValue`, `NamedAny`: name 1, value 2.
fn named(name: &str, value: Message) -> Message {
    let mut out = Message::default();
    out.text(1, name);
    out.message(2, value);
    out
}

/// `Any` with its YAML text; JSON is YAML.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(2, &value.to_string());
    out
}

fn extensions(out: &mut Message, field: u32, value: &Value) {
    for (name, extension) in
        value.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-"))
    {
        out.message(field, named(name, any(extension)));
    }
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    out.value_text(1, &value["$ref"]);
    out.value_text(2, &value["format"]);
    out.value_text(4, &value["description"]);
    if !value["default"].is_null() {
        out.message(5, any(&value["default"]));
    }
    out.texts(19, &value["required"]);
    for choice in value["enum"].as_array().into_iter().flatten() {
        out.message(20, any(choice));
    }
    if value["additionalProperties"].is_object() {
        let mut item = Message::default();
        item.message(1, schema(&value["additionalProperties"]));
        out.message(21, item);
    }
    if let Some(type_) = value["type"].as_str() {
        let mut item = Message::default();
        item.text(1, type_);
        out.message(22, item);
    }
    if value["items"].is_object() {
        let mut item = Message::default();
        item.message(1, schema(&value["items"]));
        out.message(23, item);
    }
    if let Some(properties) = value["properties"].as_object() {
        let mut all = Message::default();
        for (name, property) in properties {
            all.message(1, named(name, schema(property)));
        }
        out.message(25, all);
    }
    extensions(&mut out, 31, value);
    out
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (method, field) in [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)] {
        if item[method].is_object() {
            out.message(field, operation(&item[method]));
        }
    }
    parameters(&mut out, 9, &item["parameters"]);
    out
}

fn operation(value: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, &value["tags"]);
    out.value_text(3, &value["description"]);
    out.value_text(5, &value["operationId"]);
    out.texts(6, &value["produces"]);
    out.texts(7, &value["consumes"]);
    parameters(&mut out, 8, &value["parameters"]);
    let mut responses = Message::default();
    for (code, response) in value["responses"].as_object().into_iter().flatten() {
        responses.message(1, named(code, response_value(response)));
    }
    out.message(9, responses);
    extensions(&mut out, 13, value);
    out
}

fn response_value(response: &Value) -> Message {
    let mut inner = Message::default();
    inner.value_text(1, &response["description"]);
    if response["schema"].is_object() {
        let mut item = Message::default();
        item.message(1, schema(&response["schema"]));
        inner.message(2, item);
    }
    let mut out = Message::default();
    out.message(1, inner);
    out
}

fn parameters(out: &mut Message, field: u32, values: &Value) {
    for value in values.as_array().into_iter().flatten() {
        let mut parameter = Message::default();
        match value["in"].as_str() {
            Some("body") => parameter.message(1, body_parameter(value)),
            place => {
                let mut non_body = Message::default();
                let path = place == Some("path");
                non_body.message(if path { 4 } else { 3 }, simple_parameter(value, path));
                parameter.message(2, non_body);
            }
        }
        let mut item = Message::default();
        item.message(1, parameter);
        out.message(field, item);
    }
}

fn body_parameter(value: &Value) -> Message {
    let mut out = Message::default();
    out.value_text(1, &value["description"]);
    out.value_text(2, &value["name"]);
    out.value_text(3, &value["in"]);
    out.flag(4, &value["required"]);
    out.message(5, schema(&value["schema"]));
    out
}

/// `QueryParameterSubSchema` has one field (`allow_empty_value`) before the type that a path parameter
/// lacks.
fn simple_parameter(value: &Value, path: bool) -> Message {
    let mut out = Message::default();
    out.flag(1, &value["required"]);
    out.value_text(2, &value["in"]);
    out.value_text(3, &value["description"]);
    out.value_text(4, &value["name"]);
    out.value_text(if path { 5 } else { 6 }, &value["type"]);
    out
}
