//! As much HTTP/1.1 as the demo needs.
//!
//! In: a connection. Out: the method and path of one request; an answer. Never: reads more than `HEAD_BYTES_MAX`.

use std::io::{self, BufRead, BufReader, Read, Write};

const HEAD_BYTES_MAX: u64 = 8 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub wants_text: bool,
}

/// None: the other side went away before it asked.
pub fn read(stream: impl Read) -> io::Result<Option<Request>> {
    let mut lines = BufReader::new(stream.take(HEAD_BYTES_MAX)).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(None) };
    let mut words = first.split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not HTTP"));
    };
    let mut wants_text = false;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            return Ok(Some(Request { method: method.to_string(), path: path.to_string(), wants_text }));
        }
        wants_text |= line.starts_with("user-agent: curl") || line.starts_with("accept: text/plain");
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the head of the request is too long or broken off"))
}

pub fn write(mut stream: impl Write, status: &str, kind: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let ask = |text: &str| read(text.as_bytes());
        let curl = ask("GET /x HTTP/1.1\r\nUser-Agent: curl/8\r\n\r\n").unwrap().unwrap();
        assert_eq!((curl.path.as_str(), curl.wants_text), ("/x", true));
        assert!(ask("").unwrap().is_none());
        assert!(ask("nonsense").is_err());
        assert!(ask("GET / HTTP/1.1\r\n").is_err());
        assert!(ask(&format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(9000))).is_err());
    }
}
