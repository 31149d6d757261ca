//! Recipes of layers and their packs: what a device needs of a layer whose like it has (`limpet_oci::delta`).
//!
//! In: a blob of a repository. Out: files under `recipes/`, made when the first device asks and kept as long as the blob.
//! Never: a half-made pack under its name. One at a time is the caller's affair (`verbs::delta`).

use super::Storage;
use crate::error::{Code, RegistryError};
use limpet_oci::Digest;
use limpet_oci::delta::{self, LAYER_BYTES_MIN, RECIPE_BYTES_MAX};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::PathBuf;

/// One of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Recipe,
    Pack,
}

impl Storage {
    pub(super) fn recipe_path(&self, digest: &Digest, part: Part) -> PathBuf {
        let ending = if part == Part::Recipe { "recipe" } else { "pack" };
        self.dir.join("recipes").join(format!("{}-{}.{ending}", digest.algorithm().name(), digest.hex()))
    }

    /// Whether it was made, or tried, before.
    pub fn has_recipe(&self, digest: &Digest) -> bool {
        self.recipe_path(digest, Part::Recipe).exists()
    }

    /// Opens a part; the recipe is made when it is not there yet.
    pub fn recipe(&self, repository: &str, digest: &Digest, part: Part) -> Result<(File, u64), RegistryError> {
        let (blob, length) = self.blob(repository, digest)?;
        if length < LAYER_BYTES_MIN {
            return Err(none(digest, "it is small"));
        }
        let path = self.recipe_path(digest, part);
        if part == Part::Recipe && !path.exists() {
            self.make_recipe(digest, blob)?;
        }
        let file = File::open(&path).map_err(|_| none(digest, "it was not asked for"))?;
        let length = file.metadata()?.len();
        match length {
            0 => Err(none(digest, "it is no layer")),
            length => Ok((file, length)),
        }
    }

    fn make_recipe(&self, digest: &Digest, blob: File) -> Result<(), RegistryError> {
        let (temporary, path) = (self.temporary(), self.recipe_path(digest, Part::Recipe));
        let mut pack = BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
        let made = delta::make(BufReader::with_capacity(1 << 16, blob), &mut pack);
        let made = made.and_then(|(recipe, _)| recipe.encode());
        let bytes = match made {
            Ok(bytes) if bytes.len() as u64 <= RECIPE_BYTES_MAX => bytes,
            other => {
                // An empty file: nobody needs to try again.
                let why = other.err().map_or_else(|| "its recipe is too large".to_string(), |e| e.to_string());
                tracing::info!("registry: {digest} has no recipe: {why}");
                fs::remove_file(&temporary)?;
                File::create(&path)?;
                return Ok(());
            }
        };
        pack.flush()?;
        pack.get_ref().sync_data()?;
        fs::rename(&temporary, self.recipe_path(digest, Part::Pack))?;
        Ok(self.write(&path, &bytes)?)
    }

    /// Removes recipes of blobs that are gone.
    pub(super) fn sweep_recipes(&self) -> std::io::Result<u64> {
        let mut bytes = 0;
        for name in super::names(&self.dir.join("recipes")) {
            let blob = name.split('.').next().and_then(|n| Digest::parse(&n.replacen('-', ":", 1)).ok());
            if blob.is_none_or(|blob| !self.blob_path(&blob).exists()) {
                let path = self.dir.join("recipes").join(&name);
                bytes += fs::metadata(&path).map_or(0, |m| m.len());
                fs::remove_file(&path)?;
            }
        }
        Ok(bytes)
    }
}

fn none(digest: &Digest, why: &str) -> RegistryError {
    RegistryError::new(Code::BlobUnknown, format!("there is no recipe of {digest}: {why}"))
}
