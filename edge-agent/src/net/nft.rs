//! nftables messages: tables, chains, rules, sets and the expressions that Limpet uses.
//!
//! In: names, addresses. Out: messages for one atomic batch. Never: a ruleset of its own (see `services.rs`).
//! Numbers are those of linux/netfilter/nf_tables.h.

use super::netlink::{APPEND, Attributes, CREATE, Message, Socket};
use std::io::Result;
use std::net::Ipv4Addr;

pub const TABLE: &str = "limpet";

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const DEL_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const FAMILY_IPV4: u8 = 2;
/// head of nfgenmsg: family, version, resource.
const HEAD: [u8; 4] = [FAMILY_IPV4, 0, 0, 0];
const BATCH_HEAD: [u8; 4] = [0, 0, 0, 10];

const ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const GOTO: i32 = -4;
const JUMP: i32 = -3;
/// Elements of one message; a longer list is split (attribute lengths are 16 bits).
const ELEMENTS_PER_MESSAGE: usize = 400;

/// Registers of 4 bytes, enough for a concatenation.
pub const R0: u32 = 8;
pub const R1: u32 = 9;
pub const R2: u32 = 10;

#[derive(Default)]
pub struct Batch {
    messages: Vec<Message>,
    next_set: u32,
}

impl Batch {
    /// Starts with an empty table of this name, whatever was there.
    pub fn replace_table() -> Batch {
        let mut batch = Batch { messages: vec![Message::new(BATCH_BEGIN, 0, &BATCH_HEAD)], next_set: 1 };
        // Deleting needs it to exist: made, deleted and made in one transaction.
        for kind in [NEW_TABLE, DEL_TABLE, NEW_TABLE] {
            let flags = if kind == NEW_TABLE { CREATE } else { 0 };
            let mut message = Message::new(kind, flags, &HEAD);
            message.text(1, TABLE);
            batch.messages.push(message);
        }
        batch
    }

    pub fn commit(mut self) -> Result<()> {
        self.messages.push(Message::new(BATCH_END, 0, &BATCH_HEAD));
        let mut socket = Socket::netfilter()?;
        socket.batch(self.messages)
    }

    pub fn chain(&mut self, name: &str) {
        let mut message = Message::new(NEW_CHAIN, CREATE, &HEAD);
        message.text(1, TABLE).text(3, name);
        self.messages.push(message);
    }

    /// A chain that the kernel calls.
    pub fn base_chain(&mut self, name: &str, kind: &str, hook: u32, priority: i32) {
        let mut message = Message::new(NEW_CHAIN, CREATE, &HEAD);
        message.text(1, TABLE).text(3, name);
        message.nest(4, |hooks| {
            hooks.be32(1, hook).be32(2, priority as u32);
        });
        message.text(7, kind);
        self.messages.push(message);
    }

    pub fn rule(&mut self, chain: &str, write: impl FnOnce(&mut Expressions<'_>)) {
        let mut message = Message::new(NEW_RULE, CREATE | APPEND, &HEAD);
        message.text(1, TABLE).text(2, chain);
        message.nest(4, |list| write(&mut Expressions(list)));
        self.messages.push(message);
    }

    /// A map that rules fill by themselves: every element goes after `timeout_ms` without use. At most `size` are held.
    pub fn memory(&mut self, set: &Set<'_>, timeout_ms: u64, size: u32) -> u32 {
        const MAP: u32 = 8;
        const TIMEOUT: u32 = 16;
        const FILLED_BY_RULES: u32 = 32;
        let (kind, bytes) = set.data.unwrap_or(NUMBER);
        let id = self.next_set;
        self.next_set += 1;
        let mut message = Message::new(NEW_SET, CREATE, &HEAD);
        message.text(1, TABLE).text(2, set.name).be32(3, MAP | TIMEOUT | FILLED_BY_RULES);
        message.be32(4, set.key_type).be32(5, set.key_bytes).be32(6, kind).be32(7, bytes);
        message.nest(9, |description| {
            description.be32(1, size);
        });
        message.be32(10, id).attr(11, &timeout_ms.to_be_bytes());
        self.messages.push(message);
        id
    }

    /// A named or anonymous (`name` with `%d`) set or map; returns its id inside this batch.
    pub fn set(&mut self, set: &Set<'_>) -> u32 {
        const ANONYMOUS: u32 = 1;
        const CONSTANT: u32 = 2;
        const MAP: u32 = 8;
        let id = self.next_set;
        self.next_set += 1;
        let anonymous = set.name.contains('%');
        let mut flags = if set.data.is_some() { MAP } else { 0 };
        if anonymous {
            flags |= ANONYMOUS | CONSTANT;
        }
        let mut message = Message::new(NEW_SET, CREATE, &HEAD);
        message.text(1, TABLE).text(2, set.name).be32(3, flags).be32(4, set.key_type).be32(5, set.key_bytes);
        if let Some((kind, bytes)) = set.data {
            message.be32(6, kind).be32(7, bytes);
        }
        message.be32(10, id);
        self.messages.push(message);
        id
    }

    pub fn elements(&mut self, set: &str, id: u32, elements: &[(Vec<u8>, Data)]) {
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let mut message = Message::new(NEW_ELEMENTS, CREATE, &HEAD);
            message.text(1, TABLE).text(2, set).be32(4, id);
            message.nest(3, |list| {
                for (key, data) in part {
                    list.nest(ELEMENT, |element| {
                        element.nest(1, |value| {
                            value.attr(DATA_VALUE, key);
                        });
                        data.write(element, 2);
                        if let Data::Until(_, left_ms) = data {
                            element.attr(5, &left_ms.to_be_bytes());
                        }
                    });
                }
            });
            self.messages.push(message);
        }
    }
}

/// What a map of values holds now: key, value, milliseconds until it goes. Empty when there is no such map.
pub fn remembered(map: &str) -> Result<Vec<(Vec<u8>, Vec<u8>, u64)>> {
    let mut message = Message::new(GET_ELEMENTS, 0, &HEAD);
    message.text(1, TABLE).text(2, map);
    let mut found = Vec::new();
    let listed = Socket::netfilter()?.dump(message, |_, body| {
        let list = Attributes(body.get(HEAD.len()..).unwrap_or_default()).filter(|(kind, _)| *kind == 3);
        let elements = list.flat_map(|(_, list)| Attributes(list)).filter(|(kind, _)| *kind == ELEMENT);
        found.extend(elements.filter_map(|(_, element)| one_element(element)));
    });
    match listed {
        Err(err) if err.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        other => other.map(|()| found),
    }
}

fn one_element(element: &[u8]) -> Option<(Vec<u8>, Vec<u8>, u64)> {
    let part = |wanted: u16| Attributes(element).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let value = |part: &[u8]| Attributes(part).find(|(kind, _)| *kind == DATA_VALUE).map(|(_, bytes)| bytes.to_vec());
    let left_ms = u64::from_be_bytes(*part(5)?.first_chunk()?);
    Some((value(part(1)?)?, value(part(2)?)?, left_ms))
}

pub struct Set<'a> {
    pub name: &'a str,
    pub key_type: u32,
    pub key_bytes: u32,
    /// Type and length of a map's values; `VERDICT` for verdicts.
    pub data: Option<(u32, u32)>,
}

pub const VERDICT: (u32, u32) = (0xffff_ff00, 16);
/// address . protocol . port
pub const SERVICE_KEY: (u32, u32) = (7 << 12 | 12 << 6 | 13, 12);
/// address . address
pub const PAIR_KEY: (u32, u32) = (7 << 6 | 7, 8);
/// protocol . port
pub const PORT_KEY: (u32, u32) = (12 << 6 | 13, 8);
/// address . port
pub const TARGET: (u32, u32) = (7 << 6 | 13, 8);
pub const NUMBER: (u32, u32) = (4, 4);
pub const ADDRESS: (u32, u32) = (7, 4);

pub enum Data {
    None,
    Value(Vec<u8>),
    /// A value, and in how many milliseconds it goes (at most its map's own time).
    Until(Vec<u8>, u64),
    Goto(String),
}

impl Data {
    fn write(&self, message: &mut Message, kind: u16) {
        match self {
            Data::None => {}
            Data::Value(bytes) | Data::Until(bytes, _) => {
                message.nest(kind, |data| {
                    data.attr(DATA_VALUE, bytes);
                });
            }
            Data::Goto(chain) => {
                message.nest(kind, |data| verdict(data, GOTO, chain));
            }
        }
    }
}

fn verdict(data: &mut Message, code: i32, chain: &str) {
    data.nest(DATA_VERDICT, |verdict| {
        verdict.be32(1, code as u32).text(2, chain);
    });
}

/// Expressions of one rule, in order.
pub struct Expressions<'a>(&'a mut Message);

impl Expressions<'_> {
    fn add(&mut self, name: &str, write: impl FnOnce(&mut Message)) -> &mut Self {
        self.0.nest(ELEMENT, |expression| {
            expression.text(1, name);
            expression.nest(2, write);
        });
        self
    }

    pub fn source_address(&mut self, register: u32) -> &mut Self {
        self.payload(register, 1, 12, 4)
    }

    pub fn destination_address(&mut self, register: u32) -> &mut Self {
        self.payload(register, 1, 16, 4)
    }

    pub fn destination_port(&mut self, register: u32) -> &mut Self {
        self.payload(register, 2, 2, 2)
    }

    fn payload(&mut self, register: u32, base: u32, offset: u32, len: u32) -> &mut Self {
        self.add("payload", |e| {
            e.be32(1, register).be32(2, base).be32(3, offset).be32(4, len);
        })
    }

    pub fn protocol(&mut self, register: u32) -> &mut Self {
        self.add("meta", |e| {
            e.be32(2, 16).be32(1, register);
        })
    }

    /// Goes on when (register & mask) equals (or not) the address.
    pub fn in_range(&mut self, register: u32, base: Ipv4Addr, mask: u32, inside: bool) -> &mut Self {
        self.bits((register, register), mask.to_be_bytes(), [0; 4]).compare(register, inside, &base.octets())
    }

    /// to = (from & mask) ^ turned
    fn bits(&mut self, (from, to): (u32, u32), mask: [u8; 4], turned: [u8; 4]) -> &mut Self {
        self.add("bitwise", |e| {
            e.be32(1, from).be32(2, to).be32(3, 4);
            e.nest(4, |data| {
                data.attr(DATA_VALUE, &mask);
            });
            e.nest(5, |data| {
                data.attr(DATA_VALUE, &turned);
            });
        })
    }

    /// Puts these bits into the packet's mark, beside those that others have put there.
    pub fn mark(&mut self, bits: u32) -> &mut Self {
        self.load_mark().bits((R0, R0), (!bits).to_ne_bytes(), bits.to_ne_bytes()).set_mark()
    }

    /// Goes on when the packet has one of these bits in its mark, and takes them out.
    pub fn was_marked(&mut self, bits: u32) -> &mut Self {
        self.load_mark().bits((R0, R1), bits.to_ne_bytes(), [0; 4]).compare(R1, false, &[0; 4]);
        self.bits((R0, R0), (!bits).to_ne_bytes(), [0; 4]).set_mark()
    }

    fn load_mark(&mut self) -> &mut Self {
        self.add("meta", |e| {
            e.be32(2, 3).be32(1, R0);
        })
    }

    fn set_mark(&mut self) -> &mut Self {
        self.add("meta", |e| {
            e.be32(2, 3).be32(3, R0);
        })
    }

    pub fn compare(&mut self, register: u32, equal: bool, value: &[u8]) -> &mut Self {
        self.add("cmp", |e| {
            e.be32(1, register).be32(2, u32::from(!equal));
            e.nest(3, |data| {
                data.attr(DATA_VALUE, value);
            });
        })
    }

    /// Goes on when the destination is an address of this host.
    pub fn destination_is_local(&mut self) -> &mut Self {
        const RESULT_ADDRESS_TYPE: u32 = 3;
        const FLAG_DESTINATION: u32 = 2;
        const LOCAL: u32 = 2;
        self.add("fib", |e| {
            e.be32(1, R0).be32(2, RESULT_ADDRESS_TYPE).be32(3, FLAG_DESTINATION);
        });
        self.compare(R0, true, &LOCAL.to_ne_bytes())
    }

    /// Looks the registers from `register` on up in a set; goes on when they are in it.
    pub fn is_in(&mut self, register: u32, set: &str) -> &mut Self {
        self.add("lookup", |e| {
            e.text(1, set).be32(2, register);
        })
    }

    /// Looks the registers up in a map of verdicts and follows.
    pub fn follow(&mut self, register: u32, map: &str) -> &mut Self {
        self.add("lookup", |e| {
            e.text(1, map).be32(2, register).be32(3, 0);
        })
    }

    pub fn value_of(&mut self, register: u32, map: &str, id: u32) -> &mut Self {
        self.add("lookup", |e| {
            e.text(1, map).be32(2, register).be32(3, register).be32(4, id);
        })
    }

    /// Puts what the map remembers for `key` into the registers from `value` on; goes on when there is something.
    pub fn recall(&mut self, key: u32, map: &str, value: u32) -> &mut Self {
        self.add("lookup", |e| {
            e.text(1, map).be32(2, key).be32(3, value);
        })
    }

    /// Makes the map remember a value, from now on for its whole time; goes on unless the map is full.
    pub fn remember(&mut self, key: u32, map: &str, value: u32) -> &mut Self {
        const UPDATE: u32 = 1;
        self.add("dynset", |e| {
            e.text(1, map).be32(3, UPDATE).be32(4, key).be32(5, value);
        })
    }

    pub fn jump(&mut self, chain: &str) -> &mut Self {
        self.add("immediate", |e| {
            e.be32(1, 0);
            e.nest(2, |data| verdict(data, JUMP, chain));
        })
    }

    pub fn random(&mut self, register: u32, modulus: u32) -> &mut Self {
        self.add("numgen", |e| {
            e.be32(1, register).be32(2, modulus).be32(3, 1).be32(4, 0);
        })
    }

    pub fn load(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.add("immediate", |e| {
            e.be32(1, register);
            e.nest(2, |data| {
                data.attr(DATA_VALUE, value);
            });
        })
    }

    /// Translates the destination to the address and port in two neighbouring registers.
    pub fn dnat(&mut self, address: u32, port: u32) -> &mut Self {
        self.add("nat", |e| {
            e.be32(1, 1).be32(2, u32::from(FAMILY_IPV4)).be32(3, address).be32(5, port);
        })
    }

    pub fn masquerade(&mut self) -> &mut Self {
        self.add("masq", |_| {})
    }

    /// TCP gets a reset, the rest "port unreachable".
    pub fn refuse(&mut self, tcp: bool) -> &mut Self {
        const PORT_UNREACHABLE: u8 = 3;
        self.add("reject", |e| {
            e.be32(1, u32::from(tcp)).attr(2, &[PORT_UNREACHABLE]);
        })
    }
}
