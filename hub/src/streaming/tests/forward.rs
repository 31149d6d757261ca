//! Port-forward.

use super::*;
use crate::streaming::spdy::Frame;

fn server(node: &Node, ports: Vec<u16>) -> tokio::io::DuplexStream {
    let streams = node.streams.clone();
    serve(move |mut parts| {
        let (streams, request) = (streams.clone(), PortForwardRequest { ports: ports.clone() });
        async move { port_forward(&mut parts, &pod(), &request, &streams).await }
    })
}

async fn pair(client: &mut SpdyClient, port: &str, id: &str) -> (u32, u32) {
    let error = client.open(&[("streamtype", "error"), ("port", port), ("requestid", id)]).await;
    client.data(error, b"", true).await;
    let data = client.open(&[("streamtype", "data"), ("port", port), ("requestid", id)]).await;
    (error, data)
}

async fn both_ways(mut client: SpdyClient, mut node: Node) {
    let (error, data) = pair(&mut client, "80", "0").await;
    let (id, kind) = node.accept().await;
    assert_eq!(kind, StreamKind::PortForward { port: 80 });
    // A second connection while the first one is open.
    let (error2, data2) = pair(&mut client, "81", "1").await;
    let (id2, _) = node.accept().await;
    client.data(data2, b"two", false).await;
    assert_eq!(node.next().await, StreamFrame::Data { id: id2, lane: 0, bytes: b"two".to_vec() });
    client.data(data, b"GET /", true).await;
    assert_eq!(node.next().await, StreamFrame::Data { id, lane: 0, bytes: b"GET /".to_vec() });
    assert_eq!(node.next().await, StreamFrame::Eof { id, lane: 0 });
    node.data(id, 0, b"200 OK");
    node.say(StreamFrame::Eof { id, lane: 0 });
    node.end(id, None, "");
    let got = client.until_finished(&[error, data]).await;
    assert_eq!(got, [(error, String::new(), true), (data, "200 OK".into(), true)]);
    node.end(id2, None, "connection refused");
    let words = "error forwarding port 81 to pod d/web, uid u: connection refused".to_string();
    assert_eq!(
        client.until_finished(&[error2, data2]).await,
        [(error2, words, true), (data2, String::new(), true)]
    );
    client.send(Frame::Ping { id: 1 }).await;
    assert_eq!(client.next().await, Some(Frame::Ping { id: 1 }));
    drop(client);
    assert_eq!(node.streams.count(), 0);
}

#[tokio::test]
async fn kubectls_tunnel() {
    let node = Node::online();
    let client = WsClient::connect(server(&node, vec![]), "SPDY/3.1+portforward.k8s.io").await.unwrap();
    assert_eq!(client.protocol, "SPDY/3.1+portforward.k8s.io");
    both_ways(SpdyClient::new(SpdyWire::Tunnel(Box::new(client))), node).await;
}

#[tokio::test]
async fn bare_spdy() {
    let node = Node::online();
    let client = SpdyClient::upgrade(server(&node, vec![]), "portforward.k8s.io").await;
    both_ways(client, node).await;
}

#[tokio::test]
async fn resets_and_leaving_end_the_nodes_streams() {
    let mut node = Node::online();
    let client = WsClient::connect(server(&node, vec![]), "SPDY/3.1+portforward.k8s.io").await.unwrap();
    let mut client = SpdyClient::new(SpdyWire::Tunnel(Box::new(client)));
    let (_, data) = pair(&mut client, "80", "0").await;
    let (id, _) = node.accept().await;
    client.send(Frame::Reset { id: data, status: 5 }).await;
    let last = node.next().await;
    assert!(matches!(&last, StreamFrame::End { id: ended, .. } if *ended == id), "{last:?}");
    pair(&mut client, "80", "1").await;
    let (id, _) = node.accept().await;
    drop(client);
    let last = node.next().await;
    assert!(matches!(&last, StreamFrame::End { id: ended, .. } if *ended == id), "{last:?}");
}

#[tokio::test]
async fn hostile_streams_are_reset() {
    let node = Node::online();
    let mut client = SpdyClient::upgrade(server(&node, vec![]), "portforward.k8s.io").await;
    for headers in [
        &[("streamtype", "frob"), ("port", "80")][..],
        &[("streamtype", "data"), ("port", "0")],
        &[("streamtype", "data"), ("port", "70000")],
        &[("port", "80")],
        &[],
    ] {
        let id = client.open(headers).await;
        assert_eq!(client.next().await, Some(Frame::Reset { id, status: 5 }));
    }
    client.send(Frame::SynStream { id: 2, fin: false, headers: Default::default() }).await;
    assert_eq!(client.next().await, Some(Frame::Reset { id: 2, status: 1 }));
}

#[tokio::test]
async fn an_unreachable_node_is_told_before_the_upgrade_and_later_on_the_error_stream() {
    let (streams, frames) = Streams::new();
    let offline = Node { streams, frames };
    let refused = WsClient::connect(server(&offline, vec![80]), "v4.channel.k8s.io").await.err().unwrap();
    assert!(refused.starts_with("500: error dialing backend: node n1 is offline since "), "{refused}");
    let node = Node::online();
    let mut client = SpdyClient::upgrade(server(&node, vec![]), "portforward.k8s.io").await;
    node.streams.node_closed("n1");
    let (error, data) = pair(&mut client, "80", "0").await;
    let got = client.until_finished(&[error, data]).await;
    assert!(
        got[0].1.starts_with("error forwarding port 80 to pod d/web, uid u: node n1 is offline since "),
        "{got:?}"
    );
}

#[tokio::test]
async fn channels_of_v4() {
    let mut node = Node::online();
    let io = server(&node, vec![80, 8080]);
    let accepting = async { (node.accept().await.0, node.accept().await.0) };
    let (client, (one, two)) = tokio::join!(WsClient::connect(io, "v4.channel.k8s.io"), accepting);
    let mut client = client.unwrap();
    let mut heads = Vec::new();
    for _ in 0..4 {
        heads.push(client.next().await.unwrap());
    }
    heads.sort();
    assert_eq!(heads, [&[0, 80, 0][..], &[1, 80, 0], &[2, 0x90, 0x1f], &[3, 0x90, 0x1f]]);
    client.send(b"\x02hi").await;
    assert_eq!(node.next().await, StreamFrame::Data { id: two, lane: 0, bytes: b"hi".to_vec() });
    node.data(one, 0, b"ho");
    assert_eq!(client.next().await.as_deref(), Some(&b"\x00ho"[..]));
    node.end(two, None, "refused");
    let words = client.next().await.unwrap();
    assert_eq!(&words[..], b"\x03error forwarding port 8080 to pod d/web, uid u: refused");
    node.end(one, None, "");
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn ports_are_needed_for_channels() {
    let node = Node::online();
    let error = WsClient::connect(server(&node, vec![]), "v4.channel.k8s.io").await.err();
    assert_eq!(error.as_deref(), Some("400: you must specify at least one port: ports=NUMBER"));
}
