//! Puts everything together.
//!
//! In: a board, packages, binaries, a version. Out: the image as one file, its bill of materials; or an update.
//! Never: two different images from the same inputs.

use super::{
    OsError, boot,
    bundle::{self, Key},
    cpio::{Node, Tree},
    deb, fat32, gpt, modules,
    packages::Package,
    sbom,
};
use crate::board::{Board, Method};
use crate::inject::LIMPET_MARK;
use crate::limits::HEAD_BYTES;
use crate::plan::{self, Format, Partition, Plan};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
};

pub struct Inputs<'a> {
    pub board: &'a Board,
    /// Digits and dots; a greater one is tried first by the boot loader.
    pub version: &'a str,
    pub packages: &'a [Package],
    pub agent: &'a [u8],
    pub init: &'a [u8],
    /// Who may sign updates; without it the image takes none.
    pub update_key: Option<Vec<u8>>,
    /// For PEM roots of registries and the like: path in the image without the first slash, content.
    pub extra: &'a [(String, Vec<u8>)],
}

pub struct Made {
    pub bytes: u64,
    pub sbom: String,
}

/// Kernel and initial file system.
struct System {
    linux: Vec<u8>,
    initrd: Vec<u8>,
    loader: Vec<u8>,
}

fn system(inputs: &Inputs<'_>) -> Result<System, OsError> {
    let board = inputs.board;
    let unknown = || OsError::Board(board.name.clone());
    let (_, _, loader_path) = boot::EFI.into_iter().find(|(a, ..)| *a == board.architecture).ok_or_else(unknown)?;
    if board.boot.method != Method::Uefi {
        return Err(unknown());
    }
    let of = |prefix: &str| {
        let missing = || OsError::Package(prefix.into(), "it is not among the packages".into());
        inputs.packages.iter().find(|p| p.name.starts_with(prefix)).ok_or_else(missing)
    };
    let kernel = of("linux-image-")?;
    let wrong = |p: &Package| { let name = p.name.clone(); move |why: String| OsError::Package(name, why) };
    let wanted = |path: &str| path.starts_with("boot/vmlinuz-") || modules::is_module(path);
    let mut files = deb::files(&kernel.path, wanted).map_err(wrong(kernel))?;
    let linux = files.keys().find(|p| p.starts_with("boot/")).cloned();
    let linux = linux.and_then(|p| files.remove(&p)).ok_or_else(|| wrong(kernel)("it has no kernel".into()))?;
    let package = of("systemd-boot-efi")?;
    let loader = deb::files(&package.path, |p| p == loader_path).map_err(wrong(package))?;
    let loader = loader.into_values().next().ok_or_else(|| wrong(package)(format!("it has no {loader_path}")))?;
    Ok(System { linux, initrd: initrd(inputs, &unpacked(files)?), loader })
}

/// Newer kernels come with compressed modules.
fn unpacked(files: BTreeMap<String, Vec<u8>>) -> Result<BTreeMap<String, Vec<u8>>, OsError> {
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

fn initrd(inputs: &Inputs<'_>, drivers: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
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
    for (path, content) in inputs.extra {
        tree.put(path, Node::File(0o644, content.clone()));
    }
    for (number, path) in modules::in_order(drivers, modules::WANTED).iter().enumerate() {
        let name = path.rsplit('/').next().unwrap_or(path);
        tree.put(&format!("modules/{number:03}-{name}"), Node::File(0o644, drivers[path].clone()));
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    let _ = packed.write_all(&tree.archive());
    packed.finish().unwrap_or_default()
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
            _ => system_partition(&plan, part, &system, inputs.version, &file)?,
        }
    }
    let (first, last) = gpt::tables(&plan.partitions, plan.image_bytes(), &seed);
    debug_assert!(first.len() <= HEAD_BYTES);
    file.write_all_at(&first, 0).map_err(io)?;
    file.write_all_at(&last, plan.image_bytes() - last.len() as u64).map_err(io)?;
    file.sync_all().map_err(io)?;
    let sum = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let binaries = [("limpet-agent", sum(inputs.agent)), ("limpet-init", sum(inputs.init))];
    let sbom = sbom::document(&inputs.board.name, inputs.version, inputs.packages, &binaries);
    let sbom = serde_json::to_string_pretty(&sbom).map_err(|e| OsError::Key(e.to_string()))?;
    Ok(Made { bytes: plan.image_bytes(), sbom: sbom + "\n" })
}

/// The same system as an update for boards that run an older one.
pub fn update(inputs: &Inputs<'_>, key: &Key) -> Result<Vec<u8>, OsError> {
    let system = system(inputs)?;
    let options = plan::limpet_os(inputs.board).kernel_command_line;
    bundle::bundle(key, &inputs.board.name, inputs.version, &options, &system.linux, &system.initrd)
}

fn system_partition(plan: &Plan, part: &Partition, system: &System, version: &str, image: &File) -> Result<(), OsError> {
    let io = |e| OsError::Io(format!("the partition {}", part.name), e);
    let serial = u32::from_be_bytes([plan.board.name.len() as u8, 0x4c, 0x49, 0x4d]);
    let efi = boot::EFI.into_iter().find(|(a, ..)| *a == plan.board.architecture);
    let (_, efi, _) = efi.ok_or_else(|| OsError::Board(plan.board.name.clone()))?;
    let entry = boot::entry("a", version, plan);
    let files: [(&str, &[u8]); 6] = [
        (efi, &system.loader),
        ("loader/loader.conf", boot::LOADER.as_bytes()),
        // What comes from a builder has been tried: no counter.
        ("loader/entries/limpet-a.conf", entry.as_bytes()),
        ("limpet/a/linux", &system.linux),
        ("limpet/a/initrd", &system.initrd),
        (LIMPET_MARK.trim_start_matches('/'), plan.board.name.as_bytes()),
    ];
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
    let scratch = std::env::temp_dir().join(format!("limpet-data-{}-{}.ext4", std::process::id(), part.start));
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
