//! Who may do what at an external broker, in the broker's own words.
//!
//! In: which broker, and whether nodes share a user name. Out: the text of an ACL file. It is the same for every fleet: a
//! node's user
//! name is the name in its certificate, and its topics carry that name.
//! Never: needed for secrecy: it keeps nodes from disturbing each other; what is sealed stays so without it.

use limpet_protocol::topic::SEALED_UP_FILTER;

/// The name in the certificate with which the hub goes to the broker.
pub const HUB_USER: &str = "system:limpet-hub";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Mosquitto,
    Emqx,
}

/// `hub`: the hub's user name at the broker. `nodes`: one user name that all nodes have, where the broker does not take it from
/// certificates; the broker cannot tell them apart then.
pub fn text(format: Format, hub: &str, nodes: Option<&str>) -> Result<String, String> {
    for name in [Some(hub), nodes].into_iter().flatten() {
        if name.is_empty() || name.len() > 256 || !name.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\+#/%${}".contains(&b)) {
            return Err(format!("{name:?} is no user name for an ACL: letters, digits and .:-_@ are"));
        }
    }
    Ok(match format {
        Format::Mosquitto => mosquitto(hub, nodes),
        Format::Emqx => emqx(hub, nodes),
    })
}

fn mosquitto(hub: &str, nodes: Option<&str>) -> String {
    let nodes = match nodes {
        None => "# A node: the name in its certificate (use_identity_as_username true).\n\
                 pattern write n/%u/u\npattern read n/%u/d\n"
            .to_string(),
        Some(user) => format!(
            "# All nodes are one user to the broker: they can disturb each other, but neither read nor forge what is sealed.\n\
             user {user}\ntopic write {SEALED_UP_FILTER}\ntopic read n/+/d\n"
        ),
    };
    format!(
        "# Limpet's ACL for Mosquitto; what is not named here is forbidden.\n\
         # The hub.\n\
         user {hub}\ntopic read {SEALED_UP_FILTER}\ntopic write n/+/d\n\n{nodes}"
    )
}

fn emqx(hub: &str, nodes: Option<&str>) -> String {
    let quiet = "[{qos, 0}, {retain, false}]";
    let nodes = match nodes {
        None => format!(
            "%% A node: the name in its certificate (peer_cert_as_username = cn).\n\
             {{allow, all, {{publish, {quiet}}}, [\"n/${{username}}/u\"]}}.\n\
             {{allow, all, subscribe, [\"n/${{username}}/d\"]}}.\n"
        ),
        Some(user) => format!(
            "%% All nodes are one user to the broker: they can disturb each other, but neither read nor forge what is sealed.\n\
             {{allow, {{username, \"{user}\"}}, {{publish, {quiet}}}, [\"n/+/u\"]}}.\n\
             {{allow, {{username, \"{user}\"}}, subscribe, [\"n/+/d\"]}}.\n"
        ),
    };
    format!(
        "%% Limpet's ACL for EMQX 5.2 or newer (etc/acl.conf).\n\
         {{allow, {{username, \"{hub}\"}}, subscribe, [{{eq, \"{SEALED_UP_FILTER}\"}}]}}.\n\
         {{allow, {{username, \"{hub}\"}}, {{publish, {quiet}}}, [\"n/+/d\"]}}.\n{nodes}{{deny, all}}.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_line() {
        for name in ["", "a\nuser b", "a b", "#", "a/+", "x\"}", "%u", "${username}"] {
            assert!(text(Format::Mosquitto, name, None).is_err(), "{name:?}");
            assert!(text(Format::Emqx, HUB_USER, Some(name)).is_err(), "{name:?}");
        }
        let acl = text(Format::Emqx, HUB_USER, None).unwrap();
        assert!(acl.ends_with("{deny, all}.\n") && acl.contains(r#"["n/${username}/u"]"#), "{acl}");
        assert_eq!(acl.matches('{').count(), acl.matches('}').count());
    }
}
