//! A thousand connections at each of the hub's ports that never say who they are, or stop in the middle of a greeting.
//!
//! In: a hub, sockets. Out: what its memory grew by for each of them, that all of them end, and that others are served meanwhile.

use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(180);
const STRANGERS: usize = 1000;
const BYTES_EACH_MAX: u64 = 32 * 1024;
/// API, images, MQTT.
const PORTS: [u16; 3] = [6443, 5000, 8883];

/// Proportional set size of the hub.
fn memory(world: &World) -> Result<u64> {
    let path = format!("/proc/{}/smaps_rollup", world.hub.pid());
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).ok_or("no Pss")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().map_err(|e| format!("{line}: {e}"))?;
    Ok(kib * 1024)
}

fn over(socket: &mut TcpStream) -> bool {
    let mut bytes = [0; 64];
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

#[test]
fn a_thousand_strangers_at_each_port_cost_little_and_end() {
    test(1, &json!({}), |world| {
        for port in PORTS {
            let address = format!("{}:{port}", world.hub.address);
            let before = memory(world)?;
            let mut sockets = Vec::new();
            for n in 0..STRANGERS {
                let mut socket = TcpStream::connect(&address).map_err(|e| format!("stranger {n} at {address}: {e}"))?;
                if n % 3 > 0 {
                    // The head of a TLS record of 16 KiB, and the beginning of a ClientHello that never ends.
                    let _ = socket.write_all(&[22, 3, 1, 64, 0, 1, 0, 63, 252, 3, 3]);
                }
                socket.set_nonblocking(true).map_err(|e| e.to_string())?;
                sockets.push(socket);
            }
            // Others come in as ever.
            world.kubectl.say("get nodes")?;
            let each = memory(world)?.saturating_sub(before) / STRANGERS as u64;
            wait::yes(each <= BYTES_EACH_MAX, || format!("{each} B for each stranger at port {port}"))?;
            until("every stranger's end", SOON, || {
                sockets.retain_mut(|socket| !over(socket));
                wait::yes(sockets.is_empty(), || format!("{} are still there at port {port}", sockets.len()))
            })?;
            println!("{each} B for each of {STRANGERS} strangers at port {port}");
        }
        world.kubectl.say("wait --for=condition=Ready node/board-1 --timeout=60s").map(|_| ())
    });
}
