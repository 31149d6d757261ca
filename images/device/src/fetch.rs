//! Images from files and from the web, unpacked on the way.
//!
//! In: a path or URL, a SHA-256 or SHA-512 if there is one. Out: a stream of the raw image, and its size where it can be known.
//! Downloads are kept, carry on where they were cut, and get their final name only when their checksum fits.
//! Never: hands out a byte of a file whose checksum was asked for and does not fit.

mod download;
mod unpack;

pub use download::Cache;
pub use unpack::{Unpacked, unpacked_bytes};

use ring::digest::{Algorithm, Context, SHA256, SHA512};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Each says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("the checksum of {name} is {got}, not {want}: it is another file, or it was damaged on the way; nothing was written")]
    Checksum { name: String, got: String, want: String },
    #[error("{0:?} is not a SHA-256 or SHA-512: 64 or 128 hexadecimal digits")]
    NotASum(String),
    #[error("over plain HTTP anybody on the way could change the image: give its --sha256 or --sums, or an https URL")]
    Plain,
    #[error("{url}: {why}")]
    Http { url: String, why: String },
    #[error("{url} was cut off after {have} bytes; run the same command again, it carries on from there")]
    Cut { url: String, have: u64 },
}

pub struct Image {
    pub path: PathBuf,
    /// Of the raw image, where the file says so.
    pub bytes: Option<u64>,
}

impl Image {
    /// A file on this machine, checked against `sha256` if it is given.
    pub fn file(path: &Path, sha256: Option<&str>) -> Result<Image, FetchError> {
        let error = |error| FetchError::File { path: path.into(), error };
        if std::fs::metadata(path).map_err(error)?.is_dir() {
            return Err(error(io::Error::other("it is a directory, not an image")));
        }
        if let Some(want) = sha256 {
            check_sum(path, want)?;
        }
        let bytes = unpacked_bytes(path).map_err(error)?;
        Ok(Image { path: path.into(), bytes })
    }

    pub fn open(&self) -> Result<Unpacked, FetchError> {
        let error = |error| FetchError::File { path: self.path.clone(), error };
        Unpacked::new(File::open(&self.path).map_err(error)?).map_err(error)
    }
}

/// SHA-256 or SHA-512, by its length.
pub fn parse_sum(text: &str) -> Result<String, FetchError> {
    let sum = text.trim().to_ascii_lowercase();
    match matches!(sum.len(), 64 | 128) && sum.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Ok(sum),
        false => Err(FetchError::NotASum(text.into())),
    }
}

/// SHA-256.
pub fn sum_of(path: &Path) -> Result<String, FetchError> {
    sum_by(&SHA256, path)
}

fn sum_by(algorithm: &'static Algorithm, path: &Path) -> Result<String, FetchError> {
    let error = |error| FetchError::File { path: path.into(), error };
    let mut file = File::open(path).map_err(error)?;
    let mut hasher = Context::new(algorithm);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(error)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect())
}

pub fn sum_of_bytes(bytes: &[u8]) -> String {
    ring::digest::digest(&SHA256, bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn check_sum(path: &Path, want: &str) -> Result<(), FetchError> {
    let want = parse_sum(want)?;
    let got = sum_by(if want.len() == 128 { &SHA512 } else { &SHA256 }, path)?;
    match got == want {
        true => Ok(()),
        false => Err(FetchError::Checksum { name: path.display().to_string(), got, want }),
    }
}

#[cfg(test)]
mod tests;
