//! Rules as tables of cases.

use serde_json::{Value, json};

use super::{compile, validate};
use crate::custom::structural::Structural;

/// What rules of a schema say: at its definition, or of an object that replaces another.
fn ruled(schema: Value, object: Value, old: Option<Value>) -> Vec<String> {
    let tree = Structural::read(&schema);
    let (rules, wrong) = compile(&schema, &tree, "s");
    if !wrong.is_empty() {
        return wrong.iter().map(ToString::to_string).collect();
    }
    validate(&rules, &tree, &object, old.as_ref())
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn rules_hold_for_objects() {
    let spec = |properties: Value, rules: Value| json!({"type": "object", "properties": {"spec": {"type": "object",
     "properties": properties, "x-kubernetes-validations": rules}}});
    let numbers = json!({"min": {"type": "integer"}, "max": {"type": "integer"}});
    let schema = spec(numbers.clone(), json!([{"rule": "self.min <= self.max"}]));
    assert_eq!(
        ruled(schema.clone(), json!({"spec": {"min": 1, "max": 2}}), None),
        Vec::<String>::new()
    );
    let failed = "spec: Invalid value: \"object\": failed rule: self.min <= self.max";
    assert_eq!(
        ruled(schema.clone(), json!({"spec": {"min": 3, "max": 2}}), None),
        [failed]
    );
    assert_eq!(
        ruled(schema, json!({"spec": {"min": 3}}), None),
        [
            "spec: Invalid value: \"object\": no such key: max evaluating rule: failed rule: self.min <= self.max"
        ]
    );
    let told = json!([{"rule": "self.min <= self.max", "messageExpression": "'%d is above %d'.format([self.min, self.max])",
        "message": "plain", "reason": "FieldValueForbidden", "fieldPath": ".min"}]);
    assert_eq!(
        ruled(
            spec(numbers, told),
            json!({"spec": {"min": 3, "max": 2}}),
            None
        ),
        ["spec.min: Forbidden: 3 is above 2"]
    );

    let fixed = spec(
        json!({"a": {"type": "string", "maxLength": 10, "x-kubernetes-validations": [
        {"rule": "self == oldSelf", "message": "a is immutable"}]}}),
        json!(null),
    );
    assert_eq!(
        ruled(fixed.clone(), json!({"spec": {"a": "x"}}), None),
        Vec::<String>::new()
    );
    let old = Some(json!({"spec": {"a": "x"}}));
    assert_eq!(
        ruled(fixed, json!({"spec": {"a": "y"}}), old.clone()),
        ["spec.a: Invalid value: \"y\": a is immutable"]
    );
    let optional = spec(
        json!({"a": {"type": "string", "maxLength": 10}}),
        json!([
        {"rule": "oldSelf.hasValue() || self.a == 'first'", "optionalOldSelf": true, "message": "begin with first"}]),
    );
    assert_eq!(
        ruled(optional.clone(), json!({"spec": {"a": "x"}}), None).len(),
        1
    );
    assert_eq!(
        ruled(optional, json!({"spec": {"a": "z"}}), old),
        Vec::<String>::new()
    );

    let escaped = spec(
        json!({"a-b": {"type": "integer"}, "in": {"type": "integer"}, "x.y": {"type": "integer"}}),
        json!([{"rule": "self.a__dash__b + self.__in__ == self.x__dot__y"}]),
    );
    assert_eq!(
        ruled(
            escaped,
            json!({"spec": {"a-b": 1, "in": 2, "x.y": 3}}),
            None
        ),
        Vec::<String>::new()
    );
    let root = json!({"type": "object", "properties": {}, "x-kubernetes-validations": [
        {"rule": "self.metadata.name.startsWith('a') && self.kind == 'K'"}]});
    let object = json!({"kind": "K", "metadata": {"name": "b"}});
    assert_eq!(ruled(root, object, None).len(), 1);
    let typed = spec(
        json!({"t": {"type": "string", "format": "date-time"}, "d": {"type": "string", "format": "duration"},
        "p": {"x-kubernetes-int-or-string": true}, "n": {"type": "number"}}),



                                                                                     json!([{"rule": "self.t.getFullYear() == 2026 && self.d > duration('1h') && (self.p == 5 || self.p == '5%') && self.n < 2.5"}]),
    );
    let object = json!({"spec": {"t": "2026-01-01T00:00:00Z", "d": "2h", "p": "5%", "n": 2}});
    assert_eq!(ruled(typed, object, None), Vec::<String>::new());
    let each = json!({"type": "object", "properties": {"l": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["n"], "items": {"type": "object", "properties": {"n": {"type": "string", "maxLength":
         5}, "v": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "only upwards"}]}}}});
    let old = json!({"l": [{"n": "a", "v": 5}, {"n": "b", "v": 5}]});
    let new = json!({"l": [{"n": "b", "v": 4}, {"n": "a", "v": 6}, {"n": "c", "v": 0}]});
    assert_eq!(
        ruled(each, new, Some(old)),
        ["l[0]: Invalid value: \"object\": only upwards"]
    );
}

#[test]
fn rules_are_judged_with_their_definition() {
    let list = |max: Value, rule: &str| {
        json!({"type": "object", "properties": {"l": {"type": "array", "maxItems": max,
            "items": {"type": "string", "maxLength": 10}, "x-kubernetes-validations": [{"rule": rule}]}}})
    };
    let cases = [
        (list(json!(10), "self.all(x, self.exists(y, y == x))"), ""),
        (
            list(json!(null), "self.all(x, self.exists(y, y == x))"),
            "s.properties[l].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more \
             than 100x",
        ),
        (
            list(json!(10), "self.size()"),
            "cel expression must evaluate to a bool",
        ),
        (
            list(json!(10), "self.nope() == 1"),
            "compilation failed: ERROR: <input>:1:5: undeclared reference to 'nope' (in container '')",
        ),
        (
            list(json!(10), " "),
            "s.properties[l].x-kubernetes-validations[0].rule: Required value: rule is not specified",
        ),
        (
            json!({"type": "object", "properties": {"l": {"type": "array", "maxItems": 2, "items": {"type": "object",
                "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": [{"rule": "self.a == oldSelf.a"}]}}}}),
            "oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[l]",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": [
                {"rule": "self.a == 1", "reason": "Because", "fieldPath": ".b"}]}),
            "s.x-kubernetes-validations[0].fieldPath: Invalid value: \".b\": fieldPath must be a valid path",
        ),
    ];
    for (schema, expect) in cases {
        let found = ruled(schema.clone(), json!({}), None);
        let fits = if expect.is_empty() {
            found.is_empty()
        } else {
            found.iter().any(|error| error.contains(expect))
        };
        assert!(fits, "{schema}: {found:?}");
    }
}
