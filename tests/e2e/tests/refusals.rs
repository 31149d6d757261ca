//! What must not work: wrong tokens, foreign certificates, a board that asks for another's things.
//!
//! In: tokens, certificates as a thief would have them. Out: refusals with the reason, and nothing changed.

use limpet_e2e::process::run;
use limpet_e2e::world::test;
use limpet_e2e::{Agent, Result, World, net, process, until, wait};
use serde_json::json;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn stranger(world: &World, number: usize) -> Result<Agent> {
    let address = net::board(&world.slot, number)?;
    Agent::new(&world.slot, world.binaries.agent.clone(), number, address, json!({}))
}

fn says(agent: &Agent, words: &str) -> Result<()> {
    until("the refusal", SOON, || {
        let text = process::tail(&agent.log, 8000);
        wait::yes(text.contains(words), || text)
    })
}

fn nodes(world: &World) -> Result<String> {
    world.kubectl.say("get nodes -o name")
}

#[test]
fn tokens_that_do_not_open_the_door() {
    test(1, &json!({}), |world| {
        let before = nodes(world)?;
        let good = world.hub.token(&["--uses", "1", "--node", "board-3"])?;
        // Another name than the token is for.
        let mut two = stranger(world, 2)?;
        two.start(Some(&good))?;
        says(&two, "board-3")?;
        two.power_cut()?;
        // A wrong secret: the token's last characters are changed, the rest is right.
        let mut wrong = good.clone();
        let at = wrong.len() - 8;
        wrong.replace_range(at.., "AAAAAAAA");
        let mut three = stranger(world, 3)?;
        three.start(Some(&wrong))?;
        until("the refusal", SOON, || wait::yes(!process::tail(&three.log, 4000).is_empty(), || "silence".to_string()))?;
        three.power_cut()?;
        wait::yes(nodes(world)? == before, || "a node appeared".to_string())?;
        // The right one, once; then it is used up.
        three.start(Some(&good))?;
        until("board-3", SOON, || wait::yes(nodes(world)?.contains("board-3"), || "not yet".to_string()))?;
        let mut four = stranger(world, 4)?;
        four.start(Some(&good))?;
        until("the refusal", SOON, || {
            let text = process::tail(&four.log, 4000);
            wait::yes(text.contains("token") || text.contains("refused"), || text)
        })?;
        wait::yes(!nodes(world)?.contains("board-4"), || "board-4 came in".to_string())
    });
}

#[test]
fn a_nodes_certificate_opens_only_its_own_doors() {
    test(2, &json!({}), |world| {
        let secret = |name: &str| format!("create secret generic {name} --from-literal=k={name}");
        world.kubectl.say(&secret("mine"))?;
        world.kubectl.say(&secret("theirs"))?;
        for (name, secret, node) in [("one", "mine", "board-1"), ("two", "theirs", "board-2")] {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
                "nodeName": node, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": "hub.limpet/busybox:1", "command": ["sleep", "1000"],
                    "env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}]}]}});
            world.kubectl.apply(&pod.to_string())?;
            world.kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=60s"))?;
        }
        let thief = Thief::of(world)?;
        for (path, code) in [
            ("/api/v1/namespaces/default/secrets/mine", "200"),
            ("/api/v1/namespaces/default/secrets/theirs", "403"),
            ("/api/v1/namespaces/default/secrets", "403"),
            ("/api/v1/secrets", "403"),
            ("/api/v1/nodes/board-1", "200"),
            ("/apis/rbac.authorization.k8s.io/v1/clusterroles", "403"),
            ("/limpet/v1/tokens", "403"),
        ] {
            let got = thief.code(&[path])?;
            wait::yes(got == code, || format!("GET {path} as board-1 answered {got} instead of {code}"))?;
        }
        let kind = "Content-Type: application/merge-patch+json";
        let patch = ["-X", "PATCH", "-H", kind, "-d", r#"{"spec":{"unschedulable":true}}"#];
        let other: Vec<&str> = patch.iter().copied().chain(["/api/v1/nodes/board-2"]).collect();
        let got = thief.code(&other)?;
        wait::yes(got == "403", || format!("board-1 may change board-2: {got}"))
    });
}

/// Somebody with a board's card in the reader: its certificate and key.
struct Thief {
    api: String,
    ca: PathBuf,
    identity: PathBuf,
}

impl Thief {
    fn of(world: &World) -> Result<Thief> {
        let dir = world.slot.dir();
        let config = world.kubectl.say("config view --raw -o jsonpath={.clusters[0].cluster.certificate-authority-data}")?;
        let ca = dir.join("ca.pem");
        std::fs::write(&ca, limpet_e2e::images::decode_base64(&config)?).map_err(|e| e.to_string())?;
        let pem = pem_of(&world.agents[0].data)?;
        let identity = dir.join("thief.pem");
        std::fs::write(&identity, pem).map_err(|e| e.to_string())?;
        Ok(Thief { api: format!("https://{}:6443", world.hub.address), ca, identity })
    }

    fn code(&self, words: &[&str]) -> Result<String> {
        let (path, options) = words.split_last().ok_or("no path")?;
        let mut command = Command::new("curl");
        command.args(["--silent", "--noproxy", "*", "--output", "/dev/null", "--write-out", "%{http_code}"]);
        command.arg("--cacert").arg(&self.ca).arg("--cert").arg(&self.identity).arg("--key").arg(&self.identity);
        command.args(options).arg(format!("{}{path}", self.api));
        run(&mut command)?.ok("curl")
    }
}

/// Certificate and key of a board, as they lie on its card.
fn pem_of(data: &std::path::Path) -> Result<String> {
    let read = |name: &str| {
        let path = data.join("identity").join(name);
        std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    let answer: serde_json::Value = serde_json::from_str(&read("identity.json")?).map_err(|e| e.to_string())?;
    let certificate = answer["certificate_pem"].as_str().ok_or("there is no certificate")?;
    Ok(format!("{certificate}\n{}", read("node.key")?))
}
