//! TLS towards the hub.
//!
//! In: the hub's CA (or its hash, before the first join), the device's certificate, the clock that never goes back.
//! Out: rustls client configurations. TLS 1.2 and 1.3, ring, nothing else.
//! Never: skips verification of the hub: a pinned hash replaces only the trust anchor. What is forgiven is time, because a
//! board's clock may be wrong both ways: "not valid yet", and "expired" where the certificate was good at the last good time
//! that the hub itself has told.

use super::NodeKey;
use crate::device::Clock;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    sign::SingleCertAndKey,
};
use sha2::{Digest, Sha256};
use std::sync::Arc;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn pem<T>(result: Result<T, rustls::pki_types::pem::Error>, what: &str) -> Result<T, Error> {
    result.map_err(|e| Error::General(format!("{what}: {e}")))
}

/// With the device's certificate, towards a hub of this CA.
pub fn with_certificate(
    ca_pem: &str,
    certificate_pem: &str,
    key: &NodeKey,
    clock: &Clock,
) -> Result<ClientConfig, Error> {
    let certified = key.certified(certificate_pem).map_err(Error::General)?;
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(hub_verifier(Anchor::Roots(roots_of(ca_pem)?), clock))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    // One connection at a time: a cache of sessions would only cost memory.
    config.resumption = rustls::client::Resumption::in_memory_sessions(1);
    Ok(config)
}

/// Without a certificate of the device, towards a hub of this CA.
pub fn with_ca(ca_pem: &str, clock: &Clock) -> Result<ClientConfig, Error> {
    let config = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(hub_verifier(Anchor::Roots(roots_of(ca_pem)?), clock))
        .with_no_client_auth();
    Ok(config)
}

fn roots_of(ca_pem: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(pem(ca, "the hub's CA")?)?;
    }
    Ok(roots)
}

/// Before the first join: trusts the CA whose SHA-256 the token carries.
pub fn pinned(ca_sha256: &str, clock: &Clock) -> Result<ClientConfig, Error> {
    let verifier = hub_verifier(Anchor::Sha256(ca_sha256.to_ascii_lowercase()), clock);
    let config = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

/// For registries and probes of others: no trust at all is needed to ask whether something answers.
pub fn unverified(clock: &Clock) -> Result<ClientConfig, Error> {
    let config = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { provider: provider() }))
        .with_no_client_auth();
    Ok(config)
}

/// Says of a certificate (DER) which key it is for, when it is a hub's of this CA: the name that every hub's certificate has, and
/// times forgiven as towards the hub itself.
pub fn hub_key(ca_pem: &str, clock: &Clock) -> Result<impl Fn(&[u8]) -> Option<limpet_sealed::Point> + use<>, Error> {
    let verifier = hub_verifier(Anchor::Roots(roots_of(ca_pem)?), clock);
    let clock = clock.clone();
    let name = ServerName::try_from("hub.limpet").map_err(|e| Error::General(e.to_string()))?;
    Ok(move |certificate: &[u8]| {
        let now = rustls::time_provider::TimeProvider::current_time(&clock)?;
        verifier.verify_server_cert(&CertificateDer::from(certificate), &[], &name, &[], now).ok()?;
        limpet_sealed::certified_point(super::der::public_key(certificate)?)
    })
}

fn hub_verifier(anchor: Anchor, clock: &Clock) -> Arc<HubVerifier> {
    Arc::new(HubVerifier { anchor, provider: provider(), clock: clock.clone() })
}

/// What the hub's certificate must come from.
#[derive(Debug)]
enum Anchor {
    Roots(RootCertStore),
    /// Lower-case hex of the CA's SHA-256; the hub sends the CA along.
    Sha256(String),
}

#[derive(Debug)]
struct HubVerifier {
    anchor: Anchor,
    provider: Arc<CryptoProvider>,
    clock: Clock,
}

impl HubVerifier {
    fn roots(&self, chain: &[CertificateDer<'_>]) -> Result<RootCertStore, Error> {
        let sha256 = match &self.anchor {
            Anchor::Roots(roots) => return Ok(roots.clone()),
            Anchor::Sha256(sha256) => sha256,
        };
        let hex = |der: &[u8]| Sha256::digest(der).iter().map(|b| format!("{b:02x}")).collect::<String>();
        let ca = chain.iter().find(|c| hex(c) == *sha256);
        let ca = ca.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        Ok(roots)
    }
}

impl ServerCertVerifier for HubVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = Arc::new(self.roots(chain)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone())
            .build()
            .map_err(|e| Error::General(e.to_string()))?;
        let verify = |at| verifier.verify_server_cert(leaf, chain, name, ocsp, at);
        match verify(now) {
            // A board without a clock knows nothing of today, and the hub's certificate may be younger than the last
            // good time known. The hub's own time comes with its first answer.
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                verify(not_before)
            }
            // Or the clock is ahead. A key that was stolen and has expired since gains nothing: the hub has told a later time.
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }))
                if not_after.as_secs() >= self.clock.floor_ms() / 1000 =>
            {
                verify(not_after)
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// HTTPS probes do not look at certificates (Kubernetes "Configure Probes": `scheme: HTTPS` skips verification).
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
