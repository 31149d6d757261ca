//! What every node has to say about one pod.
//!
//! In: the view, a configuration and a pod. Out: one answer a node. Never: changes what the scheduler remembers.

use super::{
    config::Config,
    counts::Counts,
    filter::{Rules, untolerated},
    place::spot,
    queue::Nominations,
    reason::{Plugin, Reason},
};
use crate::{
    ObjectStore,
    view::Pod,
};

/// A node's answer; no reasons: it would take the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAnswer {
    pub node: String,
    pub reasons: Vec<String>,
    /// Fewer pods there would help.
    pub crowded: bool,
}

/// All nodes' answers by name; or the one reason that holds for all of them.
pub fn explain(view: &ObjectStore, config: &Config, pod: &Pod) -> Result<Vec<NodeAnswer>, String> {
    let Some(profile) = config.profile(&pod.spec.scheduler_name) else {
        let name = &pod.spec.scheduler_name;
        return Err(format!("it waits for a scheduler called {name:?}, which is not one of this hub's profiles"));
    };
    let mut counts = Counts::default();
    counts.fill(view);
    let rules = Rules::gather(view, profile, pod, &mut counts).map_err(|r| r.text.to_string())?;
    let nobody = Nominations::default();
    let answers = view.nodes_and_pods().map(|(node, pods)| {
        let against = rules.against(&spot(&rules, &nobody, node, pods));
        let text = |reason: Reason| match untolerated(node, pod, &["NoSchedule", "NoExecute"]) {
            Some(taint) if reason.plugin == Plugin::TaintToleration => {
                format!("node(s) had untolerated taint {{{}: {}}}", taint.key, taint.value)
            }
            _ => reason.text.into_owned(),
        };
        NodeAnswer {
            node: node.meta.name.to_string(),
            crowded: !against.is_empty() && against.iter().all(|r| r.preemptible),
            reasons: against.into_iter().map(text).collect(),
        }
    });
    Ok(answers.collect())
}
