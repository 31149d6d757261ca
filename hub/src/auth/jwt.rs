//! JSON Web Tokens with ES256, signed and verified with ring.
//!
//! In: claims and the hub's key; or a token, hostile. Out: a token; or claims that were signed by this hub.
//! Source: RFC 7515, 7518, 7519, 7638. Never: another algorithm than ES256, and no judgement of the claims.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
    },
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The hub's signing key.
pub struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    key_id: String,
}

/// Why a token was not accepted; said in logs, never to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token has not the form of a signed JWT")]
    Form,
    #[error("the token was signed with another algorithm or key")]
    Key,
    #[error("the token's signature is wrong")]
    Signature,
}

impl Signer {
    /// `key` is PKCS#8 DER of a P-256 key.
    pub fn new(key: &[u8]) -> Result<Signer, String> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key, &random)
            .map_err(|e| format!("the key that signs ServiceAccount tokens is not usable: {e}"))?;
        let key_id = BASE64.encode(Sha256::digest(pair.public_key().as_ref()));
        Ok(Signer { pair, random, key_id })
    }

    pub fn sign(&self, claims: &Value) -> Result<String, String> {
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let mut token = BASE64.encode(header.to_string());
        token.push('.');
        token.push_str(&BASE64.encode(claims.to_string()));
        let signature =
            self.pair.sign(&self.random, token.as_bytes()).map_err(|_| "cannot sign a token".to_string())?;
        token.push('.');
        token.push_str(&BASE64.encode(signature));
        Ok(token)
    }

    /// The claims of a token that this key signed.
    pub fn verify(&self, token: &str) -> Result<Value, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Form)?;
        let part = |text: &str| BASE64.decode(text).map_err(|_| TokenError::Form);
        let header: Value = serde_json::from_slice(&part(header)?).map_err(|_| TokenError::Form)?;
        if header["alg"] != "ES256" || header["kid"] != self.key_id.as_str() || header.get("crit").is_some() {
            return Err(TokenError::Key);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &part(signature)?)
            .map_err(|_| TokenError::Signature)?;
        serde_json::from_slice(&part(claims)?).map_err(|_| TokenError::Form)
    }

    /// The public key, for others that check tokens (`/openid/v1/jwks`).
    pub fn jwks(&self) -> Value {
        // Uncompressed point: 4, x, y.
        let point = self.pair.public_key().as_ref();
        let part = |from: usize| BASE64.encode(point.get(from..from + 32).unwrap_or_default());
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256", "x": part(1), "y": part(33),
        }]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        let key =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        Signer::new(key.as_ref()).unwrap()
    }

    #[test]
    fn signs_and_verifies() {
        let signer = signer();
        let token = signer.sign(&json!({"sub": "a"})).unwrap();
        assert_eq!(signer.verify(&token).unwrap(), json!({"sub": "a"}));
        assert_eq!(super::tests::signer().verify(&token), Err(TokenError::Key));
    }

    #[test]
    fn refuses_forged_tokens() {
        let signer = signer();
        let token = signer.sign(&json!({"sub": "a"})).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let none = BASE64.encode(json!({"alg": "none", "kid": signer.key_id}).to_string());
        let other = BASE64.encode(json!({"sub": "admin"}).to_string());
        for (forged, expect) in [
            (String::new(), TokenError::Form),
            ("a.b".into(), TokenError::Form),
            (format!("{}.{}", parts[0], parts[1]), TokenError::Form),
            (format!("{none}.{}.", parts[1]), TokenError::Key),
            (format!("{}.{other}.{}", parts[0], parts[2]), TokenError::Signature),
            (format!("{}.{}.", parts[0], parts[1]), TokenError::Signature),
            (format!("{token}."), TokenError::Signature),
        ] {
            assert_eq!(signer.verify(&forged), Err(expect), "{forged}");
        }
    }
}
