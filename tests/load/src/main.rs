//! Loads one Kubernetes API server over HTTPS and prints what it bore.
//!
//! In: a hub's binary (it is started on free ports with an empty data directory), or the URL, CA and credentials of any
//! other API server. Out: a table; beside each figure its mark, where there is one.
//! Everything happens in one namespace that is made and removed. Never: a figure that was not measured just now.
#![allow(clippy::disallowed_methods)]

use clap::Parser;
use limpet_load::{access::Access, figures::Figures, hub, lists, proc, watchers, writes};
use std::{path::PathBuf, process::ExitCode, time::Duration};

#[derive(Parser)]
#[command(name = "limpet-load", about = "Figures of a Kubernetes API server under load")]
struct Args {
    /// The `limpet` binary of the hub to start and measure
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "kubeconfig"])]
    hub: Option<PathBuf>,
    /// Another API server: https://host:port
    #[arg(long, requires = "ca")]
    url: Option<String>,
    /// The CA that signed its certificate (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A bearer token, or @FILE
    #[arg(long, conflicts_with = "cert")]
    token: Option<String>,
    /// A client certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of the client certificate (PEM)
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Server and credentials from the current context of a kubeconfig
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    kubeconfig: Option<PathBuf>,
    /// The server's process, when it runs on this machine: its memory and processor time are told, too
    #[arg(long)]
    pid: Option<u32>,
    /// HTTP/2, all clients on few connections as client-go does; otherwise HTTP/1.1, one connection a client
    #[arg(long)]
    http2: bool,
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// ConfigMaps to create, read, change and delete
    #[arg(long, default_value_t = 10_000)]
    objects: usize,
    /// Pods to create and list
    #[arg(long, default_value_t = 5_000)]
    pods: usize,
    /// Watchers of the larger fan-out
    #[arg(long, default_value_t = 1_000)]
    watchers: usize,
    /// Only figures whose names contain this (what they need is done all the same)
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(4);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|e| e.to_string())
        .and_then(|runtime| runtime.block_on(run(&args)));
    match outcome {
        Ok(figures) => {
            figures.print();
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("limpet-load: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<Figures, String> {
    let mut figures = Figures::new(&args.only);
    let mut started = None;
    let mut access = match (&args.hub, &args.url, &args.kubeconfig) {
        (Some(program), ..) => {
            let (hub, access, first) = hub::Hub::start(program).await?;
            figures.say("first start (keys are made) → /readyz", format!("{:.2} s", first.as_secs_f64()), "");
            let (hub, access, again) = hub.again(access).await?;
            figures.say("start → /readyz", format!("{:.2} s", again.as_secs_f64()), "≤ 0.3 s");
            started = Some(hub);
            access
        }
        (_, Some(url), _) => {
            let (ca, cert, key) = (args.ca.as_deref(), args.cert.as_deref(), args.key.as_deref());
            Access::parts(url, ca, args.token.as_deref(), cert, key)?
        }
        (_, _, Some(file)) => Access::kubeconfig(file)?,
        _ => return Err("say what to load: --hub, --url with --ca, or --kubeconfig".into()),
    };
    access.http2 = args.http2;
    let server = proc::Server::new(started.as_ref().map(hub::Hub::pid).or(args.pid));
    tokio::time::sleep(Duration::from_secs(2)).await;
    figures.memory("memory, idle", &server, "≤ 30 MiB");
    let place = writes::Place::make(&access).await?;
    let outcome = measure(args, &access, &server, &place, &mut figures).await;
    let removed = place.remove(&access).await;
    outcome?;
    removed?;
    if let Some(hub) = started {
        hub.stop()?;
    }
    Ok(figures)
}

async fn measure(
    args: &Args,
    access: &Access,
    server: &proc::Server,
    place: &writes::Place,
    figures: &mut Figures,
) -> Result<(), String> {
    let load = writes::Load { access, server, place, clients: args.clients, objects: args.objects, pods: args.pods };
    load.config_maps(figures).await?;
    load.pods(figures).await?;
    figures.memory("memory with these objects", server, "");
    lists::run(access, server, place, args.pods, figures).await?;
    for count in [args.watchers.div_ceil(10), args.watchers] {
        watchers::run(access, server, place, count, figures).await?;
    }
    load.deletes(figures).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    figures.memory("memory, 5 s after the load", server, "≤ 120 MiB");
    Ok(())
}
