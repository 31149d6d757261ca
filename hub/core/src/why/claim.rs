//! Why a PersistentVolumeClaim is not bound, or does not go.
//!
//! In: a claim, its class, who uses it. Out: what it waits for. Never: looks at a board's disk.

use super::Answer;
use crate::{
    ObjectStore,
    view::{PersistentVolume, PersistentVolumeClaim, Pod, PodRef, StorageClass},
};

/// Annotation that the binder leaves on a claim that waits: `REASON: message`.
const WAITS: &str = "limpet.dev/volume-waits";
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

pub fn why(view: &ObjectStore, claim: &PersistentVolumeClaim) -> Answer {
    let mut answer = Answer::about("persistentvolumeclaim", &claim.meta);
    let uses = |p: &&std::sync::Arc<Pod>| {
        let named = |r: &PodRef| matches!(r, PodRef::Claim(name) if *name == claim.meta.name);
        !p.is_finished() && p.spec.refs.iter().any(named)
    };
    let users: Vec<String> = view.list::<Pod>(&claim.meta.namespace).filter(uses).map(|p| p.meta.name.to_string()).collect();
    let volume = &claim.spec.volume_name;
    if claim.meta.deleting.is_some() {
        return match users.is_empty() {
            true => answer.verdict(format!("it is being deleted; finalizers: {}", claim.meta.finalizers.join(", "))),
            false => {
                answer.because(format!("pods use it: {}", users.join(", ")));
                answer.advise("delete these pods, or what makes them");
                answer.verdict("it is deleted, and stays until no pod uses it")
            }
        };
    }
    match &*claim.status.phase {
        "Bound" => {
            if users.is_empty() {
                answer.because("no pod uses it");
            } else {
                answer.because(format!("used by {}", users.join(", ")));
            }
            return answer.verdict(format!("nothing is wrong: it is bound to volume {volume}"));
        }
        "Lost" => return answer.verdict(format!("its volume {volume} is gone, and its data with it")),
        _ => {}
    }
    if let Some(said) = claim.meta.annotations.get(WAITS) {
        answer.because(said);
    }
    if !volume.is_empty() && view.get::<PersistentVolume>("", volume).is_none() {
        return answer.verdict(format!("it names volume {volume}, which does not exist"));
    }
    let is_default = |c: &StorageClass| c.meta.annotations.get(DEFAULT) == Some("true");
    let class = match claim.spec.storage_class_name.as_deref() {
        Some("") => return answer.verdict("it wants a volume without a class, and none that is free fits it"),
        Some(name) => match view.get::<StorageClass>("", name) {
            Some(class) => class,
            None => {
                let known: Vec<String> = view.all::<StorageClass>().map(|c| c.meta.name.to_string()).collect();
                answer.because(format!("StorageClasses that exist: {}", known.join(", ")));
                return answer.verdict(format!("its StorageClass {name} does not exist"));
            }
        },
        None => match view.all::<StorageClass>().find(|c| is_default(c)) {
            Some(class) => class,
            None => return answer.verdict("it names no StorageClass, and none is the default"),
        },
    };
    if &*class.volume_binding_mode == "WaitForFirstConsumer" && users.is_empty() {
        return answer.verdict("it waits for its first pod: the volume is made on the board where that runs");
    }
    if let Some(user) = users.first() {
        answer.advise(format!("limpet why -n {} pod/{user}", claim.meta.namespace));
    }
    answer.verdict(format!("it waits for a volume of class {}", class.meta.name))
}
