//! Whether the other end is the hub: its certificate comes from the hub's CA, and it has the certificate's key.
//!
//! In: the CA, or its hash before the join; what the server shows in TLS 1.3. Out: yes, or the handshake ends.
//! As the agent does it: the name is `hub.limpet`, a certificate from the future is good (a board has no clock), and one that
//! ended is unless the hub itself has told a later time.
//! The TLS library ends a handshake well also when the server shows no certificate at all, so `is_proven` is asked afterwards.
//! Never: takes a chain: every certificate of a hub is signed by the CA itself, and a node's certificate must sign nothing.

use crate::der::Certificate;
use alloc::vec::Vec;
use embedded_tls::{CertificateEntryRef, CertificateRef, CertificateVerifyRef, SignatureScheme, TlsError, TlsVerifier};
use p256::ecdsa::{Signature, VerifyingKey, signature::Verifier};
use sha2::{Digest, Sha256};

const NAME: &str = "hub.limpet";
/// RFC 8446, 4.4.3
const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";

/// What the hub's certificate must come from.
#[derive(Clone, Debug)]
pub enum Anchor {
    Ca(Vec<u8>),
    /// Of the CA's DER; the hub sends the CA along.
    Sha256([u8; 32]),
}

#[derive(Debug)]
enum Shown {
    Nothing,
    /// A good certificate; its key is not proven.
    Certificate { key: VerifyingKey, transcript: Vec<u8> },
    Key,
}

pub struct Trust {
    anchor: Anchor,
    floor_s: u64,
    shown: Shown,
    ca: Vec<u8>,
}

impl Trust {
    pub fn new(anchor: Anchor, floor_ms: u64) -> Trust {
        Trust { anchor, floor_s: floor_ms / 1000, shown: Shown::Nothing, ca: Vec::new() }
    }

    pub fn is_proven(&self) -> bool {
        matches!(self.shown, Shown::Key)
    }

    /// The CA that the hub showed, where only its hash was known.
    pub fn ca(&self) -> &[u8] {
        &self.ca
    }

    fn judge(&mut self, shown: &[&[u8]]) -> Option<VerifyingKey> {
        let ca = match &self.anchor {
            Anchor::Ca(ca) => ca.clone(),
            Anchor::Sha256(hash) => shown.iter().find(|der| Sha256::digest(der).as_slice() == hash)?.to_vec(),
        };
        let issuer = VerifyingKey::from_sec1_bytes(Certificate::read(&ca)?.point).ok()?;
        let leaf = Certificate::read(shown.first()?)?;
        issuer.verify(leaf.signed, &Signature::from_der(leaf.signature).ok()?).ok()?;
        if !leaf.serves(NAME) || leaf.not_after_s < self.floor_s {
            return None;
        }
        self.ca = ca;
        VerifyingKey::from_sec1_bytes(leaf.point).ok()
    }
}

impl<C> TlsVerifier<C> for Trust
where
    C: embedded_tls::TlsCipherSuite<Hash = Sha256>,
{
    fn set_hostname_verification(&mut self, _: &str) -> Result<(), TlsError> {
        Ok(())
    }

    fn verify_certificate(&mut self, transcript: &Sha256, shown: CertificateRef<'_>) -> Result<(), TlsError> {
        let all: Vec<&[u8]> = shown.entries.iter().filter_map(x509).collect();
        if !matches!(self.shown, Shown::Nothing) {
            return Err(TlsError::InvalidHandshake);
        }
        let key = self.judge(&all).ok_or(TlsError::InvalidCertificate)?;
        self.shown = Shown::Certificate { key, transcript: transcript.clone().finalize().to_vec() };
        Ok(())
    }

    fn verify_signature(&mut self, verify: CertificateVerifyRef<'_>) -> Result<(), TlsError> {
        let Shown::Certificate { key, transcript } = core::mem::replace(&mut self.shown, Shown::Nothing) else {
            return Err(TlsError::InvalidHandshake);
        };
        if !matches!(verify.signature_scheme, SignatureScheme::EcdsaSecp256r1Sha256) {
            return Err(TlsError::InvalidSignatureScheme);
        }
        let mut message = alloc::vec![0x20; 64];
        message.extend_from_slice(CONTEXT);
        message.extend(transcript);
        let signature = Signature::from_der(verify.signature).map_err(|_| TlsError::InvalidSignature)?;
        key.verify(&message, &signature).map_err(|_| TlsError::InvalidSignature)?;
        self.shown = Shown::Key;
        Ok(())
    }
}

fn x509<'a>(entry: &CertificateEntryRef<'a>) -> Option<&'a [u8]> {
    match entry {
        CertificateEntryRef::X509(der) => Some(der),
        CertificateEntryRef::RawPublicKey(_) => None,
    }
}
