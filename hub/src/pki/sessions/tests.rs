//! Sessions over a restart: what comes back, what does not, and what a file of somebody else's does.
//!
//! In: directories of their own. Out: whether a session is known. Never: the real clock where it matters.

use super::*;
use crate::pki::{Pki, Subject};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::time::{Duration, Instant};

const CA: &str = "a hash";

/// A session's value as rustls begins it: no server name, TLS 1.3.
fn value(n: u8) -> Vec<u8> {
    [&[0, 3, 4][..], &[n; 700]].concat()
}

fn id(n: u8) -> Vec<u8> {
    vec![n; ID_BYTES]
}

fn open(dir: &Path, ca: &str) -> Arc<Sessions> {
    Sessions::open(dir, dir.join("tls-sessions"), ca).unwrap()
}

/// The thread that writes is another one.
fn until(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn in_file(dir: &Path) -> u64 {
    fs::metadata(dir.join("tls-sessions")).map_or(0, |m| m.len())
}

#[test]
fn a_session_outlives_the_hub_and_is_used_once() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = open(dir.path(), CA);
    for n in 1..=3 {
        assert!(sessions.put(id(n), value(n)));
    }
    until(|| in_file(dir.path()) > 3 * 700);
    // No end is told: as when the hub is killed.
    let key = fs::read(dir.path().join("sessions.key")).unwrap();
    let after = open(dir.path(), CA);
    assert_ne!(key, fs::read(dir.path().join("sessions.key")).unwrap(), "each start has a key of its own");
    assert_eq!(after.take(&id(2)), Some(value(2)));
    assert_eq!(after.take(&id(2)), None);
    assert_eq!(after.get(&id(3)), Some(value(3)));
    assert_eq!(after.get(&id(9)), None);
    use std::os::unix::fs::PermissionsExt;
    for file in ["tls-sessions", "sessions.key"] {
        until(|| dir.path().join(file).exists());
        assert_eq!(fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    let text = fs::read(dir.path().join("tls-sessions")).unwrap();
    assert!(!text.windows(8).any(|w| w == [1; 8]), "what is in the file is sealed");
}

#[test]
fn another_ca_an_old_day_and_tls_1_2_bring_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = open(dir.path(), CA);
    sessions.put(id(1), value(1));
    // A secret of TLS 1.2 is not written down.
    sessions.put(id(2), [&[1, 3][..], b"hub", &[3, 3, 9, 9]].concat());
    assert!(sessions.get(&id(2)).is_some());
    sessions.put(id(3), [&[1, 3][..], b"hub", &[3, 4, 9, 9]].concat());
    until(|| in_file(dir.path()) > 800);
    let (file, key) = (dir.path().join("tls-sessions"), dir.path().join("sessions.key"));
    let (kept, old_key) = (fs::read(&file).unwrap(), fs::read(&key).unwrap());
    let other = open(dir.path(), "another hash");
    assert_eq!(other.get(&id(1)), None);
    // Back to what was kept.
    let whole = |len: usize| {
        fs::write(&file, &kept[..len]).unwrap();
        fs::write(&key, &old_key).unwrap();
        open(dir.path(), CA)
    };
    let again = whole(kept.len());
    assert!(again.get(&id(1)).is_some() && again.get(&id(2)).is_none() && again.get(&id(3)).is_some());
    let late = Sessions { known: Arc::clone(&again.known), to_file: again.to_file.clone(), now_s: || now_s() + LIFE_S };
    assert_eq!((late.get(&id(1)), late.take(&id(3))), (None, None));
    let before = Sessions { known: Arc::clone(&again.known), to_file: again.to_file.clone(), now_s: || 1000 };
    assert_eq!(before.get(&id(1)), None, "a clock that went back makes nothing younger");
    // Cut anywhere or spoiled, it is a shorter row and never an error.
    for cut in [0, 1, 4, 15, 300, kept.len() - 1] {
        let sessions = whole(cut);
        assert!(sessions.get(&id(3)).is_none(), "{cut}");
    }
    for at in (0..kept.len()).step_by(7) {
        let mut spoiled = kept.clone();
        spoiled[at] ^= 0x40;
        let mut known = Known::default();
        let seal = Seal::new(&unhex(std::str::from_utf8(&old_key).unwrap()).unwrap(), CA).unwrap();
        fs::write(&file, &spoiled).unwrap();
        let _ = read(&file, &seal, now_s(), &mut known);
        assert!(known.sessions.len() < 2, "{at}");
    }
}

#[test]
fn both_memory_and_file_are_bounded() {
    let mut known = Known::default();
    for n in 0..(SESSIONS_MAX as u32 + 100) {
        let mut id = [0; ID_BYTES];
        id[..4].copy_from_slice(&n.to_be_bytes());
        known.put(id, Session { at_s: 1, value: vec![] });
        // The same again is one.
        known.put(id, Session { at_s: 2, value: vec![] });
    }
    assert_eq!((known.sessions.len(), known.order.len()), (SESSIONS_MAX, SESSIONS_MAX));
    assert!(known.take(&[0; ID_BYTES]).is_none(), "the oldest went");
    let dir = tempfile::tempdir().unwrap();
    let sessions = open(dir.path(), CA);
    assert!(!sessions.put(vec![1; 31], value(1)) && !sessions.put(id(1), vec![0; VALUE_BYTES_MAX + 1]));
    // One board that comes again and again.
    for _ in 0..4000 {
        assert!(sessions.take(&id(1)).is_none_or(|v| v == value(1)) && sessions.put(id(1), value(1)));
    }
    until(|| in_file(dir.path()) > 0);
    assert!(in_file(dir.path()) <= 2 * SLACK_BYTES, "{}", in_file(dir.path()));
}

/// A board's handshake with the hub's door, in memory: how it went, and who the hub says it was.
fn handshake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Option<(HandshakeKind, Vec<u8>)> {
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), ServerName::try_from("hub.limpet").unwrap()).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut &wire[..]).unwrap();
        server.process_new_packets().ok()?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut &wire[..]).unwrap();
        client.process_new_packets().ok()?;
    }
    let leaf = server.peer_certificates()?.first()?.to_vec();
    (!server.is_handshaking() && !client.is_handshaking()).then_some((server.handshake_kind()?, leaf))
}

#[test]
fn a_board_resumes_with_the_next_life_of_its_hub() {
    let dir = tempfile::tempdir().unwrap();
    let hub = |dir: &Path, file: &Path| {
        let mut pki = Pki::open(dir, &["hub.limpet".into()], SystemTime::now()).unwrap();
        pki.remember_sessions(file.into()).unwrap();
        let config = Arc::new(pki.mqtt_config().unwrap());
        (pki, config)
    };
    let (own, other, file) = (dir.path().join("own"), dir.path().join("other"), dir.path().join("tls-sessions"));
    let (pki, server) = hub(&own, &file);
    let issued = pki.issue_client(&Subject::client("system:node:a", &["system:nodes"]), 1, SystemTime::now()).unwrap();
    let leaf = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap();
    let key = || PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![leaf.clone()], key())
        .unwrap();
    let client = Arc::new(client);
    assert_eq!(handshake(&server, &client), Some((HandshakeKind::Full, leaf.to_vec())));
    assert_eq!(handshake(&server, &client), Some((HandshakeKind::Resumed, leaf.to_vec())));
    until(|| in_file(dir.path()) > 500);
    // The hub dies and is there again; the session of the last handshake may still be on its way to the file.
    let mut resumed = false;
    for _ in 0..20 {
        let (_, server) = hub(&own, &file);
        let (kind, who) = handshake(&server, &client).unwrap();
        assert_eq!(who, leaf.to_vec());
        resumed |= kind == HandshakeKind::Resumed;
        // Of this life's session.
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(resumed, "never resumed");
    // Another hub with this one's file and key, and a CA of its own.
    Pki::open(&other, &["hub.limpet".into()], SystemTime::now()).unwrap();
    fs::copy(own.join("sessions.key"), other.join("sessions.key")).unwrap();
    let (_, server) = hub(&other, &file);
    assert!(handshake(&server, &client).is_none(), "each has to trust the other anew");
}
