//! What nodes and containers use now, asked of the nodes when somebody wants to know.
//!
//! In: names of nodes. Out: their figures, at most `FRESH` old. A node that is away or slow has none.
//! Never: asks without a question: an idle fleet sends nothing; two questions at once are one.

use crate::run::{
    World,
    streams::{FromNode, Streams},
};
use limpet_hub_core::{Timestamp, control};
use limpet_protocol::{StreamKind, StreamOpen};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// As often as metrics-server scrapes.
const FRESH: Duration = Duration::from_secs(15);
/// A node measures for a second when nobody asked it lately.
const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Older figures than this are none to an autoscaler.
const KEPT_S: i64 = 60;
/// Pods that autoscalers ask for between two rounds of questions.
const WANTED_MAX: usize = 4096;
/// The lane on which node documents come.
const OUTPUT: u8 = 1;

/// One node's answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeUsage {
    pub window_ms: u64,
    /// Billionths of a core, bytes.
    pub node: (u64, u64),
    /// (namespace, name, containers).
    pub pods: Vec<(String, String, Vec<ContainerUsage>)>,
    #[serde(skip)]
    pub at: Timestamp,
}

/// (name, billionths of a core, bytes).
pub type ContainerUsage = (String, u64, u64);

/// One node's answer and when it came; the lock is held while the node is asked.
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Option<Arc<NodeUsage>>)>>>;

#[derive(Clone)]
pub struct Usage {
    streams: Streams,
    slots: Arc<Mutex<BTreeMap<String, Slot>>>,
    /// The last answers, for those who cannot wait.
    known: Arc<Mutex<BTreeMap<String, Arc<NodeUsage>>>>,
    /// Pods (namespace, name) whose nodes shall be asked.
    wanted: mpsc::Sender<(String, String)>,
}

impl Usage {
    /// Answers those who wait at once; a task asks for those who cannot.
    pub fn start(streams: Streams, world: Arc<World>) -> Usage {
        let (wanted, mut asked) = mpsc::channel::<(String, String)>(WANTED_MAX);
        let usage = Usage { streams, slots: Arc::default(), known: Arc::default(), wanted };
        let own = usage.clone();
        tokio::spawn(async move {
            let mut pods = Vec::new();
            while asked.recv_many(&mut pods, WANTED_MAX).await > 0 {
                let nodes: BTreeSet<String> = {
                    let view = world.read();
                    own.keep(|node| view.node(node).is_some());
                    let node = |(ns, name): &(String, String)| view.pod(ns, name)?.node.as_deref().map(str::to_owned);
                    pods.iter().filter_map(node).collect()
                };
                pods.clear();
                own.of(nodes).await;
            }
        });
        usage
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<NodeUsage>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Figures of those of the nodes that answer, asked side by side; of those at another hub that hub is asked once.
    pub async fn of(&self, nodes: impl IntoIterator<Item = String>) -> BTreeMap<String, Arc<NodeUsage>> {
        let (mut here, mut elsewhere) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
        for node in nodes {
            match self.streams.holder(&node) {
                Some(hub) => elsewhere.entry(hub).or_default().push(node),
                None => here.push(node),
            }
        }
        let asked = elsewhere.iter().map(|(hub, nodes)| self.of_hub(hub, nodes));
        let (mut all, others) = tokio::join!(self.of_here(here), futures_util::future::join_all(asked));
        all.extend(others.into_iter().flatten());
        all
    }

    /// The same for nodes that are connected to this hub, or to none.
    pub async fn of_here(&self, nodes: impl IntoIterator<Item = String>) -> BTreeMap<String, Arc<NodeUsage>> {
        let nodes = nodes.into_iter().filter(|node| self.streams.is_here(node));
        let asked = nodes.map(|node| async move {
            let usage = self.one(&node).await;
            usage.map(|usage| (node, usage))
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Nodes of another hub: what was heard a moment ago is not asked for again.
    async fn of_hub(&self, hub: &str, nodes: &[String]) -> Vec<(String, Arc<NodeUsage>)> {
        let (mut all, mut unknown) = (Vec::new(), Vec::new());
        for node in nodes {
            match &*self.slot(node).lock().await {
                Some((at, usage)) if at.elapsed() < FRESH => all.extend(usage.clone().map(|usage| (node.clone(), usage))),
                _ => unknown.push(node.clone()),
            }
        }
        let Some(road) = self.streams.road().filter(|_| !unknown.is_empty()) else { return all };
        let mut heard = road.usage(hub, &unknown).await;
        for node in unknown {
            let usage = heard.remove(&node).map(|usage| Arc::new(NodeUsage { at: super::clock::now(), ..usage }));
            let slot = self.slot(&node);
            self.heard(&node, usage.clone(), &mut *slot.lock().await);
            all.extend(usage.map(|usage| (node, usage)));
        }
        all
    }

    fn slot(&self, node: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(node.to_owned()).or_default())
    }

    fn heard(&self, node: &str, usage: Option<Arc<NodeUsage>>, slot: &mut Option<(Instant, Option<Arc<NodeUsage>>)>) {
        *slot = Some((Instant::now(), usage.clone()));
        match usage {
            Some(usage) => drop(self.known().insert(node.to_owned(), usage)),
            None => drop(self.known().remove(node)),
        }
    }

    async fn one(&self, node: &str) -> Option<Arc<NodeUsage>> {
        let slot = self.slot(node);
        let mut slot = slot.lock().await;
        if let Some((at, usage)) = &*slot
            && at.elapsed() < FRESH
        {
            return usage.clone();
        }
        let usage = match tokio::time::timeout(PATIENCE, self.ask(node)).await {
            Ok(Ok(usage)) => Some(Arc::new(usage)),
            Ok(Err(why)) => {
                tracing::debug!(node, "no usage: {why}");
                None
            }
            Err(_) => None,
        };
        self.heard(node, usage.clone(), &mut slot);
        usage
    }

    async fn ask(&self, node: &str) -> Result<NodeUsage, String> {
        let open = StreamOpen {
            namespace: String::new(),
            pod: String::new(),
            uid: String::new(),
            kind: StreamKind::NodeGet { path: "/limpet/usage".into() },
        };
        let handle = self.streams.open_here(node, open).await.map_err(|e| e.to_string())?;
        let mut body = Vec::new();
        while let Some(said) = handle.recv().await {
            match said {
                FromNode::Data { lane: OUTPUT, bytes } if body.len() + bytes.len() <= ANSWER_BYTES_MAX => {
                    body.extend_from_slice(&bytes);
                }
                FromNode::Data { lane: OUTPUT, .. } => return Err("the answer is too long".into()),
                FromNode::End { error, .. } if !error.is_empty() => return Err(error),
                FromNode::End { .. } => break,
                FromNode::Data { .. } | FromNode::Eof { .. } => {}
            }
        }
        let mut usage: NodeUsage = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
        usage.at = super::clock::now();
        Ok(usage)
    }

    /// Nodes that are gone need no place.
    fn keep(&self, known: impl Fn(&str) -> bool) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).retain(|node, _| known(node));
        self.known().retain(|node, _| known(node));
    }
}

/// For autoscalers, which take what is at hand: the first question brings no figures but has them fetched.
impl control::Metrics for Usage {
    fn pod(&self, namespace: &str, pod: &str) -> Option<control::Usage> {
        let now = super::clock::now();
        let found = self.known().values().find_map(|node| {
            let (_, _, containers) = node.pods.iter().find(|(ns, name, _)| ns == namespace && name == pod)?;
            let age = now.as_second() - node.at.as_second();
            let container = |(name, nano, bytes): &ContainerUsage| control::Container {
                name: name.clone(),
                cpu_milli: i64::try_from(nano.div_ceil(1_000_000)).unwrap_or(i64::MAX),
                memory: i64::try_from(*bytes).unwrap_or(i64::MAX),
            };
            let usage = control::Usage {
                at: node.at,
                window_s: i64::try_from(node.window_ms / 1000).unwrap_or(0).max(1),
                containers: containers.iter().map(container).collect(),
            };
            Some((age, usage))
        });
        if found.as_ref().is_none_or(|(age, _)| *age >= FRESH.as_secs() as i64) {
            // Full: the round that is under way is for many already.
            let _ = self.wanted.try_send((namespace.to_owned(), pod.to_owned()));
        }
        found.filter(|(age, _)| *age <= KEPT_S).map(|(_, usage)| usage)
    }
}
