//! How the machine's programs ended, as it told on its console.
//!
//! In: the console's lines. Out: a log for each program, a table, an error for what failed or never ended; what each came to is
//! kept in a file as soon as it is known, so that a run that was cut can go on where it was.
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
    /// Which commit's it was, and on which day.
    of: String,
    skipped: Vec<String>,
}

impl Ended {
    /// As the file has it; what was left out may be any words.
    fn line(&self) -> String {
        let Ended { name, code, seconds, passed, of, skipped } = self;
        format!("{name}\t{code}\t{seconds}\t{passed}\t{of}\t{}\n", skipped.join("; "))
    }

    fn parse(line: &str) -> Option<Ended> {
        let words: Vec<&str> = line.splitn(6, '\t').collect();
        let [name, code, seconds, passed, of, skipped] = words.as_slice() else { return None };
        Some(Ended {
            name: (*name).into(),
            code: code.parse().ok()?,
            seconds: seconds.parse().ok()?,
            passed: passed.parse().ok()?,
            of: (*of).into(),
            skipped: skipped.split("; ").filter(|word| !word.is_empty()).map(String::from).collect(),
        })
    }
}

pub type Results = Vec<Ended>;

/// What is known of all programs that ever ran here; of each the last.
pub fn kept(file: &Path) -> Results {
    let mut all: Results = Vec::new();
    // A line that was cut is a program that runs once more.
    for ended in fs::read_to_string(file).unwrap_or_default().lines().filter_map(Ended::parse) {
        all.retain(|other| other.name != ended.name);
        all.push(ended);
    }
    all
}

/// Those of the names that have not passed.
pub fn left(names: Vec<String>, kept: &[Ended]) -> Vec<String> {
    let passed = |name: &String| kept.iter().any(|ended| ended.name == *name && ended.code == 0);
    names.into_iter().filter(|name| !passed(name)).collect()
}

pub struct Heard {
    pub results: Results,
    logs: PathBuf,
    file: PathBuf,
    of: String,
    now: Option<(Ended, fs::File)>,
}

impl Heard {
    /// `of` says which commit on which day.
    pub fn new(logs: &Path, file: &Path, of: &str) -> Heard {
        Heard { results: Vec::new(), logs: logs.to_path_buf(), file: file.to_path_buf(), of: of.into(), now: None }
    }

    fn keep(&self, ended: &Ended) -> Result<(), String> {
        let file = fs::OpenOptions::new().create(true).append(true).open(&self.file);
        let written = file.and_then(|mut file| file.write_all(ended.line().as_bytes()));
        written.map_err(|e| format!("{}: {e}", self.file.display()))
    }

    pub fn line(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.strip_prefix(MARK).unwrap_or_default().split_whitespace().collect();
        match (words.as_slice(), &mut self.now) {
            ([name, "begins"], _) => {
                let path = self.logs.join(format!("{}.log", name.replace("::", ".")));
                let file = fs::File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                let of = self.of.clone();
                let ended = Ended { name: (*name).into(), code: -1, seconds: 0, passed: 0, of, skipped: Vec::new() };
                self.now = Some((ended, file));
            }
            ([name, "ends", code, seconds], Some((ended, _))) if ended.name == *name => {
                let number = |word: &str| word.parse::<u64>().map_err(|_| format!("the machine said {line:?}"));
                (ended.code, ended.seconds) = (i32::try_from(number(code)?).unwrap_or(-1), number(seconds)?);
                if let Some((ended, _)) = self.now.take() {
                    self.keep(&ended)?;
                    self.results.push(ended);
                }
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
                ("passed", format!("{:>6} s {:>3} tests  {}  {}", r.seconds, r.passed, r.of, r.skipped.join("; ")))
            }
            Some(r) => ("FAILED", format!("{:>6} s {:>3} tests passed, {}, exit code {}", r.seconds, r.passed, r.of, r.code)),
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
        let file = logs.join("results");
        let mut heard = Heard::new(&logs, &file, "1a2b3c 2026-01-02");
        let said = "kernel 6.1\nlimpet-v2: pods begins\ntest a ... ok\nskipped: no /dev/fuse\n\
                    test result: ok. 12 passed; 0 failed; 0 ignored\nlimpet-v2: pods ends 0 61\n\
                    limpet-v2: board begins\nlimpet-v2: other ends 0 1\nlimpet-v2: board ends 101 5\nlimpet-v2: cut begins\nhalf";
        for line in said.split_inclusive('\n') {
            heard.line(line).unwrap();
        }
        let wanted = ["pods", "board", "cut"].map(String::from);
        let (table, all) = judge(&wanted, &heard.results);
        assert!(table.contains("pods             passed     61 s  12 tests  1a2b3c 2026-01-02  skipped: no /dev/fuse\n"), "{table}");
        assert!(table.contains("board            FAILED      5 s   0 tests passed, 1a2b3c 2026-01-02, exit code 101\n"), "{table}");
        assert!(table.contains("cut              FAILED the machine did not come to its end\n"), "{table}");
        assert_eq!(all.unwrap_err(), "failed on cgroup v2: board cut; again: name them");
        assert_eq!(judge(&wanted[..1], &heard.results).1, Ok(()));
        // The next run knows, also after a cut in the middle of a line.
        assert_eq!(kept(&file), heard.results);
        let mut text = fs::read_to_string(&file).unwrap();
        text.push_str(&text.replace("board\t101", "board\t0"));
        fs::write(&file, format!("{text}cut\t0\t1")).unwrap();
        assert_eq!(left(wanted.to_vec(), &heard.results), ["board", "cut"]);
        assert_eq!(left(wanted.to_vec(), &kept(&file)), ["cut"]);
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
