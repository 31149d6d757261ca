//! `limpet messages`: what workloads on boards say to the hub, and words for them.
//!
//! In: a namespace, topics, a payload. Out: messages as lines, old ones and those that come; which boards got one.
//! Never: a connection to a board; the hub has what they delivered.

use super::{Outcome, Reach};
use clap::{Subcommand, ValueEnum};
use limpet_hub::operate;
use serde_json::Value;
use std::io::{Read, Write};

/// More than a message may have; the hub says by how much.
const PAYLOAD_BYTES_MAX: u64 = 1024 * 1024;

/// Show messages that pods published on their board's MQTT broker under `up/`, and publish there under `down/`.
///
/// A pod has that broker where its annotation limpet.dev/broker is "true"; messages wait on the board while the hub is away.
/// Examples: limpet messages show -n shop --topic 'up/till/#' -f; limpet messages send down/sign "closed at six" -n shop
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print messages that boards delivered
    Show(ShowArgs),
    /// Publish to the boards that run pods of the namespace with a broker; boards that are away do not get it
    Send(SendArgs),
}

#[derive(clap::Args)]
struct ShowArgs {
    /// Namespace of the pods
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Only topics that this MQTT filter matches, such as up/+/alarm
    #[arg(long, value_name = "FILTER")]
    topic: Option<String>,
    /// Only of this board
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// So many of the newest [default: all that are kept; with --follow: none]
    #[arg(long, value_name = "COUNT")]
    tail: Option<u32>,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// How to print
    #[arg(short, long, default_value = "text")]
    output: Form,
    #[command(flatten)]
    hub: Reach,
}

#[derive(clap::Args)]
struct SendArgs {
    /// Where to: down/…
    topic: String,
    /// What to say; `-`: what comes on stdin
    payload: String,
    /// Namespace of the pods
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Only to this board
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Keep it on the boards for clients that subscribe later
    #[arg(long)]
    retain: bool,
    #[command(flatten)]
    hub: Reach,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

pub fn run(args: Args) -> Outcome {
    match args.command {
        Command::Show(args) => show(&args),
        Command::Send(args) => send(&args),
    }
}

fn show(args: &ShowArgs) -> Outcome {
    let mut query = Query::new(&args.namespace)?;
    query.add("topic", args.topic.as_deref());
    query.add("node", args.node.as_deref());
    query.add("tail", args.tail.map(|n| n.to_string()).as_deref());
    query.add("watch", args.follow.then_some("true"));
    let mut out = std::io::stdout().lock();
    let print = |line: &str| {
        let text = if args.output == Form::Json { line.to_owned() } else { text(line) };
        // Whoever reads may have seen enough.
        writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
    };
    operate::lines(&args.hub.kubeconfig()?, &query.path, print).map_err(|e| e.to_string())
}

fn send(args: &SendArgs) -> Outcome {
    let mut query = Query::new(&args.namespace)?;
    query.add("topic", Some(&args.topic));
    query.add("node", args.node.as_deref());
    query.add("retain", args.retain.then_some("true"));
    let mut payload = args.payload.clone().into_bytes();
    if args.payload == "-" {
        payload.clear();
        let read = std::io::stdin().take(PAYLOAD_BYTES_MAX).read_to_end(&mut payload);
        read.map_err(|e| format!("cannot read what to say: {e}"))?;
    }
    let answer = operate::post(&args.hub.kubeconfig()?, &query.path, payload).map_err(|e| e.to_string())?;
    let names = |field: &str| -> Vec<String> {
        let all = answer[field].as_array().into_iter().flatten();
        all.filter_map(|n| n.as_str().map(String::from)).collect()
    };
    let (sent, away) = (names("sent"), names("away"));
    if !sent.is_empty() {
        println!("sent to {}", sent.join(", "));
    }
    match (sent.is_empty(), away.is_empty()) {
        (_, false) => Err(format!("away, and without the message: {}", away.join(", "))),
        (true, true) => Err(format!(
            "no board has a pod in namespace {} with the annotation limpet.dev/broker: \"true\"{}",
            args.namespace,
            args.node.as_ref().map(|n| format!(" and is {n}")).unwrap_or_default()
        )),
        (false, true) => Ok(()),
    }
}

struct Query {
    path: String,
    more: bool,
}

impl Query {
    fn new(namespace: &str) -> Result<Query, String> {
        let fine = namespace.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') && !namespace.is_empty();
        if !fine {
            return Err(format!("{namespace:?} cannot be the name of a namespace"));
        }
        Ok(Query { path: format!("/limpet/v1/messages/{namespace}"), more: false })
    }

    fn add(&mut self, key: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.path.push(if self.more { '&' } else { '?' });
        self.more = true;
        self.path.push_str(key);
        self.path.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => self.path.push(byte.into()),
                other => self.path.push_str(&format!("%{other:02X}")),
            }
        }
    }
}

/// Time, board and pod, topic, payload. Control characters of a payload do not reach the terminal.
fn text(line: &str) -> String {
    let Ok(value) = serde_json::from_str::<Value>(line) else { return line.escape_debug().to_string() };
    if let Some(missed) = value["missed"].as_u64() {
        return format!("({missed} messages came too fast to be shown)");
    }
    let word = |field: &str| value[field].as_str().unwrap_or_default();
    let plain = |text: &str| -> String {
        let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        text.chars().map(shown).collect()
    };
    let payload = match (value["payload"].as_str(), value["payloadBase64"].as_str()) {
        (Some(text), _) => plain(text),
        (None, Some(bytes)) => format!("base64:{bytes}"),
        (None, None) => String::new(),
    };
    let lost = value["lostBefore"].as_u64().map(|n| format!("({n} messages before this one were lost)\n")).unwrap_or_default();
    format!("{lost}{}  {}/{}  {}  {payload}", word("time"), word("node"), word("pod"), plain(word("topic")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_well_and_control_no_terminal() {
        let line = r#"{"node":"b","pod":"p","topic":"up/x","number":3,"time":"2026-11-26T04:00:00Z","payload":"a\u001b[2J"}"#;
        assert_eq!(text(line), "2026-11-26T04:00:00Z  b/p  up/x  a\\u{1b}[2J");
        let line = r#"{"node":"b","pod":"p","topic":"up/x","time":"t","payloadBase64":"/w==","lostBefore":2}"#;
        assert_eq!(text(line), "(2 messages before this one were lost)\nt  b/p  up/x  base64:/w==");
        assert_eq!(text(r#"{"missed":7}"#), "(7 messages came too fast to be shown)");
        assert_eq!(text("\u{7}"), "\\u{7}");
    }

    #[test]
    fn queries_are_escaped() {
        let mut query = Query::new("shop").unwrap();
        query.add("topic", Some("up/+/a b&c#"));
        query.add("node", None);
        query.add("watch", Some("true"));
        assert_eq!(query.path, "/limpet/v1/messages/shop?topic=up/%2B/a%20b%26c%23&watch=true");
        assert!(Query::new("../x").is_err() && Query::new("").is_err());
    }
}
