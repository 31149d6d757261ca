//! Blobs from registries into files, going on where an earlier attempt ended.
//!
//! In: a descriptor, servers to ask in order. Out: a file under `partial/` with exactly the described content.
//! Never: writes on the event loop, keeps a file with a wrong digest, takes more bytes than the manifest says, or waits for the
//! card: what is unpacked soon need not get there (decision 0118). A file that a power cut has spoiled is fetched again.

use super::error::ImageError;
use super::files::Files;
use super::limits::{BLOB_ATTEMPTS_MAX, CHUNKS_WAITING_MAX};
use super::registry::{Failure, Session};
use bytes::Bytes;
use limpet_oci::Descriptor;
use limpet_oci::digest::Hasher;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

/// After a first attempt that brought nothing, twice that after a second; the core's back-off comes on top.
const PAUSE: Duration = Duration::from_millis(400);

/// A file that grows, and the hash of what is in it.
struct Partial {
    file: File,
    hasher: Hasher,
    length: u64,
}

enum Stop {
    Disk(io::Error),
    /// Bytes of another length or content: start again, somewhere else.
    Wrong(String),
    Server(Failure),
}

/// The file with the blob. It stays until the caller removes it; so do unfinished ones, for the next time.
pub async fn blob(
    files: &Files,
    sessions: &[Session],
    image: &str,
    wanted: &Descriptor,
) -> Result<PathBuf, ImageError> {
    let path = files.partial(&wanted.digest);
    let mut partial = open(&path, wanted).await?;
    let mut last = Failure::Unreachable("there is no server to ask".to_string());
    for session in sessions {
        let mut attempts = 0;
        loop {
            let before = partial.length;
            let (back, result) = attempt(session, partial, wanted).await?;
            partial = back;
            match result {
                Ok(()) => {
                    log::debug!("images: {image}: have {} ({} bytes)", wanted.digest, wanted.size);
                    return Ok(path);
                }
                Err(Stop::Disk(e)) => {
                    // What came so far does not go on: the room is needed by the journal and by the pods that run.
                    if e.kind() == io::ErrorKind::StorageFull {
                        let _ = std::fs::remove_file(&path);
                    }
                    return Err(ImageError::disk(format!("storing blob {}", wanted.digest))(e));
                }
                Err(Stop::Wrong(why)) => {
                    last = Failure::Refused(why);
                    partial = restart(partial, wanted).await?;
                    if before == 0 {
                        break;
                    }
                    // What was there before, perhaps from another server, may be the wrong part: once more from the start.
                    continue;
                }
                Err(Stop::Server(Failure::Unreachable(why))) => last = Failure::Unreachable(why),
                Err(Stop::Server(other)) => {
                    last = other;
                    break;
                }
            }
            attempts = if partial.length > before { 0 } else { attempts + 1 };
            if attempts == BLOB_ATTEMPTS_MAX {
                break;
            }
            tokio::time::sleep(PAUSE * attempts).await;
        }
    }
    Err(failed(image, sessions, last))
}

pub fn failed(image: &str, sessions: &[Session], failure: Failure) -> ImageError {
    let image = image.to_string();
    match failure {
        Failure::Unreachable(why) => {
            let host = sessions.last().map_or_else(|| "its registry".to_string(), Session::host);
            ImageError::Unreachable { image, host, why }
        }
        other => ImageError::Refused { image, why: other.to_string() },
    }
}

async fn open(path: &Path, wanted: &Descriptor) -> Result<Partial, ImageError> {
    let (path, hasher, size) = (path.to_path_buf(), wanted.digest.hasher(), wanted.size);
    let opened = spawn_blocking(move || open_blocking(&path, hasher, size)).await;
    let opened = opened.unwrap_or_else(|e| Err(io::Error::other(e)));
    opened.map_err(ImageError::disk(format!("opening the download of {}", wanted.digest)))
}

/// Hashes what an earlier attempt left; more than the whole is rubbish.
fn open_blocking(path: &Path, hasher: Hasher, size: u64) -> io::Result<Partial> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let mut partial = Partial { file, hasher, length: 0 };
    if partial.file.metadata()?.len() > size {
        partial.file.set_len(0)?;
    }
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let got = partial.file.read(&mut buffer)?;
        if got == 0 {
            return Ok(partial);
        }
        partial.hasher.update(&buffer[..got]);
        partial.length += got as u64;
    }
}

async fn restart(mut partial: Partial, wanted: &Descriptor) -> Result<Partial, ImageError> {
    partial.hasher = wanted.digest.hasher();
    partial.length = 0;
    let cut = partial.file.set_len(0).and_then(|()| partial.file.seek(SeekFrom::Start(0)));
    cut.map_err(ImageError::disk("starting a download again"))?;
    Ok(partial)
}

/// One request. The partial file comes back whatever happens.
async fn attempt(
    session: &Session,
    mut partial: Partial,
    wanted: &Descriptor,
) -> Result<(Partial, Result<(), Stop>), ImageError> {
    if partial.length == wanted.size {
        return check(partial, wanted).await;
    }
    let (start, mut body) = match session.blob(&wanted.digest, partial.length).await {
        Ok(answer) => answer,
        Err(failure) => return Ok((partial, Err(Stop::Server(failure)))),
    };
    if start != partial.length {
        partial = restart(partial, wanted).await?;
    }
    let mut expected = partial.length;
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    let writer = spawn_blocking(move || write(partial, receiver));
    let mut stop = None;
    loop {
        match body.next().await {
            Ok(None) => break,
            Ok(Some(chunk)) => {
                expected += chunk.len() as u64;
                if expected > wanted.size {
                    stop = Some(Stop::Wrong(format!("blob {} is longer than its manifest says", wanted.digest)));
                    break;
                }
                session.pace(chunk.len()).await;
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Err(why) => {
                let why = format!("{}: {why}", session.host());
                let failure = if body.is_too_slow() { Failure::Refused(why) } else { Failure::Unreachable(why) };
                stop = Some(Stop::Server(failure));
                break;
            }
        }
    }
    drop(sender);
    let joined = writer.await.map_err(|e| ImageError::disk("storing a blob")(io::Error::other(e)))?;
    let (partial, written) = joined;
    match (written, stop) {
        (Err(e), _) => return Ok((partial, Err(Stop::Disk(e)))),
        (Ok(()), Some(stop)) => return Ok((partial, Err(stop))),
        (Ok(()), None) => session.give_back(body),
    }
    match partial.length == wanted.size {
        true => check(partial, wanted).await,
        false => {
            let why = format!("{} ended blob {} early", session.host(), wanted.digest);
            Ok((partial, Err(Stop::Server(Failure::Unreachable(why)))))
        }
    }
}

fn write(mut partial: Partial, mut chunks: mpsc::Receiver<Bytes>) -> (Partial, io::Result<()>) {
    while let Some(chunk) = chunks.blocking_recv() {
        if let Err(e) = partial.file.write_all(&chunk) {
            // Part of the chunk may be there: the length that counts is what was hashed.
            let _ = partial.file.set_len(partial.length);
            let _ = partial.file.seek(SeekFrom::Start(partial.length));
            return (partial, Err(e));
        }
        partial.hasher.update(&chunk);
        partial.length += chunk.len() as u64;
    }
    (partial, Ok(()))
}

async fn check(
    partial: Partial,
    wanted: &Descriptor,
) -> Result<(Partial, Result<(), Stop>), ImageError> {
    let got = partial.hasher.clone().finish();
    let result = match got == wanted.digest {
        true => Ok(()),
        false => Err(Stop::Wrong(format!("blob {} arrived with digest {got}", wanted.digest))),
    };
    Ok((partial, result))
}
