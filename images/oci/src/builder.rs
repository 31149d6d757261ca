//! Makes images from files in memory, the same bytes every time.
//!
//! In: files, directories and links with their modes; how to run the image. Out: blobs (layers, config, manifest) with
//! their descriptors, for the demo, the tests and `limpet image`.
//! Never: reads a clock, an owner or an environment.

use crate::config::{Execution, ImageConfig, RootFs};
use crate::digest::Digest;
use crate::manifest::{self, Descriptor, Manifest, Platform};
use std::collections::BTreeMap;
use std::io::Write;

/// One archive, uncompressed; entries in the order in which they were added.
#[derive(Default, Clone)]
pub struct Layer {
    bytes: Vec<u8>,
}

/// What is special about an entry; `Entry::default()` is a plain file of root's with mode 0644.
#[derive(Clone)]
pub struct Attributes<'a> {
    pub type_flag: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub link: &'a [u8],
    pub device: (u32, u32),
    pub xattrs: &'a [(&'a str, &'a [u8])],
}

impl Default for Attributes<'_> {
    fn default() -> Self {
        Attributes { type_flag: b'0', mode: 0o644, uid: 0, gid: 0, mtime: 0, link: b"", device: (0, 0), xattrs: &[] }
    }
}

impl Layer {
    pub fn new() -> Layer {
        Layer::default()
    }

    pub fn file(self, path: &str, mode: u32, data: &[u8]) -> Layer {
        self.entry(path, data, &Attributes { mode, ..Attributes::default() })
    }

    pub fn directory(self, path: &str, mode: u32) -> Layer {
        self.entry(path, b"", &Attributes { type_flag: b'5', mode, ..Attributes::default() })
    }

    pub fn symlink(self, path: &str, target: &str) -> Layer {
        let link = target.as_bytes();
        self.entry(path, b"", &Attributes { type_flag: b'2', mode: 0o777, link, ..Attributes::default() })
    }

    pub fn hard_link(self, path: &str, target: &str) -> Layer {
        let link = target.as_bytes();
        self.entry(path, b"", &Attributes { type_flag: b'1', link, ..Attributes::default() })
    }

    /// Any entry. Names, links and ids that do not fit into a ustar header go into a PAX header before it.
    pub fn entry(mut self, path: &str, data: &[u8], with: &Attributes<'_>) -> Layer {
        let mut pax = Vec::new();
        if path.len() > 100 {
            pax.extend(pax_record("path", path.as_bytes()));
        }
        if with.link.len() > 100 {
            pax.extend(pax_record("linkpath", with.link));
        }
        for (key, id) in [("uid", with.uid), ("gid", with.gid)] {
            if id > 0o7777777 {
                pax.extend(pax_record(key, id.to_string().as_bytes()));
            }
        }
        for (key, value) in with.xattrs {
            pax.extend(pax_record(&format!("SCHILY.xattr.{key}"), value));
        }
        if !pax.is_empty() {
            let plain = Attributes { type_flag: b'x', ..Attributes::default() };
            self = self.raw(&header(b"pax", pax.len() as u64, &plain), &pax);
        }
        let head = header(path.as_bytes(), data.len() as u64, with);
        self.raw(&head, data)
    }

    /// Bytes as they are, data padded to whole blocks.
    pub fn raw(mut self, header: &[u8], data: &[u8]) -> Layer {
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// The finished archive.
    pub fn tar(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// A ustar header block.
pub fn header(name: &[u8], size: u64, with: &Attributes<'_>) -> [u8; 512] {
    let mut block = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8], room: usize| {
        let count = bytes.len().min(room);
        block[at..at + count].copy_from_slice(&bytes[..count]);
    };
    put(0, name, 100);
    put(100, format!("{:07o}", with.mode).as_bytes(), 8);
    put(108, format!("{:07o}", with.uid & 0o7777777).as_bytes(), 8);
    put(116, format!("{:07o}", with.gid & 0o7777777).as_bytes(), 8);
    put(124, format!("{size:011o}").as_bytes(), 12);
    put(136, format!("{:011o}", with.mtime).as_bytes(), 12);
    put(156, &[with.type_flag], 1);
    put(157, with.link, 100);
    put(257, b"ustar\x0000", 8);
    put(329, format!("{:07o}", with.device.0).as_bytes(), 8);
    put(337, format!("{:07o}", with.device.1).as_bytes(), 8);
    seal(&mut block);
    block
}

/// Writes the checksum of a header block.
pub fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// `length key=value\n`, the length counting itself.
pub fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// Compressed with no name and no time in the header.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::default());
    // Writing into a Vec cannot fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// A blob and what a manifest says about it.
#[derive(Clone, Debug)]
pub struct Blob {
    pub descriptor: Descriptor,
    pub bytes: Vec<u8>,
}

impl Blob {
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Blob {
        let descriptor = Descriptor {
            media_type: media_type.to_string(),
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            platform: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
        };
        Blob { descriptor, bytes }
    }
}

/// A whole image.
#[derive(Clone, Debug)]
pub struct Image {
    pub manifest: Blob,
    pub config: Blob,
    pub layers: Vec<Blob>,
}

/// Puts `layers` (lowest first), gzip-compressed, under one config and one manifest.
pub fn image(platform: &Platform, run: Execution, layers: Vec<Layer>) -> Result<Image, serde_json::Error> {
    let tars: Vec<Vec<u8>> = layers.into_iter().map(Layer::tar).collect();
    let config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        created: Some("1970-01-01T00:00:00Z".to_string()),
        config: run,
        rootfs: RootFs { kind: "layers".to_string(), diff_ids: tars.iter().map(|t| Digest::of(t)).collect() },
    };
    let config = Blob::new(manifest::OCI_CONFIG, serde_json::to_vec(&config)?);
    let layers: Vec<Blob> = tars.iter().map(|t| Blob::new(manifest::OCI_LAYER_GZIP, gzip(t))).collect();
    let document = Manifest {
        schema_version: 2,
        media_type: Some(manifest::OCI_MANIFEST.to_string()),
        artifact_type: None,
        config: config.descriptor.clone(),
        layers: layers.iter().map(|l| l.descriptor.clone()).collect(),
        subject: None,
        annotations: BTreeMap::new(),
    };
    let manifest = Blob::new(manifest::OCI_MANIFEST, serde_json::to_vec(&document)?);
    Ok(Image { manifest, config, layers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Document;

    #[test]
    fn the_same_files_give_the_same_image_and_it_reads_back() {
        let make = || {
            let layer = Layer::new().directory("bin", 0o755).file("bin/app", 0o755, b"\x7fELF");
            let run = Execution { entrypoint: vec!["/bin/app".to_string()], ..Execution::default() };
            image(&Platform::new("linux", "amd64", None), run, vec![layer]).unwrap()
        };
        let (a, b) = (make(), make());
        assert_eq!(a.manifest.bytes, b.manifest.bytes);
        let Document::Manifest(manifest) = Document::parse(&a.manifest.bytes, None).unwrap() else { panic!() };
        let config = ImageConfig::parse(&a.config.bytes).unwrap();
        config.check_against(&manifest).unwrap();
        assert!(manifest.layers[0].digest.matches(&a.layers[0].bytes));
        assert_eq!(config.config.entrypoint, ["/bin/app"]);
    }

    #[test]
    fn pax_lengths_count_themselves() {
        assert_eq!(pax_record("a", b"b"), b"6 a=b\n");
        let record = pax_record("path", &[b'x'; 89]);
        assert!(record.starts_with(b"99 ") || record.starts_with(b"98 "));
        for n in 80..1200 {
            let record = pax_record("path", &vec![b'x'; n]);
            let said: usize = String::from_utf8_lossy(&record).split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, record.len());
        }
    }
}
