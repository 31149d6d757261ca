//! Updates of Limpet OS: from the hub's registry into the folder of the board's first process.
//!
//! In: the kernel's command line, a wanted version, the key that signs updates. Out: a file that `limpet-init` installs, or a
//! sentence why not; what `limpet-init` says of it. An update is the artifact `hub.limpet/limpet/os/BOARD:VERSION`: its config is
//! the signed head, its layers are the parts that the head names.
//! Never: a part that the head does not name; a name in the folder that `limpet-init` takes before all is on the disk.

use crate::{
    device, images,
    update::{Failed, failed, from_hex},
};
use limpet_agent_core::os_update::file_name;
use limpet_protocol::os_update::{self, HEAD_BYTES_MAX, Manifest, OS_IMAGE, Said};
use ring::signature::{ED25519, UnparsedPublicKey};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// For tests: the root of a pretended Limpet OS.
const TEST_ROOT: &str = "LIMPET_FAKE_OS";
const INCOMING: &str = "data/os/incoming";
const SAID: &str = "data/os/said.json";
const KEY: &str = "etc/limpet/update.pub";
const TEXT_BYTES_MAX: u64 = 16 * 1024;
const WHY_CHARS_MAX: usize = 300;
/// Of a file that is not complete; `limpet-init` takes `.update`.
const PART: &str = ".part";
/// Beside the update's two copies.
const ROOM_BYTES: u64 = 32 << 20;

/// A board that runs Limpet OS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Os {
    root: PathBuf,
    pub board: String,
    pub running: String,
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).trim().to_string()
}

impl Os {
    pub fn here() -> Option<Os> {
        Os::at(&std::env::var_os(TEST_ROOT).map_or_else(|| "/".into(), PathBuf::from))
    }

    fn at(root: &Path) -> Option<Os> {
        let line = text(&root.join("proc/cmdline"));
        let word = |key: &str| line.split_whitespace().find_map(|w| w.strip_prefix(key)).map(String::from);
        let os = Os { root: root.into(), board: word("limpet.board=")?, running: word("limpet.version=")? };
        os.incoming().is_dir().then_some(os)
    }

    /// As the node's status has it, and the hub reads it.
    pub fn image(&self) -> String {
        format!("{OS_IMAGE}{}", self.running)
    }

    fn incoming(&self) -> PathBuf {
        self.root.join(INCOMING)
    }

    pub fn boot(&self) -> String {
        match text(&self.root.join("proc/sys/kernel/random/boot_id")) {
            none if none.is_empty() => device::boot_id(),
            boot => boot,
        }
    }

    /// What the first process says; `None`: it is of an image that did not know how to.
    pub fn said(&self) -> Option<Said> {
        let mut said: Said = serde_json::from_str(&text(&self.root.join(SAID))).ok()?;
        // Of another start: the first process has not come to it yet.
        if said.running != self.running {
            said = Said { running: self.running.clone(), good: false, failed: said.failed };
        }
        if let Some(failed) = &mut said.failed {
            failed.why = failed.why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WHY_CHARS_MAX).collect();
        }
        Some(said)
    }

    /// Whether this version still lies there for the first process.
    pub fn waits(&self, version: &str) -> bool {
        self.incoming().join(file_name(version)).exists()
    }

    /// Hands a fetched update over.
    pub fn put(&self, version: &str) -> Result<(), String> {
        let to = self.incoming().join(file_name(version));
        fs::rename(self.part(version), &to)
            .and_then(|()| File::open(self.incoming())?.sync_all())
            .map_err(|e| format!("{}: {e}", to.display()))
    }

    fn part(&self, version: &str) -> PathBuf {
        self.incoming().join(format!("{}{PART}", file_name(version)))
    }

    /// Removes what an earlier fetch left there.
    pub fn clean(&self) {
        for entry in fs::read_dir(self.incoming()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|n| n.starts_with("limpet-") && n.ends_with(PART));
            if ours && let Err(e) = fs::remove_file(entry.path()) {
                log::warn!("update: {} cannot be removed: {e}", entry.path().display());
            }
        }
    }

    /// The image's own key, or else the hub's; as `limpet-init` chooses.
    fn key(&self, hub: &str) -> Result<Vec<u8>, String> {
        let mut own = Vec::new();
        if let Ok(file) = File::open(self.root.join(KEY)) {
            let _ = file.take(TEXT_BYTES_MAX).read_to_end(&mut own);
            return Ok(own);
        }
        from_hex(hub).ok_or_else(|| "this board has no key of the hub's to check it with; it comes when its certificate is renewed".into())
    }
}

/// What a fetch needs to know.
pub struct Ask {
    pub os: Os,
    pub wanted: String,
    /// The hub's Ed25519 key as hex.
    pub key: String,
}

/// The update is complete and on the disk, under a name that nobody takes.
pub async fn fetch(images: &images::Store, ask: &Ask) -> Result<(), Failed> {
    os_update::is_version(&ask.wanted).map_err(Failed::Never)?;
    let name = format!("hub.limpet/{}:{}", os_update::repository(&ask.os.board), ask.wanted);
    let head = images.document(&name, HEAD_BYTES_MAX).await.map_err(|e| Failed::Later(e.to_string()))?;
    let key = ask.os.key(&ask.key).map_err(Failed::Later)?;
    let manifest = verify(&head, &key).map_err(Failed::Never)?;
    manifest.admit(&ask.wanted, &ask.os.running, &ask.os.board).map_err(Failed::Never)?;
    let (free, needed) = (device::disk_bytes(&ask.os.incoming()).1, 2 * manifest.bytes() + ROOM_BYTES);
    if free < needed {
        let mib = |bytes: u64| bytes >> 20;
        return Err(Failed::Later(format!("it needs {} MiB of the board's disk, which has {} MiB left", mib(needed), mib(free))));
    }
    let mut parts = Vec::new();
    for part in manifest.parts() {
        parts.push(images.file(&name, &part.sha256, part.bytes).await.map_err(failed)?);
    }
    let (path, pieces) = (ask.os.part(&ask.wanted), parts.clone());
    let written = tokio::task::spawn_blocking(move || write(&path, &head, &pieces)).await;
    let told = |e: io::Error| Failed::Later(format!("cannot put it into {}: {e}", ask.os.incoming().display()));
    written.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(told)?;
    parts.iter().for_each(|part| drop(fs::remove_file(part)));
    Ok(())
}

fn write(path: &Path, head: &[u8], parts: &[PathBuf]) -> io::Result<()> {
    let mut file = File::create(path)?;
    io::copy(&mut &*head, &mut file)?;
    for part in parts {
        io::copy(&mut File::open(part)?, &mut file)?;
    }
    file.sync_all()
}

fn verify(document: &[u8], key: &[u8]) -> Result<Manifest, String> {
    let head = os_update::split(document)?;
    if head.whole.len() != document.len() {
        return Err("its head is followed by something".into());
    }
    UnparsedPublicKey::new(&ED25519, key)
        .verify(head.manifest, head.signature)
        .map_err(|_| "its signature does not fit the key of this image or, where that has none, of its hub".to_string())?;
    serde_json::from_slice(head.manifest).map_err(|e| format!("its manifest cannot be read: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    fn board(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("limpet-os-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("proc")).unwrap();
        fs::write(root.join("proc/cmdline"), "quiet limpet.board=rock-5 limpet.slot=a limpet.version=0.1.0\n").unwrap();
        root
    }

    #[test]
    fn limpet_os_is_known_by_its_command_line_and_its_folder() {
        let root = board("known");
        assert_eq!(Os::at(&root), None);
        fs::create_dir_all(root.join(INCOMING)).unwrap();
        let os = Os::at(&root).unwrap();
        assert_eq!((os.board.as_str(), os.image().as_str()), ("rock-5", "Limpet OS 0.1.0"));
        assert_eq!(os.said(), None);
        let why = format!("a\nb{}", "x".repeat(1000));
        let said = serde_json::json!({"running": "0.1.0", "good": true, "failed": {"file": "f", "why": why}, "later": 1});
        fs::write(root.join(SAID), said.to_string()).unwrap();
        let got = os.said().unwrap();
        assert!(got.good && got.failed.is_some_and(|f| f.why.starts_with("a b") && f.why.len() == WHY_CHARS_MAX));
        fs::write(root.join(SAID), r#"{"running": "0.0.9", "good": true}"#).unwrap();
        assert!(os.said().is_some_and(|s| !s.good && s.running == "0.1.0"), "what was said in another start is not of this one");
        assert_eq!(os.key(&"0f".repeat(32)).unwrap(), [15; 32]);
        assert!(os.key("").is_err());
        fs::create_dir_all(root.join("etc/limpet")).unwrap();
        fs::write(root.join(KEY), [7; 32]).unwrap();
        assert_eq!(os.key(&"0f".repeat(32)).unwrap(), [7; 32]);
        fs::write(root.join("proc/cmdline"), "quiet\n").unwrap();
        assert_eq!(Os::at(&root), None);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn the_first_process_gets_a_whole_file_or_none() {
        let root = board("whole");
        fs::create_dir_all(root.join(INCOMING)).unwrap();
        let os = Os::at(&root).unwrap();
        let parts = ["kernel", "files"].map(|name| {
            fs::write(root.join(name), name).unwrap();
            root.join(name)
        });
        write(&os.part("0.2.0"), b"head-", &parts).unwrap();
        let names = || fs::read_dir(os.incoming()).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        assert!(!os.waits("0.2.0") && names() == ["limpet-0.2.0.update.part"]);
        os.put("0.2.0").unwrap();
        assert!(os.waits("0.2.0"));
        assert_eq!(fs::read(os.incoming().join("limpet-0.2.0.update")).unwrap(), b"head-kernelfiles");
        fs::write(os.part("0.3.0"), "half").unwrap();
        os.clean();
        assert_eq!(names(), ["limpet-0.2.0.update"]);
        assert!(os.put("0.3.0").is_err());
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn only_heads_with_the_right_signature_are_believed() {
        let key = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let part = format!(r#"{{"bytes":3,"sha256":"{}"}}"#, "ab".repeat(32));
        let json = format!(r#"{{"board":"rock-5","version":"0.2.0","options":"","linux":{part},"initrd":{part}}}"#);
        let length = u32::try_from(json.len()).unwrap().to_le_bytes();
        let signature = key.sign(json.as_bytes());
        let head = [os_update::MAGIC.as_slice(), &length, json.as_bytes(), signature.as_ref()].concat();
        let public = key.public_key().as_ref();
        assert_eq!(verify(&head, public).unwrap().version, "0.2.0");
        assert!(verify(&head, &[9; 32]).unwrap_err().contains("signature"));
        assert!(verify(&[head.as_slice(), b"x"].concat(), public).is_err());
        for at in 0..head.len() {
            let mut bad = head.clone();
            bad[at] ^= 1;
            assert!(verify(&bad, public).is_err(), "flipped at {at}");
        }
    }
}
