//! Metrics in Prometheus' text format.
//!
//! In: families and samples. Out: text. Never: a label's value that is not escaped.

use std::fmt::Write;

#[derive(Default)]
pub struct Text(String);

impl Text {
    /// Begins a family; `kind` is `counter`, `gauge` or `histogram`.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A family of one sample.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    #[test]
    fn as_prometheus_reads_it() {
        let mut text = super::Text::default();
        text.one("up", "gauge", "Is it.", 1);
        text.sample("x_total", &[("a", "b\"c\\d\n"), ("e", "")], 0.5);
        let want = "# HELP up Is it.\n# TYPE up gauge\nup 1\nx_total{a=\"b\\\"c\\\\d\\n\",e=\"\"} 0.5\n";
        assert_eq!(String::from_utf8(text.into_bytes()).unwrap(), want);
    }
}
