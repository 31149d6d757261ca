//! The topics of a node, and who may use them.
//!
//! In: a node name and a topic as text. Out: the topic's name, or whether a right exists.
//! Shape: `n/<node>/u/<channel>` (node to hub) and `n/<node>/d/<channel>` (hub to node).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_parse_back() {
        for channel in Channel::ALL {
            assert_eq!(parse_up(&up("pi-1", channel)), Some(("pi-1", channel)));
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
