//! Signatures by each kind of key, and forgeries. In: keys and tokens. Out: believed or not. Never: a network.

use super::*;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::json;

/// An RSA key, and tokens that it signed.
const N: &str = concat!(
    "v85rb4pHMYYWiBgdz7p_ZoHvu6d7dU4LwGjW21iKVaLRvDMw_HLP271ratumb2ssOxj2UnSVA_mhkBWmt2-ONSTFsPfEzdJXiyNhCdGCwrdGty",
    "iDn4owT8Dmf_25juHUARlotQANqf5zzX2t4qkZeVe4zdCMQmfBJwGbYDD0qE6E_EW4LcTGRilsAZEJxsvj5V8wvyuCAedadtALLnb3D7kBrNLI",
    "ZopdDFDnDPGdAn-52l0daD_TdhbiSZOgcu54y4MJDIBgWAWuE8jxKcICSAlnL9kTYSvup7biRx34BxPhllObhGb6AIDx2kfQmHxPTkSvXxLwZR",
    "pZ3htiz33SBQ",
);
const RS256: &str = concat!(
    "eyJhbGciOiJSUzI1NiIsImtpZCI6InIifQ.eyJzdWIiOiJhIn0.i0PLK1BnPhG3bOCCZSHEHL16VtT-pCbaxDJuss2fiyXK--V87aGitjQv3O5",
    "2iBdPh0tV4a2nbG9D9BA269YK_Rp_fYeHDvgma_JCgIGvnTpimq6DEcsdy2FmWT5zWJVy6hL-q2Nwe_OiYFJyY75XkVJlZI2RTb_3_8pAkzeFr",
    "KQO1axVd59zlZ3KUDPyKMjSgYt1H-ZPGVuxJzdIqrlmrunwZl3vHkEinTNtgNlnZolATLVU0BHk5EnWlZvyfYWtiMbi7ZvOD5U249KSQMos1Cw",
    "EBtDYJa8nmUNvPx6iGh7xOVkF9RvI-WPS1XBUaJZ_S5z3_WxDcFPtDbjTKj_j2g",
);
const PS256: &str = concat!(
    "eyJhbGciOiJQUzI1NiIsImtpZCI6InIifQ.eyJzdWIiOiJhIn0.UcUsysfecchPl0eLauebfZMAAaU-czL3O5bC26x6Fnm5yu9hRaRIujpOeQd",
    "mgO2TXRBsp3eYmPo2SzGA6aBam0AvzbYWtDfszy0VqyumoWUOnEG6ePXv1-xIjg9PqVIWJzRj8Vny-Wb07MfcnIkHA2JGoH9hlMDZlazCOgpzY",
    "zXUTfb-3ft4jI3ACozR6NgK4BZXUWHXV31cCLVmgHnahVGY-Evdm0-z5eChR4JKfnPNWpxhIfHTY5nPzipJj7gpaw3emDR02i7qpWDKV9vaVhS",
    "45V--a2tI6wSc4eR21e9wbbHsb7oQM4JZ-XUaIBBrg43tWgFZyy4-XKv-oY8P4A",
);

fn signed(token: &str, keys: &Value) -> bool {
    take_apart(token).is_some_and(|parts| Keys::parse(&json!({"keys": [keys]})).signed(&parts))
}

fn rsa() -> Value {
    json!({"kty": "RSA", "kid": "r", "n": N, "e": "AQAB"})
}

fn with(mut key: Value, field: &str, value: &str) -> Value {
    key[field] = json!(value);
    key
}

#[test]
fn rsa_keys() {
    assert!(signed(RS256, &rsa()) && signed(PS256, &rsa()));
    assert!(signed(RS256, &with(rsa(), "alg", "RS256")));
    // A key of another algorithm, for another use, or of another name.
    assert!(!signed(PS256, &with(rsa(), "alg", "RS256")));
    assert!(!signed(RS256, &with(rsa(), "use", "enc")));
    assert!(!signed(RS256, &with(rsa(), "kid", "x")));
    let (head, signature) = RS256.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let other = BASE64.encode(r#"{"sub":"b"}"#);
    assert!(!signed(&format!("{header}.{other}.{signature}"), &rsa()));
}

#[test]
fn curves() {
    let random = SystemRandom::new();
    let made = |header: Value| format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode("{}"));
    let document = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    let text = made(json!({"alg": "EdDSA"}));
    let token = format!("{text}.{}", BASE64.encode(pair.sign(text.as_bytes())));
    let key = json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(pair.public_key().as_ref())});
    assert!(signed(&token, &key));
    let algorithm = &ECDSA_P384_SHA384_FIXED_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let part = |from: usize| BASE64.encode(&point[from..from + 48]);
    let text = made(json!({"alg": "ES384"}));
    let token = format!("{text}.{}", BASE64.encode(pair.sign(&random, text.as_bytes()).unwrap()));
    assert!(signed(&token, &json!({"kty": "EC", "crv": "P-384", "x": part(1), "y": part(49)})));
    assert!(!signed(&token, &key));
    // The point of a curve has its own size.
    assert!(!signed(&token, &json!({"kty": "EC", "crv": "P-256", "x": part(1), "y": part(49)})));
}

#[test]
fn what_is_no_token() {
    let made = |header: Value| format!("{}.{}.", BASE64.encode(header.to_string()), BASE64.encode("{}"));
    for token in [
        String::new(),
        "a.b.c".into(),
        made(json!({"alg": "none"})),
        made(json!({"alg": "HS256"})),
        made(json!({"alg": "ES256", "crit": ["x"]})),
        made(json!({})),
    ] {
        assert!(take_apart(&token).is_none(), "{token}");
    }
    assert!(Keys::parse(&json!({"keys": [{"kty": "oct", "k": "AAAA"}, {}, 5]})).is_empty());
}
