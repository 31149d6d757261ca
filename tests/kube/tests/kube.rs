//! kube-rs at the API: typed calls, watchers and reflectors, a controller, leader election, apply, a derived kind.
//!
//! In: one hub in this process. Out: what kube-rs makes of its answers. Never: a wait for time, except where kube itself
//! waits; a test that looks into another one's namespace.
#![allow(clippy::unwrap_used)]

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{ConfigMap, Namespace, Secret, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Config, CustomResource, CustomResourceExt, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, PropagationPolicy},
    config::{KubeConfigOptions, Kubeconfig},
    core::{PartialObjectMeta, PartialObjectMetaExt},
    discovery::{Discovery, Scope},
    runtime::{
        Controller, WatchStreamExt, controller::Action, reflector,
        wait::{await_condition, conditions}, watcher,
    },
};
use limpet_kube::{PATIENCE, kubeconfig};
use serde_json::json;
use std::{collections::BTreeMap, pin::pin, sync::Arc};
use tokio::{sync::mpsc, time::timeout};

async fn client(namespace: &str) -> Client {
    let text = tokio::task::spawn_blocking(kubeconfig).await.unwrap();
    let file = Kubeconfig::from_yaml(text).unwrap();
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    config.default_namespace = namespace.into();
    let client = Client::try_from(config).unwrap();
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    soon("the namespace's account", await_condition(accounts, "default", conditions::is_created())).await.unwrap();
    client
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

fn map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.into());
    map.data = Some(data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
    map
}

fn code(error: kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn typed_calls_and_their_errors() {
    let maps: Api<ConfigMap> = Api::default_namespaced(client("typed").await);
    let post = PostParams::default();
    let made = maps.create(&post, &map("one", &[("a", "1")])).await.unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    let again = maps.create(&post, &map("one", &[])).await.unwrap_err();
    assert_eq!(code(again), (409, "AlreadyExists".into()));
    let mut newer = made.clone();
    newer.data = Some(BTreeMap::from([("a".into(), "2".into())]));
    maps.replace("one", &post, &newer).await.unwrap();
    assert_eq!(code(maps.replace("one", &post, &newer).await.unwrap_err()), (409, "Conflict".into()));
    assert_eq!(code(maps.get("two").await.unwrap_err()), (404, "NotFound".into()));
    assert!(maps.get_opt("two").await.unwrap().is_none());

    let dry = PostParams { dry_run: true, ..post.clone() };
    maps.create(&dry, &map("two", &[])).await.unwrap();
    assert!(maps.get_opt("two").await.unwrap().is_none(), "a dry run leaves nothing");
    let merged = maps.patch("one", &PatchParams::default(), &Patch::Merge(json!({"data": {"b": "x"}}))).await.unwrap();
    assert_eq!(merged.data.unwrap().len(), 2);
    assert_eq!(maps.get_metadata("one").await.unwrap().name_any(), "one");
    assert_eq!(maps.list_metadata(&ListParams::default().fields("metadata.name=one")).await.unwrap().items.len(), 1);

    // An entry: what is there is changed, what is not there is made, and a conflict is told apart.
    let entry = maps.entry("three").await.unwrap().or_insert(|| map("three", &[]));
    let mut entry = entry.and_modify(|map| map.data = Some(BTreeMap::from([("made".into(), "yes".into())])));
    entry.commit(&post).await.unwrap();
    assert_eq!(maps.get("three").await.unwrap().data.unwrap()["made"], "yes");

    // kube asks for the object or the Status of a deletion; both are answers of a real server.
    let gone = maps.delete("one", &DeleteParams::default()).await.unwrap();
    assert!(gone.right().is_some_and(|status| status.is_success()), "gone at once: a Status");
    let mut held = map("held", &[]);
    held.metadata.finalizers = Some(vec!["example.org/hold".into()]);
    maps.create(&post, &held).await.unwrap();
    let going = maps.delete("held", &DeleteParams::foreground()).await.unwrap();
    assert!(going.left().unwrap().metadata.deletion_timestamp.is_some(), "held: the object");
    let free = Patch::Json::<()>(serde_json::from_value(json!([{"op": "remove", "path": "/metadata/finalizers"}])).unwrap());
    maps.patch("held", &PatchParams::default(), &free).await.unwrap();
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    maps.delete_collection(&orphan, &ListParams::default()).await.unwrap();
    let left = maps.list(&ListParams::default()).await.unwrap();
    assert!(left.items.iter().all(|map| map.name_any() == "kube-root-ca.crt"), "{left:?}");
}

/// What a reflector holds, by both ways to begin: a list in pages then a watch, and one watch that sends the beginning.
#[tokio::test]
async fn reflectors_hold_what_is_there() {
    let client = client("reflected").await;
    let ways = [watcher::Config::default().page_size(2), watcher::Config::default().streaming_lists()];
    for (number, config) in ways.into_iter().enumerate() {
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let name = |at: usize| format!("m{number}-{at}");
        let label = format!("run=r{number}");
        let labelled = |at: usize| {
            let mut map = map(&name(at), &[("n", "0")]);
            map.metadata.labels = Some(BTreeMap::from([("run".into(), format!("r{number}"))]));
            map
        };
        for at in 0..5 {
            maps.create(&PostParams::default(), &labelled(at)).await.unwrap();
        }
        let (reader, writer) = reflector::store();
        let stream = reflector(writer, watcher(maps.clone(), config.labels(&label))).default_backoff();
        let (sender, mut seen) = mpsc::unbounded_channel();
        let running = tokio::spawn(async move {
            let mut stream = pin!(stream);
            while let Some(event) = stream.next().await {
                let _ = sender.send(match event.unwrap() {
                    watcher::Event::Apply(map) => format!("apply {}", map.name_any()),
                    watcher::Event::Delete(map) => format!("delete {}", map.name_any()),
                    watcher::Event::InitApply(_) | watcher::Event::Init => continue,
                    watcher::Event::InitDone => "begun".into(),
                });
            }
        });
        soon("the beginning", reader.wait_until_ready()).await.unwrap();
        assert_eq!(soon("the beginning's end", seen.recv()).await.unwrap(), "begun");
        assert_eq!(reader.len(), 5);
        maps.patch(&name(1), &PatchParams::default(), &Patch::Merge(json!({"data": {"n": "1"}}))).await.unwrap();
        maps.delete(&name(2), &DeleteParams::default()).await.unwrap();
        let other = Patch::Merge(json!({"metadata": {"labels": {"run": "x"}}}));
        maps.patch(&name(3), &PatchParams::default(), &other).await.unwrap();
        maps.create(&PostParams::default(), &labelled(5)).await.unwrap();
        let mut told = Vec::new();
        while told.len() < 4 {
            told.push(soon("four changes", seen.recv()).await.unwrap());
        }
        let expect = [("apply", 1), ("delete", 2), ("delete", 3), ("apply", 5)];
        assert_eq!(told, expect.map(|(word, at)| format!("{word} {}", name(at))));
        let mut held: Vec<String> = reader.state().iter().map(|map| map.name_any()).collect();
        held.sort();
        assert_eq!(held, [0, 1, 4, 5].map(name));
        let one = reader.find(|map| map.name_any() == name(1)).unwrap();
        assert_eq!(one.data.as_ref().unwrap()["n"], "1");
        running.abort();
    }
}

#[tokio::test]
async fn metadata_watchers_see_no_data() {
    let client = client("metadata").await;
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let bare: Api<PartialObjectMeta<Secret>> = Api::default_namespaced(client);
    let mut stream = pin!(watcher(bare, watcher::Config::default()).applied_objects());
    let object = serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}})).unwrap();
    let making = async { secrets.create(&PostParams::default(), &object).await.unwrap() };
    let (found, _) = tokio::join!(soon("the secret", stream.try_next()), making);
    let found = found.unwrap().unwrap();
    assert_eq!((found.name_any(), found.types.unwrap().kind), ("s".to_owned(), "PartialObjectMetadata".to_owned()));
}

#[tokio::test]
async fn apply_finds_conflicts_and_shares() {
    let client = client("applied").await;
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let wanted = |image: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
    };
    let one = PatchParams::apply("one");
    let made = deployments.patch("web", &one, &Patch::Apply(wanted("i:1"))).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let same = deployments.patch("web", &one, &Patch::Apply(wanted("i:1"))).await.unwrap();
    assert_eq!(same.metadata.generation, Some(1));
    let two = PatchParams::apply("two");
    let refused = deployments.patch("web", &two, &Patch::Apply(wanted("i:2"))).await.unwrap_err();
    let status = match refused {
        kube::Error::Api(status) => status,
        other => panic!("{other}"),
    };
    let causes: Vec<_> = status.details.as_ref().unwrap().causes.iter().map(|c| (c.reason.clone(), c.field.clone())).collect();
    let field = ".spec.template.spec.containers[name=\"c\"].image";
    assert_eq!((status.code, causes), (409, vec![("FieldManagerConflict".to_owned(), field.to_owned())]));
    let taken = deployments.patch("web", &two.clone().force(), &Patch::Apply(wanted("i:2"))).await.unwrap();
    let owners: Vec<_> = taken.managed_fields().iter().filter(|m| m.operation.as_deref() == Some("Apply")).collect();
    assert_eq!(owners.len(), 2, "both share what both say");
    let (scaled, status) = (deployments.get_scale("web").await.unwrap(), json!({"status": {"readyReplicas": 1, "replicas": 2}}));
    assert_eq!(scaled.spec.unwrap().replicas, Some(2));
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 4}});
    let refused = deployments.patch_scale("web", &PatchParams::apply("three"), &Patch::Apply(&scale)).await.unwrap_err();
    assert_eq!(code(refused).0, 409, "one and two own the replicas");
    let forced = deployments.patch_scale("web", &PatchParams::apply("three").force(), &Patch::Apply(&scale)).await.unwrap();
    assert_eq!(forced.spec.unwrap().replicas, Some(4));
    let patched = deployments.patch_status("web", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let by = |sub: &str| patched.managed_fields().iter().filter(|m| m.subresource.as_deref() == Some(sub)).count();
    assert!(by("scale") == 1 && by("status") >= 1, "{:?}", patched.managed_fields());
}

/// A lease is held by one; the next one has it when the first lets go, and whoever comes too late is told.
struct Candidate {
    leases: Api<Lease>,
    name: &'static str,
}

impl Candidate {
    fn claim(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.name.into()),
            lease_duration_seconds: Some(15),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// One look: whether it leads now. Only a lease that nobody holds is taken.
    async fn tries(&self) -> Result<bool, (u16, String)> {
        let Some(mut lease) = self.leases.get_opt("leader").await.unwrap() else {
            let mut lease = Lease::default();
            lease.metadata.name = Some("leader".into());
            lease.spec = Some(self.claim(0));
            return self.leases.create(&PostParams::default(), &lease).await.map(|_| true).map_err(code);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty() && holder != self.name) {
            return Ok(false);
        }
        lease.spec = Some(self.claim(spec.lease_transitions.unwrap_or_default() + 1));
        self.leases.replace("leader", &PostParams::default(), &lease).await.map(|_| true).map_err(code)
    }
}

#[tokio::test]
async fn one_of_many_candidates_leads() {
    let client = client("elected").await;
    let leases: Api<Lease> = Api::default_namespaced(client);
    let names = ["a", "b", "c", "d", "e", "f"];
    let all = || names.map(|name| Candidate { leases: leases.clone(), name });
    for round in 0..5 {
        let rounds = all().map(|candidate| tokio::spawn(async move { (candidate.name, candidate.tries().await) }));
        let mut leaders = Vec::new();
        for one in rounds {
            match one.await.unwrap() {
                (name, Ok(true)) => leaders.push(name),
                (_, Ok(false)) => {}
                (_, Err((code, reason))) => assert!(code == 409 && ["Conflict", "AlreadyExists"].contains(&reason.as_str())),
            }
        }
        assert_eq!(leaders.len(), 1, "round {round}");
        let held = leases.get("leader").await.unwrap();
        assert_eq!(held.spec.as_ref().unwrap().holder_identity.as_deref(), Some(leaders[0]));
        let freed = Patch::Merge(json!({"spec": {"holderIdentity": ""}}));
        leases.patch("leader", &PatchParams::default(), &freed).await.unwrap();
    }
    let spec = leases.get("leader").await.unwrap().spec.unwrap();
    assert_eq!(spec.lease_transitions, Some(4));
    assert!(spec.renew_time.is_some(), "with its microseconds");
}

#[derive(CustomResource, serde::Deserialize, serde::Serialize, Clone, Debug, schemars::JsonSchema)]
#[kube(group = "kube.example.org", version = "v1", kind = "Buoy", namespaced, status = "BuoyStatus", shortname = "bu")]
#[kube(scale(spec_replicas_path = ".spec.bells", status_replicas_path = ".status.ringing"))]
#[kube(printcolumn(name = "Depth", type_ = "integer", json_path = ".spec.depth"))]
struct BuoySpec {
    #[schemars(range(min = 1))]
    depth: i32,
    #[serde(default)]
    bells: i32,
    /// Its colours, by side.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    colours: BTreeMap<String, String>,
}

#[derive(serde::Deserialize, serde::Serialize, Clone, Debug, Default, schemars::JsonSchema)]
struct BuoyStatus {
    ringing: i32,
}

struct Told {
    client: Client,
    rung: mpsc::UnboundedSender<String>,
}

async fn reconcile(buoy: Arc<Buoy>, told: Arc<Told>) -> Result<Action, kube::Error> {
    let namespace = buoy.namespace().unwrap_or_default();
    let buoys: Api<Buoy> = Api::namespaced(told.client.clone(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced(told.client.clone(), &namespace);
    let name = buoy.name_any();
    let owner = kube::Resource::controller_owner_ref(buoy.as_ref(), &()).expect("it is stored: it has a uid");
    let mut log = map(&format!("{name}-log"), &[("depth", &buoy.spec.depth.to_string())]);
    log.metadata.owner_references = Some(vec![owner]);
    maps.patch(&log.name_any(), &PatchParams::apply("buoys").force(), &Patch::Apply(&log)).await?;
    let status = json!({"apiVersion": "kube.example.org/v1", "kind": "Buoy", "status": {"ringing": buoy.spec.bells}});
    buoys.patch_status(&name, &PatchParams::apply("buoys").force(), &Patch::Apply(&status)).await?;
    let _ = told.rung.send(format!("{name} {}", buoy.spec.depth));
    Ok(Action::await_change())
}

#[tokio::test]
async fn a_controller_works_on_a_derived_kind() {
    let client = client("derived").await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "buoys.kube.example.org";
    definitions.patch(name, &PatchParams::apply("kube"), &Patch::Apply(Buoy::crd())).await.unwrap();
    let there = await_condition(definitions.clone(), name, conditions::is_crd_established());
    soon("the definition", there).await.unwrap();

    let buoys: Api<Buoy> = Api::default_namespaced(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let (rung, mut told) = mpsc::unbounded_channel();
    let context = Arc::new(Told { client: client.clone(), rung });
    let controller = Controller::new(buoys.clone(), watcher::Config::default())
        .owns(maps.clone(), watcher::Config::default().streaming_lists())
        .run(reconcile, |_, error, _| panic!("{error}"), context)
        .for_each(|_| async {});
    let running = tokio::spawn(controller);

    let shallow = Buoy::new("b", BuoySpec { depth: 0, bells: 0, colours: BTreeMap::new() });
    let refused = buoys.create(&PostParams::default(), &shallow).await.unwrap_err();
    assert_eq!(code(refused), (422, "Invalid".into()));
    let buoy = Buoy::new("b", BuoySpec { depth: 7, bells: 2, colours: BTreeMap::new() });
    buoys.create(&PostParams::default(), &buoy).await.unwrap();
    soon("the first look", async { while told.recv().await.unwrap() != "b 7" {} }).await;
    let ringing = |wanted: i32| {
        move |buoy: Option<&Buoy>| buoy.and_then(|b| b.status.as_ref()).is_some_and(|s| s.ringing == wanted)
    };
    soon("the status", await_condition(buoys.clone(), "b", ringing(2))).await.unwrap();
    let scale = Patch::Merge(json!({"spec": {"replicas": 5}}));
    assert_eq!(buoys.patch_scale("b", &PatchParams::default(), &scale).await.unwrap().spec.unwrap().replicas, Some(5));
    soon("the other status", await_condition(buoys.clone(), "b", ringing(5))).await.unwrap();
    // What the controller owns comes back when somebody takes it.
    let log = maps.get("b-log").await.unwrap();
    maps.delete("b-log", &DeleteParams::default()).await.unwrap();
    let back = |map: Option<&ConfigMap>| map.is_some_and(|map| map.uid() != log.uid());
    soon("the log is back", await_condition(maps.clone(), "b-log", back)).await.unwrap();
    // And goes with its owner.
    let uid = maps.get("b-log").await.unwrap().uid().unwrap();
    buoys.delete("b", &DeleteParams::background()).await.unwrap();
    soon("the log goes", await_condition(maps, "b-log", conditions::is_deleted(&uid))).await.unwrap();
    running.abort();

    // Whoever does not know the type finds it by discovery, as kubectl does.
    let discovery = Discovery::new(client.clone()).filter(&["kube.example.org"]).run().await.unwrap();
    let at_once = Discovery::new(client.clone()).filter(&["kube.example.org"]).run_aggregated().await.unwrap();
    assert!(at_once.groups().next().unwrap().recommended_kind("Buoy").is_some(), "in the one document for all");
    let group = discovery.groups().next().unwrap();
    let (found, abilities): (ApiResource, _) = group.recommended_kind("Buoy").unwrap();
    assert_eq!((found.plural.as_str(), &abilities.scope), ("buoys", &Scope::Namespaced));
    let status = abilities.subresources.iter().any(|(sub, _)| ["buoys/status", "status"].contains(&sub.plural.as_str()));
    assert!(status, "{abilities:?}");
    let dynamic: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &found);
    let object = DynamicObject::new("d", &found).data(json!({"spec": {"depth": 3, "colours": {"port": "red"}, "junk": 1}}));
    let made = dynamic.create(&PostParams::default(), &object).await.unwrap();
    assert_eq!(made.data["spec"], json!({"depth": 3, "bells": 0, "colours": {"port": "red"}}));
    let meta = kube::core::ObjectMeta { labels: Some(BTreeMap::from([("l".into(), "v".into())])), ..Default::default() };
    let only = meta.into_request_partial::<Buoy>();
    let labelled = buoys.patch_metadata("d", &PatchParams::apply("labels"), &Patch::Apply(&only)).await.unwrap();
    assert_eq!(labelled.labels()["l"], "v");
    let uid = definitions.get(name).await.unwrap().uid().unwrap();
    definitions.delete(name, &DeleteParams::default()).await.unwrap();
    soon("the definition goes", await_condition(definitions, name, conditions::is_deleted(&uid))).await.unwrap();
    // Who was told of its end finds the kind gone.
    assert_eq!(code(buoys.list(&ListParams::default()).await.unwrap_err()).0, 404);
}
