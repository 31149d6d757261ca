//! The gRPC health check: one request of `grpc.health.v1.Health/Check` over HTTP/2 without TLS.
//!
//! In: an address, a service name. Out: serving or not, in kubelet's words.
//! Never: reads more than one message.

use crate::grpc::{Call, wire};
use tokio::net::TcpStream;

const SERVICE_BYTES_MAX: usize = 120;
const STATUS: u64 = 1;

/// `target` is `host:port`.
pub async fn check(target: &str, service: &str) -> Result<String, String> {
    let io = |e: std::io::Error| format!("error: failed to check health of {target}: {e}");
    if service.len() > SERVICE_BYTES_MAX {
        return Err(format!("the service name of the gRPC probe is longer than {SERVICE_BYTES_MAX} bytes"));
    }
    let mut message = Vec::new();
    if !service.is_empty() {
        wire::put_bytes(&mut message, 1, service.as_bytes());
    }
    let stream = TcpStream::connect(target).await.map_err(io)?;
    let mut call = Call::begin(Box::new(stream), target, "/grpc.health.v1.Health/Check", &message).await.map_err(io)?;
    let answer = call.next().await.map_err(|why| format!("error: health rpc failed: {why}"))?;
    match answer.as_deref().and_then(status) {
        Some(1) => Ok(String::new()),
        Some(0) => Err("service unhealthy (responded with \"UNKNOWN\")".into()),
        Some(2) => Err("service unhealthy (responded with \"NOT_SERVING\")".into()),
        Some(3) => Err("service unhealthy (responded with \"SERVICE_UNKNOWN\")".into()),
        Some(other) => Err(format!("service unhealthy (responded with \"{other}\")")),
        None => Err("error: health rpc failed: the server gave no answer of grpc.health.v1.Health".into()),
    }
}

/// `status` of a HealthCheckResponse; absent is UNKNOWN.
fn status(message: &[u8]) -> Option<u64> {
    let mut found = 0;
    wire::read(message, &mut |field, value| {
        if let (STATUS, wire::Value::Number(status)) = (field, value) {
            found = status;
        }
        Some(())
    })?;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc;

    fn answer(path: &str, message: &[u8]) -> grpc::Answering {
        let answer = match (path, message) {
            ("/grpc.health.v1.Health/Check", b"\x0a\x03svc") => Ok(vec![0x08, 1]),
            (_, b"\x0a\x04sick") => Ok(vec![0x08, 2]),
            (_, b"\x0a\x06broken") => Ok(vec![0xff]),
            (_, b"") => Ok(Vec::new()),
            _ => Err((5, "unknown service".into())),
        };
        Box::pin(std::future::ready(answer))
    }

    #[tokio::test]
    async fn speaks_to_a_server() {
        for (service, want) in [
            ("svc", Ok("")),
            ("sick", Err("service unhealthy (responded with \"NOT_SERVING\")")),
            ("", Err("service unhealthy (responded with \"UNKNOWN\")")),
            ("none", Err("error: health rpc failed: unknown service (gRPC status 5)")),
            ("broken", Err("error: health rpc failed: the server gave no answer of grpc.health.v1.Health")),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = listener.local_addr().unwrap().to_string();
            let server = async {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = grpc::serve(Box::new(stream), &answer).await;
            };
            let (got, ()) = tokio::join!(check(&target, service), server);
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{service}");
        }
        let closed = check("127.0.0.1:1", "svc").await.unwrap_err();
        assert!(closed.starts_with("error: failed to check health of 127.0.0.1:1"), "{closed}");
    }
}
