//! Links in pages that came through the proxy: they must lead through it again.
//!
//! In: a page, the path under which the client sees the pod, the host that it asked. Out: the page with links to
//! the pod's own absolute paths led through the proxy.
//! Never: touches relative links, other hosts, or text outside of tags.

/// Attributes that hold a link, by element.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("video", &["poster", "src"]),
];

/// One link as the client has to follow it.
pub fn link(link: &str, front: &str, host: &str) -> String {
    let (before, rest) = match own_host(link, host) {
        Some(rest) => (&link[..link.len() - rest.len()], rest),
        None => ("", link),
    };
    if !rest.starts_with('/') || (before.is_empty() && rest.starts_with("//")) {
        return link.to_owned();
    }
    if rest.strip_prefix(front).is_some_and(|more| more.is_empty() || more.starts_with(['/', '?', '#'])) {
        return link.to_owned();
    }
    format!("{before}{front}{rest}")
}

/// What follows `http://host`, when the link names the host that was asked.
fn own_host<'l>(link: &'l str, host: &str) -> Option<&'l str> {
    let rest = link.strip_prefix("http://").or_else(|| link.strip_prefix("https://"))?;
    let rest = rest.strip_prefix(host).filter(|_| !host.is_empty())?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

pub fn page(text: &str, front: &str, host: &str) -> String {
    let mut out = String::with_capacity(text.len() + 256);
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        if tag.starts_with("<!--") {
            let end = tag.find("-->").map_or(tag.len(), |e| e + 3);
            out.push_str(&tag[..end]);
            rest = &tag[end..];
            continue;
        }
        let (name, after) = tag_name(&tag[1..]);
        out.push_str(&tag[..tag.len() - after.len()]);
        let links = LINKS.iter().find(|(element, _)| name.eq_ignore_ascii_case(element)).map(|(_, l)| *l);
        rest = attributes(after, links.unwrap_or_default(), |value| link(value, front, host), &mut out);
        if name.eq_ignore_ascii_case("script") || name.eq_ignore_ascii_case("style") {
            let end = rest.find("</").unwrap_or(rest.len());
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    out
}

fn tag_name(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    text.split_at(end)
}

/// Copies the attributes of a tag up to its end, changing the links among them. Out: what follows the tag.
fn attributes<'t>(
    mut text: &'t str,
    links: &[&str],
    change: impl Fn(&str) -> String,
    out: &mut String,
) -> &'t str {
    loop {
        let name_at = text.find(|c: char| !c.is_whitespace() && c != '/').unwrap_or(text.len());
        out.push_str(&text[..name_at]);
        text = &text[name_at..];
        if let Some(after) = text.strip_prefix('>') {
            out.push('>');
            return after;
        }
        if text.is_empty() || text.starts_with('<') {
            return text;
        }
        let name_end = text.find(|c: char| c.is_whitespace() || "=>/".contains(c)).unwrap_or(text.len());
        // A stray sign counts as a name of its own, so that there is always progress.
        let name_end = name_end.max(text.chars().next().map_or(1, char::len_utf8));
        let (name, after) = text.split_at(name_end);
        out.push_str(name);
        text = after;
        let value_at = text.trim_start().strip_prefix('=').map(str::trim_start);
        let Some(value_text) = value_at else { continue };
        out.push_str(&text[..text.len() - value_text.len()]);
        let (quote, value, after) = value(value_text);
        out.push_str(quote);
        if links.iter().any(|l| name.eq_ignore_ascii_case(l)) {
            out.push_str(&change(value));
        } else {
            out.push_str(value);
        }
        out.push_str(&value_text[quote.len() + value.len()..value_text.len() - after.len()]);
        text = after;
    }
}

/// (opening quote, value, what follows the closing quote).
fn value(text: &str) -> (&str, &str, &str) {
    for quote in ["\"", "'"] {
        if let Some(rest) = text.strip_prefix(quote) {
            let end = rest.find(quote).unwrap_or(rest.len());
            let after = rest.get(end + 1..).unwrap_or_default();
            return (quote, &rest[..end], after);
        }
    }
    let end = text.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(text.len());
    ("", &text[..end], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRONT: &str = "/api/v1/namespaces/d/pods/p/proxy";

    #[test]
    fn links_to_the_pod_go_through_the_proxy() {
        for (input, expect) in [
            ("/x", "/api/v1/namespaces/d/pods/p/proxy/x"),
            ("x/y", "x/y"),
            ("//other/x", "//other/x"),
            ("http://other/x", "http://other/x"),
            ("https://hub:6443/x?y", "https://hub:6443/api/v1/namespaces/d/pods/p/proxy/x?y"),
            ("/api/v1/namespaces/d/pods/p/proxy/x", "/api/v1/namespaces/d/pods/p/proxy/x"),
            ("#top", "#top"),
            ("", ""),
        ] {
            assert_eq!(link(input, FRONT, "hub:6443"), expect, "{input}");
        }
    }

    #[test]
    fn pages() {
        let front = "/f";
        for (input, expect) in [
            ("<a href=\"/rewriteme\">test</a>", "<a href=\"/f/rewriteme\">test</a>"),
            ("<A HREF='/x' class=/y>/z</A>", "<A HREF='/f/x' class=/y>/z</A>"),
            ("<img src=/a.png><p title=\"/b\">", "<img src=/f/a.png><p title=\"/b\">"),
            ("<!-- <a href=\"/x\"> --><a\nhref = \"/y\" />", "<!-- <a href=\"/x\"> --><a\nhref = \"/f/y\" />"),
            ("<script src=\"/s\">if (a<b) x='<a href=\"/q\">'</script>",
             "<script src=\"/f/s\">if (a<b) x='<a href=\"/q\">'</script>"),
            ("a < b && c > d", "a < b && c > d"),
            ("<a href=\"/unclosed", "<a href=\"/f/unclosed"),
            ("<a href", "<a href"),
            ("<\u{fc} href=\"/x\"><=\u{fc}>", "<\u{fc} href=\"/x\"><=\u{fc}>"),
        ] {
            assert_eq!(page(input, front, "h"), expect, "{input}");
        }
    }
}
