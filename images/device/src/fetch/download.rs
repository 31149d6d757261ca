//! Downloads that survive being cut.
//!
//! In: a URL, a folder. Out: a file in the folder. A part is carried on with a range request, and begun anew when the server
//! has another file by now. Never: a part under the name of the whole.

use super::{FetchError, Image, check_sum, parse_sum};
use crate::limits::IMAGE_BYTES_MAX;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    pub fn at(dir: &Path) -> Cache {
        Cache { dir: dir.into() }
    }

    /// `XDG_CACHE_HOME/limpet/images` or `~/.cache/limpet/images`.
    pub fn of_user() -> Option<Cache> {
        let var = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let base = var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache")))?;
        Some(Cache { dir: base.join("limpet/images") })
    }

    /// `told` hears (bytes here, bytes of all if known) now and then.
    pub fn image(&self, url: &str, sha256: Option<&str>, told: &mut dyn FnMut(u64, Option<u64>)) -> Result<Image, FetchError> {
        let secure = url.starts_with("https://");
        if !secure && sha256.is_none() {
            return Err(FetchError::Plain);
        }
        let want = sha256.map(parse_sum).transpose()?;
        let io = |error| FetchError::File { path: self.dir.clone(), error };
        fs::create_dir_all(&self.dir).map_err(io)?;
        let whole = self.dir.join(file_name(url, want.as_deref()));
        if !whole.exists() {
            self.download(url, &whole, told)?;
            let part = whole.with_extension("part");
            if let Some(want) = &want {
                check_sum(&part, want).inspect_err(|_| {
                    // What is wrong as a whole cannot be mended by fetching more of it.
                    let _ = fs::remove_file(&part);
                })?;
            }
            fs::rename(&part, &whole).map_err(io)?;
            let _ = fs::remove_file(whole.with_extension("etag"));
        }
        Image::file(&whole, want.as_deref())
    }

    fn download(&self, url: &str, whole: &Path, told: &mut dyn FnMut(u64, Option<u64>)) -> Result<(), FetchError> {
        let (part, tag_file) = (whole.with_extension("part"), whole.with_extension("etag"));
        let io = |error| FetchError::File { path: part.clone(), error };
        let tag = fs::read_to_string(&tag_file).ok().filter(|t| !t.is_empty());
        // Without a tag nobody knows whether it is still the same file.
        let mut have = fs::metadata(&part).map_or(0, |m| m.len());
        if tag.is_none() {
            have = 0;
        }
        let answer = ask(url, have, tag.as_deref())?;
        if answer.status() == 416 {
            // The part is as long as the file, or longer: the checksum tells.
            return Ok(());
        }
        if answer.status() != 206 {
            have = 0;
        }
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_string);
        fs::write(&tag_file, header("etag").unwrap_or_default()).map_err(io)?;
        let length: Option<u64> = header("content-length").and_then(|l| l.parse().ok());
        let total = length.map(|l| l + have);
        let mut file = OpenOptions::new().create(true).append(true).open(&part).map_err(io)?;
        file.set_len(have).map_err(io)?;
        let body = answer.into_body().into_reader();
        let cut = |(got, _)| FetchError::Cut { url: url.into(), have: have + got };
        have += copy(body, &mut file, have, total, told).map_err(cut)?;
        file.sync_all().map_err(io)?;
        match total {
            Some(total) if have < total => Err(FetchError::Cut { url: url.into(), have }),
            _ => Ok(()),
        }
    }
}

fn ask(url: &str, from: u64, tag: Option<&str>) -> Result<ureq::http::Response<ureq::Body>, FetchError> {
    let http = |why: String| FetchError::Http { url: url.into(), why };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .http_status_as_error(false)
        .max_redirects(5)
        .https_only(url.starts_with("https://"))
        .build()
        .into();
    let mut request = agent.get(url).header("user-agent", concat!("limpet/", env!("CARGO_PKG_VERSION")));
    if let (true, Some(tag)) = (from > 0, tag) {
        request = request.header("range", format!("bytes={from}-")).header("if-range", tag);
    }
    let answer = request.call().map_err(|e| http(e.to_string()))?;
    match answer.status().as_u16() {
        200 | 206 | 416 => Ok(answer),
        404 => Err(http("there is no such file (404)".into())),
        status => Err(http(format!("the server answered {status}"))),
    }
}

fn copy(
    mut from: impl Read,
    to: &mut File,
    before: u64,
    total: Option<u64>,
    told: &mut dyn FnMut(u64, Option<u64>),
) -> Result<u64, (u64, io::Error)> {
    let mut buffer = vec![0; 1 << 18];
    let mut got = 0;
    loop {
        let n = from.read(&mut buffer).map_err(|e| (got, e))?;
        if n == 0 {
            return Ok(got);
        }
        to.write_all(&buffer[..n]).map_err(|e| (got, e))?;
        got += n as u64;
        if before + got > IMAGE_BYTES_MAX {
            return Err((got, io::Error::other("too large")));
        }
        told(before + got, total);
    }
}

/// Another checksum or another URL is another file.
fn file_name(url: &str, sum: Option<&str>) -> String {
    let key = Sha256::digest(format!("{url} {}", sum.unwrap_or_default()));
    let key: String = key[..8].iter().map(|b| format!("{b:02x}")).collect();
    let last = url.split(['?', '#']).next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let fit: String = last.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).take(80).collect();
    format!("{key}-{}", fit.replace('.', "_"))
}
