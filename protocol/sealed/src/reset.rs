//! The hub says that it does not know a session any more.
//!
//! In: the hub's key. Out: a signed packet, for one session, or for all that were agreed on before the hub's present start.
//! A copy of it is worth nothing later: session numbers do not come again, and sessions after the start are newer than it.
//! Never: believed without the signature of a hub.

use crate::{
    CERTIFICATE_BYTES_MAX, SealError,
    key::{Key, Point, SIGNATURE_BYTES_MAX, is_signed},
    packet::{Fields, RESET, SessionId},
};
use ring::{digest, rand::SecureRandom};

const PURPOSE: &[u8] = b"limpet sealed link, version 1, the hub does not know the session\0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Of the hub that says so.
    pub epoch: u64,
    /// `None`: every session of an older epoch.
    pub session: Option<SessionId>,
}

fn hash(node: &str, body: &[u8]) -> Vec<u8> {
    let text = [&(node.len() as u32).to_be_bytes(), node.as_bytes(), body].concat();
    digest::digest(&digest::SHA256, &text).as_ref().to_vec()
}

impl Reset {
    pub fn sign(
        &self,
        node: &str,
        (key, certificate): (&Key, &[u8]),
        random: &dyn SecureRandom,
    ) -> Result<Vec<u8>, SealError> {
        let mut packet = vec![RESET];
        packet.extend_from_slice(&self.epoch.to_be_bytes());
        packet.push(u8::from(self.session.is_some()));
        packet.extend_from_slice(&self.session.unwrap_or_default());
        packet.extend_from_slice(&(certificate.len() as u16).to_be_bytes());
        packet.extend_from_slice(certificate);
        let signature = key.sign(PURPOSE, &hash(node, &packet), random)?;
        packet.extend_from_slice(&signature);
        Ok(packet)
    }

    /// `trust`: the key of a certificate, when it is a hub's.
    pub fn read(node: &str, packet: &[u8], trust: impl FnOnce(&[u8]) -> Option<Point>) -> Result<Reset, SealError> {
        let mut fields = Fields(packet.strip_prefix(&[RESET]).ok_or(SealError::Malformed)?);
        let epoch = u64::from_be_bytes(fields.array()?);
        let [one] = fields.array()?;
        let session: SessionId = fields.array()?;
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
        match is_signed(&hub, PURPOSE, &hash(node, &packet[..packet.len() - signature.len()]), signature) {
            true => Ok(Reset { epoch, session: (one != 0).then_some(session) }),
            false => Err(SealError::Forged),
        }
    }

    /// Whether it ends a session of this id that was agreed on in this epoch.
    pub fn ends(&self, id: SessionId, epoch: u64) -> bool {
        match self.session {
            Some(session) => session == id,
            None => self.epoch > epoch,
        }
    }
}
