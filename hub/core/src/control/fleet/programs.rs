//! What boards are to run: versions of the agent and of Limpet OS, as annotations of nodes name them.
//!
//! In: a rollout's change, a node's status. Out: whether the node runs that, or why it will not by itself.
//! Never: an opinion of its own: a board tells what it runs, and what it left.

use crate::view::{FleetRollout, Node};
use limpet_protocol::os_update;

/// Annotation of a node: the version that its agent should have.
pub const AGENT_VERSION: &str = "limpet.dev/agent-version";
const AGENT_CONDITION: &str = "AgentUpToDate";

/// What of a rollout's change stays with a board when the rollout goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Nothing,
    /// A system is in the board's hands: soon it stays up, or the board is back with the one before.
    OnTrial,
    /// A system that runs.
    Runs,
}

/// The versions that a rollout gives to boards.
pub struct Programs {
    agent: Option<String>,
    system: Option<String>,
}

impl Programs {
    pub fn of(rollout: &FleetRollout) -> Programs {
        let annotations = rollout.field("/spec/change/metadata/annotations");
        let named = |key: &str| annotations[key].as_str().map(String::from);
        Programs { agent: named(AGENT_VERSION), system: named(os_update::WANTED) }
    }

    /// A system on trial is none yet: the board says so in its condition.
    pub fn run_on(&self, node: &Node) -> bool {
        let agent = |wanted: &String| agent_version(node).is_some_and(|runs| runs == *wanted);
        let system = |wanted: &String| {
            let trial = says(node, os_update::CONDITION).is_some_and(|(reason, _)| reason != "AsWanted");
            !trial && system_version(node).is_some_and(|runs| os_update::same(&runs, wanted))
        };
        self.agent.as_ref().is_none_or(agent) && self.system.as_ref().is_none_or(system)
    }

    /// Whether the board has the system, which it keeps: none goes back to an older one.
    pub fn kept_by(&self, node: &Node) -> Kept {
        let Some(wanted) = &self.system else { return Kept::Nothing };
        let told = says(node, os_update::CONDITION).filter(|(reason, _)| reason == "Updating");
        let how_far = told.as_ref().and_then(|(_, message)| message.strip_prefix(wanted.as_str())?.strip_prefix(": "));
        match how_far {
            Some(how_far) if ![os_update::WAITS, os_update::COMES].contains(&how_far) => Kept::OnTrial,
            _ if system_version(node).is_some_and(|runs| os_update::same(&runs, wanted)) => Kept::Runs,
            _ => Kept::Nothing,
        }
    }

    /// Why the board does not run one of them and will not by itself.
    pub fn failed_on(&self, node: &Node) -> Option<String> {
        let told = |what: &str, condition: &str, wanted: &Option<String>| {
            let why = failed(node, condition, wanted.as_ref()?)?;
            Some(format!("{what} {why}"))
        };
        let agent = told("agent", AGENT_CONDITION, &self.agent);
        agent.or_else(|| told("Limpet OS", os_update::CONDITION, &self.system))
    }
}

fn failed(node: &Node, condition: &str, version: &str) -> Option<String> {
    let (reason, message) = says(node, condition)?;
    let (of, _) = message.split_once(": ")?;
    let gone_wrong = matches!(reason.as_str(), "RolledBack" | "Refused");
    (gone_wrong && of == version).then(|| message.clone())
}

/// All that a board says of its versions, for whoever wants to know whether that changed.
pub fn told(node: &Node) -> [Option<(String, String)>; 2] {
    [AGENT_CONDITION, os_update::CONDITION].map(|condition| says(node, condition))
}

/// Reason and message of such a condition, which begins with the version that it is about.
fn says(node: &Node, condition: &str) -> Option<(String, String)> {
    let conditions = node.field("/status/conditions");
    let said = conditions.as_array()?.iter().find(|c| c["type"] == condition)?;
    Some((said["reason"].as_str()?.into(), said["message"].as_str()?.into()))
}

fn info(node: &Node, field: &str) -> Option<String> {
    Some(node.field("/status/nodeInfo")[field].as_str()?.to_string())
}

/// The version that a node's agent says it has.
pub fn agent_version(node: &Node) -> Option<String> {
    info(node, "kubeletVersion")?.rsplit_once("limpet-").map(|(_, version)| version.to_string())
}

fn system_version(node: &Node) -> Option<String> {
    info(node, "osImage")?.strip_prefix(os_update::OS_IMAGE).map(String::from)
}
