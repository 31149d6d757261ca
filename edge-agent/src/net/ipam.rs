//! Addresses of pods: one file a lease, named by the address, holding the pod's uid.
//!
//! In: the node's range, pod uids. Out: addresses. Never: gives one address to two pods: a lease is made with
//! O_EXCL-like link(2), whatever else runs.

use super::Cidr;
use crate::runtime::RuntimeError;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::PathBuf;

const UID_BYTES_MAX: usize = 256;

pub struct Ipam {
    dir: PathBuf,
    cidr: Cidr,
}

impl Ipam {
    pub fn new(dir: PathBuf, cidr: Cidr) -> Ipam {
        Ipam { dir, cidr }
    }

    /// The pod's address: the one it has, or the next free one after the newest lease (so that an address rests
    /// before it is used again).
    pub fn lease(&self, pod_uid: &str) -> Result<Ipv4Addr, RuntimeError> {
        std::fs::create_dir_all(&self.dir).map_err(|err| RuntimeError::io("make the directory of leases", err))?;
        if let Some(address) = self.leased(pod_uid) {
            return Ok(address);
        }
        let usable = self.cidr.size().saturating_sub(3).max(1);
        let start = self.last().map_or(0, |last| last + 1);
        for step in 0..usable {
            // 0 is the network, 1 the gateway, the last the broadcast address.
            let Some(address) = self.cidr.nth(2 + (start + step) % usable) else { continue };
            if self.claim(address, pod_uid)? {
                let _ = std::fs::write(self.dir.join("last"), ((start + step) % usable).to_string());
                return Ok(address);
            }
        }
        Err(RuntimeError::Create(format!("no free pod address in {}: delete pods or give the node more", self.cidr)))
    }

    /// The address that the pod has, if it has one in this range.
    pub fn leased(&self, pod_uid: &str) -> Option<Ipv4Addr> {
        self.all().into_iter().find(|(address, uid)| uid == pod_uid && self.cidr.contains(*address)).map(|(a, _)| a)
    }

    pub fn release(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        for (address, uid) in self.all() {
            if uid == pod_uid {
                let path = self.dir.join(address.to_string());
                match std::fs::remove_file(&path) {
                    Err(err) if err.kind() != ErrorKind::NotFound => {
                        return Err(RuntimeError::io(format!("release {address}"), err));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Every lease, also those of an older range.
    pub fn all(&self) -> Vec<(Ipv4Addr, String)> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| {
                let address = entry.file_name().to_str()?.parse().ok()?;
                Some((address, std::fs::read_to_string(entry.path()).ok()?))
            })
            .collect()
    }

    fn claim(&self, address: Ipv4Addr, pod_uid: &str) -> Result<bool, RuntimeError> {
        let uid = &pod_uid[..pod_uid.len().min(UID_BYTES_MAX)];
        let temporary = self.dir.join(format!(".{}", std::process::id()));
        let claim = || {
            std::fs::write(&temporary, uid)?;
            let linked = std::fs::hard_link(&temporary, self.dir.join(address.to_string()));
            let _ = std::fs::remove_file(&temporary);
            linked
        };
        match claim() {
            Ok(()) => Ok(true),
            Err(err) if err.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(err) => Err(RuntimeError::io(format!("lease {address}"), err)),
        }
    }

    fn last(&self) -> Option<u64> {
        std::fs::read_to_string(self.dir.join("last")).ok()?.trim().parse().ok()
    }
}
