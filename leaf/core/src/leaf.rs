//! The leaf's side of the session, as one state machine.
//!
//! In: `connected`, `take` (bytes of the hub), `measured`, `tick`, `kept` (the flash's verdict). Out: `poll` after each of them,
//! until it is empty, in this order.
//! Never: acknowledges or follows what is not in flash; uses a number twice, over any power cut.

use crate::{
    Condition, Config, Facts, Kept, Reading, limits,
    outbox::Outbox,
    readings, report, set, streams,
};
use alloc::{collections::VecDeque, format, string::String, vec::Vec};
use limpet_protocol::{
    Ack, BoardMessage, DecodeError, Down, Envelope, Hello, Inventory, ItemStep, NodeReport, PROTOCOL_VERSION,
    PROTOCOL_VERSION_MIN, SetChange, SetDigest, SetStep, Up, Welcome,
    limits::LEAF_ENVELOPE_BYTES_MAX,
    topic::Channel,
};
use serde_json::{Map, Value, json};

/// Topic of the readings; the board's own broker calls what goes to the hub `up/…`.
const TOPIC: &str = "up/telemetry";

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write this to flash, then call `Leaf::kept`. Nothing else comes before that.
    Keep(Vec<u8>),
    Send { channel: Channel, bytes: Vec<u8> },
    /// Follow this, then call `Leaf::configured`.
    Configure(Config),
    /// End the connection; the sentence says why.
    HangUp(String),
}

#[derive(Debug, Default, PartialEq)]
enum Link {
    #[default]
    Down,
    Greeting,
    Up(Talk),
}

#[derive(Debug, Default, PartialEq)]
struct Talk {
    speak: u8,
    seq_next: u64,
    target: SetDigest,
    asked_ms: Option<u64>,
    gap: bool,
}

/// What is written to flash at this moment.
#[derive(Debug)]
struct Writing {
    kept: Kept,
    /// To be acknowledged then.
    step: Option<(u64, SetDigest)>,
}

#[derive(Debug, Default)]
struct Report {
    body: Vec<u8>,
    number: u32,
    confirmed: bool,
    sent_ms: u64,
}

#[derive(Debug)]
pub struct Leaf {
    facts: Facts,
    /// As it is in flash.
    kept: Kept,
    writing: Option<Writing>,
    /// The flash did not take it; again then.
    keep_again_ms: Option<u64>,
    /// Numbers may be used: this start is in flash.
    counted: bool,
    link: Link,
    sessions: u32,
    out: VecDeque<Output>,
    config: Config,
    refused: Option<String>,
    conditions: Vec<Condition>,
    report: Report,
    readings: Vec<Reading>,
    outbox: Outbox,
    telemetry_ms: Option<u64>,
    due_ms: u64,
    /// The hub's time, and when it was told.
    told: (u64, u64),
}

impl Leaf {
    /// `kept`: what flash holds. `fresh`: random bytes, for the first start.
    pub fn new(facts: Facts, kept: Option<Kept>, fresh: [u8; 16]) -> Leaf {
        let kept = kept.unwrap_or(Kept { instance: fresh, ..Kept::default() });
        let next = Kept { epoch: kept.epoch.saturating_add(1), ..kept.clone() };
        let mut leaf = Leaf {
            facts,
            config: Config::of(&kept.items),
            told: (kept.floor_ms, 0),
            outbox: Outbox::new(u64::from(next.epoch) << 32),
            kept,
            writing: None,
            keep_again_ms: None,
            counted: false,
            link: Link::Down,
            sessions: 0,
            out: VecDeque::new(),
            refused: None,
            conditions: Vec::new(),
            report: Report::default(),
            readings: Vec::new(),
            telemetry_ms: None,
            due_ms: 0,
        };
        leaf.keep(next, None);
        leaf.out.push_back(Output::Configure(leaf.config.clone()));
        leaf
    }

    /// Whether a connection may be made.
    pub fn is_ready(&self) -> bool {
        self.counted
    }

    /// The hub welcomed this connection.
    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// The last good time known, milliseconds since 1970: no certificate that ended before it is good.
    pub fn floor_ms(&self) -> u64 {
        self.told.0
    }

    /// The time of day as far as this board knows it: the last one that the hub told, and what has passed since.
    pub fn wall_ms(&self, now_ms: u64) -> u64 {
        self.told.0 + now_ms.saturating_sub(self.told.1)
    }

    fn number(&self, low: u32) -> u64 {
        u64::from(self.kept.epoch) << 32 | u64::from(low)
    }

    fn keep(&mut self, kept: Kept, step: Option<(u64, SetDigest)>) {
        self.out.push_back(Output::Keep(kept.encode()));
        self.writing = Some(Writing { kept, step });
    }

    /// The flash's verdict on the last `Keep`.
    pub fn kept(&mut self, ok: bool, now_ms: u64) {
        let Some(writing) = self.writing.take() else { return };
        if !ok {
            match self.counted {
                // The hub's set is asked for again, once there is somebody to ask.
                true => {
                    if let Link::Up(talk) = &mut self.link {
                        (talk.gap, talk.asked_ms) = (true, Some(now_ms));
                    }
                }
                false => self.keep_again_ms = Some(now_ms + limits::KEEP_AGAIN_MS),
            }
            return;
        }
        self.counted = true;
        self.kept = writing.kept;
        let config = Config::of(&self.kept.items);
        if config != self.config {
            self.config = config;
            self.out.push_back(Output::Configure(self.config.clone()));
        }
        if let Some(step) = writing.step {
            self.settle(step, now_ms);
        }
    }

    /// What the firmware says to the last `Configure`: nothing, or why it does not follow it.
    pub fn configured(&mut self, refused: Option<String>, now_ms: u64) {
        let telemetry = self.config.telemetry_ms();
        self.refused = refused.or_else(|| telemetry.as_ref().err().cloned());
        let telemetry = telemetry.unwrap_or(None);
        if telemetry != self.telemetry_ms {
            (self.telemetry_ms, self.due_ms) = (telemetry, now_ms);
        }
        self.say(now_ms);
    }

    /// Newest figures and conditions. Those that have no name are left out.
    pub fn measured(&mut self, readings: Vec<Reading>, conditions: Vec<Condition>, now_ms: u64) {
        self.readings = readings;
        self.readings.retain(Reading::is_named_well);
        self.readings.truncate(limits::READINGS_MAX);
        self.conditions = conditions;
        self.say(now_ms);
        self.tick(now_ms);
    }

    /// The board got another address.
    pub fn moved(&mut self, address: String, now_ms: u64) {
        self.facts.address = address;
        self.say(now_ms);
    }

    /// The transport is up.
    pub fn connected(&mut self, now_ms: u64) {
        self.sessions += 1;
        let hello = Hello {
            agent_version: format!("leaf-{}", self.facts.firmware),
            boot_id: format!("{}", self.kept.epoch),
            instance: self.kept.instance,
            digest: set::digest(&self.kept.items),
            clock_ms: self.wall_ms(now_ms),
            speaks: (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION),
            extensions: Vec::new(),
        };
        self.link = Link::Greeting;
        self.send(Channel::State, Up::Hello(hello));
    }

    pub fn disconnected(&mut self) {
        self.link = Link::Down;
        self.outbox.opened(false);
        self.out.retain(|o| !matches!(o, Output::Send { .. } | Output::HangUp(_)));
    }

    fn send(&mut self, channel: Channel, message: Up) {
        let speak = match &self.link {
            Link::Down => return,
            Link::Greeting => PROTOCOL_VERSION_MIN,
            Link::Up(talk) => talk.speak,
        };
        if message.since() > speak {
            return;
        }
        let envelope = Envelope { session: self.number(self.sessions), message };
        self.out.push_back(Output::Send { channel, bytes: envelope.encode_plain(speak) });
    }

    /// One message of the hub. An error is a broken or hostile sender: the caller hangs up.
    pub fn take(&mut self, bytes: &[u8], now_ms: u64) -> Result<(), DecodeError> {
        let envelope = Envelope::<Down>::decode_within(bytes, LEAF_ENVELOPE_BYTES_MAX)?;
        match envelope.message {
            Down::Goodbye { reason } => {
                // Whoever removed this node also forgot what it said.
                self.report.confirmed = false;
                self.out.push_back(Output::HangUp(format!("the hub ends the session: {reason}")));
            }
            _ if envelope.session != self.number(self.sessions) => {}
            Down::Welcome(welcome) => self.welcome(&welcome, now_ms),
            Down::Change(change) => self.step(whole(change), now_ms),
            Down::Step(step) => self.step(step, now_ms),
            Down::Reported { uid, version } if uid.is_empty() => {
                self.report.confirmed |= version == self.number(self.report.number);
            }
            Down::Stream(limpet_protocol::StreamFrame::Open { id, open }) => {
                let frames = streams::answer(id, &open, &self.readings, || self.about(now_ms));
                frames.into_iter().for_each(|frame| self.send(Channel::Stream, Up::Stream(frame)));
            }
            Down::MessagesTaken { number } => self.outbox.taken(number),
            _ => {}
        }
        self.tick(now_ms);
        Ok(())
    }

    fn about(&self, now_ms: u64) -> Map<String, Value> {
        let source = self.config.source.as_ref().map(|(namespace, name)| format!("{namespace}/{name}"));
        let about = json!({"board": self.facts.board, "firmware": self.facts.firmware, "start": self.kept.epoch,
            "uptimeSeconds": now_ms / 1000, "config": source, "configRevision": self.config.generation,
            "configRefused": self.refused});
        about.as_object().cloned().unwrap_or_default()
    }

    fn welcome(&mut self, welcome: &Welcome, now_ms: u64) {
        if self.link != Link::Greeting || !(PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&welcome.speak) {
            return;
        }
        if welcome.time_ms > self.wall_ms(now_ms) || self.told.1 == 0 {
            self.told = (welcome.time_ms.max(self.told.0), now_ms);
        }
        let talk = Talk { speak: welcome.speak, seq_next: 1, target: welcome.digest, ..Talk::default() };
        self.link = Link::Up(talk);
        self.outbox.opened(true);
        if self.told.0 >= self.kept.floor_ms + limits::FLOOR_STEP_MS && self.writing.is_none() {
            let kept = Kept { floor_ms: self.told.0, ..self.kept.clone() };
            self.keep(kept, None);
        }
        self.ask_if_different(now_ms);
        self.say(now_ms);
        self.send_report(now_ms);
    }

    fn step(&mut self, step: SetStep, now_ms: u64) {
        let Link::Up(talk) = &mut self.link else { return };
        if step.seq < talk.seq_next {
            let seq = talk.seq_next - 1;
            if !talk.gap && self.writing.is_none() {
                self.send(Channel::State, Up::Ack(Ack { seq }));
            }
            return;
        }
        talk.gap |= step.seq > talk.seq_next;
        // What comes while the flash is busy is a missed step; the hub sends it again.
        talk.gap |= self.writing.is_some();
        talk.seq_next = step.seq + 1;
        talk.target = step.digest;
        let end = (step.seq, step.digest);
        let items = set::after(&self.kept.items, step);
        match items == self.kept.items {
            true => self.settle(end, now_ms),
            false if self.writing.is_some() => {}
            false => {
                let kept = Kept { items, floor_ms: self.told.0, ..self.kept.clone() };
                self.keep(kept, Some(end));
            }
        }
    }

    fn settle(&mut self, (seq, digest): (u64, SetDigest), now_ms: u64) {
        let own = set::digest(&self.kept.items);
        let Link::Up(talk) = &mut self.link else { return };
        if digest == own {
            (talk.gap, talk.asked_ms) = (false, None);
        }
        if !talk.gap {
            self.send(Channel::State, Up::Ack(Ack { seq }));
        }
        self.ask_if_different(now_ms);
    }

    fn ask_if_different(&mut self, now_ms: u64) {
        let Link::Up(talk) = &mut self.link else { return };
        let waits = talk.asked_ms.is_some_and(|at| now_ms < at + limits::AGAIN_MS);
        if self.writing.is_some() || waits || talk.target == set::digest(&self.kept.items) {
            return;
        }
        talk.asked_ms = Some(now_ms);
        let entries = set::inventory(&self.kept.items);
        self.send(Channel::State, Up::Inventory(Inventory { entries }));
    }

    /// Makes the report anew and sends it when it says something else.
    fn say(&mut self, now_ms: u64) {
        let refused = self.refused.as_deref();
        let body = report::body(&self.facts, self.kept.epoch, &self.config, refused, &self.conditions);
        if body != self.report.body {
            self.report = Report { body, number: self.report.number + 1, ..Report::default() };
            self.send_report(now_ms);
        }
    }

    fn send_report(&mut self, now_ms: u64) {
        if self.is_up() && !self.report.confirmed && self.report.number > 0 {
            self.report.sent_ms = now_ms;
            let report = NodeReport { version: self.number(self.report.number), body: self.report.body.clone() };
            self.send(Channel::Status, Up::NodeReport(report));
        }
    }

    /// Call when `wake_at` has passed.
    pub fn tick(&mut self, now_ms: u64) {
        if self.keep_again_ms.is_some_and(|at| now_ms >= at) {
            self.keep_again_ms = None;
            let next = Kept { epoch: self.kept.epoch.saturating_add(1), ..self.kept.clone() };
            self.keep(next, None);
        }
        self.ask_if_different(now_ms);
        if !self.report.confirmed && now_ms >= self.report.sent_ms + limits::AGAIN_MS {
            self.send_report(now_ms);
        }
        self.telemetry(now_ms);
        while let Some(message) = self.outbox.poll(now_ms) {
            self.send(Channel::Event, message);
        }
    }

    fn telemetry(&mut self, now_ms: u64) {
        let (Some(every), Some((namespace, _))) = (self.telemetry_ms, &self.config.source) else { return };
        if now_ms < self.due_ms || self.readings.is_empty() || !self.counted {
            return;
        }
        let message = BoardMessage {
            namespace: namespace.clone(),
            pod: self.facts.name.clone(),
            topic: TOPIC.into(),
            at_ms: self.wall_ms(now_ms),
            payload: readings::json(&self.readings),
            ..BoardMessage::default()
        };
        self.outbox.put(message);
        self.due_ms = now_ms + every;
    }

    /// When `tick` is wanted.
    pub fn wake_at(&self) -> Option<u64> {
        let asked = match &self.link {
            Link::Up(talk) if talk.target != set::digest(&self.kept.items) => talk.asked_ms.map(|at| at + limits::AGAIN_MS),
            _ => None,
        };
        let report = (self.is_up() && !self.report.confirmed).then_some(self.report.sent_ms + limits::AGAIN_MS);
        let telemetry = self.telemetry_ms.filter(|_| !self.readings.is_empty()).map(|_| self.due_ms);
        [asked, report, telemetry, self.outbox.again_at(), self.keep_again_ms].into_iter().flatten().min()
    }
}

fn whole(change: SetChange) -> SetStep {
    let put = |i: limpet_protocol::Item| ItemStep { key: i.key, generation: i.generation, base: 0, body: i.body };
    let puts = change.puts.into_iter().map(put).collect();
    SetStep { seq: change.seq, puts, removals: change.removals, digest: change.digest }
}
