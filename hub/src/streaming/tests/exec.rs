//! exec and attach.

use super::*;
use serde_json::{Value, json};

const ALL: &str = "v5.channel.k8s.io, v4.channel.k8s.io";

fn request(tty: bool) -> ExecRequest {
    ExecRequest {
        container: "c".into(),
        command: Some(vec!["sh".into()]),
        stdin: true,
        stdout: true,
        stderr: !tty,
        tty,
    }
}

fn server(node: &Node, request: ExecRequest) -> tokio::io::DuplexStream {
    let streams = node.streams.clone();
    serve(move |mut parts| {
        let (streams, request) = (streams.clone(), request.clone());
        async move { exec(&mut parts, &pod(), request, &streams).await }
    })
}

/// Connects while the node accepts.
async fn connect(node: &mut Node, request: ExecRequest, protocols: &str) -> (WsClient, u32, StreamKind) {
    let io = server(node, request);
    let (client, (id, kind)) = tokio::join!(WsClient::connect(io, protocols), node.accept());
    (client.unwrap(), id, kind)
}

#[tokio::test]
async fn v5_carries_everything_and_ends_with_the_exit_code() {
    let mut node = Node::online();
    let (mut client, id, kind) = connect(&mut node, request(false), ALL).await;
    assert_eq!(client.protocol, "v5.channel.k8s.io");
    assert!(
        matches!(kind, StreamKind::Exec { stdin: true, stdout: true, stderr: true, tty: false, .. }),
        "{kind:?}"
    );
    assert_eq!(client.next().await.as_deref(), Some(&[1][..]), "the streams are up");
    client.send(b"\x00hello").await;
    assert_eq!(node.next().await, StreamFrame::Data { id, lane: 0, bytes: b"hello".to_vec() });
    client.send(b"\x04{\"Width\":80,\"Height\":24}").await;
    client.send(b"\xff\x00").await;
    assert_eq!(node.next().await, StreamFrame::Eof { id, lane: 0 }, "sizes are for terminals only");
    node.data(id, 1, b"out");
    node.data(id, 2, b"err");
    node.end(id, Some(3), "");
    assert_eq!(client.next().await.as_deref(), Some(&b"\x01out"[..]));
    assert_eq!(client.next().await.as_deref(), Some(&b"\x02err"[..]));
    let last = client.next().await.unwrap();
    assert_eq!(last[0], 3);
    let status: Value = serde_json::from_slice(&last[1..]).unwrap();
    assert_eq!(status["details"]["causes"], json!([{"reason":"ExitCode","message":"3"}]));
    assert_eq!(client.next().await, None);
}

/// kubectl before 1.33 drops what comes before it has made its streams: nothing comes before it has answered.
#[tokio::test]
async fn nothing_is_sent_to_a_client_that_does_not_listen_yet() {
    let mut node = Node::online();
    let (mut client, id, _) = connect(&mut node, request(false), ALL).await;
    node.data(id, 1, b"out");
    node.end(id, Some(0), "");
    let (first, more) = client.first().await;
    assert!(first.is_ping(), "{first:?}");
    assert!(!more, "data came before the answer to the ping");
    let rest = [client.next().await, client.next().await];
    assert_eq!(rest.map(Option::unwrap), [&[1][..], b"\x01out"]);
    // One that never answers has its data all the same.
    let (mut client, id, _) = connect(&mut node, request(false), ALL).await;
    node.data(id, 1, b"out");
    node.end(id, Some(0), "");
    let silent = client.silent().await;
    assert!(silent.windows(4).any(|w| w == b"\x01out"), "{silent:?}");
}

#[tokio::test]
async fn terminals_have_sizes_and_success_is_said() {
    let mut node = Node::online();
    let (mut client, id, _) = connect(&mut node, request(true), "v4.channel.k8s.io").await;
    client.send(b"\x04{\"Width\":80,\"Height\":24}").await;
    assert_eq!(
        node.next().await,
        StreamFrame::Data { id, lane: 4, bytes: b"{\"Width\":80,\"Height\":24}".to_vec() }
    );
    // No close channel in v4.
    client.send(b"\xff\x00").await;
    client.send(b"\x00x").await;
    assert_eq!(node.next().await, StreamFrame::Data { id, lane: 0, bytes: b"x".to_vec() });
    node.end(id, Some(0), "");
    client.next().await;
    assert_eq!(client.next().await.as_deref(), Some(&b"\x03{\"metadata\":{},\"status\":\"Success\"}"[..]));
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn the_first_version_and_base64() {
    let mut node = Node::online();
    let (mut client, id, _) = connect(&mut node, request(false), "").await;
    assert_eq!(client.protocol, "");
    node.end(id, Some(1), "");
    client.next().await;
    let words = b"\x03command terminated with non-zero exit code: exit status 1";
    assert_eq!(client.next().await.as_deref(), Some(&words[..]));
    let (mut client, id, _) = connect(&mut node, request(false), "base64.channel.k8s.io").await;
    client.send(b"0aGk=").await;
    assert_eq!(node.next().await, StreamFrame::Data { id, lane: 0, bytes: b"hi".to_vec() });
    node.data(id, 1, b"ho");
    node.end(id, Some(0), "");
    assert_eq!(client.next().await.as_deref(), Some(&b"1"[..]));
    assert_eq!(client.next().await.as_deref(), Some(&b"1aG8="[..]));
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_nodes_stream() {
    let mut node = Node::online();
    let (client, id, _) = connect(&mut node, request(false), ALL).await;
    drop(client);
    assert!(matches!(node.next().await, StreamFrame::End { id: ended, .. } if ended == id));
    assert_eq!(node.streams.count(), 0);
}

#[tokio::test]
async fn refusals_come_before_the_upgrade() {
    let (streams, _frames) = Streams::new();
    let offline = Node { streams, frames: mpsc::channel(1).1 };
    let error = WsClient::connect(server(&offline, request(false)), ALL).await.err().unwrap();
    assert!(error.starts_with("500: error dialing backend: node n1 is offline since "), "{error}");
    let mut node = Node::online();
    let io = server(&node, request(false));
    let refusing = async {
        match node.next().await {
            StreamFrame::Open { id, .. } => node.end(id, None, "container not found (\"c\")"),
            other => panic!("{other:?}"),
        }
    };
    let (client, ()) = tokio::join!(WsClient::connect(io, ALL), refusing);
    assert_eq!(
        client.err().as_deref(),
        Some("400: unable to upgrade connection: container not found (\"c\")")
    );
}

#[tokio::test]
async fn spdy_exec_for_older_clients() {
    let mut node = Node::online();
    let io = server(&node, request(false));
    let (mut client, (id, _)) = tokio::join!(SpdyClient::upgrade(io, "v4.channel.k8s.io"), node.accept());
    let error = client.open(&[("streamtype", "error")]).await;
    let stdin = client.open(&[("streamtype", "stdin")]).await;
    let stdout = client.open(&[("streamtype", "stdout")]).await;
    let stderr = client.open(&[("streamtype", "stderr")]).await;
    client.data(stdin, b"hello", false).await;
    client.data(stdin, b"", true).await;
    assert_eq!(node.next().await, StreamFrame::Data { id, lane: 0, bytes: b"hello".to_vec() });
    assert_eq!(node.next().await, StreamFrame::Eof { id, lane: 0 });
    node.data(id, 1, b"out");
    node.say(StreamFrame::Eof { id, lane: 1 });
    node.data(id, 2, b"err");
    node.end(id, Some(0), "");
    let success = r#"{"metadata":{},"status":"Success"}"#.to_string();
    let expected = [(error, success, true), (stdout, "out".into(), true), (stderr, "err".into(), true)];
    assert_eq!(client.rest().await, expected);
}

#[tokio::test]
async fn logs_over_websocket() {
    let pieces = || futures_util::stream::iter([Bytes::from_static(b"one\n"), Bytes::from_static(b"two\n")]);
    let io = serve(move |mut parts| async move { flow(&mut parts, Framing::Bytes, pieces()) });
    let mut client = WsClient::connect(io, "binary.k8s.io").await.unwrap();
    assert_eq!(client.next().await.as_deref(), Some(&b"one\n"[..]));
    assert_eq!(client.next().await.as_deref(), Some(&b"two\n"[..]));
    assert_eq!(client.next().await, None);
    let io = serve(move |mut parts| async move { flow(&mut parts, Framing::Text, pieces()) });
    let mut client = WsClient::connect(io, "").await.unwrap();
    assert_eq!(client.next().await.as_deref(), Some(&b"one"[..]));
}
