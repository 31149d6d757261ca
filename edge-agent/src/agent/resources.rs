//! Which pod has which devices, as this loop knows it.
//!
//! In: questions of programs on the board (`plugins/lister.rs`). Out: a message of `v1.PodResourcesLister` each.
//! Never: a pod that is not here any more, or not yet.

use super::state::Agent;
use crate::{
    grpc::UNKNOWN,
    plugins::lister::{self, Ask, Claimed, ContainerResources, Question},
};
use limpet_agent_core::{plan, pods::PodView};

impl Agent {
    /// Where there are device plugins, others may ask what became of the devices.
    pub(super) fn open_pod_resources(&mut self) {
        let Some(dir) = self.options.config.device_plugin_dir(&self.options.paths) else { return };
        match lister::open(&dir) {
            Ok(asks) => self.asks = asks,
            Err(why) => log::error!("{why}"),
        }
    }

    pub(super) fn tell_of_devices(&self, ask: Ask) {
        let mut here = self.pods.pods().filter(|pod| pod.sandbox_ready);
        let answer = match ask.question {
            Question::All => Ok(lister::pods(&here.map(|pod| self.resources_of(&pod)).collect::<Vec<_>>())),
            Question::Pod { name, namespace } => {
                let named = |pod: &PodView<'_>| pod.object.metadata.name == name && pod.object.metadata.namespace == namespace;
                let found = here.find(named).map(|pod| lister::pods(&[self.resources_of(&pod)]));
                found.ok_or_else(|| (UNKNOWN, format!("pod {name} in namespace {namespace} not found")))
            }
            Question::Allocatable => Ok(lister::allocatable(&self.hands.devices_there())),
        };
        // Who asked may have gone.
        let _ = ask.reply.send(answer);
    }

    /// Of those of its containers that stay: the main ones, and sidecars.
    fn resources_of(&self, pod: &PodView<'_>) -> Vec<u8> {
        let (meta, spec) = (&pod.object.metadata, &pod.object.spec);
        let sidecars = spec.init_containers.iter().filter(|c| c.is_restartable_init());
        let containers: Vec<ContainerResources> = spec
            .containers
            .iter()
            .chain(sidecars)
            .map(|c| ContainerResources {
                name: c.name.clone(),
                devices: self.hands.devices_of(&(pod.uid.to_string(), c.name.clone())),
                claimed: plan::claimed(pod.object, self.sync.items(), c)
                    .into_iter()
                    .map(|(claim, by)| Claimed {
                        claim,
                        namespace: meta.namespace.clone(),
                        driver: by.driver,
                        pool: by.pool,
                        device: by.device,
                    })
                    .collect(),
            })
            .collect();
        lister::pod(&meta.name, &meta.namespace, &containers)
    }
}
