//! `kubectl --as`: acting as somebody else.
//!
//! In: the real user, the Impersonate-* headers, hostile, and what the request is. Out: the user to act as, and by which right;
//! or a 403. The narrow rights (`impersonate:<mode>` for who, `impersonate-on:<mode>:<verb>` for what) are tried before the
//! old one.
//! Source: the Kubernetes page "User Impersonation" and KEP-5284. Never: a part of a user without the right to take it.

use super::{
    authorize::{Asked, Authorizer},
    user::{ANONYMOUS, AUTHENTICATED, MASTERS, NODES, UNAUTHENTICATED, User},
};
use crate::api::query;
use http::HeaderMap;
use limpet_hub_core::rbac::Decision;
use limpet_objects::{names, status::Status};
use std::collections::BTreeMap;

const EXTRA: &str = "impersonate-extra-";
const VALUES_MAX: usize = 64;
const GROUP: &str = "authentication.k8s.io";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";
/// With so many groups or extras the right to take all of them is asked for first.
const MANY: usize = 4;

/// Who acts, and by which narrow right; none for the old one.
pub struct Acting {
    pub user: User,
    pub constraint: &'static str,
}

/// `None`: the request is made as oneself. `asked`: what the request does.
pub async fn apply(
    authorizer: &Authorizer,
    real: &User,
    headers: &HeaderMap,
    asked: &Asked<'_>,
) -> Result<Option<Acting>, Status> {
    let wanted = read(headers);
    if wanted.name.is_empty() {
        let nobody = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let told = "requested impersonation without impersonating a user name";
        return if nobody { Ok(None) } else { Err(Status::bad_request(told)) };
    }
    let mut first = None;
    for mode in [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy] {
        if !mode.is_for(&wanted, real) {
            continue;
        }
        match take(authorizer, real, &wanted, asked, mode).await {
            Ok(user) => return Ok(Some(Acting { user, constraint: mode.constraint() })),
            Err(why) => drop(first.get_or_insert(why)),
        }
    }
    Err(first.unwrap_or_else(Status::unauthorized))
}

/// As the headers say it, with nothing added.
fn read(headers: &HeaderMap) -> User {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let groups = headers.get_all("impersonate-group").iter().take(VALUES_MAX).filter_map(|v| v.to_str().ok());
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let pairs = headers.iter().filter_map(|(name, value)| {
        Some((query::decode(name.as_str().strip_prefix(EXTRA)?, false)?, value.to_str().ok()?.to_owned()))
    });
    pairs.take(VALUES_MAX).for_each(|(key, value)| extra.entry(key).or_default().push(value));
    User { name: text("impersonate-user"), uid: text("impersonate-uid"), groups: groups.map(str::to_owned).collect(), extra }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The node on which the pod of the asking ServiceAccount runs.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Whoever is neither.
    UserInfo,
    /// The verb `impersonate`, good for everything that the other one may do.
    Legacy,
}

impl Mode {
    fn word(self) -> &'static str {
        self.constraint().strip_prefix("impersonate:").unwrap_or_default()
    }

    /// The right to be somebody; empty for the old one.
    fn constraint(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "impersonate:associated-node",
            Mode::ArbitraryNode => "impersonate:arbitrary-node",
            Mode::ServiceAccount => "impersonate:serviceaccount",
            Mode::UserInfo => "impersonate:user-info",
            Mode::Legacy => "",
        }
    }

    fn is_for(self, wanted: &User, real: &User) -> bool {
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        match self {
            Mode::AssociatedNode => {
                let own = real.extra.get(NODE_NAME).filter(|_| account(&real.name).is_some());
                only_name && node(&wanted.name).is_some_and(|node| own.is_some_and(|own| *own == [node]))
            }
            Mode::ArbitraryNode => only_name && node(&wanted.name).is_some(),
            Mode::ServiceAccount => only_name && account(&wanted.name).is_some(),
            Mode::UserInfo => node(&wanted.name).is_none() && account(&wanted.name).is_none(),
            Mode::Legacy => true,
        }
    }
}

fn node(name: &str) -> Option<&str> {
    name.strip_prefix("system:node:").filter(|node| names::dns_subdomain(node).is_empty())
}

fn account(name: &str) -> Option<(&str, &str)> {
    let (namespace, account) = name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let is_one = names::dns_label(namespace).is_empty() && names::dns_subdomain(account).is_empty();
    is_one.then_some((namespace, account))
}

async fn take(authorizer: &Authorizer, real: &User, wanted: &User, asked: &Asked<'_>, mode: Mode) -> Result<User, Status> {
    let narrow = mode != Mode::Legacy;
    // Whoever decides shall not tell the nodes of one account apart.
    let without = (mode == Mode::AssociatedNode).then(|| {
        let keys = real.extra.keys().cloned().collect();
        User { extra: BTreeMap::from([(NODE_KEYS.to_owned(), keys)]), ..real.clone() }
    });
    let real = without.as_ref().unwrap_or(real);
    if narrow {
        let verb = format!("impersonate-on:{}:{}", mode.word(), asked.verb);
        authorizer.check(real, &Asked { verb: &verb, ..*asked }).await?;
    }
    let rights = Rights { authorizer, real, verb: if narrow { mode.constraint() } else { "impersonate" }, narrow };
    let mut user = wanted.clone();
    let group = if narrow { GROUP } else { "" };
    match (node(&wanted.name).filter(|_| narrow), account(&wanted.name)) {
        (Some(node), _) => {
            user.groups = vec![NODES.to_owned()];
            rights.may(GROUP, "nodes", "", "", if mode == Mode::AssociatedNode { "*" } else { node }).await?;
        }
        (None, Some((namespace, account))) => {
            if wanted.groups.is_empty() {
                user.groups = User::of_service_account(namespace, account, "").groups;
            }
            rights.may(group, "serviceaccounts", "", namespace, account).await?;
        }
        (None, None) => rights.may(group, "users", "", "", &wanted.name).await?,
    }
    if !wanted.uid.is_empty() {
        rights.may(GROUP, "uids", "", "", &wanted.uid).await?;
    }
    rights.groups(group, &wanted.groups).await?;
    rights.extras(&wanted.extra).await?;
    let implied = if user.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !user.in_group(implied) && !user.in_group(UNAUTHENTICATED) {
        user.groups.push(implied.to_owned());
    }
    Ok(user)
}

/// What the real user may take, by one verb.
struct Rights<'a> {
    authorizer: &'a Authorizer,
    real: &'a User,
    verb: &'a str,
    narrow: bool,
}

impl Rights<'_> {
    fn asked<'a>(&'a self, group: &'a str, resource: &'a str, subresource: &'a str, name: &'a str) -> Asked<'a> {
        Asked { verb: self.verb, group, resource, subresource, name, ..Asked::default() }
    }

    async fn may(&self, group: &str, resource: &str, subresource: &str, namespace: &str, name: &str) -> Result<(), Status> {
        let asked = Asked { namespace, ..self.asked(group, resource, subresource, name) };
        self.authorizer.check(self.real, &asked).await
    }

    /// What no right gives.
    fn never(&self, asked: &Asked<'_>, why: &str) -> Result<(), Status> {
        self.authorizer.outcome(self.real, asked, Decision::Deny { reason: why.into() })
    }

    async fn groups(&self, group: &str, wanted: &[String]) -> Result<(), Status> {
        if self.narrow && wanted.iter().any(String::is_empty) {
            self.never(&self.asked(group, "groups", "", ""), "impersonating the empty string group is not allowed")?;
        }
        if self.narrow && wanted.iter().any(|g| g == MASTERS) {
            self.never(&self.asked(group, "groups", "", MASTERS), "impersonating the system:masters group is not allowed")?;
        }
        if self.narrow && wanted.len() >= MANY && self.may(group, "groups", "", "", "*").await.is_ok() {
            return Ok(());
        }
        for name in wanted {
            self.may(group, "groups", "", "", name).await?;
        }
        Ok(())
    }

    async fn extras(&self, wanted: &BTreeMap<String, Vec<String>>) -> Result<(), Status> {
        if self.narrow && wanted.iter().any(|(key, values)| !is_key(key) || values.iter().any(String::is_empty)) {
            let why = "impersonating an invalid key or empty value in extra is not allowed";
            self.never(&self.asked(GROUP, "userextras", "", ""), why)?;
        }
        let many = wanted.values().map(Vec::len).sum::<usize>() >= MANY;
        if self.narrow && many && self.may(GROUP, "userextras", "*", "", "*").await.is_ok() {
            return Ok(());
        }
        for (key, values) in wanted {
            for value in values {
                self.may(GROUP, "userextras", key, "", value).await?;
            }
        }
        Ok(())
    }
}

/// `domain/path`, in lower case.
fn is_key(key: &str) -> bool {
    let Some((domain, path)) = key.split_once('/') else { return false };
    !path.is_empty() && names::dns_subdomain(domain).is_empty() && !key.bytes().any(|b| b.is_ascii_uppercase())
}
