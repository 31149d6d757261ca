//! `$(NAME)` in env values, commands and arguments.
//!
//! In: text and the variables known so far. Out: the text with known names replaced; `$$` is one dollar.
//! Never: fails; an unknown name stays as it is written. Source: Kubernetes "Define Dependent Environment Variables".

pub fn expand(text: &str, variables: &[(String, String)]) -> String {
    expand_or(text, variables, &mut |_| {})
}

/// The same; unknown names are told.
pub fn expand_or(text: &str, variables: &[(String, String)], unknown: &mut dyn FnMut(&str)) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match variables.iter().rev().find(|(n, _)| n == name) {
                Some((_, value)) => out.push_str(value),
                None => {
                    unknown(name);
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn as_kubernetes_expands() {
        let vars = [("A".to_string(), "1".to_string()), ("B".to_string(), "two".to_string())];
        for (text, want) in [
            ("", ""),
            ("$(A)", "1"),
            ("x$(A)$(B)y", "x1twoy"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(C)", "$(C)"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("a$b", "a$b"),
            ("ü$(A)", "ü1"),
        ] {
            assert_eq!(super::expand(text, &vars), want, "{text}");
        }
    }
}
