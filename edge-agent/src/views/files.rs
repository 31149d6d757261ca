//! `/logs/`: the board's own log files, as kubelet shows /var/log; and sizes of directories.
//!
//! In: a path below /logs/. Out: a listing, or a file in pieces.
//! Never: leaves /var/log, follows a link out of it, or holds a whole file.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

const ROOT: &str = "/var/log";
const ENTRIES_MAX: usize = 2000;
/// A tree larger than this is not counted to its end.
const COUNTED_MAX: usize = 100_000;

/// What a path below /logs/ is.
#[derive(Debug)]
pub enum LogFiles {
    /// An HTML list of links, as Go's file server makes it.
    Listing(Vec<u8>),
    File(File),
}

impl LogFiles {
    /// `path`: what follows `/logs`. The error is a sentence.
    pub fn open(path: &str) -> Result<LogFiles, String> {
        LogFiles::open_below(Path::new(ROOT), path)
    }

    pub(super) fn open_below(root: &Path, path: &str) -> Result<LogFiles, String> {
        let none = || format!("there is no log file {path} on this node");
        if path.split('/').any(|part| part == "..") {
            return Err(none());
        }
        let root = std::fs::canonicalize(root).map_err(|_| none())?;
        let full: PathBuf = std::fs::canonicalize(root.join(path.trim_start_matches('/'))).map_err(|_| none())?;
        if !full.starts_with(&root) {
            return Err(none());
        }
        let found = std::fs::metadata(&full).map_err(|_| none())?;
        if found.is_dir() {
            return Ok(LogFiles::Listing(listing(&full)));
        }
        if !found.is_file() {
            return Err(none());
        }
        File::open(&full).map(LogFiles::File).map_err(|e| format!("log file {path}: {e}"))
    }

    /// The next piece; empty at the end.
    pub fn next(&mut self) -> Vec<u8> {
        match self {
            LogFiles::Listing(text) => std::mem::take(text),
            LogFiles::File(file) => {
                let mut piece = vec![0; 16 * 1024];
                let n = file.read(&mut piece).unwrap_or(0);
                piece.truncate(n);
                piece
            }
        }
    }
}

fn listing(dir: &Path) -> Vec<u8> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().take(ENTRIES_MAX);
    let mut names: Vec<String> = entries
        .map(|e| {
            let slash = if e.file_type().is_ok_and(|t| t.is_dir()) { "/" } else { "" };
            format!("{}{slash}", e.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    let escape = |t: &str| t.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;");
    let lines = names.iter().map(|n| format!("<a href=\"{0}\">{0}</a>\n", escape(n)));
    format!(
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n{}</pre>\n",
        lines.collect::<String>()
    )
    .into_bytes()
}

/// Bytes on the disk below a directory, links not followed.
pub fn bytes_below(dir: &Path) -> u64 {
    let (mut bytes, mut left) = (0u64, COUNTED_MAX);
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if left == 0 {
                return bytes;
            }
            left -= 1;
            let Ok(found) = entry.metadata() else { continue };
            bytes += found.blocks() * 512;
            if found.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below() {
        let base = std::env::temp_dir().join(format!("limpet-logs-{}", std::process::id()));
        let root = base.join("log");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("a<b"), "text").unwrap();
        std::fs::write(base.join("secret"), "no").unwrap();
        std::os::unix::fs::symlink(base.join("secret"), root.join("link")).unwrap();
        let open = |path: &str| LogFiles::open_below(&root, path).map(|mut f| String::from_utf8(f.next()).unwrap());
        assert!(open("/").unwrap().contains("<a href=\"a&lt;b\">a&lt;b</a>\n<a href=\"link\">link</a>\n<a href=\"sub/\">"));
        assert_eq!(open("/a<b").unwrap(), "text");
        for path in ["/link", "/../secret", "/sub/../../secret", "/none"] {
            assert!(open(path).is_err(), "{path}");
        }
        assert!(bytes_below(&base) > 0);
        let _ = std::fs::remove_dir_all(&base);
    }
}
