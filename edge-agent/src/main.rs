//! `limpet-agent`: a whole Kubernetes node in one small binary.
//!
//! One binary, several processes: without a command it is the keeper, which starts `agent`; the agent starts `rt` and
//! `unpack` for one piece of work each. `ps`, `logs`, `exec`,
//! `images`, `doctor`, `lock` and `unlock` are for people at the board.
//! Never: more than this file knows of the command line.

mod agent;
mod broker;
mod command_line;
mod device;
mod grpc;
mod images;
mod inspect;
mod journal;
mod keeper;
mod link;
mod locks;
mod logger;
mod logs;
mod net;
mod os_update;
mod plugins;
mod probes;
mod runtime;
mod sign;
mod streams;
mod update;
mod views;
mod volumes;

use agent::{Config, Paths, StartOptions};
use command_line::{Command, Options};
use std::{
    ffi::OsString,
    os::fd::{FromRawFd, OwnedFd},
    path::PathBuf,
};

fn main() -> std::process::ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // The helpers come first: they are started often and must stay small.
    let code = match args.get(1).and_then(|a| a.to_str()) {
        Some("rt") => runtime::rt::main(&args[2..]),
        Some("unpack") => images::unpack_helper(),
        Some(runtime::bench::WORD) => runtime::bench::keeper(&args[2..]),
        Some("agent") if args.get(2).is_some_and(|a| a == runtime::bench::WORD) => runtime::bench::agent(&args[3..]),
        _ => command(args),
    };
    std::process::ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn command(args: Vec<OsString>) -> i32 {
    let cli = match command_line::parse(args.get(1..).unwrap_or_default(), std::env::var("LIMPET_JOIN").ok()) {
        Ok(cli) => cli,
        Err(said) if said.code == 0 => {
            print!("{}", said.text);
            return 0;
        }
        Err(said) => {
            eprint!("{}", said.text);
            return said.code;
        }
    };
    let paths = Paths { data: cli.options.data_dir.clone(), run: cli.options.run_dir.clone() };
    match cli.command {
        Some(Command::Ps { all }) => inspect::ps(&paths, all),
        Some(Command::Logs(wish)) => inspect::logs(&paths, &wish),
        Some(Command::Exec { container, command }) => inspect::exec(&paths, &container, command),
        Some(Command::Images) => inspect::images(&paths),
        Some(Command::Doctor { json }) => inspect::doctor(&paths, json),
        Some(Command::Lock { name, reason }) => locks::lock(&paths, &name, &reason),
        Some(Command::Unlock { name }) => locks::unlock(&paths, &name),
        Some(Command::Agent) => run_agent(cli.options),
        None => run_keeper(&cli.options, &args[1..]),
    }
}

/// What cannot be right is said before any process is started.
fn run_keeper(options: &Options, args: &[OsString]) -> i32 {
    if let Err(why) = Config::load(options.config.as_deref()) {
        eprintln!("limpet-agent: {why}");
        return 2;
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(e) => {
            eprintln!("limpet-agent: cannot find its own program: {e}");
            return 1;
        }
    };
    match keeper::run(&program, args, Some(&options.data_dir)) {
        // The agent has said why.
        keeper::EXIT_CONFIG => 1,
        code => code,
    }
}

fn run_agent(options: Options) -> i32 {
    let config = match Config::load(options.config.as_deref()) {
        Ok(config) => config,
        Err(why) => {
            eprintln!("limpet-agent: {why}");
            return keeper::EXIT_CONFIG;
        }
    };
    logger::start(&config.log);
    // The keeper hears its signals through an fd and has them blocked; this process wants them delivered.
    if let Err(e) = nix::sys::signal::SigSet::empty().thread_set_mask() {
        log::warn!("signals stay blocked: {e}");
    }
    let Some(socket) = keeper_socket() else {
        eprintln!("limpet-agent: `agent` is started by the keeper; run `limpet-agent` without a command");
        return 2;
    };
    let start = StartOptions {
        paths: Paths { data: options.data_dir, run: options.run_dir },
        config,
        join: options.join,
        node_name: options.node_name,
        program: PathBuf::from("/proc/self/exe"),
    };
    agent::run(start, socket)
}

#[allow(unsafe_code)]
fn keeper_socket() -> Option<OwnedFd> {
    let kind = std::fs::read_link(format!("/proc/self/fd/{}", keeper::AGENT_FD)).ok()?;
    if !kind.as_os_str().as_encoded_bytes().starts_with(b"socket:") {
        return None;
    }
    // SAFETY: the keeper placed its socket on this number before this program began; nothing else here owns it.
    Some(unsafe { OwnedFd::from_raw_fd(keeper::AGENT_FD) })
}
