//! Which pod has which devices, for programs on the board that ask a kubelet: exporters of GPUs' figures, for example.
//!
//! In: calls of `v1.PodResourcesLister` at `pod-resources/kubelet.sock` beside the plugins' directory. Out: questions for the
//! agent's loop, which knows the pods, and its answers.
//! Never: the place of another kubelet that answers there; more guests or questions at a time than a few.
//! Source: kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/#monitoring-device-plugin-resources;
//! the fields' numbers of k8s.io/kubelet/pkg/apis/podresources/v1.

use super::socket;
use crate::grpc::{Answer, INVALID_ARGUMENT, UNAVAILABLE, UNIMPLEMENTED, wire};
use std::path::Path;
use tokio::sync::{mpsc, oneshot};

const DIR: &str = "pod-resources";
const SERVICE: &str = "/v1.PodResourcesLister/";
/// Questions that wait for the loop.
const ASKS_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Every pod that is here.
    All,
    /// One pod.
    Pod { name: String, namespace: String },
    /// What there is to be had.
    Allocatable,
}

pub struct Ask {
    pub question: Question,
    pub reply: oneshot::Sender<Answer>,
}

/// Devices of one resource: its name, their ids.
pub type Held = (String, Vec<String>);

/// A device that came by a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub claim: String,
    pub namespace: String,
    pub driver: String,
    pub pool: String,
    pub device: String,
}

pub struct ContainerResources {
    pub name: String,
    pub devices: Vec<Held>,
    pub claimed: Vec<Claimed>,
}

/// Opens the socket beside the directory of device plugins. An error is a sentence; the board works without.
pub fn open(plugins_dir: &Path) -> Result<mpsc::Receiver<Ask>, String> {
    let (tell, asks) = mpsc::channel(ASKS_MAX);
    let dir = plugins_dir.with_file_name(DIR);
    let listener = socket::bind(&dir).map_err(|why| format!("pod resources: {why}"))?;
    socket::listen(listener, move |path, message| {
        let tell = tell.clone();
        let question = question(path, message);
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let gone = |_| (UNAVAILABLE, "the agent is ending".to_string());
            tell.send(Ask { question: question?, reply }).await.map_err(|e| gone(e.to_string()))?;
            answer.await.map_err(|e| gone(e.to_string()))?
        })
    });
    Ok(asks)
}

fn question(path: &str, message: &[u8]) -> Result<Question, (u8, String)> {
    match path.strip_prefix(SERVICE) {
        Some("List") => Ok(Question::All),
        Some("GetAllocatableResources") => Ok(Question::Allocatable),
        Some("Get") => {
            let (mut name, mut namespace) = (String::new(), String::new());
            let read = wire::read(message, &mut |field, value| {
                match field {
                    1 => name = value.text(),
                    2 => namespace = value.text(),
                    _ => {}
                }
                Some(())
            });
            read.map(|()| Question::Pod { name, namespace }).ok_or((INVALID_ARGUMENT, "not a GetPodResourcesRequest".into()))
        }
        _ => Err((UNIMPLEMENTED, format!("unknown method {path}"))),
    }
}

/// A PodResources.
pub fn pod(name: &str, namespace: &str, containers: &[ContainerResources]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_bytes(&mut out, 1, name.as_bytes());
    wire::put_bytes(&mut out, 2, namespace.as_bytes());
    for container in containers {
        let mut inner = Vec::new();
        wire::put_bytes(&mut inner, 1, container.name.as_bytes());
        container.devices.iter().for_each(|held| wire::put_bytes(&mut inner, 2, &devices(held)));
        put_claims(&mut inner, &container.claimed);
        wire::put_bytes(&mut out, 3, &inner);
    }
    out
}

/// A ContainerDevices.
fn devices((resource, ids): &Held) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_bytes(&mut out, 1, resource.as_bytes());
    ids.iter().for_each(|id| wire::put_bytes(&mut out, 2, id.as_bytes()));
    out
}

/// DynamicResources: one a claim, with all that came by it.
fn put_claims(out: &mut Vec<u8>, claimed: &[Claimed]) {
    for group in claimed.chunk_by(|a, b| (&a.claim, &a.namespace) == (&b.claim, &b.namespace)) {
        let mut inner = Vec::new();
        wire::put_bytes(&mut inner, 2, group[0].claim.as_bytes());
        wire::put_bytes(&mut inner, 3, group[0].namespace.as_bytes());
        for one in group {
            let mut resource = Vec::new();
            for (field, text) in [(2, &one.driver), (3, &one.pool), (4, &one.device)] {
                wire::put_bytes(&mut resource, field, text.as_bytes());
            }
            wire::put_bytes(&mut inner, 4, &resource);
        }
        wire::put_bytes(out, 5, &inner);
    }
}

/// A ListPodResourcesResponse, or a GetPodResourcesResponse when there is one.
pub fn pods(all: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    all.iter().for_each(|pod| wire::put_bytes(&mut out, 1, pod));
    out
}

/// An AllocatableResourcesResponse. No container has processors or memory of its own on a board.
pub fn allocatable(all: &[Held]) -> Vec<u8> {
    let mut out = Vec::new();
    all.iter().for_each(|held| wire::put_bytes(&mut out, 1, &devices(held)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_schema_says() {
        let claimed = |device: &str| Claimed {
            claim: "c".into(), namespace: "n".into(), driver: "d".into(), pool: "b".into(), device: device.into(),
        };
        let container = ContainerResources {
            name: "m".into(),
            devices: vec![("v/x".into(), vec!["a".into(), "b".into()])],
            claimed: vec![claimed("1"), claimed("2")],
        };
        let one = pod("p", "n", &[container]);
        let want = b"\x0a\x01p\x12\x01n\x1a\x2e\x0a\x01m\x12\x0b\x0a\x03v/x\x12\x01a\x12\x01b\
            \x2a\x1c\x12\x01c\x1a\x01n\x22\x09\x12\x01d\x1a\x01b\x22\x01\x31\x22\x09";
        assert!(one.starts_with(&want[..]), "{one:?}");
        assert_eq!(pods(&[b"x".to_vec()]), b"\x0a\x01x");
        assert_eq!(allocatable(&[("v".into(), vec!["a".into()])]), b"\x0a\x06\x0a\x01v\x12\x01a");
    }

    #[test]
    fn what_is_asked() {
        assert_eq!(question("/v1.PodResourcesLister/List", b""), Ok(Question::All));
        let pod = Question::Pod { name: "p".into(), namespace: "n".into() };
        assert_eq!(question("/v1.PodResourcesLister/Get", b"\x0a\x01p\x12\x01n"), Ok(pod));
        assert_eq!(question("/v1.PodResourcesLister/Get", b"\x0a\x09p").unwrap_err().0, INVALID_ARGUMENT);
        assert_eq!(question("/v1alpha1.PodResources/List", b"").unwrap_err().0, UNIMPLEMENTED);
    }
}
