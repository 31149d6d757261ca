//! What the store holds: images by the digest of their config, with every name that leads to them.
//!
//! In: the index file (a CRC on its first line), changes. Out: answers from memory; the file rewritten when something changed.
//! Never: loses the old file before the new one is safe; the one before stays as `index.old`, should a card rot.

use super::error::ImageError;
use super::files::{self, Files};
use super::limits::INDEX_BYTES_MAX;
use limpet_oci::{Digest, Reference};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// By image id: the digest of the config.
    images: BTreeMap<Digest, Stored>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// `docker.io/library/nginx:1.27`
    pub tags: BTreeSet<String>,
    /// `docker.io/library/nginx@sha256:…`, of the manifest and of an index that led to it; the latest last.
    pub digests: Vec<String>,
    /// Diff ids, lowest first.
    pub layers: Vec<Digest>,
    /// Compressed.
    pub bytes: u64,
    /// Names of the keys whose signatures were checked.
    #[serde(default)]
    pub vouched: BTreeSet<String>,
    /// Fingerprints of the credentials that its registry let in; absent where it asks nobody who they are, and for images that
    /// were here before this was kept: anybody on the board may use those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_by: Option<BTreeSet<String>>,
}

impl Index {
    /// Reads the index, or the one before it when the newest is damaged.
    pub fn load(files: &Files) -> Index {
        let path = files.index();
        match read(&path) {
            Ok(index) => index,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !old(&path).exists() => Index::default(),
            Err(e) => {
                let older = read(&old(&path)).unwrap_or_default();
                log::error!("images: {} is damaged ({e}): {} images from the one before", path.display(), older.len());
                older
            }
        }
    }

    pub fn save(&self, files: &Files) -> Result<(), ImageError> {
        let what = || ImageError::disk("writing the index");
        let body = serde_json::to_vec(self).map_err(|e| what()(e.into()))?;
        let mut bytes = format!("{:08x}\n", crc32fast::hash(&body)).into_bytes();
        bytes.extend(body);
        let path = files.index();
        let _ = std::fs::remove_file(old(&path));
        if path.exists() {
            std::fs::hard_link(&path, old(&path)).map_err(what())?;
        }
        files::replace(&path, &files.temporary(), &bytes).map_err(what())
    }

    pub fn len(&self) -> usize {
        self.images.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Digest, &Stored)> {
        self.images.iter()
    }

    pub fn get(&self, id: &Digest) -> Option<&Stored> {
        self.images.get(id)
    }

    /// By name; a digest counts more than a tag.
    pub fn find(&self, reference: &Reference) -> Option<(&Digest, &Stored)> {
        let by_digest = reference.digest.as_ref().map(|d| reference.with_digest(d));
        match by_digest {
            Some(name) => self.images.iter().find(|(_, s)| s.digests.contains(&name)),
            None => {
                let name = reference.to_string();
                self.images.iter().find(|(_, s)| s.tags.contains(&name))
            }
        }
    }

    /// Adds an image or names of it; a tag leaves the image that it named before. A tag beside a digest names nothing: nobody has
    /// asked the registry what it stands for. False when nothing changed.
    pub fn add(&mut self, id: &Digest, reference: &Reference, digests: &[String], layers: &[Digest], bytes: u64) -> bool {
        let before = self.clone();
        let tag = reference.tag.as_ref().filter(|_| reference.digest.is_none()).map(|tag| format!("{}:{tag}", reference.name()));
        if let Some(tag) = &tag {
            self.images.values_mut().for_each(|stored| {
                stored.tags.remove(tag);
            });
        }
        let stored = self.images.entry(id.clone()).or_insert_with(|| Stored {
            tags: BTreeSet::new(),
            digests: Vec::new(),
            layers: layers.to_vec(),
            bytes,
            vouched: BTreeSet::new(),
            opened_by: None,
        });
        stored.tags.extend(tag);
        for digest in digests {
            stored.digests.retain(|d| d != digest);
            stored.digests.push(digest.clone());
        }
        *self != before
    }

    /// False when nothing changed.
    pub fn vouch(&mut self, id: &Digest, key: String) -> bool {
        self.images.get_mut(id).is_some_and(|stored| stored.vouched.insert(key))
    }

    /// Its registry gave it to whoever has these credentials (`None`: to anybody). False when nothing changed.
    pub fn open(&mut self, id: &Digest, is_new: bool, credentials: Option<String>) -> bool {
        let Some(stored) = self.images.get_mut(id) else { return false };
        match (credentials, &mut stored.opened_by) {
            (None, opened) => opened.take().is_some(),
            (Some(one), Some(opened)) => opened.insert(one),
            (Some(one), opened @ None) if is_new => opened.replace([one].into()).is_none(),
            (Some(_), None) => false,
        }
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&Digest, &Stored) -> bool) {
        self.images.retain(|id, stored| keep(id, stored));
    }
}

fn old(path: &Path) -> std::path::PathBuf {
    path.with_extension("old")
}

fn read(path: &Path) -> std::io::Result<Index> {
    let bytes = files::read_bounded(path, INDEX_BYTES_MAX)?;
    let damaged = || std::io::Error::other("its checksum differs");
    let (head, body) = bytes.split_at_checked(9).ok_or_else(damaged)?;
    if head != format!("{:08x}\n", crc32fast::hash(body)).as_bytes() {
        return Err(damaged());
    }
    serde_json::from_slice(body).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        Reference::parse(text).unwrap()
    }

    #[test]
    fn a_tag_names_one_image_and_digests_stay() {
        let (old, new) = (Digest::of(b"1"), Digest::of(b"2"));
        let name = reference("nginx:1");
        let mut index = Index::default();
        assert!(index.add(&old, &name, &[name.with_digest(&old)], &[], 1));
        assert!(!index.add(&old, &name, &[name.with_digest(&old)], &[], 1));
        assert!(index.add(&new, &name, &[name.with_digest(&new)], &[], 1));
        assert_eq!(index.find(&name).map(|f| f.0), Some(&new));
        let by_digest = reference(&name.with_digest(&old));
        assert_eq!(index.find(&by_digest).map(|f| f.0), Some(&old));
        assert_eq!(index.find(&reference("other/nginx:1")), None);
        // The digest decides, whatever the tag says.
        let both = reference(&format!("nginx:other@{old}"));
        assert_eq!(index.find(&both).map(|f| f.0), Some(&old));
        let pinned = reference(&format!("nginx:1@{old}"));
        index.add(&old, &pinned, &[name.with_digest(&old)], &[], 1);
        assert_eq!(index.find(&name).map(|f| f.0), Some(&new), "the tag is what the registry said last");
    }

    #[test]
    fn a_damaged_index_falls_back_to_the_one_before() {
        let dir = super::super::tests::scratch("index");
        let files = Files::open(&dir).unwrap();
        assert_eq!(Index::load(&files), Index::default());
        let mut index = Index::default();
        index.add(&Digest::of(b"1"), &reference("a.b/one"), &[], &[], 1);
        index.save(&files).unwrap();
        let first = index.clone();
        index.add(&Digest::of(b"2"), &reference("a.b/two"), &[], &[], 1);
        index.save(&files).unwrap();
        assert_eq!(Index::load(&files), index);
        let mut bytes = std::fs::read(files.index()).unwrap();
        let last = bytes.len() - 10;
        bytes[last] ^= 1;
        std::fs::write(files.index(), bytes).unwrap();
        assert_eq!(Index::load(&files), first);
        let _ = std::fs::remove_dir_all(dir);
    }
}
