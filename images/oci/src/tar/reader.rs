//! Entries of an archive, in order, with their extended headers applied.
//!
//! In: a byte stream. Out: `Entry`s; the data of the current one through `read_data`.
//! Never: goes on after an error; seeks.

use super::header::{self, Format, Header};
use super::pax::{self, Pax};
use super::sparse::{self, Area, Lines};
use super::{BLOCK, TarError};
use crate::limits::{PATH_BYTES_MAX, PAX_BYTES_MAX};
use std::io::Read;

/// A point in time, nanoseconds counting forward from the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Time {
    pub seconds: i64,
    pub nanos: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    File,
    Directory,
    Symlink(Vec<u8>),
    /// The path of the other name, within the archive.
    HardLink(Vec<u8>),
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// As the archive has it: may be absolute, may have `..`.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Twelve bits: permissions, setuid, setgid, sticky.
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: Time,
    /// Length of the file, holes included.
    pub size: u64,
    /// Where the data belongs, if the file has holes.
    pub sparse: Option<Vec<Area>>,
    pub xattrs: Vec<(String, Vec<u8>)>,
}

pub struct Reader<R> {
    inner: R,
    offset: u64,
    /// Data of the current entry that has not been read yet, and the padding after it.
    data_left: u64,
    padding: u64,
    ended: bool,
}

/// What extended headers said about the entry that follows them.
#[derive(Default)]
struct Ahead {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    pub fn new(inner: R) -> Reader<R> {
        Reader { inner, offset: 0, data_left: 0, padding: 0, ended: false }
    }

    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; unread data of the last one is skipped. None at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut ahead = Ahead::default();
        // Several extended headers may stand before an entry (PAX and two long names), but not endlessly many.
        for _ in 0..8 {
            self.skip_data()?;
            let Some(block) = self.next_header_block()? else {
                return match ahead.is_empty() {
                    true => Ok(None),
                    false => Err(self.malformed("an extended header without an entry")),
                };
            };
            let header = header::parse(&block).map_err(|why| self.malformed(why))?;
            if !self.extended(&header, &mut ahead)? {
                return self.entry(header, &block, ahead).map(Some);
            }
        }
        Err(self.malformed("too many extended headers before an entry"))
    }

    /// Whether the archive has ended properly (what follows in the stream is padding).
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Up to `buf.len()` bytes of the current entry's data; 0 at its end.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        let want = buf.len().min(usize::try_from(self.data_left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let got = self.inner.read(&mut buf[..want])?;
        if got == 0 {
            return Err(TarError::Truncated { offset: self.offset });
        }
        self.offset += got as u64;
        self.data_left -= got as u64;
        Ok(got)
    }

    fn malformed(&self, why: &'static str) -> TarError {
        TarError::Malformed { offset: self.offset, why }
    }

    /// None at the end: two blocks of zeros, or the end of the stream where a header could stand.
    fn next_header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        if !self.read_block(&mut block)? {
            self.ended = true;
            return Ok(None);
        }
        if header::is_zero(&block) {
            if self.read_block(&mut block)? && !header::is_zero(&block) {
                return Err(self.malformed("a single block of zeros between entries"));
            }
            self.ended = true;
            return Ok(None);
        }
        Ok(Some(block))
    }

    /// False at a clean end of the stream.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(TarError::Truncated { offset: self.offset }),
                got => {
                    filled += got;
                    self.offset += got as u64;
                }
            }
        }
        Ok(true)
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        let mut left = self.data_left + self.padding;
        self.data_left = 0;
        self.padding = 0;
        let mut buf = [0; 8192];
        while left > 0 {
            let want = left.min(buf.len() as u64) as usize;
            let got = self.inner.read(&mut buf[..want])?;
            if got == 0 {
                return Err(TarError::Truncated { offset: self.offset });
            }
            self.offset += got as u64;
            left -= got as u64;
        }
        Ok(())
    }

    fn begin_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// Takes in an extended header; false when `header` is an entry proper.
    fn extended(&mut self, header: &Header, ahead: &mut Ahead) -> Result<bool, TarError> {
        match header.type_flag {
            b'x' if ahead.pax.is_some() => Err(self.malformed("two PAX headers for one entry")),
            b'x' => {
                let data = self.small_data(header.size)?;
                ahead.pax = Some(pax::parse(&data).map_err(|why| self.malformed(why))?);
                Ok(true)
            }
            b'g' => {
                let data = self.small_data(header.size)?;
                pax::check_global(&data).map_err(|why| self.malformed(why))?;
                Ok(true)
            }
            b'L' | b'K' => {
                let data = self.small_data(header.size)?;
                let text = header::text(&data).to_vec();
                let slot = if header.type_flag == b'L' { &mut ahead.long_name } else { &mut ahead.long_link };
                if slot.replace(text).is_some() {
                    return Err(self.malformed("two long names for one entry"));
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn small_data(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > PAX_BYTES_MAX {
            return Err(self.malformed("an extended header that is too large"));
        }
        self.begin_data(size);
        let mut data = Vec::new();
        let mut buf = [0; 4096];
        loop {
            match self.read_data(&mut buf)? {
                0 => return Ok(data),
                got => data.extend_from_slice(&buf[..got]),
            }
        }
    }

    fn entry(&mut self, header: Header, block: &[u8; BLOCK], ahead: Ahead) -> Result<Entry, TarError> {
        let Ahead { pax, long_name, long_link } = ahead;
        let mut pax = pax.unwrap_or_default();
        let stored = self.stored_size(&header, &pax)?;
        let path = self.one_of(pax.path.take(), long_name, &header.name)?;
        let link = self.one_of(pax.link.take(), long_link, &header.link)?;
        let kind = self.kind(&header, &path, link)?;
        if kind != Kind::File && stored != 0 {
            return Err(self.malformed("a size for an entry that has no data"));
        }
        self.begin_data(stored);
        let mut entry = Entry {
            path,
            kind,
            mode: header.mode,
            uid: pax.uid.unwrap_or(header.uid),
            gid: pax.gid.unwrap_or(header.gid),
            mtime: pax.mtime.unwrap_or(Time { seconds: header.mtime, nanos: 0 }),
            size: stored,
            sparse: None,
            xattrs: pax.xattrs,
        };
        if header.type_flag == b'S' {
            self.old_sparse(&mut entry, &header, block)?;
        } else if pax.sparse.is_used() {
            self.pax_sparse(&mut entry, pax.sparse)?;
        }
        if entry.path.len() > PATH_BYTES_MAX || entry.path.contains(&0) {
            return Err(self.malformed("a path that is too long or has a NUL byte"));
        }
        Ok(entry)
    }

    /// The bytes that follow the header. A PAX size is the truth; a different size in the header makes readers disagree
    /// about where the next entry begins, unless it is zero (how writers mark "does not fit").
    fn stored_size(&self, header: &Header, pax: &Pax) -> Result<u64, TarError> {
        match pax.size {
            Some(size) if header.size != 0 && header.size != size => {
                Err(self.malformed("PAX size and header size differ"))
            }
            Some(size) => Ok(size),
            None => Ok(header.size),
        }
    }

    fn one_of(&self, pax: Option<Vec<u8>>, long: Option<Vec<u8>>, short: &[u8]) -> Result<Vec<u8>, TarError> {
        match (pax, long) {
            (Some(pax), Some(long)) if pax != long => Err(self.malformed("two different long names for one entry")),
            (Some(name), _) | (None, Some(name)) => Ok(name),
            (None, None) => Ok(short.to_vec()),
        }
    }

    fn kind(&self, header: &Header, path: &[u8], link: Vec<u8>) -> Result<Kind, TarError> {
        let (major, minor) = (header.dev_major, header.dev_minor);
        let bad_link = link.is_empty() || link.len() > PATH_BYTES_MAX || link.contains(&0);
        Ok(match header.type_flag {
            b'1' | b'2' if bad_link => {
                return Err(self.malformed("a link target that is empty, too long or has a NUL byte"));
            }
            // Archives before POSIX marked directories by a slash at the end of the name.
            0 | b'0' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => Kind::File,
            b'S' if header.format == Format::Gnu => Kind::File,
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'3' => Kind::Char { major, minor },
            b'4' => Kind::Block { major, minor },
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return Err(self.malformed("an entry of unknown type")),
        })
    }

    /// GNU's old format: the map starts in the header and goes on in blocks after it.
    fn old_sparse(&mut self, entry: &mut Entry, header: &Header, block: &[u8; BLOCK]) -> Result<(), TarError> {
        let mut areas = Vec::new();
        let mut more =
            sparse::parse_old(&block[386..482], block[482], &mut areas).map_err(|why| self.malformed(why))?;
        let real_size = header::number(&block[483..495]).map_err(|why| self.malformed(why))?;
        while more {
            let mut next = [0; BLOCK];
            if !self.read_block(&mut next)? {
                return Err(TarError::Truncated { offset: self.offset });
            }
            more = sparse::parse_old(&next[..504], next[504], &mut areas).map_err(|why| self.malformed(why))?;
        }
        sparse::check(&areas, real_size, header.size).map_err(|why| self.malformed(why))?;
        entry.size = real_size;
        entry.sparse = Some(areas);
        Ok(())
    }

    fn pax_sparse(&mut self, entry: &mut Entry, pax: pax::Sparse) -> Result<(), TarError> {
        if entry.kind != Kind::File {
            return Err(self.malformed("a sparse map for an entry that is no file"));
        }
        let real_size = pax.real_size.ok_or_else(|| self.malformed("a sparse file without its real size"))?;
        let areas = match (pax.major, pax.minor, pax.map) {
            (None | Some(0), None | Some(1), Some(map)) => map,
            (Some(1), Some(0), None) => self.sparse_lines()?,
            _ => return Err(self.malformed("a sparse format that is not supported")),
        };
        sparse::check(&areas, real_size, self.data_left).map_err(|why| self.malformed(why))?;
        if let Some(name) = pax.name {
            entry.path = name;
        }
        entry.size = real_size;
        entry.sparse = Some(areas);
        Ok(())
    }

    /// The map of format 1.0 is part of the data, in whole blocks.
    fn sparse_lines(&mut self) -> Result<Vec<Area>, TarError> {
        let mut lines = Lines::default();
        while self.data_left >= BLOCK as u64 {
            let mut block = [0; BLOCK];
            if !self.read_block(&mut block)? {
                return Err(TarError::Truncated { offset: self.offset });
            }
            self.data_left -= BLOCK as u64;
            if let Some(areas) = lines.block(&block).map_err(|why| self.malformed(why))? {
                return Ok(areas);
            }
        }
        Err(self.malformed("a sparse map without an end"))
    }
}

impl Ahead {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}
