//! The files that a pod finds in /etc: resolver and hosts.
//!
//! In: the pod's DNS policy, addresses. Out: a plan, and the text of the files.
//! Never: reads the host's own files; their content comes as an argument.

use super::{HostFacts, SandboxPlan};
use crate::api::Pod;
use serde::{Deserialize, Serialize};

/// How names are resolved in a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DnsPlan {
    /// The agent's responder comes first.
    pub cluster: bool,
    /// The host's resolv.conf is taken over (its search list also with `cluster`).
    pub host: bool,
    /// Of the policy.
    pub searches: Vec<String>,
    pub options: Vec<String>,
    /// Of `dnsConfig`: added to what the policy gives.
    pub nameservers: Vec<String>,
    #[serde(default)]
    pub more_searches: Vec<String>,
    #[serde(default)]
    pub more_options: Vec<String>,
}

const SEARCHES_MAX: usize = 32;
const NAMESERVERS_MAX: usize = 3;

pub(super) fn dns_plan(pod: &Pod, host: &HostFacts) -> DnsPlan {
    let spec = &pod.spec;
    let policy = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirst" if spec.host_network => "Default",
        "ClusterFirstWithHostNet" => "ClusterFirst",
        other => other,
    };
    let mut plan = DnsPlan { cluster: policy == "ClusterFirst", host: policy != "None", ..DnsPlan::default() };
    if plan.cluster {
        let (namespace, domain) = (&pod.metadata.namespace, &host.cluster_domain);
        plan.searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        plan.options = vec!["ndots:5".into()];
    }
    if let Some(config) = &spec.dns_config {
        plan.nameservers.extend(config.nameservers.iter().cloned());
        plan.more_searches.extend(config.searches.iter().cloned());
        plan.more_options.extend(config.options.iter().map(|option| match &option.value {
            Some(value) => format!("{}:{value}", option.name),
            None => option.name.clone(),
        }));
    }
    plan
}

/// Text of /etc/resolv.conf. `responder` is the address of the agent's DNS as the pod sees it.
pub fn resolv_conf(plan: &DnsPlan, responder: Option<&str>, host_file: &str) -> String {
    let host_lines = |word: &str| -> Vec<String> {
        let lines = host_file.lines().filter_map(|l| l.trim().strip_prefix(word));
        lines.filter(|l| l.starts_with([' ', '\t'])).flat_map(str::split_whitespace).map(String::from).collect()
    };
    let mut nameservers = Vec::new();
    let mut searches = plan.searches.clone();
    let mut options = plan.options.clone();
    match responder.filter(|_| plan.cluster) {
        Some(address) => nameservers.push(address.to_string()),
        None if plan.host => {
            nameservers = host_lines("nameserver");
            options.extend(host_lines("options"));
        }
        None => {}
    }
    if plan.host {
        searches.extend(host_lines("search").into_iter().filter(|s| s != "."));
    }
    nameservers.extend(plan.nameservers.iter().cloned());
    searches.extend(plan.more_searches.iter().cloned());
    for option in &plan.more_options {
        options.retain(|o| o.split(':').next() != option.split(':').next());
        options.push(option.clone());
    }
    for list in [&mut nameservers, &mut searches] {
        let mut seen = Vec::new();
        list.retain(|s| !seen.contains(s) && (seen.push(s.clone()), true).1);
    }
    searches.truncate(SEARCHES_MAX);
    nameservers.truncate(NAMESERVERS_MAX);
    let mut text = String::new();
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    for server in nameservers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

/// Text of /etc/hosts. With the host's network, `host_file` is the host's own.
pub fn etc_hosts(plan: &SandboxPlan, pod_ips: &[String], host_file: &str) -> String {
    let mut text = String::from("# Kubernetes-managed hosts file.\n");
    if plan.host_network {
        text.push_str(host_file);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    } else {
        text.push_str("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        text.push_str("fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\n");
        text.push_str("fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
        for ip in pod_ips {
            match &plan.fqdn {
                Some(full) => text.push_str(&format!("{ip}\t{full}\t{}\n", plan.short)),
                None => text.push_str(&format!("{ip}\t{}\n", plan.hostname)),
            }
        }
    }
    if !plan.host_aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for (ip, names) in &plan.host_aliases {
            text.push_str(&format!("{ip}\t{}\n", names.join("\t")));
        }
    }
    text
}
