//! What is measured, one after the other.
//!
//! In: arguments. Out: figures. Times are on the wall, and mean little on a machine that does something else; the hub's
//! processor time is told beside each.

use crate::{Args, pods};
use limpet_agent_core::PodManager;
use limpet_board::{Fleet, Seen, link};
use limpet_load::{access::Access, crowd::quantile, figures::Figures, hub::Hub, proc::Server};
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const REST: Duration = Duration::from_secs(10);

struct Bench<'a> {
    args: &'a Args,
    fleet: Fleet,
    access: Access,
    figures: Figures,
}

/// What a step cost the hub.
struct Cost {
    server: Server,
    cpu: Duration,
    own: Duration,
    begin: Instant,
}

impl Cost {
    fn begin(hub: &Hub) -> Cost {
        let server = Server::new(Some(hub.pid()));
        let (cpu, own) = (server.cpu().unwrap_or_default(), Server::own().cpu().unwrap_or_default());
        Cost { server, cpu, own, begin: Instant::now() }
    }

    fn words(&self) -> String {
        let cpu = self.server.cpu().unwrap_or_default().saturating_sub(self.cpu);
        let own = Server::own().cpu().unwrap_or_default().saturating_sub(self.own);
        let (cpu, own, wall) = (cpu.as_secs_f64(), own.as_secs_f64(), self.begin.elapsed().as_secs_f64());
        format!("hub {cpu:.2} s of CPU (boards {own:.2}) in {wall:.1} s")
    }
}

pub async fn run(args: &Args) -> Result<Figures, String> {
    let (mut hub, access, _) = Hub::start(&args.hub).await?;
    let fleet = Fleet::new(0, args.boards);
    let mut bench = Bench { args, fleet, access, figures: Figures::new("") };
    tokio::time::sleep(Duration::from_secs(3)).await;
    let idle = memory(&hub)?;
    bench.figures.say("hub, idle", format!("PSS {:.1} MiB", mib(idle)), "");
    // Keys in memory: this machine's disk is the hub's.
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.map_err(|e| e.to_string())?;
    let token = bench.token(&hub)?;
    bench.join(&hub, dir.path(), &token).await?;
    bench.memory(&hub, idle, "memory a node above idle, connected", "≤ 25 KB").await?;
    bench.restart(&mut hub, "without pods").await?;
    bench.memory(&hub, idle, "memory a node above idle, after a restart", "≤ 25 KB").await?;
    bench.pods(&hub).await?;
    bench.memory(&hub, idle, "memory a node above idle, a pod on each", "").await?;
    bench.config(&hub).await?;
    for _ in 0..args.rounds {
        bench.restart(&mut hub, "a pod on each").await?;
    }
    bench.memory(&hub, idle, "memory a node above idle, after a restart, a pod on each", "").await?;
    let cost = Cost::begin(&hub);
    tokio::time::sleep(REST * 3).await;
    bench.figures.say("nothing to do for 30 s", cost.words(), "");
    tokio::time::sleep(Duration::from_secs(args.hold)).await;
    hub.stop()?;
    Ok(bench.figures)
}

fn memory(hub: &Hub) -> Result<u64, String> {
    Server::new(Some(hub.pid())).memory().map(|(_, pss)| pss).ok_or_else(|| "the hub is gone".into())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

impl Bench<'_> {
    fn token(&self, hub: &Hub) -> Result<String, String> {
        let words = ["token", "create", "--ttl", "12h", "--data-dir"];
        let made = Command::new(&self.args.hub).args(words).arg(hub.dir()).output().map_err(|e| e.to_string())?;
        match made.status.success() {
            true => Ok(String::from_utf8_lossy(&made.stdout).trim().to_owned()),
            false => Err(format!("no join token: {}", String::from_utf8_lossy(&made.stderr))),
        }
    }

    async fn join(&mut self, hub: &Hub, dir: &Path, token: &str) -> Result<(), String> {
        let token = link::join::parse_token(token).map_err(|e| e.to_string())?;
        let cost = Cost::begin(hub);
        self.fleet.join::<PodManager>(dir, &token).await?;
        self.figures.say("all have a certificate", cost.words(), "");
        self.fleet.until("all are in sync", |s| s.in_sync.is_some() && s.told).await?;
        self.figures.say("all have joined, connected and told their facts", cost.words(), "");
        Ok(())
    }

    async fn memory(&mut self, hub: &Hub, idle: u64, what: &str, mark: &'static str) -> Result<(), String> {
        tokio::time::sleep(REST).await;
        let now = memory(hub)?;
        let each = now.saturating_sub(idle) as f64 / self.args.boards as f64 / 1000.0;
        self.figures.say(what, format!("{each:.1} KB (PSS {:.1} MiB)", mib(now)), mark);
        Ok(())
    }

    /// kill -9, and a new one on the same data.
    async fn restart(&mut self, hub: &mut Hub, what: &str) -> Result<(), String> {
        hub.kill()?;
        self.fleet.until("all have noticed", |s| s.in_sync.is_none()).await?;
        let begin = Instant::now();
        hub.begin()?;
        let cost = Cost::begin(hub);
        self.fleet.until("all are in sync again", |s| s.in_sync.is_some()).await?;
        let times = self.times(begin, |s| s.in_sync);
        let words = format!("p50 {:.1} s, p99 {:.1} s, last {:.1} s; {}", times[0], times[1], times[2], cost.words());
        self.figures.say(format!("kill -9 and restart of the hub → in sync, {what}"), words, "≤ 30 s");
        self.fleet.until("all have told what they know", |s| s.told).await?;
        Ok(())
    }

    async fn pods(&mut self, hub: &Hub) -> Result<(), String> {
        pods::make_common(&self.access).await?;
        let mut worst = (0.0, 0.0);
        let (all, mut at) = (Cost::begin(hub), 0);
        while at < self.args.boards {
            let end = (at + self.args.batch).min(self.args.boards);
            let cost = Cost::begin(hub);
            let times = pods::run(&self.access, at..end).await?;
            let (p50, p99) = (quantile(&times, 0.5) / 1e3, quantile(&times, 0.99) / 1e3);
            eprintln!("pods {at} to {end}: p50 {p50:.2} s, p99 {p99:.2} s; {}", cost.words());
            worst = if p99 > worst.1 { (p50, p99) } else { worst };
            at = end;
            self.fleet.until("all is said", |s| s.told && s.in_sync.is_some()).await?;
        }
        let words = format!("p50 {:.2} s, p99 {:.2} s in the worst batch; {}", worst.0, worst.1, all.words());
        self.figures.say(format!("a pod on each → Running, {} at a time", self.args.batch), words, "p99 ≤ 5 s");
        Ok(())
    }

    async fn config(&mut self, hub: &Hub) -> Result<(), String> {
        for round in 1..=self.args.rounds as u64 {
            let cost = Cost::begin(hub);
            let begin = Instant::now();
            pods::change_common(&self.access, round).await?;
            let has = |s: &Seen| s.round.filter(|(known, _)| *known == round).map(|r| r.1);
            self.fleet.until("all have the change", |s| has(s).is_some()).await?;
            let times = self.times(begin, has);
            let words = format!("p50 {:.2} s, p99 {:.2} s, last {:.2} s; {}", times[0], times[1], times[2], cost.words());
            self.figures.say("a ConfigMap that all use is changed → on all, acknowledged", words, "p99 ≤ 3 s");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Ok(())
    }

    /// p50, p99 and the last one, seconds.
    fn times(&self, begin: Instant, when: impl Fn(&Seen) -> Option<Instant>) -> [f64; 3] {
        let seen = self.fleet.all();
        let mut times: Vec<Duration> =
            seen.iter().filter_map(when).map(|at| at.saturating_duration_since(begin)).collect();
        times.sort_unstable();
        [0.5, 0.99, 1.0].map(|part| quantile(&times, part) / 1e3)
    }
}
