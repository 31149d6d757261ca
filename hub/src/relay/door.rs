//! What other hubs are told and given.
//!
//! In: a connection whose certificate the cluster's CA has signed. Out: an answer from what is connected and kept here.
//! Never: answers somebody who is no hub of this cluster; asks a further hub.

use super::{Ask, NODES_MAX, SERVED_MAX, Told, bridge, wire};
use crate::{
    kept::KeptLogs,
    run::{Peers, Streams, Usage, streams::StreamError},
};
use limpet_protocol::StreamOpen;
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};

/// A hub knows its question before it connects.
const ASK_TIME: Duration = Duration::from_secs(10);

pub struct Door {
    peers: Arc<Peers>,
    streams: Streams,
    usage: Usage,
    kept: Arc<KeptLogs>,
    seats: Semaphore,
}

impl Door {
    pub fn new(peers: Arc<Peers>, streams: Streams, usage: Usage, kept: Arc<KeptLogs>) -> Door {
        Door { peers, streams, usage, kept, seats: Semaphore::new(SERVED_MAX) }
    }

    /// One connection until its end. `certificate`: DER of the other side's, of the cluster's CA, or empty.
    pub async fn serve(&self, io: impl AsyncRead + AsyncWrite, certificate: &[u8]) {
        let (read, mut write) = tokio::io::split(Box::pin(io));
        if !self.peers.is_hub(certificate).await {
            tracing::warn!("somebody who is no hub of this cluster came to the hubs' door");
            let why = StreamError::Refused("the hub that is asked does not know this one yet; try again".into());
            let _ = wire::write_word(&mut write, &Told::Refused(why)).await;
            return;
        }
        let Ok(_seat) = self.seats.try_acquire() else {
            let why = StreamError::Refused("the hub that is asked has too many questions of other hubs".into());
            let _ = wire::write_word(&mut write, &Told::Refused(why)).await;
            return;
        };
        if let Err(why) = self.answer(read, write).await {
            tracing::debug!("a question of another hub ends: {why}");
        }
    }

    async fn answer(&self, mut read: impl AsyncRead + Unpin, mut write: impl AsyncWrite + Unpin) -> io::Result<()> {
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "it asks nothing");
        match tokio::time::timeout(ASK_TIME, wire::read_word::<Ask>(&mut read)).await.map_err(silent)?? {
            Ask::Stream { node, open } => self.stream(&node, open, read, write).await,
            Ask::Usage { mut nodes } => {
                nodes.truncate(NODES_MAX);
                for (node, usage) in self.usage.of_here(nodes).await {
                    wire::write_word(&mut write, &Told::Usage(node, (*usage).clone())).await?;
                }
                wire::write_word(&mut write, &Told::Done).await
            }
            Ask::Key(word) => {
                let done = self.peers.store().key_step(word.into()).await;
                let told = done.map_or_else(|why| Told::Refused(StreamError::Refused(why.to_string())), |()| Told::Done);
                wire::write_word(&mut write, &told).await
            }
            Ask::Kept(ask) => {
                let (found, lines) = self.kept.answer(&ask).unzip();
                let follows = found.as_ref().is_some_and(|f| f.has_lines);
                wire::write_word(&mut write, &Told::Kept(found)).await?;
                match lines {
                    Some(lines) if follows => wire::write(&mut write, &lines).await,
                    _ => Ok(()),
                }
            }
        }
    }

    async fn stream(
        &self,
        node: &str,
        open: StreamOpen,
        read: impl AsyncRead + Unpin,
        mut write: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        match self.streams.open_here(node, open).await {
            Ok(handle) => {
                wire::write_word(&mut write, &Told::Opened).await?;
                bridge::carry(handle, read, write).await;
                Ok(())
            }
            Err(why) => wire::write_word(&mut write, &Told::Refused(why)).await,
        }
    }

}
