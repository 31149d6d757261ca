//! Puts a node's files into the file systems of a card that was just written, or of an image.
//!
//! In: a target whose partitions are known, files. Out: the files, read back. FAT is written here; ext4 through `debugfs` of
//! e2fsprogs, which needs neither root nor a mount. Never: mounts anything; a command line or a debugfs line from data
//! other than paths that were checked.

mod ext4;
mod fat;

use crate::board::Board;
use crate::limits::INJECTED_BYTES_MAX;
use crate::provision::{Network, Place, Put, Traits};
use crate::table::{Area, FileSystem, file_system};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// The operator chooses another image, or installs what is named.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    #[error("the image has no ext4 root file system with an /etc in it; limpet can prepare Raspberry Pi OS, Debian, Ubuntu, Armbian")]
    NoRoot,
    #[error("debugfs is needed to put files into ext4: install the package e2fsprogs")]
    NoDebugfs,
    #[error("there is not enough room in the image's root file system: {0} bytes are needed, {1} are free")]
    NoRoom(u64, u64),
    #[error("{0} could not be put into the image: {1}")]
    Put(String, String),
    #[error("the image's file systems cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("{0:?} is not a path that can be put into an image")]
    Path(String),
    #[error("the image is Limpet OS for the board {has}, not for {board}: make one with `limpet image build --board {board}`")]
    OtherBoard { has: String, board: String },
    #[error("the image's programs are for {has}, and {board} runs {wants}: take the system's edition for {wants}")]
    OtherArchitecture { has: &'static str, board: String, wants: String },
    #[error(
        "the image's root file system was in use when it was copied: what is put into it would be undone at the first start; \
         take the image as it is published, or run e2fsck on that file system"
    )]
    Journal,
}

/// Whose system it is, and where its parts are.
#[derive(Clone, Debug)]
pub enum System {
    /// Somebody else's.
    Other { root: Area, boot: Option<Area>, traits: Traits },
    /// Limpet OS reads everything from a file on its FAT partition.
    Limpet { system: Area },
}

/// On Limpet OS's FAT partition: the board's name.
pub const LIMPET_MARK: &str = "/limpet/board";

/// Looks at the partitions of `target`; `areas` come from its table, which need not be on it yet.
pub fn find(target: &Path, areas: &[Area]) -> Result<System, InjectError> {
    let mut file = File::open(target)?;
    let mut kinds = Vec::new();
    for area in areas {
        let mut first = vec![0; 4096];
        file.seek(SeekFrom::Start(area.start))?;
        file.read_exact(&mut first)?;
        kinds.push((area, file_system(&first)));
    }
    let of = |wanted: FileSystem| kinds.iter().filter(move |(_, kind)| *kind == wanted).map(|(area, _)| *area);
    if let Some(system) = of(FileSystem::Fat).find(|a| fat::exists(target, a, LIMPET_MARK)) {
        return Ok(System::Limpet { system: system.clone() });
    }
    let mut roots: Vec<&Area> = of(FileSystem::Ext4).collect();
    roots.sort_by_key(|a| std::cmp::Reverse(a.bytes));
    let mut found = None;
    for area in roots {
        let listing = ext4::paths(target, area, &PROBED)?;
        if listing[0] {
            found = Some((area.clone(), listing));
            break;
        }
    }
    let (root, there) = found.ok_or(InjectError::NoRoot)?;
    let boot = of(FileSystem::Fat).find(|a| fat::exists(target, a, "/cmdline.txt")).cloned();
    let network = match (there[1], there[2]) {
        (true, _) => Network::NetworkManager,
        (false, true) => Network::Netplan,
        (false, false) => Network::Ifupdown,
    };
    let traits = Traits { network, raspberry_pi: boot.is_some(), cloud_init: there[3], modem_manager: there[4] };
    Ok(System::Other { root, boot, traits })
}

const PROBED: [&str; 5] = [
    "/etc",
    "/etc/NetworkManager/system-connections",
    "/etc/netplan",
    "/etc/cloud/cloud.cfg.d",
    "/usr/sbin/ModemManager",
];

pub fn put_all(target: &Path, system: &System, files: &[Put]) -> Result<(), InjectError> {
    if let Some(bad) = files.iter().find(|f| !fit_path(&f.path)) {
        return Err(InjectError::Path(bad.path.clone()));
    }
    let of = |place: Place| files.iter().filter(|f| f.place == place).cloned().collect::<Vec<_>>();
    match system {
        System::Limpet { system } => fat::put(target, system, &of(Place::Boot)),
        System::Other { root, boot, .. } => {
            ext4::put(target, root, &of(Place::Root))?;
            boot.as_ref().map_or(Ok(()), |boot| fat::put(target, boot, &of(Place::Boot)))
        }
    }
}

/// Whether the system on the card is one for this board, as far as can be seen: a card that cannot start is not finished.
pub fn fits(target: &Path, system: &System, board: &Board) -> Result<(), InjectError> {
    match system {
        System::Limpet { system } => {
            let mark = fat::read(target, system, LIMPET_MARK)?;
            let has: String = String::from_utf8_lossy(&mark).trim().chars().take(64).collect();
            if has == board.name { Ok(()) } else { Err(InjectError::OtherBoard { has, board: board.name.clone() }) }
        }
        System::Other { root, .. } => {
            if ext4::has_journal_to_replay(target, root)? {
                return Err(InjectError::Journal);
            }
            let wants = board.architecture.clone();
            match ext4::beginnings(target, root, &PROGRAMS)?.iter().find_map(|first| architecture(first)) {
                Some(has) if has != wants => Err(InjectError::OtherArchitecture { has, board: board.name.clone(), wants }),
                _ => Ok(()),
            }
        }
    }
}

/// Each system has one of them.
const PROGRAMS: [&str; 6] = ["/usr/bin/bash", "/bin/bash", "/usr/bin/dash", "/bin/dash", "/bin/busybox", "/usr/bin/busybox"];

/// Kubernetes' word for whom a program is made, from the beginning of its ELF file.
fn architecture(first: &[u8]) -> Option<&'static str> {
    let is_little = first.starts_with(b"\x7fELF") && first.get(5) == Some(&1);
    match u16::from_le_bytes(first.get(18..20)?.try_into().ok()?) {
        _ if !is_little => None,
        3 => Some("386"),
        40 => Some("arm"),
        62 => Some("amd64"),
        183 => Some("arm64"),
        243 => Some("riscv64"),
        _ => None,
    }
}

/// A file of Limpet OS's partition.
pub fn read(target: &Path, system: &System, path: &str) -> Result<Vec<u8>, InjectError> {
    match system {
        System::Limpet { system } => Ok(fat::read(target, system, path)?),
        System::Other { .. } => Err(InjectError::Put(path.into(), "this is not Limpet OS".into())),
    }
}

/// Paths of our own making: no blanks, quotes or dots that climb.
fn fit_path(path: &str) -> bool {
    let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'+' | b'@');
    path.starts_with('/') && path.bytes().all(fit) && !path.split('/').any(|p| p == ".." || p == ".")
}

fn bounded(bytes: usize, path: &str) -> Result<(), InjectError> {
    match bytes <= INJECTED_BYTES_MAX {
        true => Ok(()),
        false => Err(InjectError::Put(path.into(), format!("it is larger than {INJECTED_BYTES_MAX} bytes"))),
    }
}

#[cfg(test)]
mod tests;
