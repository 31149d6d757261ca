//! What a pod at rest costs the agent's core of memory, and that hours of its probes add nothing.
//!
//! In: pods as the hub sends them, brought to Ready by the inputs that a device gives. Out: bytes of heap a further pod,
//! counted by an allocator of this program.
//! Never: measures a process; the figure is the same on every machine of one width.
#![allow(unsafe_code)] // an allocator that counts, over the system's

use limpet_agent_core::{
    Action, Input, Items, Now, PodManager,
    plan::{HostFacts, ImageFacts},
    pods::{ContainerRef, RanAs},
};
use limpet_protocol::{ItemKey, ItemKind};
use serde_json::{Value, json};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

/// What an allocator takes for so many bytes: its own word, rounded up to 16.
fn taken(bytes: usize) -> usize {
    (bytes + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call goes to the system's allocator as it came; beside it numbers are added up.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(taken(layout.size()), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(taken(layout.size()), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD.fetch_add(taken(size), Ordering::Relaxed);
        HELD.fetch_sub(taken(layout.size()), Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// With its manifest, its token and what was said of it.
const BYTES_MAX: usize = 10_000;
const START_MS: u64 = 1_795_431_600_000;

/// A pod of a Deployment with two probes, with all that an API server adds to it.
fn pod(name: &str, uid: &str) -> Value {
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10,
        "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3});
    let not = |what: &str| {
        let key = format!("node.kubernetes.io/{what}");
        json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "generateName": "pods-6d4cf56db6-", "namespace": "default", "uid": uid,
            "resourceVersion": "1234", "generation": 1, "creationTimestamp": "2026-11-23T10:00:00Z",
            "labels": {"app": "pods", "pod-template-hash": "6d4cf56db6"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "pods-6d4cf56db6",
                "uid": "5c1e0a3e-0000-4000-8000-2b2b2b2b2b2b", "controller": true, "blockOwnerDeletion": true}]},
        "spec": {
            "volumes": [{"name": "kube-api-access-x2x4z", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}],
            "containers": [{"name": "web", "image": "hub.limpet/demo-web:1", "imagePullPolicy": "IfNotPresent", "resources": {},
                "readinessProbe": probe, "livenessProbe": probe,
                "volumeMounts": [{"name": "kube-api-access-x2x4z", "readOnly": true,
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 0, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default", "serviceAccount": "default", "nodeName": "board-1", "securityContext": {},
            "schedulerName": "default-scheduler", "tolerations": [not("not-ready"), not("unreachable")],
            "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority"},
        "status": {"phase": "Pending", "qosClass": "BestEffort"}})
}

/// A device that does all that it is told, at once.
struct Board {
    manager: PodManager,
    items: Items,
    now: Now,
    ready: usize,
    probes: usize,
}

impl Board {
    fn new() -> Board {
        let now = Now { mono_ms: 1_000_000, wall_ms: START_MS };
        let mut board = Board { manager: PodManager::new(), items: Items::default(), now, ready: 0, probes: 0 };
        board.input(Input::Host(HostFacts {
            node_name: "board-1".into(),
            ips: vec!["192.0.2.1".into()],
            cluster_domain: "cluster.local".into(),
            allocatable_cpu_milli: 4000,
            allocatable_memory_bytes: 1 << 30,
            ..Default::default()
        }));
        board.input(Input::Begin);
        board.put(ItemKind::ConfigMap, "kube-root-ca.crt", json!({"data": {"ca.crt": "pem"}}));
        board
    }

    fn put(&mut self, kind: ItemKind, name: &str, body: Value) {
        let key = ItemKey::new(kind, "default", name);
        self.items.put(key.clone(), 1, body.to_string().as_bytes());
        self.input(Input::Changed(vec![key]));
    }

    fn input(&mut self, input: Input) {
        self.manager.handle(self.now, &self.items, input);
        while let Some(action) = self.manager.poll() {
            let Some(answer) = self.answer(action) else { continue };
            self.now = Now { mono_ms: self.now.mono_ms + 1, wall_ms: self.now.wall_ms + 1 };
            self.manager.handle(self.now, &self.items, answer);
        }
    }

    fn answer(&mut self, action: Action) -> Option<Input> {
        Some(match action {
            Action::SetupVolumes { uid, .. } => Input::VolumesReady { uid },
            Action::CreateSandbox { uid, .. } => Input::SandboxReady { uid, ips: vec!["10.42.0.5".into()] },
            Action::PullImage { uid, container, .. } => Input::ImageReady {
                uid,
                container,
                image: ImageFacts {
                    id: format!("sha256:{}", "5a".repeat(32)),
                    digest_ref: format!("hub.limpet/demo-web@sha256:{}", "a5".repeat(32)),
                    entrypoint: vec!["/demo-web".into()],
                    env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
                    ..Default::default()
                },
                pulled_in_ms: None,
            },
            Action::StartContainer { uid, plan } => {
                let at = ContainerRef { uid, container: plan.name.as_str().into(), attempt: plan.attempt };
                let user = Input::ContainerUser { at: at.clone(), user: RanAs { groups: vec![0], ..RanAs::default() } };
                self.manager.handle(self.now, &self.items, user);
                Input::ContainerStarted(at)
            }
            Action::RunProbe { at, kind, .. } => {
                self.probes += 1;
                Input::Probed { at, kind, ok: true, output: String::new() }
            }
            Action::Report { status, .. } => {
                let status: Value = serde_json::from_slice(&status).unwrap();
                self.ready += usize::from(status["containerStatuses"][0]["ready"] == true);
                return None;
            }
            _ => return None,
        })
    }

    fn pods(&mut self, numbers: std::ops::Range<usize>) {
        for n in numbers {
            let uid = format!("0d7fd2ee-{n:04}-4000-8000-1a1a1a1a1a1a");
            self.put(ItemKind::Token, &format!("{uid}.kube-api-access-x2x4z.0"), token(n));
            self.put(ItemKind::Pod, &format!("pods-6d4cf56db6-{n:05}"), pod(&format!("pods-6d4cf56db6-{n:05}"), &uid));
        }
        for _ in 0..3 {
            self.now = Now { mono_ms: self.now.mono_ms + 10_000, wall_ms: self.now.wall_ms + 10_000 };
            self.input(Input::Tick);
        }
    }
}

fn token(n: usize) -> Value {
    // As dense as a signed token is.
    let mut state = n as u64 + 1;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[(state >> 58) as usize])
    };
    let token: String = (0..900).map(|_| letter()).collect();
    json!({"token": token, "expirationTimestamp": "2026-11-23T11:00:07Z"})
}

#[test]
fn a_further_pod_costs_little() {
    let mut board = Board::new();
    board.pods(0..10);
    let ten = HELD.load(Ordering::Relaxed);
    board.pods(10..50);
    let each = (HELD.load(Ordering::Relaxed) - ten) / 40;
    println!("{each} bytes a further pod");
    assert!(board.ready >= 50, "{} statuses said ready", board.ready);
    assert!(each <= BYTES_MAX, "a further pod takes {each} bytes of heap; {BYTES_MAX} are allowed");
    // Hours of probes leave nothing behind.
    let begun = HELD.load(Ordering::Relaxed);
    for _ in 0..2 * 360 {
        board.now = Now { mono_ms: board.now.mono_ms + 10_000, wall_ms: board.now.wall_ms + 10_000 };
        board.input(Input::Tick);
    }
    let (now, probes) = (HELD.load(Ordering::Relaxed), board.probes);
    println!("{} bytes more after two hours and {probes} probes", now as i64 - begun as i64);
    assert!(probes > 50 * 2 * 700 && now <= begun + 4096, "{begun} bytes before, {now} after {probes} probes");
}
