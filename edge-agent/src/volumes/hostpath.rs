//! hostPath: a path of the board itself, checked or made as its type says.
//!
//! In: path and type. Out: nothing but the certainty that the mount may go on. Never: changes what is there.
//! Types: <https://kubernetes.io/docs/concepts/storage/volumes/#hostpath-volume-types>.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HostPathType {
    #[default]
    Unset,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

impl HostPathType {
    /// The words of `spec.volumes[].hostPath.type`.
    pub fn parse(word: &str) -> Option<HostPathType> {
        Some(match word {
            "" => HostPathType::Unset,
            "DirectoryOrCreate" => HostPathType::DirectoryOrCreate,
            "Directory" => HostPathType::Directory,
            "FileOrCreate" => HostPathType::FileOrCreate,
            "File" => HostPathType::File,
            "Socket" => HostPathType::Socket,
            "CharDevice" => HostPathType::CharDevice,
            "BlockDevice" => HostPathType::BlockDevice,
            _ => return None,
        })
    }

    fn text(self) -> &'static str {
        match self {
            HostPathType::Unset => "anything",
            HostPathType::DirectoryOrCreate | HostPathType::Directory => "a directory",
            HostPathType::FileOrCreate | HostPathType::File => "a file",
            HostPathType::Socket => "a socket file",
            HostPathType::CharDevice => "a character device",
            HostPathType::BlockDevice => "a block device",
        }
    }
}

/// With `Unset` a missing path becomes a directory when it is mounted, as container engines do.
pub fn set_up(path: &Path, kind: HostPathType) -> Result<()> {
    if !path.is_absolute() {
        return Err(Error::new(ErrorKind::InvalidInput, format!("hostPath {} is not absolute", path.display())));
    }
    let found = match std::fs::metadata(path) {
        Ok(found) => found.file_type(),
        Err(err) if err.kind() == ErrorKind::NotFound => return create(path, kind),
        Err(err) => return Err(Error::new(err.kind(), format!("hostPath {}: {err}", path.display()))),
    };
    let fits = match kind {
        HostPathType::Unset => true,
        HostPathType::DirectoryOrCreate | HostPathType::Directory => found.is_dir(),
        HostPathType::FileOrCreate | HostPathType::File => found.is_file(),
        HostPathType::Socket => found.is_socket(),
        HostPathType::CharDevice => found.is_char_device(),
        HostPathType::BlockDevice => found.is_block_device(),
    };
    if fits { Ok(()) } else { Err(refused(path, kind)) }
}

fn create(path: &Path, kind: HostPathType) -> Result<()> {
    match kind {
        HostPathType::Unset | HostPathType::DirectoryOrCreate => {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
        }
        HostPathType::FileOrCreate => {
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map(drop)
        }
        _ => Err(refused(path, kind)),
    }
}

fn refused(path: &Path, kind: HostPathType) -> Error {
    Error::other(format!("hostPath type check failed: {} is not {}", path.display(), kind.text()))
}
