//! The validity and the key of a certificate, read from its DER.
//!
//! In: one X.509 certificate. Out: not before and not after, milliseconds since 1970; the key. Source: RFC 5280, 4.1.2.5 and
//! 4.1.2.7.
//! Never: verifies anything; rustls does.

/// Tag, content, rest.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        let (bytes, rest) = rest.split_at_checked(count).filter(|_| count <= 4)?;
        (bytes.iter().fold(0usize, |n, b| n << 8 | usize::from(*b)), rest)
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// What follows the issuer.
fn from_validity(certificate: &[u8]) -> Option<&[u8]> {
    let (_, certificate, _) = element(certificate)?;
    let (_, tbs, _) = element(certificate)?;
    let (tag, _, after_version) = element(tbs)?;
    let mut rest = if tag == 0xa0 { after_version } else { tbs };
    for _serial_algorithm_issuer in 0..3 {
        rest = element(rest)?.2;
    }
    Some(rest)
}

/// The certificate's SubjectPublicKeyInfo, DER with its head.
pub fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let (_, _, from_subject) = element(from_validity(certificate)?)?;
    let (_, _, from_key) = element(from_subject)?;
    let (_, _, rest) = element(from_key)?;
    from_key.get(..from_key.len() - rest.len())
}

/// Milliseconds since 1970 of (notBefore, notAfter).
pub fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    let (_, validity, _) = element(from_validity(certificate)?)?;
    let (tag, before, rest) = element(validity)?;
    let (tag_after, after, _) = element(rest)?;
    Some((time(tag, before)?, time(tag_after, after)?))
}

fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let full = match tag {
        0x17 if text.get(..2)?.parse::<u32>().ok()? >= 50 => format!("19{text}"),
        0x17 => format!("20{text}"),
        0x18 => text.to_string(),
        _ => return None,
    };
    let part = |from: usize, to: usize| full.get(from..to);
    let stamp = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?
    );
    limpet_agent_core::clock::parse_rfc3339(&stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_validity_of_a_real_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["hub.test".to_string()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 11, 23);
        params.not_after = rcgen::date_time_ymd(2055, 1, 2);
        let cert = params.self_signed(&key).unwrap();
        let (before, after) = validity(cert.der()).unwrap();
        assert_eq!(limpet_agent_core::clock::rfc3339(before), "2026-11-23T00:00:00Z");
        assert_eq!(limpet_agent_core::clock::rfc3339(after), "2055-01-02T00:00:00Z");
        use rcgen::PublicKeyData;
        assert_eq!(public_key(cert.der()), Some(&key.subject_public_key_info()[..]));
        for cut in 0..cert.der().len() {
            let _ = (validity(&cert.der()[..cut]), public_key(&cert.der()[..cut]));
        }
    }
}
