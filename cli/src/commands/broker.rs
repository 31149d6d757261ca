//! `limpet broker`: what an external MQTT broker needs to serve a hub and its boards.
//!
//! In: which broker; the hub's data directory for its CA. Out: an ACL; files for Mosquitto. Never: talks to a broker.

use super::{Dir, Outcome};
use clap::{Subcommand, ValueEnum};
use limpet_hub::{acl, operate};
use std::path::PathBuf;

/// Set up an MQTT broker that is not the hub's own, for `limpet hub --broker`.
///
/// What hub and boards say by way of it is sealed: the broker can neither read nor forge it (docs/guides/external-broker.md).
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Mosquitto,
    Emqx,
}

#[derive(Subcommand)]
enum Command {
    /// Print the ACL: each board its own topics, the hub all of them, nobody else anything
    ///
    /// It is the same for all fleets, and does not change when boards come and go.
    Acl {
        #[arg(long, value_enum, default_value = "mosquitto")]
        format: Format,
        /// The hub's user name at the broker
        #[arg(long, value_name = "NAME", default_value = acl::HUB_USER)]
        hub_username: String,
        /// One user name for all boards, where the broker does not take it from certificates
        #[arg(long, value_name = "NAME")]
        node_username: Option<String>,
    },
    /// Write mosquitto.conf, the ACL, a certificate for the broker and the CA of the boards into a directory
    Setup {
        /// Name or address under which hub and boards reach the broker; may be repeated
        #[arg(long, value_name = "NAME", required = true)]
        host: Vec<String>,
        /// The directory; made when missing
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The broker's port
        #[arg(long, value_name = "PORT", default_value_t = 8883)]
        port: u16,
        #[command(flatten)]
        dir: Dir,
    },
}

pub fn run(args: Args) -> Outcome {
    match args.command {
        Command::Acl { format, hub_username, node_username } => {
            let format = match format {
                Format::Mosquitto => acl::Format::Mosquitto,
                Format::Emqx => acl::Format::Emqx,
            };
            print!("{}", acl::text(format, &hub_username, node_username.as_deref())?);
            Ok(())
        }
        Command::Setup { host, out, port, dir } => {
            let made = operate::broker::setup(&dir.data_dir, &out, &host, port).map_err(|e| e.to_string())?;
            println!("{}: ready for Mosquitto. Its user must be able to read broker.key. Then:", out.display());
            println!("  mosquitto -c {}", made.config.display());
            println!("  limpet hub --broker mqtts://{} --broker-cafile {} …", made.address, made.ca.display());
            Ok(())
        }
    }
}
