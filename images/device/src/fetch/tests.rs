//! A web server that cuts, lies and changes its mind; compressed images with and without a size.

#![allow(clippy::unwrap_used)]

use super::*;
use sha2::{Digest, Sha256};
use std::{
    io::Write,
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

/// What the server does with the next request.
#[derive(Clone)]
enum Next {
    Whole,
    /// So many bytes of the body, then the connection ends.
    Cut(usize),
    /// No range support.
    Ignore,
    Status(u16),
}

struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

fn serve(body: Vec<u8>, tag: &'static str, plan: Vec<Next>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/os.img", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = asked.clone();
    std::thread::spawn(move || {
        for next in plan {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).unwrap().to_lowercase();
            let range = request.lines().find_map(|l| l.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
            let same = request.contains(&format!("if-range: {}", tag.to_lowercase()));
            heard.lock().unwrap().push(range.map_or("all".into(), |r| format!("from {r} same={same}")));
            let from = range.filter(|_| same && !matches!(next, Next::Ignore)).unwrap_or(0);
            let (status, length) = match (&next, from) {
                (Next::Status(s), _) => (*s, 0),
                (_, 0) => (200, body.len()),
                (_, from) => (206, body.len() - from),
            };
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\netag: {tag}\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let piece = &body[from..from + length];
            let piece = if let Next::Cut(n) = next { &piece[..n.min(piece.len())] } else { piece };
            let _ = stream.write_all(piece);
        }
    });
    Server { url, asked }
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn a_download_that_was_cut_carries_on() {
    let dir = tempfile::tempdir().unwrap();
    let body: Vec<u8> = (0..3_000_000u32).map(|i| (i >> 3) as u8).collect();
    let server = serve(body.clone(), "\"one\"", vec![Next::Cut(1_000_000), Next::Cut(500_000), Next::Whole]);
    let (cache, want) = (Cache::at(dir.path()), sum(&body));
    for have in [1_000_000, 1_500_000] {
        match cache.image(&server.url, Some(&want), &mut |_, _| ()) {
            Err(FetchError::Cut { have: n, .. }) => assert_eq!(n, have),
            other => panic!("{:?}", other.err()),
        }
    }
    let image = cache.image(&server.url, Some(&want), &mut |_, _| ()).unwrap();
    assert!(std::fs::read(&image.path).unwrap() == body);
    assert_eq!(*server.asked.lock().unwrap(), ["all", "from 1000000 same=true", "from 1500000 same=true"]);
    // From now on nobody is asked.
    cache.image(&server.url, Some(&want), &mut |_, _| ()).unwrap();
}

#[test]
fn a_server_without_ranges_is_asked_for_everything_again() {
    let dir = tempfile::tempdir().unwrap();
    let body = vec![5u8; 100_000];
    let server = serve(body.clone(), "\"one\"", vec![Next::Cut(10), Next::Ignore]);
    let cache = Cache::at(dir.path());
    assert!(cache.image(&server.url, Some(&sum(&body)), &mut |_, _| ()).is_err());
    cache.image(&server.url, Some(&sum(&body)), &mut |_, _| ()).unwrap();
}

#[test]
fn what_does_not_fit_its_checksum_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(vec![1; 1000], "\"one\"", vec![Next::Whole, Next::Whole]);
    let cache = Cache::at(dir.path());
    for _ in 0..2 {
        let said = cache.image(&server.url, Some(&sum(b"other")), &mut |_, _| ()).err().unwrap().to_string();
        assert!(said.contains("nothing was written"), "{said}");
    }
    assert_eq!(*server.asked.lock().unwrap(), ["all", "all"]);
}

#[test]
fn errors_of_the_web_are_sentences() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path());
    let server = serve(Vec::new(), "\"one\"", vec![Next::Status(404), Next::Status(500)]);
    for says in ["there is no such file", "answered 500"] {
        let said = cache.image(&server.url, Some(&sum(b"")), &mut |_, _| ()).err().unwrap().to_string();
        assert!(said.contains(says), "{said}");
    }
    assert!(matches!(cache.image(&server.url, None, &mut |_, _| ()), Err(FetchError::Plain)));
    assert!(matches!(cache.image(&server.url, Some("abc"), &mut |_, _| ()), Err(FetchError::NotASum(_))));
    assert!(matches!(cache.image("http://127.0.0.1:9/x", Some(&sum(b"")), &mut |_, _| ()), Err(FetchError::Http { .. })));
}

#[test]
fn compressed_images_are_unpacked_and_their_size_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..2_000_000u32).map(|i| (i.wrapping_mul(i) >> 11) as u8).collect();
    let raw = dir.path().join("os");
    std::fs::write(&raw, &data).unwrap();
    let mut seen = 0;
    for (tool, ending, size_known) in [("xz", "xz", true), ("gzip", "gz", false), ("zstd", "zst", true)] {
        let made = std::process::Command::new(tool).args(["-q", "-k", "-f"]).arg(&raw).status();
        if !made.is_ok_and(|s| s.success()) {
            eprintln!("skipped in part: no {tool}");
            continue;
        }
        // The name says nothing: the content does.
        let packed = dir.path().join(format!("os.{ending}"));
        let image = Image::file(&packed, None).unwrap();
        assert_eq!(image.bytes, size_known.then_some(data.len() as u64), "{tool}");
        let mut back = Vec::new();
        image.open().unwrap().read_to_end(&mut back).unwrap();
        assert!(back == data, "{tool}");
        let bytes = std::fs::read(&packed).unwrap();
        let mut wrong = bytes.clone();
        wrong[bytes.len() / 2] ^= 0xff;
        for broken in [&bytes[..bytes.len() / 2], &wrong] {
            let path = dir.path().join("broken");
            std::fs::write(&path, broken).unwrap();
            let mut back = Vec::new();
            let read = Image::file(&path, None).unwrap().open().and_then(|mut r| {
                r.read_to_end(&mut back).map_err(|error| FetchError::File { path: path.clone(), error })
            });
            assert!(read.is_err(), "{tool}: damage goes unnoticed");
        }
        seen += 1;
    }
    assert!(seen > 0);
    assert_eq!(Image::file(&raw, Some(&sum(&data))).unwrap().bytes, Some(data.len() as u64));
    assert!(matches!(Image::file(&raw, Some(&sum(b"x"))), Err(FetchError::Checksum { .. })));
    let long: String = sha2::Sha512::digest(&data).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(Image::file(&raw, Some(&long)).unwrap().bytes, Some(data.len() as u64));
    assert!(matches!(Image::file(&raw, Some(&long.replace(&long[..1], "g"))), Err(FetchError::NotASum(_))));
    assert!(matches!(Image::file(&raw, Some(&"0".repeat(128))), Err(FetchError::Checksum { .. })));
    std::fs::write(&raw, b"PK\x03\x04 and so on").unwrap();
    assert!(Image::file(&raw, None).unwrap().open().err().unwrap().to_string().contains("unpack it first"));
    assert!(Image::file(dir.path(), None).err().unwrap().to_string().contains("directory"));
}
