//! Both sides over pipes of a few bytes, with a client of rustls' other interface.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    pki_types::{PrivateKeyDer, ServerName},
    server::{ServerSessionMemoryCache, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsConnector, client};

struct World {
    hub: Arc<ServerConfig>,
    board: Arc<ClientConfig>,
    stranger: Arc<ClientConfig>,
}

fn world(version: &'static rustls::SupportedProtocolVersion) -> World {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let leaf = |names: &[String]| {
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        (vec![signed.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    };
    let mut roots = RootCertStore::empty();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone()).build().unwrap();
    let (chain, key) = leaf(&["hub".into()]);
    let hub = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
    let mut hub = hub.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    hub.session_storage = ServerSessionMemoryCache::new(64);
    // As long as the chain of a board may be: several records and several reads.
    let names: Vec<String> = (0..900).map(|n| format!("name-{n}.example.org")).collect();
    let (chain, key) = leaf(&names);
    let client = || ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
    let board = client().with_root_certificates(roots.clone()).with_client_auth_cert(chain, key).unwrap();
    let stranger = client().with_root_certificates(roots).with_no_client_auth();
    World { hub: Arc::new(hub), board: Arc::new(board), stranger: Arc::new(stranger) }
}

type Client = client::TlsStream<DuplexStream>;

async fn meet(world: &World, client: &Arc<ClientConfig>, pipe: usize) -> (io::Result<Tls<DuplexStream>>, io::Result<Client>) {
    let (near, far) = duplex(pipe);
    let connect = TlsConnector::from(Arc::clone(client)).connect(ServerName::try_from("hub").unwrap(), far);
    tokio::join!(Tls::accept(Arc::clone(&world.hub), near), connect)
}

#[tokio::test]
async fn much_goes_both_ways_at_once_and_then_nothing_is_held() {
    for version in [&TLS12, &TLS13] {
        let world = world(version);
        for pipe in [61, 4096, 1 << 20] {
            let (hub, board) = meet(&world, &world.board, pipe).await;
            let (hub, board) = (hub.unwrap(), board.unwrap());
            assert_eq!(hub.certificates().len(), 1);
            let data: Arc<Vec<u8>> = Arc::new((0..300_000_u32).map(|n| (n * 7919 >> 5) as u8).collect());
            let (mut from_hub, mut to_board) = tokio::io::split(hub);
            let (mut from_board, mut to_hub) = tokio::io::split(board);
            let (one, two) = (Arc::clone(&data), Arc::clone(&data));
            let writes = tokio::spawn(async move {
                to_board.write_all(&one).await.unwrap();
                to_board.flush().await.unwrap();
                to_board
            });
            let other = tokio::spawn(async move {
                to_hub.write_all(&two).await.unwrap();
                to_hub.flush().await.unwrap();
                to_hub
            });
            let (mut at_hub, mut at_board) = (vec![0; data.len()], vec![0; data.len()]);
            let (one, two) = tokio::join!(from_hub.read_exact(&mut at_hub), from_board.read_exact(&mut at_board));
            assert!(one.is_ok() && two.is_ok() && at_hub == *data && at_board == *data);
            let (to_board, mut to_hub) = (writes.await.unwrap(), other.await.unwrap());
            let mut hub = from_hub.unsplit(to_board);
            assert_eq!((hub.came.capacity(), hub.plain.all.capacity(), hub.goes.all.capacity()), (0, 0, 0));
            // A goodbye is an end; without one it is a failure.
            to_hub.shutdown().await.unwrap();
            assert_eq!(hub.read(&mut [0; 8]).await.unwrap(), 0);
            hub.shutdown().await.unwrap();
            assert_eq!(from_board.read(&mut [0; 8]).await.unwrap(), 0);
        }
        let (hub, board) = meet(&world, &world.board, 4096).await;
        drop(board);
        assert_eq!(hub.unwrap().read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn a_second_connection_is_a_resumed_one() {
    for version in [&TLS12, &TLS13] {
        let world = world(version);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (hub, board) = meet(&world, &world.board, 4096).await;
            let (mut hub, mut board) = (hub.unwrap(), board.unwrap());
            hub.write_all(b"x").await.unwrap();
            hub.flush().await.unwrap();
            board.read_exact(&mut [0]).await.unwrap();
            assert_eq!((board.get_ref().1.handshake_kind(), hub.certificates().len()), (Some(kind), 1));
        }
    }
}

#[tokio::test]
async fn a_stranger_and_noise_are_refused_in_words_of_the_protocol() {
    for version in [&TLS12, &TLS13] {
        let world = world(version);
        let (hub, stranger) = meet(&world, &world.stranger, 4096).await;
        assert!(hub.is_err_and(|e| e.kind() == io::ErrorKind::InvalidData));
        // With TLS 1.3 a client is done before it is judged.
        let heard = match stranger {
            Ok(mut stream) => stream.read(&mut [0; 8]).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(heard.to_string().contains("CertificateRequired") || heard.to_string().contains("HandshakeFailure"), "{heard}");
        // Noise instead of records, in and after the handshake.
        let (near, mut far) = duplex(4096);
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(Tls::accept(Arc::clone(&world.hub), near).await.is_err());
        assert_eq!(far.read_u8().await.unwrap(), 21, "an alert");
        let (hub, board) = meet(&world, &world.board, 4096).await;
        let (mut pipe, _) = board.unwrap().into_inner();
        pipe.write_all(&[0x17, 3, 3, 0, 40]).await.unwrap();
        pipe.write_all(&[7; 40]).await.unwrap();
        let mut hub = hub.unwrap();
        assert_eq!(hub.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(hub.write_all(b"more").await.is_err() || hub.read(&mut [0; 8]).await.is_err());
    }
}

#[tokio::test]
async fn a_handshake_without_end_has_a_bound() {
    let world = world(&TLS13);
    let (near, mut far) = duplex(4096);
    let accept = tokio::spawn(Tls::accept(Arc::clone(&world.hub), near));
    // A ClientHello of 16 MiB, in records as long as they may be.
    let mut sent = 0;
    let mut message = vec![1, 0xff, 0xff, 0xff];
    message.resize(16_384, 0);
    while far.write_all(&[0x16, 3, 1, 0x40, 0]).await.is_ok() && far.write_all(&message).await.is_ok() {
        sent += message.len();
        assert!(sent < 4 * RECORDS_BYTES_MAX, "it goes on reading");
        message.fill(0);
    }
    assert!(accept.await.unwrap().is_err());
}
