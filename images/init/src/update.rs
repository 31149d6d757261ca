//! Updates of the system: a signed file that somebody left in /data/os/incoming.
//!
//! In: `NAME.update`: magic, length of the manifest, manifest (JSON), its Ed25519 signature, kernel, initial file system. The
//! agent leaves it there when its node's object names a version; a pod with that folder as a hostPath may do so, too.
//! Out: the other slot, to be tried at the next boot. Never: a byte of a file whose signature does not fit in any slot; what runs
//! already, what is older, or what did not stay up: a pod leaves the same file there again at each of its starts.

use crate::{
    log::say,
    said::Voice,
    slots::{Release, Slots},
};
use limpet_protocol::os_update::{self, MAGIC, MANIFEST_BYTES_MAX, PART_BYTES_MAX};
use ring::{
    digest,
    signature::{ED25519, UnparsedPublicKey},
};
use serde::Deserialize;
use std::{
    cmp::Ordering,
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const INCOMING: &str = "/data/os/incoming";
const WORK: &str = "/data/os/work";
/// The image's own key: where there is one, no other counts.
const KEY: &str = "/etc/limpet/update.pub";
/// What the agent was given at its join, the hub's key for its own releases among it.
const IDENTITY: &str = "/var/lib/limpet/identity/identity.json";
const IDENTITY_BYTES_MAX: u64 = 256 * 1024;
const EVERY: Duration = Duration::from_secs(5);

/// Mirrors `limpet_device::os::bundle::Manifest`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    board: String,
    version: String,
    /// The kernel's command line without slot and version.
    options: String,
    linux: Part,
    initrd: Part,
    /// Where the boot loader takes it from the slot.
    #[serde(default)]
    device_tree: Option<Part>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    bytes: u64,
    sha256: String,
}

/// Who may sign: `limpet image build --update-key`, else the hub that this board has joined.
fn key(image: &Path, identity: &Path) -> Result<Vec<u8>, String> {
    #[derive(Deserialize)]
    struct Identity {
        #[serde(default)]
        update_key: String,
    }
    if let Ok(key) = fs::read(image) {
        return Ok(key);
    }
    let nobody = || "this image has no update key, and this board has joined no hub that has one".to_string();
    let mut text = Vec::new();
    let read = File::open(identity).and_then(|file| file.take(IDENTITY_BYTES_MAX).read_to_end(&mut text));
    read.map_err(|_| nobody())?;
    let told: Identity = serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", identity.display()))?;
    let hex = told.update_key;
    if hex.len() != 64 || !hex.is_ascii() {
        return Err(nobody());
    }
    (0..32).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).map_err(|_| nobody())).collect()
}

/// Whether a board that runs `running` takes `offered`. What runs and cannot be read is older than anything.
pub fn wanted(offered: &str, running: &str) -> Result<(), String> {
    os_update::is_version(offered)?;
    match os_update::compare(offered, running) {
        None | Some(Ordering::Greater) => Ok(()),
        Some(Ordering::Equal) => Err(format!("it is version {offered}, which runs already")),
        Some(Ordering::Less) => Err(format!(
            "it is version {offered}, older than {running}, which runs; to go back make one with a greater --os-version"
        )),
    }
}

pub struct Updates {
    board: String,
    running: String,
    next: Instant,
}

impl Updates {
    pub fn new(board: String, running: String) -> Updates {
        Updates { board, running, next: Instant::now() }
    }

    /// The version that was put into the other slot.
    pub fn look_after(&mut self, slots: &Slots, voice: &mut Voice) -> Option<String> {
        if Instant::now() < self.next {
            return None;
        }
        self.next = Instant::now() + EVERY;
        let found = fs::read_dir(INCOMING).ok()?.flatten().map(|e| e.path());
        let file = found.filter(|p| p.extension().is_some_and(|e| e == "update")).min()?;
        let outcome = self.apply(&file, slots);
        // Told before the file goes: whoever left it there reads the outcome when it is gone.
        match &outcome {
            Ok(_) => voice.taken(),
            Err(why) => voice.refused(&file, why),
        }
        // Tried once: what failed would fail again, and a good one is in its slot.
        let _ = fs::remove_file(&file);
        let _ = fs::remove_dir_all(WORK);
        match outcome {
            Ok(version) => Some(version),
            Err(why) => {
                say!("the update {} was refused: {why}", file.display());
                None
            }
        }
    }

    fn apply(&self, file: &Path, slots: &Slots) -> Result<String, String> {
        let key = key(Path::new(KEY), Path::new(IDENTITY))?;
        let unpacked = unpack(file, &key, &self.board, Path::new(WORK))?;
        wanted(&unpacked.version, &self.running)?;
        if slots.gave_up(&unpacked.version) {
            return Err(format!("version {} was tried here and did not stay up; make one with a greater --os-version", unpacked.version));
        }
        say!("update {} goes into slot {}", unpacked.version, slots.other());
        let release = Release {
            version: &unpacked.version,
            options: &unpacked.options,
            linux: &unpacked.linux,
            initrd: &unpacked.initrd,
            tree: unpacked.tree.as_deref(),
        };
        slots.write(&release)?;
        Ok(unpacked.version)
    }
}

#[derive(Debug)]
struct Unpacked {
    version: String,
    options: String,
    linux: PathBuf,
    initrd: PathBuf,
    tree: Option<PathBuf>,
}

/// Everything is checked before anything is used.
fn unpack(file: &Path, key: &[u8], board: &str, work: &Path) -> Result<Unpacked, String> {
    let told = |e: std::io::Error| format!("it is damaged or cut off: {e}");
    let mut from = File::open(file).map_err(told)?;
    let mut head = [0; 12];
    from.read_exact(&mut head).map_err(told)?;
    let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if &head[..8] != MAGIC || length as usize > MANIFEST_BYTES_MAX {
        return Err("it is not an update of Limpet OS".into());
    }
    let mut manifest = vec![0; length as usize];
    from.read_exact(&mut manifest).map_err(told)?;
    let mut signature = [0; 64];
    from.read_exact(&mut signature).map_err(told)?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&manifest, &signature)
        .map_err(|_| "its signature does not fit the key of this image or, where that has none, of its hub".to_string())?;
    let manifest: Manifest = serde_json::from_slice(&manifest).map_err(|e| format!("its manifest: {e}"))?;
    if manifest.board != board {
        return Err(format!("it is for the board {}, this is a {board}", manifest.board));
    }
    // U-Boot's script puts them into a variable: nothing that it would read as its own.
    let fit = |s: &str| s.bytes().all(|b| (b.is_ascii_graphic() || b == b' ') && !b"$;\\\"'`".contains(&b));
    let version = manifest.version.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.') && !manifest.version.is_empty();
    if !fit(&manifest.options) || !version {
        return Err("its version or its command line cannot be".into());
    }
    fs::create_dir_all(work).map_err(|e| e.to_string())?;
    let (linux, initrd) = (work.join("linux"), work.join("initrd"));
    part(&mut from, &manifest.linux, &linux)?;
    part(&mut from, &manifest.initrd, &initrd)?;
    let tree = manifest.device_tree.as_ref().map(|_| work.join("tree"));
    if let (Some(described), Some(path)) = (&manifest.device_tree, &tree) {
        part(&mut from, described, path)?;
    }
    Ok(Unpacked { version: manifest.version, options: manifest.options, linux, initrd, tree })
}

fn part(from: &mut File, part: &Part, to: &Path) -> Result<(), String> {
    if part.bytes > PART_BYTES_MAX {
        return Err("a part is too large".into());
    }
    let mut file = File::create(to).map_err(|e| e.to_string())?;
    let mut sum = digest::Context::new(&digest::SHA256);
    let (mut left, mut buffer) = (part.bytes, vec![0; 256 << 10]);
    while left > 0 {
        let piece = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        from.read_exact(&mut buffer[..piece]).map_err(|e| format!("it is damaged or cut off: {e}"))?;
        sum.update(&buffer[..piece]);
        file.write_all(&buffer[..piece]).map_err(|e| format!("no room for it: {e}"))?;
        left -= piece as u64;
    }
    let got: String = sum.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect();
    match got == part.sha256 {
        true => file.sync_all().map_err(|e| e.to_string()),
        false => Err("a part's checksum does not fit".into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    fn sum(bytes: &[u8]) -> String {
        digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect()
    }

    fn bundle(key: &Ed25519KeyPair, board: &str, version: &str) -> Vec<u8> {
        let manifest = format!(
            r#"{{"board":"{board}","version":"{version}","options":"quiet",
                "linux":{{"bytes":6,"sha256":"{}"}},"initrd":{{"bytes":5,"sha256":"{}"}}{}}}"#,
            sum(b"kernel"),
            sum(b"files"),
            if board == TREE { format!(r#","deviceTree":{{"bytes":4,"sha256":"{}"}}"#, sum(b"tree")) } else { String::new() }
        );
        let mut all = MAGIC.to_vec();
        all.extend((manifest.len() as u32).to_le_bytes());
        all.extend(manifest.as_bytes());
        all.extend(key.sign(manifest.as_bytes()).as_ref());
        all.extend(b"kernelfiles");
        if board == TREE {
            all.extend(b"tree");
        }
        all
    }

    /// A board whose slots have device trees.
    const TREE: &str = "beaglebone-black";

    #[test]
    fn a_device_tree_comes_along_where_the_slot_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let key = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let path = dir.path().join("x.update");
        let good = bundle(&key, TREE, "1.2");
        fs::write(&path, &good).unwrap();
        let got = unpack(&path, key.public_key().as_ref(), TREE, &dir.path().join("work")).unwrap();
        assert_eq!(fs::read(got.tree.unwrap()).unwrap(), b"tree");
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(unpack(&path, key.public_key().as_ref(), TREE, &dir.path().join("work")).unwrap_err().contains("cut off"));
    }

    #[test]
    fn the_images_own_key_counts_or_else_the_hubs() {
        let dir = tempfile::tempdir().unwrap();
        let (image, identity) = (dir.path().join("update.pub"), dir.path().join("identity.json"));
        assert!(key(&image, &identity).unwrap_err().contains("has joined no hub"));
        let no_hex = format!(r#"{{"update_key":"{}"}}"#, "x".repeat(64));
        for bad in [r#"{"node_name":"rock"}"#, r#"{"update_key":""}"#, r#"{"update_key":"zz"}"#, &no_hex] {
            fs::write(&identity, bad).unwrap();
            assert!(key(&image, &identity).unwrap_err().contains("no update key"), "{bad}");
        }
        fs::write(&identity, format!(r#"{{"node_name":"rock","update_key":"{}0f"}}"#, "a0".repeat(31))).unwrap();
        assert_eq!(key(&image, &identity).unwrap(), [&[0xa0; 31][..], &[0x0f]].concat());
        fs::write(&identity, "{").unwrap();
        assert!(key(&image, &identity).is_err());
        fs::write(&image, [7; 32]).unwrap();
        assert_eq!(key(&image, &identity).unwrap(), [7; 32]);
    }

    #[test]
    fn only_what_is_newer_is_taken() {
        for (offered, running, says) in [
            ("2.0", "1.9", None),
            ("1.10", "1.9", None),
            ("1.0.1", "1.0", None),
            ("1.0", "", None),
            ("1.0", "1.0.0", Some("runs already")),
            ("2.0", "2.0", Some("runs already")),
            ("1.9", "1.10", Some("older than 1.10")),
            ("1.x", "1.0", Some("not a version")),
        ] {
            let got = wanted(offered, running).err();
            assert_eq!(got.is_some(), says.is_some(), "{offered} {running}: {got:?}");
            assert!(says.is_none_or(|says| got.unwrap_or_default().contains(says)), "{offered} {running}");
        }
    }

    #[test]
    fn only_what_is_signed_whole_and_for_this_board_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let key = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let other = Ed25519KeyPair::from_seed_unchecked(&[2; 32]).unwrap();
        let try_one = |bytes: &[u8]| {
            let path = dir.path().join("x.update");
            fs::write(&path, bytes).unwrap();
            unpack(&path, key.public_key().as_ref(), "qemu-arm64", &dir.path().join("work"))
        };
        let good = bundle(&key, "qemu-arm64", "1.2");
        let got = try_one(&good).unwrap();
        assert_eq!((got.version.as_str(), got.options.as_str()), ("1.2", "quiet"));
        assert_eq!((fs::read(got.linux).unwrap(), fs::read(got.initrd).unwrap()), (b"kernel".to_vec(), b"files".to_vec()));
        assert!(try_one(&bundle(&other, "qemu-arm64", "1.2")).unwrap_err().contains("signature"));
        assert!(try_one(&bundle(&key, "raspberry-pi-4", "1.2")).unwrap_err().contains("this is a qemu-arm64"));
        assert!(try_one(&bundle(&key, "qemu-arm64", "1/2")).unwrap_err().contains("cannot be"));
        for cut in 0..good.len() {
            assert!(try_one(&good[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(try_one(&bad).is_err(), "flipped at {at}");
        }
    }
}
