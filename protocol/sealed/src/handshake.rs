//! The agreement on keys for one session.
//!
//! In: both sides' keys. Out: a sealer and an opener on each side, new for each session.
//! X25519 between two keys that live as long as the handshake; the hub signs all that was said, and so does the node in the
//! first sealed packet (SIGMA with both names in what is signed; see decision 0033). HKDF-SHA256 makes one key a direction.
//! Never: a session before the other side has shown, for this very session, that it holds its long-lived key.

use crate::{
    CERTIFICATE_BYTES_MAX, SealError,
    key::{Key, Point, SIGNATURE_BYTES_MAX, is_signed},
    packet::{ANSWER, Fields, HELLO, HELLO_BEATS, SessionId},
    seal::{Direction, Inside, LineKeys, Opener, Sealer},
};
use ring::{
    agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, X25519},
    digest, hkdf,
    rand::SecureRandom,
};

const BY_HUB: &[u8] = b"limpet sealed link, version 1, the hub answers\0";
const BY_NODE: &[u8] = b"limpet sealed link, version 1, the node confirms\0";
const HARDWARE_BYTES_MAX: usize = 64;

/// What a node says of itself. Nothing of it is believed before it has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    pub point: Point,
    pub ephemeral: [u8; 32],
    /// The node is heard of at least this often.
    pub keepalive_s: u16,
    /// As MQTT's client id on a direct link.
    pub hardware: String,
    /// Signs of life are packets of their own sort.
    pub beats: bool,
}

impl Greeting {
    pub fn encode(&self) -> Vec<u8> {
        let hardware = &self.hardware.as_bytes()[..self.hardware.len().min(HARDWARE_BYTES_MAX)];
        let mut out = vec![if self.beats { HELLO_BEATS } else { HELLO }];
        out.extend_from_slice(&self.point);
        out.extend_from_slice(&self.ephemeral);
        out.extend_from_slice(&self.keepalive_s.to_be_bytes());
        out.extend_from_slice(hardware);
        out
    }

    pub fn decode(packet: &[u8]) -> Result<Greeting, SealError> {
        let beats = packet.first() == Some(&HELLO_BEATS);
        let sort = if beats { HELLO_BEATS } else { HELLO };
        let mut fields = Fields(packet.strip_prefix(&[sort]).ok_or(SealError::Malformed)?);
        let (point, ephemeral) = (fields.array()?, fields.array()?);
        let keepalive_s = u16::from_be_bytes(fields.array()?);
        if fields.0.len() > HARDWARE_BYTES_MAX {
            return Err(SealError::Malformed);
        }
        let hardware = str::from_utf8(fields.0).map_err(|_| SealError::Malformed)?.into();
        Ok(Greeting { point, ephemeral, keepalive_s, hardware, beats })
    }
}

/// The hub's answer, as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    ephemeral: [u8; 32],
    /// Grows with each start of the hub.
    pub epoch: u64,
    transcript: [u8; 32],
    hub: Point,
}

fn answer_body(ephemeral: &[u8; 32], epoch: u64, certificate: &[u8]) -> Vec<u8> {
    let mut out = vec![ANSWER];
    out.extend_from_slice(ephemeral);
    out.extend_from_slice(&epoch.to_be_bytes());
    out.extend_from_slice(&(certificate.len() as u16).to_be_bytes());
    out.extend_from_slice(certificate);
    out
}

/// Everything that both sides have seen, with lengths, so that no two conversations look alike.
fn transcript(node: &str, hello: &[u8], body: &[u8]) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in [node.as_bytes(), hello, body] {
        hash.update(&(part.len() as u32).to_be_bytes());
        hash.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// One session's keys.
pub(crate) struct Keys {
    pub up: [u8; 32],
    pub down: [u8; 32],
    pub up_beats: [u8; 32],
    pub down_beats: [u8; 32],
    pub id: SessionId,
}

impl Keys {
    pub fn derive(shared: &[u8], transcript: &[u8; 32]) -> Result<Keys, SealError> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, transcript).extract(shared);
        let mut keys = Keys { up: [0; 32], down: [0; 32], up_beats: [0; 32], down_beats: [0; 32], id: [0; 4] };
        for (label, out) in [
            (&b"up"[..], &mut keys.up[..]),
            (b"down", &mut keys.down),
            (b"up beats", &mut keys.up_beats),
            (b"down beats", &mut keys.down_beats),
            (b"id", &mut keys.id),
        ] {
            let expanded = secret.expand(std::slice::from_ref(&label), Length(out.len())).and_then(|okm| okm.fill(out));
            expanded.map_err(|_| SealError::Key("no key could be derived".into()))?;
        }
        Ok(keys)
    }

    /// `beats`: whether signs of life are packets of their own sort in this session.
    fn up(&self, beats: bool) -> LineKeys<'_> {
        LineKeys { direction: Direction::Up, id: self.id, key: &self.up, beats: beats.then_some(&self.up_beats) }
    }

    fn down(&self, beats: bool) -> LineKeys<'_> {
        LineKeys { direction: Direction::Down, id: self.id, key: &self.down, beats: beats.then_some(&self.down_beats) }
    }
}

fn agree(private: EphemeralPrivateKey, peer: &[u8; 32], transcript: &[u8; 32]) -> Result<Keys, SealError> {
    // A point of small order is refused by ring.
    agreement::agree_ephemeral(private, &UnparsedPublicKey::new(&X25519, peer), |shared| Keys::derive(shared, transcript))
        .map_err(|_| SealError::Forged)?
}

fn ephemeral(random: &dyn SecureRandom) -> Result<(EphemeralPrivateKey, [u8; 32]), SealError> {
    let none = |_| SealError::Key("no randomness".into());
    let private = EphemeralPrivateKey::generate(&X25519, random).map_err(none)?;
    let public = private.compute_public_key().map_err(none)?;
    let public = public.as_ref().try_into().map_err(|_| SealError::Malformed)?;
    Ok((private, public))
}

/// A node that has greeted.
pub struct Asking {
    node: String,
    private: EphemeralPrivateKey,
    hello: Vec<u8>,
    beats: bool,
}

/// The node's end of a session.
pub struct Session {
    pub up: Sealer,
    pub down: Opener,
    pub epoch: u64,
}

impl Asking {
    /// `beats`: what hubs that know no beats do not answer.
    pub fn new(
        node: &str,
        key: &Key,
        (keepalive_s, beats): (u16, bool),
        hardware: &str,
        random: &dyn SecureRandom,
    ) -> Result<Asking, SealError> {
        let (private, public) = ephemeral(random)?;
        let hardware = hardware.chars().take(HARDWARE_BYTES_MAX / 4).collect();
        let greeting = Greeting { point: *key.point(), ephemeral: public, keepalive_s, hardware, beats };
        Ok(Asking { node: node.into(), private, hello: greeting.encode(), beats })
    }

    pub fn beats(&self) -> bool {
        self.beats
    }

    /// To be published; again, when no answer comes.
    pub fn hello(&self) -> &[u8] {
        &self.hello
    }

    /// Looks at an answer. `trust`: the key of a certificate, when it is a hub's. What is not an answer to this greeting changes
    /// nothing.
    pub fn check(&self, packet: &[u8], trust: impl FnOnce(&[u8]) -> Option<Point>) -> Result<Answered, SealError> {
        let mut fields = Fields(packet.strip_prefix(&[ANSWER]).ok_or(SealError::Malformed)?);
        let ephemeral = fields.array()?;
        let epoch = u64::from_be_bytes(fields.array()?);
        let len = usize::from(u16::from_be_bytes(fields.array()?));
        if len > CERTIFICATE_BYTES_MAX {
            return Err(SealError::Malformed);
        }
        let certificate = fields.take(len)?;
        let signature = fields.0;
        if signature.len() > SIGNATURE_BYTES_MAX {
            return Err(SealError::Malformed);
        }
        let hub = trust(certificate).ok_or(SealError::Forged)?;
        let transcript = transcript(&self.node, &self.hello, &packet[..packet.len() - signature.len()]);
        match is_signed(&hub, BY_HUB, &transcript, signature) {
            true => Ok(Answered { ephemeral, epoch, transcript, hub }),
            false => Err(SealError::Forged),
        }
    }

    /// The session, and its first packet, which confirms it.
    pub fn finish(
        self,
        answered: &Answered,
        key: &Key,
        random: &dyn SecureRandom,
    ) -> Result<(Session, Vec<u8>), SealError> {
        let keys = agree(self.private, &answered.ephemeral, &answered.transcript)?;
        let mut up = Sealer::new(&self.node, &keys.up(self.beats))?;
        let down = Opener::new(&self.node, &keys.down(self.beats))?;
        let signed = [answered.transcript.as_slice(), &answered.hub].concat();
        let confirm = up.seal(&Inside::Confirm(key.sign(BY_NODE, &signed, random)?))?;
        Ok((Session { up, down, epoch: answered.epoch }, confirm))
    }
}

/// A hub that has answered and waits for the confirmation.
pub struct Pending {
    pub greeting: Greeting,
    signed: Vec<u8>,
    pub up: Opener,
    pub down: Sealer,
}

/// The hub's answer to a greeting. `certificate`: DER of the hub's, whose key `key` is.
pub fn answer(
    node: &str,
    hello: &[u8],
    (key, certificate): (&Key, &[u8]),
    epoch: u64,
    random: &dyn SecureRandom,
) -> Result<(Vec<u8>, Pending), SealError> {
    let greeting = Greeting::decode(hello)?;
    if certificate.len() > CERTIFICATE_BYTES_MAX {
        return Err(SealError::Key("the hub's certificate is too long".into()));
    }
    let (private, public) = ephemeral(random)?;
    let mut packet = answer_body(&public, epoch, certificate);
    let transcript = transcript(node, hello, &packet);
    let keys = agree(private, &greeting.ephemeral, &transcript)?;
    packet.extend(key.sign(BY_HUB, &transcript, random)?);
    let up = Opener::new(node, &keys.up(greeting.beats))?;
    let down = Sealer::new(node, &keys.down(greeting.beats))?;
    let signed = [transcript.as_slice(), key.point()].concat();
    Ok((packet, Pending { greeting, signed, up, down }))
}

impl Pending {
    pub fn id(&self) -> SessionId {
        self.up.id()
    }

    /// Whether a packet is the confirmation: then the node holds the key that it greeted with.
    pub fn confirm(&mut self, packet: &[u8]) -> Result<(), SealError> {
        match self.up.open(packet)? {
            Inside::Confirm(signature) if is_signed(&self.greeting.point, BY_NODE, &self.signed, &signature) => Ok(()),
            _ => Err(SealError::Forged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// What is on the wire stays so, for ever.
    #[test]
    fn golden() {
        let greeting =
            Greeting { point: [4; 65], ephemeral: [7; 32], keepalive_s: 340, hardware: "0123456789abcdef".into(), beats: false };
        let hello = greeting.encode();
        assert_eq!(Greeting::decode(&hello), Ok(greeting.clone()));
        let with_beats = Greeting { beats: true, ..greeting };
        assert_eq!(Greeting::decode(&with_beats.encode()), Ok(with_beats.clone()));
        let body = answer_body(&[9; 32], 1_795_000_000_000, b"certificate");
        let transcript = transcript("pi-1", &hello, &body);
        let keys = Keys::derive(&[5; 32], &transcript).unwrap();
        let mut up = Sealer::new("pi-1", &keys.up(false)).unwrap();
        let mut down = Sealer::new("pi-1", &keys.down(false)).unwrap();
        let (mut up_beats, mut down_beats) =
            (Sealer::new("pi-1", &keys.up(true)).unwrap(), Sealer::new("pi-1", &keys.down(true)).unwrap());
        let part = Inside::Part { channel: b's', last: true, bytes: b"hello".to_vec() };
        let said = [
            hex(&hello[66..]),
            hex(&body),
            hex(&transcript),
            hex(&up.seal(&Inside::Confirm(vec![1, 2, 3])).unwrap()),
            hex(&up.seal(&part).unwrap()),
            hex(&down.seal(&Inside::Ready).unwrap()),
            hex(&down.seal(&part).unwrap()),
            hex(&down.seal(&Inside::Credit(8)).unwrap()),
            hex(&down.seal(&Inside::Over("the node was deleted".into())).unwrap()),
            hex(&down.seal(&Inside::Beat).unwrap()),
            hex(&with_beats.encode()[..2]),
            hex(&up_beats.seal(&Inside::Beat).unwrap()),
            hex(&down_beats.seal(&Inside::Beat).unwrap()),
            hex(&up_beats.seal(&part).unwrap()),
        ];
        let golden = include_str!("../golden.txt");
        assert_eq!(said.join("\n"), golden.trim(), "\n{}", said.join("\n"));
    }
}
