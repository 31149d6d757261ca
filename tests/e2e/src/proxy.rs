//! An HTTP proxy that knows CONNECT and nothing else.
//!
//! In: an address to listen at. Out: its port, and how many connections it let through. Its threads end with this process.

use crate::Result;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub fn open(address: &str) -> Result<(u16, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind((address, 0)).map_err(|e| e.to_string())?;
    let port = listener.local_addr().map_err(|e| e.to_string())?.port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let counted = counted.clone();
            std::thread::spawn(move || connect(client, &counted));
        }
    });
    Ok((port, count))
}

fn connect(mut client: TcpStream, count: &AtomicUsize) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).ok()?;
    let target = text.strip_prefix("CONNECT ")?.split(' ').next()?;
    let server = TcpStream::connect(target).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    count.fetch_add(1, Ordering::Relaxed);
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    let (mut from_server, mut to_client) = (server, client);
    std::io::copy(&mut from_server, &mut to_client).ok().map(|_| ())
}
