//! `limpet token create|list|revoke`.
//!
//! In: wishes on the command line. Out: one token on stdout, or a table.
//! While the hub runs it is asked over its API; while it does not, its store is opened directly.
//! Never: prints a secret other than the one just made.

use crate::{client::{self, Failure}, kubeconfig, units};
use limpet_hub::{
    enroll::{TokenMade, TokenRecord, TokenWish},
    hub::offline_enroll,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const TOKENS_PATH: &str = "/limpet/v1/tokens";

#[derive(clap::Subcommand)]
pub enum Command {
    /// Print one join token: hub address, CA fingerprint and a secret in one line
    Create {
        /// How long it opens the door (90s, 15m, 24h, 30d)
        #[arg(long, default_value = "24h", value_parser = units::duration)]
        ttl: Duration,
        /// How many boards may join with it [default: any number]
        #[arg(long, value_name = "N")]
        uses: Option<u32>,
        /// Only a board of this name may join with it (also lets a re-flashed board take its old name)
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// The hub's --data-dir
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
    },
    /// List tokens, without their secrets
    List {
        /// The hub's --data-dir
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
    },
    /// Make a token useless; boards that joined with it stay
    Revoke {
        /// The token's id, as `limpet token list` shows it
        id: String,
        /// The hub's --data-dir
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
    },
}

pub fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Create { ttl, uses, node, data_dir } => {
            let wish = TokenWish { ttl_seconds: ttl.as_secs(), uses, node };
            println!("{}", create(&data_dir, &wish)?.token);
        }
        Command::List { data_dir } => print_table(&list(&data_dir)?),
        Command::Revoke { id, data_dir } => match revoke(&data_dir, &id)? {
            true => println!("token {id} revoked"),
            false => return Err(format!("there is no token {id}; see `limpet token list`")),
        },
    }
    Ok(())
}

fn create(data_dir: &Path, wish: &TokenWish) -> Result<TokenMade, String> {
    let body = serde_json::to_value(wish).map_err(|e| e.to_string())?;
    match ask(data_dir, "POST", TOKENS_PATH, Some(&body))? {
        Some(made) => serde_json::from_value(made).map_err(|e| format!("unexpected answer: {e}")),
        None => {
            let office = offline_enroll(data_dir).map_err(|e| e.to_string())?;
            wait(office.create_token(wish, SystemTime::now()))?.map_err(|e| e.to_string())
        }
    }
}

fn list(data_dir: &Path) -> Result<Vec<TokenRecord>, String> {
    match ask(data_dir, "GET", TOKENS_PATH, None)? {
        Some(mut all) => serde_json::from_value(all["items"].take()).map_err(|e| format!("unexpected answer: {e}")),
        None => Ok(offline_enroll(data_dir).map_err(|e| e.to_string())?.tokens()),
    }
}

fn revoke(data_dir: &Path, id: &str) -> Result<bool, String> {
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(format!("{id:?} is not a token's id; see `limpet token list`"));
    }
    match ask(data_dir, "DELETE", &format!("{TOKENS_PATH}/{id}"), None)? {
        Some(answer) => Ok(answer["revoked"] == json!(true)),
        None => {
            let office = offline_enroll(data_dir).map_err(|e| e.to_string())?;
            wait(office.revoke_token(id))?.map_err(|e| e.to_string())
        }
    }
}

/// The running hub's answer; `None` when no hub runs.
fn ask(data_dir: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<Option<Value>, String> {
    let access = kubeconfig::read(data_dir)?;
    match client::request(&access, method, path, body) {
        Ok(value) => Ok(Some(value)),
        Err(Failure::NotRunning) => Ok(None),
        Err(Failure::Other(message)) => Err(message),
    }
}

fn wait<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|e| e.to_string())?.block_on(future))
}

fn print_table(tokens: &[TokenRecord]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    println!("{:<8} {:<9} {:<9} {:<20} USED BY", "ID", "EXPIRES", "USES LEFT", "ONLY NODE");
    for token in tokens {
        let expires = match token.expires_ms.checked_sub(now) {
            Some(left) => units::short(left / 1000),
            None => "expired".into(),
        };
        let uses = token.uses_left.map_or("any".into(), |n| n.to_string());
        let node = token.node.as_deref().unwrap_or("-");
        println!("{:<8} {expires:<9} {uses:<9} {node:<20} {}", token.id, token.used_by.join(","));
    }
}
