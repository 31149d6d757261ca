//! The messages of `v1beta1`, by hand.
//!
//! In: bytes from plugins. Out: what of it the agent uses, within bounds; requests as bytes.
//! Never: a device without an id, or two by the same one.
//! Source: the fields' numbers of k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1.

use super::table::DEVICES_MAX;
use crate::grpc::wire::{self, Value};
use crate::runtime::spec::Device;
use std::collections::BTreeMap;
use std::path::PathBuf;

const ID_BYTES_MAX: usize = 256;
/// Variables, mounts, nodes and CDI names that one container gets.
const EDITS_MAX: usize = 1024;
/// Annotations by which older plugins name CDI devices.
const CDI_ANNOTATION: &str = "cdi.k8s.io/";

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Register {
    pub version: String,
    pub endpoint: String,
    pub resource: String,
    pub options: Option<Options>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub pre_start: bool,
    pub preferred: bool,
}

/// What a container gets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub envs: BTreeMap<String, String>,
    /// Source, destination, read-only.
    pub mounts: Vec<(PathBuf, PathBuf, bool)>,
    pub devices: Vec<Device>,
    pub cdi: Vec<String>,
}

pub fn register(message: &[u8]) -> Option<Register> {
    let mut all = Register::default();
    wire::read(message, &mut |field, value| {
        match (field, value) {
            (1, value) => all.version = value.text(),
            (2, value) => all.endpoint = value.text(),
            (3, value) => all.resource = value.text(),
            (4, Value::Bytes(inner)) => all.options = Some(options(inner)?),
            _ => {}
        }
        Some(())
    })?;
    Some(all)
}

pub fn options(message: &[u8]) -> Option<Options> {
    let mut all = Options::default();
    wire::read(message, &mut |field, value| {
        match field {
            1 => all.pre_start = value.flag(),
            2 => all.preferred = value.flag(),
            _ => {}
        }
        Some(())
    })?;
    Some(all)
}

/// Ids, and whether each is healthy.
pub fn devices(message: &[u8]) -> Option<BTreeMap<String, bool>> {
    let mut all = BTreeMap::new();
    wire::read(message, &mut |field, value| {
        let (1, Value::Bytes(inner)) = (field, value) else { return Some(()) };
        let (mut id, mut health) = (String::new(), String::new());
        wire::read(inner, &mut |field, value| {
            match field {
                1 => id = value.text(),
                2 => health = value.text(),
                _ => {}
            }
            Some(())
        })?;
        let fine = !id.is_empty() && id.len() <= ID_BYTES_MAX && !id.contains('\n') && all.len() < DEVICES_MAX;
        fine.then(|| all.insert(id, health == "Healthy"))?;
        Some(())
    })?;
    Some(all)
}

pub fn allocate(ids: &[String]) -> Vec<u8> {
    let mut request = Vec::new();
    wire::put_bytes(&mut request, 1, &pre_start(ids));
    request
}

/// A PreStartContainerRequest, and what one container wants of Allocate, too.
pub fn pre_start(ids: &[String]) -> Vec<u8> {
    let mut container = Vec::new();
    ids.iter().for_each(|id| wire::put_bytes(&mut container, 1, id.as_bytes()));
    container
}

pub fn preferred(all: &[String], must: &[String], count: u64) -> Vec<u8> {
    let mut container = Vec::new();
    all.iter().for_each(|id| wire::put_bytes(&mut container, 1, id.as_bytes()));
    must.iter().for_each(|id| wire::put_bytes(&mut container, 2, id.as_bytes()));
    wire::put_number(&mut container, 3, count);
    let mut request = Vec::new();
    wire::put_bytes(&mut request, 1, &container);
    request
}

pub fn preferred_ids(message: &[u8]) -> Option<Vec<String>> {
    let mut ids = Vec::new();
    wire::read(message, &mut |field, value| {
        let (1, Value::Bytes(inner)) = (field, value) else { return Some(()) };
        wire::read(inner, &mut |field, value| {
            if field == 1 {
                ids.push(value.text());
            }
            (ids.len() <= DEVICES_MAX).then_some(())
        })
    })?;
    Some(ids)
}

/// Of an AllocateResponse for one container.
pub fn response(message: &[u8]) -> Option<Response> {
    let mut found = None;
    wire::read(message, &mut |field, value| {
        if let (1, Value::Bytes(inner)) = (field, value) {
            // One container asked: one answer.
            if found.replace(container(inner)?).is_some() {
                return None;
            }
        }
        Some(())
    })?;
    found
}

fn container(message: &[u8]) -> Option<Response> {
    let mut all = Response::default();
    let mut count = 0;
    wire::read(message, &mut |field, value| {
        count += 1;
        let Value::Bytes(inner) = value else { return Some(()) };
        match field {
            1 => drop(texts(inner).map(|(name, value, _)| all.envs.insert(name, value))?),
            2 => {
                let (destination, source, rest) = texts(inner)?;
                all.mounts.push((source.into(), destination.into(), rest.1));
            }
            3 => {
                let (container_path, host_path, rest) = texts(inner)?;
                let access = if rest.0.is_empty() { "rw".to_string() } else { rest.0 };
                all.devices.push(Device {
                    host_path: host_path.into(),
                    container_path: container_path.into(),
                    access,
                    ..Device::default()
                });
            }
            4 => {
                let (name, value, _) = texts(inner)?;
                if name.starts_with(CDI_ANNOTATION) {
                    all.cdi.extend(value.split(',').map(|one| one.trim().to_string()));
                }
            }
            5 => all.cdi.push(texts(inner)?.0),
            _ => {}
        }
        (count <= EDITS_MAX && all.cdi.len() <= EDITS_MAX).then_some(())
    })?;
    Some(all)
}

/// Two texts, and a third that is a text or a flag: entries of maps, Mount, DeviceSpec and CDIDevice have this shape.
fn texts(message: &[u8]) -> Option<(String, String, (String, bool))> {
    let mut all = (String::new(), String::new(), (String::new(), false));
    wire::read(message, &mut |field, value| {
        match (field, value) {
            (1, value) => all.0 = value.text(),
            (2, value) => all.1 = value.text(),
            (3, Value::Number(flag)) => all.2.1 = flag != 0,
            (3, value) => all.2.0 = value.text(),
            _ => {}
        }
        Some(())
    })?;
    Some(all)
}
