//! `kubectl --as`: acting as somebody else.
//!
//! In: the real user and the Impersonate-* headers, hostile. Out: the user to act as, or a 403.
//! Source: the Kubernetes page "User Impersonation". Never: a part of a user without the right to take it.

use super::{
    authorize::{Asked, Authorizer},
    user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User},
};
use crate::api::query;
use http::HeaderMap;
use limpet_objects::status::Status;

const EXTRA: &str = "impersonate-extra-";
const VALUES_MAX: usize = 64;

pub async fn apply(authorizer: &Authorizer, real: User, headers: &HeaderMap) -> Result<User, Status> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let (name, uid) = (text("impersonate-user"), text("impersonate-uid"));
    let groups: Vec<String> = headers
        .get_all("impersonate-group")
        .iter()
        .take(VALUES_MAX)
        .filter_map(|v| v.to_str().ok())
        .map(str::to_owned)
        .collect();
    let extra = extras(headers);
    if name.is_empty() {
        if uid.is_empty() && groups.is_empty() && extra.is_empty() {
            return Ok(real);
        }
        return Err(Status::internal("requested impersonation without impersonating a user"));
    }
    let may = async |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let asked = Asked { verb: "impersonate", group, resource, subresource, namespace, name, ..Asked::default() };
        authorizer.check(&real, &asked).await
    };
    let mut user = User { name: name.clone(), uid: uid.clone(), groups, ..User::default() };
    match user.service_account() {
        Some((namespace, account)) => {
            may("", "serviceaccounts", "", namespace, account).await?;
            if user.groups.is_empty() {
                user.groups = User::of_service_account(namespace, account, "").groups;
            }
        }
        None => may("", "users", "", "", &name).await?,
    }
    if headers.contains_key("impersonate-group") {
        for group in &user.groups {
            may("", "groups", "", "", group).await?;
        }
    }
    if !uid.is_empty() {
        may("authentication.k8s.io", "uids", "", "", &uid).await?;
    }
    for (key, value) in extra {
        may("authentication.k8s.io", "userextras", &key, "", &value).await?;
        user.extra.entry(key).or_default().push(value);
    }
    let implied = if name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED) {
        user.groups.push(implied.to_owned());
    }
    Ok(user)
}

fn extras(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter_map(|(name, value)| {
            let key = query::decode(name.as_str().strip_prefix(EXTRA)?, false)?;
            Some((key, value.to_str().ok()?.to_owned()))
        })
        .take(VALUES_MAX)
        .collect()
}
