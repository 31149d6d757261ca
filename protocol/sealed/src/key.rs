//! Long-lived keys: ECDSA over P-256 with SHA-256, as in the certificates of hub and nodes.
//!
//! In: PKCS#8, certificates. Out: signatures, and whether one is right. Never: a signature without its purpose in front.

use crate::SealError;
use ring::{
    rand::SecureRandom,
    signature::{self, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};

/// An uncompressed point: 0x04, x, y.
pub type Point = [u8; 65];

/// SubjectPublicKeyInfo of a P-256 key up to the point (RFC 5480, 2.1.1).
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
pub(crate) const SIGNATURE_BYTES_MAX: usize = 80;

/// Signs a message with a key that is somewhere else, such as in a TPM: DER of an ECDSA signature with SHA-256.
pub type Elsewhere = Box<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync>;

enum Secret {
    Here(EcdsaKeyPair),
    Elsewhere(Elsewhere),
}

pub struct Key {
    secret: Secret,
    point: Point,
}

impl Key {
    pub fn from_pkcs8(der: &[u8], random: &dyn SecureRandom) -> Result<Key, SealError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, random)
            .map_err(|e| SealError::Key(format!("not a P-256 key: {e}")))?;
        let point = pair.public_key().as_ref().try_into().map_err(|_| SealError::Key("not a P-256 key".into()))?;
        Ok(Key { secret: Secret::Here(pair), point })
    }

    pub fn elsewhere(point: Point, sign: Elsewhere) -> Key {
        Key { secret: Secret::Elsewhere(sign), point }
    }

    pub fn point(&self) -> &Point {
        &self.point
    }

    pub(crate) fn sign(&self, purpose: &[u8], hash: &[u8], random: &dyn SecureRandom) -> Result<Vec<u8>, SealError> {
        let message = [purpose, hash].concat();
        let signature = match &self.secret {
            Secret::Here(pair) => pair.sign(random, &message).ok().map(|s| s.as_ref().to_vec()),
            Secret::Elsewhere(sign) => sign(&message),
        };
        signature.filter(|s| s.len() <= SIGNATURE_BYTES_MAX).ok_or_else(|| SealError::Key("cannot sign".into()))
    }
}

pub(crate) fn is_signed(point: &Point, purpose: &[u8], hash: &[u8], signature: &[u8]) -> bool {
    let key = signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
    key.verify(&[purpose, hash].concat(), signature).is_ok()
}

/// DER of SubjectPublicKeyInfo, as certificates and their requests carry it.
pub fn spki(point: &Point) -> Vec<u8> {
    [&SPKI_HEAD[..], point].concat()
}

/// The key in a P-256 SubjectPublicKeyInfo. Who calls has verified what the information is part of.
pub fn certified_point(spki: &[u8]) -> Option<Point> {
    spki.strip_prefix(&SPKI_HEAD)?.try_into().ok()
}
