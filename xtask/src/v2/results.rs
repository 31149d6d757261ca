//! How the machine's programs ended, as it told on its console.
//!
//! In: the console's lines. Out: a log for each program, a table, an error for what failed or never ended.
//! Never: a program that passed because nothing was heard of it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// How the machine begins what it tells of itself, and not of a program: `NAME begins`, `NAME ends CODE SECONDS`.
pub const MARK: &str = "limpet-v2:";

#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    name: String,
    code: i32,
    seconds: u64,
    passed: u32,
    skipped: Vec<String>,
}

pub type Results = Vec<Ended>;

pub struct Heard {
    pub results: Results,
    logs: PathBuf,
    now: Option<(Ended, fs::File)>,
}

impl Heard {
    pub fn new(logs: &Path) -> Heard {
        Heard { results: Vec::new(), logs: logs.to_path_buf(), now: None }
    }

    pub fn line(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.strip_prefix(MARK).unwrap_or_default().split_whitespace().collect();
        match (words.as_slice(), &mut self.now) {
            ([name, "begins"], _) => {
                let path = self.logs.join(format!("{}.log", name.replace("::", ".")));
                let file = fs::File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                self.now = Some((Ended { name: (*name).into(), code: -1, seconds: 0, passed: 0, skipped: Vec::new() }, file));
            }
            ([name, "ends", code, seconds], Some((ended, _))) if ended.name == *name => {
                let number = |word: &str| word.parse::<u64>().map_err(|_| format!("the machine said {line:?}"));
                (ended.code, ended.seconds) = (i32::try_from(number(code)?).unwrap_or(-1), number(seconds)?);
                self.results.extend(self.now.take().map(|(ended, _)| ended));
            }
            (_, Some((ended, file))) => {
                file.write_all(line.as_bytes()).map_err(|e| format!("{}: {e}", self.logs.display()))?;
                let said = line.trim();
                if said.starts_with("skipped") {
                    ended.skipped.push(said.into());
                }
                let counted = said.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "));
                let passed = counted.and_then(|(_, counts)| counts.split_once(" passed")?.0.parse::<u32>().ok());
                ended.passed += passed.unwrap_or(0);
            }
            _ => {}
        }
        Ok(())
    }
}

/// A line for each that was wanted, and an error unless all have passed.
pub fn judge(wanted: &[String], results: &[Ended]) -> (String, Result<(), String>) {
    let mut table = String::new();
    let mut failed = Vec::new();
    for name in wanted {
        let (result, rest) = match results.iter().find(|r| r.name == *name) {
            Some(r @ Ended { code: 0, .. }) => {
                ("passed", format!("{:>6} s {:>3} tests  {}", r.seconds, r.passed, r.skipped.join("; ")))
            }
            Some(r) => ("FAILED", format!("{:>6} s {:>3} tests passed, exit code {}", r.seconds, r.passed, r.code)),
            None => ("FAILED", "the machine did not come to its end".into()),
        };
        table.push_str(&format!("{name:<16} {result} {}\n", rest.trim_end()));
        if result == "FAILED" {
            failed.push(name.as_str());
        }
    }
    let all = match failed.is_empty() {
        true if !wanted.is_empty() => Ok(()),
        true => Err("nothing was wanted".into()),
        false => Err(format!("failed on cgroup v2: {}; again: name them", failed.join(" "))),
    };
    (table, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_becomes_a_table() {
        let logs = sh_dir();
        let mut heard = Heard::new(&logs);
        let said = "kernel 6.1\nlimpet-v2: pods begins\ntest a ... ok\nskipped: no /dev/fuse\n\
                    test result: ok. 12 passed; 0 failed; 0 ignored\nlimpet-v2: pods ends 0 61\n\
                    limpet-v2: board begins\nlimpet-v2: other ends 0 1\nlimpet-v2: board ends 101 5\nlimpet-v2: cut begins\nhalf";
        for line in said.split_inclusive('\n') {
            heard.line(line).unwrap();
        }
        let wanted = ["pods", "board", "cut"].map(String::from);
        let (table, all) = judge(&wanted, &heard.results);
        assert!(table.contains("pods             passed     61 s  12 tests  skipped: no /dev/fuse\n"), "{table}");
        assert!(table.contains("board            FAILED      5 s   0 tests passed, exit code 101\n"), "{table}");
        assert!(table.contains("cut              FAILED the machine did not come to its end\n"), "{table}");
        assert_eq!(all.unwrap_err(), "failed on cgroup v2: board cut; again: name them");
        assert_eq!(judge(&wanted[..1], &heard.results).1, Ok(()));
        let log = fs::read_to_string(logs.join("pods.log")).unwrap();
        assert!(log.starts_with("test a ... ok\n") && !log.contains(MARK), "{log}");
        fs::remove_dir_all(&logs).unwrap();
    }

    fn sh_dir() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("limpet-v2-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}
