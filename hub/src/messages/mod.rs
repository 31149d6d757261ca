//! Messages of workloads that boards delivered: kept within bounds, shown to whoever may see them, as they come.
//!
//! In: rows of `BoardMessage`s of nodes. Out: lines of JSON, from the past and as they come.
//! Shape: `<data>/messages/<node>.log`, a line of JSON for each, and `<node>.log.1` before it. A device counts its messages by
//! itself: each line says whose number it has (`limpet_hub_core::nodes::holder`), for a node may get another board or card.
//! Never: confirms what is not on the disk; grows without a bound; waits for a reader.

use base64::{Engine, engine::general_purpose::STANDARD};
use limpet_protocol::BoardMessage;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::broadcast;

/// Of one node; its file before this one may be as long.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Messages that a reader may be behind.
const BEHIND_MAX: usize = 1024;
/// Longer than the longest line of a message.
const TAIL_BYTES: u64 = 512 * 1024;

/// One message as readers get it.
#[derive(Clone, Debug)]
pub struct Line {
    pub namespace: Arc<str>,
    pub topic: Arc<str>,
    pub node: Arc<str>,
    /// JSON and a newline.
    pub text: Arc<str>,
}

/// Which messages somebody wants.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub namespace: String,
    /// An MQTT filter; empty: all.
    pub topic: String,
    pub node: String,
}

impl Wish {
    pub fn matches(&self, line: &Line) -> bool {
        *line.namespace == *self.namespace
            && (self.node.is_empty() || *line.node == *self.node)
            && (self.topic.is_empty() || limpet_protocol::topic::matches(&self.topic, &line.topic))
    }
}

pub struct Messages {
    dir: PathBuf,
    /// Who counts as a node, and the number of its newest message that is on the disk.
    last: Mutex<BTreeMap<String, (String, u64)>>,
    news: broadcast::Sender<Line>,
}

impl Messages {
    pub fn open(data_dir: &Path) -> Messages {
        Messages { dir: data_dir.join("messages"), last: Mutex::default(), news: broadcast::channel(BEHIND_MAX).0 }
    }

    fn path(&self, node: &str) -> PathBuf {
        self.dir.join(format!("{node}.log"))
    }

    /// Writes a row down; what is there already is passed over. `device`: who has counted. Waits for the disk.
    pub fn take(&self, node: &str, device: &str, row: &[BoardMessage]) -> io::Result<()> {
        let known = self.last.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned();
        let mut last = match known {
            Some((counted, last)) if counted == device => last,
            _ => self.newest(node, device)?,
        };
        let mut lines = Vec::new();
        for message in row {
            if message.number > last {
                last = message.number;
                lines.push(line_of(node, device, message));
            }
        }
        if !lines.is_empty() {
            std::fs::create_dir_all(&self.dir)?;
            let path = self.path(node);
            if path.metadata().is_ok_and(|m| m.len() > FILE_BYTES_MAX) {
                std::fs::rename(&path, path.with_extension("log.1"))?;
            }
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            let before = file.metadata()?.len();
            let text: String = lines.iter().map(|l| &*l.text).collect();
            if let Err(e) = file.write_all(text.as_bytes()).and_then(|()| file.sync_data()) {
                // Half a line would spoil the next one.
                let _ = file.set_len(before);
                return Err(e);
            }
        }
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(node.into(), (device.into(), last));
        for line in lines {
            let _ = self.news.send(line);
        }
        Ok(())
    }

    /// From the last whole line of this device in the node's newest file.
    fn newest(&self, node: &str, device: &str) -> io::Result<u64> {
        for path in [self.path(node), self.path(node).with_extension("log.1")] {
            let mut file = match File::open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let len = file.metadata()?.len();
            file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            if let Some(end) = tail.iter().rposition(|b| *b == b'\n').filter(|at| at + 1 < tail.len()) {
                // Cut by a crash.
                OpenOptions::new().write(true).open(&path)?.set_len(len - (tail.len() - end - 1) as u64)?;
            }
            let lines = tail.split(|b| *b == b'\n').rev().filter_map(|l| serde_json::from_slice::<Value>(l).ok());
            let mut lines = lines.filter(|l| l["number"].is_u64()).peekable();
            if lines.peek().is_some() {
                // Lines of older hubs name no device.
                let own = lines.find(|l| l["device"].as_str().is_none_or(|d| d == device));
                return Ok(own.and_then(|l| l["number"].as_u64()).unwrap_or(0));
            }
        }
        Ok(0)
    }

    /// What comes from now on.
    pub fn watch(&self) -> broadcast::Receiver<Line> {
        self.news.subscribe()
    }

    /// The newest `tail` lines that are wanted, a node's in their order, nodes by name.
    pub fn past(&self, wish: &Wish, tail: usize) -> Vec<Line> {
        let mut names: Vec<String> = std::fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".log")?.to_owned()))
            .filter(|name| wish.node.is_empty() || *name == wish.node)
            .collect();
        names.sort();
        let mut lines = Vec::new();
        for name in names {
            for path in [self.path(&name).with_extension("log.1"), self.path(&name)] {
                let Ok(file) = File::open(path) else { continue };
                for text in BufReader::new(file).lines().map_while(Result::ok) {
                    lines.extend(parse(&name, text).filter(|l| wish.matches(l)));
                }
            }
        }
        let from = lines.len().saturating_sub(tail);
        lines.split_off(from)
    }
}

fn line_of(node: &str, device: &str, m: &BoardMessage) -> Line {
    let at = i64::try_from(m.at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    let mut line = json!({"node": node, "device": device, "namespace": m.namespace, "pod": m.pod, "topic": m.topic,
        "number": m.number, "time": at.to_string()});
    match std::str::from_utf8(&m.payload) {
        Ok(text) => line["payload"] = text.into(),
        Err(_) => line["payloadBase64"] = STANDARD.encode(&m.payload).into(),
    }
    if m.lost > 0 {
        line["lostBefore"] = m.lost.into();
    }
    Line {
        namespace: m.namespace.as_str().into(),
        topic: m.topic.as_str().into(),
        node: node.into(),
        text: format!("{line}\n").into(),
    }
}

fn parse(node: &str, mut text: String) -> Option<Line> {
    let value: Value = serde_json::from_str(&text).ok()?;
    text.push('\n');
    Some(Line {
        namespace: value["namespace"].as_str()?.into(),
        topic: value["topic"].as_str()?.into(),
        node: node.into(),
        text: text.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u64) -> BoardMessage {
        BoardMessage {
            number,
            namespace: if number % 2 == 0 { "even" } else { "odd" }.into(),
            pod: "p".into(),
            topic: format!("up/{}", number % 3),
            payload: number.to_string().into_bytes(),
            ..BoardMessage::default()
        }
    }

    fn payloads(lines: &[Line]) -> Vec<u64> {
        let value = |l: &Line| serde_json::from_str::<Value>(&l.text).unwrap();
        lines.iter().map(|l| value(l)["payload"].as_str().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn every_message_once_and_only_to_those_who_asked() {
        let dir = tempfile::tempdir().unwrap();
        let all = Messages::open(dir.path());
        let mut news = all.watch();
        all.take("n", "a", &[message(5), message(6)]).unwrap();
        all.take("n", "a", &[message(6), message(7)]).unwrap();
        all.take("m", "a", &[message(6)]).unwrap();
        assert_eq!(news.len(), 4);
        assert_eq!(&*news.try_recv().unwrap().topic, "up/2");
        let wish = |namespace: &str, topic: &str, node: &str| Wish {
            namespace: namespace.into(),
            topic: topic.into(),
            node: node.into(),
        };
        assert_eq!(payloads(&all.past(&wish("odd", "", ""), 9)), [5, 7]);
        assert_eq!(payloads(&all.past(&wish("odd", "up/1", ""), 9)), [7]);
        assert_eq!(payloads(&all.past(&wish("even", "up/#", ""), 9)), [6, 6]);
        assert_eq!(payloads(&all.past(&wish("even", "", "n"), 9)), [6]);
        assert_eq!(payloads(&all.past(&wish("odd", "", ""), 1)), [7]);
        // A crash cut the last line; a restart knows where it was.
        let path = dir.path().join("messages/n.log");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"num").unwrap();
        let all = Messages::open(dir.path());
        all.take("n", "a", &[message(7), message(9)]).unwrap();
        assert_eq!(payloads(&all.past(&wish("odd", "", "n"), 9)), [5, 7, 9]);
        let odd = BoardMessage { payload: vec![0xff], lost: 3, number: 11, ..message(11) };
        all.take("n", "a", &[odd]).unwrap();
        let last = all.past(&wish("odd", "", "n"), 1);
        assert!(last[0].text.contains("\"payloadBase64\":\"/w==\"") && last[0].text.contains("\"lostBefore\":3"));
    }

    /// A card that was copied, or written anew: whoever is the node now counts from where it was, which is further back.
    #[test]
    fn another_device_counts_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let wish = Wish { namespace: "odd".into(), ..Wish::default() };
        let all = Messages::open(dir.path());
        all.take("n", "first", &[message(901), message(903)]).unwrap();
        all.take("n", "second", &[message(7), message(9)]).unwrap();
        all.take("n", "second", &[message(9), message(11)]).unwrap();
        assert_eq!(payloads(&all.past(&wish, 9)), [901, 903, 7, 9, 11]);
        // The first one again, of whose messages some are here; and all of it after a restart of the hub, too.
        for again in 0..2 {
            let all = Messages::open(dir.path());
            all.take("n", "first", &[message(903), message(905 + again * 2)]).unwrap();
            all.take("n", "second", &[message(11), message(13 + again * 2)]).unwrap();
        }
        assert_eq!(payloads(&all.past(&wish, 9)), [901, 903, 7, 9, 11, 905, 13, 907, 15]);
        // A third one has nothing here yet.
        Messages::open(dir.path()).take("n", "third", &[message(1)]).unwrap();
        assert_eq!(payloads(&all.past(&wish, 1)), [1]);
    }

    #[test]
    fn what_an_older_hub_wrote_is_anybodys() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("messages")).unwrap();
        let old = r#"{"node":"n","namespace":"odd","pod":"p","topic":"t","number":41,"time":"","payload":"41"}"#;
        std::fs::write(dir.path().join("messages/n.log"), format!("{old}\n")).unwrap();
        let all = Messages::open(dir.path());
        all.take("n", "a", &[message(41), message(43)]).unwrap();
        assert_eq!(payloads(&all.past(&Wish { namespace: "odd".into(), ..Wish::default() }, 9)), [41, 43]);
    }

    #[test]
    fn a_talkative_node_does_not_fill_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let all = Messages::open(dir.path());
        for n in 1..=200 {
            all.take("n", "a", &[BoardMessage { payload: vec![b'x'; 60_000], ..message(n) }]).unwrap();
        }
        let files = std::fs::read_dir(dir.path().join("messages")).unwrap();
        let bytes: u64 = files.map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= 2 * (FILE_BYTES_MAX + 100_000), "{bytes}");
    }
}
