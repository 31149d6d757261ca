//! A leaf board as a program, for tests and for trying out: the firmware's own code with embassy-net on a TAP device.
//!
//! In: `limpet-leaf-host --tap NAME --address A.B.C.D/N --gateway A.B.C.D --name NODE --flash FILE --token TOKEN --dns A.B.C.D`
//! (the last two may be missing). The TAP device exists already and belongs to somebody's bridge. Out: the leaf's life; its
//! "light" and its state on stderr.
//! Never: anything that the firmware for a board does not do, besides a file for flash and a clock for a sensor.

mod bench;
mod flash;

use bench::Bench;
use embassy_net::{Config, Ipv4Address, Ipv4Cidr, StackResources, StaticConfigV4};
use embassy_net_tuntap::TunTapDevice;
use limpet_leaf::{Facts, Settings, Store};
use std::{collections::BTreeMap, net::Ipv4Addr, path::Path, process::ExitCode};

const USAGE: &str = "limpet-leaf-host --tap NAME --address A.B.C.D/N --gateway A.B.C.D --name NODE --flash FILE [--token TOKEN] \
     [--dns A.B.C.D]";

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{} {}: {}", record.level(), record.target(), record.args());
    }
    fn flush(&self) {}
}

/// Randomness of the kernel.
struct Random;

impl rand_core::RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }
    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }
    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        // Without randomness there is no key: better no board than a guessable one.
        getrandom::fill(bytes).expect("the kernel gives random bytes");
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl rand_core::CryptoRng for Random {}

fn main() -> ExitCode {
    match life() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("limpet-leaf-host: {why}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<BTreeMap<String, String>, String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let pairs = words.chunks(2).map(|pair| match pair {
        [name, value] if name.starts_with("--") => Ok((name[2..].to_string(), value.clone())),
        _ => Err(format!("{pair:?} is not understood\n{USAGE}")),
    });
    pairs.collect()
}

/// Returns only when it could not begin.
#[allow(unreachable_code)]
fn life() -> Result<(), String> {
    let options = options()?;
    let word = |name: &str| options.get(name).map(String::as_str).ok_or(format!("--{name} is missing\n{USAGE}"));
    let _ = log::set_logger(&Stderr).map(|()| log::set_max_level(log::LevelFilter::Info));
    let (address, prefix) = word("address")?.split_once('/').ok_or("--address is A.B.C.D/N")?;
    let parse = |text: &str| text.parse::<Ipv4Addr>().map_err(|e| format!("{text:?}: {e}"));
    let (address, gateway) = (parse(address)?, parse(word("gateway")?)?);
    let prefix: u8 = prefix.parse().map_err(|_| "--address is A.B.C.D/N")?;
    let mut device = TunTapDevice::new(word("tap")?).map_err(|e| format!("--tap {}: {e}", word("tap").unwrap_or_default()))?;
    // Locally administered, and one's own within the network.
    let [_, _, high, low] = address.octets();
    device.set_hardware_address([0x02, 0x6c, 0x65, 0x61, high, low]);
    let flash = flash::FileFlash::open(Path::new(word("flash")?))?;
    let mut config = StaticConfigV4 {
        address: Ipv4Cidr::new(Ipv4Address::from(address.octets()), prefix),
        gateway: Some(Ipv4Address::from(gateway.octets())),
        dns_servers: Default::default(),
    };
    if let Some(server) = options.get("dns") {
        // Room for three, and this is the first.
        let _ = config.dns_servers.push(parse(server)?);
    }
    let mut resources = StackResources::<4>::new();
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|e| e.to_string())?;
    let (net, mut runner) = embassy_net::new(device, Config::ipv4_static(config), &mut resources, u64::from_le_bytes(seed));
    let facts = Facts {
        name: word("name")?.into(),
        board: "a program on a TAP device".into(),
        architecture: std::env::consts::ARCH.into(),
        firmware: env!("CARGO_PKG_VERSION").into(),
        machine_id: format!("tap-{}", word("name")?),
        memory_bytes: 264 * 1024,
        address: String::new(),
    };
    let token = options.get("token").cloned().unwrap_or_default();
    let leaf = limpet_leaf::run(net, Random, Store::new(flash, 0), Bench::default(), Settings { facts, token: &token });
    async_io::block_on(embassy_futures::join::join(runner.run(), leaf));
    Ok(())
}
