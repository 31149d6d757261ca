//! Pruning, defaulting and validation of custom resources as tables of cases.

use serde_json::{Value, json};

use super::structural::Structural;
use super::{definition, prune, shape, validate};

fn schema(properties: Value) -> Structural {
    Structural::read(&json!({"type": "object", "properties": properties}))
}

#[test]
fn prunes_what_the_schema_does_not_know() {
    let cases = [
        (
            json!({"a": {"type": "string"}}),
            json!({"a": "x", "b": 1}),
            json!({"a": "x"}),
            vec!["b"],
        ),
        (
            json!({"a": {"type": "object", "properties": {"x": {"type": "integer"}}}}),
            json!({"a": {"x": 1, "y": 2}}),
            json!({"a": {"x": 1}}),
            vec!["a.y"],
        ),
        (
            json!({"a": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"x": {"type": "object"}}}}),
            json!({"a": {"x": {"no": 1}, "y": {"any": 2}}}),
            json!({"a": {"x": {}, "y": {"any": 2}}}),
            vec!["a.x.no"],
        ),
        (
            json!({"a": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string"}}}}}),
            json!({"a": [{"x": "1"}, {"y": "2"}]}),
            json!({"a": [{"x": "1"}, {}]}),
            vec!["a[1].y"],
        ),
        (
            json!({"a": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "string"}}}}}),
            json!({"a": {"k": {"x": "1", "y": 2}}}),
            json!({"a": {"k": {"x": "1"}}}),
            vec!["a.k.y"],
        ),
        (
            json!({"a": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}}}),
            json!({"a": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "n", "nope": 1}, "spec": {}, "other": 1}}),
            json!({"a": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "spec": {}}}),
            vec!["a.metadata.nope", "a.other"],
        ),
    ];
    for (properties, mut object, expect, unknown) in cases {
        let mut found = prune::prune(&mut object, &schema(properties.clone()), true);
        found.sort();
        assert_eq!(
            (object, found),
            (expect, unknown.into_iter().map(str::to_owned).collect()),
            "{properties}"
        );
    }
}

#[test]
fn fills_in_defaults() {
    let cases = [
        (
            json!({"a": {"type": "string", "default": "x"}}),
            json!({}),
            json!({"a": "x"}),
        ),
        (
            json!({"a": {"type": "string", "default": "x"}}),
            json!({"a": null}),
            json!({"a": "x"}),
        ),
        (
            json!({"a": {"type": "string", "default": "x", "nullable": true}}),
            json!({"a": null}),
            json!({"a": null}),
        ),
        (
            json!({"a": {"type": "object", "default": {}, "properties": {"b": {"type": "integer", "default": 5}}}}),
            json!({}),
            json!({"a": {"b": 5}}),
        ),
        (
            json!({"a": {"type": "object", "properties": {"b": {"type": "integer", "default": 5}}}}),
            json!({}),
            json!({}),
        ),
        (
            json!({"a": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "integer", "default": 5}}}}}),
            json!({"a": [{}, {"b": 1}]}),
            json!({"a": [{"b": 5}, {"b": 1}]}),
        ),
        (
            json!({"a": {"type": "object", "additionalProperties": {"type": "string", "default": "d"}}}),
            json!({"a": {"k": null}}),
            json!({"a": {"k": "d"}}),
        ),
    ];
    for (properties, mut object, expect) in cases {
        prune::default(&mut object, &schema(properties.clone()));
        assert_eq!(object, expect, "{properties}");
    }
}

#[test]
fn judges_values_like_kubernetes() {
    let cases = [
        (
            json!({"type": "integer"}),
            json!("x"),
            "a: Invalid value: \"string\": a in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "integer"}),
            json!(1.5),
            "a: Invalid value: \"number\": a in body must be of type integer: \"number\"",
        ),
        (json!({"type": "integer"}), json!(2.0), ""),
        (json!({"type": "number"}), json!(2), ""),
        (
            json!({"type": "string"}),
            json!(null),
            "a: Invalid value: \"null\": a in body must be of type string: \"null\"",
        ),
        (json!({"type": "string", "nullable": true}), json!(null), ""),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!([]),
            "a: Invalid value: \"array\": a in body must be of type integer,string: \"array\"",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!("80%"),
            "",
        ),
        (
            json!({"type": "integer", "minimum": 1, "maximum": 10}),
            json!(15),
            "a: Invalid value: 15: a in body should be less than or equal to 10",
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "a: Invalid value: 0: a in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "number", "minimum": 1, "exclusiveMinimum": true}),
            json!(1),
            "a: Invalid value: 1: a in body should be greater than 1",
        ),
        (
            json!({"type": "integer", "multipleOf": 3}),
            json!(4),
            "a: Invalid value: 4: a in body should be a multiple of 3",
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            "a: Invalid value: \"b\": a in body should match '^a+$'",
        ),
        (
            json!({"type": "string", "maxLength": 2}),
            json!("äöü"),
            "a: Too long: may not be more than 2 bytes",
        ),
        (json!({"type": "string", "maxLength": 3}), json!("äöü"), ""),
        (
            json!({"type": "string", "minLength": 2}),
            json!("x"),
            "a: Invalid value: \"x\": a in body should be at least 2 chars long",
        ),
        (
            json!({"type": "string", "enum": ["x", "y"]}),
            json!("z"),
            "a: Unsupported value: \"z\": supported values: \"x\", \"y\"",
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("nope"),
            "a: Invalid value: \"nope\": a in body must be of type ipv4: \"nope\"",
        ),
        (
            json!({"type": "array", "maxItems": 1, "items": {"type": "string"}}),
            json!(["x", "y"]),
            "a: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "object", "required": ["n"], "properties": {"n": {"type": "string"}}}}),
            json!([{}]),
            "a[0].n: Required value",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"k": "v"}),
            "a.k: Invalid value: \"string\": a.k in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "string", "anyOf": [{"pattern": "^x"}, {"pattern": "^y"}]}),
            json!("z"),
            "<nil>: Invalid value: \"\": \"a\" must validate at least one schema (anyOf) | \
             a: Invalid value: \"z\": a in body should match '^x'",
        ),
        (
            json!({"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "string"}},
                "oneOf": [{"required": ["x"]}, {"required": ["y"]}]}),
            json!({"x": "1", "y": "2"}),
            "<nil>: Invalid value: \"\": \"a\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
        (
            json!({"type": "string", "not": {"enum": ["x"]}}),
            json!("x"),
            "<nil>: Invalid value: \"\": \"a\" must not validate the schema (not)",
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
            json!({"kind": "X"}),
            "a.apiVersion: Required value: must not be empty",
        ),
    ];
    for (property, value, expect) in cases {
        let errors = validate::validate(
            &schema(json!({"a": property})),
            &json!({"a": value}),
            None,
            "",
        );
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(text.join(" | "), expect, "{property} {value}");
    }
}

#[test]
fn what_did_not_change_is_not_judged_again() {
    let schema = schema(json!({
        "a": {"type": "string", "maxLength": 1},
        "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
            "items": {"type": "object", "properties": {"n": {"type": "string"}, "v": {"type": "integer", "maximum": 1}}}},
        "l": {"type": "array", "items": {"type": "integer", "maximum": 1}},
    }));
    let old = json!({"a": "long", "m": [{"n": "x", "v": 9}], "l": [9]});
    let cases = [
        (
            json!({"a": "long", "m": [{"n": "y", "v": 1}, {"n": "x", "v": 9}], "l": [9]}),
            0,
        ),
        (
            json!({"a": "longer", "m": [{"n": "x", "v": 8}], "l": [9, 1]}),
            3,
        ),
    ];
    for (new, expect) in cases {
        assert_eq!(
            validate::validate(&schema, &new, Some(&old), "").len(),
            expect,
            "{new}"
        );
    }
}

#[test]
fn finds_equal_entries_of_sets_and_maps() {
    let schema = schema(json!({
        "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
            "items": {"type": "object", "properties": {"n": {"type": "string"}}}},
    }));
    let object = json!({"s": ["a", "b", "a"], "m": [{"n": "x"}, {"n": "x", "v": 1}]});
    let errors: Vec<String> = validate::duplicates(&schema, &object, "")
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        errors,
        [
            "m[1]: Duplicate value: {\"n\":\"x\"}",
            "s[2]: Duplicate value: \"a\""
        ]
    );
}

#[test]
fn schemas_must_be_structural() {
    let cases = [
        (
            json!({"properties": {}}),
            "s.type: Required value: must not be empty at the root",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            "s.type: Invalid value: \"array\": must be object at the root",
        ),
        (
            json!({"type": "object", "properties": {"a": {"description": "x"}}}),
            "s.properties[a].type: Required value: must not be empty for specified object fields",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array"}}}),
            "s.properties[a].items: Required value: must be specified",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "items": {}}}}),
            "s.properties[a].items.type: Required value: must not be empty for specified array items",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "strin"}}}),
            "s.properties[a].type: Unsupported value: \"strin\": supported values: \"array\", \"boolean\", \"integer\", \
             \"number\", \"object\", \"string\"",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
            "must be a valid regular expression, but isn't",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}},
                "additionalProperties": {"type": "string"}}}}),
            "s.properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object",
                "properties": {"labels": {"type": "object"}}}}}),
            "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is \
             implicitly specified",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "default": 5}}}),
            "s.properties[a].default: Invalid value: \"integer\"",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "default": {"x": 1},
                "properties": {"b": {"type": "string"}}}}}),
            "s.properties[a].default: Invalid value: {\"x\":1}: must not have unknown fields",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map",
                "items": {"type": "object"}}}}),
            "s.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "anyOf": [{"type": "string"}]}}}),
            "s.properties[a].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
            "s.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
    ];
    for (schema, expect) in cases {
        let errors: Vec<String> = shape::check(&schema, "s")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(
            errors.iter().any(|error| error.contains(expect)),
            "{schema}: {errors:?}"
        );
    }
    let fine = json!({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}]}}});
    assert_eq!(shape::check(&fine, "s"), []);
}

#[test]
fn a_deep_schema_is_refused() {
    let mut deep = json!({"type": "object"});
    for _ in 0..90 {
        deep = json!({"type": "object", "properties": {"a": deep}});
    }
    let errors = shape::check(&deep, "s");
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].to_string().contains("too deep or too large"),
        "{errors:?}"
    );
}

fn crd(change: impl FnOnce(&mut Value)) -> Value {
    let mut crd = json!({"metadata": {"name": "crontabs.stable.example.com"}, "spec": {
        "group": "stable.example.com", "scope": "Namespaced",
        "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList", "shortNames":
         ["ct"]},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": {
                "replicas": {"type": "integer"}, "color": {"type": "string"}}},
                "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}}}]}});
    change(&mut crd);
    crd
}

#[test]
fn definitions_are_judged_like_upstream() {
    type Change = fn(&mut Value);
    let cases: &[(Change, &str)] = &[
        (|_| {}, ""),
        (
            |c| c["metadata"]["name"] = json!("x"),
            "metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            |c| c["spec"]["scope"] = json!("cluster"),
            "spec.scope: Unsupported value: \"cluster\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (
            |c| c["spec"]["versions"][0]["storage"] = json!(false),
            "must have exactly one version marked as storage version",
        ),
        (
            |c| c["spec"]["versions"][0]["schema"] = json!(null),
            "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
        ),
        (
            |c| c["spec"]["versions"][0]["subresources"] = json!({"scale": {"specReplicasPath": ".status.replicas",
                "statusReplicasPath": ".status.replicas"}}),
            "spec.versions[0].subresources.scale.specReplicasPath: Invalid value: \".status.replicas\": should be a json path \
             under .spec",
        ),
        (
            |c| c["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.nope"}]),
            "spec.versions[0].selectableFields[0].jsonPath: Invalid value: \".spec.nope\": is an invalid path: does not refer \
             to a valid field",
        ),
        (
            |c| {
                c["spec"]["versions"][0]["additionalPrinterColumns"] =
                    json!([{"name": "x", "type": "text", "jsonPath": ".spec.x"}])
            },
            "spec.versions[0].additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of \
             boolean,date,integer,number,string",
        ),
        (
            |c| c["spec"]["conversion"] = json!({"strategy": "Webhook"}),
            "spec.conversion.webhook.clientConfig: Required value: required when strategy is set to Webhook",
        ),
        (
            |c| {
                c["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
                "clientConfig": {"url": "http://a.b/c?d"}, "conversionReviewVersions": ["v1"]}});
            },
            "'https' is the only allowed URL scheme; desired format: https://host[/path]",
        ),
        (
            |c| {
                c["spec"]["group"] = json!("x.k8s.io");
                c["metadata"]["name"] = json!("crontabs.x.k8s.io");
            },
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation",
        ),
    ];
    for (change, expect) in cases {
        let crd = crd(change);
        let errors: Vec<String> = definition::validate(&crd, None)
            .iter()
            .map(ToString::to_string)
            .collect();
        let fits = if expect.is_empty() {
            errors.is_empty()
        } else {
            errors.iter().any(|e| e.contains(expect))
        };
        assert!(fits, "{expect}: {errors:?}");
    }
    let mut old = crd(|_| {});
    old["status"] = json!({"conditions": [{"type": "Established", "status": "True"}], "storedVersions": ["v1"]});
    let mut new = old.clone();
    new["spec"]["scope"] = json!("Cluster");
    new["spec"]["versions"][0]["name"] = json!("v2");
    let errors: Vec<String> = definition::validate(&new, Some(&old))
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(errors[0].ends_with("field is immutable"), "{errors:?}");
    assert!(
        errors[1].starts_with(
            "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions"
        ),
        "{errors:?}"
    );
}
