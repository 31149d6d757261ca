//! What one rule allows.
//!
//! In: a rule and a request, or two rules. Out: yes or no.
//! Never: patterns other than `*` alone, `*/sub` and a path's trailing `*`.

use super::Attributes;
use crate::view::PolicyRule;

const ALL: &str = "*";

fn has(list: &[Box<str>], item: &str) -> bool {
    list.iter().any(|x| &**x == ALL || &**x == item)
}

/// Whether `rule` allows the request.
pub(super) fn allows(rule: &PolicyRule, asked: &Attributes<'_>) -> bool {
    if !has(&rule.verbs, asked.verb) {
        return false;
    }
    match asked.path {
        Some(path) => rule.non_resource_urls.iter().any(|url| path_matches(url, path)),
        None => {
            has(&rule.api_groups, asked.api_group)
                && resource_matches(&rule.resources, asked.resource, asked.subresource)
                && (rule.resource_names.is_empty()
                    || rule.resource_names.iter().any(|n| &**n == asked.name && !asked.name.is_empty()))
        }
    }
}

fn resource_matches(resources: &[Box<str>], resource: &str, subresource: &str) -> bool {
    resources.iter().any(|r| match r.split_once('/') {
        _ if &**r == ALL => true,
        Some((ALL, sub)) => !subresource.is_empty() && sub == subresource,
        Some((parent, sub)) => parent == resource && sub == subresource,
        None => &**r == resource && subresource.is_empty(),
    })
}

fn path_matches(url: &str, path: &str) -> bool {
    url == ALL || url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// One rule for each single right in `rule`.
pub(super) fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |s: &str| -> Box<[Box<str>]> { Box::new([s.into()]) };
    let mut out = Vec::new();
    for verb in &rule.verbs {
        for url in &rule.non_resource_urls {
            let non_resource_urls = one(url);
            out.push(PolicyRule { verbs: one(verb), non_resource_urls, ..PolicyRule::default() });
        }
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let single = PolicyRule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..PolicyRule::default()
                };
                match rule.resource_names.is_empty() {
                    true => out.push(single),
                    false => out.extend(rule.resource_names.iter().map(|n| {
                        let resource_names = one(n);
                        PolicyRule { resource_names, ..single.clone() }
                    })),
                }
            }
        }
    }
    out
}

/// Whether `held` allows everything that the single right `one` allows.
pub(super) fn covers(held: &PolicyRule, one: &PolicyRule) -> bool {
    let each = |have: &[Box<str>], want: &[Box<str>]| want.iter().all(|w| has(have, w));
    if !each(&held.verbs, &one.verbs) {
        return false;
    }
    if !one.non_resource_urls.is_empty() {
        return one
            .non_resource_urls
            .iter()
            .all(|w| held.non_resource_urls.iter().any(|h| path_matches(h, w)));
    }
    let resources = one.resources.iter().all(|w| {
        let (resource, sub) = w.split_once('/').unwrap_or((w, ""));
        has(&held.resources, w) || resource_matches(&held.resources, resource, sub)
    });
    let names = held.resource_names.is_empty()
        || (!one.resource_names.is_empty()
            && one.resource_names.iter().all(|n| held.resource_names.contains(n)));
    each(&held.api_groups, &one.api_groups) && resources && names
}

/// What the operators' group may do, as rules.
pub(super) fn everything() -> [PolicyRule; 2] {
    let all = || -> Box<[Box<str>]> { Box::new([ALL.into()]) };
    [
        PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() },
        PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() },
    ]
}
