//! `limpet why`: what holds an object back.
//!
//! In: kind and name. Out: the hub's answer as text, or as JSON. Never: an answer of its own.

use super::{Outcome, Reach};
use clap::ValueEnum;
use limpet_hub::operate;
use serde_json::Value;

/// Kinds without a namespace.
const CLUSTER: [&str; 9] =
    ["node", "nodes", "no", "nodepool", "nodepools", "pool", "namespace", "namespaces", "ns"];

/// Say why a pod, a node, a workload or a rollout is as it is, and what to do.
///
/// Examples: limpet why pod/web-1 -n shop; limpet why node pi-7; limpet why fleetrollout/tills
#[derive(clap::Args)]
pub struct Args {
    /// KIND/NAME, or KIND and NAME: pod, node, deployment, replicaset, daemonset, statefulset, job, cronjob,
    /// persistentvolumeclaim (pvc), service, namespace, fleetrollout, nodepool
    #[arg(required = true, num_args = 1..=2, value_name = "KIND/NAME")]
    what: Vec<String>,
    /// Namespace of the object
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    hub: Reach,
    /// How to print
    #[arg(short, long, default_value = "text")]
    output: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Text,
    Json,
}

pub fn run(args: &Args) -> Outcome {
    let (kind, name) = subject(&args.what)?;
    let kubeconfig = args.hub.kubeconfig()?;
    let namespace = if CLUSTER.contains(&kind) { "-" } else { &args.namespace };
    let fine = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) && !part.is_empty();
    if ![kind, name, namespace].iter().all(|part| fine(part)) {
        return Err(format!("{kind}/{name} in namespace {namespace:?} cannot be the name of an object"));
    }
    let path = format!("/limpet/v1/why/{kind}/{namespace}/{name}");
    let answer = operate::get(&kubeconfig, &path).map_err(|e| e.to_string())?;
    match args.output {
        Form::Json => println!("{answer:#}"),
        Form::Text => print!("{}", text(&answer)),
    }
    Ok(())
}

fn subject(what: &[String]) -> Result<(&str, &str), String> {
    match what {
        [both] => both.split_once('/').ok_or_else(|| format!("say what {both:?} is, such as pod/{both}")),
        [kind, name] => Ok((kind, name)),
        _ => Err("say KIND/NAME, such as pod/web-1".into()),
    }
}

fn text(answer: &Value) -> String {
    let word = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let list = |field: &str| answer[field].as_array().cloned().unwrap_or_default();
    let mut out = format!("{}: {}\n", word(&answer["about"]), word(&answer["verdict"]));
    for line in list("because") {
        out.push_str(&format!("  - {}\n", word(&line)));
    }
    let nodes = list("nodes");
    let width = nodes.iter().map(|n| word(&n[0]).chars().count()).max().unwrap_or(0);
    for node in &nodes {
        out.push_str(&format!("      {:width$}  {}\n", word(&node[0]), word(&node[1])));
    }
    for line in list("advice") {
        out.push_str(&format!("  try: {}\n", word(&line)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_read_well() {
        let answer = json!({"about": "pod a/p", "verdict": "it has no node", "because": ["one", "two"],
            "nodes": [["n1", "Insufficient cpu"], ["board-22", "full"]], "advice": ["kubectl get nodes"]});
        assert_eq!(
            text(&answer),
            "pod a/p: it has no node\n  - one\n  - two\n      n1        Insufficient cpu\n      board-22  full\n  try: \
             kubectl get nodes\n"
        );
    }

    #[test]
    fn subjects_are_written_in_two_ways() {
        let words = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(subject(&words(&["pod/a"])), Ok(("pod", "a")));
        assert_eq!(subject(&words(&["pod", "a"])), Ok(("pod", "a")));
        assert!(subject(&words(&["a"])).is_err());
    }
}
