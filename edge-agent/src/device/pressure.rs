//! Pressure stall information: how long work waited for CPU, memory or disk.
//!
//! In: text of the kernel's `*.pressure` files. Out: numbers; `None` where the kernel does not count.
//! Source: the kernel's "PSI - Pressure Stall Information".

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    pub some: Stall,
    /// All work waited; the machine's own CPU line has none.
    pub full: Stall,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Percent of the last 10, 60 and 300 seconds.
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    /// Microseconds since the start.
    pub total_us: u64,
}

pub fn parse(text: &str) -> Option<Pressure> {
    let line = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    Some(Pressure { some: stall(line("some")?)?, full: line("full").and_then(stall).unwrap_or_default() })
}

fn stall(line: &str) -> Option<Stall> {
    let value = |name: &str| line.split_whitespace().find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str| value(name)?.parse::<f64>().ok();
    Some(Stall {
        avg10: number("avg10")?,
        avg60: number("avg60")?,
        avg300: number("avg300")?,
        total_us: value("total")?.parse().ok()?,
    })
}

/// The whole machine's, for `cpu`, `memory` or `io`.
pub fn of_machine(what: &str) -> Option<Pressure> {
    parse(&std::fs::read_to_string(format!("/proc/pressure/{what}")).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let text = "some avg10=1.50 avg60=0.00 avg300=0.25 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let found = parse(text).unwrap();
        assert_eq!((found.some.avg10, found.some.avg300, found.some.total_us, found.full.total_us), (1.5, 0.25, 12345, 7));
        assert_eq!(parse("some avg10=x"), None);
        assert_eq!(parse(""), None);
    }
}
