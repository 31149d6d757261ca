//! Enrolment against a real store and a real PKI in a folder of its own.

use super::*;
use limpet_store::Options;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, pem::PemObject};

fn office(name: &str) -> (Enroll, std::path::PathBuf) {
    let dir = std::env::temp_dir().join(format!("limpet-enroll-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let pki = Pki::open(&dir.join("pki"), &[], at(0)).unwrap();
    let store = Store::open(&dir, Options::default()).unwrap();
    let endpoints = Endpoints { api: vec!["127.0.0.1:6443".into()], ..Endpoints::default() };
    (Enroll::new(store, Arc::new(RwLock::new(pki)), endpoints), dir)
}

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000 + second)
}

fn wish(uses: Option<u32>, node: Option<&str>) -> TokenWish {
    TokenWish { ttl_seconds: 60, uses, node: node.map(String::from), ..TokenWish::default() }
}

fn ask(token: &str, node: &str, key: &KeyPair) -> JoinAsk {
    let json = URL_SAFE_NO_PAD.decode(token.strip_prefix(TOKEN_PREFIX).unwrap()).unwrap();
    let content: JoinToken = serde_json::from_slice(&json).unwrap();
    let csr = CertificateParams::new(vec![]).unwrap().serialize_request(key).unwrap();
    JoinAsk {
        token_id: content.id,
        token_secret: content.secret,
        node_name: node.into(),
        csr_pem: csr.pem().unwrap(),
        instance: "00".into(),
        description: String::new(),
        hardware: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_with_one_token_is_let_in_and_nobody_more() {
    let (office, dir) = office("crowd");
    let made = office.create_token(&wish(Some(30), None), at(0)).await.unwrap();
    let office = Arc::new(office);
    let crowd: Vec<_> = (0..40)
        .map(|n| {
            let (office, ask) = (office.clone(), ask(&made.token, &format!("pi-{n}"), &KeyPair::generate().unwrap()));
            tokio::spawn(async move { office.join(&ask, "192.0.2.9", at(1)).await })
        })
        .collect();
    let mut refused = 0;
    for one in crowd {
        match one.await.unwrap() {
            Ok(_) => {}
            Err(EnrollError::Refused(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((refused, office.identities().len()), (10, 30));
    assert_eq!(office.tokens()[0].uses_left, Some(0));
    let _ = std::fs::remove_dir_all(dir);
}

/// Beyond the names that a token remembers nobody waits for a turn; of two devices with one name one is let in all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fleet_with_one_token_has_every_name_once() {
    let (office, dir) = office("fleet");
    let made = office.create_token(&wish(None, None), at(0)).await.unwrap();
    let office = Arc::new(office);
    let crowd: Vec<_> = (0..240)
        .map(|n| {
            let (office, ask) = (office.clone(), ask(&made.token, &format!("pi-{}", n / 2), &KeyPair::generate().unwrap()));
            tokio::spawn(async move { office.join(&ask, "192.0.2.9", at(1)).await })
        })
        .collect();
    let mut taken = 0;
    for one in crowd {
        match one.await.unwrap() {
            Ok(_) => {}
            Err(EnrollError::Refused(Refusal::Taken(_))) => taken += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((taken, office.identities().len(), office.tokens()[0].used_by.len()), (120, 120, 100));
    let late = ask(&made.token, "late", &KeyPair::generate().unwrap());
    let (revoked, joined) = tokio::join!(office.revoke_token(&made.id), office.join(&late, "192.0.2.9", at(2)));
    assert!(revoked.unwrap());
    if let Err(refused) = joined {
        assert!(matches!(refused, EnrollError::Refused(Refusal::Unknown)), "{refused}");
    }
    assert!(office.join(&late, "192.0.2.9", at(3)).await.is_err());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn a_device_joins_renews_and_is_removed() {
    let (office, dir) = office("joins");
    let made = office.create_token(&wish(Some(1), None), at(0)).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let ask = ask(&made.token, "pi-1", &key);
    let answer = office.join(&ask, "192.0.2.9", at(1)).await.unwrap();
    let der = CertificateDer::from_pem_slice(answer.certificate_pem.as_bytes()).unwrap();
    office.admit("pi-1", &der).unwrap();
    assert!(office.admit("pi-2", &der).is_err());
    office.renew("pi-1", &der, &ask.csr_pem, at(2)).unwrap();
    let late = at(400 * 86_400);
    let renewed = office.renew_by_key(&ask, late).unwrap();
    assert_ne!(renewed.certificate_pem, answer.certificate_pem, "a board that was away too long renews by its key");
    let stranger = KeyPair::generate().unwrap();
    let other = CertificateParams::new(vec![]).unwrap().serialize_request(&stranger).unwrap().pem().unwrap();
    assert!(office.renew_by_key(&JoinAsk { csr_pem: other, ..ask.clone() }, late).is_err());
    assert_eq!(office.tokens()[0].uses_left, Some(0));
    assert!(office.remove("pi-1").await.unwrap());
    assert!(office.admit("pi-1", &der).is_err());
    assert!(office.renew_by_key(&ask, late).is_err());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn a_taken_name_needs_a_token_of_its_own() {
    let (office, dir) = office("taken");
    let open = office.create_token(&wish(None, None), at(0)).await.unwrap();
    let (old, new) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    office.join(&ask(&open.token, "pi-1", &old), "192.0.2.9", at(1)).await.unwrap();
    let refused = office.join(&ask(&open.token, "pi-1", &new), "192.0.2.9", at(2)).await.unwrap_err();
    assert!(matches!(refused, EnrollError::Refused(Refusal::Taken(_))), "{refused}");
    let own = office.create_token(&wish(Some(1), Some("pi-1")), at(3)).await.unwrap();
    office.join(&ask(&own.token, "pi-1", &new), "192.0.2.9", at(4)).await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A token that was found later, on a card or in a script, opens nothing that it has opened before.
#[tokio::test]
async fn a_used_token_is_used_up_also_for_the_same_name() {
    let (office, dir) = office("used");
    let (own, thief) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    for node in [None, Some("pi-1")] {
        let made = office.create_token(&wish(Some(1), node), at(0)).await.unwrap();
        office.join(&ask(&made.token, "pi-1", &own), "192.0.2.9", at(1)).await.unwrap();
        // Its answer was lost: the same device may ask again.
        office.join(&ask(&made.token, "pi-1", &own), "192.0.2.9", at(2)).await.unwrap();
        let no = office.join(&ask(&made.token, "pi-1", &thief), "192.0.2.66", at(3)).await.unwrap_err();
        assert!(matches!(no, EnrollError::Refused(Refusal::UsedUp { .. })), "{no}");
        // Nor does a device that was removed come back with it.
        office.remove("pi-1").await.unwrap();
        let no = office.join(&ask(&made.token, "pi-1", &own), "192.0.2.9", at(4)).await.unwrap_err();
        assert!(matches!(no, EnrollError::Refused(Refusal::UsedUp { .. })), "{no}");
        assert!(office.identities().is_empty());
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn wrong_tokens_change_nothing() {
    let (office, dir) = office("wrong");
    let made = office.create_token(&wish(Some(1), None), at(0)).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let good = ask(&made.token, "pi-1", &key);
    let bad = [
        (JoinAsk { token_secret: "0".repeat(32), ..good.clone() }, at(1), "not known"),
        (JoinAsk { token_id: "ffffff".into(), ..good.clone() }, at(1), "not known"),
        (JoinAsk { node_name: "../x".into(), ..good.clone() }, at(1), "not a node name"),
        (JoinAsk { csr_pem: "x".into(), ..good.clone() }, at(1), "not usable"),
        (good.clone(), at(61), "expired"),
    ];
    for (ask, now, words) in bad {
        let error = office.join(&ask, "192.0.2.9", now).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(office.tokens()[0].uses_left, Some(1));
    assert!(office.store.list(IDENTITIES, None).records.is_empty());
    assert!(office.revoke_token(&made.id).await.unwrap());
    assert!(office.join(&good, "192.0.2.9", at(1)).await.unwrap_err().to_string().contains("not known"));
    for wish in [TokenWish::default(), wish(Some(0), None), wish(None, Some("A"))] {
        office.create_token(&wish, at(0)).await.unwrap_err();
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn a_device_waits_until_somebody_lets_it_in() {
    let (office, dir) = office("waits");
    let wish = TokenWish { approve: vec!["pi-*".into()], pool: Some("shop".into()), ..wish(Some(2), None) };
    let made = office.create_token(&wish, at(0)).await.unwrap();
    let known = KeyPair::generate().unwrap();
    office.join(&ask(&made.token, "pi-1", &known), "192.0.2.9", at(1)).await.unwrap();
    assert_eq!(office.identity("pi-1").unwrap().pool.as_deref(), Some("shop"));

    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let asks = JoinAsk { description: "a board".into(), ..ask(&made.token, "nano", &key) };
    let waits = office.join(&asks, "192.0.2.9", at(2)).await.unwrap_err();
    assert!(waits.to_string().contains("limpet node approve nano"), "{waits}");
    let waiting = office.waiting();
    assert_eq!((waiting.len(), waiting[0].description.as_str()), (1, "a board"));
    assert!(waits.to_string().contains(&fingerprint(&waiting[0].key_sha256)), "{waits}");
    assert_eq!(office.tokens()[0].uses_left, Some(1), "waiting uses nothing up");

    assert!(office.decide("nano", Decision::Approved).await.unwrap());
    let thief = office.join(&ask(&made.token, "nano", &other), "192.0.2.66", at(3)).await.unwrap_err();
    assert!(matches!(thief, EnrollError::Waits { .. }), "the approval is for one key: {thief}");
    assert_eq!(office.waiting()[0].decision, Decision::Waiting);
    office.decide("nano", Decision::Rejected).await.unwrap();
    let no = office.join(&ask(&made.token, "nano", &other), "192.0.2.66", at(4)).await.unwrap_err();
    assert!(no.to_string().contains("rejected"), "{no}");

    let again = office.join(&asks, "192.0.2.9", at(5)).await.unwrap_err();
    assert!(matches!(again, EnrollError::Waits { .. }));
    office.decide("nano", Decision::Approved).await.unwrap();
    office.join(&asks, "192.0.2.9", at(6)).await.unwrap();
    assert!(office.waiting().is_empty());
    assert!(!office.decide("nobody", Decision::Approved).await.unwrap());
    std::fs::remove_dir_all(&dir).unwrap();
}

/// The door's parsers: a good greeting, spoilt in its JSON, in its request for a certificate and in its token, and what once was
/// trouble (`corpus.txt`). Nobody gets in by a token that was touched, and nobody gets another name or key than was asked for.
#[tokio::test]
async fn spoilt_greetings_open_nothing() {
    let (office, dir) = office("spoilt");
    let made = office.create_token(&wish(None, None), at(0)).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let good = ask(&made.token, "pi-1", &key);
    let mut seeds = vec![serde_json::to_vec(&good).unwrap()];
    let lines = include_str!("corpus.txt").lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    seeds.extend(lines.map(|l| l.as_bytes().to_vec()));
    let mut x = 0x5eed_u64;
    let mut chance = |n: usize| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        ((x >> 11) % n.max(1) as u64) as usize
    };
    let (mut read, mut let_in) = (0, 0);
    for _ in 0..6_000 {
        // Mostly the good one: the others say nothing new for long.
        let mut bytes = seeds[if chance(4) == 0 { chance(seeds.len()) } else { 0 }].clone();
        for _ in 0..1 + chance(2) {
            let at = chance(bytes.len());
            match chance(5) {
                _ if bytes.is_empty() => bytes.push(b'{'),
                0 => bytes[at] ^= 1 << chance(7),
                1 => bytes[at] = b"\"\\{}0A="[chance(7)],
                2 => bytes.truncate(at),
                3 => bytes.insert(at, b' ' + chance(90) as u8),
                _ => drop(bytes.drain(at..(at + chance(40)).min(bytes.len()))),
            }
        }
        let Ok(spoilt) = serde_json::from_slice::<JoinAsk>(&bytes) else { continue };
        read += 1;
        let Ok(answer) = office.join(&spoilt, "192.0.2.9", at(1)).await else { continue };
        let_in += 1;
        assert_eq!((&spoilt.token_id, &spoilt.token_secret), (&good.token_id, &good.token_secret));
        assert_eq!(answer.node_name, spoilt.node_name);
        let der = CertificateDer::from_pem_slice(answer.certificate_pem.as_bytes()).unwrap();
        assert!(office.admit(&spoilt.node_name, &der).is_ok());
        assert!(limpet_protocol::topic::valid_node_name(&spoilt.node_name), "{:?}", spoilt.node_name);
    }
    assert!(read > 500 && let_in > 20, "the spoiling is too rough to reach anything: {read} read, {let_in} let in");
    office.join(&good, "192.0.2.9", at(1)).await.unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}
