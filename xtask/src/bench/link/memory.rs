//! What the agent's link takes of a board's memory, page by page.
//!
//! In: a hub, `limpet-board` built as the agent is built for devices. Out: the proportional set size of one board's process, what
//! it is made of, and what each further board adds to a crowd in one process.
//! A copy of the program runs, so that no other process shares a page of it. Never: a board that lives on.

use super::super::Figure;
use limpet_e2e::World;
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// Crowds whose difference is told: the first holds what any number needs.
const CROWDS: [usize; 2] = [100, 200];
const REST: Duration = Duration::from_secs(10);

/// Bytes of a process, by what the pages are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pages {
    pss: u64,
    /// Pages that another process has, too.
    shared: u64,
    code: u64,
    constants: u64,
    /// Everything that is in no file, or was changed since it came from there.
    own: u64,
}

pub fn run(world: &World, program: &Path) -> Result<Vec<Figure>, String> {
    let dir = world.slot.dir().join("boards");
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let copy = dir.join("limpet-board");
    std::fs::copy(program, &copy).map_err(|e| format!("cannot copy {}: {e}", program.display()))?;
    let token = world.hub.token(&["--ttl", "1h"])?;
    let live = |first: usize, boards: usize| pages(world, &copy, &dir, (first, boards), &token);
    // The first start joins, which a device does once in its life.
    live(0, 1)?;
    let one = live(0, 1)?;
    let small = live(1, CROWDS[0])?;
    let large = live(1 + CROWDS[0], CROWDS[1])?;
    let kib = |bytes: u64| bytes / 1024;
    let words = format!(
        "PSS {:.2} MiB: code {} KiB, constants {} KiB, not of its file {} KiB; {} KiB shared with others",
        one.pss as f64 / 1_048_576.0,
        kib(one.code),
        kib(one.constants),
        kib(one.own),
        kib(one.shared)
    );
    let each = large.own.saturating_sub(small.own) as f64 / (CROWDS[1] - CROWDS[0]) as f64 / 1000.0;
    Ok(vec![
        Figure::new("the agent's link, one board in a process of its own", words, "≤ 3 MiB"),
        Figure::new("each further board's link in one process", format!("{each:.1} KB"), "report"),
    ])
}

fn pages(world: &World, program: &Path, dir: &Path, (first, boards): (usize, usize), token: &str) -> Result<Pages, String> {
    let keys = dir.join(first.to_string());
    std::fs::create_dir_all(&keys).map_err(|e| e.to_string())?;
    let mut child = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", world.agents[0].namespace))
        .arg(program)
        .arg(&keys)
        .args([&first.to_string(), &boards.to_string(), token])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start {}: {e}", program.display()))?;
    let mut line = String::new();
    let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
    let ready = read.is_some_and(|read| read.is_ok()) && line.trim() == "in sync";
    super::super::proc::rest(REST);
    let maps = std::fs::read_to_string(format!("/proc/{}/smaps", child.id())).unwrap_or_default();
    drop(child.stdin.take());
    child.wait().map_err(|e| e.to_string())?;
    match ready {
        true => Ok(sums(&maps, program)),
        false => Err("the boards in a process of their own did not come in sync".into()),
    }
}

/// As proc_pid_smaps(5) tells of each mapping.
fn sums(maps: &str, program: &Path) -> Pages {
    let program = program.to_string_lossy();
    let (mut pages, mut of_file, mut runs) = (Pages::default(), false, false);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(first), Some(second)) = (words.next(), words.next()) else { continue };
        if !first.ends_with(':') {
            // `from-to rights offset device inode file`
            (of_file, runs) = (line.ends_with(&*program), second.contains('x'));
            continue;
        }
        let bytes = second.parse::<u64>().unwrap_or(0) * 1024;
        match first {
            "Pss:" => {
                pages.pss += bytes;
                match (of_file, runs) {
                    (true, true) => pages.code += bytes,
                    (true, false) => pages.constants += bytes,
                    (false, _) => {}
                }
            }
            "Shared_Clean:" | "Shared_Dirty:" => pages.shared += bytes,
            // Changed pages of the file are counted here, and not as constants.
            "Anonymous:" => {
                pages.own += bytes;
                if of_file && !runs {
                    pages.constants = pages.constants.saturating_sub(bytes);
                }
            }
            _ => {}
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_is_counted_once() {
        let mapping = |rights: &str, file: &str, pss: u64, shared: u64, anonymous: u64| {
            format!(
                "00400000-00500000 {rights} 00000000 00:01 7 {file}\nSize: 900 kB\nRss: 900 kB\nPss: {pss} kB\n\
                 Shared_Clean: {shared} kB\nShared_Dirty: 0 kB\nAnonymous: {anonymous} kB\nVmFlags: rd mr\n"
            )
        };
        let maps = [
            mapping("r-xp", "/x/limpet-board", 500, 0, 0),
            mapping("r--p", "/x/limpet-board", 200, 0, 0),
            mapping("rw-p", "/x/limpet-board", 60, 0, 40),
            mapping("rw-p", "[heap]", 100, 0, 100),
            mapping("r-xp", "[vdso]", 4, 8, 0),
        ];
        let k = 1024;
        let want = Pages { pss: 864 * k, shared: 8 * k, code: 500 * k, constants: 220 * k, own: 140 * k };
        assert_eq!(sums(&maps.concat(), Path::new("/x/limpet-board")), want);
    }
}
