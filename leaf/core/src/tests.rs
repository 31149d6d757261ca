//! A leaf against the hub's own session: what one says the other understands, over power cuts and bad flash.
//!
//! In: the hub's view and session, a flash that can fail. Out: judgements. No network: that is in the end-to-end tests.

use crate::{Condition, Config, Facts, Kept, Leaf, Output, Reading, limits};
use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use limpet_hub_core::{
    ObjectStore, Timestamp,
    nodes::session::{Session, SessionInput, SessionOutput},
};
use limpet_protocol::{Envelope, StreamFrame, StreamKind, StreamOpen, Up};
use serde_json::{Value, json};

fn facts() -> Facts {
    Facts {
        name: "pico".into(),
        board: "Raspberry Pi Pico W".into(),
        architecture: "thumbv6m".into(),
        firmware: "0.1.0".into(),
        machine_id: "e66138".into(),
        memory_bytes: 264 * 1024,
        address: "10.0.0.9".into(),
    }
}

struct World {
    view: ObjectStore,
    revision: u64,
    hub: Session,
    connection: u64,
    leaf: Leaf,
    flash: Option<Vec<u8>>,
    writes: usize,
    flash_fails: bool,
    refuses: Option<String>,
    now: u64,
    configs: Vec<Config>,
    reports: Vec<Value>,
    messages: Vec<limpet_protocol::BoardMessage>,
    frames: Vec<StreamFrame>,
    acknowledged: bool,
}

impl World {
    fn new() -> World {
        let mut world = World {
            view: ObjectStore::new(),
            revision: 0,
            hub: Session::new("pico"),
            connection: 0,
            leaf: Leaf::new(facts(), None, [7; 16]),
            flash: None,
            writes: 0,
            flash_fails: false,
            refuses: None,
            now: 1000,
            configs: Vec::new(),
            reports: Vec::new(),
            messages: Vec::new(),
            frames: Vec::new(),
            acknowledged: true,
        };
        world.annotate("default/greenhouse");
        world.settle();
        world
    }

    fn put(&mut self, resource: &str, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let at = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (at("/metadata/namespace"), at("/metadata/name"));
        self.view.apply(self.revision, resource, &namespace, &name, Some(object.to_string().into_bytes().into()));
        self.hub.handle(Timestamp::UNIX_EPOCH, &self.view, SessionInput::Dirty);
    }

    fn annotate(&mut self, config: &str) {
        let annotations = json!({"limpet.dev/leaf-config": config});
        self.put("/nodes", json!({"metadata": {"name": "pico", "uid": "n", "labels": {"limpet.dev/leaf": "true"},
            "annotations": annotations}}));
    }

    fn map(&mut self, data: Value) {
        self.put("/configmaps", json!({"metadata": {"name": "greenhouse", "namespace": "default", "uid": "m"}, "data": data}));
    }

    fn connect(&mut self) {
        self.connection += 1;
        let connection = self.connection;
        self.hub.handle(self.time(), &self.view, SessionInput::Connected { connection });
        self.leaf.connected(self.now);
        self.settle();
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_millisecond(1_795_000_000_000 + self.now as i64).unwrap()
    }

    /// Everything that follows, until both are quiet.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(output) = self.leaf.poll() {
                quiet = false;
                self.of_leaf(output);
            }
            while let Some(output) = self.hub.poll() {
                quiet = false;
                self.of_hub(output);
            }
            if quiet {
                return;
            }
        }
    }

    fn of_leaf(&mut self, output: Output) {
        match output {
            Output::Keep(bytes) => {
                if !self.flash_fails {
                    self.flash = Some(bytes);
                    self.writes += 1;
                }
                self.leaf.kept(!self.flash_fails, self.now);
            }
            Output::Configure(config) => {
                self.configs.push(config);
                self.leaf.configured(self.refuses.clone(), self.now);
            }
            Output::Send { bytes, .. } => {
                let envelope = Envelope::<Up>::decode(&bytes).unwrap();
                match &envelope.message {
                    Up::NodeReport(report) => self.reports.push(serde_json::from_slice(&report.body).unwrap()),
                    Up::Message(message) => self.messages.push(message.clone()),
                    Up::Stream(frame) => self.frames.push(frame.clone()),
                    Up::Ack(_) => self.acknowledged = true,
                    _ => {}
                }
                let connection = self.connection;
                self.hub.handle(self.time(), &self.view, SessionInput::Message { connection, envelope });
            }
            Output::HangUp(why) => panic!("{why}"),
        }
    }

    fn of_hub(&mut self, output: SessionOutput) {
        match output {
            SessionOutput::Send { version, envelope, .. } => self.leaf.take(&envelope.encode(version), self.now).unwrap(),
            SessionOutput::Write { ticket, .. } => {
                self.hub.handle(self.time(), &self.view, SessionInput::Durable { ticket });
            }
            _ => {}
        }
    }

    /// The plug: what is not in flash is gone.
    fn power_cut(&mut self) {
        let connection = self.connection;
        self.hub.handle(self.time(), &self.view, SessionInput::Disconnected { connection });
        let kept = self.flash.as_deref().and_then(Kept::decode);
        self.leaf = Leaf::new(facts(), kept, [9; 16]);
        self.now = 1000;
        self.configs.clear();
        self.settle();
    }

    fn later(&mut self, ms: u64) {
        self.now += ms;
        self.hub.handle(self.time(), &self.view, SessionInput::Tick);
        self.leaf.tick(self.now);
        self.settle();
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let all = self.reports.last().unwrap()["status"]["conditions"].as_array().unwrap().clone();
        let one = all.iter().find(|c| c["type"] == kind).unwrap().clone();
        (one["status"].as_str().unwrap().into(), one["reason"].as_str().unwrap().into())
    }

    fn asks(&mut self, kind: StreamKind) -> (String, String) {
        self.frames.clear();
        let open = StreamOpen { namespace: String::new(), pod: String::new(), uid: String::new(), kind };
        self.hub.handle(self.time(), &self.view, SessionInput::Stream(StreamFrame::Open { id: 4, open }));
        self.settle();
        let (mut text, mut error) = (String::new(), String::new());
        for frame in &self.frames {
            match frame {
                StreamFrame::Data { bytes, .. } => text.push_str(core::str::from_utf8(bytes).unwrap()),
                StreamFrame::End { error: why, .. } => error.clone_from(why),
                _ => {}
            }
        }
        (text, error)
    }
}

#[test]
fn it_appears_follows_its_config_and_remembers_it_without_a_hub() {
    let mut world = World::new();
    world.connect();
    assert!(world.hub.in_sync());
    let report = world.reports.last().unwrap();
    assert_eq!((&report["labels"]["limpet.dev/leaf"], &report["status"]["capacity"]["pods"]), (&json!("true"), &json!("0")));
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(world.condition("Configured"), ("False".into(), "NotThere".into()));
    world.map(json!({"led": "on"}));
    world.settle();
    assert!(world.hub.in_sync());
    assert_eq!(world.configs.last().unwrap().get("led"), Some("on"));
    assert_eq!(world.condition("Configured"), ("True".into(), "Applied".into()));
    // A difference to what it holds, not the whole.
    world.map(json!({"led": "off", "text": "word ".repeat(200)}));
    world.settle();
    world.map(json!({"led": "blink", "text": "word ".repeat(200)}));
    world.settle();
    assert_eq!(world.configs.last().unwrap().get("led"), Some("blink"));
    let writes = world.writes;
    world.power_cut();
    assert_eq!(world.configs.last().unwrap().get("led"), Some("blink"), "from flash");
    world.connect();
    assert!(world.hub.in_sync());
    assert_eq!(world.writes, writes + 1, "a start is one write, an equal set none");
    world.refuses = Some("led is on, off or blink".into());
    world.map(json!({"led": "purple"}));
    world.settle();
    assert_eq!(world.condition("Configured"), ("False".into(), "Refused".into()));
    world.annotate("default/other");
    world.settle();
    assert_eq!(world.configs.last().unwrap().generation, 0);
    assert!(world.hub.in_sync());
}

#[test]
fn nothing_is_acknowledged_or_followed_that_is_not_in_flash() {
    let mut world = World::new();
    world.connect();
    let (configs, flash) = (world.configs.len(), world.flash.clone());
    (world.flash_fails, world.acknowledged) = (true, false);
    world.map(json!({"led": "on"}));
    world.settle();
    assert!(!world.acknowledged && world.configs.len() == configs && world.flash == flash);
    world.flash_fails = false;
    for _ in 0..4 {
        world.later(limits::AGAIN_MS);
    }
    assert!(world.acknowledged && world.hub.in_sync());
    assert_eq!(world.configs.last().unwrap().get("led"), Some("on"));
}

#[test]
fn a_board_whose_start_is_not_in_flash_does_not_speak() {
    let mut leaf = Leaf::new(facts(), None, [1; 16]);
    assert!(matches!(leaf.poll(), Some(Output::Keep(_))));
    leaf.kept(false, 0);
    assert!(!leaf.is_ready(), "it would use the same numbers again after the next start");
    leaf.tick(limits::KEEP_AGAIN_MS);
    let keep = core::iter::from_fn(|| leaf.poll()).find(|o| matches!(o, Output::Keep(_)));
    assert!(keep.is_some());
    leaf.kept(true, limits::KEEP_AGAIN_MS);
    assert!(leaf.is_ready());
}

#[test]
fn figures_come_when_asked_and_when_due() {
    let mut world = World::new();
    world.connect();
    world.leaf.measured(vec![Reading::new("temperature_celsius", 21_500), Reading::new("no name", 1)], Vec::new(), world.now);
    world.settle();
    let get = |path: &str| StreamKind::NodeGet { path: path.into() };
    let (text, error) = world.asks(get("/metrics"));
    let want = "# TYPE limpet_leaf_temperature_celsius gauge\nlimpet_leaf_temperature_celsius 21.5\n";
    assert_eq!((text.as_str(), error.as_str()), (want, ""));
    let page: Value = serde_json::from_str(&world.asks(get("/leaf")).0).unwrap();
    assert_eq!((&page["readings"]["temperature_celsius"], &page["start"]), (&json!(21.5), &json!(1)));
    assert!(world.asks(get("/pods")).1.contains("/metrics"));
    let logs = StreamKind::Attach { container: "c".into(), stdin: false, stdout: true, stderr: true, tty: false };
    assert!(world.asks(logs).1.contains("runs no containers"));
    assert!(world.messages.is_empty(), "nobody wanted them");

    world.map(json!({"telemetrySeconds": "60"}));
    world.settle();
    world.later(0);
    assert_eq!(world.messages.len(), 1);
    assert_eq!(world.messages[0].payload, br#"{"temperature_celsius":21.5}"#);
    assert_eq!(world.messages[0].pod, "pico");
    let number = world.messages[0].number;
    world.leaf.take(&envelope_taken(&world, number), world.now).unwrap();
    world.later(59_000);
    assert_eq!(world.messages.len(), 1);
    world.later(1_000);
    assert_eq!(world.messages.len(), 2);
    world.power_cut();
    world.connect();
    world.leaf.measured(vec![Reading::new("temperature_celsius", 0)], Vec::new(), world.now);
    world.later(60_000);
    assert!(world.messages.last().unwrap().number > number + 1, "numbers are never used twice");
    for bad in ["-1", "soon", "86401"] {
        world.map(json!({"telemetrySeconds": bad}));
        world.settle();
        assert_eq!(world.condition("Configured").1, "Refused", "{bad}");
    }
}

fn envelope_taken(world: &World, number: u64) -> Vec<u8> {
    let session = u64::from(Kept::decode(world.flash.as_deref().unwrap()).unwrap().epoch) << 32 | 1;
    Envelope { session, message: limpet_protocol::Down::MessagesTaken { number } }.encode(4)
}

#[test]
fn its_own_conditions_are_told_once() {
    let mut world = World::new();
    world.connect();
    let fault = |holds| {
        vec![Condition { kind: "SensorFault".into(), holds, reason: "NoAnswer".into(), message: "0x76 is silent".into() }]
    };
    world.leaf.measured(Vec::new(), fault(true), world.now);
    world.settle();
    assert_eq!(world.condition("SensorFault").0, "True");
    let reports = world.reports.len();
    world.leaf.measured(Vec::new(), fault(true), world.now);
    world.later(limits::AGAIN_MS * 4);
    assert_eq!(world.reports.len(), reports, "equal and confirmed");
}

#[test]
fn hostile_bytes_and_damaged_flash_make_nothing_panic() {
    let mut world = World::new();
    world.connect();
    world.map(json!({"led": "on"}));
    world.settle();
    let good = Envelope { session: 1 << 32 | 1, message: limpet_protocol::Down::Welcome(Default::default()) }.encode(1);
    let flash = world.flash.clone().unwrap();
    let mut x = 88_172_645_463_325_252u64;
    for round in 0..20_000 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        let mut bytes = if round % 2 == 0 { good.clone() } else { x.to_le_bytes().repeat(3) };
        let at = x as usize % bytes.len();
        bytes[at] ^= (x >> 32) as u8;
        let _ = world.leaf.take(&bytes, world.now);
        while world.leaf.poll().is_some() {}
        let mut bytes = flash.clone();
        let at = x as usize % bytes.len();
        bytes[at] ^= (x >> 40) as u8;
        bytes.truncate(x as usize % (flash.len() + 1));
        let _ = Kept::decode(&bytes);
    }
    assert!(world.leaf.take(&[4; limpet_protocol::limits::LEAF_ENVELOPE_BYTES_MAX + 1], 0).is_err());
}
