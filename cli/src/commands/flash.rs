//! `limpet flash`: an image onto cards, each of which becomes a node of its own.
//!
//! In: a board, an image, drives, what the nodes need to know. Out: cards that were read back, with a join token each.
//! Never: writes a drive that nobody confirmed.

mod confirm;
mod label;
mod show;

use super::{Outcome, image, node_args::NodeArgs};
use crate::agents;
use limpet_device::{
    board::{self, Board},
    fetch::{Cache, Image},
    flash::{self, Drive, Finish, Inventory, Job, Progress, Target},
    inject::{self, System},
    limits::CARDS_MAX,
    plan,
    provision::{self, Wish},
    published::{self, Signed},
    signature, table,
};
use std::{
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
};

/// Write an image to cards; each becomes a node that joins by itself.
///
/// The image is another system's (Raspberry Pi OS, Debian, Ubuntu, Armbian; raw, .xz, .gz or .zst, a file or a URL) or Limpet
/// OS, which is built for the board when no image is given. Every card gets its own name and, from the hub of --data-dir or of
/// this machine, its own single-use join token.
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    /// The board; `--list` shows all
    board: Option<String>,
    /// List the boards; with a board, its plan
    #[arg(long, conflicts_with_all = ["drives", "image", "device", "out"])]
    list: bool,
    /// List the drives that can be written, and why others cannot
    #[arg(long, conflicts_with_all = ["image", "device", "out"])]
    drives: bool,
    /// The image: a file or a URL [default: Limpet OS, built for the board and kept for the next time]
    #[arg(long, value_name = "FILE|URL")]
    image: Option<String>,
    /// SHA-256 (or SHA-512) of the image as it is published (packed)
    #[arg(long, value_name = "HEX", requires = "image")]
    sha256: Option<String>,
    /// The list of checksums as it is published with the image: SHA256SUMS, SHA512SUMS, NAME.sha256
    #[arg(long, value_name = "FILE", requires = "image", conflicts_with = "sha256")]
    sums: Option<PathBuf>,
    /// A signature: of the image by `limpet image sign`; with --keyring an OpenPGP one of the --sums, or of the image
    #[arg(long, value_name = "FILE", requires_all = ["image", "whose"])]
    signature: Option<PathBuf>,
    /// Whose signature it has to be: the public key of `limpet image key`, a file
    #[arg(long, value_name = "FILE", requires = "signature", group = "whose")]
    key: Option<PathBuf>,
    /// Whose OpenPGP signature it has to be: a keyring, such as /usr/share/keyrings/ubuntu-archive-keyring.gpg
    #[arg(long, value_name = "FILE", requires = "signature", group = "whose")]
    keyring: Option<PathBuf>,
    /// The card, such as /dev/sdb or /dev/mmcblk0; may be repeated
    #[arg(long, value_name = "DRIVE")]
    device: Vec<PathBuf>,
    /// Write to a file instead; `-` is stdout, without node files
    #[arg(long, value_name = "FILE", conflicts_with = "device")]
    out: Option<PathBuf>,
    /// For each card a label with a QR code: DIR/NAME.svg
    #[arg(long, value_name = "DIR", conflicts_with_all = ["list", "drives"])]
    label: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    node: NodeArgs,
}

pub fn run(args: Args) -> Outcome {
    if args.drives {
        print!("{}", show::drives(&flash::scan(&Inventory::default())));
        return Ok(());
    }
    let board = args.board.as_deref().map(board::find).transpose().map_err(|e| e.to_string())?;
    if args.list {
        match board {
            Some(board) => print!("{}", plan::limpet_os(&board)),
            None => print!("{}", show::boards(&board::all().map_err(|e| e.to_string())?)),
        }
        return Ok(());
    }
    let board = board.ok_or("name the board, such as raspberry-pi-4; `limpet flash --list` shows all")?;
    if args.out.as_deref().is_some_and(|out| out == "-") {
        return to_stdout(&fetch(&args, &board)?);
    }
    cards(&args, &board)
}

fn fetch(args: &Args, board: &Board) -> Result<Image, String> {
    let Some(from) = &args.image else {
        let made = image::of_board(board, args.node.agent.as_deref());
        let path = made.map_err(|why| {
            let known: Vec<&str> = board.os.iter().map(|f| f.name()).collect();
            format!("{why}\nor give --image FILE or URL: {} for the {}", known.join(", "), board.title)
        })?;
        return Image::file(&path, None).map_err(|e| e.to_string());
    };
    let sum = listed(args, from)?.or_else(|| args.sha256.clone());
    let sum = sum.as_deref();
    let image = match from.starts_with("http://") || from.starts_with("https://") {
        false => Image::file(from.as_ref(), sum),
        true => {
            if sum.is_none() {
                eprintln!("without --sha256 or --sums only the server's certificate vouches for the image");
            }
            let cache = Cache::of_user().ok_or("neither HOME nor XDG_CACHE_HOME says where downloads are kept")?;
            cache.image(from, sum, &mut show::download())
        }
    };
    let image = image.map_err(|e| e.to_string())?;
    if let (Some(signature), Some(keyring), None) = (&args.signature, &args.keyring, &args.sums) {
        published::check(&Signed::File(&image.path), signature, keyring).map_err(|e| e.to_string())?;
    }
    if let (Some(signature), Some(key)) = (&args.signature, &args.key) {
        let text = |path: &PathBuf| text(path, signature::TEXT_BYTES_MAX);
        let texts = (text(signature)?, text(key)?);
        let names = (signature.display().to_string(), key.display().to_string());
        signature::check(&image.path, (&texts.0, &texts.1), (&names.0, &names.1)).map_err(|e| e.to_string())?;
    }
    Ok(image)
}

/// The image's checksum in the list that came with it, once somebody of the keyring is known to have signed the list.
fn listed(args: &Args, image: &str) -> Result<Option<String>, String> {
    let Some(sums) = &args.sums else { return Ok(None) };
    let list = text(sums, published::LIST_BYTES_MAX)?;
    if let (Some(signature), Some(keyring)) = (&args.signature, &args.keyring) {
        published::check(&Signed::Text(&list, sums), signature, keyring).map_err(|e| e.to_string())?;
    }
    let name = image.split(['?', '#']).next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    published::sum_of(&list, &sums.display().to_string(), name).map(Some).map_err(|e| e.to_string())
}

/// A small file.
fn text(path: &PathBuf, bytes_max: usize) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path);
    let read = file.and_then(|f| io::Read::take(f, bytes_max as u64).read_to_string(&mut text));
    read.map(|_| text).map_err(|e| format!("{}: {e}", path.display()))
}

fn to_stdout(image: &Image) -> Outcome {
    let mut source = image.open().map_err(|e| e.to_string())?;
    io::copy(&mut source, &mut io::stdout().lock()).map(drop).map_err(|e| format!("writing the image: {e}"))
}

/// One card: its drive if it is one, its node.
struct Card {
    path: PathBuf,
    drive: Option<Drive>,
    wish: Wish,
}

fn cards(args: &Args, board: &Board) -> Outcome {
    let paths: Vec<PathBuf> = args.out.iter().chain(&args.device).cloned().collect();
    if paths.is_empty() || paths.len() > CARDS_MAX {
        let all = flash::scan(&Inventory::default());
        return Err(format!("name the card with --device (up to {CARDS_MAX}), or --out FILE.\n{}", show::drives(&all)));
    }
    // What cannot be is said before anything is fetched or built.
    choose(args, &paths, None)?;
    let names = args.node.names(paths.len(), Some(&board.name))?;
    for name in &names {
        let wish = args.node.wish(name, false)?;
        if args.image.is_none() && board.limpet_os.refused.is_none() {
            provision::limpet_os(&wish).and_then(|_| provision::radio_fits(board, &wish))?;
        }
    }
    let image = &fetch(args, board)?;
    let drives = choose(args, &paths, image.bytes)?;
    // Before tokens are made and drives are asked for: a missing agent is found out now.
    let agent = agents::find(&board.target, args.node.agent.as_deref());
    if let (Some(_), Err(why)) = (&args.node.agent, &agent) {
        return Err(why.clone());
    }
    if !args.yes {
        confirm::ask(&drives)?;
    }
    let mut cards = Vec::new();
    for ((path, drive), name) in paths.into_iter().zip(drives).zip(&names) {
        cards.push(Card { path, drive, wish: args.node.wish(name, true)? });
    }
    let written = write(board, image, &cards, &agent);
    if let (Ok(()), Some(dir)) = (&written, &args.label) {
        cards.iter().try_for_each(|card| label::write(dir, board, &card.wish))?;
    }
    written
}

/// The drives behind the paths, as the guard allows them; files have none.
fn choose(args: &Args, paths: &[PathBuf], needs: Option<u64>) -> Result<Vec<Option<Drive>>, String> {
    if args.out.is_some() {
        return Ok(vec![None]);
    }
    let all = flash::scan(&Inventory::default());
    let mut chosen: Vec<Option<Drive>> = Vec::new();
    for path in paths {
        // Names such as /dev/disk/by-id/… are links.
        let real = path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
        let name = real.strip_prefix("/dev").ok().and_then(|n| n.to_str());
        let name = name.ok_or_else(|| format!("{} is not a drive in /dev; for a file say --out", path.display()))?;
        let drive = flash::allow(&all, name, needs).map_err(|e| e.to_string())?;
        if chosen.iter().flatten().any(|c| c.name == drive.name) {
            return Err(format!("/dev/{} is named twice", drive.name));
        }
        chosen.push(Some(drive));
    }
    Ok(chosen)
}

fn open(card: &Card, needs: Option<u64>) -> Result<Target, String> {
    let target = Target::open(&card.path).map_err(|e| e.to_string())?;
    if let Some(confirmed) = &card.drive {
        // From here on the kernel keeps others away; what is open must be what was confirmed.
        let all = flash::scan(&Inventory::default());
        flash::still_the_same(confirmed, &all, needs).map_err(|e| e.to_string())?;
        if target.number().as_ref() != Some(&confirmed.number) {
            return Err(flash::Refusal::Changed(confirmed.name.clone()).to_string());
        }
    }
    Ok(target)
}

fn write(board: &Board, image: &Image, cards: &[Card], agent: &Result<Vec<u8>, String>) -> Outcome {
    let mut jobs = Vec::new();
    let mut shown = Vec::new();
    for card in cards {
        let progress = Arc::new(Progress::default());
        shown.push((card.path.display().to_string(), progress.clone()));
        let finish: Finish<'_> = Box::new(|target, head| provide(board, &card.wish, agent, target, head));
        jobs.push(Job { target: open(card, image.bytes)?, progress, finish: Some(finish) });
    }
    let source = image.open().map_err(|e| e.to_string())?;
    let results = show::while_showing(&shown, || flash::write_all(source, image.bytes, jobs));
    let mut failed = 0;
    for (result, card) in results.iter().zip(cards) {
        match result {
            Ok(done) => {
                let joins = if card.wish.token.is_some() { ", joins by itself" } else { ", joins nothing yet" };
                let (path, size, name) = (done.path.display(), flash::size(done.bytes), &card.wish.node_name);
                let out = if done.ejected { "; ejected" } else { "" };
                println!("{path}: {size} written and read back; node {name}{joins}{out}");
            }
            Err(why) => {
                failed += 1;
                eprintln!("limpet: {}: {why}", card.path.display());
            }
        }
    }
    match failed {
        0 => Ok(()),
        n => Err(format!("{n} of {} cards failed; those cannot boot, and nothing on them looks as if they could", cards.len())),
    }
}

/// The node's files, while the card has no partition table yet.
fn provide(board: &Board, wish: &Wish, agent: &Result<Vec<u8>, String>, target: &Target, head: &mut [u8]) -> Result<(), String> {
    let bytes = std::fs::File::open(target.path()).and_then(|mut f| io::Seek::seek(&mut f, io::SeekFrom::End(0)));
    let areas = table::read(head, bytes.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let system = inject::find(target.path(), &areas).map_err(|e| e.to_string())?;
    inject::fits(target.path(), &system, board).map_err(|e| e.to_string())?;
    let files = match &system {
        System::Limpet { .. } => {
            provision::radio_fits(board, wish)?;
            vec![provision::limpet_os(wish)?]
        }
        System::Other { traits, .. } => {
            provision::system_fits(traits, wish)?;
            provision::recipe(traits, wish, agent.clone()?, &board.boot.command_line, board.signals.led.as_deref())
        },
    };
    inject::put_all(target.path(), &system, &files).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Args as _;

    #[test]
    fn stdout_and_drives_exclude_each_other() {
        let command = Args::augment_args(clap::Command::new("flash"));
        assert!(command.try_get_matches_from(["flash", "b", "--out", "-", "--device", "/dev/x"]).is_err());
    }
}
