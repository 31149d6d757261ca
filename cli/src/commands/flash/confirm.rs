//! The question before a drive is overwritten.
//!
//! In: the drives, a terminal. Out: yes, or an error. Never: takes a mere `y`, which fingers type by themselves.

use limpet_device::flash::Drive;
use std::io::{BufRead, IsTerminal, Write};

pub fn ask(drives: &[Option<Drive>]) -> Result<(), String> {
    let drives: Vec<&Drive> = drives.iter().flatten().collect();
    if drives.is_empty() {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err("nobody is there to confirm; say --yes to overwrite the drive without being asked".into());
    }
    eprintln!("Everything on these drives will be lost:");
    for drive in &drives {
        eprintln!("  {}", drive.describe());
    }
    let wanted: Vec<&str> = drives.iter().map(|d| d.name.as_str()).collect();
    eprint!("Type {} to go on: ", wanted.join(" "));
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|e| format!("cannot read the answer: {e}"))?;
    match is_yes(&line, &wanted) {
        true => Ok(()),
        false => Err("not confirmed; nothing was written".into()),
    }
}

fn is_yes(line: &str, wanted: &[&str]) -> bool {
    let words: Vec<&str> = line.split_whitespace().map(|w| w.trim_start_matches("/dev/")).collect();
    words == wanted
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_names_confirm() {
        let lines = [("sdb\n", true), ("/dev/sdb\n", true), ("y\n", false), ("", false), ("sdc\n", false), ("sdb sdc", false)];
        for (line, yes) in lines {
            assert_eq!(super::is_yes(line, &["sdb"]), yes, "{line:?}");
        }
        assert!(super::is_yes("sdb sdc\n", &["sdb", "sdc"]));
    }
}
