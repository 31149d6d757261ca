//! Which drive may be written, and whether it is still the one that was confirmed.
//!
//! In: facts about drives, the bytes that must fit. Out: yes, or the reason and the next step. Pure.
//! Never: yes for a drive that anything on this machine uses; there is no way around that.

use super::drives::{Bus, Drive, size};
use crate::limits::{DRIVE_BYTES_MAX, DRIVE_BYTES_MIN};

/// The operator chooses another drive or frees this one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("/dev/{0} is not a drive of this machine; `limpet flash --drives` shows those that can be written")]
    Unknown(String),
    #[error("/dev/{name} is a partition; name the whole drive, /dev/{drive}")]
    Partition { name: String, drive: String },
    #[error("/dev/{0} carries the running system; it is never written")]
    System(String),
    #[error("/dev/{name} is mounted on {place}; unmount it first: umount {place}")]
    Mounted { name: String, place: String },
    #[error("/dev/{name} is in use by {by}")]
    Held { name: String, by: String },
    #[error("/dev/{0} has no medium in it; put a card in and try again")]
    Empty(String),
    #[error("/dev/{0} is read-only; is the switch at the card's side on \"lock\"?")]
    ReadOnly(String),
    #[error("/dev/{0} is built in, not removable; it is never written")]
    Fixed(String),
    #[error("/dev/{name} has {has}, too little for the image's {needs}; take a larger card")]
    TooSmall { name: String, has: String, needs: String },
    #[error("/dev/{name} has {has}: that is a backup drive, not a card; it is not written")]
    TooLarge { name: String, has: String },
    #[error("/dev/{0} is not the drive any more that was confirmed; nothing was written")]
    Changed(String),
}

/// `needs`: bytes of the image, when they are known.
pub fn allow(drives: &[Drive], name: &str, needs: Option<u64>) -> Result<Drive, Refusal> {
    let own = || name.to_string();
    let Some(drive) = drives.iter().find(|d| d.name == name) else {
        let whole = drives.iter().find(|d| is_partition_of(name, &d.name));
        return Err(match whole {
            Some(whole) => Refusal::Partition { name: own(), drive: whole.name.clone() },
            None => Refusal::Unknown(own()),
        });
    };
    if drive.system {
        return Err(Refusal::System(own()));
    }
    if let Some(place) = drive.mounted.first() {
        return Err(Refusal::Mounted { name: own(), place: place.clone() });
    }
    if let Some(by) = drive.held.first() {
        return Err(Refusal::Held { name: own(), by: by.clone() });
    }
    if drive.bytes == 0 {
        return Err(Refusal::Empty(own()));
    }
    if drive.read_only {
        return Err(Refusal::ReadOnly(own()));
    }
    // A loop device is a file that somebody made a drive on purpose.
    if !drive.removable && drive.bus != Bus::Loop || drive.bus == Bus::Emmc {
        return Err(Refusal::Fixed(own()));
    }
    let needs = needs.unwrap_or(0).max(DRIVE_BYTES_MIN);
    if drive.bytes < needs {
        return Err(Refusal::TooSmall { name: own(), has: size(drive.bytes), needs: size(needs) });
    }
    if drive.bytes > DRIVE_BYTES_MAX {
        return Err(Refusal::TooLarge { name: own(), has: size(drive.bytes) });
    }
    Ok(drive.clone())
}

/// What is shown when nobody has named a drive: no loop devices.
pub fn offered(drives: &[Drive]) -> Vec<Drive> {
    drives.iter().filter(|d| d.bus != Bus::Loop && allow(drives, &d.name, None).is_ok()).cloned().collect()
}

/// Between the confirmation and the first byte somebody may have pulled one card and put in another.
pub fn still_the_same(confirmed: &Drive, drives: &[Drive], needs: Option<u64>) -> Result<(), Refusal> {
    let now = allow(drives, &confirmed.name, needs)?;
    let same = now.number == confirmed.number
        && now.sequence == confirmed.sequence
        && now.bytes == confirmed.bytes
        && now.serial == confirmed.serial
        && now.model == confirmed.model
        && now.bus == confirmed.bus;
    if same { Ok(()) } else { Err(Refusal::Changed(confirmed.name.clone())) }
}

fn is_partition_of(name: &str, drive: &str) -> bool {
    let ends_in_digit = drive.ends_with(|c: char| c.is_ascii_digit());
    let rest = name.strip_prefix(drive).unwrap_or_default();
    let digits = if ends_in_digit { rest.strip_prefix('p').unwrap_or_default() } else { rest };
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}
