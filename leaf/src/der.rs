//! As much of ASN.1's DER as certificates with P-256 keys need.
//!
//! In: bytes of anybody. Out: the parts of a certificate; a PKCS#10 request. Sources: RFC 5280, 4.1 and 4.2.1; RFC 2986, 4;
//! RFC 5480, 2.1.1.
//! Never: follows a length out of its bounds; decides whether a certificate is good (`trust`).

use alloc::vec::Vec;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// AlgorithmIdentifier of a P-256 key, then the head of a BIT STRING of 65 bytes.
const P256_KEY: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07, 0x03, 0x42, 0x00,
];
/// AlgorithmIdentifier of ECDSA with SHA-256.
const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ALT_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const KEY_USES: &[u8] = &[0x55, 0x1d, 0x25];
const SERVER_AUTH: &[u8] = &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const DNS_NAME: u8 = 0x82;

/// The parts of one certificate that was read.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    /// What the signature is over.
    pub signed: &'a [u8],
    /// ECDSA with SHA-256, as DER.
    pub signature: &'a [u8],
    /// An uncompressed point of P-256.
    pub point: &'a [u8],
    /// Seconds since 1970.
    pub not_before_s: u64,
    pub not_after_s: u64,
    alt_names: &'a [u8],
    key_uses: &'a [u8],
}

/// Tag, content, all of it with its head, rest.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8], &[u8])> {
    let (&tag, after_tag) = input.split_first()?;
    let (&first, after) = after_tag.split_first()?;
    let (len, after) = match first {
        0..=0x7f => (usize::from(first), after),
        0x81..=0x83 => {
            let (bytes, after) = after.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0usize, |n, b| n << 8 | usize::from(*b)), after)
        }
        _ => return None,
    };
    let (content, rest) = after.split_at_checked(len)?;
    Some((tag, content, &input[..input.len() - rest.len()], rest))
}

fn sequence(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (tag, content, _, rest) = element(input)?;
    (tag == SEQUENCE).then_some((content, rest))
}

impl<'a> Certificate<'a> {
    pub fn read(der: &'a [u8]) -> Option<Certificate<'a>> {
        let (outer, rest) = sequence(der)?;
        let (_, tbs, signed, after) = element(outer)?;
        let (_, _, algorithm, after) = element(after)?;
        let (tag, bits, _, end) = element(after)?;
        if !rest.is_empty() || algorithm != ECDSA_SHA256 || tag != 0x03 || !end.is_empty() {
            return None;
        }
        let (unused, signature) = bits.split_first()?;
        let (tag, _, _, after_version) = element(tbs)?;
        let mut rest = if tag == 0xa0 { after_version } else { tbs };
        for _serial_algorithm_issuer in 0..3 {
            rest = element(rest)?.3;
        }
        let (validity, rest) = sequence(rest)?;
        let (_, _, _, rest) = element(rest)?;
        let (_, _, key, mut rest) = element(rest)?;
        let point = key.strip_prefix(P256_KEY).filter(|p| p.len() == 65)?;
        let (tag_before, before, _, after) = element(validity)?;
        let (tag_after, after, _, _) = element(after)?;
        let mut read = Certificate {
            signed,
            signature: (*unused == 0).then_some(signature)?,
            point,
            not_before_s: time(tag_before, before)?,
            not_after_s: time(tag_after, after)?,
            alt_names: &[],
            key_uses: &[],
        };
        while let Some((tag, content, _, next)) = element(rest) {
            if tag == 0xa3 {
                read.extensions(sequence(content)?.0)?;
            }
            rest = next;
        }
        Some(read)
    }

    fn extensions(&mut self, mut all: &'a [u8]) -> Option<()> {
        while !all.is_empty() {
            let (one, next) = sequence(all)?;
            let (_, id, _, mut value) = element(one)?;
            // "critical" stands between the two, where it is said.
            if value.first() == Some(&0x01) {
                value = element(value)?.3;
            }
            let (_, value, _, _) = element(value)?;
            match id {
                ALT_NAMES => self.alt_names = sequence(value)?.0,
                KEY_USES => self.key_uses = sequence(value)?.0,
                _ => {}
            }
            all = next;
        }
        Some(())
    }

    /// Whether it is a server's of this name.
    pub fn serves(&self, name: &str) -> bool {
        let found = |mut all: &[u8], wanted: &dyn Fn(u8, &[u8], &[u8]) -> bool| {
            while let Some((tag, content, whole, next)) = element(all) {
                if wanted(tag, content, whole) {
                    return true;
                }
                all = next;
            }
            false
        };
        found(self.alt_names, &|tag, content, _| tag == DNS_NAME && content == name.as_bytes())
            && found(self.key_uses, &|_, _, whole| whole == SERVER_AUTH)
    }
}

/// Seconds since 1970 of a UTCTime or GeneralizedTime that ends with `Z`.
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let two = |at: usize| -> Option<u64> {
        let pair = text.get(at..at + 2)?;
        pair.iter().all(u8::is_ascii_digit).then(|| u64::from(pair[0] - b'0') * 10 + u64::from(pair[1] - b'0'))
    };
    let (year, at) = match (tag, text.len()) {
        (0x17, 13) => (two(0)? + if two(0)? >= 50 { 1900 } else { 2000 }, 2),
        (0x18, 15) => (two(0)? * 100 + two(2)?, 4),
        _ => return None,
    };
    let (month, day) = (two(at)?, two(at + 2)?);
    if text.last() != Some(&b'Z') || !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days of a calendar whose years begin in March, so that the leap day is the last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + two(at + 4)? * 3600 + two(at + 6)? * 60 + two(at + 8)?)
}

fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let mut out = Vec::with_capacity(len + 4);
    out.push(tag);
    match len {
        0..=0x7f => out.push(len as u8),
        0x80..=0xff => out.extend([0x81, len as u8]),
        _ => out.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

/// A request for a certificate: common name, key, and what `sign` makes of them.
pub fn request(common_name: &str, point: &[u8], sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let attribute = wrap(SEQUENCE, &[&wrap(0x06, &[COMMON_NAME]), &wrap(0x0c, &[common_name.as_bytes()])]);
    let subject = wrap(SEQUENCE, &[&wrap(SET, &[&attribute])]);
    let version_0 = [0x02, 0x01, 0x00];
    let no_attributes = [0xa0, 0x00];
    let info = wrap(SEQUENCE, &[&version_0, &subject, P256_KEY, point, &no_attributes]);
    let signature = sign(&info)?;
    let bits = wrap(0x03, &[&[0], &signature]);
    Some(wrap(SEQUENCE, &[&info, ECDSA_SHA256, &bits]))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    fn hub(names: &[&str]) -> Vec<u8> {
        let names: std::vec::Vec<std::string::String> = names.iter().map(|n| (*n).into()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.extended_key_usages = std::vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = rcgen::date_time_ymd(2026, 2, 28);
        params.not_after = rcgen::date_time_ymd(2052, 3, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn certificates_of_others_are_read() {
        let der = hub(&["localhost", "hub.limpet"]);
        let read = Certificate::read(&der).unwrap();
        assert_eq!((read.not_before_s, read.not_after_s), (1_772_236_800, 2_592_864_000));
        assert!(read.serves("hub.limpet") && read.serves("localhost"));
        assert!(!read.serves("limpet") && !read.serves("") && !read.serves("hub.limpet.example"));
        assert!(!Certificate::read(&hub(&["other"])).unwrap().serves("hub.limpet"));
    }

    #[test]
    fn no_bytes_make_it_panic_and_no_prefix_is_a_certificate() {
        let der = hub(&["hub.limpet"]);
        for end in 0..der.len() {
            assert!(Certificate::read(&der[..end]).is_none());
        }
        let mut x = 88_172_645_463_325_252u64;
        for _ in 0..50_000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let mut bent = der.clone();
            let at = x as usize % bent.len();
            bent[at] ^= (x >> 40) as u8;
            if let Some(read) = Certificate::read(&bent) {
                read.serves("hub.limpet");
            }
        }
    }

    #[test]
    fn times_are_seconds() {
        for (tag, text, want) in [
            (0x17, &b"700101000000Z"[..], Some(0)),
            (0x17, b"000229120000Z", Some(951_825_600)),
            (0x18, b"20500101000000Z", Some(2_524_608_000)),
            (0x17, b"691231235959Z", None),
            (0x17, b"7001010000Z", None),
            (0x18, b"20501301000000Z", None),
            (0x18, b"2050010100000Z0", None),
            (0x17, b"70010100000xZ", None),
        ] {
            assert_eq!(time(tag, text), want, "{text:?}");
        }
    }
}
