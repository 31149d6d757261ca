//! Signatures of images: cosign's, made with a key ("simple signing"), enforced by the board's configuration.
//!
//! In: policies (which images need which keys), the documents that a registry has beside an image. Out: whether one of the
//! keys has signed this very digest under this name.
//! Never: a network; a certificate or a transparency log (boards are offline: keys are what they can check).
//! Source of the format: cosign's SIGNATURE_SPEC.md.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use limpet_oci::{Digest, Reference};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Signatures looked at for one image.
pub const SIGNATURES_MAX: usize = 64;
/// The signed text: a few hundred bytes in truth.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
const KEY_BYTES_MAX: usize = 16 * 1024;
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// SubjectPublicKeyInfo of a P-256 and of an Ed25519 key, up to the key itself (RFC 5480, RFC 8410).
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED25519_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// One entry of `imagePolicies` in the agent's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// A repository (`hub.limpet/shop/till`), or the beginning of several (`hub.limpet/shop/*`, `*`).
    pub images: String,
    /// PEM files; a signature of any one of them suffices.
    pub cosign_keys: Vec<PathBuf>,
}

impl Policy {
    pub fn covers(&self, reference: &Reference) -> bool {
        let name = reference.name();
        match self.images.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.images,
        }
    }
}

/// A public key that can be checked against.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    /// From PEM (`-----BEGIN PUBLIC KEY-----`), as `cosign generate-key-pair` writes it.
    pub fn parse(pem: &[u8]) -> Result<Key, String> {
        let text = std::str::from_utf8(pem).ok().filter(|t| t.len() <= KEY_BYTES_MAX).ok_or("is no PEM file")?;
        let after = text.split_once("-----BEGIN PUBLIC KEY-----").map(|(_, rest)| rest);
        let body = after.and_then(|rest| rest.split_once("-----END PUBLIC KEY-----"));
        let body: String = body.ok_or("has no PUBLIC KEY")?.0.split_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| "is not base64")?;
        if let Some(point) = der.strip_prefix(&P256_HEAD).filter(|p| p.len() == 65) {
            return Ok(Key::P256(point.to_vec()));
        }
        if let Some(point) = der.strip_prefix(&ED25519_HEAD).filter(|p| p.len() == 32) {
            return Ok(Key::Ed25519(point.to_vec()));
        }
        Err("is neither a P-256 nor an Ed25519 key".into())
    }

    /// By which it is remembered.
    pub fn name(&self) -> String {
        let (Key::P256(point) | Key::Ed25519(point)) = self;
        Digest::of(point).to_string()
    }

    fn has_signed(&self, payload: &[u8], signature: &[u8]) -> bool {
        match self {
            Key::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(payload, signature).is_ok(),
            Key::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(payload, signature).is_ok(),
        }
    }
}

/// The tag under which cosign keeps the signatures of a digest.
pub fn tag(digest: &Digest) -> String {
    format!("{}-{}.sig", digest.algorithm().name(), digest.hex())
}

/// One signature: where its payload is, and the signature itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub payload: Digest,
    pub signature: Vec<u8>,
}

/// What the document under the signatures' tag lists.
pub fn list(manifest: &[u8]) -> Vec<Signed> {
    #[derive(Deserialize)]
    struct Document {
        layers: Vec<Layer>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layer {
        media_type: String,
        digest: Digest,
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    let Ok(document) = serde_json::from_slice::<Document>(manifest) else { return Vec::new() };
    let signed = document.layers.into_iter().filter(|l| l.media_type == PAYLOAD_TYPE).filter_map(|layer| {
        let signature = STANDARD.decode(layer.annotations.get(SIGNATURE)?).ok()?;
        Some(Signed { payload: layer.digest, signature })
    });
    signed.take(SIGNATURES_MAX).collect()
}

/// The key that signed this payload, when that speaks of this digest.
pub fn vouches<'a>(keys: &'a [Key], payload: &[u8], signature: &[u8], digest: &Digest) -> Option<&'a Key> {
    #[derive(Deserialize)]
    struct Payload {
        critical: Critical,
    }
    #[derive(Deserialize)]
    struct Critical {
        #[serde(rename = "type")]
        kind: String,
        image: Image,
    }
    #[derive(Deserialize)]
    struct Image {
        #[serde(rename = "docker-manifest-digest")]
        digest: String,
    }
    // First the signature, then what it says: nothing unsigned is interpreted.
    let key = keys.iter().find(|key| key.has_signed(payload, signature))?;
    let said = serde_json::from_slice::<Payload>(payload).ok()?.critical;
    (said.kind == "cosign container image signature" && said.image.digest == digest.to_string()).then_some(key)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    pub struct Signer(EcdsaKeyPair);

    impl Signer {
        pub fn new() -> Signer {
            let random = ring::rand::SystemRandom::new();
            let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
            Signer(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.as_ref(), &random).unwrap())
        }

        pub fn pem(&self) -> String {
            let der = [&P256_HEAD[..], self.0.public_key().as_ref()].concat();
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
        }

        pub fn sign(&self, payload: &[u8]) -> Vec<u8> {
            self.0.sign(&ring::rand::SystemRandom::new(), payload).unwrap().as_ref().to_vec()
        }

        /// The document that belongs under the signatures' tag, and the payload that it names.
        pub fn document(&self, digest: &Digest) -> (Vec<u8>, Vec<u8>) {
            let payload = payload(digest);
            let layer = serde_json::json!({
                "mediaType": PAYLOAD_TYPE, "size": payload.len(), "digest": Digest::of(&payload),
                "annotations": {SIGNATURE: STANDARD.encode(self.sign(&payload))},
            });
            let document = serde_json::json!({"schemaVersion": 2, "config": {}, "layers": [layer]});
            (document.to_string().into_bytes(), payload)
        }
    }

    pub fn payload(digest: &Digest) -> Vec<u8> {
        serde_json::json!({"critical": {"identity": {"docker-reference": "x"}, "type": "cosign container image signature",
            "image": {"docker-manifest-digest": digest}}, "optional": null})
        .to_string()
        .into_bytes()
    }

    #[test]
    fn only_the_right_key_over_the_right_digest_counts() {
        let (ours, other) = (Signer::new(), Signer::new());
        let key = Key::parse(ours.pem().as_bytes()).unwrap();
        let (image, another) = (Digest::of(b"image"), Digest::of(b"another"));
        let (document, text) = ours.document(&image);
        let listed = list(&document);
        assert_eq!(listed.len(), 1);
        let keys = [Key::parse(other.pem().as_bytes()).unwrap(), key.clone()];
        assert!(vouches(&keys, &text, &listed[0].signature, &image) == Some(&key));
        assert!(vouches(&keys, &text, &listed[0].signature, &another).is_none(), "signed, but something else");
        assert!(vouches(&keys[..1], &text, &listed[0].signature, &image).is_none(), "signed by somebody else");
        assert!(vouches(&[], &text, &listed[0].signature, &image).is_none());
        let forged = payload(&another);
        assert!(vouches(&keys, &forged, &listed[0].signature, &another).is_none(), "a signature moved to another payload");
        let odd = br#"{"critical":{"type":"something else","image":{"docker-manifest-digest":"x"}}}"#;
        assert!(vouches(&keys, odd, &ours.sign(odd), &image).is_none());
        assert!(vouches(&keys, b"{}", &ours.sign(b"{}"), &image).is_none());
        for bad in ["", "{}", "[]", r#"{"layers":[{"mediaType":"x","digest":"sha256:y"}]}"#, "null"] {
            assert_eq!(list(bad.as_bytes()), []);
        }
    }

    #[test]
    fn keys_and_policies() {
        for (pem, why) in [
            ("", "no PUBLIC KEY"),
            ("-----BEGIN PUBLIC KEY-----\n!!\n-----END PUBLIC KEY-----", "base64"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "neither"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "no PUBLIC KEY"),
        ] {
            let err = Key::parse(pem.as_bytes()).err().unwrap();
            assert!(err.contains(why), "{pem}: {err}");
        }
        let reference = Reference::parse("hub.limpet/shop/till:1").unwrap();
        for (images, covers) in [
            ("*", true),
            ("hub.limpet/*", true),
            ("hub.limpet/shop/till", true),
            ("hub.limpet/shop", false),
            ("docker.io/*", false),
            ("", false),
        ] {
            let policy = Policy { images: images.into(), cosign_keys: vec![] };
            assert_eq!(policy.covers(&reference), covers, "{images}");
        }
    }
}
