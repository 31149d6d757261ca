//! A layer by way of what is here already: only pieces that no layer of the same repository has are fetched.
//!
//! In: a layer that a hub has a recipe of, unpacked layers of earlier versions. Out: the unpacked layer, or nothing, and
//! then the whole blob is fetched as from any registry.
//! Never: keeps a layer whose archive has another digest than the image's config says; asks a registry that has not said
//! that it has recipes.

use super::error::ImageError;
use super::files;
use super::limits::BLOB_ATTEMPTS_MAX;
use super::registry::{Failure, Session};
use super::settle::Unpacked;
use super::store::Inner;
use super::unpack::{self, DeltaJob};
use limpet_oci::delta::rebuild::Part;
use limpet_oci::delta::{LAYER_BYTES_MIN, RECIPE_BYTES_MAX};
use limpet_oci::{Descriptor, Digest, Reference};
use std::io::Write;
use std::path::{Path, PathBuf};

/// When more than this share of the blob is missing, the blob is the shorter way: it can be resumed.
const WORTH_PERCENT_MAX: u64 = 60;
const BASES_MAX: usize = 64;

/// `None`: fetch the whole. An error only when the disk is full, which no other way mends.
pub async fn layer(
    store: &Inner,
    sessions: &[Session],
    reference: &Reference,
    layer: &Descriptor,
    diff_id: &Digest,
) -> Result<Option<Unpacked>, ImageError> {
    if layer.size < LAYER_BYTES_MIN {
        return Ok(None);
    }
    let Some(session) = sessions.iter().find(|session| session.has_recipes()) else { return Ok(None) };
    let bases = bases(store, reference);
    if bases.is_empty() {
        return Ok(None);
    }
    match Work::begin(store, session, layer, diff_id, bases).await {
        Ok(unpacked) => Ok(Some(unpacked)),
        Err(Stop::Disk(error)) => Err(error),
        Err(Stop::Whole(why)) => {
            log::info!("images: {reference}: layer {} is fetched as a whole: {why}", layer.digest);
            Ok(None)
        }
    }
}

/// Unpacked layers of images of this name.
fn bases(store: &Inner, reference: &Reference) -> Vec<PathBuf> {
    let index = store.index();
    let own = format!("{}@", reference.name());
    let images = index.iter().filter(|(_, stored)| stored.digests.iter().any(|d| d.starts_with(&own)));
    let mut layers: Vec<PathBuf> = images.flat_map(|(_, stored)| &stored.layers).map(|l| store.files.layer(l)).collect();
    layers.sort();
    layers.dedup();
    layers.retain(|layer| layer.join("meta").exists());
    layers.truncate(BASES_MAX);
    layers.into_iter().map(|layer| layer.join("fs")).collect()
}

enum Stop {
    Whole(String),
    Disk(ImageError),
}

impl Stop {
    fn io(what: &'static str) -> impl Fn(std::io::Error) -> Stop {
        move |err| match err.kind() {
            std::io::ErrorKind::StorageFull => Stop::Disk(ImageError::disk(what)(err)),
            _ => Stop::Whole(format!("{what}: {err}")),
        }
    }
}

struct Work;

impl Work {
    async fn begin(
        store: &Inner,
        session: &Session,
        layer: &Descriptor,
        diff_id: &Digest,
        bases: Vec<PathBuf>,
    ) -> Result<Unpacked, Stop> {
        let text = |failure: Failure| Stop::Whole(failure.to_string());
        let recipe = session.recipe(&layer.digest, RECIPE_BYTES_MAX as usize).await.map_err(text)?;
        let (recipe_path, fetched_path) = (store.files.temporary(), store.files.temporary());
        let _gone = (Temporary(recipe_path.clone()), Temporary(fetched_path.clone()));
        std::fs::write(&recipe_path, &recipe).map_err(Stop::io("storing a recipe"))?;
        let job = DeltaJob { recipe: recipe_path, bases, fetched: fetched_path.clone(), diff_id: diff_id.clone() };
        let mut helper =
            unpack::Delta::begin(&store.files, store.options.program.as_deref(), job).await.map_err(Stop::Disk)?;
        let parts = helper.wants().await.map_err(Stop::Whole)?;
        let missing: u64 = parts.iter().map(|part| part.length).sum();
        let travels = missing + recipe.len() as u64;
        if travels > layer.size * WORTH_PERCENT_MAX / 100 {
            return Err(Stop::Whole(format!("{missing} of its {} bytes are new", layer.size)));
        }
        fetch(session, &layer.digest, &parts, &fetched_path).await?;
        let unpacked = helper.finish(&store.files).await.map_err(|error| match error.is_no_space() {
            true => Stop::Disk(error),
            false => Stop::Whole(error.to_string()),
        })?;
        log::info!("images: layer {} of {} bytes took {travels} on the wire", layer.digest, layer.size);
        Ok(unpacked)
    }
}

/// The parts, one after the other, into a file.
async fn fetch(session: &Session, digest: &Digest, parts: &[Part], path: &Path) -> Result<(), Stop> {
    let storing = Stop::io("storing pieces of a layer");
    let mut file = std::fs::File::create(path).map_err(&storing)?;
    for part in parts {
        let (mut got, mut attempts) = (0, 0);
        while got < part.length {
            let before = got;
            let asked = session.pack(digest, part.offset + got, part.length - got).await;
            let mut last = String::new();
            match asked {
                Ok(mut body) => loop {
                    match body.next().await {
                        Ok(Some(chunk)) if got + chunk.len() as u64 <= part.length => {
                            session.pace(chunk.len()).await;
                            file.write_all(&chunk).map_err(&storing)?;
                            got += chunk.len() as u64;
                        }
                        Ok(Some(_)) => return Err(Stop::Whole(format!("{} sends more than was asked for", session.host()))),
                        Ok(None) => {
                            session.give_back(body);
                            break;
                        }
                        Err(why) => {
                            last = why;
                            break;
                        }
                    }
                },
                Err(Failure::Unreachable(why)) => last = why,
                Err(other) => return Err(Stop::Whole(other.to_string())),
            }
            attempts = if got > before { 0 } else { attempts + 1 };
            if attempts == BLOB_ATTEMPTS_MAX {
                return Err(Stop::Whole(format!("its pieces do not come: {last}")));
            }
        }
    }
    Ok(())
}

struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = files::remove_all(&self.0);
    }
}
