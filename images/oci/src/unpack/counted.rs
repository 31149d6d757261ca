//! The two ends of a layer's stream: the blob as it comes, the archive as it leaves the decoder; both hashed and bounded.
//!
//! In: readers. Out: the same bytes; an error as soon as a bound is passed, or at the end when digest or size differ.
//! Never: lets the last byte of a blob through that is not what the manifest promised.

use super::{Expect, UnpackError};
use crate::digest::{Digest, Hasher};
use crate::limits::LayerLimits;
use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Our own error on its way through `io::Error`.
#[derive(Debug)]
pub struct Stop(pub UnpackError);

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Stop {}

fn stop(error: UnpackError) -> io::Error {
    io::Error::other(Stop(error))
}

pub struct Blob<R> {
    inner: R,
    hasher: Option<Hasher>,
    want: Digest,
    size: u64,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Blob<R> {
    pub fn new(inner: R, expect: &Expect) -> Blob<R> {
        Blob {
            inner,
            hasher: Some(expect.digest.hasher()),
            want: expect.digest.clone(),
            size: expect.size,
            count: Rc::default(),
        }
    }

    pub fn count(&self) -> Rc<Cell<u64>> {
        self.count.clone()
    }

    fn end(&mut self) -> Result<(), UnpackError> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let (got, got_size) = (hasher.finish(), self.count.get());
        if got_size != self.size {
            return Err(UnpackError::Size { want: self.size, got: got_size });
        }
        if got != self.want {
            return Err(UnpackError::Digest { want: self.want.clone(), got });
        }
        Ok(())
    }
}

impl<R: Read> Read for Blob<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let got = self.inner.read(buf)?;
        if got == 0 {
            self.end().map_err(stop)?;
            return Ok(0);
        }
        self.count.set(self.count.get() + got as u64);
        if self.count.get() > self.size {
            return Err(stop(UnpackError::Size { want: self.size, got: self.count.get() }));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..got]);
        }
        Ok(got)
    }
}

pub struct Unpacked<R> {
    inner: R,
    hasher: Hasher,
    compressed: Rc<Cell<u64>>,
    count: u64,
    limits: LayerLimits,
}

impl<R: Read> Unpacked<R> {
    pub fn new(inner: R, hasher: Hasher, compressed: Rc<Cell<u64>>, limits: &LayerLimits) -> Unpacked<R> {
        Unpacked { inner, hasher, compressed, count: 0, limits: *limits }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn finish(self) -> (Digest, R) {
        (self.hasher.finish(), self.inner)
    }

    fn check(&self) -> Result<(), UnpackError> {
        let limits = &self.limits;
        if self.count > limits.unpacked_bytes_max {
            let max = limits.unpacked_bytes_max;
            return Err(UnpackError::TooLarge(format!("it unpacks to more than the {max} bytes allowed")));
        }
        let by_ratio = self.compressed.get().saturating_mul(limits.ratio_max);
        if self.count > limits.ratio_free_bytes.saturating_add(by_ratio) {
            let max = limits.ratio_max;
            return Err(UnpackError::TooLarge(format!("it unpacks to more than {max} times its size")));
        }
        Ok(())
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buf)?;
        self.count += got as u64;
        self.check().map_err(stop)?;
        self.hasher.update(&buf[..got]);
        Ok(got)
    }
}
