//! What an operator may say about scheduling: profiles by scheduler name.
//!
//! In: a KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1) as JSON. Out: `Config`, or a sentence that says
//! which field is wrong. Semantics: https://kubernetes.io/docs/reference/scheduling/config/
//! Never: silently ignores a field that would change where pods go.

use super::reason::{Plugin, Plugins};
use crate::view::{NodeAffinity, SpreadConstraint};
use serde::Deserialize;
use serde_json::Value;

pub const SCHEDULER_NAME: &str = "default-scheduler";
const API: &str = "kubescheduler.config.k8s.io/v1";
const WEIGHT_MAX: i64 = 100;

/// All profiles of one scheduler, and how patient it is.
#[derive(Clone, Debug)]
pub struct Config {
    pub profiles: Vec<Profile>,
    pub backoff_first_s: i64,
    pub backoff_max_s: i64,
    /// Share of nodes that are scored; 0: decided by the number of nodes.
    pub percentage: usize,
}

/// How pods that name one scheduler are placed.
#[derive(Clone, Debug)]
pub struct Profile {
    pub name: String,
    /// Plugins that do not filter.
    pub filters_off: Plugins,
    /// Weight of each plugin that scores, in `Plugin::ALL`'s order; 0: does not score.
    pub weights: [i64; Plugin::ALL.len()],
    pub preempts: bool,
    pub strategy: Strategy,
    /// Constraints for pods that have none; `None`: the system's own.
    pub default_spread: Option<Vec<SpreadConstraint>>,
    /// Node affinity that every pod of this profile has besides its own.
    pub added_affinity: Option<NodeAffinity>,
    pub hard_pod_affinity_weight: i64,
    pub ignores_preferred_of_others: bool,
}

/// NodeResourcesFit's scoringStrategy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strategy {
    pub kind: StrategyKind,
    /// (resource, weight)
    pub resources: Vec<(String, i64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrategyKind {
    LeastAllocated,
    MostAllocated,
    /// Points of a line: (utilisation in percent, score 0 to 100).
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

impl Default for Config {
    fn default() -> Config {
        let profiles = vec![Profile::named(SCHEDULER_NAME)];
        Config { profiles, backoff_first_s: 1, backoff_max_s: 10, percentage: 0 }
    }
}

impl Profile {
    pub fn named(name: &str) -> Profile {
        let mut weights = [0; Plugin::ALL.len()];
        for (plugin, weight) in [
            (Plugin::TaintToleration, 3),
            (Plugin::NodeAffinity, 2),
            (Plugin::PodTopologySpread, 2),
            (Plugin::InterPodAffinity, 2),
            (Plugin::NodeResourcesFit, 1),
            (Plugin::NodeResourcesBalancedAllocation, 1),
            (Plugin::ImageLocality, 1),
        ] {
            weights[plugin as usize] = weight;
        }
        Profile {
            name: name.into(),
            filters_off: Plugins::NONE,
            weights,
            preempts: true,
            strategy: Strategy {
                kind: StrategyKind::LeastAllocated,
                resources: vec![("cpu".into(), 1), ("memory".into(), 1)],
            },
            default_spread: None,
            added_affinity: None,
            hard_pod_affinity_weight: 1,
            ignores_preferred_of_others: false,
        }
    }

    pub fn weight(&self, plugin: Plugin) -> i64 {
        self.weights[plugin as usize]
    }
}

impl Config {
    /// The profile of a pod, `None` when another scheduler binds it.
    pub fn profile(&self, scheduler_name: &str) -> Option<&Profile> {
        let name = if scheduler_name.is_empty() { SCHEDULER_NAME } else { scheduler_name };
        self.profiles.iter().find(|p| p.name == name)
    }

    /// Reads a configuration; the text says what is wrong and where.
    pub fn parse(value: &Value) -> Result<Config, String> {
        let file: File =
            serde_json::from_value(value.clone()).map_err(|e| format!("the scheduler's configuration: {e}"))?;
        if file.api_version != API || file.kind != "KubeSchedulerConfiguration" {
            return Err(format!("the scheduler's configuration must be a KubeSchedulerConfiguration of {API}"));
        }
        let mut config = Config {
            backoff_first_s: file.pod_initial_backoff_seconds.unwrap_or(1),
            backoff_max_s: file.pod_max_backoff_seconds.unwrap_or(10),
            percentage: file.percentage_of_nodes_to_score.unwrap_or(0),
            ..Config::default()
        };
        if config.backoff_first_s < 1 || config.backoff_max_s < config.backoff_first_s || config.percentage > 100 {
            return Err("podInitialBackoffSeconds must be at least 1, podMaxBackoffSeconds at least as much, and \
                        percentageOfNodesToScore 0 to 100"
                .into());
        }
        if !file.profiles.is_empty() {
            config.profiles = file.profiles.into_iter().map(FileProfile::profile).collect::<Result<_, _>>()?;
        }
        for (at, profile) in config.profiles.iter().enumerate() {
            if config.profiles[..at].iter().any(|p| p.name == profile.name) {
                return Err(format!("profiles[{at}].schedulerName: two profiles are called {:?}", profile.name));
            }
        }
        Ok(config)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    profiles: Vec<FileProfile>,
    percentage_of_nodes_to_score: Option<usize>,
    pod_initial_backoff_seconds: Option<i64>,
    pod_max_backoff_seconds: Option<i64>,
    /// What concerns a process of its own (leases, clients): accepted, so that files can be shared.
    #[serde(default, rename = "leaderElection")]
    _leader_election: Value,
    #[serde(default, rename = "clientConnection")]
    _client_connection: Value,
    #[serde(default, rename = "parallelism")]
    _parallelism: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileProfile {
    #[serde(default)]
    scheduler_name: Option<String>,
    #[serde(default)]
    plugins: FilePlugins,
    #[serde(default)]
    plugin_config: Vec<PluginConfig>,
    percentage_of_nodes_to_score: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FilePlugins {
    filter: PluginSet,
    score: PluginSet,
    post_filter: PluginSet,
    multi_point: PluginSet,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PluginSet {
    enabled: Vec<PluginName>,
    disabled: Vec<PluginName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginName {
    name: String,
    #[serde(default)]
    weight: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginConfig {
    name: String,
    #[serde(default)]
    args: Value,
}

impl FileProfile {
    fn profile(self) -> Result<Profile, String> {
        let name = self.scheduler_name.unwrap_or_else(|| SCHEDULER_NAME.into());
        if self.percentage_of_nodes_to_score.is_some() {
            return Err(format!("profile {name}: percentageOfNodesToScore is for all profiles; set it at the top"));
        }
        let mut profile = Profile::named(&name);
        for (set, points) in [
            (&self.plugins.multi_point, (true, true, true)),
            (&self.plugins.filter, (true, false, false)),
            (&self.plugins.score, (false, true, false)),
            (&self.plugins.post_filter, (false, false, true)),
        ] {
            apply(&mut profile, set, points).map_err(|e| format!("profile {name}: {e}"))?;
        }
        for one in &self.plugin_config {
            arguments(&mut profile, one).map_err(|e| format!("profile {name}: {}: {e}", one.name))?;
        }
        Ok(profile)
    }
}

type Points = (bool, bool, bool);

fn apply(profile: &mut Profile, set: &PluginSet, (filter, score, post): Points) -> Result<(), String> {
    let plugins = |name: &str| match name {
        "*" => Ok(Plugin::ALL.to_vec()),
        name => Plugin::of_name(name).map(|p| vec![p]).ok_or_else(|| unknown(name)),
    };
    for off in &set.disabled {
        for plugin in plugins(&off.name)? {
            if filter {
                profile.filters_off.insert(plugin);
            }
            if score {
                profile.weights[plugin as usize] = 0;
            }
            if post && plugin == Plugin::DefaultPreemption {
                profile.preempts = false;
            }
        }
    }
    let usual = Profile::named("");
    for on in &set.enabled {
        let plugin = Plugin::of_name(&on.name).ok_or_else(|| unknown(&on.name))?;
        if filter {
            profile.filters_off.remove(plugin);
        }
        if score && usual.weight(plugin) > 0 {
            let weight = on.weight.filter(|w| *w != 0).unwrap_or(if on.weight.is_none() && !filter {
                1
            } else {
                usual.weight(plugin)
            });
            if !(1..=WEIGHT_MAX).contains(&weight) {
                return Err(format!("the weight of {} must be 1 to {WEIGHT_MAX}", on.name));
            }
            profile.weights[plugin as usize] = weight;
        }
        if post && plugin == Plugin::DefaultPreemption {
            profile.preempts = true;
        }
    }
    Ok(())
}

fn unknown(name: &str) -> String {
    let known: Vec<&str> = Plugin::ALL.iter().map(|p| p.name()).collect();
    format!("there is no plugin {name:?}; there are {}", known.join(", "))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FitArgs {
    scoring_strategy: Option<FitStrategy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FitStrategy {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    resources: Vec<ResourceWeight>,
    requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Deserialize)]
struct ResourceWeight {
    name: String,
    #[serde(default)]
    weight: i64,
}

#[derive(Deserialize)]
struct Ratio {
    shape: Vec<ShapePoint>,
}

#[derive(Deserialize)]
struct ShapePoint {
    utilization: i64,
    score: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpreadArgs {
    #[serde(default)]
    default_constraints: Vec<SpreadConstraint>,
    #[serde(default)]
    defaulting_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AffinityArgs {
    hard_pod_affinity_weight: Option<i64>,
    #[serde(default)]
    ignore_preferred_terms_of_existing_pods: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeAffinityArgs {
    added_affinity: Option<NodeAffinity>,
}

fn arguments(profile: &mut Profile, config: &PluginConfig) -> Result<(), String> {
    fn read<T: serde::de::DeserializeOwned>(args: &Value) -> Result<T, String> {
        serde_json::from_value(args.clone()).map_err(|e| e.to_string())
    }
    match Plugin::of_name(&config.name) {
        Some(Plugin::NodeResourcesFit) => {
            if let Some(strategy) = read::<FitArgs>(&config.args)?.scoring_strategy {
                profile.strategy = strategy.read()?;
            }
        }
        Some(Plugin::PodTopologySpread) => {
            let args: SpreadArgs = read(&config.args)?;
            match &*args.defaulting_type {
                "System" if args.default_constraints.is_empty() => profile.default_spread = None,
                "System" => return Err("defaultConstraints must be empty when defaultingType is System".into()),
                "" | "List" => profile.default_spread = Some(args.default_constraints),
                other => return Err(format!("defaultingType {other:?} is neither System nor List")),
            }
        }
        Some(Plugin::InterPodAffinity) => {
            let args: AffinityArgs = read(&config.args)?;
            let weight = args.hard_pod_affinity_weight.unwrap_or(1);
            if !(0..=100).contains(&weight) {
                return Err("hardPodAffinityWeight must be 0 to 100".into());
            }
            profile.hard_pod_affinity_weight = weight;
            profile.ignores_preferred_of_others = args.ignore_preferred_terms_of_existing_pods;
        }
        Some(Plugin::NodeAffinity) => {
            profile.added_affinity = read::<NodeAffinityArgs>(&config.args)?.added_affinity;
        }
        Some(_) => {}
        None => return Err(unknown(&config.name)),
    }
    Ok(())
}

impl FitStrategy {
    fn read(self) -> Result<Strategy, String> {
        let mut resources = Vec::new();
        for r in self.resources {
            let weight = if r.weight == 0 { 1 } else { r.weight };
            if !(1..=WEIGHT_MAX).contains(&weight) {
                return Err(format!("the weight of resource {} must be 1 to {WEIGHT_MAX}", r.name));
            }
            resources.push((r.name, weight));
        }
        if resources.is_empty() {
            resources = vec![("cpu".into(), 1), ("memory".into(), 1)];
        }
        let kind = match &*self.kind {
            "LeastAllocated" => StrategyKind::LeastAllocated,
            "MostAllocated" => StrategyKind::MostAllocated,
            "RequestedToCapacityRatio" => {
                let shape = self.requested_to_capacity_ratio.map(|r| r.shape).unwrap_or_default();
                let rising = shape.windows(2).all(|w| w[0].utilization < w[1].utilization);
                let within = |p: &ShapePoint| (0..=100).contains(&p.utilization) && (0..=10).contains(&p.score);
                if shape.is_empty() || !rising || !shape.iter().all(within) {
                    return Err("requestedToCapacityRatio.shape needs points with rising utilization (0 to 100) \
                                and a score of 0 to 10"
                        .into());
                }
                let points = shape.iter().map(|p| (p.utilization, p.score * 10)).collect();
                StrategyKind::RequestedToCapacityRatio(points)
            }
            other => return Err(format!("scoringStrategy.type {other:?} is not known")),
        };
        Ok(Strategy { kind, resources })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(profiles: Value) -> Result<Config, String> {
        Config::parse(&json!({"apiVersion": API, "kind": "KubeSchedulerConfiguration", "profiles": profiles}))
    }

    #[test]
    fn profiles_change_what_they_name_and_nothing_else() {
        let config = parse(json!([
            {"schedulerName": "default-scheduler"},
            {"schedulerName": "packs", "plugins": {
                "score": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit", "weight": 5}]},
                "filter": {"disabled": [{"name": "NodePorts"}]}},
             "pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "MostAllocated",
                "resources": [{"name": "memory", "weight": 3}]}}}]},
            {"schedulerName": "gentle", "plugins": {"multiPoint": {"disabled": [{"name": "DefaultPreemption"}]}}}
        ]))
        .unwrap();
        let usual = config.profile("").unwrap();
        assert_eq!((usual.weight(Plugin::TaintToleration), usual.preempts), (3, true));
        let packs = config.profile("packs").unwrap();
        assert_eq!((packs.weight(Plugin::NodeResourcesFit), packs.weight(Plugin::TaintToleration)), (5, 0));
        assert!(packs.filters_off.contains(Plugin::NodePorts));
        assert_eq!(packs.strategy.kind, StrategyKind::MostAllocated);
        assert!(!config.profile("gentle").unwrap().preempts);
        assert!(config.profile("somebody-else").is_none());
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            (json!([{"schedulerName": "a"}, {"schedulerName": "a"}]), "two profiles are called"),
            (json!([{"plugins": {"filter": {"disabled": [{"name": "NodePort"}]}}}]), "no plugin \"NodePort\""),
            (json!([{"plugin": {}}]), "unknown field"),
            (json!([{"plugins": {"score": {"enabled": [{"name": "ImageLocality", "weight": 101}]}}}]), "1 to 100"),
            (
                json!([{"pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": {
                    "type": "RequestedToCapacityRatio"}}}]}]),
                "shape",
            ),
        ];
        for (profiles, words) in cases {
            let error = parse(profiles.clone()).unwrap_err();
            assert!(error.contains(words), "{profiles}: {error}");
        }
        assert!(Config::parse(&json!({"apiVersion": "v1", "kind": "Pod"})).is_err());
    }
}
