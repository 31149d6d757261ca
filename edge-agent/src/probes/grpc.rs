//! The gRPC health check: one request of `grpc.health.v1.Health/Check` over HTTP/2 without TLS.
//!
//! In: an address, a service name. Out: serving or not. Only what this one exchange needs of RFC 9113 and RFC 7541 is
//! here: headers are sent without compression and the server's are not read, because the message says it all.
//! Never: reads more than a few small frames.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const FRAME_BYTES_MAX: usize = 16 * 1024;
const FRAMES_MAX: usize = 64;
const SERVICE_BYTES_MAX: usize = 120;

/// `target` is `host:port`.
pub async fn check(target: &str, service: &str) -> Result<String, String> {
    let io = |e: std::io::Error| format!("error: failed to check health of {target}: {e}");
    if service.len() > SERVICE_BYTES_MAX {
        return Err(format!("the service name of the gRPC probe is longer than {SERVICE_BYTES_MAX} bytes"));
    }
    let mut stream = TcpStream::connect(target).await.map_err(io)?;
    stream.write_all(&request(target, service)).await.map_err(io)?;
    let mut body = Vec::new();
    for _ in 0..FRAMES_MAX {
        let frame = read_frame(&mut stream).await.map_err(io)?;
        match (frame.kind, frame.stream) {
            (SETTINGS, 0) if frame.flags & ACK == 0 => {
                stream.write_all(&encode(SETTINGS, ACK, 0, &[])).await.map_err(io)?;
            }
            (PING, 0) if frame.flags & ACK == 0 => {
                stream.write_all(&encode(PING, ACK, 0, &frame.body)).await.map_err(io)?;
            }
            (DATA, 1) => body.extend_from_slice(&frame.body),
            (RST_STREAM, 1) | (GOAWAY, 0) => break,
            _ => {}
        }
        let over = frame.stream == 1 && matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
        if over || status(&body).is_some() {
            break;
        }
    }
    match status(&body) {
        Some(1) => Ok(String::new()),
        Some(0) => Err("service unhealthy (responded with \"UNKNOWN\")".into()),
        Some(2) => Err("service unhealthy (responded with \"NOT_SERVING\")".into()),
        Some(3) => Err("service unhealthy (responded with \"SERVICE_UNKNOWN\")".into()),
        Some(other) => Err(format!("service unhealthy (responded with \"{other}\")")),
        None => Err("error: health rpc failed: the server gave no answer of grpc.health.v1.Health".into()),
    }
}

fn request(target: &str, service: &str) -> Vec<u8> {
    let mut headers = vec![0x83, 0x86];
    let mut text = |name: &[u8], value: &str| {
        headers.extend_from_slice(name);
        headers.push(value.len() as u8);
        headers.extend_from_slice(value.as_bytes());
    };
    // Names by their index in the static table: :path, :authority, content-type.
    text(&[0x04], "/grpc.health.v1.Health/Check");
    text(&[0x01], &target.chars().take(100).collect::<String>());
    text(&[0x0f, 0x10], "application/grpc");
    text(b"\x00\x02te", "trailers");
    let mut message = Vec::new();
    if !service.is_empty() {
        message.extend_from_slice(&[0x0a, service.len() as u8]);
        message.extend_from_slice(service.as_bytes());
    }
    let mut data = vec![0];
    data.extend_from_slice(&(message.len() as u32).to_be_bytes());
    data.extend_from_slice(&message);
    let mut out = PREFACE.to_vec();
    out.extend(encode(SETTINGS, 0, 0, &[]));
    out.extend(encode(HEADERS, END_HEADERS, 1, &headers));
    out.extend(encode(DATA, END_STREAM, 1, &data));
    out
}

fn encode(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32).to_be_bytes();
    let mut out = vec![len[1], len[2], len[3], kind, flags];
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(body);
    out
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    body: Vec<u8>,
}

async fn read_frame(from: &mut TcpStream) -> std::io::Result<Frame> {
    let mut head = [0; 9];
    from.read_exact(&mut head).await?;
    let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    if len > FRAME_BYTES_MAX {
        return Err(std::io::Error::other("a frame is too large"));
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body).await?;
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    Ok(Frame { kind: head[3], flags: head[4], stream, body })
}

/// `status` of a HealthCheckResponse behind gRPC's five bytes; `None` while it is not whole.
fn status(body: &[u8]) -> Option<u8> {
    let (head, rest) = body.split_at_checked(5)?;
    let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    match rest.get(..len)? {
        [] => Some(0),
        [0x08, status, ..] => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_to_a_server() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for (reply, want) in [
                (&[0, 0, 0, 0, 2, 0x08, 1][..], Ok(String::new())),
                (&[0, 0, 0, 0, 2, 0x08, 2], Err("service unhealthy (responded with \"NOT_SERVING\")".to_string())),
            ] {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let target = listener.local_addr().unwrap().to_string();
                let server = async {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut preface = [0; 24];
                    stream.read_exact(&mut preface).await.unwrap();
                    assert_eq!(preface, *PREFACE);
                    let kinds: Vec<u8> = [
                        read_frame(&mut stream).await.unwrap(),
                        read_frame(&mut stream).await.unwrap(),
                        read_frame(&mut stream).await.unwrap(),
                    ]
                    .iter()
                    .map(|f| f.kind)
                    .collect();
                    assert_eq!(kinds, [SETTINGS, HEADERS, DATA]);
                    for frame in [encode(SETTINGS, 0, 0, &[]), encode(PING, 0, 0, &[0; 8]), encode(DATA, 0, 1, reply)] {
                        stream.write_all(&frame).await.unwrap();
                    }
                    let _ = stream.read(&mut [0; 64]).await;
                };
                let (got, ()) = tokio::join!(check(&target, "svc"), server);
                assert_eq!(got, want);
            }
        });
    }
}
