//! Figures, measured on the real programs and printed as a table; the same that docs/PROMISES.md keeps.
//!
//! In: a release hub and the device's agent, in a world of their own. Out: one line a figure, with its mark.
//! Ratios are taken in one run, interleaved: machines are noisy. Never: a figure that was not measured just now.

mod api;
mod apply;
mod control;
mod create;
mod flash;
mod fleet;
mod idle;
mod link;
mod node;
mod podman;
mod proc;
mod unpack;

use crate::{dist, setup};
use limpet_e2e::{Binaries, World};
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// One part and nothing else: the same as the flag of that name
    #[arg(value_enum)]
    part: Option<Part>,
    /// How long to watch an idle board, in minutes (the promise is about 10)
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// How many pods to time from apply to Running
    #[arg(long, default_value_t = 20)]
    pods: usize,
    /// Time the creation of containers beside crun, and podman's where it is installed, and nothing else
    #[arg(long)]
    create: bool,
    /// What a board costs with 0, 10, 50 and 110 pods and how soon they run, and nothing else
    #[arg(long)]
    node: bool,
    /// Time the unpacking of a layer beside tar, and nothing else
    #[arg(long)]
    unpack: bool,
    /// Measure the control plane (scheduling, scaling, idling), and nothing else
    #[arg(long)]
    control: bool,
    /// What a board costs on the wire, and nothing else (30 minutes are the promise's measure)
    #[arg(long)]
    link: bool,
    /// With --link: what the agent's link takes of memory, as it is built for devices, and nothing else
    #[arg(long, conflicts_with = "boards")]
    memory: bool,
    /// With --link: so many boards with real connections on one hub (10000 are the promise's measure), and nothing else
    #[arg(long, value_name = "N")]
    boards: Option<usize>,
    /// Writing a card beside `dd` on one loop device, and nothing else
    #[arg(long)]
    flash: bool,
    /// The API server under load, and nothing else; what follows `--` goes to the load generator: another API server by
    /// `--url --ca --token`, `--http2` and more (`-- --help`)
    #[arg(long)]
    api: bool,
    /// For the load generator of `--api`
    #[arg(last = true)]
    load: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Create,
    Node,
    Unpack,
    Control,
    Link,
    Flash,
    Api,
}

impl Args {
    /// The part that was asked for, or all; an option that the part does not have is an error.
    fn part(&self) -> Result<Option<Part>, String> {
        let flags = [
            (self.create, Part::Create),
            (self.node, Part::Node),
            (self.unpack, Part::Unpack),
            (self.control, Part::Control),
            (self.link, Part::Link),
            (self.flash, Part::Flash),
            (self.api, Part::Api),
        ];
        let mut parts = flags.into_iter().filter(|(is_asked, _)| *is_asked).map(|(_, part)| part).chain(self.part);
        let part = parts.next();
        if parts.any(|other| Some(other) != part) {
            return Err("one part at a time".into());
        }
        if (self.memory || self.boards.is_some()) && part != Some(Part::Link) {
            return Err("--memory and --boards are of the part link: `cargo xtask bench link --boards 10000`".into());
        }
        if !self.load.is_empty() && part != Some(Part::Api) {
            return Err("what follows -- is for the part api: `cargo xtask bench api -- --help`".into());
        }
        Ok(part)
    }
}

/// One row of the table.
pub struct Figure {
    pub what: &'static str,
    pub measured: String,
    pub mark: &'static str,
}

impl Figure {
    pub fn new(what: &'static str, measured: impl Into<String>, mark: &'static str) -> Figure {
        Figure { what, measured: measured.into(), mark }
    }
}

pub fn run(args: &Args) -> Result<(), String> {
    let part = args.part()?;
    if let Some(boards) = args.boards {
        return fleet::run(boards);
    }
    if !matches!(part, Some(Part::Api | Part::Flash)) {
        setup::run()?;
    }
    let ready = || Binaries::build("dev");
    let figures = match part {
        None => whole(args)?,
        Some(Part::Create) => {
            let mut figures = create::run(&dist::agent()?)?;
            figures.extend(podman::run()?);
            figures
        }
        Some(Part::Unpack) => unpack::run(&dist::agent()?)?,
        Some(Part::Control) => control::run(60)?,
        Some(Part::Node) => node::run(&Binaries { hub: dist::hub()?, agent: dist::agent()?, ..ready()? }, args.minutes)?,
        Some(Part::Link) if args.memory => link::memory(&ready()?)?,
        // Bytes do not depend on how the binaries were optimized.
        Some(Part::Link) => link::run(&ready()?, args.minutes)?,
        Some(Part::Flash) => flash::run()?,
        Some(Part::Api) => return api::run(&args.load),
    };
    print(&figures);
    Ok(())
}

/// What has no part of its own, and the parts that take no longer than that.
fn whole(args: &Args) -> Result<Vec<Figure>, String> {
    let ready = Binaries::build("dev")?;
    let binaries = Binaries { hub: dist::hub()?, agent: dist::agent()?, demo_web: ready.demo_web };
    let mut figures = vec![Figure::new("agent binary, static", mib(size(&binaries.agent)?), "≤ 6 MiB")];
    let mut world = World::new(&binaries, 1)?;
    proc::rest(Duration::from_secs(3));
    figures.push(Figure::new("hub, idle, PSS", mib(proc::pss(&binaries.hub)?), "≤ 40 MiB"));
    world.join()?;
    world.push_demo_image()?;
    figures.extend(idle::run(&world, &binaries, args.minutes)?);
    figures.extend(apply::run(&world, &binaries, args.pods)?);
    drop(world);
    figures.extend(create::run(&binaries.agent)?);
    figures.extend(unpack::run(&binaries.agent)?);
    Ok(figures)
}

fn print(figures: &[Figure]) {
    println!("\n| what | measured | mark |\n|---|---|---|");
    for Figure { what, measured, mark } in figures {
        println!("| {what} | {measured} | {mark} |");
    }
}

fn size(path: &std::path::Path) -> Result<u64, String> {
    std::fs::metadata(path).map(|m| m.len()).map_err(|e| format!("cannot look at {}: {e}", path.display()))
}

pub fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / 1_048_576.0)
}

/// The middle one, and the one that nine of ten stay below.
pub fn middle(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get(((times.len() as f64 - 1.0) * part).round() as usize).copied().unwrap_or(f64::NAN);
    (at(0.5), at(0.9))
}
