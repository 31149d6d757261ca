//! `limpet flash` as a person types it, on loop devices: what goes wrong is one sentence with the next step, and what is on the
//! card afterwards does not look like a system.
//!
//! In: `limpet`, e2fsprogs, losetup, xz, zstd, gpg. Out: exit codes, sentences, cards. Never: a drive of this machine.

use limpet_e2e::process::{run, sh, which};
use limpet_e2e::{Binaries, Result, Slot, wait};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;
/// The least that is taken for a card.
const CARD_BYTES: u64 = 64 * MIB;
const ROOT_AT: u64 = 4 * MIB;
const BOARD: &str = "arm64-uefi";

struct Bench {
    limpet: PathBuf,
    dir: PathBuf,
    cards: Vec<String>,
    _slot: Slot,
}

impl Drop for Bench {
    fn drop(&mut self) {
        for card in &self.cards {
            let _ = Command::new("losetup").args(["-d", card]).status();
        }
    }
}

fn bench(test: fn(&mut Bench) -> Result<()>) {
    let tools = ["losetup", "mke2fs", "debugfs", "xz", "zstd"];
    let tool = tools.iter().find(|t| which(t).is_none()).map(|t| format!("needs {t}"));
    if let Some(why) = limpet_e2e::missing().or(tool) {
        println!("skipped: {why}");
        return;
    }
    let made = || {
        let slot = Slot::take()?;
        let limpet = Binaries::build("dev")?.hub;
        Ok::<_, String>(Bench { limpet, dir: slot.dir(), cards: Vec::new(), _slot: slot })
    };
    let mut bench = made().unwrap_or_else(|why| panic!("{why}"));
    test(&mut bench).unwrap_or_else(|why| panic!("{why}"));
}

impl Bench {
    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// A loop device over a file of zeros.
    fn card(&mut self, name: &str, bytes: u64) -> Result<String> {
        let file = fs::File::create(self.path(name)).map_err(|e| e.to_string())?;
        file.set_len(bytes).map_err(|e| e.to_string())?;
        let device = sh("losetup", ["--find", "--show", &self.path(name)])?.trim().to_string();
        self.cards.push(device.clone());
        Ok(device)
    }

    /// One ext4 partition at 4 MiB, as Armbian has it, with a shell for `machine`.
    fn image(&self, name: &str, mib: u64, machine: u16) -> Result<String> {
        let (tree, path) = (self.path(&format!("{name}-tree")), self.path(name));
        fs::create_dir_all(format!("{tree}/usr/bin")).map_err(|e| e.to_string())?;
        fs::create_dir_all(format!("{tree}/etc/netplan")).map_err(|e| e.to_string())?;
        fs::write(format!("{tree}/usr/bin/bash"), program(machine)).map_err(|e| e.to_string())?;
        let file = fs::File::create(&path).map_err(|e| e.to_string())?;
        file.set_len(mib * MIB).map_err(|e| e.to_string())?;
        let mut table = [0u8; 512];
        table[450] = 0x83;
        table[454..458].copy_from_slice(&((ROOT_AT / 512) as u32).to_le_bytes());
        table[458..462].copy_from_slice(&((mib * MIB - ROOT_AT) as u32 / 512).to_le_bytes());
        table[510..].copy_from_slice(&[0x55, 0xaa]);
        file.write_all_at(&table, 0).map_err(|e| e.to_string())?;
        let (offset, blocks) = (format!("offset={ROOT_AT}"), format!("{}k", mib * 1024 - ROOT_AT / 1024));
        sh("mke2fs", ["-q", "-F", "-t", "ext4", "-E", &offset, "-d", &tree, &path, &blocks])?;
        Ok(path)
    }

    /// What it says where it fails, and its output where it does not.
    fn flash(&self, words: &[&str]) -> Result<std::result::Result<String, String>> {
        let mut command = Command::new(&self.limpet);
        command.arg("flash").args(words).stdin(Stdio::null()).env_remove("LIMPET_DATA_DIR").env("HOME", &self.dir);
        let out = run(&mut command)?;
        Ok(if out.code == 0 { Ok(out.stdout) } else { Err(out.stderr) })
    }

    /// It fails with a sentence, which is the last line but for what sums up, and the card has no table.
    fn refused(&self, words: &[&str], says: &[&str], card: Option<&str>) -> Result<()> {
        let what = words.join(" ");
        let Err(said) = self.flash(words)? else { return Err(format!("limpet flash {what} went well")) };
        let there = said.lines().any(|line| says.iter().all(|part| line.contains(part)));
        wait::yes(there, || format!("limpet flash {what} does not say {says:?} but:\n{said}"))?;
        wait::yes(!said.contains("panicked"), || said.clone())?;
        card.map_or(Ok(()), |card| wait::yes(!has_table(Path::new(card))?, || format!("{what}: the card looks like a good one")))
    }
}

/// An ELF file's beginning, for that machine.
fn program(machine: u16) -> Vec<u8> {
    let mut all = b"\x7fELF\x02\x01\x01".to_vec();
    all.resize(18, 0);
    all.extend(machine.to_le_bytes());
    all.resize(8000, 9);
    all
}

fn has_table(card: &Path) -> Result<bool> {
    let mut first = [0; 512];
    let file = fs::File::open(card).map_err(|e| e.to_string())?;
    file.read_exact_at(&mut first, 0).map_err(|e| e.to_string())?;
    Ok(first[510..] == [0x55, 0xaa])
}

const ARM64: u16 = 183;
const AMD64: u16 = 62;

#[test]
fn what_cannot_become_a_card_is_told_and_leaves_none() {
    bench(|b| {
        let (good, foreign) = (b.image("good.img", 60, ARM64)?, b.image("foreign.img", 60, AMD64)?);
        let card = b.card("card", CARD_BYTES)?;
        let agent = b.path("agent");
        fs::write(&agent, program(ARM64)).map_err(|e| e.to_string())?;
        let to = |image: &'static str| -> Vec<String> {
            let words = [BOARD, "--image", &b.path(image), "--device", &card, "--yes", "--name", "rock", "--agent", &agent];
            words.map(str::to_string).to_vec()
        };
        let refused = |image: &'static str, more: &[&str], says: &[&str]| {
            let words = to(image);
            let words: Vec<&str> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
            b.refused(&words, says, Some(&card))
        };
        // Cut off and damaged, packed and not.
        sh("xz", ["-1", "-k", &good])?;
        let packed = fs::read(format!("{good}.xz")).map_err(|e| e.to_string())?;
        fs::write(b.path("cut.xz"), &packed[..packed.len() / 2]).map_err(|e| e.to_string())?;
        refused("cut.xz", &[], &["damaged or cut off", "fetch it again"])?;
        let mut spoiled = packed.clone();
        spoiled[packed.len() / 2] ^= 1;
        fs::write(b.path("spoiled.xz"), spoiled).map_err(|e| e.to_string())?;
        refused("spoiled.xz", &[], &["damaged or cut off", "fetch it again"])?;
        let raw = fs::read(&good).map_err(|e| e.to_string())?;
        fs::write(b.path("cut.img"), &raw[..raw.len() / 2]).map_err(|e| e.to_string())?;
        refused("cut.img", &[], &["beyond the end", "truncated"])?;
        fs::write(b.path("text"), "no image\n".repeat(4000)).map_err(|e| e.to_string())?;
        refused("text", &[], &["no partition table"])?;
        fs::write(b.path("os.zip"), b"PK\x03\x04 and so on").map_err(|e| e.to_string())?;
        refused("os.zip", &[], &["ZIP", "unpack it first"])?;
        refused("nowhere.img", &[], &["nowhere.img", "No such file"])?;
        // Checksums and signatures that do not fit.
        refused("good.img", &["--sha256", &"0".repeat(64)], &["checksum", "nothing was written"])?;
        refused("good.img", &["--sha256", "abc"], &["64 or 128 hexadecimal digits"])?;
        fs::write(b.path("SUMS"), format!("{}  other.img\n", "0".repeat(64))).map_err(|e| e.to_string())?;
        refused("good.img", &["--sums", &b.path("SUMS")], &["has no checksum of good.img"])?;
        // For another machine: seen on the card, before it gets its table.
        refused("foreign.img", &[], &["for amd64", "edition for arm64"])?;
        let _ = foreign;
        // Larger than the card.
        b.image("large.img", 80, ARM64)?;
        refused("large.img", &[], &["too little", "take a larger card"])?;
        sh("zstd", ["-q", "-k", &b.path("large.img")])?;
        refused("large.img.zst", &[], &["too little", "take a larger card"])?;
        sh("gzip", ["-k", "-1", &b.path("large.img")])?;
        // gzip does not say its size: noticed while it is written.
        refused("large.img.gz", &[], &["is full", "larger than it"])?;
        refused("good.img", &["--device", &card], &["named twice"])?;
        refused("good.img", &["--agent", &b.path("text")], &["cannot be used multiple times"])
    })
}

#[test]
fn nobody_is_asked_and_nothing_is_named() {
    bench(|b| {
        let image = b.image("good.img", 60, ARM64)?;
        let card = b.card("card", CARD_BYTES)?;
        let small = b.card("small", 32 * MIB)?;
        let card_of = |device: &str, more: &[&str], says: &[&str]| {
            let words = [&[BOARD, "--image", &image, "--device", device, "--name", "rock"], more].concat();
            b.refused(&words, says, None)
        };
        card_of(&card, &[], &["nobody is there to confirm", "--yes"])?;
        card_of(&small, &["--yes"], &["too little", "take a larger card"])?;
        card_of("/dev/nowhere", &["--yes"], &["/dev/nowhere"])?;
        card_of("/dev/null", &["--yes"], &["not a drive of this machine", "--drives"])?;
        card_of(&image, &["--yes"], &["not a drive in /dev", "--out"])?;
        card_of("/dev/../dev/../tmp", &["--yes"], &["not a drive in /dev"])?;
        b.refused(&["raspberry-pi-44", "--list"], &["there is no board", "raspberry-pi-4"], None)?;
        b.refused(&[BOARD, "--device", &card], &["give --image"], None)?;
        b.refused(&[BOARD, "--image", &image], &["name the card with --device"], None)?;
        b.refused(&[BOARD, "--image", "http://127.0.0.1:9/os.img", "--device", &card], &["plain HTTP", "--sha256"], None)?;
        wait::yes(!has_table(Path::new(&card))?, || "the card was written".into())?;
        // Somebody uses it.
        let place = b.path("place");
        fs::create_dir_all(&place).map_err(|e| e.to_string())?;
        sh("mke2fs", ["-q", "-F", &card])?;
        sh("mount", [&card, &place])?;
        let used = card_of(&card, &["--yes"], &["is mounted on", "umount"]);
        sh("umount", [&place])?;
        used
    })
}

/// A checksum list and an OpenPGP signature as distributions publish them.
#[test]
fn published_lists_and_signatures_let_the_right_image_through() {
    bench(|b| {
        let image = b.image("good.img", 60, ARM64)?;
        let (agent, out, sums) = (b.path("agent"), b.path("out"), b.path("SHA512SUMS"));
        fs::write(&agent, program(ARM64)).map_err(|e| e.to_string())?;
        let home = b.path("gnupg");
        sh("install", ["-d", "-m", "0700", &home])?;
        let gpg = ["--homedir", &home, "--batch", "--quiet", "--pinentry-mode=loopback", "--passphrase", ""];
        if which("gpg").is_none() || which("gpgv").is_none() {
            println!("skipped: needs gpg and gpgv");
            return Ok(());
        }
        let gpg = |words: &[&str]| sh("gpg", [&gpg[..], words].concat());
        gpg(&["--quick-generate-key", "publisher", "ed25519", "sign", "never"])?;
        let (ring, signature) = (b.path("ring.gpg"), b.path("SHA512SUMS.sign"));
        gpg(&["--output", &ring, "--export"])?;
        let sum = sh("sha512sum", [&image])?;
        let sum = sum.split(' ').next().unwrap_or_default();
        fs::write(&sums, format!("{sum}  good.img\n")).map_err(|e| e.to_string())?;
        gpg(&["--output", &signature, "--detach-sign", &sums])?;
        let words = [BOARD, "--image", &image, "--out", &out, "--name", "rock", "--agent", &agent, "--sums", &sums];
        let signed = [&words[..], &["--signature", &signature, "--keyring", &ring]].concat();
        let said = b.flash(&signed)?.map_err(|said| format!("it does not go well: {said}"))?;
        wait::yes(said.contains("written and read back; node rock, joins nothing yet"), || said)?;
        wait::yes(has_table(Path::new(&out))?, || "there is no table".into())?;
        let name = sh("debugfs", ["-R", "cat /etc/hostname", &format!("{out}?offset={ROOT_AT}")])?;
        wait::yes(name.contains("rock"), || name)?;
        // The list was changed after it was signed, so that it fits another image.
        fs::write(&sums, format!("{}  good.img\n", "0".repeat(128))).map_err(|e| e.to_string())?;
        fs::remove_file(&out).map_err(|e| e.to_string())?;
        b.refused(&signed, &["is no signature of", "something else was signed", "nothing was written"], None)?;
        wait::yes(!Path::new(&out).exists(), || "something was written".into())?;
        b.refused(&[&words[..], &["--signature", &signature]].concat(), &["required"], None)
    })
}

#[test]
fn several_cards_at_once_are_nodes_of_their_own_and_stdout_gets_the_image_alone() {
    bench(|b| {
        let image = b.image("good.img", 60, ARM64)?;
        let agent = b.path("agent");
        fs::write(&agent, program(ARM64)).map_err(|e| e.to_string())?;
        let (one, two) = (b.card("one", CARD_BYTES)?, b.card("two", CARD_BYTES)?);
        let labels = b.path("labels");
        let words = [BOARD, "--image", &image, "--device", &one, "--device", &two, "--yes", "--agent", &agent, "--name", "bed"];
        let said = b.flash(&[&words[..], &["--label", &labels]].concat())?;
        let said = said.map_err(|said| format!("it does not go well: {said}"))?;
        wait::yes(said.matches("written and read back").count() == 2, || said.clone())?;
        for (card, name) in [(&one, "bed-1"), (&two, "bed-2")] {
            wait::yes(has_table(Path::new(card))?, || format!("{card} has no table"))?;
            let host = sh("debugfs", ["-R", "cat /etc/hostname", &format!("{card}?offset={ROOT_AT}")])?;
            wait::yes(host.contains(name), || format!("{card} is {host}, not {name}"))?;
            let label = fs::read_to_string(format!("{labels}/{name}.svg")).map_err(|e| e.to_string())?;
            wait::yes(label.contains("<svg") && label.contains(name), || label)?;
        }
        let mut to_stdout = Command::new(&b.limpet);
        to_stdout.args(["flash", BOARD, "--image", &image, "--out", "-"]).stdin(Stdio::null());
        let out = to_stdout.output().map_err(|e| e.to_string())?;
        let want = fs::read(&image).map_err(|e| e.to_string())?;
        wait::yes(out.status.success() && out.stdout == want, || "stdout is not the image".into())
    })
}
