//! Which devices a pod's claims get on one node.
//!
//! In: what is asked for, what is on offer, what others hold. Out: a device for every wish, or that there is no way.
//! First alternatives before later ones, devices in their order; goes back when a constraint cannot be met.
//! Never: more than `STEPS_MAX` steps; more devices for a claim than upstream allows.

use super::{
    capacity::{self, Amounts, Wanted},
    held::Held,
    offers::{Offer, consumption},
    selector::Selector,
};
use crate::view::{Attribute, Device, DeviceConstraint, Taint, Toleration};
use limpet_objects::quantity::Quantity;

/// As upstream.
pub const DEVICES_MAX: usize = 32;
const STEPS_MAX: usize = 20_000;

/// One request of a claim, ready to be matched.
#[derive(Debug)]
pub struct Request {
    pub claim: usize,
    pub alternatives: Vec<Alternative>,
    /// The extended resource that it stands for: nodes that have that resource themselves are not searched for it.
    pub instead_of: Option<Box<str>>,
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
    pub capacity: Wanted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    request: usize,
    alternative: usize,
    /// Index of the offer.
    offer: usize,
}

/// A device for a request.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub request: usize,
    pub alternative: usize,
    /// Index of the offer.
    pub offer: usize,
    /// What it takes of a device that several may have.
    pub share: Option<Amounts>,
}

/// The pod's requests in order, and the constraints of each claim.
#[derive(Debug, Default)]
pub struct Wishes {
    pub requests: Vec<Request>,
    pub constraints: Vec<Box<[DeviceConstraint]>>,
}

impl Wishes {
    /// `None`: not on this node. `skip`: requests that the node meets in another way. Errors are those of expressions.
    pub fn search(
        &self,
        offers: &[Offer<'_>],
        held: &Held,
        skip: impl Fn(&Request) -> bool,
    ) -> Result<Option<Vec<Chosen>>, String> {
        let mut fits = Vec::new();
        for request in &self.requests {
            let each: Result<Vec<_>, String> = match skip(request) {
                true => Ok(Vec::new()),
                false => request.alternatives.iter().map(|a| a.fitting(offers)).collect(),
            };
            fits.push(each?);
        }
        let ids: Vec<_> = offers.iter().map(Offer::id).collect();
        let taken = ids.iter().map(|id| held.whole(id)).collect();
        let shares = ids.iter().map(|id| held.share(id)).collect();
        let mut search = Search { wishes: self, offers, fits, taken, shares, chosen: Vec::new(), steps: 0 };
        if !search.request(0) {
            return Ok(None);
        }
        let chosen = search.chosen.into_iter().map(|(c, share)| Chosen {
            request: c.request,
            alternative: c.alternative,
            offer: c.offer,
            share,
        });
        Ok(Some(chosen.collect()))
    }
}

impl Alternative {
    fn fitting(&self, offers: &[Offer<'_>]) -> Result<Vec<usize>, String> {
        let mut fitting = Vec::new();
        for (at, offer) in offers.iter().enumerate() {
            let strict = |t: &&Taint| ["NoSchedule", "NoExecute"].contains(&&*t.effect);
            let tolerated = |t: &Taint| self.tolerations.iter().any(|x| x.tolerates(t));
            let mut chosen = offer.device.taints.iter().filter(strict).all(tolerated);
            chosen = chosen && capacity::taken(&offer.slice.driver, offer.device, &self.capacity).is_some();
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
    /// Offers that fit, by request and alternative; nothing at all for a request that is skipped.
    fits: Vec<Vec<Vec<usize>>>,
    /// Devices that somebody has for itself.
    taken: Vec<bool>,
    /// What others have of shared devices.
    shares: Vec<Option<&'a Amounts>>,
    chosen: Vec<(Choice, Option<Amounts>)>,
    steps: usize,
}

impl Search<'_> {
    fn request(&mut self, request: usize) -> bool {
        let Some(wanted) = self.wishes.requests.get(request) else { return true };
        if self.fits[request].is_empty() {
            return self.request(request + 1);
        }
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
                // A shared device may be given twice to one request.
                let next = if self.offers[offer].device.allow_multiple_allocations { at } else { at + 1 };
                if self.pick(request, alternative, left - 1, next) {
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
        let of_claim = |c: &&(Choice, Option<Amounts>)| self.wishes.requests[c.0.request].claim == claim;
        if self.steps > STEPS_MAX
            || self.chosen.iter().filter(of_claim).count() >= DEVICES_MAX
            || !self.wishes.constraints[claim].iter().all(|c| self.keeps(c, claim, choice))
        {
            return false;
        }
        let share = if self.wishes.is_admin(choice) {
            if self.chosen.iter().any(|(c, _)| c.request == choice.request && c.offer == choice.offer) {
                return false;
            }
            None
        } else {
            if self.taken[choice.offer] || !self.has_counters(choice) {
                return false;
            }
            match self.share(choice) {
                Some(share) => share,
                None => return false,
            }
        };
        if share.is_none() && !self.wishes.is_admin(choice) {
            self.taken[choice.offer] = true;
        }
        self.chosen.push((choice, share));
        true
    }

    /// What this choice takes of a shared device, nothing of another; `None`: so much is not left.
    fn share(&self, choice: Choice) -> Option<Option<Amounts>> {
        let offer = &self.offers[choice.offer];
        let others = self.shares[choice.offer];
        if !offer.device.allow_multiple_allocations {
            return others.is_none().then_some(None);
        }
        let alternative = &self.wishes.requests[choice.request].alternatives[choice.alternative];
        let amounts = capacity::taken(&offer.slice.driver, offer.device, &alternative.capacity)?;
        let here = || self.chosen.iter().filter(|(c, _)| c.offer == choice.offer).filter_map(|(_, s)| s.as_ref());
        let enough = amounts.iter().all(|(name, amount)| {
            let all: Option<Quantity> = offer.device.capacity.get(name).and_then(|c| c.value.parse().ok());
            let taken = others.into_iter().chain(here()).filter_map(|a| a.get(name));
            let sum = taken.fold(*amount, |sum, a| sum.plus(*a));
            all.is_some_and(|all| sum <= all)
        });
        enough.then_some(Some(amounts))
    }

    /// Whether the pool has enough left of what the device shares with others. A shared device takes it once.
    fn has_counters(&self, choice: Choice) -> bool {
        let offer = &self.offers[choice.offer];
        if offer.device.consumes_counters.is_empty() || self.shares[choice.offer].is_some() || self.is_chosen(choice.offer) {
            return true;
        }
        let Some(left) = offer.left else { return false };
        let taking = self.chosen.iter().map(|(c, _)| *c).filter(|c| !self.wishes.is_admin(*c));
        let mut others: Vec<usize> = taking.map(|c| c.offer).collect();
        others.sort_unstable();
        others.dedup();
        others.retain(|o| self.shares[*o].is_none() && self.offers[*o].same_pool(offer));
        consumption(offer.device).all(|(counter, amount)| {
            let same = others.iter().flat_map(|o| consumption(self.offers[*o].device)).filter(|(c, _)| *c == counter);
            let sum = same.fold(amount, |sum, (_, a)| sum.plus(a));
            left.get(&counter).is_some_and(|value| sum <= *value)
        })
    }

    fn is_chosen(&self, offer: usize) -> bool {
        self.chosen.iter().any(|(c, _)| c.offer == offer && !self.wishes.is_admin(*c))
    }

    fn undo(&mut self, to: usize) {
        for (choice, share) in self.chosen.drain(to..) {
            if share.is_none() && !self.wishes.is_admin(choice) {
                self.taken[choice.offer] = false;
            }
        }
    }

    fn keeps(&self, constraint: &DeviceConstraint, claim: usize, choice: Choice) -> bool {
        let concerns = |c: Choice| self.wishes.concerns(constraint, claim, c);
        if !concerns(choice) {
            return true;
        }
        let others = || self.chosen.iter().map(|(c, _)| *c).filter(|c| concerns(*c));
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
