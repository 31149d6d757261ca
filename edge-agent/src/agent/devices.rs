//! Devices of the board that pods ask for as extended resources or by claims.
//!
//! In: the configuration (`devices`), the nodes that are there, requests of containers. Out: how many there are, how those are
//! called that are claimed by name, and which nodes a container gets.
//! Never: one device to two containers unless it is shared; other nodes to a container that was restarted.

use crate::device::cdi;
use crate::runtime::spec as rt;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Before a resource's name: names of the CDI devices of it that a container has, for whoever adopts it.
const NOTE: &str = "cdi-devices/";
/// Nodes that one pattern may find.
const NODES_MAX: usize = 256;
/// A label of 63 without a number behind it.
const NAME_CHARS_MAX: usize = 58;

/// One entry of `devices` in the agent's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Offer {
    /// `board.example/gpio`
    pub resource: String,
    /// Paths below /dev; `*` and `?` in the last part stand for characters of a name. Each is a device of its own.
    pub nodes: Vec<String>,
    /// All nodes together are one device (a camera with its encoder).
    pub together: bool,
    /// Names of CDI devices, each a device of its own.
    pub cdi: Vec<String>,
    /// Containers that may have the same device; 1 when absent.
    pub shared: Option<u32>,
    /// Some of `rwm`; `rw` when absent.
    pub access: Option<String>,
    /// Pods claim them (ResourceClaim) instead of asking for a number of them.
    pub claims: bool,
}

impl Offer {
    /// The error is a sentence for whoever wrote the configuration.
    pub fn check(&self) -> Result<(), String> {
        let name = &self.resource;
        let fine = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let good = name.split_once('/').is_some_and(|(domain, word)| fine(domain) && fine(word) && domain.contains('.'));
        if !good || name.contains("kubernetes.io/") {
            return Err(format!("devices: resource \"{name}\" must be named as example.com/name, not of kubernetes.io"));
        }
        if self.nodes.is_empty() == self.cdi.is_empty() {
            return Err(format!("devices: {name} needs either `nodes` or `cdi`"));
        }
        let outside = |n: &&String| !n.starts_with("/dev/") || n.split('/').any(|part| part == "..");
        if let Some(bad) = self.nodes.iter().find(outside) {
            return Err(format!("devices: {name}: node \"{bad}\" is not below /dev"));
        }
        if let Some(bad) = self.cdi.iter().find(|n| !cdi::is_name(n)) {
            return Err(format!("devices: {name}: \"{bad}\" is no name of a CDI device (vendor.com/class=device)"));
        }
        let odd = |access: &String| access.is_empty() || access.bytes().any(|b| !b"rwm".contains(&b));
        if self.shared == Some(0) || self.access.as_ref().is_some_and(odd) {
            return Err(format!("devices: {name}: `shared` is at least 1, `access` some of rwm"));
        }
        Ok(())
    }
}

/// One thing that can be given away.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Nodes(Vec<PathBuf>),
    Cdi(String),
}

impl Unit {
    /// As programs know it.
    fn id(&self) -> String {
        match self {
            Unit::Nodes(nodes) => nodes.first().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
            Unit::Cdi(name) => name.clone(),
        }
    }

    /// `/dev/gpiochip0` is `gpiochip0`, `vendor.com/npu=0` is `vendor-com-npu-0`: a DNS label with room for a number.
    fn name(&self) -> String {
        let text = self.id();
        let text = text.strip_prefix("/dev/").unwrap_or(&text).to_ascii_lowercase();
        let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
        let name: String = text.chars().map(plain).take(NAME_CHARS_MAX).collect();
        let name = name.trim_matches('-');
        if name.is_empty() { "device".into() } else { name.into() }
    }
}

/// Whose it is: pod and container.
type Owner = (String, String);

#[derive(Debug, Default)]
pub struct Devices {
    offers: Vec<Offer>,
    /// Where vendors' CDI files are.
    cdi_dirs: Vec<PathBuf>,
    taken: BTreeMap<(String, Unit), BTreeSet<Owner>>,
}

/// What a container's spec gets.
#[derive(Debug, Default)]
pub struct Given {
    pub devices: Vec<rt::Device>,
    /// Nodes of CDI files: the container's user has them where the file does not say who.
    pub described: Vec<rt::Device>,
    pub mounts: Vec<rt::Mount>,
    pub env: Vec<String>,
    pub groups: Vec<u32>,
    pub hooks: Vec<cdi::Hook>,
    /// For whoever adopts the container.
    pub notes: BTreeMap<String, String>,
}

impl Given {
    /// What a CDI device brings along.
    pub fn edit(&mut self, edits: cdi::Edits) {
        self.env.extend(edits.env);
        self.groups.extend(edits.additional_gids);
        self.hooks.extend(edits.hooks);
        self.described.extend(edits.device_nodes.into_iter().map(|node| rt::Device {
            number: node.major.filter(|_| node.r#type.is_some()).map(|major| rt::DeviceNumber {
                block: node.r#type.as_deref() == Some("b"),
                major,
                minor: node.minor.unwrap_or(0),
            }),
            host_path: node.host_path.unwrap_or_else(|| node.path.clone()),
            container_path: node.path,
            access: node.permissions.filter(|p| !p.is_empty()).unwrap_or_else(|| "rwm".into()),
            mode: node.file_mode,
            uid: node.uid,
            gid: node.gid,
        }));
        self.mounts.extend(edits.mounts.into_iter().map(|mount| {
            let has = |option: &str| mount.options.iter().any(|o| o == option);
            rt::Mount {
                read_only: has("ro"),
                no_exec: has("noexec"),
                no_suid: has("nosuid"),
                no_dev: has("nodev"),
                propagation: match (has("shared") || has("rshared"), has("slave") || has("rslave")) {
                    (true, _) => rt::Propagation::Bidirectional,
                    (_, true) => rt::Propagation::HostToContainer,
                    _ => rt::Propagation::None,
                },
                source: mount.host_path,
                destination: mount.container_path,
                ..rt::Mount::default()
            }
        }));
    }
}

impl Devices {
    pub fn new(offers: Vec<Offer>, cdi_dirs: Vec<PathBuf>) -> Devices {
        Devices { offers, cdi_dirs, taken: BTreeMap::new() }
    }

    /// Resources that this configuration offers, counted or claimed.
    pub fn names(&self) -> BTreeSet<String> {
        self.offers.iter().map(|offer| offer.resource.clone()).collect()
    }

    /// For the node's capacity: what is there now. A camera that is unplugged counts no more.
    pub fn capacity(&self) -> BTreeMap<String, u64> {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for offer in self.offers.iter().filter(|o| !o.claims) {
            *sums.entry(offer.resource.clone()).or_default() +=
                units(offer).len() as u64 * u64::from(offer.shared.unwrap_or(1));
        }
        sums
    }

    pub fn offers(&self, resource: &str) -> bool {
        self.offers.iter().any(|offer| offer.resource == resource && !offer.claims)
    }

    /// What can be claimed now, by name.
    pub fn claimable(&self) -> Vec<Value> {
        let describe = |(name, offer, unit): (String, &Offer, Unit)| {
            let mut device = json!({"name": name, "resource": offer.resource, "shared": offer.shared.unwrap_or(1)});
            match &unit {
                Unit::Nodes(nodes) => device["path"] = json!(nodes.first()),
                Unit::Cdi(name) => device["cdi"] = json!(name),
            }
            device
        };
        self.named().into_iter().map(describe).collect()
    }

    /// Gives the device of this name: the hub has seen to it that nobody else has it.
    pub fn give_claimed(&self, name: &str, into: &mut Given) -> Result<(), String> {
        let found = self.named().into_iter().find(|(own, ..)| own == name);
        let (_, offer, unit) =
            found.ok_or_else(|| format!("failed to prepare dynamic resources: device {name} is not there any more"))?;
        add(&self.cdi_dirs, offer, &unit, into)
    }

    /// Claimable devices by name; of two that would be called the same the second gets a number.
    fn named(&self) -> Vec<(String, &Offer, Unit)> {
        let mut all: Vec<(String, &Offer, Unit)> = Vec::new();
        for offer in self.offers.iter().filter(|o| o.claims) {
            for unit in units(offer) {
                let base = unit.name();
                let taken = |name: &String| all.iter().any(|(own, ..)| own == name);
                let mut numbered = (2..).map(|n| format!("{base}-{n}"));
                let name = if taken(&base) { numbered.find(|n| !taken(n)).unwrap_or_default() } else { base };
                all.push((name, offer, unit));
            }
        }
        all
    }

    /// Gives `count` devices to a container, the same again when it had them before. An adopted container says with
    /// `held` which nodes it has. `live`: containers of its pod that run or are being started; the others (init containers
    /// that are done) give up what they had: the scheduler counts the larger of their wishes and those of the rest, not both.
    pub fn give(
        &mut self,
        owner: &Owner,
        live: &BTreeSet<String>,
        resource: &str,
        count: u64,
        into: &mut Given,
    ) -> Result<(), String> {
        let mut left = count;
        let offers: Vec<Offer> = self.offers.iter().filter(|o| o.resource == resource && !o.claims).cloned().collect();
        let mut all: Vec<(&Offer, Unit)> = offers.iter().flat_map(|o| units(o).into_iter().map(move |u| (o, u))).collect();
        let has_ended = |(uid, name): &Owner| *uid == owner.0 && *name != owner.1 && !live.contains(name);
        // Its own first, then what its pod has and does not use, then what fewest have.
        all.sort_by_key(|(_, unit)| {
            let owners = self.taken.get(&(resource.to_string(), unit.clone()));
            let rank = match owners {
                Some(all) if all.contains(owner) => 0,
                Some(all) if all.iter().any(has_ended) => 1,
                _ => 2,
            };
            (rank, owners.map_or(0, BTreeSet::len), unit.clone())
        });
        for (offer, unit) in all {
            if left == 0 {
                break;
            }
            let owners = self.taken.entry((resource.to_string(), unit.clone())).or_default();
            if !owners.contains(owner) {
                owners.retain(|other| !has_ended(other));
                if owners.len() >= offer.shared.unwrap_or(1) as usize {
                    continue;
                }
            }
            add(&self.cdi_dirs, offer, &unit, into)?;
            if let Unit::Cdi(name) = &unit {
                let names = into.notes.entry(format!("{NOTE}{resource}")).or_default();
                *names = [&**names, name, "\n"].concat();
            }
            owners.insert(owner.clone());
            left -= 1;
        }
        match left {
            0 => Ok(()),
            _ => Err(format!(
                "Allocate failed due to requested number of devices unavailable for {resource}. Requested: {count}, \
                 Available: {}",
                count - left
            )),
        }
    }

    /// What a container has that was started before this agent: by its nodes, and by the annotations of its record.
    pub fn held(&mut self, owner: &Owner, paths: &[PathBuf], notes: &BTreeMap<String, String>) {
        for offer in self.offers.iter().filter(|o| !o.claims) {
            let noted = notes.get(&format!("{NOTE}{}", offer.resource)).map_or("", String::as_str);
            for unit in units(offer) {
                let has = match &unit {
                    Unit::Nodes(nodes) => nodes.iter().all(|n| paths.contains(n)),
                    Unit::Cdi(name) => noted.lines().any(|line| line == name),
                };
                if has {
                    self.taken.entry((offer.resource.clone(), unit)).or_default().insert(owner.clone());
                }
            }
        }
    }

    /// By resource, what a container has.
    pub fn held_by(&self, owner: &Owner) -> BTreeMap<String, Vec<String>> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((resource, unit), _) in self.taken.iter().filter(|(_, owners)| owners.contains(owner)) {
            all.entry(resource.clone()).or_default().push(unit.id());
        }
        all
    }

    /// By resource, what is there to be given, whether somebody has it or not.
    pub fn there(&self) -> BTreeMap<String, Vec<String>> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for offer in self.offers.iter().filter(|o| !o.claims) {
            all.entry(offer.resource.clone()).or_default().extend(units(offer).iter().map(Unit::id));
        }
        all
    }

    pub fn release(&mut self, pod_uid: &str) {
        self.taken.values_mut().for_each(|owners| owners.retain(|(uid, _)| uid != pod_uid));
        self.taken.retain(|_, owners| !owners.is_empty());
    }
}

fn add(cdi_dirs: &[PathBuf], offer: &Offer, unit: &Unit, into: &mut Given) -> Result<(), String> {
    let access = offer.access.clone().unwrap_or_else(|| "rw".into());
    match unit {
        Unit::Nodes(nodes) => into.devices.extend(nodes.iter().map(|path| rt::Device {
            host_path: path.clone(),
            container_path: path.clone(),
            access: access.clone(),
            ..rt::Device::default()
        })),
        Unit::Cdi(name) => {
            let dirs: Vec<&Path> = cdi_dirs.iter().map(PathBuf::as_path).collect();
            into.edit(cdi::find(&dirs, name)?);
        }
    }
    Ok(())
}

/// Where devices of the configuration come and go: the directories of its nodes, or the nearest that is there, and those of CDI
/// files.
pub fn places(offers: &[Offer], cdi_dirs: &[PathBuf]) -> BTreeSet<PathBuf> {
    let near = |path: &Path| path.ancestors().skip(1).find(|dir| dir.is_dir()).map(Path::to_path_buf);
    let nodes = offers.iter().flat_map(|offer| &offer.nodes).filter_map(|node| near(Path::new(node)));
    let described = offers.iter().any(|offer| !offer.cdi.is_empty());
    let files = cdi_dirs.iter().filter(|dir| described && dir.is_dir()).cloned();
    nodes.chain(files).collect()
}

fn units(offer: &Offer) -> Vec<Unit> {
    let nodes: Vec<PathBuf> = offer.nodes.iter().flat_map(|pattern| matching(pattern)).collect();
    let mut units = match (offer.together, nodes.is_empty()) {
        (_, true) => Vec::new(),
        (true, false) => vec![Unit::Nodes(nodes)],
        (false, false) => nodes.into_iter().map(|node| Unit::Nodes(vec![node])).collect(),
    };
    units.extend(offer.cdi.iter().map(|name| Unit::Cdi(name.clone())));
    units.sort();
    units.dedup();
    units
}

/// Device nodes that a pattern names, sorted.
fn matching(pattern: &str) -> Vec<PathBuf> {
    use std::os::unix::fs::FileTypeExt;
    let is_device = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|m| m.file_type().is_char_device() || m.file_type().is_block_device())
    };
    let path = Path::new(pattern);
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else { return Vec::new() };
    if !name.contains(['*', '?']) {
        return Some(path.to_path_buf()).filter(is_device).into_iter().collect();
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let fitting = entries.filter(|e| e.file_name().to_str().is_some_and(|n| fits(name.as_bytes(), n.as_bytes())));
    let mut paths: Vec<PathBuf> = fitting.map(|e| e.path()).filter(is_device).take(NODES_MAX).collect();
    paths.sort();
    paths
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skip| fits(rest, &name[skip..])),
        (Some((b'?', rest)), Some((_, more))) => fits(rest, more),
        (Some((a, rest)), Some((b, more))) => a == b && fits(rest, more),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
