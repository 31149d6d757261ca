//! Attribute-based access control: policies in a file, a line each.
//!
//! In: lines of abac.authorization.kubernetes.io/v1beta1 Policies; who asks for what. Out: yes, or no opinion.
//! Source: https://kubernetes.io/docs/reference/access-authn-authz/abac/. Never: denies.

use crate::rbac::{Attributes, Decision};
use serde::Deserialize;
use serde_json::Value;

const LINES_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub struct Abac(Vec<Spec>);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: Value,
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Spec {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    non_resource_path: String,
}

impl Abac {
    /// The error names the line.
    pub fn parse(text: &str) -> Result<Abac, String> {
        let mut all = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| format!("line {}: {why}", at + 1);
            let policy: Line = serde_json::from_str(line).map_err(|why| wrong(&why.to_string()))?;
            if policy.kind != "Policy" || policy.api_version != "abac.authorization.kubernetes.io/v1beta1" {
                return Err(wrong("must be of kind Policy and apiVersion abac.authorization.kubernetes.io/v1beta1"));
            }
            if all.len() == LINES_MAX {
                return Err(wrong("too many policies"));
            }
            all.push(policy.spec);
        }
        Ok(Abac(all))
    }

    pub fn authorize(&self, asked: &Attributes<'_>) -> Decision {
        match self.0.iter().any(|policy| policy.allows(asked)) {
            true => Decision::Allow { reason: String::new() },
            false => Decision::NoOpinion { reason: "No policy matched.".into() },
        }
    }
}

fn is(own: &str, word: &str) -> bool {
    own == "*" || own == word
}

impl Spec {
    fn allows(&self, asked: &Attributes<'_>) -> bool {
        let reads = matches!(asked.verb, "get" | "list" | "watch");
        self.is_about(asked) && (reads || !self.readonly) && self.names(asked)
    }

    fn is_about(&self, asked: &Attributes<'_>) -> bool {
        let user = self.user.is_empty() || is(&self.user, asked.user);
        let group = self.group.is_empty() || self.group == "*" || asked.groups.contains(&self.group);
        (!self.user.is_empty() || !self.group.is_empty()) && user && group
    }

    fn names(&self, asked: &Attributes<'_>) -> bool {
        match asked.path {
            Some(path) => match self.non_resource_path.strip_suffix('*') {
                Some(begin) => path.starts_with(begin),
                None => !self.non_resource_path.is_empty() && self.non_resource_path == path,
            },
            None => {
                is(&self.namespace, asked.namespace)
                    && is(&self.resource, asked.resource)
                    && is(&self.api_group, asked.api_group)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(spec: Value) -> String {
        json!({"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": spec}).to_string()
    }

    #[test]
    fn policies_allow() {
        let all = "*";
        let pods = json!({"user": "ann", "namespace": "shop", "resource": "pods", "readonly": true});
        let get = Attributes { user: "ann", verb: "get", resource: "pods", namespace: "shop", ..Attributes::default() };
        let path = Attributes { user: "ann", verb: "get", path: Some("/version"), ..Attributes::default() };
        let ops = ["ops".to_owned()];
        for (spec, asked, expect) in [
            (pods.clone(), get, true),
            (pods.clone(), Attributes { verb: "create", ..get }, false),
            (pods.clone(), Attributes { namespace: "home", ..get }, false),
            (pods.clone(), Attributes { user: "bob", ..get }, false),
            (pods.clone(), Attributes { api_group: "apps", ..get }, false),
            (pods, path, false),
            (json!({"user": all, "nonResourcePath": "/ver*"}), path, true),
            (json!({"user": all, "nonResourcePath": all}), path, true),
            (json!({"user": all, "nonResourcePath": all}), get, false),
            (json!({"group": "ops", "namespace": all, "resource": all, "apiGroup": all}), get, false),
            (
                json!({"group": "ops", "namespace": all, "resource": all, "apiGroup": all}),
                Attributes { groups: &ops, verb: "delete", ..get },
                true,
            ),
            (json!({"namespace": all, "resource": all, "apiGroup": all}), get, false),
        ] {
            let abac = Abac::parse(&format!("# ours\n\n{}", line(spec.clone()))).unwrap();
            assert_eq!(abac.authorize(&asked).is_allowed(), expect, "{spec} {asked:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = line(json!({}));
        for (text, words) in [
            ("{", "line 1: "),
            (r#"{"user": "ann"}"#, "unknown field `user`"),
            (&format!("{good}\n{}", good.replace("v1beta1", "v0")), "line 2: must be of kind Policy"),
        ] {
            let why = Abac::parse(text).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
