//! Registries that mean no good: endless, slow, redirecting, lying.
//!
//! In: a server that misbehaves at one kind of path. Out: an error in words, in the end; nothing in the index, bounded files, and
//! a board to which the next good image comes.

use super::*;
use crate::images::ImageError;

#[tokio::test]
async fn hostile_registries_change_nothing() {
    let server = Server::start();
    let world = World::new(RegistryOptions::default());
    let good = image_with("one");
    let evil = builder::image(
        &Platform::new("linux", "amd64", None),
        Execution::default(),
        vec![Layer::new().file("../../../escape", 0o644, b"x")],
    )
    .unwrap();
    server.push("evil", "path", &evil);
    server.push("evil", "other", &good);
    let digest = &good.layers[1].descriptor.digest;
    server.put(&format!("/v2/evil/blobs/{digest}"), "x", b"other bytes");
    server.put("/v2/evil/manifests/html", "text/html", b"<html>");
    server.put("/v2/evil/manifests/large", manifest::OCI_MANIFEST, &vec![b' '; 5 << 20]);
    let pinned = Digest::of(b"something else");
    server.put(&format!("/v2/evil/manifests/{pinned}"), manifest::OCI_MANIFEST, &good.manifest.bytes);
    let windows = r#"{"schemaVersion":2,"manifests":[]}"#;
    server.put("/v2/evil/manifests/empty", manifest::OCI_INDEX, windows.as_bytes());
    for target in [":path", ":other", ":html", ":large", ":missing", ":empty", &format!("@{pinned}")] {
        let name = server.name(&format!("evil{target}"));
        let error = world.store.ensure(&want(&name, Policy::IfNotPresent)).await.unwrap_err();
        assert!(["ErrImagePull", "RegistryUnavailable"].contains(&error.reason()), "{target}: {error}");
        assert!(world.store.find(&name).is_none());
    }
    assert!(world.store.list().is_empty());
    let bad = world.store.ensure(&want("Not A Name", Policy::Always)).await.unwrap_err();
    assert_eq!(bad.reason(), "InvalidImageName");
    let hub = world.store.ensure(&want("hub.limpet/x", Policy::Always)).await.unwrap_err();
    assert!(hub.to_string().contains("has not joined"), "{hub}");
    // Whatever was tried, the good image still comes.
    server.push("good", "1", &good);
    world.store.ensure(&want(&server.name("good:1"), Policy::Always)).await.unwrap();
}

fn chunked(status: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes()
}

fn plain(status: &str, headers: &str, body: &str) -> Rude {
    Rude::Bytes(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

/// A chunk of 64 KiB.
fn chunk() -> Vec<u8> {
    [b"10000\r\n".to_vec(), vec![b'x'; 65_536], b"\r\n".to_vec()].concat()
}

/// The largest sum of what lies around after a failed pull: a layer's size and a manifest.
const LEFT_BYTES_MAX: u64 = 2 << 20;

fn bytes_below(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| if e.path().is_dir() { bytes_below(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) }).sum()
}

async fn meets(world: &World, server: &Server, at: &'static str, rude: Rude) -> Result<Image, ImageError> {
    server.manners(|m| m.rude = Some((at, rude)));
    let got = world.store.ensure(&want(&server.name("app:1"), Policy::Always)).await;
    server.manners(|m| m.rude = None);
    got
}

#[tokio::test]
async fn rude_servers_are_bounded() {
    let server = Server::start();
    let image = image_with("one");
    server.push("app", "1", &image);
    let mut count = 0;
    let long = "x".repeat(200_000);
    let huge = b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nx";
    let many = "a: b\r\n".repeat(200);
    let cases: Vec<(&str, Rude)> = vec![
        ("no answer", Rude::Bytes(Vec::new())),
        ("no HTTP", Rude::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())),
        ("HTTP/2 unasked", Rude::Bytes(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64".to_vec())),
        ("half a head", Rude::Bytes(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec())),
        ("a head without end", Rude::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-a: b\r\n".to_vec(), 0)),
        ("a line without end", Rude::Endless(b"HTTP/1.1 200 OK\r\nx-a: ".to_vec(), vec![b'a'; 4096], 0)),
        ("many headers", Rude::Bytes(format!("HTTP/1.1 200 OK\r\n{many}\r\n").into_bytes())),
        ("interim answers without end", Rude::Endless(Vec::new(), b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec(), 0)),
        ("a body without end", Rude::Endless(chunked("200 OK"), chunk(), 0)),
        ("a body that says it is large", Rude::Bytes(huge.to_vec())),
        ("two lengths", Rude::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx".to_vec())),
        ("a chunk of nonsense", Rude::Bytes([chunked("200 OK"), b"zz\r\nx\r\n".to_vec()].concat())),
        ("a chunk past the end of numbers", Rude::Bytes([chunked("200 OK"), b"fffffffffffffffff\r\nx".to_vec()].concat())),
        ("a body that drips", Rude::Endless(chunked("200 OK"), b"1\r\nx\r\n".to_vec(), 20)),
        ("an error without end", Rude::Endless(chunked("403 Forbidden"), chunk(), 0)),
        ("a long error", plain("500 Oops", "", &long)),
        ("nothing", plain("204 No Content", "", "")),
        ("another content", plain("200 OK", "", "{}")),
        ("another content, with the right name", plain("200 OK", "Docker-Content-Digest: sha256:0\r\n", "[]")),
        ("a redirect to nowhere", plain("307 Go", "Location: http://127.0.0.1:1/x\r\n", "")),
        ("a redirect to a file", plain("307 Go", "Location: file:///etc/passwd\r\n", "")),
        ("a redirect with a password", plain("307 Go", "Location: http://a:b@127.0.0.1/x\r\n", "")),
        ("a redirect to nothing", plain("302 Go", "", "")),
        ("a redirect in a circle", plain("308 Go", "Location: ?again\r\n", "")),
        ("a redirect with a line break", plain("307 Go", "Location: /x\tHTTP/1.1\r\n", "")),
        ("401 without a question", plain("401 Who", "", "")),
        ("401 again and again", plain("401 Who", "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/token\"\r\n", "")),
        ("401 with a file for a realm", plain("401 Who", "WWW-Authenticate: Bearer realm=\"file:///etc/shadow\"\r\n", "")),
        ("another range", plain("206 Partial", "Content-Range: bytes 5-9/10\r\n", "xxxxx")),
        ("a range without a place", plain("206 Partial", "Content-Range: lines 1\r\n", "xxxxx")),
        ("a switch of protocols", plain("101 Switching", "Upgrade: h2c\r\nConnection: upgrade\r\n", "")),
    ];
    for (what, rude) in cases {
        for at in ["/manifests/", "/blobs/"] {
            let world = World::new(RegistryOptions::default());
            let limit = std::time::Duration::from_secs(120);
            let got = tokio::time::timeout(limit, meets(&world, &server, at, rude.clone())).await;
            let error = got.unwrap_or_else(|_| panic!("{what} at {at} never ended")).expect_err(what);
            let text = error.to_string();
            assert!(["ErrImagePull", "RegistryUnavailable"].contains(&error.reason()), "{what} at {at}: {text}");
            assert!(text.len() > 20 && text.len() < 3000 && !text.contains('\u{1b}'), "{what} at {at}: {text}");
            assert!(world.store.list().is_empty(), "{what} at {at}");
            let left = bytes_below(&world.dir);
            assert!(left < LEFT_BYTES_MAX, "{what} at {at}: {left} bytes are left");
            // The same store, a moment later, and a server that has come to its senses.
            let then = world.store.ensure(&want(&server.name("app:1"), Policy::Always)).await;
            assert!(then.is_ok(), "{what} at {at}: {then:?}");
            count += 1;
        }
    }
    println!("{count} ways of registries");
    assert!(count >= 60);
}

/// A token server that lies gets no further than the registry that sent there.
#[tokio::test]
async fn rude_token_servers_are_bounded() {
    let (server, tokens) = (Server::start(), Server::start());
    server.push("app", "1", &image_with("one"));
    server.manners(|m| m.realm = Some(tokens.url()));
    for (what, rude) in [
        ("no token", plain("200 OK", "", "{}")),
        ("a token with a line break", plain("200 OK", "", r#"{"token":"a\r\nHost: x"}"#)),
        ("a token without end", Rude::Endless([chunked("200 OK"), b"a\r\n{\"token\":\"\r\n".to_vec()].concat(), chunk(), 0)),
        ("a refusal", plain("403 No", "", "")),
        ("a redirect", plain("302 Go", "Location: http://127.0.0.1:1/\r\n", "")),
        ("nothing", Rude::Bytes(Vec::new())),
    ] {
        tokens.manners(|m| m.rude = Some(("/token", rude)));
        let world = World::new(RegistryOptions::default());
        let error = world.store.ensure(&want(&server.name("app:1"), Policy::Always)).await.expect_err(what);
        assert!(error.to_string().contains("token"), "{what}: {error}");
    }
    tokens.manners(|m| m.rude = None);
    let world = World::new(RegistryOptions::default());
    world.store.ensure(&want(&server.name("app:1"), Policy::Always)).await.unwrap();
}
