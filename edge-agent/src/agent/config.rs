//! Where the agent keeps things and how it is set.
//!
//! In: the command line, and `--config FILE` (JSON, see docs/agent-config.md). Out: a checked `Config`.
//! Never: a default that differs between boards.

use super::devices::Offer;
use crate::{
    images::{Way, signature::Policy as ImagePolicy},
    link::road::Target,
    runtime::spec::OtherRuntime,
};
use limpet_agent_core::{
    kept::Choice,
    plan::OWN_HANDLER,
    pressure::{Signal, Threshold},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

#[derive(Clone, Debug, Default)]
pub struct Paths {
    pub data: PathBuf,
    pub run: PathBuf,
}

const DATA_DIR: &str = "/var/lib/limpet";

/// The file's content; every field has a default.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// `error`, `warn`, `info`, `debug` or `trace`; LIMPET_LOG wins.
    pub log: String,
    /// Seconds between pings on an idle link; 0: as the road to the hub suggests (20 in the board's own network, 340 over a
    /// router, 50 through a proxy).
    pub keepalive_seconds: u16,
    /// At a broker that is not the hub's: seconds between the kernel's probes of an idle link, where keep-alives are rarer. 0:
    /// as the road suggests.
    pub probe_seconds: u16,
    /// The longest wait between attempts to reach the hub.
    pub reconnect_seconds_max: u64,
    /// `host:port` of the MQTT listener, or `wss://host/path`, instead of what the hub named.
    pub mqtt: Vec<String>,
    /// `host:port` or `wss://host/path` of the broker at which hub and boards meet, instead of what the hub named. Counts only
    /// where the hub uses such a broker.
    pub broker: Vec<String>,
    /// `http://[user:password@]host:port`: the way to the hub and to images goes through this proxy.
    pub proxy: Option<String>,
    /// Servers of images that are reached without it: names, addresses, networks.
    pub no_proxy: Vec<String>,
    /// Lamp in /sys/class/leds that shows when this board waits for its hub or for a person.
    pub led: Option<String>,
    /// What tells this board from others, where neither serial number nor UUID do (cloned virtual machines).
    pub hardware_id: Option<String>,
    /// Where the keys of a board that joins now are: `auto` (in `/dev/tpmrm0` where that is usable), `none` (in files), or
    /// the place of a TPM, which then has to work.
    pub tpm: String,
    /// This board's address, instead of the one that its routes suggest.
    pub node_ip: Option<String>,
    pub pods_max: u32,
    /// Labels that the node has from the beginning.
    pub labels: BTreeMap<String, String>,
    /// Memory that pods may not have, in MiB; by default a twentieth, at most 256.
    pub reserved_memory_mib: Option<u64>,
    /// Least amounts that must be left, by kubelet's names (`memory.available`, `nodefs.available`,
    /// `nodefs.inodesFree`, `pid.available`), as quantities or shares.
    pub eviction_hard: BTreeMap<String, String>,
    pub eviction_pressure_transition_seconds: u64,
    /// Sysctls that pods may set besides the safe ones.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Most processes and threads of one pod.
    pub pod_pids_limit: Option<u64>,
    /// Devices of the board that pods may ask for.
    pub devices: Vec<Offer>,
    /// Directories with vendors' CDI files, by rising precedence.
    pub cdi_dirs: Vec<PathBuf>,
    /// Where Kubernetes' device plugins register. Absent: in kubelet's directory where the data directory is the usual one, else
    /// nowhere. Empty: nowhere.
    pub device_plugin_dir: Option<PathBuf>,
    /// Processor time that pods may not have, in thousandths of a core.
    pub reserved_cpu_milli: u64,
    /// CrashLoopBackOff: the first wait and the longest, in seconds.
    pub restart_back_off_seconds_first: u64,
    pub restart_back_off_seconds_max: u64,
    pub container_log_bytes_max: u64,
    pub container_log_files_max: usize,
    /// Of each container whose pod does not say (`limpet.dev/keep-logs`): so much of its log is kept at the hub. `0`: nothing.
    pub keep_logs: String,
    pub cluster_domain: String,
    /// Directory with manifests of pods that run here whatever the hub says (static pods).
    pub static_pod_dir: Option<PathBuf>,
    /// Name of the agent's group in every cgroup hierarchy.
    pub cgroup_parent: Option<String>,
    /// `docker.io` to a list of `https://mirror` in order of preference.
    pub registry_mirrors: BTreeMap<String, Vec<String>>,
    /// Registries (`host:port`) that are spoken to without TLS.
    pub insecure_registries: Vec<String>,
    /// PEM files with CAs for registries, besides the system's.
    pub registry_ca_files: Vec<PathBuf>,
    /// Other OCI runtimes of this board, by the handler that RuntimeClasses name.
    pub runtimes: BTreeMap<String, OtherRuntime>,
    /// Images that need a signature.
    pub image_policies: Vec<ImagePolicy>,
    /// Images pulled at a time; 1 is kubelet's `serializeImagePulls`.
    pub image_pulls_at_once: Option<usize>,
    /// Images that no pod has wanted for so long are removed; never because of their age when absent.
    pub image_unused_seconds_max: Option<u64>,
    /// Percent of the disk in use from which images go that no pod wants (100: never for this), and at which that ends.
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: u64,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: u64,
    /// Of all pulls together.
    pub image_pull_bytes_per_second: Option<u64>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            log: "info".into(),
            keepalive_seconds: 0,
            probe_seconds: 0,
            reconnect_seconds_max: 60,
            mqtt: Vec::new(),
            broker: Vec::new(),
            proxy: None,
            no_proxy: Vec::new(),
            led: None,
            hardware_id: None,
            tpm: crate::link::tpm::AUTO.into(),
            node_ip: None,
            pods_max: 110,
            labels: BTreeMap::new(),
            reserved_memory_mib: None,
            eviction_hard: BTreeMap::new(),
            eviction_pressure_transition_seconds: 300,
            allowed_unsafe_sysctls: Vec::new(),
            pod_pids_limit: None,
            devices: Vec::new(),
            cdi_dirs: crate::device::cdi::DIRECTORIES.map(PathBuf::from).to_vec(),
            device_plugin_dir: None,
            reserved_cpu_milli: 0,
            restart_back_off_seconds_first: 10,
            restart_back_off_seconds_max: 300,
            container_log_bytes_max: 10 * 1024 * 1024,
            container_log_files_max: 3,
            keep_logs: "0".into(),
            cluster_domain: "cluster.local".into(),
            static_pod_dir: None,
            cgroup_parent: None,
            registry_mirrors: BTreeMap::new(),
            insecure_registries: Vec::new(),
            registry_ca_files: Vec::new(),
            runtimes: BTreeMap::new(),
            image_policies: Vec::new(),
            image_pulls_at_once: None,
            image_unused_seconds_max: None,
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            image_pull_bytes_per_second: None,
        }
    }
}

impl Config {
    /// The error is a sentence for whoever wrote the file.
    pub fn load(path: Option<&Path>) -> Result<Config, String> {
        let Some(path) = path else { return Ok(Config::default()) };
        let text = std::fs::read(path)
            .map_err(|e| format!("the configuration {} cannot be read: {e}", path.display()))?;
        let config: Config = serde_json::from_slice(&text)
            .map_err(|e| format!("the configuration {} is not right: {e}", path.display()))?;
        config.check().map_err(|e| format!("the configuration {} is not right: {e}", path.display()))?;
        Ok(config)
    }

    pub fn way_to_images(&self) -> Result<Way, String> {
        Way::new(self.proxy.as_deref(), &self.no_proxy)
    }

    fn check(&self) -> Result<(), String> {
        if self.keepalive_seconds != 0 && !(5..=3600).contains(&self.keepalive_seconds) {
            return Err("keepaliveSeconds must be between 5 and 3600, or 0 to leave it to the agent".into());
        }
        if self.probe_seconds > 3600 {
            return Err("probeSeconds must be at most 3600, or 0 to leave it to the agent".into());
        }
        self.way_to_images()?;
        if let Some(led) = self.led.as_ref().filter(|led| led.is_empty() || led.starts_with('.') || led.contains('/')) {
            return Err(format!("led {led:?} is not a name in /sys/class/leds"));
        }
        for (what, addresses) in [("mqtt", &self.mqtt), ("broker", &self.broker)] {
            for address in addresses {
                Target::parse(address).map_err(|e| format!("{what}: {e}"))?;
            }
        }
        if !(1..=3600).contains(&self.reconnect_seconds_max) {
            return Err("reconnectSecondsMax must be between 1 and 3600".into());
        }
        let (first, most) = (self.restart_back_off_seconds_first, self.restart_back_off_seconds_max);
        if first == 0 || first > most || most > 300 {
            return Err("restartBackOffSecondsFirst must be at least 1 and restartBackOffSecondsMax between it and 300".into());
        }
        if self.container_log_bytes_max < 64 * 1024 || self.container_log_files_max < 2 {
            return Err("containerLogBytesMax must be at least 65536 and containerLogFilesMax at least 2".into());
        }
        if Choice::parse(&self.keep_logs).is_none() {
            return Err(format!("keepLogs \"{}\" is not an amount of bytes, such as 64Ki", self.keep_logs));
        }
        self.devices.iter().try_for_each(Offer::check)?;
        let not_absolute = |path: &&PathBuf| !path.as_os_str().is_empty() && !path.is_absolute();
        if let Some(path) = self.cdi_dirs.iter().chain(&self.device_plugin_dir).find(not_absolute) {
            return Err(format!("cdiDirs and devicePluginDir are absolute paths, and \"{}\" is not", path.display()));
        }
        if let Some(policy) = self.image_policies.iter().find(|p| p.images.is_empty() || p.cosign_keys.is_empty()) {
            return Err(format!("imagePolicies: \"{}\" needs `images` and at least one file in `cosignKeys`", policy.images));
        }
        for (handler, runtime) in &self.runtimes {
            let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if handler.is_empty() || handler.len() > 63 || !handler.bytes().all(fine) || handler == OWN_HANDLER {
                return Err(format!(
                    "runtimes: \"{handler}\" cannot be a handler: lower-case letters, digits and `-`, and not `{OWN_HANDLER}`, \
                     which is this agent's own"
                ));
            }
            if !runtime.program.is_absolute() {
                return Err(format!("runtimes: the program of \"{handler}\" must be an absolute path"));
            }
        }
        if self.image_pulls_at_once == Some(0) || self.image_pull_bytes_per_second.is_some_and(|n| n < 1024) {
            return Err("imagePullsAtOnce must be at least 1 and imagePullBytesPerSecond at least 1024".into());
        }
        if self.image_unused_seconds_max.is_some_and(|seconds| seconds < 120) {
            return Err("imageUnusedSecondsMax must be at least 120".into());
        }
        let (high, low) = (self.image_gc_high_threshold_percent, self.image_gc_low_threshold_percent);
        if high > 100 || low >= high {
            return Err(format!(
                "imageGCHighThresholdPercent ({high}) must be at most 100 and imageGCLowThresholdPercent ({low}) less than it"
            ));
        }
        for (signal, amount) in &self.eviction_hard {
            let known = Signal::ALL.iter().any(|s| s.name() == signal);
            if !known || Threshold::parse(amount).is_none() {
                let names = Signal::ALL.map(Signal::name).join(", ");
                return Err(format!("evictionHard \"{signal}\": \"{amount}\" is not right: {names} take a quantity or a share"));
            }
        }
        if let Some(ip) = &self.node_ip
            && ip.parse::<std::net::IpAddr>().is_err()
        {
            return Err(format!("nodeIp \"{ip}\" is not an address"));
        }
        if self.eviction_pressure_transition_seconds == 0 || self.pod_pids_limit.is_some_and(|n| n < 16) {
            return Err("evictionPressureTransitionSeconds must be at least 1 and podPidsLimit at least 16".into());
        }
        Ok(())
    }

    /// The place of kubelet's plugins belongs to the one agent that is this machine's node.
    pub fn device_plugin_dir(&self, paths: &Paths) -> Option<PathBuf> {
        let usual = (paths.data == Path::new(DATA_DIR)).then(|| PathBuf::from(crate::plugins::STANDARD_DIR));
        self.device_plugin_dir.clone().or(usual).filter(|dir| !dir.as_os_str().is_empty())
    }

    /// Agents with different data directories on one machine must not share groups.
    pub fn cgroup_parent(&self, paths: &Paths) -> String {
        if let Some(name) = &self.cgroup_parent {
            return name.clone();
        }
        if paths.data == Path::new(DATA_DIR) {
            return "limpet".into();
        }
        let hash = limpet_protocol::ItemHash::of(paths.data.as_os_str().as_encoded_bytes());
        let hex: String = hash.0[..4].iter().map(|b| format!("{b:02x}")).collect();
        format!("limpet-{hex}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_checked() {
        for (text, want) in [
            ("{}", None),
            (r#"{"keepaliveSeconds": 30, "labels": {"a": "b"}}"#, None),
            (r#"{"keepaliveSeconds": 1}"#, Some("keepaliveSeconds must be")),
            (r#"{"probeSeconds": 3601}"#, Some("probeSeconds must be")),
            (r#"{"proxy": "http://u:p@proxy.test:3128", "mqtt": ["wss://hub.test"]}"#, None),
            (r#"{"proxy": "ftp://proxy.test"}"#, Some("http://host:port")),
            (r#"{"noProxy": ["registry.lan", "10.0.0.0/8"]}"#, None),
            (r#"{"noProxy": ["10.0.0.0/40"]}"#, Some("no name, address or network")),
            (r#"{"led": "mmc0::"}"#, None),
            (r#"{"led": "../../power"}"#, Some("/sys/class/leds")),
            (r#"{"mqtt": ["hub:port"]}"#, Some("host:port")),
            (r#"{"keepAliveSeconds": 30}"#, Some("unknown field")),
            (r#"{"keepLogs": "64Ki"}"#, None),
            (r#"{"keepLogs": "some"}"#, Some("keepLogs")),
            (r#"{"devicePluginDir": "", "cdiDirs": ["/etc/cdi"]}"#, None),
            (r#"{"devicePluginDir": "plugins"}"#, Some("absolute paths")),
            (r#"{"nodeIp": "x"}"#, Some("is not an address")),
            (r#"{"evictionHard": {"memory.available": "10%"}}"#, None),
            (r#"{"evictionHard": {"memory": "10%"}}"#, Some("evictionHard")),
            (r#"{"evictionHard": {"pid.available": "a lot"}}"#, Some("a quantity or a share")),
            (r#"{"runtimes": {"crun": {"program": "/usr/bin/crun", "arguments": ["--cgroup-manager=disabled"]}}}"#, None),
            (r#"{"runtimes": {"crun": {"program": "crun"}}}"#, Some("must be an absolute path")),
            (r#"{"runtimes": {"limpet": {"program": "/crun"}}}"#, Some("cannot be a handler")),
            (r#"{"imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 0}"#, None),
            (r#"{"imageGCHighThresholdPercent": 101}"#, Some("must be at most 100")),
            (r#"{"imageGCHighThresholdPercent": 80}"#, Some("less than it")),
            (r#"{"imageGCLowThresholdPercent": -1}"#, Some("expected u64")),
            ("[", Some("EOF")),
        ] {
            let path = std::env::temp_dir().join(format!("limpet-config-{}", std::process::id()));
            std::fs::write(&path, text).unwrap();
            let got = Config::load(Some(&path));
            let _ = std::fs::remove_file(&path);
            match want {
                None => assert!(got.is_ok(), "{text}: {got:?}"),
                Some(words) => assert!(got.unwrap_err().contains(words), "{text}"),
            }
        }
    }
}
