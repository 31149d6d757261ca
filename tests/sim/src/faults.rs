//! What goes wrong: network, power, disks, clocks, versions, copied cards.
//!
//! In: chance. Out: changed boards, hub and network, and events that end the trouble. All of it stops with the time of trouble.
//! Never: breaks what no real fault breaks: a journal record that was synced, bytes of a message.

use crate::{
    Rng,
    board::Board,
    world::{What, World},
};
use limpet_agent_core::pods::ContainerRef;
use limpet_protocol::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use std::collections::BTreeMap;

const DAY_MS: i64 = 86_400_000;
/// From the simulated present back to 1970, and on to 2050.
const TO_1970_MS: i64 = -1_795_000_000_000;
const TO_2050_MS: i64 = 23 * 365 * DAY_MS;

/// A direction of a board's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Up,
    Down,
}

/// Directions that do not work at the moment.
#[derive(Debug, Default)]
pub struct Net {
    /// Everything waits until then, and comes in order.
    clogged: BTreeMap<(usize, Way), u64>,
    /// Everything is lost until then.
    dead: BTreeMap<(usize, Way), u64>,
}

/// Agents and hubs from two versions back to one ahead; all have the oldest one in common.
pub fn some_version(rng: &mut Rng) -> (u8, u8) {
    (PROTOCOL_VERSION_MIN, rng.between(PROTOCOL_VERSION_MIN.into(), u64::from(PROTOCOL_VERSION) + 1) as u8)
}

impl World {
    /// The network between: in order and reliable in peace; in trouble messages are lost, doubled and overtaken too.
    pub(crate) fn travel(&mut self, board: usize, way: Way, bytes: Vec<u8>, make: impl Fn(Vec<u8>) -> What) {
        self.report.messages += 1;
        self.report.bytes += bytes.len() as u64;
        for part in bytes.chunks(8) {
            let word = part.iter().fold(0, |word: u64, byte| word << 8 | u64::from(*byte));
            self.report.trace = (self.report.trace ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        let until = |of: &BTreeMap<(usize, Way), u64>, now| of.get(&(board, way)).copied().filter(|at| *at > now);
        if until(&self.net.dead, self.now).is_some() {
            return;
        }
        if let Some(at) = until(&self.net.clogged, self.now) {
            return self.after(at - self.now, make(bytes));
        }
        if !self.rough() {
            return self.after(20, make(bytes));
        }
        match self.rng.between(0, 100) {
            0..3 => {}
            3..5 => {
                self.after(20, make(bytes.clone()));
                let wait = self.rng.between(20, 4_000);
                self.after(wait, make(bytes));
            }
            5..15 => {
                let wait = self.rng.between(1, 3_000);
                self.after(wait, make(bytes));
            }
            _ => self.after(20, make(bytes)),
        }
    }

    pub(crate) fn fault(&mut self) {
        if !self.rough() {
            return;
        }
        self.report.faults += 1;
        let wait = self.rng.between(200, 8_000) * self.settings.fault_every;
        self.after(wait, What::Fault);
        let board = self.rng.between(0, self.boards.len() as u64) as usize;
        if self.settings.policies && self.rng.one_in(24) {
            return self.wrong_hub_clock();
        }
        match self.rng.between(0, 26) {
            0..4 => self.cut_now(board),
            4 => self.boards[board].cut_off = !self.boards[board].cut_off,
            5 | 6 => self.kill_agent(board),
            7 => self.power_cut(board),
            8 => self.crash_hub(),
            9 => self.clog(board),
            10 => {
                let way = self.some_way();
                self.half_dead(board, way);
            }
            11 => self.bad_disk(board),
            12 => self.wrong_clock(board),
            13 => self.everybody(),
            14 => self.hub_disk(),
            15 => self.copy_card(board),
            16 => self.boards[board].runtime.clumsy = self.rng.between(0, 3) * 12,
            17 => self.site_is_away(),
            18 => self.site_is_deaf(),
            19 => self.new_card(board),
            _ => self.end_some_container(board),
        }
        if self.boards[board].cut_off {
            self.cut_now(board);
        }
    }

    /// The trouble is over: what would last for ever ends.
    pub(crate) fn make_peace(&mut self) {
        self.hub.dies_at = None;
        for board in 0..self.boards.len() {
            let device = &mut self.boards[board];
            (device.dies_at, device.cut_off, device.runtime.clumsy) = (None, false, 0);
            if device.hardware.starts_with("copy") {
                self.unplug(board);
            }
            // Convergence is counted from the moment at which everybody can be reached.
            let soon = self.rng.between(100, 3_000);
            self.after(soon, What::Connect { board });
        }
        if self.hub.jump_back() {
            (self.hub_tick, self.decide_at) = (None, None);
        }
        self.operator.mend(&mut self.hub);
    }

    fn kill_agent(&mut self, board: usize) {
        if self.boards[board].agent.is_some() {
            self.boards[board].crash();
            self.died(board, false);
        }
    }

    fn power_cut(&mut self, board: usize) {
        let dead = self.boards[board].agent.is_none();
        self.boards[board].reboot(&mut self.rng);
        if !dead {
            self.died(board, true);
        }
    }

    /// A second device from a copy of the card, for a while.
    fn copy_card(&mut self, board: usize) {
        let original = &self.boards[board];
        if original.gone || original.copied || self.boards.len() > self.settings.boards {
            return;
        }
        let mut copy = Board::new(board);
        copy.journal.compact(original.journal.records().to_vec());
        copy.hardware = format!("copy-of-{}", original.hardware);
        (copy.copied, copy.floor_ms, copy.instance) = (true, original.floor_ms, original.instance);
        self.boards[board].copied = true;
        self.boards.push(copy);
        self.ticks.push(None);
        let board = self.boards.len() - 1;
        self.memory.device(board);
        self.after(10, What::Start { board });
        let wait = self.rng.between(10_000, 900_000).min(self.trouble_left());
        self.after(wait, What::Unplug { board });
    }

    pub(crate) fn unplug(&mut self, board: usize) {
        self.power_cut(board);
        self.boards[board].gone = true;
    }

    /// Half of the boards, or all, lose their way to the hub together, or find it again.
    fn site_is_away(&mut self) {
        let (away, all) = (self.rng.one_in(2), self.rng.one_in(2));
        for board in (0..self.boards.len()).filter(|b| all || b % 2 == 0) {
            self.boards[board].cut_off = away;
            if away {
                self.cut_now(board);
            }
        }
    }

    /// One direction is dead for half of the boards, or for all.
    fn site_is_deaf(&mut self) {
        let (way, all) = (self.some_way(), self.rng.one_in(2));
        for board in (0..self.boards.len()).filter(|b| all || b % 2 == 0) {
            self.half_dead(board, way);
        }
    }

    /// A board loses all that it remembered, and what it ran. Of a card with a copy nobody would know which one it was.
    fn new_card(&mut self, board: usize) {
        if self.boards[board].copied || self.boards[board].gone || !self.rng.one_in(4) {
            return;
        }
        let dead = self.boards[board].agent.is_none();
        self.boards[board].new_card(&mut self.rng);
        if !dead {
            self.died(board, true);
        }
    }

    /// The hub's store cannot be written for a while.
    fn hub_disk(&mut self) {
        self.hub.disk_bad = true;
        let wait = self.rng.between(500, 20_000).min(self.trouble_left());
        self.after(wait, What::HubDiskGood);
    }

    fn some_way(&mut self) -> Way {
        if self.rng.one_in(2) { Way::Up } else { Way::Down }
    }

    /// A full queue somewhere: nothing arrives for a while, then all of it.
    fn clog(&mut self, board: usize) {
        let (way, until) = (self.some_way(), self.now + self.rng.between(1_000, 40_000).min(self.trouble_left()));
        self.net.clogged.insert((board, way), until);
    }

    /// One direction is dead until the connection is given up.
    fn half_dead(&mut self, board: usize, way: Way) {
        let wait = self.rng.between(5_000, 60_000).min(self.trouble_left());
        self.net.dead.insert((board, way), self.now + wait);
        if let Some(connection) = self.links.get(&board).copied() {
            self.after(wait, What::Break { board, connection });
        }
    }

    fn bad_disk(&mut self, board: usize) {
        self.boards[board].disk_bad = true;
        let wait = self.rng.between(500, 30_000).min(self.trouble_left());
        self.after(wait, What::DiskGood { board });
    }

    fn wrong_clock(&mut self, board: usize) {
        let little = self.rng.between(0, 4 * DAY_MS as u64) as i64 - 2 * DAY_MS;
        self.boards[board].skew_ms = match self.rng.between(0, 4) {
            0 => TO_1970_MS,
            1 => TO_2050_MS,
            2 => 0,
            _ => little,
        };
    }

    /// The hub's clock is set, or was wrong and becomes right.
    fn wrong_hub_clock(&mut self) {
        let far = self.rng.between(0, 4 * DAY_MS as u64) as i64 - 2 * DAY_MS;
        let skew = match self.rng.between(0, 4) {
            0 => far,
            1 => far / 2_000,
            _ => 0,
        };
        self.hub.jump(skew);
        (self.hub_tick, self.decide_at) = (None, None);
    }

    /// The mains, or the site's router.
    fn everybody(&mut self) {
        let power = self.rng.one_in(2);
        for board in 0..self.boards.len() {
            match power {
                true => self.power_cut(board),
                false => self.cut_now(board),
            }
        }
    }

    pub(crate) fn crash_hub(&mut self) {
        if !self.hub.up {
            return;
        }
        self.report.crashes += 1;
        self.hub.crash();
        (self.hub_tick, self.decide_at) = (None, None);
        for board in self.links.keys().copied().collect::<Vec<_>>() {
            self.drop_link(board);
        }
        let wait = self.rng.between(500, 20_000);
        self.after(wait, What::HubStart);
    }

    fn end_some_container(&mut self, board: usize) {
        let some = self.boards[board].runtime.containers.iter().find(|(_, r)| r.exit.is_none());
        let Some(((uid, name), running)) = some else { return };
        let at = ContainerRef { uid: uid.as_str().into(), container: name.as_str().into(), attempt: running.attempt };
        let boot = self.boards[board].boot;
        self.after(1, What::End { board, boot, at, code: 1 });
    }
}
