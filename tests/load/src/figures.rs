//! The table of what was measured.
//!
//! In: one figure after the other; each is told at once. Out: a table in Markdown, as docs/PROMISES.md has it.

use crate::proc::Server;

pub struct Figures {
    rows: Vec<(String, String, &'static str)>,
    only: String,
}

impl Figures {
    pub fn new(only: &str) -> Figures {
        Figures { rows: Vec::new(), only: only.to_owned() }
    }

    /// Whether this figure is wanted.
    pub fn wants(&self, what: &str) -> bool {
        what.contains(&self.only)
    }

    pub fn say(&mut self, what: impl Into<String>, measured: impl Into<String>, mark: &'static str) {
        let (what, measured) = (what.into(), measured.into());
        if self.wants(&what) {
            eprintln!("{what}: {measured}");
            self.rows.push((what, measured, mark));
        }
    }

    pub fn memory(&mut self, what: &str, server: &Server, mark: &'static str) {
        if let Some((rss, pss)) = server.memory() {
            let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
            self.say(what, format!("PSS {:.1} MiB, RSS {:.1} MiB", mib(pss), mib(rss)), mark);
        }
    }

    pub fn print(&self) {
        println!("| what | measured | mark |\n|---|---|---|");
        for (what, measured, mark) in &self.rows {
            println!("| {what} | {measured} | {mark} |");
        }
    }
}
