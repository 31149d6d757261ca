//! Which requests are recorded, and how much of them.
//!
//! In: an audit.k8s.io/v1 Policy, and the attributes of a request. Out: a level and the stages that are recorded.
//! Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/ and the reference of audit.k8s.io/v1.
//! Never: writes a record; the shell does.

use crate::rbac::Attributes;
use serde::Deserialize;
use serde_json::Value;

/// Rules of one policy, and words of one list in it.
const RULES_MAX: usize = 1000;
const WORDS_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What is recorded of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    omitted: u8,
    pub omit_managed_fields: bool,
}

impl Verdict {
    pub fn records(&self, stage: Stage) -> bool {
        self.omitted & stage.bit() == 0
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: Value,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

impl Policy {
    /// The error says which part is wrong and why.
    pub fn parse(value: &Value) -> Result<Policy, String> {
        if value["kind"] != "Policy" || value["apiVersion"] != "audit.k8s.io/v1" {
            return Err(format!(
                "must be of kind Policy and apiVersion audit.k8s.io/v1, is {} of {}",
                value["kind"], value["apiVersion"]
            ));
        }
        let policy = Policy::deserialize(value).map_err(|why| why.to_string())?;
        if policy.rules.is_empty() || policy.rules.len() > RULES_MAX {
            return Err(format!("rules: must be 1 to {RULES_MAX}, are {}", policy.rules.len()));
        }
        for (at, rule) in policy.rules.iter().enumerate() {
            rule.check().map_err(|why| format!("rules[{at}].{why}"))?;
        }
        Ok(policy)
    }

    /// The first rule that is about the request decides; without one nothing is recorded.
    pub fn judge(&self, asked: &Attributes<'_>) -> Verdict {
        let found = self.rules.iter().find(|rule| rule.is_about(asked));
        let stages = found.into_iter().flat_map(|rule| &rule.omit_stages).chain(&self.omit_stages);
        Verdict {
            level: found.map_or(Level::None, |rule| rule.level),
            omitted: stages.fold(0, |all, stage| all | stage.bit()),
            omit_managed_fields: found
                .and_then(|rule| rule.omit_managed_fields)
                .unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if of_resources && !self.non_resource_urls.is_empty() {
            return Err("nonResourceURLs: a rule is about resources or about other paths, not about both".into());
        }
        let words = [&self.users, &self.user_groups, &self.verbs, &self.namespaces, &self.non_resource_urls];
        if words.iter().any(|list| list.len() > WORDS_MAX) || self.resources.len() > WORDS_MAX {
            return Err(format!("a list is longer than {WORDS_MAX}"));
        }
        for url in self.non_resource_urls.iter().filter(|url| *url != "*") {
            let body = url.strip_suffix('*').unwrap_or(url);
            if !url.starts_with('/') || body.contains('*') {
                return Err(format!("nonResourceURLs: {url:?} must begin with / and may only end in *"));
            }
        }
        for own in &self.resources {
            if own.group.contains('/') {
                return Err(format!("resources: {:?} is a group with a version; write the group only", own.group));
            }
            if !own.resource_names.is_empty() && own.resources.is_empty() {
                return Err("resources: resourceNames need at least one resource".into());
            }
        }
        Ok(())
    }

    fn is_about(&self, asked: &Attributes<'_>) -> bool {
        let has = |list: &[String], word: &str| list.is_empty() || list.iter().any(|own| own == word);
        let in_group = || asked.groups.iter().any(|group| self.user_groups.contains(group));
        if !has(&self.users, asked.user) || !has(&self.verbs, asked.verb) {
            return false;
        }
        if !self.user_groups.is_empty() && !in_group() {
            return false;
        }
        if !self.resources.is_empty() || !self.namespaces.is_empty() {
            return asked.path.is_none()
                && has(&self.namespaces, asked.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|own| own.names(asked)));
        }
        let path = |path: &str| self.non_resource_urls.iter().any(|own| path_fits(own, path));
        self.non_resource_urls.is_empty() || asked.path.is_some_and(path)
    }
}

fn path_fits(own: &str, path: &str) -> bool {
    match own.strip_suffix('*') {
        Some(begin) => path.starts_with(begin),
        None => own == path,
    }
}

impl GroupResources {
    fn names(&self, asked: &Attributes<'_>) -> bool {
        if self.group != asked.api_group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|own| own == asked.name) {
            return false;
        }
        self.resources.iter().any(|own| match own.split_once('/') {
            None if own == "*" => true,
            None => asked.subresource.is_empty() && own == asked.resource,
            Some(("*", sub)) => !asked.subresource.is_empty() && sub == asked.subresource,
            Some((resource, "*")) => resource == asked.resource,
            Some((resource, sub)) => resource == asked.resource && sub == asked.subresource,
        })
    }
}

#[cfg(test)]
mod tests;
