//! Why an image cannot be had, in kubelet's words.
//!
//! In: failures of registries, disks and archives. Out: a reason for the container's status and a text for people.
//! Never: credentials in a text.

use limpet_oci::manifest::ManifestError;
use limpet_oci::reference::InvalidImageName;
use limpet_oci::unpack::UnpackError;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Nobody retries: the pod must change.
    #[error(transparent)]
    InvalidName(#[from] InvalidImageName),
    /// Nobody retries: the image must be brought here by another way.
    #[error("Container image {0:?} is not present with pull policy of Never")]
    NeverPull(String),
    /// The pod's back-off retries. The registry could not be reached at all.
    #[error("failed to pull image {image:?}: cannot reach {host}: {why}")]
    Unreachable { image: String, host: String, why: String },
    /// The pod's back-off retries; it helps when somebody changes image, secret or registry.
    #[error("failed to pull image {image:?}: {why}")]
    Refused { image: String, why: String },
    /// The pod's back-off retries.
    #[error("failed to pull image {image:?}: {source}")]
    Manifest { image: String, source: ManifestError },
    /// The pod's back-off retries; it helps when the image is pushed again.
    #[error("failed to pull image {image:?}: {source}")]
    Unpack { image: String, source: UnpackError },
    /// The pod's back-off retries; it helps when the image is signed.
    #[error("failed to pull image {image:?}: {why}")]
    Signature { image: String, why: String },
    /// The pod's back-off retries; the node's disk is full or broken.
    #[error("image store: {what}: {source}")]
    Disk { what: String, source: std::io::Error },
    /// Nobody retries: the agent's configuration must change.
    #[error("image store: {0}")]
    Config(String),
}

impl ImageError {
    /// The reason in `containerStatuses[].state.waiting`.
    pub fn reason(&self) -> &'static str {
        match self {
            ImageError::InvalidName(_) => "InvalidImageName",
            ImageError::NeverPull(_) => "ErrImageNeverPull",
            ImageError::Unreachable { .. } => "RegistryUnavailable",
            ImageError::Signature { .. } => "SignatureValidationFailed",
            _ => "ErrImagePull",
        }
    }

    /// The disk is full: time to collect what nobody wants.
    pub fn is_no_space(&self) -> bool {
        match self {
            ImageError::Unpack { source: UnpackError::NoSpace(_), .. } => true,
            ImageError::Disk { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    pub(super) fn disk(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ImageError {
        let what = what.into();
        move |source| ImageError::Disk { what, source }
    }
}
