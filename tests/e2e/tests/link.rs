//! The door and the road: who is let in, by which ways, with which clock, and what happens to copies.
//!
//! In: a world with one or two boards. Out: nodes that are Ready or kept out, and sentences that say why.

use limpet_e2e::process::{Daemon, run, tail};
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, proxy, until, wait};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

fn contains(text: &str, word: &str) -> Result<()> {
    wait::yes(text.contains(word), || format!("{word:?} is not in:\n{text}"))
}

fn logged(world: &World, board: usize, word: &str) -> Result<()> {
    let log = world.agents[board].log.clone();
    until("the board's log", SOON, || contains(&tail(&log, 1 << 20), word))
}

/// Connected in a session that began after `begun` sessions.
fn welcome(world: &World, board: usize, begun: usize) -> Result<()> {
    let log = world.agents[board].log.clone();
    until("a session", SOON, || {
        let now = tail(&log, 1 << 22).matches("welcome at the hub").count();
        wait::yes(now > begun, || format!("{now} sessions in {}", tail(&log, 4000)))
    })
}

fn sessions(world: &World, board: usize) -> usize {
    tail(&world.agents[board].log, 1 << 22).matches("welcome at the hub").count()
}

#[test]
fn a_board_waits_is_let_in_and_is_cut_off() {
    test(0, &json!({}), |world| {
        let address = limpet_e2e::net::board(&world.slot, 1)?;
        let agent =
            limpet_e2e::Agent::new(&world.slot, world.binaries.agent.clone(), 1, address, json!({"log": "debug"}))?;
        world.agents.push(agent);
        let token = world.hub.token(&["--pool", "shop", "--approve", "other-*"])?;
        contains(&world.hub.operate(&["token", "list"])?, "needed, but other-*")?;
        world.agents[0].start(Some(&token))?;
        logged(world, 0, "limpet node approve board-1")?;
        let list = world.hub.operate(&["node", "list"])?;
        contains(&list, "Waiting")?;
        // What the board's owner reads is what the operator reads.
        let log = tail(&world.agents[0].log, 1 << 20);
        let print = log.split("fingerprint of this board's key: ").nth(1).and_then(|t| t.split_whitespace().next());
        contains(&list, print.ok_or("the board does not show its fingerprint")?)?;
        let wrong = world.hub.operate(&["node", "approve", "nobody"]).err().unwrap_or_default();
        contains(&wrong, "no device waits as nobody")?;
        world.hub.operate(&["node", "approve", "board-1"])?;
        world.nodes_ready(SOON)?;
        let node = world.kubectl.json("get node board-1")?;
        contains(node["metadata"]["labels"]["limpet.dev/pool"].as_str().unwrap_or("no pool"), "shop")?;
        world.hub.operate(&["node", "remove", "board-1"])?;
        logged(world, 0, "the hub ends the session: the node was deleted")?;
        logged(world, 0, "does not let this node in")?;
        until("the end of the node", SOON, || {
            let left = world.kubectl.items("get nodes")?;
            wait::yes(left.is_empty(), || format!("{left:?}"))
        })?;
        let empty = world.hub.operate(&["node", "list"])?;
        wait::yes(!empty.contains("board-1"), || empty)
    });
}

/// What an operator does at the door, with a board that stands before it.
#[test]
fn the_door_rejects_reconsiders_and_follows_rules() {
    test(0, &json!({}), |world| {
        let address = limpet_e2e::net::board(&world.slot, 1)?;
        let agent = limpet_e2e::Agent::new(&world.slot, world.binaries.agent.clone(), 1, address, json!({}))?;
        world.agents.push(agent);
        let token = world.hub.token(&["--wait"])?;
        world.agents[0].start(Some(&token))?;
        until("the board in the list", SOON, || contains(&world.hub.operate(&["node", "list"])?, "Waiting"))?;
        world.hub.operate(&["node", "reject", "board-1"])?;
        logged(world, 0, "the operator of this hub has rejected this device")?;
        until("the agent's end", SOON, || wait::yes(world.agents[0].check().is_err(), || "it still asks".into()))?;
        world.agents[0].power_cut()?;
        // A revoked token opens nothing, whatever was approved meanwhile.
        let list = world.hub.operate(&["token", "list"])?;
        let waits = |line: &&str| line.contains("needed") && !line.contains("not needed");
        let id = list.lines().find(waits).and_then(|line| line.split(' ').next());
        let id = id.ok_or_else(|| format!("no token that needs approval: {list}"))?;
        world.hub.operate(&["node", "approve", "board-1"])?;
        world.hub.operate(&["token", "revoke", id])?;
        world.agents[0].start(Some(&token))?;
        logged(world, 0, "the join token is not known to this hub")?;
        world.agents[0].power_cut()?;
        let nodes = world.kubectl.say("get nodes -o name")?;
        wait::yes(nodes.is_empty(), || format!("and yet there is {nodes}"))?;
        // A rule lets it in without anybody's word; the token's pool becomes its label.
        let token = world.hub.token(&["--approve", "board-*", "--pool", "shop", "--uses", "1"])?;
        world.agents[0].start(Some(&token))?;
        world.nodes_ready(SOON)?;
        contains(&world.kubectl.say("get nodes -l limpet.dev/pool=shop -o name")?, "node/board-1")?;
        contains(&world.hub.operate(&["token", "list"])?, "board-1")
    });
}

/// A token opens what it says, as often and as long as it says.
#[test]
fn a_token_opens_what_it_says_and_no_more() {
    test(0, &json!({}), |world| {
        for number in 1..=2 {
            let address = limpet_e2e::net::board(&world.slot, number)?;
            let agent = limpet_e2e::Agent::new(&world.slot, world.binaries.agent.clone(), number, address, json!({}))?;
            world.agents.push(agent);
        }
        // What a board says when it is refused; it ends by itself.
        let refused = |world: &mut World, board: usize, token: &str, word: &str| -> Result<()> {
            world.agents[board].start(Some(token))?;
            logged(world, board, word)?;
            until("the agent's end", SOON, || wait::yes(world.agents[board].check().is_err(), || "it still asks".into()))?;
            world.agents[board].power_cut()?;
            std::fs::remove_file(&world.agents[board].log).map_err(|e| e.to_string())
        };
        let bound = world.hub.token(&["--node", "board-2", "--uses", "1"])?;
        refused(world, 0, &bound, "is for the node board-2")?;
        refused(world, 0, "limpet1.e30", "this is not a join token")?;
        let short = world.hub.token(&["--ttl", "1s"])?;
        std::thread::sleep(Duration::from_secs(2));
        refused(world, 0, &short, "has expired; make a new one with `limpet token create`")?;
        // Only the fingerprint of the CA is wrong: another hub, or somebody between.
        let plain = bound.strip_prefix("limpet1.").ok_or("no token")?;
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let bytes = URL_SAFE_NO_PAD.decode(plain).map_err(|e| e.to_string())?;
        let mut content: Value = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
        let field = content.as_object().and_then(|o| o.keys().find(|k| k.contains("sha256") || k.contains("Sha256"))).cloned();
        content[field.ok_or("the token has no fingerprint")?] = json!("ab".repeat(32));
        let false_ca = format!("limpet1.{}", URL_SAFE_NO_PAD.encode(content.to_string()));
        refused(world, 1, &false_ca, "is not the one that made this token")?;
        let nodes = world.kubectl.say("get nodes -o name")?;
        wait::yes(nodes.is_empty(), || format!("and yet there is {nodes}"))?;
        // Nobody used it up by being refused.
        world.agents[1].start(Some(&bound))?;
        until("the node", SOON, || {
            let nodes = world.kubectl.say("get nodes -o name")?;
            wait::yes(nodes.trim() == "node/board-2", || nodes)
        })?;
        contains(&world.hub.operate(&["token", "list"])?, "board-2")?;
        // Its one use is over: also for the same board with a new key.
        world.agents[1].power_cut()?;
        std::fs::remove_dir_all(world.agents[1].data.join("identity")).map_err(|e| e.to_string())?;
        refused(world, 1, &bound, "has been used as often as it may")
    });
}

/// Debian's tinyproxy, which wants a password, where it is installed.
fn tinyproxy(world: &World) -> Result<Option<Daemon>> {
    if limpet_e2e::process::which("tinyproxy").is_none() {
        println!("without tinyproxy: it is not installed (cargo xtask setup)");
        return Ok(None);
    }
    let dir = world.slot.dir();
    let (file, log) = (dir.join("tinyproxy.conf"), dir.join("tinyproxy.log"));
    let settings = format!(
        "Port 3128\nListen {}\nTimeout 600\nLogLevel Connect\nMaxClients 20\nBasicAuth me s3cret\n\
         ConnectPort 8883\nConnectPort 6443\n",
        world.hub.address
    );
    std::fs::write(&file, settings).map_err(|e| e.to_string())?;
    let mark = world.slot.mark();
    let words = ["tinyproxy".as_ref(), "-d".as_ref(), "-c".as_ref(), file.as_os_str()];
    let daemon = Daemon::start(&words, &[(mark.0, mark.1.as_str())], &log)?;
    let address = format!("{}:3128", world.hub.address);
    until("tinyproxy", SOON, || TcpStream::connect(&address).map(|_| ()).map_err(|e| e.to_string()))?;
    Ok(Some(daemon))
}

#[test]
fn one_port_a_web_socket_and_a_proxy_are_roads_too() {
    test(1, &json!({}), |world| {
        let hub = world.hub.address.clone();
        let (port, through) = proxy::open(&hub)?;
        let debian = tinyproxy(world)?;
        let mut roads = vec![
            json!({"mqtt": [format!("{hub}:6443")]}),
            json!({"mqtt": [format!("wss://{hub}:6443/limpet/v1/mqtt")]}),
            json!({"mqtt": [format!("wss://{hub}:6443")], "proxy": format!("http://{hub}:{port}")}),
            json!({"mqtt": [format!("{hub}:8883")], "proxy": format!("http://{hub}:{port}")}),
        ];
        if debian.is_some() {
            let proxy = format!("http://me:s3cret@{hub}:3128");
            roads.push(json!({"mqtt": [format!("{hub}:8883")], "proxy": proxy}));
            roads.push(json!({"mqtt": [format!("wss://{hub}:6443")], "proxy": proxy}));
        }
        for (n, road) in roads.iter().enumerate() {
            let begun = sessions(world, 0);
            world.agents[0].power_cut()?;
            world.agents[0].configure(road)?;
            world.agents[0].start(None)?;
            welcome(world, 0, begun).map_err(|e| format!("{road}: {e}"))?;
            // State goes down and comes up on it.
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("road-{n}")}, "spec": {
                "containers": [{"name": "c", "image": "hub.limpet/busybox:1", "command": ["sleep", "1000"]}]}});
            world.kubectl.apply(&pod.to_string())?;
            world.kubectl.say(&format!("wait --for=condition=Ready pod/road-{n} --timeout=90s"))?;
            let log = world.kubectl.say(&format!("exec road-{n} -- echo here"))?;
            contains(&log, "here")?;
        }
        let through = through.load(Ordering::Relaxed);
        wait::yes(through >= 2, || format!("{through} connections went through the proxy"))?;
        let Some(debian) = debian else { return Ok(()) };
        let said = tail(&debian.log, 1 << 20);
        for port in ["8883", "6443"] {
            contains(&said, &format!("CONNECT {hub}:{port}"))?;
        }
        // A wrong password is told in words.
        world.agents[0].power_cut()?;
        world.agents[0].configure(&json!({"mqtt": [format!("{hub}:8883")], "proxy": format!("http://me:no@{hub}:3128")}))?;
        world.agents[0].start(None)?;
        logged(world, 0, "does not connect to")
    });
}

#[test]
fn a_copied_card_is_noticed_shown_and_harms_nobody() {
    test(2, &json!({}), |world| {
        // Two pieces of hardware; then the second one gets a copy of the first one's card.
        world.agents[0].power_cut()?;
        world.agents[1].power_cut()?;
        world.agents[0].configure(&json!({"hardwareId": "one piece of hardware"}))?;
        world.agents[1].configure(&json!({"hardwareId": "another piece of hardware"}))?;
        // The first one's hardware is on record from its join; it says so again.
        let recorded = sessions(world, 0);
        world.hub.operate(&["node", "remove", "board-1"])?;
        let token = world.hub.token(&[])?;
        let (first, second) = (world.agents[0].data.clone(), world.agents[1].data.clone());
        std::fs::remove_dir_all(first.join("identity")).map_err(|e| e.to_string())?;
        world.agents[0].start(Some(&token))?;
        welcome(world, 0, recorded)?;
        std::fs::remove_dir_all(&second).map_err(|e| e.to_string())?;
        run(Command::new("cp").arg("-a").arg(&first).arg(&second))?.ok("cp")?;
        let begun = sessions(world, 0);
        world.agents[1].start(None)?;
        until("the copy in the list", SOON, || contains(&world.hub.operate(&["node", "list"])?, "Copy, kept out"))?;
        until("an Event about the copy", SOON, || {
            contains(&world.kubectl.say("get events -A")?, "DuplicateIdentity")
        })?;
        logged(world, 1, "does not let this node in")?;
        world.kubectl.say("wait --for=condition=Ready node/board-1 --timeout=60s")?;
        wait::yes(sessions(world, 0) == begun, || "the copy ended the node's session".into())?;
        // The original comes back from a reboot at once, copy or not.
        world.agents[0].power_cut()?;
        world.agents[0].start(None)?;
        welcome(world, 0, begun)
    });
}

/// A certificate for the board's key that ended long ago, made with the hub's CA.
fn let_certificate_expire(world: &World) -> Result<()> {
    let identity = world.agents[0].data.join("identity");
    let file = identity.join("identity.json");
    let mut answer: Value = serde_json::from_slice(&std::fs::read(&file).map_err(|e| e.to_string())?)
        .map_err(|e| e.to_string())?;
    let dir = world.slot.dir();
    let (request, old) = (dir.join("old.csr"), dir.join("old.crt"));
    let subject = "/O=system:nodes/CN=system:node:board-1";
    let mut ask = Command::new("openssl");
    ask.args(["req", "-new", "-subj", subject, "-key"]).arg(identity.join("node.key")).arg("-out").arg(&request);
    run(&mut ask)?.ok("openssl req")?;
    let pki = world.hub.dir.join("pki");
    let (database, settings) = (dir.join("index.txt"), dir.join("ca.cnf"));
    std::fs::write(&database, "").map_err(|e| e.to_string())?;
    std::fs::write(dir.join("serial"), "01\n").map_err(|e| e.to_string())?;
    let text = format!(
        "[ca]\ndefault_ca=c\n[c]\ndatabase={}\nserial={}\nnew_certs_dir={}\ndefault_md=sha256\npolicy=p\nx509_extensions=e\n\
         [p]\norganizationName=optional\ncommonName=supplied\n[e]\nbasicConstraints=CA:FALSE\n\
         extendedKeyUsage=clientAuth\n",
        database.display(),
        dir.join("serial").display(),
        dir.display()
    );
    std::fs::write(&settings, text).map_err(|e| e.to_string())?;
    let mut sign = Command::new("openssl");
    sign.args(["ca", "-batch", "-notext", "-startdate", "200101000000Z", "-enddate", "210101000000Z", "-config"]);
    sign.arg(&settings).arg("-cert").arg(pki.join("ca.crt")).arg("-keyfile").arg(pki.join("ca.key"));
    sign.arg("-in").arg(&request).arg("-out").arg(&old);
    run(&mut sign)?.ok("openssl ca")?;
    answer["certificate_pem"] = json!(std::fs::read_to_string(&old).map_err(|e| e.to_string())?);
    std::fs::write(&file, answer.to_string()).map_err(|e| e.to_string())
}

/// Back after years: the certificate ended, and the clock says 1970, today, or 2050.
#[test]
fn a_board_returns_with_an_expired_certificate_and_any_clock() {
    test(1, &json!({}), |world| {
        for (year, offset_s) in [("1970", -1_700_000_000i64), ("today", 0), ("2050", 760_000_000)] {
            world.agents[0].power_cut()?;
            let_certificate_expire(world)?;
            let begun = sessions(world, 0);
            let offset = offset_s.to_string();
            world.agents[0].start_with(None, &[("LIMPET_FAKE_WALL_OFFSET_S", offset.as_str())])?;
            welcome(world, 0, begun).map_err(|e| format!("with a clock in {year}: {e}"))?;
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("in-{year}")}, "spec": {
                "containers": [{"name": "c", "image": "hub.limpet/busybox:1", "command": ["sleep", "1000"]}]}});
            world.kubectl.apply(&pod.to_string())?;
            world.kubectl.say(&format!("wait --for=condition=Ready pod/in-{year} --timeout=90s"))?;
            let started = world.kubectl.json(&format!("get pod in-{year}"))?;
            let at = started["status"]["startTime"].as_str().unwrap_or_default().to_string();
            wait::yes(at.starts_with("202"), || format!("with a clock in {year} the pod started at {at}"))?;
        }
        Ok(())
    });
}

/// The device's keys are made in a TPM (Debian's swtpm): the card alone is nobody.
#[test]
fn a_board_whose_keys_are_in_a_tpm() {
    if limpet_e2e::process::which("swtpm").is_none() {
        println!("skipped: swtpm is not installed (cargo xtask setup)");
        return;
    }
    test(0, &json!({}), |world| {
        let dir = world.slot.dir();
        let mark = world.slot.mark();
        let tpm = |name: &str| -> Result<(Daemon, String)> {
            let home = dir.join(name);
            std::fs::create_dir_all(&home).map_err(|e| e.to_string())?;
            let socket = |what: &str| format!("type=unixio,path={}", home.join(what).display());
            let (state, server, control) = (format!("dir={}", home.display()), socket("tpm"), socket("control"));
            let words = ["swtpm", "socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate", &state, "--server",
                &server, "--ctrl", &control];
            let words = words.map(std::ffi::OsStr::new);
            let daemon = Daemon::start(&words, &[(mark.0, mark.1.as_str())], &dir.join("swtpm.log"))?;
            until("swtpm", SOON, || wait::yes(home.join("tpm").exists(), || "no socket".into()))?;
            Ok((daemon, format!("unix:{}", home.join("tpm").display())))
        };
        let (_own, place) = tpm("own-tpm")?;
        let address = limpet_e2e::net::board(&world.slot, 1)?;
        let settings = json!({"tpm": place, "log": "debug"});
        let agent = limpet_e2e::Agent::new(&world.slot, world.binaries.agent.clone(), 1, address, settings)?;
        world.agents.push(agent);
        world.join()?;
        logged(world, 0, "the keys of this board are in its TPM")?;
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tide"}, "stringData": {"hour": "seven"}});
        world.kubectl.apply(&secret.to_string())?;
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "boat"}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "hub.limpet/busybox:1",
                "command": ["sleep", "10000"],
                "env": [{"name": "HOUR", "valueFrom": {"secretKeyRef": {"name": "tide", "key": "hour"}}}]}]}});
        world.kubectl.apply(&pod.to_string())?;
        world.kubectl.say("wait --for=condition=Ready pod/boat --timeout=90s")?;
        let data = world.agents[0].data.clone();
        let no_files = |data: &std::path::Path| {
            let there = ["identity/node.key", "device.key"].into_iter().find(|f| data.join(f).exists());
            wait::yes(there.is_none(), || format!("{there:?} is on the card"))
        };
        no_files(&data)?;
        // After a power cut, without the hub, the journal opens and the pod is there; then the link, by TLS and at a broker.
        world.hub.kill();
        world.agents[0].power_cut()?;
        world.agents[0].start(None)?;
        let begun = sessions(world, 0);
        until("the pod's process", SOON, || wait::yes(!world.named("sleep").is_empty(), || "not yet".into()))?;
        world.hub.start()?;
        welcome(world, 0, begun)?;
        contains(&world.kubectl.run(&["exec", "boat", "--", "sh", "-c", "echo $HOUR"])?, "seven")?;
        let begun = sessions(world, 0);
        let _broker = limpet_e2e::broker::Broker::take_over(world)?;
        welcome(world, 0, begun)?;
        logged(world, 0, "at the broker")?;
        no_files(&data)?;
        // The card in another board: its TPM makes other keys.
        world.agents[0].power_cut()?;
        let (_other, elsewhere) = tpm("other-tpm")?;
        let note = data.join("identity/node.tpm");
        let text = std::fs::read_to_string(&note).map_err(|e| e.to_string())?;
        std::fs::write(&note, text.replace(&place, &elsewhere)).map_err(|e| e.to_string())?;
        let begun = sessions(world, 0);
        world.agents[0].start(None)?;
        logged(world, 0, "does not have this board's key")?;
        wait::yes(sessions(world, 0) == begun, || "a card without its board got in".into())
    });
}
