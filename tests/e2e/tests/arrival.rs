//! A board on its way to its hub: found by its name in the local network, through a proxy from the first word on, and what it
//! says to whoever stands before it while it waits.
//!
//! In: a hub with a name of its own, a board in the same network. Out: Ready, and the sentence in the run directory.

use limpet_e2e::world::is_ready;
use limpet_e2e::{Agent, Binaries, Hub, Kubectl, Result, Slot, images, net, proxy, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);
const NAME: &str = "limpet-rock.local";

struct Arrival {
    agent: Agent,
    kubectl: Kubectl,
    hub: Hub,
    slot: Slot,
}

fn arrival(test: impl FnOnce(&mut Arrival) -> Result<()>) {
    if let Some(why) = limpet_e2e::missing() {
        println!("skipped: {why}");
        return;
    }
    let made = || {
        let binaries = Binaries::build("dev")?;
        let slot = Slot::take()?;
        let address = net::bridge(&slot)?;
        let mut hub = Hub::new(&slot, binaries.hub.clone(), &address);
        hub.more = vec!["--advertise-host".into(), NAME.into()];
        hub.start()?;
        let kubectl = Kubectl::new(&hub.kubeconfig())?;
        let board = net::board(&slot, 1)?;
        let agent = Agent::new(&slot, binaries.agent, 1, board, json!({}))?;
        Ok::<_, String>(Arrival { agent, kubectl, hub, slot })
    };
    let mut arrival = made().unwrap_or_else(|why: String| panic!("{why}"));
    if let Err(why) = test(&mut arrival) {
        panic!("{why}\n--- board\n{}\n--- hub\n{}", arrival.agent.log_tail(), limpet_e2e::process::tail(&arrival.hub.log, 2000));
    }
}

impl Arrival {
    fn ready(&self) -> Result<()> {
        until("the board is Ready", SOON, || {
            let node = self.kubectl.json("get node board-1")?;
            wait::yes(is_ready(&node), || node["status"]["conditions"].to_string())
        })
    }

    /// What stands in the file for consoles.
    fn waits(&self, words: &[&str]) -> Result<()> {
        until(&format!("the sentence with {words:?}"), SOON, || {
            let text = std::fs::read_to_string(self.agent.run.join("waiting")).unwrap_or_default();
            wait::yes(words.iter().all(|w| text.contains(w)), || format!("it says {text:?}"))
        })
    }

    fn waits_no_more(&self) -> Result<()> {
        let file = self.agent.run.join("waiting");
        until("nothing is waited for", SOON, || wait::yes(!file.exists(), || std::fs::read_to_string(&file).unwrap_or_default()))
    }
}

/// The token as it is, but for where it leads.
fn to(token: &str, hub: &str) -> Result<String> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let body = token.strip_prefix("limpet1.").ok_or("no token")?;
    let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|e| e.to_string())?;
    let mut content: Value = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
    wait::yes(content["hubs"].to_string().contains(NAME), || format!("the token does not name {NAME}: {content}"))?;
    content["hubs"] = json!([hub]);
    Ok(format!("limpet1.{}", URL_SAFE_NO_PAD.encode(content.to_string())))
}

/// No address is written down anywhere: everything is found by the hub's own name.
#[test]
fn a_hub_is_found_by_its_name_in_the_local_network() {
    arrival(|world| {
        let token = to(&world.hub.token(&[])?, &format!("{NAME}:6443"))?;
        world.agent.configure(&json!({"mqtt": [format!("{NAME}:8883")]}))?;
        world.agent.start(Some(&token))?;
        world.ready()?;
        world.waits_no_more()?;
        // Nobody else of that name: a sentence, and no wait without an end.
        world.agent.power_cut()?;
        std::fs::remove_dir_all(&world.agent.data).map_err(|e| e.to_string())?;
        world.agent.start(Some(&to(&world.hub.token(&[])?, "limpet-nobody.local:6443")?))?;
        world.waits(&["waits to join as board-1", "nobody in this network answers to the name limpet-nobody.local"])
    });
}

/// The board's own road to the hub is closed: only the proxy leads there, at the join and for images, too.
#[test]
fn a_board_behind_a_proxy_joins_and_gets_images_through_it() {
    arrival(|world| {
        let hub = world.hub.address.clone();
        let (port, _) = proxy::open(&hub)?;
        images::Target::hub(&world.hub, &world.slot.dir())?.push("busybox", "1", &images::busybox()?)?;
        let table = "add table inet shut; add chain inet shut out { type filter hook output priority 0; }; \
                     add rule inet shut out tcp dport { 5000, 6443, 8883 } reject";
        world.agent.inside(&["nft", table])?.ok("nft")?;
        let token = world.hub.token(&[])?;
        world.agent.start(Some(&token))?;
        world.waits(&["waits to join as board-1", "cannot be reached"])?;
        world.agent.power_cut()?;
        let proxy = format!("http://{hub}:{port}");
        world.agent.configure(&json!({"proxy": proxy, "noProxy": [hub]}))?;
        world.agent.start(Some(&token))?;
        world.ready()?;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "main", "image": "hub.limpet/busybox:1", "command": ["sleep", "3600"]}]},
        });
        world.kubectl.apply(&pod.to_string())?;
        // Past the proxy there is none.
        until("the image cannot be had", SOON, || {
            let pod = world.kubectl.json("get pod web")?;
            let waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
            let told = waiting["message"].as_str().unwrap_or_default();
            wait::yes(told.contains("cannot connect to"), || format!("its status is {}", pod["status"]))
        })?;
        world.agent.configure(&json!({"proxy": proxy, "noProxy": []}))?;
        world.agent.power_cut()?;
        world.agent.start(None)?;
        until("the pod is Ready", SOON, || {
            let pod = world.kubectl.json("get pod web")?;
            wait::yes(is_ready(&pod), || format!("its status is {}", pod["status"]))
        })
    });
}

/// A card that lay in the drawer for too long, a hub that is away, one that is back.
#[test]
fn a_board_says_what_it_waits_for() {
    arrival(|world| {
        let late = world.hub.token(&["--ttl", "1s"])?;
        std::thread::sleep(Duration::from_secs(2));
        let place = [("LIMPET_JOIN_PLACE", "node.json on the card")];
        world.agent.start_with(Some(&late), &place)?;
        world.waits(&["waits for somebody", "limpet token create", "put it into node.json on the card", "limpet flash"])?;
        world.agent.power_cut()?;
        world.hub.kill();
        world.agent.start(None)?;
        world.waits(&["waits for somebody", "has not joined a hub"])?;
        world.agent.power_cut()?;
        world.hub.start()?;
        let token = world.hub.token(&[])?;
        world.hub.kill();
        world.agent.start(Some(&token))?;
        world.waits(&["waits to join as board-1", "cannot be reached"])?;
        world.hub.start()?;
        world.ready()?;
        world.waits_no_more()?;
        world.hub.kill();
        world.waits(&["is the node board-1 and waits for its hub", "runs meanwhile"])?;
        world.hub.start()?;
        world.waits_no_more()
    });
}
