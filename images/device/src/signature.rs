//! Signatures of images: Ed25519 over the checksum of the file as it is published.
//!
//! In: a file, a key or a signature as text. Out: a signature, or whether one fits. The text is one line of hexadecimal digits.
//! Never: yes to a file that is not the one that was signed.

use crate::fetch::{FetchError, sum_of};
use crate::os::{Key, public_key};
use ring::signature::{ED25519, UnparsedPublicKey};
use std::path::Path;

/// Larger files are no signatures.
pub const TEXT_BYTES_MAX: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    #[error(transparent)]
    File(#[from] FetchError),
    #[error("{0} is no public key of `limpet image key`: one line of 64 hexadecimal digits")]
    Key(String),
    #[error("{0} is no signature of `limpet image sign`: one line of 128 hexadecimal digits")]
    Text(String),
    #[error("the signature does not fit {0}: it is another file, was changed, or was signed with another key; nothing was written")]
    Wrong(String),
}

fn message(file: &Path) -> Result<String, FetchError> {
    Ok(format!("limpet image 1\n{}\n", sum_of(file)?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n"
}

fn bytes(text: &str, length: usize) -> Option<Vec<u8>> {
    let text = text.trim();
    let fit = text.len() == 2 * length && text.bytes().all(|b| b.is_ascii_hexdigit());
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    if fit { (0..length).map(|n| pair(2 * n)).collect() } else { None }
}

/// The public half, as people hand it on.
pub fn public_text(key: &Key) -> String {
    hex(&public_key(key))
}

pub fn sign(key: &Key, file: &Path) -> Result<String, FetchError> {
    Ok(hex(&key.sign(message(file)?.as_bytes())))
}

/// `signature` and `key` are texts; `names` say where they came from.
pub fn check(file: &Path, (signature, key): (&str, &str), names: (&str, &str)) -> Result<(), SignatureError> {
    let signature = bytes(signature, 64).ok_or_else(|| SignatureError::Text(names.0.into()))?;
    let key = bytes(key, 32).ok_or_else(|| SignatureError::Key(names.1.into()))?;
    let fits = UnparsedPublicKey::new(&ED25519, key).verify(message(file)?.as_bytes(), &signature);
    fits.map_err(|_| SignatureError::Wrong(file.display().to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_fits_one_file_and_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("os.img");
        std::fs::write(&file, "an image").unwrap();
        let key = |_| Key::parse(&Key::generate().unwrap()).unwrap();
        let (own, other) = (key(()), key(()));
        let (signature, public) = (sign(&own, &file).unwrap(), public_text(&own));
        let judge = |signature: &str, public: &str| check(&file, (signature, public), ("os.img.sig", "key.pub"));
        judge(&signature, &public).unwrap();
        judge(&format!(" {signature}\r\n"), &public).unwrap();
        assert!(matches!(judge(&signature, &public_text(&other)), Err(SignatureError::Wrong(_))));
        assert!(matches!(judge(&sign(&other, &file).unwrap(), &public), Err(SignatureError::Wrong(_))));
        for bad in ["", "zz", &signature[2..], &format!("é{}", &signature[..127])] {
            assert!(matches!(judge(bad, &public), Err(SignatureError::Text(_))), "{bad}");
        }
        assert!(matches!(judge(&signature, "-----BEGIN"), Err(SignatureError::Key(_))));
        std::fs::write(&file, "An image").unwrap();
        let said = judge(&signature, &public).unwrap_err().to_string();
        assert!(said.contains("nothing was written"), "{said}");
        assert!(matches!(check(Path::new("/nowhere"), (&signature, &public), ("", "")), Err(SignatureError::File(_))));
    }
}
