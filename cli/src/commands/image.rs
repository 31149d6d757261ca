//! `limpet image`: Limpet OS, made here.
//!
//! In: a board, binaries. Out: an image with its bill of materials, updates, keys. The same inputs give the same bytes.
//! Never: a private key anywhere but in its own file.

use super::{Outcome, node_args::OWN_HUB};
use crate::agents;
use clap::Subcommand;
use limpet_device::{
    board::{self, Board, LOADERS_END},
    fetch::{sum_of, sum_of_bytes},
    os::{self, Inputs, Key, MIRROR, Origin},
    signature,
};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Build Limpet OS: a minimal read-only system with two slots, for `limpet flash`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Wanted,
}

#[derive(Subcommand)]
enum Wanted {
    /// Make an image
    Build {
        #[command(flatten)]
        from: From,
        /// Where the image goes; its bill of materials goes to OUT.spdx.json
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Who may sign updates (made by `limpet image key`) [default: the hub that a board joins]
        #[arg(long, value_name = "FILE")]
        update_key: Option<PathBuf>,
    },
    /// Make a signed update for boards that run an older image
    Update {
        #[command(flatten)]
        from: From,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The private key that the image was built with [default: the hub's own]
        #[arg(long, value_name = "FILE")]
        update_key: Option<PathBuf>,
        /// The hub's data directory [default: /var/lib/limpet-hub]
        #[arg(long, value_name = "DIR", env = "LIMPET_DATA_DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Sign an image, packed or not, to FILE.sig; `limpet flash --signature` checks it
    Sign {
        file: PathBuf,
        /// The private key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Make a key for signing updates and images, and its public half beside it (.pub); keep it as you keep a house key
    Key {
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(clap::Args)]
struct From {
    /// The board; `limpet flash --list` shows all
    #[arg(long)]
    board: String,
    /// Digits and dots; a board takes an update only if this is greater than what it runs [default of an image: limpet's own]
    #[arg(long, value_name = "N.N.N")]
    os_version: Option<String>,
    /// The agent's binary [default: the one that came with limpet]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// The first process's binary [default: the one that came with limpet]
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Debian mirror
    #[arg(long, value_name = "URL", default_value = MIRROR)]
    mirror: String,
    /// Debian suite [default: the board's own, or bookworm]
    #[arg(long)]
    suite: Option<String>,
    /// Take .deb files from a folder instead of a mirror
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
    /// Boot loaders that Debian does not have, under the names that `limpet flash BOARD --list` shows
    #[arg(long, value_name = "DIR")]
    loaders: Option<PathBuf>,
}

pub fn run(args: Args) -> Outcome {
    match args.command {
        Wanted::Key { out } => {
            let key = Key::generate().map_err(|e| e.to_string())?;
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&out);
            file.and_then(|mut f| f.write_all(&key)).map_err(|e| format!("{}: {e}", out.display()))?;
            let public = PathBuf::from(format!("{}.pub", out.display()));
            let text = signature::public_text(&Key::parse(&key).map_err(|e| e.to_string())?);
            fs::write(&public, text).map_err(|e| format!("{}: {e}", public.display()))?;
            println!("{}: hand it to whoever flashes your images", public.display());
            println!("{}: keep it where only you can read it; `limpet image build --update-key` puts its public half into images", out.display());
            Ok(())
        }
        Wanted::Sign { file, key: path } => sign(&file, &key(&path)?),
        Wanted::Build { from, out, update_key } => build(&from, &out, update_key.as_deref()),
        Wanted::Update { from, out, update_key, data_dir } => {
            if from.os_version.is_none() {
                return Err(format!(
                    "say --os-version, such as 1.4.2: boards take what is newer than what they run (`limpet flash` builds {OWN_VERSION})"
                ));
            }
            let of_hub = data_dir.as_deref().unwrap_or(OWN_HUB.as_ref()).join("pki/update.key");
            let key = match update_key {
                Some(path) => key(&path),
                None => key(&of_hub).map_err(|e| format!("{e}; name the hub with --data-dir, or the private key with --update-key")),
            }?;
            let made = from.with(Some(os::public_key(&key)), |inputs| os::update(inputs, &key))?;
            fs::write(&out, made).map_err(|e| format!("{}: {e}", out.display()))?;
            println!("{0}: offer it to its boards with: limpet update publish {0} (docs/guides/agent-updates.md)", out.display());
            Ok(())
        }
    }
}

fn key(path: &Path) -> Result<Key, String> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Key::parse(&bytes).map_err(|e| format!("{}: {e}", path.display()))
}

fn sign(file: &Path, key: &Key) -> Outcome {
    let to = PathBuf::from(format!("{}.sig", file.display()));
    let text = signature::sign(key, file).map_err(|e| e.to_string())?;
    fs::write(&to, text).map_err(|e| format!("{}: {e}", to.display()))?;
    println!("{}: the signature", to.display());
    Ok(())
}

fn build(from: &From, out: &Path, update_key: Option<&Path>) -> Outcome {
    let public = update_key.map(|path| key(path).map(|k| os::public_key(&k))).transpose()?;
    let made = from.with(public, |inputs| os::image(inputs, out))?;
    let bill = PathBuf::from(format!("{}.spdx.json", out.display()));
    fs::write(&bill, made.sbom).map_err(|e| format!("{}: {e}", bill.display()))?;
    let sum = sum_of(out).map_err(|e| e.to_string())?;
    println!("{sum}  {}", out.display());
    println!("{} MiB; write it with: limpet flash {} --image {} --device DRIVE --name NAME", made.bytes >> 20, from.board, out.display());
    Ok(())
}

/// Limpet OS for a card that was given no image: made once of this version's binaries, and kept.
pub fn of_board(board: &Board, agent: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(why) = &board.limpet_os.refused {
        return Err(os::OsError::Board(board.title.clone(), why.clone()).to_string());
    }
    let from = From {
        board: board.name.clone(),
        os_version: None,
        agent: agent.map(Path::to_path_buf),
        init: None,
        mirror: MIRROR.into(),
        suite: None,
        packages: None,
        loaders: None,
    };
    let kept = cache()?.join("images");
    let told = |e: std::io::Error| format!("{}: {e}", kept.display());
    fs::create_dir_all(&kept).map_err(told)?;
    let programs = [agents::find(&board.target, agent)?, agents::find_program("limpet-init", &board.target, None)?].concat();
    let name = format!("{}-{}-{:.12}.img", board.name, OWN_VERSION, sum_of_bytes(&programs));
    let (path, part) = (kept.join(&name), kept.join(format!("{name}.part-{}", std::process::id())));
    if path.is_file() {
        eprintln!("Limpet OS for the {} as it was built before; remove {} for one of today's packages", board.title, path.display());
        return Ok(path);
    }
    eprintln!("building Limpet OS {OWN_VERSION} for the {} of Debian's packages; it takes the updates that its hub signs (`limpet image update`)", board.title);
    let made = from.with(None, |inputs| os::image(inputs, &part)).and_then(|made| {
        fs::write(kept.join(format!("{name}.spdx.json")), made.sbom).map_err(told)?;
        fs::rename(&part, &path).map_err(told)
    });
    if made.is_err() {
        let _ = fs::remove_file(&part);
    }
    made.map(|()| path)
}

/// Packages and images for the next time.
fn cache() -> Result<PathBuf, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(cache.ok_or("neither HOME nor XDG_CACHE_HOME says where packages are kept")?.join("limpet"))
}

impl From {
    fn loaders(&self, board: &Board) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let Some(dir) = &self.loaders else {
            let missing = board.own_loaders();
            let why = || os::OsError::Loader(board.title.clone(), missing.join(" and ")).to_string();
            return if missing.is_empty() || board.limpet_os.refused.is_some() { Ok(BTreeMap::new()) } else { Err(why()) };
        };
        let mut found = BTreeMap::new();
        for file in board.boot.loaders.iter().map(|l| &l.file) {
            let path = dir.join(file);
            match fs::metadata(&path) {
                Ok(about) if about.len() > LOADERS_END => {
                    return Err(format!("{}: that is larger than a boot loader", path.display()));
                }
                Ok(_) => drop(found.insert(file.clone(), fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?)),
                Err(e) if board.own_loaders().contains(&file.as_str()) => return Err(format!("{}: {e}", path.display())),
                Err(_) => {}
            }
        }
        Ok(found)
    }

    fn with<T>(
        &self,
        update_key: Option<Vec<u8>>,
        work: impl FnOnce(&Inputs<'_>) -> Result<T, os::OsError>,
    ) -> Result<T, String> {
        let board = board::find(&self.board).map_err(|e| e.to_string())?;
        let version = self.os_version.as_deref().unwrap_or(OWN_VERSION);
        limpet_protocol::os_update::is_version(version)?;
        let agent = agents::find(&board.target, self.agent.as_deref())?;
        let init = agents::find_program("limpet-init", &board.target, self.init.as_deref())?;
        let cache = cache()?.join("packages");
        let origin = match &self.packages {
            Some(folder) => Origin::Folder(folder.clone()),
            None => {
                let suite = self.suite.as_ref().or(board.limpet_os.suite.as_ref()).map_or(os::SUITE, String::as_str);
                Origin::Mirror { url: self.mirror.clone(), suite: suite.into() }
            }
        };
        // Before anything is fetched: what only the person can bring.
        let loaders = self.loaders(&board)?;
        let packages = os::fetch(&origin, &board, &cache).map_err(|e| e.to_string())?;
        for p in &packages {
            eprintln!("{} {} ({})", p.name, p.version, p.architecture);
        }
        let inputs =
            Inputs { board: &board, version, packages: &packages, agent: &agent, init: &init, loaders, update_key, extra: &[] };
        work(&inputs).map_err(|e| e.to_string())
    }
}
