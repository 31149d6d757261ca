//! Who may use which topic: a pure function of the node, the direction and the topic.
//!
//! In: the node's name as its certificate says it, and what it wants. Out: yes or no; the default is no.
//! Never: asks the client id, the user name or an earlier decision.

/// What a client wants to do with a topic or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    Publish,
    Subscribe,
}

/// A node publishes to `n/<node>/u/<channel>` and subscribes to `n/<node>/d/<channel>` or `n/<node>/d/+`.
pub fn allowed(node: &str, right: Right, topic: &str) -> bool {
    let mut parts = topic.split('/');
    let head = (parts.next(), parts.next(), parts.next(), parts.next(), parts.next());
    let (Some("n"), Some(owner), Some(direction), Some(channel), None) = head else { return false };
    let one_letter = channel.len() == 1 && channel.as_bytes()[0].is_ascii_lowercase();
    owner == node
        && match right {
            Right::Publish => direction == "u" && one_letter,
            Right::Subscribe => direction == "d" && (one_letter || channel == "+"),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_topics() {
        use Right::*;
        let cases = [
            (Publish, "n/pi-1/u/s", true),
            (Publish, "n/pi-1/d/s", false),
            (Publish, "n/pi-2/u/s", false),
            (Publish, "n/pi-1/u/+", false),
            (Publish, "n/+/u/s", false),
            (Publish, "n/pi-1/u/s/x", false),
            (Publish, "n/pi-1/u/", false),
            (Publish, "$SYS/broker", false),
            (Publish, "", false),
            (Subscribe, "n/pi-1/d/+", true),
            (Subscribe, "n/pi-1/d/s", true),
            (Subscribe, "n/pi-1/d/#", false),
            (Subscribe, "n/pi-1/#", false),
            (Subscribe, "n/+/d/+", false),
            (Subscribe, "#", false),
            (Subscribe, "+/+/+/+", false),
            (Subscribe, "n/pi-2/d/+", false),
            (Subscribe, "n/pi-1/u/+", false),
            (Subscribe, "$share/g/n/pi-1/d/+", false),
        ];
        for (right, topic, expect) in cases {
            assert_eq!(allowed("pi-1", right, topic), expect, "{right:?} {topic}");
        }
    }
}
