//! TLS 1.3 to the hub: AES-128-GCM, P-256, this board's certificate where it has one.
//!
//! In: a connection, who the hub must be, who this board is. Out: an encrypted connection to a hub that has proven its key.
//! Never: returns a connection whose other end has not.

use crate::{carry::Halves, trust::Trust};
use alloc::string::String;
use embedded_tls::{
    Aes128GcmSha256, Certificate, CryptoProvider, CryptoRngCore, SignatureScheme, TlsConfig, TlsConnection, TlsContext, TlsError,
    TlsVerifier,
};
use p256::ecdsa::{DerSignature, SigningKey};

/// The largest record that a server may send, with all that TLS adds.
pub const READ_BYTES: usize = 16_640;
pub const WRITE_BYTES: usize = 4096;

pub type Connection<'a, 'h, 's> = TlsConnection<'a, Halves<'h, 's>, Aes128GcmSha256>;

/// This board's key and certificate.
#[derive(Clone, Copy)]
pub struct Own<'a> {
    pub key: &'a SigningKey,
    pub certificate: &'a [u8],
}

struct Provider<'a, R> {
    rng: &'a mut R,
    trust: &'a mut Trust,
    own: Option<Own<'a>>,
}

impl<R: CryptoRngCore> CryptoProvider for Provider<'_, R> {
    type CipherSuite = Aes128GcmSha256;
    type Signature = DerSignature;

    fn rng(&mut self) -> impl CryptoRngCore {
        &mut *self.rng
    }

    fn verifier(&mut self) -> Result<&mut impl TlsVerifier<Aes128GcmSha256>, TlsError> {
        Ok(&mut *self.trust)
    }

    fn signer(&mut self) -> Result<(impl p256::ecdsa::signature::SignerMut<DerSignature>, SignatureScheme), TlsError> {
        let own = self.own.ok_or(TlsError::InvalidPrivateKey)?;
        Ok((own.key.clone(), SignatureScheme::EcdsaSecp256r1Sha256))
    }

    fn client_cert(&mut self) -> Option<Certificate<impl AsRef<[u8]>>> {
        self.own.map(|own| Certificate::X509(own.certificate))
    }
}

/// Why there is no encrypted connection.
pub fn words(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate => {
            "the hub there is not the one that this board knows: its certificate comes from another CA, or has ended".into()
        }
        TlsError::HandshakeAborted(_, description) => alloc::format!("the hub ends the handshake: {description:?}"),
        other => alloc::format!("TLS: {other:?}"),
    }
}

pub async fn open<'a, 'h: 'a, 's: 'a, R: CryptoRngCore>(
    halves: Halves<'h, 's>,
    (read, write): (&'a mut [u8], &'a mut [u8]),
    alpn: &[&[u8]],
    rng: &mut R,
    trust: &mut Trust,
    own: Option<Own<'_>>,
) -> Result<Connection<'a, 'h, 's>, String> {
    let mut connection = TlsConnection::new(halves, read, write);
    let config = TlsConfig::new().with_alpn(alpn);
    let provider = Provider { rng, trust: &mut *trust, own };
    connection.open(TlsContext::new(&config, provider)).await.map_err(|e| words(&e))?;
    match trust.is_proven() {
        true => Ok(connection),
        false => Err("the hub there did not show that it has its key".into()),
    }
}
