//! The device's P-256 key, wherever it is: in a file, or in a TPM.
//!
//! In: `<data>/identity`. Out: what TLS, requests for certificates and the sealed link need of it.
//! Never: tells its private half to anybody but ring.

use super::tpm::{self, Tpm};
use limpet_sealed::SecureRandom;
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, Signer, SigningKey},
};
use std::{path::Path, sync::Arc};

#[derive(Clone)]
pub enum NodeKey {
    /// PEM of PKCS#8.
    File(Arc<str>),
    Tpm(Arc<Tpm>),
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NodeKey::File(_) => "NodeKey::File",
            NodeKey::Tpm(_) => "NodeKey::Tpm",
        })
    }
}

impl NodeKey {
    /// The device's key, made when there is none.
    pub fn load_or_create(data: &Path) -> std::io::Result<NodeKey> {
        if let Some(tpm) = tpm::load(data)? {
            return Ok(NodeKey::Tpm(tpm));
        }
        super::identity::key_pem(data).map(|pem| NodeKey::File(pem.into()))
    }

    /// The certificate of this key, for rustls.
    pub fn certified(&self, certificate_pem: &str) -> Result<CertifiedKey, String> {
        let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|e| format!("the node's certificate: {e}"))?;
        let key: Arc<dyn SigningKey> = match self {
            NodeKey::File(pem) => {
                let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| format!("the node's key: {e}"))?;
                rustls::crypto::ring::sign::any_supported_type(&der).map_err(|e| format!("the node's key: {e}"))?
            }
            NodeKey::Tpm(tpm) => Arc::new(InTpm(tpm.clone())),
        };
        Ok(CertifiedKey::new(chain, key))
    }

    /// For the link by way of a broker.
    pub fn sealing(&self, random: &dyn SecureRandom) -> Result<limpet_sealed::Key, String> {
        match self {
            NodeKey::File(pem) => {
                let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string())?;
                limpet_sealed::Key::from_pkcs8(key.secret_der(), random).map_err(|e| e.to_string())
            }
            NodeKey::Tpm(tpm) => {
                let signing = tpm.clone();
                Ok(limpet_sealed::Key::elsewhere(*tpm.point(), Box::new(move |message| signing.sign(message).ok())))
            }
        }
    }

    /// A PKCS#10 request, PEM.
    pub fn request(&self, node_name: &str) -> Result<String, rcgen::Error> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("system:node:{node_name}"));
        match self {
            NodeKey::File(pem) => params.serialize_request(&rcgen::KeyPair::from_pem(pem)?)?.pem(),
            NodeKey::Tpm(tpm) => params.serialize_request(&InTpm(tpm.clone()))?.pem(),
        }
    }

    /// SubjectPublicKeyInfo, DER.
    fn spki(&self) -> Option<Vec<u8>> {
        use rcgen::PublicKeyData;
        match self {
            NodeKey::File(pem) => rcgen::KeyPair::from_pem(pem).ok().map(|key| key.subject_public_key_info()),
            NodeKey::Tpm(tpm) => Some(limpet_sealed::spki(tpm.point())),
        }
    }

    /// The key as people compare it: the first 64 bits of its hash, in groups of four digits.
    pub fn fingerprint(&self) -> Option<String> {
        let sum = ring::digest::digest(&ring::digest::SHA256, &self.spki()?);
        let pairs: Vec<String> = sum.as_ref()[..8].chunks(2).map(|c| c.iter().map(|b| format!("{b:02x}")).collect()).collect();
        Some(pairs.join("-"))
    }
}

/// A key whose signatures come from a TPM, as rustls and rcgen want it.
#[derive(Clone, Debug)]
struct InTpm(Arc<Tpm>);

impl SigningKey for InTpm {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for InTpm {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.0.sign(message).map_err(|e| rustls::Error::General(format!("the TPM did not sign: {e}")))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl rcgen::PublicKeyData for InTpm {
    fn der_bytes(&self) -> &[u8] {
        self.0.point()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for InTpm {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
