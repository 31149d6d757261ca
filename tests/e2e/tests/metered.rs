//! A metered link: what waits, what is refused, what always travels.
//!
//! In: a world with two boards, a policy for the first. Out: statuses, sentences, conditions.

use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

const SOON: Duration = Duration::from_secs(90);

fn pod(name: &str, node: &str, image: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": image}]}})
    .to_string()
}

/// A window of an hour that begins so many hours from now, by UTC's clock.
fn window(hours_from_now: u64) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let at = |hours: u64| format!("{:02}:00", (now / 3600 + hours) % 24);
    json!([{"start": at(hours_from_now), "end": at(hours_from_now + 2)}])
}

fn policy(world: &World, policy: &Value) -> Result<()> {
    let text = format!("limpet.dev/link-policy={policy}");
    world.kubectl.output(&["annotate", "--overwrite", "node", "board-1", &text])?.ok("annotate").map(|_| ())
}

fn condition(world: &World) -> Result<Value> {
    let node = world.kubectl.json("get node board-1")?;
    let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().find(|c| c["type"] == "LinkBudgetUsedUp").unwrap_or_default())
}

fn condition_says(world: &World, status: &str, words: &str) -> Result<()> {
    until("the node's condition", SOON, || {
        let c = condition(world)?;
        let good = c["status"] == status && c["message"].as_str().is_some_and(|m| m.contains(words));
        wait::yes(good, || c.to_string())
    })
}

#[test]
fn images_wait_for_the_window_streams_are_refused_and_a_used_up_budget_leaves_the_essentials() {
    test(2, &json!({}), |world| {
        let shut = json!({"windows": window(3), "travels": {"images": "InWindow", "streams": "Never"}});
        policy(world, &shut)?;
        condition_says(world, "False", "in windows only: images; never: streams")?;
        world.kubectl.apply(&pod("here", "board-1", "hub.limpet/demo-web:1"))?;
        world.kubectl.apply(&pod("there", "board-2", "hub.limpet/demo-web:1"))?;
        world.kubectl.say("wait --for=condition=Ready pod/there --timeout=60s")?;
        until("the pull to wait", SOON, || {
            let pod = world.kubectl.json("get pod here")?;
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            let said = waiting["message"].as_str().is_some_and(|m| {
                m.contains("the link policy of node board-1 lets images travel in its windows only; the next one opens at 20")
            });
            wait::yes(waiting["reason"] == "ImagePullHeld" && said, || pod["status"].to_string())
        })?;
        let why = "the link policy of node board-1 never lets streams travel";
        for words in ["logs here", "exec here -- true"] {
            let words: Vec<&str> = words.split(' ').collect();
            let out = world.kubectl.output(&words)?;
            wait::yes(out.stderr.contains(why), || format!("{words:?}: {}", out.stderr))?;
        }
        let out = world.kubectl.output(&["logs", "there"])?;
        wait::yes(!out.stderr.contains("link policy"), || out.stderr)?;
        // State travels: a ConfigMap, and the words of the pod's status above.
        let open = json!({"windows": window(23), "travels": {"images": "InWindow"}});
        policy(world, &open)?;
        world.kubectl.say("wait --for=condition=Ready pod/here --timeout=60s")?;
        let events = world.kubectl.say("get events --field-selector involvedObject.name=here -o jsonpath={.items[*].reason}")?;
        wait::yes(events.contains("ImagePullHeld") && events.contains("Pulled"), || events.clone())?;
        let metrics = world.kubectl.say("get --raw /api/v1/nodes/board-1/proxy/metrics")?;
        let received = metrics.lines().find(|l| l.starts_with("limpet_node_link_bytes_total{direction=\"received\"}"));
        let received: f64 = received.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0);
        // The image alone has more.
        wait::yes(received > 100_000.0, || format!("{received} bytes received"))?;

        policy(world, &json!({"bytesPerMonth": "64Ki"}))?;
        condition_says(world, "True", "all 64Ki are used")?;
        let described = world.kubectl.say("describe node board-1")?;
        let told = described.contains("LinkBudgetUsedUp") && described.contains("only state and status travel");
        wait::yes(told, || described.clone())?;
        let out = world.kubectl.output(&["logs", "here"])?;
        wait::yes(out.stderr.contains("holds streams back until 20"), || out.stderr)?;
        world.kubectl.apply(&pod("again", "board-1", "hub.limpet/demo-web:1"))?;
        world.kubectl.say("wait --for=condition=Ready pod/again --timeout=60s")?;
        policy(world, &json!({"bytesPerMonth": "nothing"}))?;
        until("the Event about a policy that cannot be read", SOON, || {
            let refused = "get events --field-selector reason=LinkPolicyRefused -o jsonpath={.items[*].message}";
            let events = world.kubectl.say(refused)?;
            wait::yes(events.contains("must be an amount of bytes"), || events)
        })?;
        condition_says(world, "False", "there is no link policy")
    });
}

/// `Hold`: the link is closed until the month ends or somebody changes the policy; the board works on.
#[test]
fn a_link_on_hold_is_closed_and_looks_in() {
    test(1, &json!({"log": "debug"}), |world| {
        world.kubectl.apply(&pod("here", "board-1", "hub.limpet/demo-web:1"))?;
        world.kubectl.say("wait --for=condition=Ready pod/here --timeout=60s")?;
        let log = |world: &World| limpet_e2e::process::tail(&world.agents[0].log, 1 << 22);
        let welcomes = |world: &World| log(world).matches("welcome at the hub").count();
        policy(world, &json!({"bytesPerMonth": "64Ki", "whenUsedUp": "Hold"}))?;
        condition_says(world, "True", "the link is closed")?;
        let begun = welcomes(world);
        // Once it has been open for a minute.
        world.kubectl.say("wait --for=condition=Ready=Unknown node/board-1 --timeout=180s")?;
        let out = world.kubectl.output(&["logs", "here"])?;
        wait::yes(out.code != 0 && out.stderr.contains("board-1"), || format!("{out:?}"))?;
        // Its pods run on; a change waits, and nobody comes for it before a day is over.
        let inside = world.agents[0].named("demo-web").len();
        wait::yes(inside == 1, || format!("{inside} processes of the pod"))?;
        world.kubectl.apply(&pod("later", "board-1", "hub.limpet/demo-web:1"))?;
        let text = log(world);
        wait::yes(text.contains("the month's bytes are used up: closed"), || text.clone())?;
        wait::yes(welcomes(world) == begun, || "a session although the link is on hold".into())?;
        // The look after a start: the policy is another one now.
        policy(world, &json!({"bytesPerMonth": "1Gi", "whenUsedUp": "Hold"}))?;
        world.agents[0].power_cut()?;
        world.agents[0].start(None)?;
        condition_says(world, "False", "used since")?;
        world.kubectl.say("wait --for=condition=Ready pod/later --timeout=60s")?;
        world.nodes_ready(SOON)
    });
}
