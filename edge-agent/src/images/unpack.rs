//! Unpacks one layer in a process of its own: what a decoder allocates or trips over ends with that process.
//!
//! In: a downloaded blob and what it must be. Out: a whole directory under a name of `tmp/`.
//! Never: its final name; it gets that when it is on the disk (settle.rs).
//! `limpet-agent unpack` is the helper: a `Request` as a line of JSON on stdin, a `Reply` as one on stdout.

use super::error::ImageError;
use super::files::{self, Files};
use super::settle::{Unpacked, Work};
use limpet_oci::Digest;
use limpet_oci::delta::rebuild::Part;
use limpet_oci::delta::{self, Base, RECIPE_BYTES_MAX, Rebuild, Recipe};
use limpet_oci::limits::LayerLimits;
use limpet_oci::unpack::{Expect, UnpackError, unpack};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufRead, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

/// Both sides of the helper's pipe.
const MESSAGE_BYTES_MAX: u64 = 64 * 1024;
/// What the helper says in all.
const REPLIES_BYTES_MAX: u64 = 1024 * 1024;
/// Requests for parts of one layer; more is slower than the whole.
const PARTS_MAX: usize = 10_000;

#[derive(Serialize, Deserialize)]
enum Request {
    Whole(WholeJob),
    Delta(DeltaJob, PathBuf),
}

#[derive(Clone, Serialize, Deserialize)]
struct WholeJob {
    blob: PathBuf,
    digest: Digest,
    size: u64,
    diff_id: Digest,
    into: PathBuf,
}

/// A layer to put together from pieces.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeltaJob {
    pub recipe: PathBuf,
    /// Directories with files that may have pieces.
    pub bases: Vec<PathBuf>,
    /// Where the fetched parts will be.
    pub fetched: PathBuf,
    pub diff_id: Digest,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Reply {
    /// Parts of the pack to fetch: offset and length.
    Wants(Vec<(u64, u64)>),
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

/// Unpacks what is to be `layers/<diff id>`.
pub async fn layer(files: &Files, program: Option<&Path>, image: &str, job: Job<'_>) -> Result<Unpacked, ImageError> {
    let target = files.layer(job.diff_id);
    let work = begin(files)?;
    let whole = WholeJob {
        blob: job.blob.to_path_buf(),
        digest: job.digest.clone(),
        size: job.size,
        diff_id: job.diff_id.clone(),
        into: work.0.clone(),
    };
    let reply = match program {
        Some(program) => {
            let mut helper = Child::start(program, &Request::Whole(whole)).await?;
            let reply = helper.reply().await;
            helper.ended(reply).await
        }
        None => tokio::task::spawn_blocking(move || answer(whole_layer(&whole))).await.unwrap_or_else(|_| broken()),
    };
    whole_or_why(image, reply)?;
    Ok(Unpacked { work, target })
}

fn begin(files: &Files) -> Result<Work, ImageError> {
    let work = files.temporary();
    let making = ImageError::disk("making a directory for a layer");
    fs::DirBuilder::new().mode(0o700).create(&work).map_err(making)?;
    Ok(Work(work))
}

fn whole_or_why(image: &str, reply: Reply) -> Result<(), ImageError> {
    let image = image.to_string();
    match reply {
        Reply::Done(_) => Ok(()),
        Reply::NoSpace(why) => Err(ImageError::Unpack { image, source: UnpackError::NoSpace(why) }),
        Reply::Failed(why) => Err(ImageError::Refused { image, why }),
        Reply::Wants(_) => Err(ImageError::Refused { image, why: broken_text() }),
    }
}

/// None when the layer is not here.
pub fn meta(files: &Files, diff_id: &Digest) -> Option<Meta> {
    let bytes = files::read_bounded(&files.layer(diff_id).join("meta"), 4096).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn broken_text() -> String {
    "the unpacker ended unexpectedly".to_string()
}

fn broken() -> Reply {
    Reply::Failed(broken_text())
}

/// The helper process.
struct Child {
    process: tokio::process::Child,
    stdin: Option<tokio::process::ChildStdin>,
    stdout: tokio::io::BufReader<tokio::io::Take<tokio::process::ChildStdout>>,
}

impl Child {
    async fn start(program: &Path, request: &Request) -> Result<Child, ImageError> {
        let starting = |e| ImageError::disk("running the unpacker")(e);
        let mut body = serde_json::to_vec(request).map_err(|e| starting(e.into()))?;
        body.push(b'\n');
        let mut process = tokio::process::Command::new(program)
            .arg0("limpet-agent")
            .arg("unpack")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(starting)?;
        let mut stdin = process.stdin.take();
        if let Some(stdin) = &mut stdin {
            // A helper that died early tells more by its status than by a broken pipe.
            let _ = stdin.write_all(&body).await;
        }
        let stdout = process.stdout.take().ok_or_else(|| starting(std::io::ErrorKind::BrokenPipe.into()))?;
        Ok(Child { process, stdin, stdout: tokio::io::BufReader::new(stdout.take(REPLIES_BYTES_MAX)) })
    }

    async fn reply(&mut self) -> Option<Reply> {
        let mut line = Vec::new();
        self.stdout.read_until(b'\n', &mut line).await.ok()?;
        serde_json::from_slice(&line).ok()
    }

    /// The last reply, or how the process ended without one.
    async fn ended(&mut self, reply: Option<Reply>) -> Reply {
        self.stdin = None;
        match (self.process.wait().await, reply) {
            (_, Some(reply)) => reply,
            (Ok(status), None) => Reply::Failed(format!("the unpacker ended without an answer ({status})")),
            (Err(_), None) => broken(),
        }
    }
}

/// Puts a layer together from a base and fetched parts: first it says which, then the caller fetches, then it unpacks.
pub struct Delta {
    job: DeltaJob,
    work: Work,
    way: Way,
}

enum Way {
    Process(Child),
    /// In this process (tests).
    Here(Option<Prepared>),
}

type Prepared = (Recipe, Base, Vec<Part>);

impl Delta {
    pub async fn begin(files: &Files, program: Option<&Path>, job: DeltaJob) -> Result<Delta, ImageError> {
        let work = begin(files)?;
        let way = match program {
            Some(program) => Way::Process(Child::start(program, &Request::Delta(job.clone(), work.0.clone())).await?),
            None => Way::Here(None),
        };
        Ok(Delta { job, work, way })
    }

    /// Parts of the pack that are missing here.
    pub async fn wants(&mut self) -> Result<Vec<Part>, String> {
        let job = self.job.clone();
        match &mut self.way {
            Way::Process(child) => match child.reply().await {
                Some(Reply::Wants(parts)) => {
                    Ok(parts.into_iter().map(|(offset, length)| Part { offset, length }).collect())
                }
                Some(Reply::Failed(why) | Reply::NoSpace(why)) => Err(why),
                _ => Err(broken_text()),
            },
            Way::Here(prepared) => {
                let done = tokio::task::spawn_blocking(move || prepare(&job)).await.map_err(|_| broken_text())?;
                let done = done.map_err(|err| err.to_string())?;
                let parts = done.2.clone();
                *prepared = Some(done);
                Ok(parts)
            }
        }
    }

    /// The parts are in the file.
    pub async fn finish(self, files: &Files) -> Result<Unpacked, ImageError> {
        let (target, job, work) = (files.layer(&self.job.diff_id), self.job, self.work);
        let reply = match self.way {
            Way::Process(mut child) => {
                if let Some(stdin) = &mut child.stdin {
                    let _ = stdin.write_all(b"\n").await;
                }
                let reply = child.reply().await;
                child.ended(reply).await
            }
            Way::Here(prepared) => {
                let into = work.0.clone();
                let all = move || prepared.map_or_else(broken, |prepared| answer(rebuild(prepared, &job, &into)));
                tokio::task::spawn_blocking(all).await.unwrap_or_else(|_| broken())
            }
        };
        whole_or_why("a layer's pieces", reply)?;
        Ok(Unpacked { work, target })
    }
}

fn prepare(job: &DeltaJob) -> std::io::Result<Prepared> {
    let recipe = Recipe::decode(&files::read_bounded(&job.recipe, RECIPE_BYTES_MAX as usize)?)?;
    let base = Base::scan(&job.bases, &delta::rebuild::names(&recipe))?;
    let parts = delta::rebuild::missing(&recipe, &base);
    match parts.len() > PARTS_MAX {
        true => Err(std::io::Error::other("too much of it is new here and there")),
        false => Ok((recipe, base, parts)),
    }
}

fn rebuild((recipe, base, _): Prepared, job: &DeltaJob, into: &Path) -> Result<Meta, UnpackError> {
    let fetched = File::open(&job.fetched).map_err(trouble("opening a layer's pieces"))?;
    // The archive itself is what is unpacked: its digest is the layer's diff id.
    let expect = Expect { digest: job.diff_id.clone(), size: recipe.archive_bytes, diff_id: job.diff_id.clone() };
    unpack_into(Rebuild::new(recipe, base, fetched), &expect, into)
}

/// The helper's `main`: the exit code.
pub fn helper() -> i32 {
    // It works for an image that anybody may have made: it goes before the agent and before pods that asked for memory.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    let mut stdin = std::io::BufReader::new(std::io::stdin().take(MESSAGE_BYTES_MAX));
    let mut line = Vec::new();
    let read = stdin.read_until(b'\n', &mut line);
    let reply = match (read, serde_json::from_slice::<Request>(&line)) {
        (Ok(_), Ok(Request::Whole(job))) => answer(whole_layer(&job)),
        (Ok(_), Ok(Request::Delta(job, into))) => match prepare(&job) {
            Ok(prepared) => {
                let wants = prepared.2.iter().map(|part| (part.offset, part.length)).collect();
                if say(&Reply::Wants(wants)).is_err() || stdin.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
                    return 1;
                }
                answer(rebuild(prepared, &job, &into))
            }
            Err(err) => Reply::Failed(err.to_string()),
        },
        _ => Reply::Failed("the unpacker did not understand its request".to_string()),
    };
    i32::from(say(&reply).is_err() || !matches!(reply, Reply::Done(_)))
}

fn say(reply: &Reply) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

fn answer(done: Result<Meta, UnpackError>) -> Reply {
    match done {
        Ok(meta) => Reply::Done(meta),
        Err(UnpackError::NoSpace(why)) => Reply::NoSpace(why),
        Err(other) => Reply::Failed(other.to_string()),
    }
}

fn trouble(what: &str) -> impl Fn(std::io::Error) -> UnpackError {
    let what = what.to_string();
    move |source| match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => UnpackError::NoSpace(what.clone()),
        _ => UnpackError::Io { what: what.clone(), source },
    }
}

fn whole_layer(job: &WholeJob) -> Result<Meta, UnpackError> {
    let blob = File::open(&job.blob).map_err(trouble("opening the blob"))?;
    let expect = Expect { digest: job.digest.clone(), size: job.size, diff_id: job.diff_id.clone() };
    unpack_into(blob, &expect, &job.into)
}

fn unpack_into(blob: impl Read, expect: &Expect, into: &Path) -> Result<Meta, UnpackError> {
    let root = into.join("fs");
    fs::create_dir(&root).map_err(trouble("making the layer's directory"))?;
    let done = unpack(blob, expect, &root, &LayerLimits::default())?;
    let meta = Meta { bytes: done.bytes, entries: done.entries, hides_all: done.hides_all };
    let describing = trouble("describing the layer");
    let text = serde_json::to_vec(&meta).map_err(|e| describing(e.into()))?;
    fs::write(into.join("meta"), text).map_err(describing)?;
    Ok(meta)
}
