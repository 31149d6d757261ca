//! Shuffle sharding: each flow has a hand of a few queues, so that one loud flow spoils only a few of another's.
//!
//! In: the hash of a flow. Out: different queues. Source: KEP-1040, "Shuffle sharding". Never: chance.

/// `hand` different numbers below `queues`, the same for the same hash.
pub fn deal(hash: u64, queues: u32, hand: u32) -> Vec<u32> {
    let mut rest = hash;
    let mut dealt: Vec<u32> = Vec::with_capacity(hand as usize);
    for at in 0..hand.min(queues) {
        let cards = u64::from(queues - at);
        let mut card = (rest % cards) as u32;
        rest /= cards;
        // The card counts among those that are still in the deck.
        let mut before = dealt.clone();
        before.sort_unstable();
        for taken in before {
            card += u32::from(card >= taken);
        }
        dealt.push(card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_are_of_different_queues() {
        for hash in (0..2000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let mut hand = deal(hash, 16, 6);
            hand.sort_unstable();
            hand.dedup();
            assert_eq!(hand.len(), 6, "{hash}");
            assert!(hand.iter().all(|card| *card < 16));
        }
        assert_eq!(deal(7, 2, 6).len(), 2);
    }

    #[test]
    fn every_queue_is_dealt() {
        let mut counts = [0; 16];
        for hash in (0..4000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            deal(hash, 16, 2).into_iter().for_each(|card| counts[card as usize] += 1);
        }
        assert!(counts.iter().all(|count| (300..700).contains(count)), "{counts:?}");
    }
}
