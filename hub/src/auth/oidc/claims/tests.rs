//! What claims make of a user. In: an issuer's rules, claims. Out: users, or why not. Never: a signature.

use super::super::config::{Configuration, Jwt};
use super::*;

fn jwt(mappings: Value, more: Value) -> Value {
    let mut jwt = json!({"issuer": {"url": "https://x", "audiences": ["us"]}, "claimMappings": mappings});
    for (field, value) in more.as_object().into_iter().flatten() {
        jwt[field] = value.clone();
    }
    jwt
}

fn rules(jwt: Value) -> Result<Rules, String> {
    serde_json::from_value::<Jwt>(jwt).map_err(|why| why.to_string())?.rules()
}

fn claims(more: Value) -> Value {
    let mut claims = json!({"aud": ["us", "them"], "exp": 1000, "sub": "ann", "team": "ops"});
    for (field, value) in more.as_object().into_iter().flatten() {
        claims[field] = value.clone();
    }
    claims
}

#[test]
fn claims_become_users() {
    let plain = json!({"username": {"claim": "sub", "prefix": "x:"}, "groups": {"claim": "groups", "prefix": "g:"}});
    let rich = json!({
        "username": {"expression": "'x:' + claims.sub"}, "groups": {"expression": "[claims.team, 'all']"},
        "uid": {"claim": "id"},
        "extra": [{"key": "shop.example/team", "valueExpression": "claims.team"}],
    });
    let none = json!({});
    for (mappings, more, own, expect) in [
        (&plain, &none, json!({}), Ok(("x:ann", vec!["system:authenticated"]))),
        (&plain, &none, json!({"groups": "a"}), Ok(("x:ann", vec!["g:a", "system:authenticated"]))),
        (&plain, &none, json!({"groups": ["a", "b"]}), Ok(("x:ann", vec!["g:a", "g:b", "system:authenticated"]))),
        (&plain, &none, json!({"groups": [5]}), Err("neither a string nor a list")),
        (&plain, &none, json!({"aud": "them"}), Err("expected audience")),
        (&plain, &none, json!({"exp": 500}), Err("expired")),
        (&plain, &none, json!({"exp": null}), Err("no end")),
        (&plain, &none, json!({"nbf": 5000}), Err("not valid before")),
        (&plain, &none, json!({"sub": null}), Err("claim not present")),
        (&rich, &none, json!({"id": "7"}), Ok(("x:ann", vec!["ops", "all", "system:authenticated"]))),
        (&rich, &none, json!({}), Err("\"id\" not present")),
        (
            &plain,
            &json!({"claimValidationRules": [{"claim": "hd", "requiredValue": "shop"}]}),
            json!({"hd": "other"}),
            Err("claim hd value does not match"),
        ),
        (
            &plain,
            &json!({"claimValidationRules": [{"expression": "claims.exp < 900", "message": "too long"}]}),
            json!({}),
            Err("too long"),
        ),
        (
            &plain,
            &json!({"userValidationRules": [{"expression": "!user.username.startsWith('x:')", "message": "no"}]}),
            json!({}),
            Err("no"),
        ),
        (
            &json!({"username": {"claim": "email", "prefix": ""}}),
            &none,
            json!({"email": "a@b", "email_verified": false}),
            Err("not verified"),
        ),
    ] {
        let rules = rules(jwt(mappings.clone(), more.clone())).unwrap();
        match (user(&claims(own.clone()), &rules, 500), expect) {
            (Ok(user), Ok((name, groups))) => {
                let groups: Vec<String> = groups.into_iter().map(str::to_owned).collect();
                assert_eq!((&*user.name, user.groups), (name, groups));
            }
            (Err(why), Err(words)) => assert!(why.contains(words), "{why}"),
            (found, expect) => panic!("{own}: {found:?} instead of {expect:?}"),
        }
    }
    let user = user(&claims(json!({"id": "7", "jti": "j"})), &rules(jwt(rich, none)).unwrap(), 500).unwrap();
    assert_eq!((&*user.uid, &user.extra["shop.example/team"]), ("7", &vec!["ops".to_owned()]));
    assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], ["JTI=j"]);
}

#[test]
fn wrong_configurations_are_told() {
    let good = json!({"username": {"claim": "sub", "prefix": ""}});
    for (jwt, words) in [
        (jwt(json!({"username": {}}), json!({})), "claim or expression is required"),
        (jwt(json!({"username": {"claim": "sub"}}), json!({})), "prefix is required"),
        (jwt(json!({"username": {"expression": "claims."}}), json!({})), "username.expression: compilation failed"),
        (jwt(json!({"username": {"expression": "1"}}), json!({})), "must evaluate to"),
        (jwt(json!({"username": {"expression": "claims.email"}}), json!({})), "email_verified must be used"),
        (jwt(good.clone(), json!({"issuer": {"url": "http://x", "audiences": ["a"]}})), "scheme must be https"),
        (jwt(good.clone(), json!({"issuer": {"url": "https://x", "audiences": []}})), "at least one audience"),
        (jwt(good.clone(), json!({"issuer": {"url": "https://x", "audiences": ["a", "b"]}})), "must be MatchAny"),
        (jwt(good.clone(), json!({"claimValidationRules": [{}]})), "exactly one of claim and expression"),
        (jwt(good, json!({"claimValidationRule": []})), "unknown field"),
    ] {
        let why = rules(jwt).unwrap_err();
        assert!(why.contains(words), "{why}");
    }
    let config = |value: Value| Configuration::parse(&value).err().unwrap();
    assert!(config(json!({"kind": "x", "apiVersion": "y"})).contains("AuthenticationConfiguration"));
    let twice = json!({"kind": "AuthenticationConfiguration", "apiVersion": "apiserver.config.k8s.io/v1",
        "jwt": [jwt(json!({"username": {}}), json!({})), jwt(json!({"username": {}}), json!({}))]});
    assert!(config(twice).contains("Duplicate value"));
}
