//! OCI and Docker v2 manifests and indexes.
//!
//! In: a document as a registry sent it, with its Content-Type. Out: a manifest with bounded, checked descriptors, or
//! an index from which the entry for this machine is chosen.
//! Never: accepts Docker's schema 1, a document that is both a manifest and an index, or a size past the bounds.

use crate::digest::Digest;
use crate::limits::{BLOB_BYTES_MAX, CONFIG_BYTES_MAX, INDEX_ENTRIES_MAX, LAYERS_MAX, MANIFEST_BYTES_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What a puller accepts, for the Accept header.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Nobody retries: the image is wrong (or not for this machine).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    #[error("the manifest has {got} bytes, more than the {MANIFEST_BYTES_MAX} allowed")]
    TooLarge { got: usize },
    #[error("the manifest is not valid: {0}")]
    Invalid(String),
    #[error("manifests of type {0:?} are not supported: push the image again with a current tool (OCI or Docker v2)")]
    Unsupported(String),
    #[error("no image for {want} in the index; it has {have}")]
    NoPlatform { want: String, have: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

fn null_is_empty<'de, D>(d: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    Ok(Option::<BTreeMap<String, String>>::deserialize(d)?.unwrap_or_default())
}

impl Document {
    /// Parses a manifest or an index. `content_type` is what the registry said; the document's own `mediaType` must
    /// agree with it, and where neither says anything the fields decide (OCI image spec, manifest.md).
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Document, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge { got: bytes.len() });
        }
        let invalid = |e: serde_json::Error| ManifestError::Invalid(e.to_string());
        let head: Head = serde_json::from_slice(bytes).map_err(invalid)?;
        let document = match head.kind(content_type)? {
            Kind::Index => Document::Index(serde_json::from_slice(bytes).map_err(invalid)?),
            Kind::Manifest => Document::Manifest(serde_json::from_slice(bytes).map_err(invalid)?),
        };
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let no = |why: String| Err(ManifestError::Invalid(why));
        match self {
            Document::Manifest(m) if m.layers.len() > LAYERS_MAX => {
                no(format!("it has {} layers, more than the {LAYERS_MAX} allowed", m.layers.len()))
            }
            Document::Manifest(m) => {
                if m.config.size > CONFIG_BYTES_MAX as u64 {
                    return no(format!("its config of {} bytes is larger than {CONFIG_BYTES_MAX}", m.config.size));
                }
                match m.layers.iter().find(|l| l.size > BLOB_BYTES_MAX) {
                    Some(l) => no(format!("layer {} of {} bytes is larger than {BLOB_BYTES_MAX}", l.digest, l.size)),
                    None => Ok(()),
                }
            }
            Document::Index(i) if i.manifests.len() > INDEX_ENTRIES_MAX => {
                no(format!("it has {} entries, more than the {INDEX_ENTRIES_MAX} allowed", i.manifests.len()))
            }
            Document::Index(_) => Ok(()),
        }
    }
}

/// The fields that tell manifests and indexes apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

enum Kind {
    Manifest,
    Index,
}

impl Head {
    fn kind(&self, content_type: Option<&str>) -> Result<Kind, ManifestError> {
        if self.schema_version == Some(1) || self.fs_layers.is_some() {
            return Err(ManifestError::Unsupported("Docker schema 1".to_string()));
        }
        if self.schema_version != Some(2) {
            return Err(ManifestError::Invalid("schemaVersion is not 2".to_string()));
        }
        if self.manifests.is_some() && (self.config.is_some() || self.layers.is_some()) {
            return Err(ManifestError::Invalid("it is a manifest and an index at once".to_string()));
        }
        let by_fields = if self.manifests.is_some() { Kind::Index } else { Kind::Manifest };
        for named in [self.media_type.as_deref(), content_type].into_iter().flatten() {
            let named = named.split(';').next().unwrap_or(named).trim();
            let agrees = match named {
                OCI_MANIFEST | DOCKER_MANIFEST => matches!(by_fields, Kind::Manifest),
                OCI_INDEX | DOCKER_INDEX => matches!(by_fields, Kind::Index),
                "" | "application/json" | "application/octet-stream" | "text/plain" => true,
                other => return Err(ManifestError::Unsupported(other.chars().take(100).collect())),
            };
            if !agrees {
                return Err(ManifestError::Invalid(format!("it says {named} but its fields say otherwise")));
            }
        }
        Ok(by_fields)
    }
}

impl Index {
    /// The entry for `want`: the exact variant first, then (arm) the nearest older variant, then one without a variant.
    /// Attestations (`unknown/unknown`) are never chosen.
    pub fn choose(&self, want: &Platform) -> Result<&Descriptor, ManifestError> {
        self.manifests
            .iter()
            .filter_map(|d| Some((rank(want, d.platform.as_ref()?)?, d)))
            // The first of equals wins, as in containerd.
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, d)| d)
            .ok_or_else(|| ManifestError::NoPlatform { want: want.to_string(), have: self.have() })
    }

    fn have(&self) -> String {
        let names: Vec<_> = self.manifests.iter().filter_map(|d| d.platform.as_ref()).take(32).collect();
        match names.is_empty() {
            true => "none with a platform".to_string(),
            false => names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        }
    }
}

/// How far `have` is from `want`; 0 is exact, None does not run here.
fn rank(want: &Platform, have: &Platform) -> Option<u8> {
    if have.os != want.os {
        return None;
    }
    let want_variant = variant_number(&want.architecture, want.variant.as_deref());
    let have_variant = variant_number(&have.architecture, have.variant.as_deref());
    if have.architecture == want.architecture {
        return want_variant.checked_sub(have_variant);
    }
    // A 64-bit ARM core with 32-bit compatibility could run arm/v7, but not every one has it: never chosen silently.
    None
}

/// 5, 6, 7 for arm (7 when nothing is said, as in containerd), 8 for arm64, 1…4 for amd64.
fn variant_number(architecture: &str, variant: Option<&str>) -> u8 {
    let said = variant.and_then(|v| v.strip_prefix('v')?.split('.').next()?.parse::<u8>().ok());
    match (architecture, said) {
        ("arm", None) => 7,
        ("arm64", None) => 8,
        (_, None) => 1,
        (_, Some(n)) => n,
    }
}

impl Platform {
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        Platform {
            os: os.to_string(),
            architecture: architecture.to_string(),
            variant: variant.map(str::to_string),
        }
    }

    /// The machine that this binary was compiled for, in Go's names. The agent narrows arm's variant at run time.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" if cfg!(target_feature = "v7") => ("arm", Some("v7")),
            "arm" => ("arm", Some("v6")),
            "x86" => ("386", None),
            "riscv64" => ("riscv64", None),
            other => (other, None),
        };
        Platform::new("linux", architecture, variant)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|v| write!(f, "/{v}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(platform: Option<Platform>, n: u8) -> Descriptor {
        Descriptor {
            media_type: OCI_MANIFEST.to_string(),
            digest: Digest::of(&[n]),
            size: 1,
            platform,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }

    fn index(platforms: &[(&str, &str, Option<&str>)]) -> Index {
        let manifests = platforms
            .iter()
            .enumerate()
            .map(|(n, (os, arch, variant))| descriptor(Some(Platform::new(os, arch, *variant)), n as u8))
            .collect();
        Index {
            schema_version: 2,
            media_type: None,
            manifests,
            subject: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn the_nearest_variant_that_runs_is_chosen() {
        let busybox = index(&[
            ("linux", "amd64", None),
            ("unknown", "unknown", None),
            ("linux", "arm", Some("v5")),
            ("linux", "arm", Some("v6")),
            ("linux", "arm", Some("v7")),
            ("linux", "arm64", Some("v8")),
            ("windows", "amd64", None),
        ]);
        for (arch, variant, expect) in [
            ("amd64", None, Some(0)),
            ("arm", Some("v7"), Some(4)),
            ("arm", Some("v6"), Some(3)),
            ("arm", Some("v5"), Some(2)),
            ("arm", None, Some(4)),
            ("arm64", None, Some(5)),
            ("arm64", Some("v8"), Some(5)),
            ("riscv64", None, None),
        ] {
            let chosen = busybox.choose(&Platform::new("linux", arch, variant)).ok();
            let expect = expect.map(|n: usize| &busybox.manifests[n]);
            assert_eq!(chosen, expect, "{arch} {variant:?}");
        }
        let newer_only = index(&[("linux", "arm", Some("v7")), ("linux", "amd64", Some("v3"))]);
        assert!(newer_only.choose(&Platform::new("linux", "arm", Some("v6"))).is_err());
        assert!(newer_only.choose(&Platform::new("linux", "amd64", None)).is_err());
        let error = newer_only.choose(&Platform::new("linux", "arm64", None)).unwrap_err().to_string();
        assert!(error.contains("linux/arm/v7, linux/amd64/v3"), "{error}");
    }

    fn manifest_json(layers: usize, size: u64) -> String {
        let digest = Digest::of(b"x");
        let layer = format!(r#"{{"mediaType":"{OCI_LAYER_GZIP}","digest":"{digest}","size":{size}}}"#);
        let layers = vec![layer; layers].join(",");
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{OCI_CONFIG}","digest":"{digest}","size":7}},
               "layers":[{layers}],"annotations":null}}"#
        )
    }

    #[test]
    fn documents_are_told_apart() {
        let m = manifest_json(2, 10);
        for content_type in [None, Some(OCI_MANIFEST), Some("application/json"), Some(DOCKER_MANIFEST)] {
            let parsed = Document::parse(m.as_bytes(), content_type);
            assert!(matches!(parsed, Ok(Document::Manifest(_))), "{content_type:?}");
        }
        assert!(Document::parse(m.as_bytes(), Some(OCI_INDEX)).is_err());
        assert!(Document::parse(m.as_bytes(), Some("text/html")).is_err());
        let i = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        assert!(matches!(Document::parse(i.as_bytes(), None), Ok(Document::Index(_))));
        assert!(Document::parse(i.as_bytes(), Some(OCI_MANIFEST)).is_err());
    }

    #[test]
    fn hostile_documents_are_refused() {
        let both = manifest_json(0, 1).replacen('{', r#"{"manifests":[],"#, 1);
        let evil_digest = manifest_json(1, 1).replacen("sha256:", "sha256:../../", 1);
        let many = manifest_json(LAYERS_MAX + 1, 1);
        let huge = manifest_json(1, BLOB_BYTES_MAX + 1);
        let negative = manifest_json(1, 1).replace("\"size\":1}", "\"size\":-1}");
        let deep = "[".repeat(100_000);
        for text in [
            "", "null", "[]", "{}", r#"{"schemaVersion":1,"fsLayers":[]}"#, r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"config":null,"layers":null}"#, &both, &evil_digest, &many, &huge, &negative, &deep,
        ] {
            assert!(Document::parse(text.as_bytes(), None).is_err(), "{}", &text[..text.len().min(80)]);
        }
        let large = vec![b' '; MANIFEST_BYTES_MAX + 1];
        assert_eq!(Document::parse(&large, None), Err(ManifestError::TooLarge { got: large.len() }));
    }
}
