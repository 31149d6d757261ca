//! Names of topics and filters of MQTT 3.1.1, within bounds.
//!
//! In: text from clients. Out: whether it may be used, whether a filter means a topic.
//! Never: takes longer than the two texts are long.
//! Source: MQTT 3.1.1 (OASIS), section 4.7.

pub use limpet_protocol::topic::matches;

/// Bytes of a topic or filter, and levels of it.
pub const TOPIC_BYTES_MAX: usize = limpet_protocol::limits::MESSAGE_TOPIC_BYTES_MAX;
pub const LEVELS_MAX: usize = 16;
/// What goes to the hub, and what comes from it.
pub const UP: &str = "up/";
pub const DOWN: &str = "down/";

fn bounded(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= TOPIC_BYTES_MAX
        && text.split('/').count() <= LEVELS_MAX
        && !text.chars().any(char::is_control)
}

/// Whether a client may publish on it: `$` is the broker's, `down/` the hub's.
pub fn may_publish(topic: &str) -> bool {
    bounded(topic) && !topic.contains(['#', '+']) && !topic.starts_with('$') && !topic.starts_with(DOWN)
}

/// Whether the hub may publish on it.
pub fn may_come_down(topic: &str) -> bool {
    bounded(topic) && !topic.contains(['#', '+']) && topic.starts_with(DOWN)
}

pub fn is_filter(filter: &str) -> bool {
    let levels = filter.split('/').count();
    let fits = |(at, level): (usize, &str)| match level {
        "#" => at + 1 == levels,
        "+" => true,
        other => !other.contains(['#', '+']),
    };
    bounded(filter) && filter.split('/').enumerate().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_what_they_mean() {
        for (filter, topic, want) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+/c", "a//c", true),
            ("a/#", "a/b/c", true),
            ("a/#", "a", true),
            ("#", "a/b", true),
            ("+/+", "/a", true),
            ("+", "/a", false),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("a", "b", false),
        ] {
            assert_eq!(matches(filter, topic), want, "{filter} {topic}");
        }
        for filter in ["#", "a/#", "+/a", "a/+/b", "/"] {
            assert!(is_filter(filter), "{filter}");
        }
        let (deep, long) = ("a/".repeat(LEVELS_MAX), "x".repeat(TOPIC_BYTES_MAX + 1));
        for filter in ["", "a#", "#/a", "a/b+", "a\0b", &deep, &long] {
            assert!(!is_filter(filter), "{filter}");
        }
        for topic in ["", "a/+", "#", "$SYS/a", "down/x", "a\nb", &deep, &long] {
            assert!(!may_publish(topic), "{topic}");
        }
        assert!(may_publish("up/t") && may_publish("a") && may_come_down("down/x") && !may_come_down("up/x"));
    }
}
