//! Client and service against each other, and against bytes at random.

use super::*;
use tokio::io::AsyncWriteExt;

fn words(path: &str, message: &[u8]) -> Answering {
    let answer = match path {
        "/echo" => Ok(message.to_vec()),
        "/long" => Ok(vec![7; REQUEST_BYTES_MAX]),
        "/longer" => Ok(vec![7; REQUEST_BYTES_MAX + 1]),
        "/no" => Err((INVALID_ARGUMENT, "100 % wrong: \"ü\"".into())),
        _ => Err((UNIMPLEMENTED, format!("there is no {path}"))),
    };
    Box::pin(std::future::ready(answer))
}

async fn call(path: &str, message: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let (here, there) = tokio::io::duplex(1 << 20);
    let server = tokio::spawn(async move { serve(Box::new(there), &words).await });
    let mut call = Call::begin(Box::new(here), "localhost", path, message).await.map_err(|e| e.to_string())?;
    let got = call.next().await;
    if matches!(got, Ok(Some(_))) {
        assert_eq!(call.next().await, Ok(None), "one message and a good end");
    }
    drop(call);
    let _ = server.await.unwrap();
    got
}

#[tokio::test]
async fn calls_and_answers() {
    assert_eq!(call("/echo", b"").await, Ok(Some(Vec::new())));
    let long = vec![3; 50_000];
    assert_eq!(call("/echo", &long).await, Ok(Some(long)));
    assert_eq!(call("/long", b"x").await.unwrap().unwrap().len(), REQUEST_BYTES_MAX);
    assert!(call("/longer", b"x").await.unwrap_err().ends_with("(gRPC status 8)"));
    assert_eq!(call("/no", b"").await.unwrap_err(), "100 % wrong: \"ü\" (gRPC status 3)");
    assert_eq!(call("/a.B/C", b"").await.unwrap_err(), "there is no /a.B/C (gRPC status 12)");
    assert!(call("/echo", &vec![0; REQUEST_BYTES_MAX + 1]).await.unwrap_err().contains("are allowed"));
}

/// Whatever comes: an end, not a panic, and no more memory than one message.
#[tokio::test]
async fn any_bytes_end() {
    let mut seed = 1u64;
    let mut next = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as u8
    };
    for round in 0..2000 {
        let mut bytes = Vec::new();
        while bytes.len() < 400 {
            let body: Vec<u8> = (0..next() % 40).map(|_| next()).collect();
            let (kind, flags) = (next() % 10, if round % 2 == 0 { next() & 0x2d } else { next() });
            frame::put(&mut bytes, kind, flags, u32::from(next() % 3), &body);
            if round % 5 == 0 {
                bytes.push(next());
            }
        }
        let (here, mut there) = tokio::io::duplex(1 << 20);
        there.write_all(&bytes).await.unwrap();
        let call = Call::begin(Box::new(here), "x", "/x", b"").await.unwrap();
        drop(there);
        let mut call = call;
        while let Ok(Some(_)) = call.next().await {}
        let (here, mut there) = tokio::io::duplex(1 << 20);
        there.write_all(frame::PREFACE).await.unwrap();
        there.write_all(&bytes).await.unwrap();
        drop(there);
        assert!(serve(Box::new(here), &words).await.is_err());
    }
}

#[test]
fn messages_are_bounded_and_whole() {
    assert_eq!(take_message(&mut vec![0, 0, 0, 0]), Ok(None));
    assert!(take_message(&mut vec![1, 0, 0, 0, 0]).is_err());
    assert!(take_message(&mut vec![0, 0xff, 0, 0, 0]).is_err());
    let mut two = vec![0, 0, 0, 0, 1, 5, 0, 0, 0, 0, 0];
    assert_eq!(take_message(&mut two), Ok(Some(vec![5])));
    assert_eq!(take_message(&mut two), Ok(Some(vec![])));
    assert!(two.is_empty());
}

#[test]
fn protobuf_fields() {
    let mut bytes = Vec::new();
    wire::put_number(&mut bytes, 1, 300);
    wire::put_bytes(&mut bytes, 200, b"text");
    let mut seen = Vec::new();
    let good = wire::read(&bytes, &mut |field, value| {
        seen.push((field, value));
        Some(())
    });
    assert_eq!(good, Some(()));
    assert_eq!(seen, [(1, wire::Value::Number(300)), (200, wire::Value::Bytes(b"text"))]);
    let endless = [&[0x0a][..], &[0xff; 9], &[1]].concat();
    for wrong in [&[0x08][..], &[0x0a, 5, 1], &[0x0b], &[0xff; 11], &endless] {
        assert_eq!(wire::read(wrong, &mut |_, _| Some(())), None, "{wrong:?}");
    }
}
