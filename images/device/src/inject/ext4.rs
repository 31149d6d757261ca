//! Files in an ext4 file system inside a larger file or drive, by way of debugfs.
//!
//! In: the target, the area, files. Out: the files, owned by root, read back. Content travels in files of a private folder,
//! whose names are numbers. Never: a shell; a debugfs line with a path that was not checked.

use super::{InjectError, bounded};
use crate::provision::{Put, What};
use crate::table::Area;
use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Room that is left for the system's own first boot.
const SPARE_BYTES: u64 = 4 << 20;

fn debugfs() -> Result<PathBuf, InjectError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.map(|d| d.join("debugfs")).find(|p| p.is_file()).ok_or(InjectError::NoDebugfs)
}

/// One run: requests on stdin, answers on stdout.
fn run(target: &Path, area: &Area, write: bool, requests: &str, dir: Option<&Path>) -> Result<String, InjectError> {
    // debugfs starts in a folder of its own, where a relative path leads nowhere.
    let mut device = fs::canonicalize(target)?.into_os_string();
    device.push(format!("?offset={}", area.start));
    let mut command = Command::new(debugfs()?);
    if write {
        command.arg("-w");
    }
    command.args(["-f", "-"]).arg(device).env("LC_ALL", "C").env("DEBUGFS_PAGER", "cat").env("PAGER", "cat");
    if let Some(dir) = dir {
        command.current_dir(dir);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take();
    let text = requests.to_string();
    let feeder = std::thread::spawn(move || stdin.as_mut().map(|s| s.write_all(text.as_bytes())));
    let out = child.wait_with_output()?;
    let _ = feeder.join();
    Ok(format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

/// Which of these paths there are.
pub fn paths(target: &Path, area: &Area, wanted: &[&str]) -> Result<Vec<bool>, InjectError> {
    let requests: String = wanted.iter().map(|p| format!("stat {p}\n")).collect();
    let said = run(target, area, false, &requests, None)?;
    let answers: Vec<&str> = said.split("debugfs: stat ").skip(1).collect();
    Ok((0..wanted.len()).map(|i| answers.get(i).is_some_and(|a| a.contains("Inode:"))).collect())
}

/// Bytes of the file system's description of itself, 1,024 from its beginning on.
fn description(target: &Path, area: &Area) -> Result<[u8; 1024], InjectError> {
    let mut all = [0; 1024];
    fs::File::open(target)?.read_exact_at(&mut all, area.start + 1024)?;
    Ok(all)
}

/// It was in use when it was copied: its next mount overwrites places that look free now.
pub fn has_journal_to_replay(target: &Path, area: &Area) -> Result<bool, InjectError> {
    const RECOVER: u8 = 4;
    Ok(description(target, area)?[0x60] & RECOVER != 0)
}

/// The first bytes of these files, none of what is no file there.
pub fn beginnings(target: &Path, area: &Area, wanted: &[&str]) -> Result<Vec<Vec<u8>>, InjectError> {
    const BYTES: usize = 64;
    let shift = u32::from(description(target, area)?[0x18]);
    let requests: String = wanted.iter().map(|p| format!("bmap {p} 0\n")).collect();
    let said = run(target, area, false, &requests, None)?;
    let blocks = said.split("debugfs: bmap ").skip(1).map(|answer| answer.lines().nth(1)?.trim().parse::<u64>().ok());
    let file = fs::File::open(target)?;
    let begin = |block: Option<u64>| {
        let mut first = vec![0; BYTES];
        let within = block.filter(|b| *b > 0)?.checked_mul(1024u64.checked_shl(shift)?).filter(|at| *at < area.bytes)?;
        file.read_exact_at(&mut first, area.start + within).ok().map(|()| first)
    };
    Ok(blocks.map(|block| begin(block).unwrap_or_default()).collect())
}

/// A folder that goes away with what was in it: the join token is among it.
struct Private(PathBuf);

impl Private {
    fn new() -> Result<Private, InjectError> {
        for attempt in 0..100 {
            let dir = std::env::temp_dir().join(format!("limpet-inject-{}-{attempt}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => return Ok(Private(dir)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(std::io::Error::other("no private folder can be made in the temporary directory").into())
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), InjectError> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.0.join(name))?;
        Ok(file.write_all(content)?)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn put(target: &Path, area: &Area, files: &[Put]) -> Result<(), InjectError> {
    room(target, area, files)?;
    let private = Private::new()?;
    let mut requests = String::new();
    // debugfs spoils the parent of a directory that it is told to make and that is there.
    let mut made = present(target, area, files)?;
    for (number, file) in files.iter().enumerate() {
        parents(&file.path, &mut made, &mut requests);
        let (path, mode) = (&file.path, file.mode);
        match &file.what {
            What::File(content) => {
                bounded(content.len(), path)?;
                private.write(&number.to_string(), content)?;
                requests.push_str(&format!("rm {path}\nwrite {number} {path}\nset_inode_field {path} mode 0{:o}\n", 0o100_000 | mode));
                requests.push_str(&format!("set_inode_field {path} uid 0\nset_inode_field {path} gid 0\n"));
            }
            What::Link(to) => {
                if !super::fit_path(to) {
                    return Err(InjectError::Path(to.clone()));
                }
                requests.push_str(&format!("rm {path}\nsymlink {path} {to}\n"));
            }
            What::Directory => {
                if !made.contains(path) {
                    requests.push_str(&format!("mkdir {path}\n"));
                    made.push(path.clone());
                }
                requests.push_str(&format!("set_inode_field {path} mode 0{:o}\n", 0o40_000 | mode));
            }
            What::Words(_) => return Err(InjectError::Put(path.clone(), "words go to the boot partition".into())),
        }
    }
    let said = run(target, area, true, &requests, Some(&private.0))?;
    check(target, area, files, &private, &said)
}

/// Every directory on the way to a path, the outermost first.
fn ways(path: &str) -> Vec<String> {
    let ends = path.char_indices().skip(1).filter(|(_, c)| *c == '/').map(|(at, _)| at);
    ends.map(|at| path[..at].to_string()).collect()
}

/// Those of the directories that files need that are there.
fn present(target: &Path, area: &Area, files: &[Put]) -> Result<Vec<String>, InjectError> {
    let own = files.iter().filter(|f| f.what == What::Directory).map(|f| f.path.clone());
    let mut all: Vec<String> = files.iter().flat_map(|f| ways(&f.path)).chain(own).collect();
    all.sort();
    all.dedup();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    let there = paths(target, area, &names)?;
    Ok(all.into_iter().zip(there).filter_map(|(path, there)| there.then_some(path)).collect())
}

fn parents(path: &str, made: &mut Vec<String>, requests: &mut String) {
    for way in ways(path) {
        if !made.contains(&way) {
            requests.push_str(&format!("mkdir {way}\n"));
            made.push(way);
        }
    }
}

fn room(target: &Path, area: &Area, files: &[Put]) -> Result<(), InjectError> {
    let said = run(target, area, false, "show_super_stats -h\n", None)?;
    let field = |name: &str| {
        let line = said.lines().find_map(|l| l.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    let free = field("Free blocks:").unwrap_or(0) * field("Block size:").unwrap_or(0);
    let size = |f: &Put| if let What::File(content) = &f.what { content.len() as u64 } else { 4096 };
    let needs = files.iter().map(size).sum::<u64>() + SPARE_BYTES;
    if free < needs { Err(InjectError::NoRoom(needs, free)) } else { Ok(()) }
}

/// Every file is dumped again and compared.
fn check(target: &Path, area: &Area, files: &[Put], private: &Private, said: &str) -> Result<(), InjectError> {
    let contents = || files.iter().enumerate().filter(|(_, f)| matches!(f.what, What::File(_)));
    let requests: String = contents().map(|(n, f)| format!("dump {} back-{n}\n", f.path)).collect();
    run(target, area, false, &requests, Some(&private.0))?;
    for (number, file) in contents() {
        let back = fs::read(private.0.join(format!("back-{number}"))).unwrap_or_default();
        if !matches!(&file.what, What::File(content) if *content == back) {
            let complaint = said.lines().find(|l| l.contains(&file.path) && !l.starts_with("debugfs: ")).unwrap_or_default();
            return Err(InjectError::Put(file.path.clone(), format!("it read back differently {complaint}")));
        }
    }
    Ok(())
}
