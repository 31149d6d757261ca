//! What must be refused, by the real hub and a real board: manifests, tokens, certificates, messages.
//!
//! In: a world with two boards. Out: refusals with their reason, nothing changed, everything else still working.
//! Images and full disks: `trouble.rs`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use limpet_e2e::images::Target;
use limpet_e2e::process::{Output, run, which};
use limpet_e2e::world::test;
use limpet_e2e::{Agent, Binaries, Hub, Kubectl, Result, World, kubectl, until, wait};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Something that only board-1 may publish.
const WORDS: [&str; 4] = ["-t", "n/board-1/u/s", "-m", "x"];
const SOON: Duration = Duration::from_secs(90);

fn contains(text: &str, word: &str) -> Result<()> {
    wait::yes(text.contains(word), || format!("{word:?} is not in:\n{text}"))
}

fn logged(hub: &Hub, word: &str) -> Result<()> {
    until("the hub's log", SOON, || contains(&limpet_e2e::process::tail(&hub.log, 1 << 20), word))
}

/// Certificate and key as files, and the hub's CA.
struct Papers {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Papers {
    /// What the board itself uses.
    fn of(world: &World, agent: &Agent) -> Result<Papers> {
        let identity = agent.data.join("identity");
        let text = fs::read(identity.join("identity.json")).map_err(|e| e.to_string())?;
        let answer: Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
        let certificate = world.slot.dir().join(format!("{}.crt", agent.name));
        let pem = answer["certificate_pem"].as_str().unwrap_or_default();
        fs::write(&certificate, pem).map_err(|e| e.to_string())?;
        Ok(Papers { ca: world.hub.dir.join("pki/ca.crt"), certificate, key: identity.join("node.key") })
    }

    /// The same name, signed by nobody whom the hub knows.
    fn forged(world: &World, name: &str, group: &str) -> Result<Papers> {
        let at = |end: &str| world.slot.dir().join(format!("forged.{end}"));
        let (key, certificate) = (at("key"), at("crt"));
        let subject = format!("/O={group}/CN={name}");
        let words = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
        let mut command = Command::new("openssl");
        command.args(words).args(["-days", "1", "-subj", &subject]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        run(command.arg("-keyout").arg(&key).arg("-out").arg(&certificate))?.ok("openssl req")?;
        Ok(Papers { ca: world.hub.dir.join("pki/ca.crt"), certificate, key })
    }

    fn curl(&self, hub: &Hub, path: &str) -> Result<(String, String)> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", "-w", "\n%{http_code}"]);
        command.arg("--cacert").arg(&self.ca).arg("--cert").arg(&self.certificate).arg("--key").arg(&self.key);
        let out = run(command.arg(format!("https://{}:6443{path}", hub.address)))?;
        let (body, code) = out.stdout.rsplit_once('\n').unwrap_or_default();
        Ok((code.to_string(), format!("{body}{}", out.stderr)))
    }

    fn mosquitto(&self, program: &str, hub: &Hub, id: &str, words: &[&str]) -> Result<Output> {
        let mut command = Command::new("timeout");
        command.args(["10", program, "-h", &hub.address, "-p", "8883", "-i", id, "-q", "1"]);
        command.arg("--cafile").arg(&self.ca).arg("--cert").arg(&self.certificate).arg("--key").arg(&self.key);
        run(command.args(words))
    }
}

#[test]
fn manifests_with_mistakes() {
    test(0, &json!({}), |world| {
        for program in [world.kubectl.program.clone(), kubectl::newer()?] {
            let kubectl = Kubectl::with(program, &world.hub.kubeconfig());
            unknown_fields(&kubectl)?;
            wrong_values(&kubectl)?;
        }
        Ok(())
    });
}

fn unknown_fields(kubectl: &Kubectl) -> Result<()> {
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: unknown}\ndata: {a: b}\ndatta: {x: y}\n";
    let apply = |mode: &str| kubectl.with_input(&["apply", "-f", "-", &format!("--validate={mode}")], manifest);
    let strict = apply("strict")?;
    contains(&strict.stderr, "strict decoding error: unknown field \"datta\"")?;
    wait::yes(strict.code == 1, || "strict let it pass".to_string())?;
    let warn = apply("warn")?;
    contains(&warn.stderr, "Warning: unknown field \"datta\"")?;
    contains(&warn.ok("--validate=warn")?, "configmap/unknown created")?;
    let ignore = apply("ignore")?;
    wait::yes(!ignore.stderr.contains("datta"), || format!("ignored, and yet told: {}", ignore.stderr))?;
    let kept = kubectl.json("get configmap unknown")?;
    wait::yes(kept.get("datta").is_none(), || format!("kept: {kept}"))?;
    kubectl.say("delete configmap unknown").map(|_| ())
}

fn wrong_values(kubectl: &Kubectl) -> Result<()> {
    let deployment = |replicas: &str, image: &str| {
        let container = format!("{{name: C_, {image}: x}}");
        let template = format!("{{metadata: {{labels: {{a: c}}}}, spec: {{containers: [{container}]}}}}");
        let spec = format!("{{replicas: {replicas}, selector: {{matchLabels: {{a: b}}}}, template: {template}}}");
        format!("apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: wrong}}\nspec: {spec}\n")
    };
    let words = ["apply", "-f", "-", "--validate=warn"];
    let wrong_type = kubectl.with_input(&words, &deployment("two", "image"))?;
    contains(&wrong_type.stderr, "cannot unmarshal string into Go struct field")?;
    let wrong = kubectl.with_input(&words, &deployment("2", "imagee"))?;
    for word in [
        "The Deployment \"wrong\" is invalid",
        "`selector` does not match template `labels`",
        "spec.template.spec.containers[0].name: Invalid value: \"C_\"",
        "spec.template.spec.containers[0].image: Required value",
    ] {
        contains(&wrong.stderr, word)?;
    }
    let nothing = kubectl.with_input(&["apply", "-f", "-"], "apiVersion: v1\nkind: Nope\nmetadata: {name: x}\n")?;
    contains(&nothing.stderr, "no matches for kind \"Nope\" in version \"v1\"")?;
    for (mib, why) in [(2, "may not be more than 1048576 bytes"), (4, "limit is 3145728")] {
        let (metadata, data) = (json!({"name": "large"}), json!({"a": "x".repeat(mib << 20)}));
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
        contains(&kubectl.with_input(&["create", "-f", "-"], &map.to_string())?.stderr, why)?;
    }
    let left = kubectl.say("get deployments,configmaps -o name")?;
    wait::yes(!left.contains("wrong") && !left.contains("large"), || format!("something was made: {left}"))
}

/// A board that must not get in: it ends by itself and says why.
fn refused(world: &mut World, token: &str, why: &str) -> Result<()> {
    let agent = &mut world.agents[0];
    agent.start(Some(token))?;
    until(&format!("refusal: {why}"), SOON, || contains(&agent.log_tail(), why))?;
    until("the agent's end", SOON, || wait::yes(agent.check().is_err(), || "it still tries".to_string()))?;
    agent.power_cut()?;
    let nodes = world.kubectl.say("get nodes -o name")?;
    wait::yes(nodes.is_empty(), || format!("and yet there is {nodes}"))
}

/// The token with one part replaced.
fn with(token: &str, part: &str, value: &Value) -> Result<String> {
    let (prefix, body) = token.rsplit_once('.').ok_or("not a token")?;
    let json = URL_SAFE_NO_PAD.decode(body).map_err(|e| e.to_string())?;
    let mut content: Value = serde_json::from_slice(&json).map_err(|e| e.to_string())?;
    let old = content.get_mut(part).ok_or_else(|| format!("tokens have no {part}"))?;
    *old = value.clone();
    Ok(format!("{prefix}.{}", URL_SAFE_NO_PAD.encode(content.to_string())))
}

#[test]
fn boards_that_must_not_get_in() {
    if let Some(why) = limpet_e2e::missing() {
        println!("skipped: {why}");
        return;
    }
    let mut world = None;
    let done = Binaries::build("dev").and_then(|binaries| {
        let world = world.insert(World::new(&binaries, 2)?);
        tokens(world)?;
        certificates(world)?;
        messages(world)
    });
    if let Err(why) = done {
        panic!("{why}\n{}", world.as_ref().map(World::logs).unwrap_or_default());
    }
}

fn tokens(world: &mut World) -> Result<()> {
    let good = world.hub.token(&["--uses", "1"])?;
    refused(world, "nonsense", "this is not a join token")?;
    refused(world, &good[..good.len() / 2], "damaged")?;
    refused(world, &with(&good, "secret", &json!("0".repeat(32)))?, "refused")?;
    refused(world, &with(&good, "id", &json!("000000"))?, "refused")?;
    let named = world.hub.token(&["--node", "somebody-else"])?;
    refused(world, &named, "somebody-else")?;
    let short = world.hub.token(&["--ttl", "1s"])?;
    until("the token's end", SOON, || {
        let mut command = Command::new(&world.binaries.hub);
        command.args(["token", "list", "--data-dir"]).arg(&world.hub.dir);
        contains(&run(&mut command)?.ok("limpet token list")?, "expired")
    })?;
    refused(world, &short, "expired")?;
    // The hub that the token names has another CA: the board does not even send the secret, and may try again later.
    let agent = &mut world.agents[0];
    agent.start(Some(&with(&good, "ca_sha256", &json!("0".repeat(64)))?))?;
    until("refusing the hub", SOON, || contains(&agent.log_tail(), "CA"))?;
    agent.power_cut()?;
    // The only use.
    world.agents[1].start(Some(&good))?;
    until("board-2", SOON, || contains(&world.kubectl.say("get nodes -o name")?, "board-2"))?;
    let agent = &mut world.agents[0];
    agent.start(Some(&good))?;
    until("refusal", SOON, || contains(&agent.log_tail(), "used as often as it may"))?;
    agent.power_cut()?;
    logged(&world.hub, "used as often as it may")?;
    let nodes = world.kubectl.say("get nodes -o name")?;
    wait::yes(nodes.trim() == "node/board-2", || nodes.clone())?;
    world.agents[1].power_cut()?;
    world.join()
}

fn certificates(world: &mut World) -> Result<()> {
    let own = Papers::of(world, &world.agents[0])?;
    let pod = |name: &str, node: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"nodeName": node,
            "containers": [{"name": "c", "image": "hub.limpet/nothing:1", "imagePullPolicy": "Never"}],
            "volumes": [{"name": "s", "secret": {"secretName": name}}]}})
    };
    for (name, node) in [("mine", "board-1"), ("theirs", "board-2")] {
        world.kubectl.say(&format!("create secret generic {name} --from-literal=a=b"))?;
        world.kubectl.apply(&pod(name, node).to_string())?;
    }
    for (path, code) in [
        ("/api/v1/namespaces/default/secrets/mine", "200"),
        ("/api/v1/namespaces/default/secrets/theirs", "403"),
        ("/api/v1/namespaces/default/secrets", "403"),
        ("/api/v1/secrets?watch=true", "403"),
        ("/api/v1/namespaces/default/pods/mine", "200"),
        ("/api/v1/namespaces/default/pods/theirs", "403"),
        ("/api/v1/nodes/board-1", "200"),
        ("/api/v1/nodes/board-2", "403"),
        ("/limpet/v1/tokens", "403"),
        ("/metrics", "403"),
    ] {
        let (got, body) = own.curl(&world.hub, path)?;
        wait::yes(got == code, || format!("{path}: {got} instead of {code}: {body}"))?;
    }
    for (name, group) in [("system:node:board-1", "system:nodes"), ("admin", "system:masters")] {
        let forged = Papers::forged(world, name, group)?;
        let (code, body) = forged.curl(&world.hub, "/api/v1/namespaces/default/secrets/mine")?;
        wait::yes(code == "401" || code == "000", || format!("a forged certificate got {code}: {body}"))?;
        if which("mosquitto_pub").is_some() {
            let out = forged.mosquitto("mosquitto_pub", &world.hub, "board-1", &WORDS)?;
            wait::yes(out.code != 0, || "a forged certificate may publish".to_string())?;
        }
    }
    // The operator's certificate is good, but it is no node's.
    let admin = Target::hub(&world.hub, &world.slot.dir())?.tls.ok_or("no papers")?;
    let admin = Papers { ca: admin.0, certificate: admin.1, key: admin.2 };
    if which("mosquitto_pub").is_some() {
        let out = admin.mosquitto("mosquitto_pub", &world.hub, "board-1", &WORDS)?;
        wait::yes(out.code != 0, || "the operator publishes for a node".to_string())?;
    }
    Ok(())
}

/// With a board's own papers, so that only what is said can be wrong.
fn messages(world: &mut World) -> Result<()> {
    if which("mosquitto_pub").is_none() {
        println!("skipped: needs mosquitto_pub: run `cargo xtask setup`");
        return Ok(());
    }
    let papers = Papers::of(world, &world.agents[0])?;
    world.agents[0].power_cut()?;
    let before = world.kubectl.json("get node board-2")?["metadata"]["uid"].clone();
    let file = world.slot.dir().join("message");
    let say = |bytes: &[u8], id: &str, topic: &str| -> Result<Output> {
        fs::write(&file, bytes).map_err(|e| e.to_string())?;
        papers.mosquitto("mosquitto_pub", &world.hub, id, &["-t", topic, "-f", &text(&file)])
    };
    let state = "n/board-1/u/s";
    say(&[9, 1, 0, 0], "board-1", state)?;
    logged(&world.hub, "message refused: protocol version 9 is not known here")?;
    say(&[1, 255, 255, 255], "board-1", state)?;
    logged(&world.hub, "message refused: malformed message")?;
    // The certificate counts; another's client id does not help.
    for (id, topic) in [
        ("board-1", "n/board-2/u/s"),
        ("board-1", "n/board-1/d/s"),
        ("board-1", "$SYS/x"),
        ("board-2", "n/board-2/u/t"),
    ] {
        say(&[1, 1, 0], id, topic)?;
        logged(&world.hub, &format!("published to {topic:?}, which is not its own"))?;
    }
    for topic in ["n/board-2/d/+", "#", "n/+/d/s"] {
        let out = papers.mosquitto("mosquitto_sub", &world.hub, "board-1", &["-t", topic, "-C", "1"])?;
        wait::yes(out.stdout.is_empty() && out.stderr.contains("denied"), || format!("{topic} can be read: {out:?}"))?;
    }
    world.agents[0].start(None)?;
    world.nodes_ready(Duration::from_secs(60))?;
    let after = world.kubectl.json("get node board-2")?["metadata"]["uid"].clone();
    wait::yes(before == after, || "board-2 is another one".to_string())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
