//! The config of an image: what to run and as whom, and the diff ids of its layers.
//!
//! In: JSON of the OCI image spec's config.md (Docker's is a superset). Out: `ImageConfig`.
//! Never: trusts the number of diff ids to be the number of layers (see [`ImageConfig::check_against`]).

use crate::digest::Digest;
use crate::limits::{CONFIG_BYTES_MAX, LAYERS_MAX};
use crate::manifest::Manifest;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// Nobody retries: the image is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the image config has {got} bytes, more than the {CONFIG_BYTES_MAX} allowed")]
    TooLarge { got: usize },
    #[error("the image config is not valid: {0}")]
    Invalid(String),
}

/// The parts of a config that a node needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: Execution,
    pub rootfs: RootFs,
}

/// How to run the image; a pod's own fields win over these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "words", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "words", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    #[serde(deserialize_with = "keys", serialize_with = "as_set", skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
    #[serde(deserialize_with = "keys", serialize_with = "as_set", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

impl ImageConfig {
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig, ConfigError> {
        if bytes.len() > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLarge { got: bytes.len() });
        }
        let config: ImageConfig =
            serde_json::from_slice(bytes).map_err(|e| ConfigError::Invalid(e.to_string()))?;
        let nul = |s: &String| s.contains('\0');
        let run = &config.config;
        if run.env.iter().chain(&run.entrypoint).chain(&run.cmd).any(nul)
            || nul(&run.working_dir)
            || nul(&run.user)
        {
            return Err(ConfigError::Invalid("a text in it has a NUL byte".to_string()));
        }
        if config.rootfs.kind != "layers" || config.rootfs.diff_ids.len() > LAYERS_MAX {
            return Err(ConfigError::Invalid("rootfs is not a list of layers of sensible length".to_string()));
        }
        Ok(config)
    }

    /// One diff id a layer, in the same order.
    pub fn check_against(&self, manifest: &Manifest) -> Result<(), ConfigError> {
        match self.rootfs.diff_ids.len() == manifest.layers.len() {
            true => Ok(()),
            false => Err(ConfigError::Invalid(format!(
                "it names {} layers, the manifest {}",
                self.rootfs.diff_ids.len(),
                manifest.layers.len()
            ))),
        }
    }
}

fn null_is_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// Old builders wrote a string where the spec has a list.
fn words<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        List(Vec<String>),
        One(String),
        None(()),
    }
    Ok(match Words::deserialize(d)? {
        Words::List(list) => list,
        Words::One(one) => vec![one],
        Words::None(()) => Vec::new(),
    })
}

/// `{"80/tcp": {}}` as a list of keys.
fn keys<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let map = Option::<BTreeMap<String, serde::de::IgnoredAny>>::deserialize(d)?;
    Ok(map.unwrap_or_default().into_keys().collect())
}

fn as_set<S: serde::Serializer>(list: &[String], s: S) -> Result<S::Ok, S::Error> {
    s.collect_map(list.iter().map(|key| (key, serde_json::Map::new())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_config_with_nulls_and_extras() {
        let diff = Digest::of(b"layer");
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","docker_version":"20","history":[{{}}],
            "config":{{"Hostname":"","User":null,"Env":["PATH=/bin"],"Cmd":["sh"],"Entrypoint":null,
            "ExposedPorts":{{"80/tcp":{{}}}},"Volumes":null,"WorkingDir":"/app","Labels":null,"StopSignal":"SIGQUIT"}},
            "rootfs":{{"type":"layers","diff_ids":["{diff}"]}}}}"#
        );
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert!(config.config.entrypoint.is_empty());
        assert_eq!(config.config.exposed_ports, ["80/tcp"]);
        assert_eq!(config.config.stop_signal, "SIGQUIT");
        assert_eq!(config.rootfs.diff_ids, [diff]);
        let again = serde_json::to_vec(&config).unwrap();
        assert_eq!(ImageConfig::parse(&again).unwrap(), config);
    }

    #[test]
    fn an_entrypoint_that_is_a_string_and_a_null_config() {
        let text = r#"{"config":{"Entrypoint":"/run"},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        assert_eq!(ImageConfig::parse(text.as_bytes()).unwrap().config.entrypoint, ["/run"]);
        let text = r#"{"config":null,"rootfs":{"type":"layers"}}"#;
        assert_eq!(ImageConfig::parse(text.as_bytes()).unwrap().config, Execution::default());
    }

    #[test]
    fn hostile_configs_are_refused() {
        for text in [
            "",
            "null",
            "{}",
            r#"{"rootfs":{"type":"blobs"}}"#,
            r#"{"rootfs":{"type":"layers","diff_ids":["sha256:.."]}}"#,
            r#"{"config":{"Env":["A=\u0000"]},"rootfs":{"type":"layers"}}"#,
            r#"{"config":{"Env":{"A":"b"}},"rootfs":{"type":"layers"}}"#,
        ] {
            assert!(ImageConfig::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
