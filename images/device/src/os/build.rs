//! Puts everything together.
//!
//! In: a board, packages, binaries, a version. Out: the image as one file, its bill of materials; or an update.
//! Never: two different images from the same inputs.

use super::{
    OsError, boot,
    bundle::{self, Key, Parts},
    cpio::{Node, Tree},
    deb, fat32, fdt, gpt, mbr, modules,
    packages::{self, Package},
    radio, sbom, uboot,
};
use crate::board::{Board, Method};
use crate::inject::LIMPET_MARK;
use crate::limits::HEAD_BYTES;
use crate::plan::{self, Format, Partition, Plan, Scheme};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

pub struct Inputs<'a> {
    pub board: &'a Board,
    /// Digits and dots; a greater one is tried first by the boot loader.
    pub version: &'a str,
    pub packages: &'a [Package],
    pub agent: &'a [u8],
    pub init: &'a [u8],
    /// Boot loaders of the builder's own, by the name in the board's file.
    pub loaders: BTreeMap<String, Vec<u8>>,
    /// Who may sign updates; without it the hub that a board has joined.
    pub update_key: Option<Vec<u8>>,
    /// For PEM roots of registries and the like: path in the image without the first slash, permission bits, content.
    pub extra: &'a [(String, u32, Vec<u8>)],
}

pub struct Made {
    pub bytes: u64,
    pub sbom: String,
}

/// Everything that is written into partitions, and outside of them.
struct System {
    linux: Vec<u8>,
    initrd: Vec<u8>,
    /// In each slot, where the boot loader does not have one already.
    tree: Option<Vec<u8>>,
    /// On the system's partition, besides the slots.
    files: Vec<(String, Vec<u8>)>,
    /// (byte of the image, content)
    outside: Vec<(u64, Vec<u8>)>,
    /// Packages of which nothing is in it.
    unused: BTreeSet<String>,
    /// (package, its copyright file)
    licences: Vec<(String, Vec<u8>)>,
}

type Files = BTreeMap<String, Vec<u8>>;

fn wrong(package: &Package) -> impl Fn(String) -> OsError + use<> {
    let name = package.name.clone();
    move |why| OsError::Package(name.clone(), why)
}

impl Inputs<'_> {
    fn package(&self, fits: impl Fn(&str) -> bool, said: &str) -> Result<&Package, OsError> {
        let missing = || OsError::Package(said.into(), "it is not among the packages".into());
        self.packages.iter().find(|p| fits(&p.name)).ok_or_else(missing)
    }

    /// One file of a package.
    fn file(&self, package: &str, path: &str) -> Result<Vec<u8>, OsError> {
        let package = self.package(|name| name == package, package)?;
        let found = deb::files(&package.path, |p| p == path).map_err(wrong(package))?.into_values().next();
        found.ok_or_else(|| wrong(package)(format!("it has no {path}")))
    }
}

fn system(inputs: &Inputs<'_>) -> Result<System, OsError> {
    let board = inputs.board;
    if let Some(why) = &board.limpet_os.refused {
        return Err(OsError::Board(board.title.clone(), why.clone()));
    }
    let kernel = inputs.package(|name| name.starts_with("linux-image-"), "linux-image-…")?;
    let wanted = |path: &str| path.starts_with("boot/vmlinuz-") || modules::is_module(path) || is_tree(board, path);
    let mut files = deb::files(&kernel.path, wanted).map_err(wrong(kernel))?;
    let mut take = |fits: &dyn Fn(&str) -> bool| {
        let path = files.keys().find(|path| fits(path)).cloned();
        path.and_then(|path| files.remove(&path))
    };
    let linux = take(&|p| p.starts_with("boot/")).ok_or_else(|| wrong(kernel)("it has no kernel".into()))?;
    let mut trees = Files::new();
    for name in &board.boot.device_trees {
        let tree = take(&|p| is_the_tree(p, name)).ok_or_else(|| wrong(kernel)(format!("it has no {name}")))?;
        trees.insert(name.rsplit('/').next().unwrap_or(name).into(), tree);
    }
    let mut devices = BTreeSet::new();
    for (name, tree) in &trees {
        devices.extend(fdt::compatible(tree).map_err(|why| wrong(kernel)(format!("{name}: {why}")))?);
    }
    let (initrd, radio) = initrd(inputs, &unpacked(files)?, &devices)?;
    // Libraries are here for the radio alone.
    let used = |p: &&Package| radio.as_ref().is_some_and(|r| r.packages.contains(&p.name));
    let unused = inputs.packages.iter().filter(|p| packages::is_library(&p.name) && !used(p)).map(|p| p.name.clone()).collect();
    let licences = radio.map(|r| r.licences).unwrap_or_default();
    let texts = licences.iter().map(|(name, text)| (format!("licences/{name}.txt"), text.clone())).collect();
    let mut made = System { linux, initrd, tree: None, files: texts, outside: Vec::new(), unused, licences };
    match board.boot.method {
        Method::Uefi => uefi(inputs, &mut made)?,
        Method::UBoot => {
            made.tree = trees.into_values().next();
            loaders(inputs, &mut made)?;
        }
        Method::RaspberryPi => {
            made.files.extend(trees);
            loaders(inputs, &mut made)?;
            firmware(inputs, &mut made)?;
        }
    }
    Ok(made)
}

/// Debian has device trees below `usr/lib/linux-image-…/`, in folders by maker or, for 32 bits, in none.
fn is_the_tree(path: &str, name: &str) -> bool {
    path.strip_prefix("usr/lib/linux-image-").and_then(|rest| rest.split_once('/')).is_some_and(|(_, below)| {
        below == name || below.split_once('/').is_some_and(|(_, file)| file == name)
    })
}

fn is_tree(board: &Board, path: &str) -> bool {
    board.boot.device_trees.iter().any(|name| is_the_tree(path, name))
}

fn uefi(inputs: &Inputs<'_>, made: &mut System) -> Result<(), OsError> {
    let board = inputs.board;
    let unknown = || OsError::Board(board.title.clone(), format!("no boot loader for {} with UEFI is known", board.architecture));
    let (_, place, in_package) = boot::EFI.into_iter().find(|(a, ..)| *a == board.architecture).ok_or_else(unknown)?;
    made.files.push((place.into(), inputs.file("systemd-boot-efi", in_package)?));
    made.files.push(("loader/loader.conf".into(), boot::LOADER.into()));
    // What comes from a builder has been tried: no counter.
    let entry = boot::entry("a", inputs.version, &plan::limpet_os(board));
    made.files.push(("loader/entries/limpet-a.conf".into(), entry.into_bytes()));
    Ok(())
}

/// U-Boot's parts, its script, the sector that counts tries.
fn loaders(inputs: &Inputs<'_>, made: &mut System) -> Result<(), OsError> {
    let board = inputs.board;
    for loader in &board.boot.loaders {
        let own = inputs.loaders.get(&loader.file).cloned();
        let content = match (own, &loader.package) {
            (Some(own), _) => own,
            (None, Some(package)) => inputs.file(package, &format!("usr/lib/u-boot/{}", loader.file))?,
            (None, None) => return Err(OsError::Loader(board.title.clone(), board.own_loaders().join(" and "))),
        };
        match loader.sector {
            Some(sector) => made.outside.push((u64::from(sector) * 512, content)),
            None => made.files.push((loader.name().into(), content)),
        }
    }
    made.files.push(("boot.scr".into(), uboot::script(&board.architecture, made.tree.is_some())));
    made.files.push((uboot::COUNTER.into(), uboot::counter()));
    let options = uboot::options(inputs.version, &plan::limpet_os(board));
    made.files.push(("limpet/a/options".into(), options.into_bytes()));
    made.files.extend(made.tree.clone().map(|tree| ("limpet/a/tree".into(), tree)));
    Ok(())
}

fn firmware(inputs: &Inputs<'_>, made: &mut System) -> Result<(), OsError> {
    for name in uboot::FIRMWARE {
        let path = format!("{}{name}", uboot::FIRMWARE_FOLDER);
        made.files.push((name.into(), inputs.file(uboot::FIRMWARE_PACKAGE, &path)?));
    }
    let loader = inputs.board.boot.loaders.first().map(|l| l.name()).unwrap_or_default();
    made.files.push(("config.txt".into(), uboot::config(&inputs.board.architecture, loader).into_bytes()));
    Ok(())
}

/// Newer kernels come with compressed modules.
fn unpacked(files: Files) -> Result<Files, OsError> {
    files
        .into_iter()
        .map(|(path, content)| match path.strip_suffix(".xz") {
            None => Ok((path, content)),
            Some(plain) => {
                let mut out = Vec::new();
                let mut reader = lzma_rust2::XzReader::new(&content[..], true);
                std::io::copy(&mut reader, &mut out).map_err(|e| OsError::Package(path.clone(), e.to_string()))?;
                Ok((plain.to_string(), out))
            }
        })
        .collect()
}

fn initrd(inputs: &Inputs<'_>, drivers: &Files, devices: &BTreeSet<String>) -> Result<(Vec<u8>, Option<radio::Made>), OsError> {
    let mut tree = Tree::default();
    tree.put("init", Node::File(0o755, inputs.init.to_vec()));
    tree.put("bin/limpet-agent", Node::File(0o755, inputs.agent.to_vec()));
    tree.put("dev/console", Node::Device(0o600, 5, 1));
    tree.put("dev/kmsg", Node::Device(0o600, 1, 11));
    for folder in ["proc", "sys", "run", "tmp", "data", "var/lib/limpet"] {
        tree.put(folder, Node::Directory);
    }
    let release = format!("NAME=\"Limpet OS\"\nID=limpet\nVERSION_ID={0}\nPRETTY_NAME=\"Limpet OS {0}\"\n", inputs.version);
    tree.put("etc/os-release", Node::File(0o644, release.into_bytes()));
    tree.put("etc/hosts", Node::File(0o644, b"127.0.0.1 localhost\n::1 localhost\n".to_vec()));
    tree.put("etc/passwd", Node::File(0o644, b"root:x:0:0:root:/:/bin/false\n".to_vec()));
    if let Some(key) = &inputs.update_key {
        tree.put("etc/limpet/update.pub", Node::File(0o644, key.clone()));
    }
    for (path, mode, content) in inputs.extra {
        tree.put(path, Node::File(*mode, content.clone()));
    }
    let of_tree = modules::for_devices(drivers, devices);
    let own = inputs.board.limpet_os.drivers.iter().chain(&of_tree).map(String::as_str);
    let plugged = if devices.is_empty() { &[] } else { modules::PLUGGED };
    let radio = inputs.board.limpet_os.radio.as_ref();
    let carriers = if radio.is_some() { &radio::CARRIERS[..] } else { &[] };
    let wanted = modules::WANTED.iter().chain(plugged).chain(carriers).copied().chain(own);
    let order = modules::in_order(drivers, wanted);
    let radio = radio.map(|radio| radio::file_system(inputs.packages, radio, drivers, &order)).transpose()?;
    if let Some(made) = &radio {
        tree.put(radio::FILE, Node::File(0o644, made.bytes.clone()));
    }
    for (number, path) in order.iter().enumerate() {
        let name = path.rsplit('/').next().unwrap_or(path);
        tree.put(&format!("modules/{number:03}-{name}"), Node::File(0o644, drivers[path].clone()));
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    let _ = packed.write_all(&tree.archive());
    Ok((packed.finish().unwrap_or_default(), radio))
}

/// Writes the image to `out`.
pub fn image(inputs: &Inputs<'_>, out: &Path) -> Result<Made, OsError> {
    let system = system(inputs)?;
    let plan = plan::limpet_os(inputs.board);
    let io = |e| OsError::Io(out.display().to_string(), e);
    let seed = format!("limpet-os {} {}", inputs.board.name, inputs.version);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(out).map_err(io)?;
    file.set_len(plan.image_bytes()).map_err(io)?;
    for part in &plan.partitions {
        match part.format {
            Format::Ext4 => data(part, &file, &seed)?,
            Format::Fat32 => system_partition(&plan, part, &system, &file)?,
        }
    }
    for (start, content) in &system.outside {
        let end = plan.partitions.first().map_or(0, |p| p.start);
        if start + content.len() as u64 > end {
            return Err(OsError::Room(format!("a boot loader of {} bytes at byte {start} reaches into the first partition", content.len())));
        }
        file.write_all_at(content, *start).map_err(io)?;
    }
    write_table(&plan, &seed, &file).map_err(io)?;
    file.sync_all().map_err(io)?;
    let sum = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut binaries = vec![("limpet-agent", sum(inputs.agent)), ("limpet-init", sum(inputs.init))];
    binaries.extend(inputs.loaders.iter().map(|(file, content)| (file.as_str(), sum(content))));
    let inside: Vec<&Package> = inputs.packages.iter().filter(|p| !system.unused.contains(&p.name)).collect();
    let sbom = sbom::document(&inputs.board.name, inputs.version, &inside, &binaries, &system.licences);
    let sbom = serde_json::to_string_pretty(&sbom).map_err(|e| OsError::Key(e.to_string()))?;
    Ok(Made { bytes: plan.image_bytes(), sbom: sbom + "\n" })
}

fn write_table(plan: &Plan, seed: &str, file: &File) -> std::io::Result<()> {
    match plan.scheme {
        Scheme::Gpt => {
            let (first, last) = gpt::tables(&plan.partitions, plan.image_bytes(), seed);
            debug_assert!(first.len() <= HEAD_BYTES);
            file.write_all_at(&first, 0)?;
            file.write_all_at(&last, plan.image_bytes() - last.len() as u64)
        }
        Scheme::Mbr => {
            let table = mbr::table(&plan.partitions).ok_or(std::io::ErrorKind::InvalidInput)?;
            file.write_all_at(&table, 0)
        }
    }
}

/// The same system as an update for boards that run an older one.
pub fn update(inputs: &Inputs<'_>, key: &Key) -> Result<Vec<u8>, OsError> {
    let system = system(inputs)?;
    let options = plan::limpet_os(inputs.board).kernel_command_line;
    let parts = Parts { linux: &system.linux, initrd: &system.initrd, tree: system.tree.as_deref() };
    bundle::bundle(key, &inputs.board.name, inputs.version, &options, &parts)
}

fn system_partition(plan: &Plan, part: &Partition, system: &System, image: &File) -> Result<(), OsError> {
    let io = |e| OsError::Io(format!("the partition {}", part.name), e);
    let serial = u32::from_be_bytes([plan.board.name.len() as u8, 0x4c, 0x49, 0x4d]);
    let mut files: Vec<(&str, &[u8])> = system.files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    files.push(("limpet/a/linux", &system.linux));
    files.push(("limpet/a/initrd", &system.initrd));
    files.push((LIMPET_MARK.trim_start_matches('/'), plan.board.name.as_bytes()));
    let needs: usize = files.iter().map(|(_, c)| c.len()).sum();
    if needs as u64 * 2 > part.bytes {
        return Err(OsError::Room(format!("two slots of {} MiB do not fit into {} MiB", needs >> 20, part.bytes >> 20)));
    }
    let room = || OsError::Room(format!("the partition {}", part.name));
    for (offset, bytes) in fat32::volume(part.bytes, serial, b"LIMPET     ", &files).ok_or_else(room)? {
        image.write_all_at(&bytes, part.start + offset).map_err(io)?;
    }
    Ok(())
}

/// Made by mke2fs in a file of its own, with nothing of chance in it.
fn data(part: &Partition, image: &File, seed: &str) -> Result<(), OsError> {
    // Two images may be made at a time.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let scratch = std::env::temp_dir().join(format!("limpet-data-{}-{count}.ext4", std::process::id()));
    let outcome = make_ext4(&scratch, part, seed).and_then(|bytes| {
        image.write_all_at(&bytes, part.start).map_err(|e| OsError::Io(part.name.into(), e))
    });
    let _ = fs::remove_file(&scratch);
    outcome
}

fn make_ext4(scratch: &Path, part: &Partition, seed: &str) -> Result<Vec<u8>, OsError> {
    let io = |e| OsError::Io(scratch.display().to_string(), e);
    File::create(scratch).and_then(|f| f.set_len(part.bytes)).map_err(io)?;
    let id = gpt::uuid_text(gpt::uuid(&format!("{seed} file system")));
    let mut command = Command::new("mke2fs");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("E2FSPROGS_FAKE_TIME", "1");
    // Room to grow to 2 TiB while mounted: the kernel needs reserved descriptors for it.
    command.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-J", "size=8", "-L", part.name, "-U", &id]);
    command.args(["-E", &format!("hash_seed={id},resize=536870912,lazy_itable_init=1,lazy_journal_init=0,root_owner=0:0,nodiscard")]);
    let out = command.arg(scratch).output().map_err(|_| OsError::Tool("mke2fs", "e2fsprogs"))?;
    match out.status.success() {
        true => fs::read(scratch).map_err(io),
        false => Err(OsError::Failed("mke2fs", String::from_utf8_lossy(&out.stderr).into_owned())),
    }
}
