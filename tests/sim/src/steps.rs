//! What each event does.
//!
//! In: one event. Out: changed hub, boards and links, and further events.
//! Never: what follows from it at once; that is `World::follow_up`.

use crate::{
    Sabotage, faults,
    world::{What, World},
};
use limpet_hub_core::{Change, nodes::session::SessionInput};
use limpet_protocol::{Down, Envelope, Up};

impl World {
    pub(crate) fn step(&mut self, what: What) {
        match what {
            What::Connect { board } => self.connect(board),
            What::ToHub { board, connection, bytes } => self.to_hub(board, connection, &bytes),
            What::ToBoard { board, connection, bytes } => {
                if self.boards[board].connection == Some(connection) {
                    let now = self.clock(board);
                    self.boards[board].receive(now, &bytes);
                    self.touched.push(board);
                }
            }
            What::Cut { board, connection } => self.cut(board, connection),
            What::Outcome { board, life, input } => {
                if self.boards[board].life == life {
                    let now = self.clock(board);
                    self.boards[board].input(now, input);
                    self.touched.push(board);
                }
            }
            What::End { board, boot, at, code } => {
                let now = self.clock(board);
                if self.boards[board].boot == boot
                    && let Some(news) = self.boards[board].runtime.end(now, &at, code)
                {
                    self.boards[board].input(now, news);
                    self.touched.push(board);
                }
            }
            // An earlier wish has taken the place of this one.
            What::BoardTick { board } if self.ticks[board].is_none_or(|at| at > self.now) => {}
            What::BoardTick { board } => {
                self.ticks[board] = None;
                let now = self.clock(board);
                self.boards[board].tick(now);
                self.touched.push(board);
            }
            What::HubTick if self.hub_tick.is_none_or(|at| at > self.now) => {}
            What::HubTick => {
                self.hub_tick = None;
                for name in self.hub.due() {
                    self.hub.give(&name, SessionInput::Tick);
                }
            }
            What::Written { node, life, ticket, changes } => self.written(&node, life, ticket, changes),
            What::Start { board } => self.start(board),
            What::HubStart => {
                if self.rough() {
                    self.hub.versions = faults::some_version(&mut self.rng);
                }
                self.hub.start();
            }
            What::Break { board, connection } => {
                if self.links.get(&board) == Some(&connection) {
                    self.cut_now(board);
                }
            }
            What::Noticed { name, connection } => self.noticed(&name, connection),
            What::DiskGood { board } => {
                self.boards[board].disk_bad = false;
                self.touched.push(board);
            }
            What::HubDiskGood => self.hub.disk_bad = false,
            What::Unplug { board } => self.unplug(board),
            What::Decide if self.decide_at.is_none_or(|at| at > self.now) => {}
            What::Decide => self.decide(),
            What::CarryOut { life, by, changes } => {
                if self.hub.life == life && self.hub.up {
                    self.perhaps_hub_dies();
                    if self.hub.carry_out(&by, changes) {
                        self.crash_hub();
                    }
                }
            }
            What::Fault => self.fault(),
            What::Operate => self.operate(),
        }
    }

    fn start(&mut self, board: usize) {
        if self.boards[board].agent.is_some() || self.boards[board].gone {
            return;
        }
        if self.rough() {
            self.boards[board].versions = faults::some_version(&mut self.rng);
        }
        let now = self.clock(board);
        self.boards[board].start(now);
        self.touched.push(board);
        let wait = self.rng.between(10, 3_000);
        self.after(wait, What::Connect { board });
    }

    fn operate(&mut self) {
        if !self.trouble() {
            return;
        }
        let wait = self.rng.between(50, 6_000) * self.settings.fault_every;
        self.after(wait, What::Operate);
        if self.hub.up && !self.hub.disk_bad {
            self.report.changes += 1;
            self.operator.act(&mut self.hub, &mut self.rng);
        }
    }

    fn decide(&mut self) {
        self.decide_at = None;
        if !self.hub.up {
            return;
        }
        self.chatter();
        let life = self.hub.life;
        for (by, changes) in self.hub.decide(&mut self.rng) {
            let wait = self.rng.between(1, 30);
            self.after(wait, What::CarryOut { life, by, changes });
        }
    }

    fn chatter(&mut self) {
        if self.settings.mistake != Sabotage::Chatters || self.trouble() {
            return;
        }
        for board in self.links.keys().copied().collect::<Vec<_>>() {
            let say = SessionInput::Say(Down::EventsTaken { number: 0 });
            self.hub.give(&self.boards[board].name.clone(), say);
        }
    }

    fn perhaps_hub_dies(&mut self) {
        if self.rough() && self.rng.one_in(500) {
            self.hub.dies_at = Some(self.hub.points + self.rng.between(0, 4));
        }
    }

    /// A session's write reaches the disk, or does not.
    fn written(&mut self, node: &str, life: u64, ticket: u64, changes: Vec<Change>) {
        if self.hub.life != life || !self.hub.up {
            return;
        }
        if self.hub.disk_bad {
            let reason = "the simulator says no".into();
            return self.hub.give(node, SessionInput::Refused { ticket, again_ms: Some(2000), reason });
        }
        self.perhaps_hub_dies();
        let lost = self.settings.mistake == Sabotage::LosesWrites && ticket % 10 == 9;
        for change in changes.into_iter().filter(|_| !lost) {
            if self.hub.point() {
                return self.crash_hub();
            }
            if !self.hub.take(change) {
                self.hub.settle();
                let reason = "its object is another one by now".into();
                return self.hub.give(node, SessionInput::Refused { ticket, again_ms: Some(50), reason });
            }
            if self.hub.point() {
                return self.crash_hub();
            }
        }
        // The view has it before the session hears so.
        self.hub.settle();
        self.hub.give(node, SessionInput::Durable { ticket });
    }

    fn connect(&mut self, board: usize) {
        let device = &self.boards[board];
        if device.agent.is_none() || device.connection.is_some() || device.gone {
            return;
        }
        let (name, hardware) = (device.name.clone(), device.hardware.clone());
        let shut = !self.hub.up || (device.cut_off && self.trouble());
        if shut || !self.hub.admits(&name, &hardware) {
            return self.try_again(board);
        }
        self.last_connection += 1;
        let connection = self.last_connection;
        if let Some(old) = self.hub.open.insert(name.clone(), connection)
            && let Some(other) = self.ends.get(&old).copied()
        {
            self.drop_link(other);
        }
        self.links.insert(board, connection);
        self.ends.insert(connection, board);
        self.boards[board].connected(connection);
        self.hub.connected(&name, connection);
        self.touched.push(board);
        // A conversation that does not get going is given up, as the agent's link does.
        self.after(30_000, What::Cut { board, connection });
    }

    /// As the agent's link: a pause that doubles up to a minute, with jitter.
    fn try_again(&mut self, board: usize) {
        let full = (1_000 << self.boards[board].tries.min(6)).min(60_000);
        self.boards[board].tries += 1;
        let wait = self.rng.between(full / 2, full + 1);
        self.after(wait, What::Connect { board });
    }

    fn to_hub(&mut self, board: usize, connection: u64, bytes: &[u8]) {
        if !self.hub.up || self.links.get(&board) != Some(&connection) {
            return;
        }
        let name = self.boards[board].name.clone();
        match Envelope::<Up>::decode(bytes) {
            Ok(envelope) => {
                self.hub.wire.up(&self.boards[board], &envelope.message);
                self.hub.heard(&name);
                self.hub.give(&name, SessionInput::Message { connection, envelope });
            }
            Err(e) => {
                self.hub.broken.get_or_insert(format!("{name}: its message cannot be read: {e}"));
            }
        }
    }

    /// The timer of a new connection.
    fn cut(&mut self, board: usize, connection: u64) {
        let welcomed = self.boards[board].agent.as_ref().is_some_and(|a| a.sync.welcomed());
        if self.boards[board].connection == Some(connection) && !welcomed {
            self.cut_now(board);
        }
    }

    /// Both ends see the connection end.
    pub(crate) fn cut_now(&mut self, board: usize) {
        let Some(connection) = self.links.get(&board).copied() else { return };
        self.drop_link(board);
        let name = self.boards[board].name.clone();
        self.noticed(&name, connection);
    }

    /// The board sees its connection end, and tries again.
    pub(crate) fn drop_link(&mut self, board: usize) {
        let Some(connection) = self.links.remove(&board) else { return };
        self.ends.remove(&connection);
        self.touched.push(board);
        if self.boards[board].agent.as_ref().is_some_and(|a| a.sync.welcomed()) {
            self.boards[board].tries = 0;
        }
        self.boards[board].disconnected();
        self.try_again(board);
    }

    /// The hub sees a connection end.
    fn noticed(&mut self, name: &str, connection: u64) {
        if self.hub.up && self.hub.open.get(name) == Some(&connection) {
            self.hub.open.remove(name);
            self.hub.disconnected(name, connection);
        }
    }

    /// The keeper starts a dead agent again. A hub learns of a lost power only from missing pings.
    pub(crate) fn died(&mut self, board: usize, power: bool) {
        self.report.crashes += 1;
        if let Some(connection) = self.links.remove(&board) {
            self.ends.remove(&connection);
            let name = self.boards[board].name.clone();
            let wait = if power { self.rng.between(1_000, 90_000) } else { self.rng.between(1, 200) };
            self.after(wait, What::Noticed { name, connection });
        }
        self.ticks[board] = None;
        let wait = self.rng.between(300, 2_000);
        self.after(wait, What::Start { board });
    }
}
