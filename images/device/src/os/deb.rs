//! Debian packages, opened without dpkg.
//!
//! In: a .deb file (ar with data.tar in xz, zstd or gzip). Out: the files whose paths were asked for.
//! Never: writes a file of the package anywhere; a path that climbs.

use crate::limits::INJECTED_BYTES_MAX;
use limpet_oci::{
    decompress::Decompressed,
    tar::{Kind, Reader},
};
use lzma_rust2::XzReader;
use std::{collections::BTreeMap, io::Read, path::Path};

/// A package of kernels has several thousand files; this bounds what is kept of it.
const KEPT_BYTES_MAX: usize = 512 << 20;
/// Packages of firmware have some hundred.
const LINKS_MAX: usize = 20_000;

/// What was asked for of a package.
#[derive(Debug, Default)]
pub struct Contents {
    /// Regular files: path without `./`, content.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Symbolic links, asked for or not: path, and where it leads within the package.
    pub links: BTreeMap<String, String>,
}

/// Regular files that `wanted` says yes to, by path without `./`.
pub fn files(package: &Path, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Vec<u8>>, String> {
    contents(package, wanted).map(|found| found.files)
}

/// The same with the package's links.
pub fn contents(package: &Path, wanted: impl Fn(&str) -> bool) -> Result<Contents, String> {
    let bytes = std::fs::read(package).map_err(|e| e.to_string())?;
    let (name, data) = data_member(&bytes)?;
    match name.as_str() {
        "data.tar.xz" => unpack(XzReader::new(data, true), wanted),
        "data.tar.zst" | "data.tar.gz" | "data.tar" => unpack(Decompressed::new(data).map_err(|e| e.to_string())?, wanted),
        other => Err(format!("its content is packed as {other}")),
    }
}

/// The ar archive's member that begins with `data.tar`.
fn data_member(bytes: &[u8]) -> Result<(String, &[u8]), String> {
    let mut rest = bytes.strip_prefix(b"!<arch>\n").ok_or("it is not a Debian package")?;
    while rest.len() >= 60 {
        let (head, body) = rest.split_at(60);
        let text = |from: usize, to: usize| String::from_utf8_lossy(&head[from..to]).trim().to_string();
        let size: usize = text(48, 58).parse().map_err(|_| "a member's size is not a number")?;
        let data = body.get(..size).ok_or("it is cut off")?;
        let name = text(0, 16).trim_end_matches('/').to_string();
        if name.starts_with("data.tar") {
            return Ok((name, data));
        }
        rest = body.get(size.next_multiple_of(2)..).unwrap_or_default();
    }
    Err("it has no data.tar".into())
}

/// Where a link leads: `a/b/c` and `../d` are `a/d`. Nothing when it climbs out.
fn target(path: &str, to: &str) -> Option<String> {
    let mut parts: Vec<&str> = if to.starts_with('/') { Vec::new() } else { path.split('/').collect() };
    parts.pop();
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

fn unpack(stream: impl Read, wanted: impl Fn(&str) -> bool) -> Result<Contents, String> {
    let mut reader = Reader::new(stream);
    let mut found = Contents::default();
    let mut kept = 0;
    while let Some(entry) = reader.next_entry().map_err(|e| e.to_string())? {
        let path = String::from_utf8_lossy(&entry.path).trim_start_matches("./").to_string();
        if let Kind::Symlink(to) = &entry.kind
            && found.links.len() < LINKS_MAX
        {
            let to = target(&path, &String::from_utf8_lossy(to));
            found.links.extend(to.map(|to| (path.clone(), to)));
        }
        if !matches!(entry.kind, Kind::File) || !wanted(&path) {
            continue;
        }
        let mut content = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read_data(&mut buffer).map_err(|e| e.to_string())? {
                0 => break,
                n => content.extend_from_slice(&buffer[..n]),
            }
            if content.len() > INJECTED_BYTES_MAX * 2 || kept + content.len() > KEPT_BYTES_MAX {
                return Err(format!("{path} is too large"));
            }
        }
        kept += content.len();
        found.files.insert(path, content);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_within_the_package() {
        for (path, to, leads) in [
            ("lib/firmware/brcm/a.bin", "../cypress/b.bin", Some("lib/firmware/cypress/b.bin")),
            ("lib/a/b.so.1", "b.so.1.2", Some("lib/a/b.so.1.2")),
            ("lib64/ld.so", "/lib/a/ld.so", Some("lib/a/ld.so")),
            ("a/b", "../../c", None),
            ("a", "../c", None),
        ] {
            assert_eq!(target(path, to).as_deref(), leads, "{path} -> {to}");
        }
    }
}
