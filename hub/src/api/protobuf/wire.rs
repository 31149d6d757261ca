//! The wire format of protocol buffers.
//!
//! In: bytes, hostile; or values to write. Out: numbers of fields with their undecoded items, or what is broken;
//! bytes as Go's generated code writes them.
//! Source: protobuf.dev, "Encoding". Never: reads behind the end, or groups (deprecated, unused).

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the protobuf message is cut short")]
    Short,
    #[error("a number in the protobuf message is too long")]
    Varint,
    #[error("a field of the protobuf message has another wire type than its kind says")]
    Type,
    #[error("a text in the protobuf message is not UTF-8")]
    Text,
}

pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(WireError::Short)?;
            self.rest = rest;
            if shift == 63 && *byte > 1 {
                return Err(WireError::Varint);
            }
            value |= u64::from(byte & 0x7f) << shift.min(63);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Varint)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn item(&mut self) -> Result<(u32, Item<'a>), WireError> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::Varint)?;
        let item = match tag & 7 {
            0 => Item::Varint(self.varint()?),
            1 => Item::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| WireError::Short)?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Short)?;
                Item::Bytes(self.take(length)?)
            }
            5 => Item::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| WireError::Short)?)),
            _ => return Err(WireError::Type),
        };
        Ok((number, item))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Item<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = self.item();
        if item.is_err() {
            self.rest = &[];
        }
        Some(item)
    }
}

pub fn text(bytes: &[u8]) -> Result<String, WireError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| WireError::Text)
}

/// Packed numbers.
pub fn varints(bytes: &[u8]) -> Result<Vec<i64>, WireError> {
    let mut reader = Reader::new(bytes);
    let mut all = Vec::new();
    while !reader.rest.is_empty() {
        all.push(reader.varint()? as i64);
    }
    Ok(all)
}

pub fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A varint field.
pub fn put_number(field: u32, value: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(field) << 3, out);
    put_varint(value, out);
}

/// A field of bytes or text.
pub fn put_bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(field) << 3 | 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A field of eight bytes.
pub fn put_fixed64(field: u32, bits: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(field) << 3 | 1, out);
    out.extend_from_slice(&bits.to_le_bytes());
}

/// A message inside the message. Its length stands before it and is known after it: one byte is kept free for
/// it, and longer ones are moved.
pub fn put_nested(field: u32, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    put_varint(u64::from(field) << 3 | 2, out);
    let at = out.len();
    out.push(0);
    fill(out);
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(5);
    put_varint(length as u64, &mut prefix);
    out.splice(at..=at, prefix);
}
