//! What a signed release of the agent says of itself.
//!
//! In: a document (JSON and signature are the caller's), what is wanted, what runs. Out: the program for this processor, or a
//! sentence why not. Never: a release of another version than the wanted one, or an older one that was not signed
//! for that.

mod version;

pub use version::{VERSION_BYTES_MAX, Version};

use alloc::{collections::BTreeMap, format, string::{String, ToString}, vec::Vec};
use serde::{Deserialize, Serialize};

/// Repository of the hub's registry in which releases are; tags are versions.
pub const REPOSITORY: &str = "limpet/agent";
/// Media types of the artifact, its document and its programs.
pub const ARTIFACT_TYPE: &str = "application/vnd.limpet.agent.v1";
pub const DOCUMENT_TYPE: &str = "application/vnd.limpet.agent.release.v1";
pub const PROGRAM_TYPE: &str = "application/vnd.limpet.agent.program.v1";

/// First bytes of the document, and part of what is signed: a signature of something else is not one of a release.
pub const MAGIC: &[u8; 8] = b"LIMPETA1";
/// Length of an Ed25519 signature, which follows the magic.
pub const SIGNATURE_BYTES: usize = 64;
pub const DOCUMENT_BYTES_MAX: usize = 16 * 1024;
/// An agent of a hundred megabytes is none.
pub const PROGRAM_BYTES_MAX: u64 = 100 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    pub version: String,
    /// Boards with a newer agent may take it.
    #[serde(default)]
    pub allow_downgrade: bool,
    /// By processor, in Go's words.
    pub programs: BTreeMap<String, Program>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// What is signed of a description.
pub fn signed(json: &[u8]) -> Vec<u8> {
    [MAGIC.as_slice(), json].concat()
}

pub fn document(json: &[u8], signature: &[u8]) -> Vec<u8> {
    [MAGIC.as_slice(), signature, json].concat()
}

/// Signature and description of a document.
pub fn split(document: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let none = || "it is not a release of the agent".to_string();
    let rest = document.strip_prefix(MAGIC.as_slice()).filter(|_| document.len() <= DOCUMENT_BYTES_MAX).ok_or_else(none)?;
    rest.split_at_checked(SIGNATURE_BYTES).ok_or_else(none)
}

impl Release {
    /// The program for this board.
    pub fn admit(&self, wanted: &str, running: &str, architecture: &str) -> Result<&Program, String> {
        if self.version != wanted {
            return Err(format!("it is signed as version {}", self.version));
        }
        let (new, old) = (Version::parse(wanted)?, Version::parse(running)?);
        if new < old && !self.allow_downgrade {
            return Err(format!(
                "it is older than {running}, which runs here, and not signed to go back to; publish it with --allow-downgrade \
                 if that is meant"
            ));
        }
        let program = self.programs.get(architecture).ok_or_else(|| {
            let there: Vec<&str> = self.programs.keys().map(String::as_str).collect();
            format!("it has no program for {architecture}, only for {}", there.join(", "))
        })?;
        let hex = program.sha256.len() == 64 && program.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !hex || program.bytes == 0 || program.bytes > PROGRAM_BYTES_MAX {
            return Err("its program cannot be that: wrong size or checksum".into());
        }
        Ok(program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: &str, allow_downgrade: bool) -> Release {
        let program = Program { bytes: 10, sha256: "ab".repeat(32) };
        Release { version: version.into(), allow_downgrade, programs: [("arm64".to_string(), program)].into() }
    }

    #[test]
    fn only_the_wanted_version_for_this_processor_and_no_older_one() {
        let said = |r: &Release, wanted: &str, arch: &str| r.admit(wanted, "1.2.0", arch).map(|p| p.bytes);
        assert_eq!(said(&release("1.3.0", false), "1.3.0", "arm64"), Ok(10));
        assert!(said(&release("1.3.0", false), "1.4.0", "arm64").unwrap_err().contains("signed as version 1.3.0"));
        assert!(said(&release("1.3.0", false), "1.3.0", "arm").unwrap_err().contains("only for arm64"));
        assert!(said(&release("1.1.0", false), "1.1.0", "arm64").unwrap_err().contains("older than 1.2.0"));
        assert_eq!(said(&release("1.1.0", true), "1.1.0", "arm64"), Ok(10));
        let mut odd = release("1.3.0", false);
        odd.programs.values_mut().for_each(|p| p.sha256 = "../../etc/passwd".into());
        assert!(said(&odd, "1.3.0", "arm64").is_err());
    }

    #[test]
    fn documents_are_taken_apart_or_refused() {
        let whole = document(b"{}", &[7; SIGNATURE_BYTES]);
        assert_eq!(split(&whole), Ok(([7; SIGNATURE_BYTES].as_slice(), b"{}".as_slice())));
        assert_eq!(signed(b"{}"), b"LIMPETA1{}");
        for cut in 0..whole.len() - 2 {
            assert!(split(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(split(&[b'L'; DOCUMENT_BYTES_MAX + 1]).is_err());
    }
}
