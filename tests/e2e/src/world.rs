//! Hub, boards and kubectl together.
//!
//! In: binaries, how many boards. Out: a running world; the parts are public, to be broken at will.
//! Never: half a world: what fails to start takes everything down.

use crate::images::{self, Target};
use crate::{Agent, Binaries, Hub, Kubectl, Result, Slot, net, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

/// The order of the fields is the order of the end: agents, hub, then everything with the slot's number.
pub struct World {
    pub agents: Vec<Agent>,
    pub hub: Hub,
    pub kubectl: Kubectl,
    pub binaries: Binaries,
    pub slot: Slot,
}

impl World {
    /// Network, hub and boards that are not started yet.
    pub fn new(binaries: &Binaries, boards: usize) -> Result<World> {
        World::with(binaries, boards, &json!({}))
    }

    /// `settings` go into every agent's configuration.
    pub fn with(binaries: &Binaries, boards: usize, settings: &Value) -> Result<World> {
        let slot = Slot::take()?;
        let address = net::bridge(&slot)?;
        let mut hub = Hub::new(&slot, binaries.hub.clone(), &address);
        hub.start()?;
        let kubectl = Kubectl::new(&hub.kubeconfig())?;
        let mut agents = Vec::new();
        for number in 1..=boards {
            let address = net::board(&slot, number)?;
            agents.push(Agent::new(&slot, binaries.agent.clone(), number, address, settings.clone())?);
        }
        Ok(World { agents, hub, kubectl, binaries: binaries.clone(), slot })
    }

    /// Joins every board and waits until all are Ready.
    pub fn join(&mut self) -> Result<()> {
        let token = self.hub.token(&[])?;
        for agent in &mut self.agents {
            agent.start(Some(&token))?;
        }
        self.nodes_ready(Duration::from_secs(60))
    }

    pub fn nodes_ready(&mut self, limit: Duration) -> Result<()> {
        let names: Vec<String> = self.agents.iter().map(|a| a.name.clone()).collect();
        let (agents, kubectl) = (&mut self.agents, &self.kubectl);
        until("boards Ready", limit, || {
            if let Some(why) = agents.iter_mut().find_map(|a| a.check().err()) {
                return Ok(Err(why));
            }
            let nodes = kubectl.items("get nodes")?;
            let ready = |name: &String| nodes.iter().any(|n| n["metadata"]["name"] == *name && is_ready(n));
            wait::yes(names.iter().all(ready), || kubectl.say("get nodes").unwrap_or_default()).map(Ok)
        })
        .and_then(|inner| inner)
        .map_err(|why| format!("{why}\n{}", self.logs()))
    }

    /// Puts the demo's image into the hub's registry: `hub.limpet/demo-web:1`.
    pub fn push_demo_image(&self) -> Result<()> {
        let image = images::demo_web(&self.binaries.demo_web)?;
        Target::hub(&self.hub, &self.slot.dir())?.push("demo-web", "1", &image)
    }

    /// `hub.limpet/busybox:1`
    pub fn push_busybox(&self) -> Result<()> {
        Target::hub(&self.hub, &self.slot.dir())?.push("busybox", "1", &images::busybox()?)
    }

    /// What somebody types at the first board: a command of `limpet-agent`.
    pub fn at_the_board(&self, words: &[&str]) -> Result<()> {
        let program = self.binaries.agent.display().to_string();
        let data = self.agents[0].data.display().to_string();
        let all: Vec<&str> = [program.as_str()].into_iter().chain(words.iter().copied()).chain(["--data-dir", &data]).collect();
        self.agents[0].inside(&all)?.ok("limpet-agent").map(|_| ())
    }

    /// Waits for an Event of this reason, in whichever namespace.
    pub fn has_event(&self, reason: &str) -> Result<()> {
        until(&format!("an Event {reason}"), Duration::from_secs(120), || {
            let all = self.kubectl.say("get events -A")?;
            wait::yes(all.contains(reason), || all.clone())
        })
    }

    /// Processes of this name on all boards.
    pub fn named(&self, name: &str) -> Vec<crate::process::Process> {
        self.agents.iter().flat_map(|a| a.named(name)).collect()
    }

    /// The last words of everybody, for a failure's report.
    pub fn logs(&self) -> String {
        let mut text = format!("--- hub\n{}", crate::process::tail(&self.hub.log, 3000));
        for agent in &self.agents {
            text.push_str(&format!("--- {}\n{}", agent.name, agent.log_tail()));
        }
        text
    }
}

impl World {
    /// No agent was woken again and again with nothing to do.
    fn no_agent_spun(&self) -> Result<()> {
        for agent in &self.agents {
            let log = std::fs::read_to_string(&agent.log).unwrap_or_default();
            wait::yes(!log.contains("a fault of this agent"), || format!("{} spun: {}", agent.name, agent.log_tail()))?;
        }
        Ok(())
    }
}

/// A world of its own for one test: boards joined, busybox and the demo's server in the hub's registry; what fails is told with
/// the last words of hub and boards. Says so and does nothing where worlds cannot be made.
pub fn test(boards: usize, settings: &Value, body: impl FnOnce(&mut World) -> Result<()>) {
    if let Some(why) = crate::missing() {
        println!("skipped: {why}");
        return;
    }
    let mut world = None;
    let done = Binaries::build("dev").and_then(|binaries| {
        let world = world.insert(World::with(&binaries, boards, settings)?);
        world.push_busybox()?;
        world.push_demo_image()?;
        world.join()?;
        body(world)?;
        world.no_agent_spun()
    });
    if let Err(why) = done {
        if let Some(world) = world.as_ref().filter(|_| std::env::var_os("LIMPET_E2E_HOLD").is_some()) {
            hold(world, &why);
        }
        let logs = world.as_ref().map(World::logs).unwrap_or_default();
        panic!("{why}\n{logs}");
    }
}

/// Keeps a failed test's world for somebody to look at, until the file is removed.
fn hold(world: &World, why: &str) {
    let file = world.slot.dir().join("hold");
    eprintln!("{why}\nheld: export KUBECONFIG={}; remove {} to go on", world.hub.kubeconfig().display(), file.display());
    let made = std::fs::write(&file, "");
    let _ = until("the end of the hold", Duration::from_secs(3600), || {
        wait::yes(made.is_err() || !file.exists(), || "held".to_string())
    });
}

/// Condition Ready is True.
pub fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}
