//! One POST and its answer over an open TLS connection.
//!
//! In: a path, a JSON body. Out: status and body, within a bound. Never: chunks, redirects, a second request: it says
//! `connection: close`, and an answer without a length ends with the connection.

use crate::tls::Connection;
use alloc::{format, string::String, vec, vec::Vec};
use embedded_io_async::Write;

const ANSWER_BYTES_MAX: usize = 16 * 1024;

pub async fn post(
    connection: &mut Connection<'_, '_, '_>,
    host: &str,
    path: &str,
    body: &[u8],
) -> Result<(u16, Vec<u8>), String> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let lost = |e: embedded_tls::TlsError| format!("the connection broke: {e:?}");
    connection.write_all(head.as_bytes()).await.map_err(lost)?;
    connection.write_all(body).await.map_err(lost)?;
    connection.flush().await.map_err(lost)?;
    let mut answer = Vec::new();
    let mut piece = vec![0; 1024];
    loop {
        if let Some(done) = whole(&answer)? {
            return Ok(done);
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err("the answer is too long".into());
        }
        match connection.read(&mut piece).await {
            Ok(n) if n > 0 => answer.extend_from_slice(&piece[..n]),
            _ => return ended(&answer),
        }
    }
}

/// Status and body, once all of it is there.
fn whole(answer: &[u8]) -> Result<Option<(u16, Vec<u8>)>, String> {
    let Some((status, length, body)) = split(answer)? else { return Ok(None) };
    Ok(length.filter(|l| body.len() >= *l).map(|l| (status, body[..l].to_vec())))
}

fn ended(answer: &[u8]) -> Result<(u16, Vec<u8>), String> {
    match split(answer)? {
        Some((status, None, body)) => Ok((status, body.to_vec())),
        _ => Err("the connection ended before the answer did".into()),
    }
}

/// Status, length when it is said, body so far; `None` while the head is not whole.
#[allow(clippy::type_complexity)]
fn split(answer: &[u8]) -> Result<Option<(u16, Option<usize>, &[u8])>, String> {
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let broken = || String::from("that is no answer of a hub");
    let head = core::str::from_utf8(&answer[..end]).map_err(|_| broken())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|l| l.strip_prefix("HTTP/1.")).and_then(|l| l.get(2..5)?.parse().ok());
    let mut length = None;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(broken)?;
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse().map_err(|_| broken())?);
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("the hub answers in chunks, which a leaf does not read".into());
        }
    }
    Ok(Some((status.ok_or_else(broken)?, length, &answer[end + 4..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_or_refused() {
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!"), Ok(Some((200, b"hi".to_vec()))));
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi"), Ok(None));
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\ncontent-le"), Ok(None));
        assert_eq!(ended(b"HTTP/1.1 403 No\r\n\r\nwhy"), Ok((403, b"why".to_vec())));
        assert!(ended(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi").is_err());
        for bad in [
            &b"SSH-2.0\r\n\r\n"[..],
            b"HTTP/1.1 2\r\n\r\n",
            b"HTTP/1.1 200\r\nx\r\n\r\n",
            b"HTTP/1.1 200\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n",
            b"\xff\r\n\r\n",
        ] {
            assert!(whole(bad).is_err(), "{bad:?}");
        }
    }
}
