//! Checksums and signatures as other people publish them beside their images.
//!
//! In: a list of checksums (SHA256SUMS, SHA512SUMS, NAME.sha256), an image's file name; an OpenPGP signature and a keyring.
//! Out: the checksum to hold the image to; whether somebody of the keyring signed these very bytes, by way of `gpgv`.
//! Never: a checksum that stands for another file; a signature that is judged by an exit code alone.

use std::{
    io::{self, Write},
    path::Path,
    process::{Command, Stdio},
};

/// Longer lists are none.
pub const LIST_BYTES_MAX: usize = 4 << 20;

/// The operator fetches the right file.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    #[error("{list} has no checksum of {name}: take the list that was published with the image, and keep the image's name")]
    NotListed { list: String, name: String },
    #[error("{list} has two checksums of {name}: it is damaged, fetch it again")]
    Twice { list: String, name: String },
    #[error("gpgv is needed to check an OpenPGP signature: install the package gpgv")]
    NoGpgv,
    #[error("{0} is a key in letters, and gpgv takes keyrings: gpg --dearmor < {0} > key.gpg, then --keyring key.gpg")]
    Armoured(String),
    #[error("{signature} is no signature of {what} by a key of {keyring}: {why}; nothing was written")]
    Wrong { signature: String, what: String, keyring: String, why: String },
    #[error("{0}: {1}")]
    File(String, io::Error),
}

/// `list` came from `from`. The sum is SHA-256 or SHA-512, by its length.
pub fn sum_of(list: &str, from: &str, name: &str) -> Result<String, PublishedError> {
    let entries: Vec<(String, &str)> = list.lines().filter_map(entry).collect();
    let own = |(sum, file): &(String, &str)| {
        let only = file.is_empty() && entries.len() == 1;
        (only || file.rsplit('/').next() == Some(name)).then(|| sum.clone())
    };
    let mut found: Vec<String> = entries.iter().filter_map(own).collect();
    found.dedup();
    match (found.pop(), found.is_empty()) {
        (Some(sum), true) => Ok(sum),
        (Some(_), false) => Err(PublishedError::Twice { list: from.into(), name: name.into() }),
        (None, _) => Err(PublishedError::NotListed { list: from.into(), name: name.into() }),
    }
}

/// `SUM  NAME`, `SUM *NAME`, `SHA256 (NAME) = SUM`, or a sum alone.
fn entry(line: &str) -> Option<(String, &str)> {
    let is_sum = |word: &str| matches!(word.len(), 64 | 128) && word.bytes().all(|b| b.is_ascii_hexdigit());
    let line = line.trim();
    if let Some((head, sum)) = line.rsplit_once(" = ") {
        let name = head.strip_prefix("SHA256 (").or_else(|| head.strip_prefix("SHA512 ("))?.strip_suffix(')')?;
        return is_sum(sum).then(|| (sum.to_ascii_lowercase(), name));
    }
    let (sum, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    is_sum(sum).then(|| (sum.to_ascii_lowercase(), name.trim_start().trim_start_matches('*')))
}

/// What was signed: a file as it lies there, or the bytes of a list that was read.
pub enum Signed<'a> {
    File(&'a Path),
    Text(&'a str, &'a Path),
}

/// At least one signature is good, and none is bad.
pub fn check(signed: &Signed<'_>, signature: &Path, keyring: &Path) -> Result<(), PublishedError> {
    let file = |path: &Path| std::fs::canonicalize(path).map_err(|e| PublishedError::File(path.display().to_string(), e));
    let (signature_file, ring_file) = (file(signature)?, file(keyring)?);
    let mut first = [0; 5];
    let begins = std::fs::File::open(&ring_file).and_then(|mut f| io::Read::read(&mut f, &mut first));
    if begins.is_ok() && &first == b"-----" {
        return Err(PublishedError::Armoured(keyring.display().to_string()));
    }
    let (what, input) = match signed {
        Signed::File(path) => (file(path)?, ""),
        Signed::Text(text, _) => ("-".into(), *text),
    };
    let mut command = Command::new("gpgv");
    command.arg("--status-fd=1").arg("--keyring").arg(&ring_file).arg("--").arg(&signature_file).arg(what).env("LC_ALL", "C");
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let told = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => PublishedError::NoGpgv,
        _ => PublishedError::File("gpgv".into(), e),
    };
    let mut child = spawned.map_err(told)?;
    let stdin = child.stdin.take();
    let out = std::thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut to| to.write_all(input.as_bytes())));
        child.wait_with_output()
    });
    let out = out.map_err(told)?;
    let said = String::from_utf8_lossy(&out.stdout);
    let words: Vec<&str> = said.lines().filter_map(|l| l.strip_prefix("[GNUPG:] ")?.split(' ').next()).collect();
    let why = match () {
        () if words.contains(&"BADSIG") => "something else was signed",
        () if words.contains(&"GOODSIG") && words.contains(&"VALIDSIG") => return Ok(()),
        () if words.contains(&"EXPKEYSIG") || words.contains(&"EXPSIG") => "the key or the signature is past its time",
        () if words.contains(&"REVKEYSIG") => "the key was revoked",
        () if words.contains(&"NO_PUBKEY") => "another key made it",
        () => "it cannot be read",
    };
    let name = match signed {
        Signed::File(path) | Signed::Text(_, path) => path.display().to_string(),
    };
    let (signature, keyring) = (signature.display().to_string(), keyring.display().to_string());
    Err(PublishedError::Wrong { signature, what: name, keyring, why: why.into() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::{fs, path::PathBuf};

    #[test]
    fn lists_are_read_as_people_write_them() {
        let (a, b) = ("a".repeat(64), "B".repeat(128));
        let list = format!("# made today\n{a}  os.img.xz\n{a} *./arm/other.img\nSHA512 (third.img) = {b}\nfoo  os.img\n");
        assert_eq!(sum_of(&list, "SUMS", "os.img.xz").unwrap(), a);
        assert_eq!(sum_of(&list, "SUMS", "other.img").unwrap(), a);
        assert_eq!(sum_of(&list, "SUMS", "third.img").unwrap(), b.to_lowercase());
        let said = sum_of(&list, "SUMS", "os.img").unwrap_err().to_string();
        assert!(said.contains("SUMS has no checksum of os.img"), "{said}");
        // A sum alone is anybody's, a list of them is nobody's.
        assert_eq!(sum_of(&format!("{a}\n"), "x", "any").unwrap(), a);
        assert!(sum_of(&format!("{a}\n{a}  other\n"), "x", "any").is_err());
        let twice = format!("{a}  os.img\n{}  os.img\n", "c".repeat(64));
        assert!(matches!(sum_of(&twice, "x", "os.img"), Err(PublishedError::Twice { .. })));
        assert!(sum_of(&format!("{a}  os.img\n{a}  os.img\n"), "x", "os.img").is_ok());
    }

    /// Keys of one person each, made here.
    fn person(dir: &Path, name: &str) -> Option<PathBuf> {
        let home = dir.join(name);
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let made = gpg(&home, &["--quick-generate-key", "--passphrase", "", name, "ed25519", "sign", "never"]);
        let ring = dir.join(format!("{name}.gpg"));
        let done = made && gpg(&home, &["--output", ring.to_str().unwrap(), "--export"]);
        if !done {
            eprintln!("skipped: gpg cannot make a key here");
        }
        done.then_some(home)
    }

    fn gpg(home: &Path, words: &[&str]) -> bool {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--yes", "--quiet", "--pinentry-mode=loopback"]).arg("--homedir").arg(home);
        gpg.args(words).output().is_ok_and(|o| o.status.success())
    }

    #[test]
    fn a_signature_fits_its_bytes_and_its_signer() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (Some(home), Some(_)) = (person(dir.path(), "own"), person(dir.path(), "other")) else { return };
        let list = at("SHA256SUMS");
        fs::write(&list, "some text\n").unwrap();
        let (file, signature) = (list.to_str().unwrap(), at("SHA256SUMS.gpg"));
        for form in [&["--detach-sign"][..], &["--armor", "--detach-sign"]] {
            let words = [&["--output", signature.to_str().unwrap()], form, &[file]].concat();
            assert!(gpg(&home, &words));
            check(&Signed::File(&list), &signature, &at("own.gpg")).unwrap();
            check(&Signed::Text("some text\n", &list), &signature, &at("own.gpg")).unwrap();
            for (text, ring, why) in [("Some text\n", "own.gpg", "something else"), ("some text\n", "other.gpg", "another key")] {
                let said = check(&Signed::Text(text, &list), &signature, &at(ring)).unwrap_err().to_string();
                assert!(said.contains(why) && said.contains("nothing was written"), "{said}");
            }
        }
        fs::write(&signature, "no signature").unwrap();
        let said = check(&Signed::File(&list), &signature, &at("own.gpg")).unwrap_err().to_string();
        assert!(said.contains("cannot be read"), "{said}");
        assert!(gpg(&home, &["--armor", "--output", at("own.asc").to_str().unwrap(), "--export"]));
        let said = check(&Signed::File(&list), &signature, &at("own.asc")).unwrap_err().to_string();
        assert!(said.contains("gpg --dearmor"), "{said}");
    }
}
