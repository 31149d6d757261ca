//! The two halves of a TCP connection as one thing that can be copied, so that TLS may read and write at the same time.
//!
//! In: a reader and a writer. Out: what both halves of TLS hold. Never: two readers or two writers at once: a second one fails.

use core::cell::RefCell;
use embassy_net::tcp::{Error, TcpReader, TcpWriter};
use embedded_io_async::{ErrorType, Read, Write};

#[derive(Clone, Copy)]
pub struct Halves<'a, 's> {
    pub read: &'a RefCell<TcpReader<'s>>,
    pub write: &'a RefCell<TcpWriter<'s>>,
}

impl ErrorType for Halves<'_, '_> {
    type Error = Error;
}

// One task reads and another one writes, each its own half: nobody else waits for a borrow.
#[allow(clippy::await_holding_refcell_ref)]
impl Read for Halves<'_, '_> {
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        let mut half = self.read.try_borrow_mut().map_err(|_| Error::ConnectionReset)?;
        half.read(bytes).await
    }
}

#[allow(clippy::await_holding_refcell_ref)]
impl Write for Halves<'_, '_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mut half = self.write.try_borrow_mut().map_err(|_| Error::ConnectionReset)?;
        half.write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        // TCP sends by itself; to wait until the other side has confirmed all would only cost time.
        Ok(())
    }
}
