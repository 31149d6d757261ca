//! What people see.
//!
//! In: names, the message, a count. Out: HTML or plain text. Never: text from outside that is not escaped.

use std::fmt::Write;

pub struct Facts {
    pub pod: String,
    pub node: String,
    pub message: String,
    pub requests: u64,
    pub uptime_s: u64,
}

pub fn text(facts: &Facts) -> String {
    let Facts { pod, node, message, requests, uptime_s } = facts;
    format!("{message}\npod {pod} on {node}, request {requests}, up {uptime_s} s\n")
}

pub fn html(facts: &Facts) -> String {
    let mut rows = String::new();
    let count = facts.requests.to_string();
    let uptime = format!("{} s", facts.uptime_s);
    for (name, value) in [("pod", &facts.pod), ("node", &facts.node), ("requests", &count), ("up", &uptime)] {
        // Writing to a String cannot fail.
        let _ = write!(rows, "<tr><th>{name}<td>{}", escape(value));
    }
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Limpet demo</title>\
         <meta name=viewport content='width=device-width'><meta http-equiv=refresh content=2>\
         <style>body{{font:18px/1.5 system-ui;margin:12vh auto;max-width:34rem;padding:0 1rem;\
         background:#f4f1ea;color:#22303a}}h1{{font-size:2rem;line-height:1.2}}th{{text-align:left;\
         padding-right:2rem;font-weight:400;color:#6b7780}}</style>\
         <h1>{}</h1><table>{rows}</table>",
        escape(&facts.message)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_escaped() {
        let message = "<script>\"&".to_string();
        let facts = Facts { pod: "p".into(), node: "n".into(), message, requests: 7, uptime_s: 1 };
        assert!(html(&facts).contains("&lt;script&gt;&quot;&amp;"));
        assert!(text(&facts).contains("pod p on n, request 7"));
    }
}
