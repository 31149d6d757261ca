//! A stream by way of a second hub: the same words, the same credit, the same end.
//!
//! In: a pretended board, two `Streams` with a pipe between. Never: TLS; that is in the command's own tests.

use super::{bridge, wire};
use crate::run::streams::{FromNode, Stream, StreamHandle, Streams, ToNode};
use bytes::Bytes;
use limpet_protocol::{StreamFrame, StreamKind, StreamOpen, limits::STREAM_WINDOW_BYTES};
use std::sync::Arc;
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::mpsc,
};

const WINDOW: usize = STREAM_WINDOW_BYTES as usize;

fn open() -> StreamOpen {
    let kind = StreamKind::Attach { container: "c".into(), stdin: true, stdout: true, stderr: true, tty: false };
    StreamOpen { namespace: "d".into(), pod: "p".into(), uid: "u".into(), kind }
}

/// The hub that has the board: its streams, what it says to the board, the open stream's id, the hubs' connection.
async fn holder() -> (Streams, mpsc::Receiver<ToNode>, u32, DuplexStream) {
    let (streams, to_node, id, handle) = opened().await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (read, write) = tokio::io::split(far);
    tokio::spawn(bridge::carry(handle, read, write));
    (streams, to_node, id, near)
}

async fn opened() -> (Streams, mpsc::Receiver<ToNode>, u32, StreamHandle) {
    let (streams, mut to_node) = Streams::new();
    streams.node_opened("a");
    let opening = tokio::spawn({
        let streams = streams.clone();
        async move { streams.open_here("a", open()).await }
    });
    let id = to_node.recv().await.unwrap().1.id();
    streams.deliver("a", StreamFrame::Opened { id });
    (streams, to_node, id, opening.await.unwrap().unwrap())
}

/// The hub that was asked by a client.
fn asker(io: DuplexStream) -> StreamHandle {
    let (mut read, write) = tokio::io::split(io);
    let (frames, outgoing) = mpsc::channel(16);
    let stream = Arc::new(Stream::opened());
    let handle = StreamHandle::relayed("a", Arc::clone(&stream), frames);
    tokio::spawn(async move {
        let writing = tokio::spawn(wire::write_all(write, outgoing, wire::to_holder));
        while let Ok(frame) = wire::read_from_holder(&mut read).await {
            stream.take(frame).unwrap();
        }
        stream.end("gone".into());
        writing.abort();
    });
    handle
}

/// The board's next word from the hub that has it.
async fn heard(to_node: &mut mpsc::Receiver<ToNode>) -> StreamFrame {
    to_node.recv().await.unwrap().1
}

#[tokio::test]
async fn words_go_both_ways_in_order_and_the_end_says_what_the_board_said() {
    let (streams, mut to_node, id, io) = holder().await;
    let handle = asker(io);
    handle.send(0, Bytes::from_static(b"in")).await.unwrap();
    handle.eof(0).await.unwrap();
    assert_eq!(heard(&mut to_node).await, StreamFrame::Data { id, lane: 0, bytes: b"in".to_vec() });
    assert_eq!(heard(&mut to_node).await, StreamFrame::Eof { id, lane: 0 });
    streams.deliver("a", StreamFrame::Data { id, lane: 1, bytes: b"out".to_vec() });
    streams.deliver("a", StreamFrame::Data { id, lane: 2, bytes: b"err".to_vec() });
    streams.deliver("a", StreamFrame::End { id, exit_code: Some(7), error: "failed".into() });
    let data = |lane, bytes: &'static [u8]| FromNode::Data { lane, bytes: Bytes::from_static(bytes) };
    assert_eq!(handle.recv().await, Some(data(1, b"out")));
    assert_eq!(handle.recv().await, Some(data(2, b"err")));
    assert_eq!(handle.recv().await, Some(FromNode::End { exit_code: Some(7), error: "failed".into() }));
    assert_eq!(handle.recv().await, None);
    assert!(handle.send(0, Bytes::from_static(b"x")).await.is_err());
    assert_eq!(streams.count(), 0);
}

/// Over a real connection, which its system resets when it is closed with something unread.
#[tokio::test]
async fn credit_that_comes_after_the_end_costs_nothing_of_what_was_said() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut io = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (streams, _to_node, id, handle) = opened().await;
    let (read, write) = listener.accept().await.unwrap().0.into_split();
    let carried = tokio::spawn(bridge::carry(handle, read, write));
    let piece = vec![b'x'; 16 * 1024];
    for _ in 0..WINDOW / piece.len() {
        streams.deliver("a", StreamFrame::Data { id, lane: 1, bytes: piece.clone() });
    }
    streams.deliver("a", StreamFrame::End { id, exit_code: Some(0), error: String::new() });
    // One piece is read, so that there is credit to give; the others are in the connection, and the end.
    let StreamFrame::Data { bytes, .. } = wire::read_from_holder(&mut io).await.unwrap() else { panic!("no data") };
    let mut got = bytes.len();
    let window = wire::to_holder(StreamFrame::Window { id: 0, lane: 1, bytes: 1 });
    for _ in 0..10 {
        wire::write(&mut io, &window).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    loop {
        match wire::read_from_holder(&mut io).await.unwrap() {
            StreamFrame::Data { bytes, .. } => got += bytes.len(),
            StreamFrame::End { exit_code: Some(0), .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, WINDOW);
    drop(io);
    carried.await.unwrap();
}

#[tokio::test]
async fn a_full_lane_holds_up_no_other_and_a_client_that_leaves_closes_the_stream() {
    let (streams, mut to_node, id, io) = holder().await;
    let handle = Arc::new(asker(io));
    let sending = tokio::spawn({
        let handle = Arc::clone(&handle);
        async move { handle.send(0, Bytes::from(vec![b'x'; 3 * WINDOW])).await }
    });
    // The board takes one window of lane 0 and no more; lane 4 still gets through.
    let mut taken = 0;
    while taken < WINDOW {
        match heard(&mut to_node).await {
            StreamFrame::Data { lane: 0, bytes, .. } => taken += bytes.len(),
            other => panic!("{other:?}"),
        }
    }
    handle.send(4, Bytes::from_static(b"size")).await.unwrap();
    assert_eq!(heard(&mut to_node).await, StreamFrame::Data { id, lane: 4, bytes: b"size".to_vec() });
    assert!(!sending.is_finished(), "two windows are in the world for three");
    while taken < 3 * WINDOW {
        streams.deliver("a", StreamFrame::Window { id, lane: 0, bytes: STREAM_WINDOW_BYTES / 2 });
        let mut batch = 0;
        while batch < WINDOW / 2 {
            match heard(&mut to_node).await {
                StreamFrame::Data { lane: 0, bytes, .. } => batch += bytes.len(),
                other => panic!("{other:?}"),
            }
        }
        taken += batch;
    }
    sending.await.unwrap().unwrap();
    drop(handle);
    assert!(matches!(heard(&mut to_node).await, StreamFrame::End { .. }), "the board hears that nobody listens");
}

#[tokio::test]
async fn what_nobody_reads_is_bounded_on_the_whole_way() {
    let (streams, mut to_node, id, io) = holder().await;
    let handle = asker(io);
    let piece = || StreamFrame::Data { id, lane: 1, bytes: vec![b'x'; 16 * 1024] };
    let mut credit = WINDOW;
    let mut sent = 0;
    // A board that sends whatever it has credit for, for a client that reads nothing.
    for _ in 0..1000 {
        while credit >= 16 * 1024 {
            assert_eq!(streams.deliver("a", piece()), None);
            (credit, sent) = (credit - 16 * 1024, sent + 16 * 1024);
        }
        tokio::task::yield_now().await;
        while let Ok((_, StreamFrame::Window { bytes, .. })) = to_node.try_recv() {
            credit += bytes as usize;
        }
    }
    assert!(sent <= 3 * WINDOW, "{sent}");
    let mut got = 0;
    while got < sent {
        match handle.recv().await {
            Some(FromNode::Data { bytes, .. }) => got += bytes.len(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_hub_that_breaks_the_rules_loses_the_stream_and_nothing_else() {
    let data = |lane, bytes| wire::to_holder(StreamFrame::Data { id: 0, lane, bytes: vec![b'x'; bytes] });
    // A window for the board, a window that waits for the board, and one more piece.
    let beyond: Vec<Vec<u8>> = (0..2 * WINDOW / 16_384 + 1).map(|_| data(0, 16_384)).collect();
    let window = StreamFrame::Window { id: 0, lane: 1, bytes: u32::MAX };
    let cases = [
        beyond,
        vec![data(200, 1)],
        vec![wire::to_holder(window)],
        vec![wire::to_holder(StreamFrame::Open { id: 0, open: open() })],
        vec![b"nonsense".to_vec()],
    ];
    for (at, frames) in cases.into_iter().enumerate() {
        let (streams, mut to_node, _, mut io) = holder().await;
        for frame in frames {
            // It may have hung up already.
            let _ = wire::write(&mut io, &frame).await;
        }
        let ended = async { while !matches!(heard(&mut to_node).await, StreamFrame::End { .. }) {} };
        tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.unwrap_or_else(|_| panic!("case {at}"));
        assert!(streams.is_here("a"));
    }
    // A length that cannot be.
    let (_streams, mut to_node, _, mut io) = holder().await;
    io.write_all(&[0xff; 4]).await.unwrap();
    while !matches!(heard(&mut to_node).await, StreamFrame::End { .. }) {}
}
