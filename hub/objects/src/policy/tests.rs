//! Matching and policies as tables of cases.

use limpet_cel::Value as Cel;
use serde_json::{Value, json};

use super::{Attributes, Given, Runner, compile, matching, typecheck};
use crate::registry::registry;

fn attributes<'a>(
    plural: (&str, &str, &str),
    operation: &'a str,
    object: &'a Value,
    namespace: &'a Value,
) -> Attributes<'a> {
    let resource = registry().by_path(plural.0, plural.1, plural.2).unwrap();
    Attributes {
        operation,
        resource,
        subresource: "",
        namespace: "default",
        name: "x",
        object,
        old: &Value::Null,
        namespace_object: namespace,
    }
}

#[test]
fn rules_meet_requests() {
    let object = json!({"metadata": {"labels": {"a": "b"}}});
    let namespace = json!({"metadata": {"labels": {"env": "prod"}}});
    let deployment = ("apps", "v1", "deployments");
    let rule = |more: Value| {
        let mut rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["deployments"]});
        for (name, value) in more.as_object().unwrap() {
            rule[name] = value.clone();
        }
        json!({"resourceRules": [rule]})
    };
    let mut excluded = rule(json!({}));
    excluded["excludeResourceRules"] = excluded["resourceRules"].clone();
    let mut selected = rule(json!({}));
    selected["namespaceSelector"] = json!({"matchLabels": {"env": "test"}});
    let mut labelled = rule(json!({}));
    labelled["objectSelector"] = json!({"matchLabels": {"a": "b"}});
    let cases = [
        (rule(json!({})), true),
        (rule(json!({"operations": ["UPDATE"]})), false),
        (
            rule(json!({"operations": ["*"], "apiGroups": ["*"], "resources": ["*"]})),
            true,
        ),
        (rule(json!({"resources": ["deployments/scale"]})), false),
        (rule(json!({"resources": ["*/*"]})), true),
        (rule(json!({"scope": "Cluster"})), false),
        (rule(json!({"scope": "Namespaced"})), true),
        (rule(json!({"resourceNames": ["y"]})), false),
        (rule(json!({"apiVersions": ["v1beta1"]})), false),
        (excluded, false),
        (selected, false),
        (labelled, true),
        (json!({}), false),
    ];
    for (constraints, expect) in cases {
        let request = attributes(deployment, "CREATE", &object, &namespace);
        let met = matching::constraints(&constraints, &request, registry(), true).is_some();
        assert_eq!(met, expect, "{constraints}");
    }
    // Another version of the same objects meets unless matchPolicy is Exact.
    let scalers = rule(
        json!({"apiGroups": ["autoscaling"], "apiVersions": ["v2"], "resources": ["horizontalpodautoscalers"]}),
    );
    let request = attributes(
        ("autoscaling", "v1", "horizontalpodautoscalers"),
        "CREATE",
        &object,
        &namespace,
    );
    assert_eq!(
        matching::constraints(&scalers, &request, registry(), true)
            .unwrap()
            .version,
        "v2"
    );
    let mut exact = scalers;
    exact["matchPolicy"] = json!("Exact");
    assert!(matching::constraints(&exact, &request, registry(), true).is_none());
}

fn given(object: Value, params: Value) -> Given {
    Given {
        object: Cel::from_json(&object),
        old: Cel::Null,
        request: Cel::from_json(&json!({"operation": "CREATE", "name": "x"})),
        namespace: Cel::Null,
        params: Cel::from_json(&params),
        authorizer: None,
    }
}

#[test]
fn validations_deny_with_their_words() {
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [{"name": "max", "expression": "int(params.data.max)"}, {"name": "twice", "expression": "variables.max * 2"},
            {"name": "broken", "expression": "1 / 0"}],
        "matchConditions": [{"name": "not-exempt", "expression": "object.spec.replicas != 99"}],
        "validations": [
            {"expression": "object.spec.replicas <= variables.twice", "messageExpression": "'at most \
             %d'.format([variables.twice])"},
            {"expression": "object.spec.replicas > 0 || variables.broken == 1", "message": "none", "reason": "Forbidden"}]});
    let (policy, errors) = compile::policy(&json!({"metadata": {"name": "p"}, "spec": spec}), false);
    assert_eq!(errors, []);
    let run = |replicas: i64| {
        let given = given(
            json!({"spec": {"replicas": replicas}}),
            json!({"data": {"max": "3"}}),
        );
        let runner = Runner::new(&policy, given);
        let denials = runner
            .validate()
            .into_iter()
            .map(|denial| denial.map(|d| (d.message, d.reason)));
        (runner.matches(), denials.collect::<Vec<_>>())
    };
    assert_eq!(run(5), (Ok(true), vec![]));
    assert_eq!(
        run(7),
        (Ok(true), vec![Ok(("at most 6".to_owned(), "Invalid".to_owned()))])
    );
    let error =
        "expression 'object.spec.replicas > 0 || variables.broken == 1' resulted in error: division by zero";
    assert_eq!(run(0), (Ok(true), vec![Err(error.to_owned())]));
    assert_eq!(run(99).0, Ok(false));
}

#[test]
fn expressions_are_judged_with_their_policy() {
    let cases = [
        (json!({"validations": [{"expression": "object.x > 1"}]}), ""),
        (
            json!({"validations": [{"expression": "1 + 1"}]}),
            "spec.validations[0].expression: Invalid value: \"1 + 1\": must evaluate to bool",
        ),
        (
            json!({"validations": [{"expression": "nope"}]}),
            "compilation failed: ERROR: <input>:1:1: undeclared reference to 'nope'",
        ),
        (
            json!({"validations": [{"expression": "params.x"}]}),
            "undeclared reference to 'params'",
        ),
        (
            json!({"validations": [{"expression": "request.nope"}]}),
            "undefined field 'nope'",
        ),
        (
            json!({"validations": [{"expression": "variables.a == 1"}]}),
            "undefined field 'a'",
        ),
        (
            json!({"validations": [{"expression": ""}]}),
            "spec.validations[0].expression: Required value: expression is not specified",
        ),
        (
            json!({"validations": [{"expression": "authorizer.group('').resource('pods').check('get').allowed()"}]}),
            "",
        ),
        (
            json!({"matchConditions": [{"name": "a", "expression": "'x'"}]}),
            "spec.matchConditions[0].expression: Invalid value: \"'x'\": must evaluate to bool",
        ),
    ];
    for (spec, expect) in cases {
        let (_, errors) = compile::policy(&json!({"spec": spec}), false);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let fits = if expect.is_empty() {
            errors.is_empty()
        } else {
            errors.iter().any(|error| error.contains(expect))
        };
        assert!(fits, "{spec}: {errors:?}");
    }
}

#[test]
fn mutations_apply_and_patch() {
    let deployments = registry().by_path("apps", "v1", "deployments").unwrap();
    let spec = json!({"mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{labels: {'team': 'a'}}, spec: Object.spec{replicas: object.spec.replicas + 1}}"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('a/b'), value: 'c'}]"}},
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{nope: 1}}"}}]});
    let (policy, errors) = compile::policy(&json!({"metadata": {"name": "p"}, "spec": spec}), true);
    assert_eq!(errors, []);
    let object = json!({"metadata": {"labels": {"x": "y"}, "annotations": {}}, "spec": {"replicas": 1}});
    let runner = Runner::new(&policy, given(object.clone(), Value::Null));
    let first = runner.mutate(0, &object, deployments.place()).unwrap();
    assert_eq!(
        first,
        json!({"metadata": {"labels": {"x": "y", "team": "a"}, "annotations": {}}, "spec": {"replicas": 2}})
    );
    let second = runner.mutate(1, &first, deployments.place()).unwrap();
    assert_eq!(second["metadata"]["annotations"], json!({"a/b": "c"}));
    let why = runner.mutate(2, &object, deployments.place()).unwrap_err();
    assert!(why.contains(".spec.nope: field not declared in schema"), "{why}");
}

#[test]
fn a_policy_is_told_where_its_expressions_do_not_fit() {
    let policy = |expression: &str| {
        json!({"metadata": {"name": "p", "generation": 3}, "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"],
                "resources": ["deployments", "replicasets"]}]},
            "validations": [{"expression": expression}]}})
    };
    let status = typecheck::status(
        &policy("object.spec.replicas > 1 && has(object.spec.template.spec.hostNetwork)"),
        registry(),
    );
    assert_eq!(status, json!({"observedGeneration": 3, "typeChecking": {}}));
    let status = typecheck::status(
        &policy("object.spec.strategy.type == 'Recreate' && object.metadata.nope == 1"),
        registry(),
    );
    let warning = &status["typeChecking"]["expressionWarnings"][0];
    assert_eq!(warning["fieldRef"], "spec.validations[0].expression");
    let text = warning["warning"].as_str().unwrap();
    assert!(
        text.contains("apps/v1, Kind=Deployment: ERROR: <input>:1:59: undefined field 'nope'"),
        "{text}"
    );
    assert!(
        text.contains("apps/v1, Kind=ReplicaSet: ERROR: <input>:1:12: undefined field 'strategy'"),
        "{text}"
    );
}
