//! What a list or watch may ask for, and the tokens that continue a list.
//!
//! In: the query of a request, hostile. Out: `ListOptions`, or a Status in upstream's words.
//! Source: the Kubernetes page "API Concepts". Never: a token that means something else than its list's
//! position.

use crate::api::query::Query;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use limpet_objects::{field::FieldError, status::Status};
use limpet_store::Revision;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Unset,
    NotOlderThan,
    Exact,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOptions {
    /// 0 is no limit.
    pub limit: usize,
    pub start: Option<Continue>,
    /// `None`: not given. `Some(0)`: anything.
    pub revision: Option<Revision>,
    pub revision_match: Match,
    pub bookmarks: bool,
    /// `None`: not given.
    pub send_initial_events: Option<bool>,
    pub timeout: Option<Duration>,
}

/// Where a list goes on: behind (namespace, name), at the revision of its first page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continue {
    #[serde(rename = "rv")]
    pub revision: Revision,
    #[serde(rename = "ns")]
    pub namespace: String,
    #[serde(rename = "n")]
    pub name: String,
}

impl Continue {
    pub fn encode(&self) -> String {
        BASE64.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(token: &str) -> Option<Continue> {
        let token = token.trim_end_matches('=');
        serde_json::from_slice(&BASE64.decode(token).ok()?).ok()
    }
}

pub fn parse(query: &Query, watch: bool) -> Result<ListOptions, Status> {
    let number = |key: &str| query.number(key).map_err(Status::bad_request);
    let limit = number("limit")?.unwrap_or(0).max(0) as usize;
    let token = query.text("continue");
    let start = match token {
        None => None,
        Some(token) => Some(Continue::decode(token).ok_or_else(|| {
            Status::bad_request("continue key is not valid: the token was not made by this server")
        })?),
    };
    let revision = match query.text("resourceVersion") {
        None => None,
        Some(text) => Some(text.parse::<Revision>().map_err(|_| {
            let error = FieldError::invalid(
                "resourceVersion",
                text,
                "strconv.ParseUint: parsing failed: invalid syntax",
            );
            Status::invalid("meta.k8s.io", "ListOptions", "", &[error])
        })?),
    };
    if !watch && start.is_some() && revision.is_some_and(|asked| asked > 0) {
        return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
    }
    let text = query.text("resourceVersionMatch");
    let options = ListOptions {
        limit,
        start,
        revision,
        revision_match: match text {
            Some("NotOlderThan") => Match::NotOlderThan,
            Some("Exact") => Match::Exact,
            _ => Match::Unset,
        },
        bookmarks: query.flag("allowWatchBookmarks"),
        send_initial_events: query.text("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
        timeout: number("timeoutSeconds")?
            .filter(|s| *s > 0)
            .map(|s| Duration::from_secs(s.min(86_400) as u64)),
    };
    let errors = check(query, &options, text, watch);
    if errors.is_empty() {
        Ok(options)
    } else {
        Err(Status::invalid("meta.k8s.io", "ListOptions", "", &errors))
    }
}

fn check(query: &Query, options: &ListOptions, text: Option<&str>, watch: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let field = "resourceVersionMatch";
    let forbid = |field: &str, why: &str| FieldError::forbidden(field, why);
    if watch {
        match (query.text("sendInitialEvents").is_some(), text) {
            (false, Some(_)) => errors.push(forbid(
                field,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )),
            (true, None) => errors.push(forbid(
                field,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )),
            (true, Some(other)) if other != "NotOlderThan" => {
                errors.push(FieldError::not_supported(field, other, &["NotOlderThan"]));
            }
            _ => {}
        }
        return errors;
    }
    if query.text("sendInitialEvents").is_some() {
        errors.push(forbid("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    let Some(text) = text else { return errors };
    if options.start.is_some() {
        errors.push(forbid(field, "resourceVersionMatch is forbidden when continue is provided"));
    }
    if options.revision.is_none() {
        errors.push(forbid(field, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
    }
    if options.revision_match == Match::Unset {
        errors.push(FieldError::not_supported(field, text, &["Exact", "NotOlderThan"]));
    }
    if options.revision_match == Match::Exact && options.revision == Some(0) {
        errors.push(forbid(field, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, watch: bool) -> Result<ListOptions, u16> {
        parse(&Query::parse(query).unwrap(), watch).map_err(|s| s.code)
    }

    #[test]
    fn tokens_come_back() {
        let start = Continue { revision: 7, namespace: "a".into(), name: "b".into() };
        let query = format!("limit=2&continue={}", start.encode());
        let options = check(&query, false).unwrap();
        assert_eq!((options.limit, options.start), (2, Some(start)));
    }

    #[test]
    fn rules() {
        for (query, watch, expect) in [
            ("", false, None),
            ("limit=x", false, Some(400)),
            ("continue=!!!", false, Some(400)),
            ("resourceVersion=abc", false, Some(422)),
            ("resourceVersionMatch=Exact", false, Some(422)),
            ("resourceVersionMatch=Exact&resourceVersion=0", false, Some(422)),
            ("resourceVersionMatch=Never&resourceVersion=1", false, Some(422)),
            ("resourceVersionMatch=NotOlderThan&resourceVersion=1", false, None),
            ("sendInitialEvents=true", false, Some(422)),
            ("sendInitialEvents=true", true, Some(422)),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true, None),
            ("resourceVersionMatch=NotOlderThan", true, Some(422)),
            ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan", true, None),
            ("continue=eyJydiI6NywibnMiOiJhIiwibiI6ImIifQ", false, None),
            ("continue=eyJydiI6NywibnMiOiJhIiwibiI6ImIifQ&resourceVersion=7", false, Some(400)),
        ] {
            assert_eq!(check(query, watch).err(), expect, "{query}");
        }
    }
}
