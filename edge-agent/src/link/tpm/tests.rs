//! Keys in a simulated TPM (Debian's swtpm): the same at each start, in no other TPM, and good for what others verify.
//!
//! In: swtpm, where it is installed. Out: signatures that ring accepts. Never: a TPM of this machine.

use super::*;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

struct Simulated {
    dir: PathBuf,
    child: Child,
}

impl Simulated {
    /// `None`: not installed.
    fn start(name: &str) -> Option<Simulated> {
        let dir = std::env::temp_dir().join(format!("limpet-swtpm-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let socket = |name: &str| format!("type=unixio,path={}", dir.join(name).display());
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"]);
        command.arg(format!("dir={}", dir.display())).args(["--server", &socket("tpm"), "--ctrl", &socket("control")]);
        let Ok(child) = command.stderr(Stdio::null()).spawn() else {
            eprintln!("skipped: swtpm is not installed (cargo xtask setup)");
            return None;
        };
        let simulated = Simulated { dir, child };
        let begin = Instant::now();
        while !simulated.dir.join("tpm").exists() {
            assert!(begin.elapsed() < Duration::from_secs(30), "swtpm does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(simulated)
    }

    fn place(&self) -> String {
        format!("unix:{}", self.dir.join("tpm").display())
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn is_signed(tpm: &Tpm, message: &[u8]) -> bool {
    let signature = tpm.sign(message).unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, tpm.point()).verify(message, &signature).is_ok()
}

#[test]
fn a_key_is_the_same_in_its_own_tpm_only() {
    let (Some(own), Some(other)) = (Simulated::start("own"), Simulated::start("other")) else { return };
    let data = own.dir.join("data");
    let tpm = load_or_choose(&data, &own.place()).unwrap().unwrap();
    for n in 0..20u8 {
        assert!(is_signed(&tpm, &[n]), "signatures of any length of their numbers");
    }
    // The same for who asks again, whatever the settings say now, and after a restart.
    assert!(Arc::ptr_eq(&load(&data).unwrap().unwrap(), &load_or_choose(&data, NONE).unwrap().unwrap()));
    let (point, journal) = (*tpm.point(), *tpm.journal_key());
    let unique = tpm.unique;
    drop(tpm);
    *KNOWN.lock().unwrap() = None;
    let again = load(&data).unwrap().unwrap();
    assert_eq!((again.point(), again.journal_key()), (&point, &journal));
    assert!(is_signed(&again, b"after a restart"));
    drop(again);
    *KNOWN.lock().unwrap() = None;
    // Another installation on the board has other keys; another TPM makes nothing of the note.
    let twin = Tpm::open(&own.place(), [9; 32]).unwrap();
    assert!(*twin.point() != point && *twin.journal_key() != journal);
    drop(twin);
    assert_ne!(*Tpm::open(&other.place(), unique).unwrap().point(), point);
    let note = data.join("identity/node.tpm");
    let text = std::fs::read_to_string(&note).unwrap();
    std::fs::write(&note, text.replace(&own.place(), &other.place())).unwrap();
    let why = load(&data).unwrap_err().to_string();
    assert!(why.contains("does not have this board's key") && why.contains("new token"), "{why}");
    std::fs::write(&note, "{").unwrap();
    assert!(load(&data).unwrap_err().to_string().contains("damaged"));
    // Who has files keeps them; who wants none gets none; a place that is none is told.
    for (name, file) in [("files", "identity/node.key"), ("older", "device.key")] {
        let dir = own.dir.join(name);
        std::fs::create_dir_all(dir.join("identity")).unwrap();
        std::fs::write(dir.join(file), "x").unwrap();
        assert!(load_or_choose(&dir, &own.place()).unwrap().is_none(), "{name}");
    }
    assert!(load_or_choose(&own.dir.join("new"), NONE).unwrap().is_none());
    let why = load_or_choose(&own.dir.join("new"), "/dev/no-such-tpm").unwrap_err().to_string();
    assert!(why.contains("/dev/no-such-tpm"), "{why}");
}

#[test]
fn integers_are_written_as_der_wants_them() {
    let mut small = [0; 32];
    small[31] = 5;
    assert_eq!(der(&small, &[0; 32]), [0x30, 6, 2, 1, 5, 2, 1, 0]);
    let large = der(&[0xff; 32], &[0x7f; 32]);
    assert_eq!((large.len(), &large[..5]), (2 + 35 + 34, &[0x30, 69, 2, 33, 0][..]));
}
