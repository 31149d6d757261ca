//! Which devices a pod's claims get on one node.
//!
//! In: what is asked for, what is on offer, what others hold. Out: a device for every wish, or that there is no way.
//! First alternatives before later ones, devices in their order; goes back when a constraint cannot be met.
//! Never: more than `STEPS_MAX` steps; more devices for a claim than upstream allows.

use super::{
    offers::{Id, Offer},
    selector::Selector,
};
use crate::view::{Attribute, Device, DeviceConstraint, Taint, Toleration};
use std::collections::BTreeSet;

/// As upstream.
pub const DEVICES_MAX: usize = 32;
const STEPS_MAX: usize = 20_000;

/// One request of a claim, ready to be matched.
#[derive(Debug)]
pub struct Request {
    pub claim: usize,
    pub alternatives: Vec<Alternative>,
}

#[derive(Debug)]
pub struct Alternative {
    /// As constraints and results name it: `request` or `request/alternative`.
    pub name: String,
    pub class: Box<str>,
    pub selectors: Vec<Selector>,
    pub tolerations: Box<[Toleration]>,
    /// `None`: all that match.
    pub count: Option<usize>,
    pub admin: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub request: usize,
    pub alternative: usize,
    /// Index of the offer.
    pub offer: usize,
}

/// The pod's requests in order, and the constraints of each claim.
#[derive(Debug, Default)]
pub struct Wishes {
    pub requests: Vec<Request>,
    pub constraints: Vec<Box<[DeviceConstraint]>>,
}

impl Wishes {
    /// `None`: not on this node. Errors are those of expressions.
    pub fn search(&self, offers: &[Offer<'_>], held: &BTreeSet<Id>) -> Result<Option<Vec<Choice>>, String> {
        let mut fits = Vec::new();
        for request in &self.requests {
            let each: Result<Vec<_>, String> =
                request.alternatives.iter().map(|a| a.fitting(offers)).collect();
            fits.push(each?);
        }
        let held = offers.iter().map(|o| held.contains(&o.id())).collect();
        let mut search = Search { wishes: self, offers, fits, taken: held, chosen: Vec::new(), steps: 0 };
        Ok(search.request(0).then_some(search.chosen))
    }
}

impl Alternative {
    fn fitting(&self, offers: &[Offer<'_>]) -> Result<Vec<usize>, String> {
        let mut fitting = Vec::new();
        for (at, offer) in offers.iter().enumerate() {
            let strict = |t: &&Taint| ["NoSchedule", "NoExecute"].contains(&&*t.effect);
            let tolerated = |t: &Taint| self.tolerations.iter().any(|x| x.tolerates(t));
            let mut chosen = offer.device.taints.iter().filter(strict).all(tolerated);
            for selector in &self.selectors {
                chosen = chosen && selector.matches(&offer.slice.driver, offer.device)?;
            }
            if chosen {
                fitting.push(at);
            }
        }
        Ok(fitting)
    }
}

struct Search<'a> {
    wishes: &'a Wishes,
    offers: &'a [Offer<'a>],
    /// Offers that fit, by request and alternative.
    fits: Vec<Vec<Vec<usize>>>,
    taken: Vec<bool>,
    chosen: Vec<Choice>,
    steps: usize,
}

impl Search<'_> {
    fn request(&mut self, request: usize) -> bool {
        let Some(wanted) = self.wishes.requests.get(request) else { return true };
        (0..wanted.alternatives.len()).any(|alternative| self.alternative(request, alternative))
    }

    fn alternative(&mut self, request: usize, alternative: usize) -> bool {
        if let Some(count) = self.wishes.requests[request].alternatives[alternative].count {
            return self.pick(request, alternative, count, 0);
        }
        let (all, before) = (self.fits[request][alternative].clone(), self.chosen.len());
        let every = all.into_iter().all(|offer| self.choose(Choice { request, alternative, offer }));
        if every && self.chosen.len() > before && self.request(request + 1) {
            return true;
        }
        self.undo(before);
        false
    }

    fn pick(&mut self, request: usize, alternative: usize, left: usize, from: usize) -> bool {
        if left == 0 {
            return self.request(request + 1);
        }
        for at in from..self.fits[request][alternative].len() {
            let (offer, before) = (self.fits[request][alternative][at], self.chosen.len());
            if self.choose(Choice { request, alternative, offer }) {
                if self.pick(request, alternative, left - 1, at + 1) {
                    return true;
                }
                self.undo(before);
            }
        }
        false
    }

    fn choose(&mut self, choice: Choice) -> bool {
        self.steps += 1;
        let claim = self.wishes.requests[choice.request].claim;
        let of_claim = |c: &&Choice| self.wishes.requests[c.request].claim == claim;
        let free = self.wishes.is_admin(choice) || !self.taken[choice.offer];
        let twice = self.chosen.iter().any(|c| c.request == choice.request && c.offer == choice.offer);
        if self.steps > STEPS_MAX
            || !free
            || twice
            || self.chosen.iter().filter(of_claim).count() >= DEVICES_MAX
            || !self.wishes.constraints[claim].iter().all(|c| self.keeps(c, claim, choice))
        {
            return false;
        }
        if !self.wishes.is_admin(choice) {
            self.taken[choice.offer] = true;
        }
        self.chosen.push(choice);
        true
    }

    fn undo(&mut self, to: usize) {
        for choice in self.chosen.drain(to..) {
            if !self.wishes.is_admin(choice) {
                self.taken[choice.offer] = false;
            }
        }
    }

    fn keeps(&self, constraint: &DeviceConstraint, claim: usize, choice: Choice) -> bool {
        let concerns = |c: Choice| self.wishes.concerns(constraint, claim, c);
        if !concerns(choice) {
            return true;
        }
        let others = || self.chosen.iter().copied().filter(|c| concerns(*c));
        let of = |c: Choice, name: &str| attribute(&self.offers[c.offer], name);
        if let Some(name) = &constraint.match_attribute {
            let Some(own) = of(choice, name) else { return false };
            return others().all(|c| of(c, name) == Some(own));
        }
        match &constraint.distinct_attribute {
            Some(name) => of(choice, name).is_some_and(|own| others().all(|c| of(c, name) != Some(own))),
            None => true,
        }
    }
}

impl Wishes {
    fn is_admin(&self, choice: Choice) -> bool {
        self.requests[choice.request].alternatives[choice.alternative].admin
    }

    fn concerns(&self, constraint: &DeviceConstraint, claim: usize, choice: Choice) -> bool {
        let request = &self.requests[choice.request];
        let name = &*request.alternatives[choice.alternative].name;
        let of_request = name.split('/').next();
        request.claim == claim
            && (constraint.requests.is_empty()
                || constraint.requests.iter().any(|r| **r == *name || Some(&**r) == of_request))
    }
}

/// By its full name; the driver's own attributes need not spell its domain.
fn attribute<'a>(offer: &Offer<'a>, name: &str) -> Option<&'a Attribute> {
    let device: &'a Device = offer.device;
    let own = || device.attributes.get(name.strip_prefix(&*offer.slice.driver)?.strip_prefix('/')?);
    device.attributes.get(name).or_else(own)
}
