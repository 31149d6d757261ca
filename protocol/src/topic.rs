//! The topics of a node, and who may use them.
//!
//! In: a node name and a topic as text. Out: the topic's name, or whether a right exists.
//! Shape: `n/<node>/u/<channel>` (node to hub) and `n/<node>/d/<channel>` (hub to node); by way of a broker that is not the hub's
//! own `n/system:node:<node>/u` and `…/d`, where sealed packets keep one order and the broker's ACL needs one line for all nodes.
//! Never: wildcards in a node name; `valid_node_name` is asked first.

use crate::limits::NODE_NAME_BYTES_MAX;
use alloc::{format, string::String};

/// The lanes of the link, most urgent first. A lane never delays the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// Session, desired state and acknowledgements.
    State,
    /// Pod and node status.
    Status,
    /// Events.
    Event,
    /// Logs, exec, port-forward.
    Stream,
}

impl Channel {
    pub const ALL: [Channel; 4] =
        [Channel::State, Channel::Status, Channel::Event, Channel::Stream];

    pub fn letter(self) -> char {
        match self {
            Channel::State => 's',
            Channel::Status => 't',
            Channel::Event => 'e',
            Channel::Stream => 'x',
        }
    }

    pub fn from_letter(letter: &str) -> Option<Channel> {
        Channel::ALL.into_iter().find(|c| letter.chars().eq([c.letter()]))
    }
}

/// Topic on which the node publishes.
pub fn up(node: &str, channel: Channel) -> String {
    format!("n/{node}/u/{}", channel.letter())
}

/// Topic on which the hub publishes.
pub fn down(node: &str, channel: Channel) -> String {
    format!("n/{node}/d/{}", channel.letter())
}

/// The filter that a node subscribes to: all that the hub says to it.
pub fn down_filter(node: &str) -> String {
    format!("n/{node}/d/+")
}

/// Splits an upward topic into node and channel; `None` for everything else.
pub fn parse_up(topic: &str) -> Option<(&str, Channel)> {
    let mut parts = topic.split('/');
    let (n, node, u, letter) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if n != "n" || u != "u" || parts.next().is_some() || !valid_node_name(node) {
        return None;
    }
    Some((node, Channel::from_letter(letter)?))
}

/// A node's name as its certificate says it; brokers take it for the user name.
const CERTIFIED: &str = "system:node:";
/// What the hub subscribes to at a broker that is not its own.
pub const SEALED_UP_FILTER: &str = "n/+/u";

/// Topic on which the node publishes sealed packets.
pub fn sealed_up(node: &str) -> String {
    format!("n/{CERTIFIED}{node}/u")
}

/// Topic on which the hub publishes sealed packets.
pub fn sealed_down(node: &str) -> String {
    format!("n/{CERTIFIED}{node}/d")
}

/// The node of an upward topic for sealed packets; `None` for everything else.
pub fn parse_sealed_up(topic: &str) -> Option<&str> {
    let node = topic.strip_prefix("n/")?.strip_prefix(CERTIFIED)?.strip_suffix("/u")?;
    valid_node_name(node).then_some(node)
}

/// RFC 1123 subdomain: what Kubernetes allows as a node name. Excludes `+`, `#`, `/` and `$`.
pub fn valid_node_name(name: &str) -> bool {
    let label = |l: &str| {
        let b = l.as_bytes();
        !b.is_empty()
            && b.len() <= 63
            && b.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
            && b[0] != b'-'
            && b[b.len() - 1] != b'-'
    };
    name.len() <= NODE_NAME_BYTES_MAX && name.split('.').all(label)
}

/// Whether a filter means a topic: MQTT 3.1.1 (OASIS), section 4.7. Both are well-formed.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && !filter.starts_with('$') {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(f), Some(t)) if f == t => {}
            // `a/#` also means `a`.
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_parse_back() {
        for channel in Channel::ALL {
            assert_eq!(parse_up(&up("pi-1", channel)), Some(("pi-1", channel)));
        }
        assert_eq!(parse_sealed_up(&sealed_up("pi-1.shop")), Some("pi-1.shop"));
        let strange = ["n/a/u", "n/system:node:/u", "n/system:node:a/b/u", "n/system:node:+/u", "n/system:node:a/u/s"];
        for topic in strange.into_iter().chain([sealed_down("a").as_str()]) {
            assert_eq!(parse_sealed_up(topic), None, "{topic}");
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in ["", "+", "#", "a/b", "$SYS", "A", "-a", "a-", "a..b", "a+"] {
            assert!(!valid_node_name(name), "{name}");
        }
        for topic in ["n/a/d/s", "n/a/u/s/x", "n/+/u/s", "n/a/u/q", "n/a/u/", "x/a/u/s"] {
            assert_eq!(parse_up(topic), None, "{topic}");
        }
    }
}
