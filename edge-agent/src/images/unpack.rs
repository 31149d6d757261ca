//! Unpacks one layer in a process of its own: what a decoder allocates or trips over ends with that process.
//!
//! In: a downloaded blob and what it must be. Out: a directory under its final name, all of it on disk before that.
//! Never: a half-unpacked directory under a final name.
//! `limpet-agent unpack` is the helper: a `Request` as JSON on stdin, a `Reply` as JSON on stdout.

use super::error::ImageError;
use super::files::{self, Files};
use limpet_oci::Digest;
use limpet_oci::limits::LayerLimits;
use limpet_oci::unpack::{Expect, UnpackError, unpack};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Both sides of the helper's pipe.
const MESSAGE_BYTES_MAX: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Request {
    blob: PathBuf,
    digest: Digest,
    size: u64,
    diff_id: Digest,
    into: PathBuf,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Reply {
    Done(Meta),
    NoSpace(String),
    Failed(String),
}

/// What is known about an unpacked layer, beside it in `meta`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub bytes: u64,
    pub entries: u64,
    /// Layers below this one are hidden by it.
    pub hides_all: bool,
}

/// A layer to unpack.
pub struct Job<'a> {
    pub blob: &'a Path,
    pub digest: &'a Digest,
    pub size: u64,
    pub diff_id: &'a Digest,
}

/// Unpacks into `layers/<diff id>`; nothing to do when that exists.
pub async fn layer(files: &Files, program: Option<&Path>, image: &str, job: Job<'_>) -> Result<Meta, ImageError> {
    let target = files.layer(job.diff_id);
    let work = files.temporary();
    let making = ImageError::disk("making a directory for a layer");
    fs::DirBuilder::new().mode(0o700).create(&work).map_err(making)?;
    let request = Request {
        blob: job.blob.to_path_buf(),
        digest: job.digest.clone(),
        size: job.size,
        diff_id: job.diff_id.clone(),
        into: work.clone(),
    };
    let guard = RemoveOnDrop(work.clone());
    let reply = match program {
        Some(program) => call(program, &request).await?,
        None => tokio::task::spawn_blocking(move || run(&request))
            .await
            .unwrap_or_else(|_| Reply::Failed("the unpacker ended unexpectedly".to_string())),
    };
    let failed = |source| ImageError::Unpack { image: image.to_string(), source };
    let meta = match reply {
        Reply::Done(meta) => meta,
        Reply::NoSpace(why) => return Err(failed(UnpackError::NoSpace(why))),
        Reply::Failed(why) => return Err(ImageError::Refused { image: image.to_string(), why }),
    };
    match fs::rename(&work, &target) {
        // Somebody else was first: the same content.
        Err(_) if target.join("meta").exists() => {}
        renamed => renamed.and_then(|()| files::sync_parent(&target)).map_err(ImageError::disk("keeping a layer"))?,
    }
    drop(guard);
    Ok(meta)
}

/// None when the layer is not here.
pub fn meta(files: &Files, diff_id: &Digest) -> Option<Meta> {
    let bytes = files::read_bounded(&files.layer(diff_id).join("meta"), 4096).ok()?;
    serde_json::from_slice(&bytes).ok()
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn call(program: &Path, request: &Request) -> Result<Reply, ImageError> {
    let starting = |e| ImageError::disk("running the unpacker")(e);
    let body = serde_json::to_vec(request).map_err(|e| starting(e.into()))?;
    let mut child = tokio::process::Command::new(program)
        .arg0("limpet-agent")
        .arg("unpack")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(starting)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that died early tells more by its status than by a broken pipe.
        let _ = stdin.write_all(&body).await;
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MESSAGE_BYTES_MAX).read_to_end(&mut answer).await.map_err(starting)?;
    }
    let status = child.wait().await.map_err(starting)?;
    let ended = || Reply::Failed(format!("the unpacker ended without an answer ({status})"));
    Ok(serde_json::from_slice(&answer).unwrap_or_else(|_| ended()))
}

/// The helper's `main`: the exit code.
pub fn helper() -> i32 {
    let mut body = Vec::new();
    let read = std::io::stdin().take(MESSAGE_BYTES_MAX).read_to_end(&mut body);
    let reply = match (read, serde_json::from_slice::<Request>(&body)) {
        (Ok(_), Ok(request)) => run(&request),
        _ => Reply::Failed("the unpacker did not understand its request".to_string()),
    };
    let answer = serde_json::to_vec(&reply).unwrap_or_default();
    let told = std::io::stdout().write_all(&answer);
    i32::from(told.is_err() || !matches!(reply, Reply::Done(_)))
}

fn run(request: &Request) -> Reply {
    match run_inner(request) {
        Ok(meta) => Reply::Done(meta),
        Err(UnpackError::NoSpace(why)) => Reply::NoSpace(why),
        Err(other) => Reply::Failed(other.to_string()),
    }
}

fn run_inner(request: &Request) -> Result<Meta, UnpackError> {
    let io = |what: &str| {
        let what = what.to_string();
        move |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => UnpackError::NoSpace(what),
            _ => UnpackError::Io { what, source },
        }
    };
    let blob = File::open(&request.blob).map_err(io("opening the blob"))?;
    let root = request.into.join("fs");
    fs::create_dir(&root).map_err(io("making the layer's directory"))?;
    let expect =
        Expect { digest: request.digest.clone(), size: request.size, diff_id: request.diff_id.clone() };
    let done = unpack(blob, &expect, &root, &LayerLimits::default())?;
    let meta = Meta { bytes: done.bytes, entries: done.entries, hides_all: done.hides_all };
    let text = serde_json::to_vec(&meta).map_err(|e| io("describing the layer")(e.into()))?;
    fs::write(request.into.join("meta"), text).map_err(io("describing the layer"))?;
    // One call for a whole tree: fsync of every file would write a card's metadata a thousand times.
    let directory = File::open(&request.into).map_err(io("opening the layer"))?;
    limpet_oci::unpack::sync_file_system(&directory).map_err(io("writing the layer to disk"))?;
    Ok(meta)
}
