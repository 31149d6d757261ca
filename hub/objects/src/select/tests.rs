//! Cases of selectors: what matches, what is refused and in which words.

use super::*;
use serde_json::json;

fn labels(pairs: &[(&str, &str)]) -> Value {
    let map: Map<String, Value> = pairs.iter().map(|(k, v)| (k.to_string(), json!(v))).collect();
    json!({"metadata": {"labels": map}})
}

#[test]
fn label_selectors_match() {
    let web = labels(&[("app", "web"), ("tier", "front"), ("size", "5"), ("empty", "")]);
    let cases = [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app = web", true),
        ("app=db", false),
        ("app!=db", true),
        ("app!=web", false),
        ("none!=x", true),
        ("app", true),
        ("none", false),
        ("!none", true),
        ("!app", false),
        ("! app", false),
        ("app in (web,db)", true),
        ("app in(db)", false),
        ("app notin (db, x)", true),
        ("app notin (web)", false),
        ("none notin (a)", true),
        ("none in (a)", false),
        ("size>4", true),
        ("size>5", false),
        ("size < 6", true),
        ("app>1", false),
        ("app=web,tier=front", true),
        ("app=web,tier=back", false),
        ("empty=", true),
        ("app=", false),
        ("empty in (,a)", true),
        ("app,tier", true),
        ("empty=,app", true),
        ("app in (in,web)", true),
        ("app!=in", true),
        ("a.b/c!=x", true),
        (" ", true),
        ("app in (,)", false),
        ("app in (a,,web)", true),
    ];
    for (text, expected) in cases {
        let selector = LabelSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(selector.matches(&web), expected, "{text}");
    }
    assert!(!LabelSelector::nothing().matches(&web));
    assert!(LabelSelector::parse("app").unwrap().matches_with(|k| (k == "app").then_some("x")));
}

#[test]
fn label_selectors_are_refused_in_upstream_words() {
    let name = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and \
        end with an alphanumeric \
         character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let value = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
        '.', and must start and \
         end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
         validation is \
         '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
    let cases = [
        ("x=a||y=b".to_string(), format!("unable to parse requirement: values[0][x]: Invalid value: \
            \"a||y\": {value}")),
        ("x y".into(), "unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt".into()),
        ("=a".into(), "found '=', expected: !, identifier, or 'end of string'".into()),
        ("a,".into(), "found '', expected: identifier after ','".into()),
        ("!".into(), "unable to parse requirement: found '', expected: identifier".into()),
        ("a in b".into(), "unable to parse requirement: found 'b' expected: '('".into()),
        ("a in (b".into(), "unable to parse requirement: found '', expected: ',' or ')'".into()),
        ("a in ()".into(), "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' \
            operators, values set can't be empty".into()),
        ("a>b".into(), "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' \
            operators, the value must be an integer".into()),
        ("-a=b".into(), format!("unable to parse requirement: <nil>: Invalid value: \"-a\": {name}")),
        ("/a".into(), "unable to parse requirement: <nil>: Invalid value: \"/a\": prefix part must be \
            non-empty".into()),
        ("a=b c".into(), "found 'c', expected: ',' or 'end of string'".into()),
        ("a=(".into(), "unable to parse requirement: found '(', expected: identifier".into()),
        ("x".repeat(64), "unable to parse requirement: <nil>: Invalid value: \
            \"".to_string() + &"x".repeat(64) + "\": name part must be no more than 63 characters"),
    ];
    for (text, words) in cases {
        assert_eq!(LabelSelector::parse(&text), Err(SelectorError(words)), "{text}");
    }
    assert!(LabelSelector::parse(&"a,".repeat(100_000)).is_err());
}

#[test]
fn label_selector_objects() {
    let web = labels(&[("app", "web")]);
    let cases = [
        (json!({}), true),
        (Value::Null, false),
        (json!({"matchLabels":{"app":"web"}}), true),
        (json!({"matchLabels":{"app":"db"}}), false),
        (json!({"matchExpressions":[{"key":"app","operator":"In","values":["web"]}]}), true),
        (json!({"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]}), false),
        (
            json!({"matchExpressions":[{"key":"app","operator":"Exists"},{"key":"b",
                "operator":"DoesNotExist"}]}),
            true,
        ),
    ];
    for (object, expected) in cases {
        assert_eq!(LabelSelector::from_object(&object).unwrap().matches(&web), expected, "{object}");
    }
    let error =
        LabelSelector::from_object(&json!({"matchExpressions":[{"key":"a","operator":"Foo"}]})).unwrap_err();
    assert_eq!(error.0, "\"Foo\" is not a valid label selector operator");
    assert!(LabelSelector::from_object(&json!({"matchExpressions":[{"key":"a","operator":"In"}]})).is_err());
    let map = json!({"app":"web"});
    assert!(LabelSelector::from_labels(map.as_object().unwrap()).matches(&web));
}

#[test]
fn field_selectors() {
    let fields = [
        ("metadata.name", "web".to_string()),
        ("status.phase", "Running".to_string()),
        ("x", "a,b=c".to_string()),
    ];
    let cases = [
        ("", true),
        ("metadata.name=web", true),
        ("metadata.name==web", true),
        ("metadata.name!=web", false),
        ("metadata.name=web,status.phase!=Running", false),
        ("status.phase=Running,", true),
        ("spec.nodeName=", true),
        ("spec.nodeName!=", false),
        (r"x=a\,b\=c", true),
    ];
    for (text, expected) in cases {
        assert_eq!(FieldSelector::parse(text).unwrap().matches_pairs(&fields), expected, "{text}");
    }
    assert_eq!(FieldSelector::parse("foo").unwrap_err().0, "invalid selector: 'foo'; can't understand 'foo'");
    assert!(FieldSelector::parse(r"a=\x").is_err());
    let selector = FieldSelector::parse("metadata.name=web,spec.foo=1").unwrap();
    assert_eq!(selector.exact("metadata.name"), Some("web"));
    assert_eq!(
        selector.unsupported(&["metadata.name"]).as_deref(),
        Some("field label not supported: spec.foo")
    );
}
