//! Keys of a token issuer, and signatures made with them.
//!
//! In: a JSON Web Key Set; a signed token, hostile. Out: keys; the token's claims when a key made its signature.
//! Source: RFC 7515, 7517, 7518, 8037. Never: `none`, or HMAC; a key for another algorithm than its own.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::Value;

/// Keys of one issuer.
const KEYS_MAX: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

use Algorithm::*;

const NAMES: [(Algorithm, &str); 9] = [
    (Rs256, "RS256"),
    (Rs384, "RS384"),
    (Rs512, "RS512"),
    (Ps256, "PS256"),
    (Ps384, "PS384"),
    (Ps512, "PS512"),
    (Es256, "ES256"),
    (Es384, "ES384"),
    (EdDsa, "EdDSA"),
];

impl Algorithm {
    pub fn named(name: &str) -> Option<Algorithm> {
        NAMES.iter().find(|(_, own)| *own == name).map(|(algorithm, _)| *algorithm)
    }

    pub fn all() -> Vec<Algorithm> {
        NAMES.iter().map(|(algorithm, _)| *algorithm).collect()
    }
}

#[derive(Debug)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Debug)]
struct Key {
    id: String,
    /// None: any that fits its kind.
    algorithm: Option<Algorithm>,
    public: Public,
}

#[derive(Debug, Default)]
pub struct Keys(Vec<Key>);

/// A token that is taken apart; nothing in it is believed yet.
pub struct Parts<'t> {
    pub claims: Value,
    algorithm: Algorithm,
    key_id: Option<String>,
    signed: &'t str,
    signature: Vec<u8>,
}

/// `None` when it is no signed token of a known algorithm.
pub fn take_apart(token: &str) -> Option<Parts<'_>> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let json = |text: &str| -> Option<Value> { serde_json::from_slice(&BASE64.decode(text).ok()?).ok() };
    let header = json(header)?;
    if header.get("crit").is_some() {
        return None;
    }
    Some(Parts {
        claims: json(claims).filter(Value::is_object)?,
        algorithm: Algorithm::named(header["alg"].as_str()?)?,
        key_id: header["kid"].as_str().map(str::to_owned),
        signed,
        signature: BASE64.decode(signature).ok()?,
    })
}

impl Parts<'_> {
    pub fn is_of(&self, allowed: &[Algorithm]) -> bool {
        allowed.contains(&self.algorithm)
    }
}

impl Keys {
    /// Keys that are not for signatures, or of kinds that nobody knows, are left out.
    pub fn parse(value: &Value) -> Keys {
        let keys = value["keys"].as_array().into_iter().flatten().take(KEYS_MAX);
        Keys(keys.filter_map(key).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the key that the token names is here.
    pub fn knows(&self, parts: &Parts<'_>) -> bool {
        parts.key_id.as_ref().is_some_and(|id| self.0.iter().any(|key| key.id == *id))
    }

    /// Whether one of the keys made the token's signature. A token that names its key is only tried with that.
    pub fn signed(&self, parts: &Parts<'_>) -> bool {
        let named = |key: &&Key| parts.key_id.as_ref().is_none_or(|id| key.id == *id);
        self.0.iter().filter(named).any(|key| key.signed(parts))
    }
}

fn key(value: &Value) -> Option<Key> {
    if value["use"].as_str().is_some_and(|used| used != "sig") {
        return None;
    }
    let part = |name: &str| BASE64.decode(value[name].as_str()?).ok();
    let point = |size: usize| {
        let (x, y) = (part("x")?, part("y")?);
        (x.len() == size && y.len() == size).then(|| [vec![4], x, y].concat())
    };
    let public = match (value["kty"].as_str()?, value["crv"].as_str().unwrap_or_default()) {
        ("RSA", _) => Public::Rsa { n: part("n")?, e: part("e")? },
        ("EC", "P-256") => Public::P256(point(32)?),
        ("EC", "P-384") => Public::P384(point(48)?),
        ("OKP", "Ed25519") => Public::Ed25519(part("x")?),
        _ => return None,
    };
    let algorithm = match value["alg"].as_str() {
        Some(name) => Some(Algorithm::named(name)?),
        None => None,
    };
    Some(Key { id: value["kid"].as_str().unwrap_or_default().to_owned(), algorithm, public })
}

impl Key {
    fn signed(&self, parts: &Parts<'_>) -> bool {
        if self.algorithm.is_some_and(|own| own != parts.algorithm) {
            return false;
        }
        let (message, signature) = (parts.signed.as_bytes(), &parts.signature[..]);
        let plain = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        match (&self.public, parts.algorithm) {
            (Public::P256(key), Es256) => plain(&signature::ECDSA_P256_SHA256_FIXED, key),
            (Public::P384(key), Es384) => plain(&signature::ECDSA_P384_SHA384_FIXED, key),
            (Public::Ed25519(key), EdDsa) => plain(&signature::ED25519, key),
            (Public::Rsa { n, e }, algorithm) => {
                let scheme = match algorithm {
                    Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
                    Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
                    Es256 | Es384 | EdDsa => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(scheme, message, signature).is_ok()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
