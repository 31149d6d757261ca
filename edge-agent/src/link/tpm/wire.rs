//! Commands and answers of a TPM 2.0: four of them, by hand.
//!
//! In: a device (`/dev/tpmrm0`) or a Unix socket of a simulated one. Out: handles, points, signatures, MACs.
//! Source: TCG TPM 2.0 Library, part 2 (structures) and part 3 (commands). Numbers are big-endian.
//! Never: an answer taken that is not exactly as long and as shaped as it should be.

use std::{
    fs::{File, OpenOptions},
    io::{Error, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

const SESSIONS: u16 = 0x8002;
const NO_SESSIONS: u16 = 0x8001;
const OWNER: u32 = 0x4000_0001;
const PASSWORD: u32 = 0x4000_0009;
const NOBODY: u32 = 0x4000_0007;
const CREATE_PRIMARY: u32 = 0x131;
const HMAC: u32 = 0x155;
const SIGN: u32 = 0x15d;
const FLUSH: u32 = 0x165;
const TRANSIENT_FIRST: u32 = 0x8000_0000;

const ALG_NULL: u16 = 0x10;
const ALG_SHA256: u16 = 0x0b;
const ALG_ECC: u16 = 0x23;
const ALG_KEYEDHASH: u16 = 0x08;
const ALG_ECDSA: u16 = 0x18;
const ALG_HMAC: u16 = 0x05;
const P256: u16 = 0x03;
/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, sign: made in this TPM, and stays there.
const ATTRIBUTES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10 | 1 << 18;
const HASHCHECK: u16 = 0x8024;

/// The TPM is busy with itself: the same again a little later.
const AGAIN: [u32; 3] = [0x908, 0x90a, 0x922];
const TRIES_MAX: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);
const HEAD_BYTES: usize = 10;
const ANSWER_BYTES_MAX: usize = 4096;
/// A simulated TPM that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a primary key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// ECDSA over P-256 with SHA-256.
    Sign,
    /// HMAC with SHA-256.
    Mac,
}

enum Channel {
    Device(File),
    Socket(UnixStream),
}

pub struct Wire(Channel);

fn odd(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("the TPM's answer makes no sense: {what}"))
}

impl Wire {
    /// `/dev/…`, or `unix:PATH` of a simulated TPM that nobody else uses.
    pub fn open(place: &str) -> Result<Wire, Error> {
        let Some(path) = place.strip_prefix("unix:") else {
            let file = OpenOptions::new().read(true).write(true).open(place)?;
            return Ok(Wire(Channel::Device(file)));
        };
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut wire = Wire(Channel::Socket(stream));
        // Nobody manages its memory: what an earlier life left there would fill it.
        for handle in TRANSIENT_FIRST..TRANSIENT_FIRST + 3 {
            let _ = wire.flush(handle);
        }
        Ok(wire)
    }

    #[allow(clippy::disallowed_methods)] // a TPM that is busy tells nobody when it is not
    fn exchange(&mut self, command: &[u8]) -> Result<Vec<u8>, Error> {
        for _ in 0..TRIES_MAX {
            let answer = self.once(command)?;
            let code = Parser(&answer[6..HEAD_BYTES]).u32()?;
            match code {
                0 => return Ok(answer[HEAD_BYTES..].to_vec()),
                busy if AGAIN.contains(&busy) => std::thread::sleep(PAUSE),
                wrong => return Err(Error::other(explain(wrong))),
            }
        }
        Err(Error::new(ErrorKind::TimedOut, "the TPM is busy"))
    }

    /// A whole answer. The device gives it in one piece.
    fn once(&mut self, command: &[u8]) -> Result<Vec<u8>, Error> {
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        let mut have = 0;
        loop {
            let more = match &mut self.0 {
                Channel::Device(file) => {
                    if have == 0 {
                        file.write_all(command)?;
                    }
                    file.read(&mut answer[have..])?
                }
                Channel::Socket(stream) => {
                    if have == 0 {
                        stream.write_all(command)?;
                    }
                    stream.read(&mut answer[have..])?
                }
            };
            if more == 0 {
                return Err(Error::new(ErrorKind::UnexpectedEof, "the TPM does not answer"));
            }
            have += more;
            if have < HEAD_BYTES {
                continue;
            }
            let len = Parser(&answer[2..6]).u32()? as usize;
            if !(HEAD_BYTES..=ANSWER_BYTES_MAX).contains(&len) || have > len {
                return Err(odd("its length"));
            }
            if have == len {
                answer.truncate(len);
                return Ok(answer);
            }
        }
    }

    /// A key of the owner's hierarchy that is the same each time for the same `unique`: its handle, and for `Sign` its point.
    pub fn create_primary(&mut self, purpose: Purpose, unique: &[u8; 32]) -> Result<(u32, Vec<u8>), Error> {
        let mut public = Vec::new();
        let (kind, details) = match purpose {
            Purpose::Sign => (ALG_ECC, [ALG_NULL, ALG_ECDSA, ALG_SHA256, P256, ALG_NULL].as_slice()),
            Purpose::Mac => (ALG_KEYEDHASH, [ALG_HMAC, ALG_SHA256].as_slice()),
        };
        put16(&mut public, kind);
        put16(&mut public, ALG_SHA256);
        put32(&mut public, ATTRIBUTES);
        put_sized(&mut public, &[]);
        details.iter().for_each(|word| put16(&mut public, *word));
        put_sized(&mut public, unique);
        if purpose == Purpose::Sign {
            put_sized(&mut public, &[]);
        }
        let mut rest = Vec::new();
        // No password, no data of ours: four bytes of two empty texts.
        put_sized(&mut rest, &[0; 4]);
        put_sized(&mut rest, &public);
        put_sized(&mut rest, &[]);
        put32(&mut rest, 0);
        let answer = self.exchange(&command(CREATE_PRIMARY, OWNER, &rest))?;
        let mut answer = Parser(&answer);
        let handle = answer.u32()?;
        let mut parameters = answer.long()?;
        let mut public = parameters.sized()?;
        let shape = (public.u16()?, public.u16()?, public.u32()?, public.sized()?.0.len());
        if shape != (kind, ALG_SHA256, ATTRIBUTES, 0) {
            return Err(odd("another key than the one that was asked for"));
        }
        for word in details {
            if public.u16()? != *word {
                return Err(odd("another key than the one that was asked for"));
            }
        }
        if purpose == Purpose::Mac {
            return Ok((handle, Vec::new()));
        }
        let (x, y) = (public.number()?, public.number()?);
        Ok((handle, [&[4][..], &x, &y].concat()))
    }

    /// r and s of a signature over a hash.
    pub fn sign(&mut self, handle: u32, hash: &[u8; 32]) -> Result<([u8; 32], [u8; 32]), Error> {
        let mut rest = Vec::new();
        put_sized(&mut rest, hash);
        put16(&mut rest, ALG_NULL);
        put16(&mut rest, HASHCHECK);
        put32(&mut rest, NOBODY);
        put_sized(&mut rest, &[]);
        let answer = self.exchange(&command(SIGN, handle, &rest))?;
        let mut answer = Parser(&answer).long()?;
        if (answer.u16()?, answer.u16()?) != (ALG_ECDSA, ALG_SHA256) {
            return Err(odd("another sort of signature"));
        }
        Ok((answer.number()?, answer.number()?))
    }

    pub fn hmac(&mut self, handle: u32, text: &[u8]) -> Result<[u8; 32], Error> {
        let mut rest = Vec::new();
        put_sized(&mut rest, text);
        put16(&mut rest, ALG_SHA256);
        let answer = self.exchange(&command(HMAC, handle, &rest))?;
        let mut answer = Parser(&answer).long()?;
        answer.sized()?.0.try_into().map_err(|_| odd("a MAC of another length"))
    }

    pub fn flush(&mut self, handle: u32) -> Result<(), Error> {
        let mut bytes = Vec::new();
        put16(&mut bytes, NO_SESSIONS);
        put32(&mut bytes, 14);
        put32(&mut bytes, FLUSH);
        put32(&mut bytes, handle);
        self.exchange(&bytes).map(|_| ())
    }
}

/// A command with one handle, whose owner has no password.
fn command(code: u32, handle: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put16(&mut bytes, SESSIONS);
    put32(&mut bytes, 0);
    put32(&mut bytes, code);
    put32(&mut bytes, handle);
    // The length of what shows who asks: a password session, no nonce, no attributes, no password.
    put32(&mut bytes, 9);
    put32(&mut bytes, PASSWORD);
    bytes.extend([0; 5]);
    bytes.extend(rest);
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[2..6].copy_from_slice(&len.to_be_bytes());
    bytes
}

fn put16(bytes: &mut Vec<u8>, n: u16) {
    bytes.extend(n.to_be_bytes());
}

fn put32(bytes: &mut Vec<u8>, n: u32) {
    bytes.extend(n.to_be_bytes());
}

/// A TPM2B: 16 bits of length, and so many bytes.
fn put_sized(bytes: &mut Vec<u8>, text: &[u8]) {
    put16(bytes, u16::try_from(text.len()).unwrap_or(u16::MAX));
    bytes.extend(text);
}

struct Parser<'a>(&'a [u8]);

impl<'a> Parser<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or_else(|| odd("it is too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Error> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.take(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn sized(&mut self) -> Result<Parser<'a>, Error> {
        let len = self.u16()?;
        self.take(len.into()).map(Parser)
    }

    /// The parameters of an answer with sessions.
    fn long(&mut self) -> Result<Parser<'a>, Error> {
        let len = self.u32()? as usize;
        self.take(len).map(Parser)
    }

    /// A coordinate or half a signature: some TPMs leave leading zeros out.
    fn number(&mut self) -> Result<[u8; 32], Error> {
        let bytes = self.sized()?.0;
        let at = 32usize.checked_sub(bytes.len()).ok_or_else(|| odd("a number that is too long"))?;
        let mut number = [0; 32];
        number[at..].copy_from_slice(bytes);
        Ok(number)
    }
}

fn explain(code: u32) -> String {
    let what = match code {
        // Bit 7: about a handle, parameter or session, whose number stands in bits 8 to 11.
        c if c & 0x80 != 0 && matches!(c & 0x3f, 0x0e | 0x22) => {
            ": its owner has a password; clear that, or set \"tpm\": \"none\" before the board joins"
        }
        0x902 | 0x903 => ": it is full; does another program leave keys there?",
        0x921 => ": it is locked after wrong passwords",
        0x100 => ": it was not started",
        _ => "",
    };
    format!("the TPM refuses with code {code:#x}{what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A TPM that says what it is told to, each time a connection is made.
    fn says(name: &str, answer: Vec<u8>) -> String {
        let path = std::env::temp_dir().join(format!("limpet-tpm-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut command = [0; 1024];
            while stream.read(&mut command).is_ok_and(|n| n > 0) {
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
        });
        format!("unix:{}", path.display())
    }

    fn answer(code: u32, body: &[u8]) -> Vec<u8> {
        let len = (HEAD_BYTES + body.len()) as u32;
        [&SESSIONS.to_be_bytes()[..], &len.to_be_bytes(), &code.to_be_bytes(), body].concat()
    }

    #[test]
    fn answers_that_make_no_sense_are_refused() {
        let mut good = 0x8000_0000u32.to_be_bytes().to_vec();
        let mut public = Vec::new();
        [ALG_ECC, ALG_SHA256].iter().for_each(|w| put16(&mut public, *w));
        put32(&mut public, ATTRIBUTES);
        [0, ALG_NULL, ALG_ECDSA, ALG_SHA256, P256, ALG_NULL].iter().for_each(|w| put16(&mut public, *w));
        put_sized(&mut public, &[7; 31]);
        put_sized(&mut public, &[8; 32]);
        put32(&mut good, public.len() as u32 + 2);
        put_sized(&mut good, &public);
        let mut wire = Wire::open(&says("good", answer(0, &good))).unwrap();
        let (handle, point) = wire.create_primary(Purpose::Sign, &[1; 32]).unwrap();
        assert_eq!((handle, point.len(), &point[..3]), (0x8000_0000, 65, &[4, 0, 7][..]));
        for cut in 0..good.len() {
            let mut wire = Wire::open(&says("cut", answer(0, &good[..cut]))).unwrap();
            assert!(wire.create_primary(Purpose::Sign, &[1; 32]).is_err(), "{cut}");
        }
        // Another curve, and a key that may leave the TPM.
        for at in [good.len() - 72, 4 + 4 + 2 + 7] {
            let mut other = good.clone();
            other[at] ^= 2;
            let mut wire = Wire::open(&says("other", answer(0, &other))).unwrap();
            assert!(wire.create_primary(Purpose::Sign, &[1; 32]).is_err(), "{at}");
        }
        let password = "owner has a password";
        for (code, word) in [(0x9a2, password), (0x98e, password), (0x902, "full"), (0x1c4, "0x1c4")] {
            let mut wire = Wire::open(&says("code", answer(code, &[]))).unwrap();
            let why = wire.create_primary(Purpose::Mac, &[1; 32]).unwrap_err().to_string();
            assert!(why.contains(word), "{why}");
        }
        let lies = [&[0x80, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0][..], &[0x80, 2, 0, 0, 0, 3, 0, 0, 0, 0]];
        for lie in lies {
            let mut wire = Wire::open(&says("lie", lie.to_vec())).unwrap();
            assert!(wire.hmac(1, b"x").is_err());
        }
    }
}
