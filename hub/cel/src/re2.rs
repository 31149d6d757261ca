//! Regular expressions as Go writes them (RE2 syntax), compiled within a bound.
//!
//! In: a pattern from a schema or an expression, hostile. Out: a compiled expression that needs linear time.
//! Never: backtracks; compiles what would take more than `COMPILED_BYTES_MAX`.

use regex_automata::meta;

const COMPILED_BYTES_MAX: usize = 1 << 20;
const PATTERN_BYTES_MAX: usize = 16 * 1024;
/// Of states that a search makes on its way.
const CACHE_BYTES_MAX: usize = 2 << 20;

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Regex(meta::Regex);

impl Regex {
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The first match.
    pub fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.0.find(text).map(|found| &text[found.range()])
    }

    /// All matches, none within another.
    pub fn find_iter<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        self.0.find_iter(text).map(|found| &text[found.range()])
    }
}

/// What is wrong with a pattern, in one line.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!(
            "the pattern is longer than {PATTERN_BYTES_MAX} bytes"
        ));
    }
    let built = meta::Builder::new()
        .configure(
            meta::Config::new()
                .nfa_size_limit(Some(COMPILED_BYTES_MAX))
                .hybrid_cache_capacity(CACHE_BYTES_MAX),
        )
        .build(&translate(pattern));
    built.map(Regex).map_err(|error| {
        let text = match (error.size_limit(), error.syntax_error()) {
            (Some(bytes), _) => format!("Compiled regex exceeds size limit of {bytes} bytes."),
            (_, Some(syntax)) => syntax.to_string(),
            _ => error.to_string(),
        };
        let last = text
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default();
        last.trim().trim_start_matches("error: ").to_owned()
    })
}

/// Go's Perl classes are ASCII only, its classes do not nest, and it knows `\Q…\E`.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut letters = pattern.chars().peekable();
    let mut class = false;
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('Q') if !class => quote(&mut letters, &mut out),
                Some(escaped) => escape(escaped, class, &mut out),
                None => out.push('\\'),
            },
            '[' if class => match letters.peek() {
                Some(':') => out.push('['),
                _ => out.push_str("\\["),
            },
            '[' => {
                class = true;
                out.push('[');
                if letters.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                // Directly after the bracket this is a literal.
                if letters.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            // The end of a named class ([:alpha:]) does not end the class around it.
            ':' if class
                && letters.peek() == Some(&']')
                && out.contains("[:")
                && !named_ended(&out) =>
            {
                letters.next();
                out.push_str(":]");
            }
            ']' if class => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => {
                out.push('\\');
                out.push(letter);
            }
            '-' if class && letters.peek() == Some(&'-') => out.push_str("\\-"),
            other => out.push(other),
        }
    }
    out
}

fn named_ended(out: &str) -> bool {
    out.rfind("[:")
        .is_none_or(|begin| out[begin..].contains(":]"))
}

fn escape(escaped: char, class: bool, out: &mut String) {
    let ascii = match escaped {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => "\\t\\n\\x0C\\r ",
        'D' => "^0-9",
        'W' => "^0-9A-Za-z_",
        'S' => "^\\t\\n\\x0C\\r ",
        'b' | 'B' if !class => {
            out.push_str(if escaped == 'b' {
                "(?-u:\\b)"
            } else {
                "(?-u:\\B)"
            });
            return;
        }
        _ => {
            out.push('\\');
            out.push(escaped);
            return;
        }
    };
    if class && !ascii.starts_with('^') {
        out.push_str(ascii);
    } else {
        out.push('[');
        out.push_str(ascii);
        out.push(']');
    }
}

fn quote(letters: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    while let Some(letter) = letters.next() {
        if letter == '\\' && letters.next_if_eq(&'E').is_some() {
            return;
        }
        out.push_str(&regex_syntax::escape(letter.encode_utf8(&mut [0; 4])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        let cases = [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١٢", false),
            (r"^[\d\w-]+$", "a-1", true),
            (r"^[^\s]+$", "a b", false),
            (r"^[[:alpha:]_]+$", "ab_", true),
            (r"^[[a]+$", "[a[", true),
            (r"^[]a]+$", "]a", true),
            (r"^[a&&b]+$", "&", true),
            (r"\Qa.b\E", "axb", false),
            (r"^a\.b$", "a.b", true),
            (
                r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$",
                "* * * * */5",
                true,
            ),
        ];
        for (pattern, text, expect) in cases {
            assert_eq!(
                compile(pattern).unwrap().is_match(text),
                expect,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn hostile_patterns_are_refused() {
        for pattern in ["(", "a{1000}{1000}{1000}", "(?=a)", "[z-a]", "\\"] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
        assert!(compile(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
    }
}
