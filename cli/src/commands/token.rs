//! `limpet token`: the keys to the door for new boards.
//!
//! In: a hub's data directory. Out: tokens. Never: shows a secret twice; the hub keeps only its hash.

use super::{Dir, Outcome};
use crate::{duration, table};
use clap::Subcommand;
use limpet_hub::{
    enroll::{TokenRecord, TokenWish},
    operate,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Make, list and revoke join tokens.
///
/// A board that starts with `limpet-agent --join TOKEN` gets a certificate of its own; after that the token is not
/// needed. Works while the hub runs and while it does not.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a token and print it
    Create {
        /// How long it opens the door: 90s, 15m, 24h, 30d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration::parse)]
        ttl: Duration,
        /// How many boards may join with it [default: any number]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        uses: Option<u32>,
        /// Only the board of this name; also lets it join again with a new key
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Boards that join with it belong to this pool (label `limpet.dev/pool`)
        #[arg(long, value_name = "POOL")]
        pool: Option<String>,
        /// Boards wait until `limpet node approve` lets them in
        #[arg(long)]
        wait: bool,
        /// …but not those whose name fits, as in `pi-*`; implies --wait
        #[arg(long, value_name = "PATTERN")]
        approve: Vec<String>,
        #[command(flatten)]
        dir: Dir,
    },
    /// List tokens, without their secrets
    List {
        #[command(flatten)]
        dir: Dir,
    },
    /// Revoke a token; boards that joined with it stay
    Revoke {
        /// The token's id, as `limpet token list` shows it
        id: String,
        #[command(flatten)]
        dir: Dir,
    },
}

pub fn run(args: Args) -> Outcome {
    match args.command {
        Command::Create { ttl, uses, node, pool, wait, approve, dir } => {
            let wish = TokenWish { ttl_seconds: ttl.as_secs(), uses, node, pool, wait, approve };
            let made = operate::create_token(&dir.data_dir, &wish).map_err(|e| e.to_string())?;
            println!("{}", made.token);
            Ok(())
        }
        Command::List { dir } => {
            let tokens = operate::list_tokens(&dir.data_dir).map_err(|e| e.to_string())?;
            let rows: Vec<_> = tokens.iter().map(row).collect();
            print!("{}", table::render(["ID", "EXPIRES IN", "USES LEFT", "NODE", "POOL", "APPROVAL", "USED BY"], &rows));
            Ok(())
        }
        Command::Revoke { id, dir } => match operate::revoke_token(&dir.data_dir, &id) {
            Ok(true) => {
                println!("token {id} revoked");
                Ok(())
            }
            Ok(false) => Err(format!("there is no token {id}; `limpet token list` shows those that there are")),
            Err(e) => Err(e.to_string()),
        },
    }
}

fn row(token: &TokenRecord) -> [String; 7] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_millis(token.expires_ms).saturating_sub(now);
    let expires = match left.is_zero() {
        true => "expired".into(),
        false => duration::text(left),
    };
    let uses = token.uses_left.map_or("any".into(), |n| n.to_string());
    let node = token.node.clone().unwrap_or_else(|| "any".into());
    let used_by = match token.used_by.is_empty() {
        true => "-".into(),
        false => token.used_by.join(","),
    };
    let pool = token.pool.clone().unwrap_or_else(|| "-".into());
    let approval = match (token.wait, token.approve.is_empty()) {
        (false, _) => "not needed".into(),
        (true, true) => "needed".into(),
        (true, false) => format!("needed, but {}", token.approve.join(",")),
    };
    [token.id.clone(), expires, uses, node, pool, approval, used_by]
}
