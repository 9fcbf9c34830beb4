//! What this process has seen of each owner, so that no later read of the process shows less.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{UserId, store::Revision};

/// The newest revision that was seen of each owner, for a limited number of owners.
///
/// An owner is settled if everything that this process has shown or written of the owner is contained in each state of
/// the owner with at least the seen revision. Reads of owners who are not settled go to the primary, and settle the
/// owner. An owner who is forgotten, because there are too many, is not settled; so nothing has to be remembered of
/// that owner.
#[derive(Debug)]
pub(super) struct Bounds {
    state: Mutex<State>,
    max_owners: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Increases with each event that a read which began before must not settle.
    turn: u64,
    /// The owners who were used last.
    young: HashMap<UserId, Bound>,
    /// The owners who are forgotten next.
    old: HashMap<UserId, Bound>,
}

#[derive(Clone, Copy, Debug)]
struct Bound {
    seen: Revision,
    /// A read of the primary that began later knows all that this process has written.
    since: u64,
    is_settled: bool,
}

/// When a read of the primary began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn(u64);

impl State {
    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    /// The bound of an owner, who is used last from now on.
    fn bound(&mut self, owner: &UserId, max_owners: usize) -> Option<&mut Bound> {
        if let Some((owner, bound)) = self.old.remove_entry(owner) {
            self.insert(owner, bound, max_owners);
        }
        self.young.get_mut(owner)
    }

    fn insert(&mut self, owner: UserId, bound: Bound, max_owners: usize) {
        if self.young.len() >= max_owners.div_ceil(2) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(owner, bound);
    }
}

impl Bounds {
    pub(super) fn new(max_owners: usize) -> Self {
        Self { state: Mutex::default(), max_owners: max_owners.max(1) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a replica may be asked about this owner.
    pub(super) fn is_settled(&self, owner: &UserId) -> bool {
        self.state().bound(owner, self.max_owners).is_some_and(|bound| bound.is_settled)
    }

    /// Notes what a replica has returned. Returns whether it shows everything that was seen of the owner; if not, it
    /// must not be shown.
    pub(super) fn accept(&self, owner: &UserId, revision: Revision) -> bool {
        match self.state().bound(owner, self.max_owners) {
            Some(bound) if bound.is_settled && revision >= bound.seen => {
                bound.seen = revision;
                true
            }
            _ => false,
        }
    }

    /// Begins a read of the primary.
    pub(super) fn begin(&self, owner: &UserId) -> Turn {
        let mut state = self.state();
        if state.bound(owner, self.max_owners).is_none() {
            // What was known of the owner may have been forgotten while other reads were under way.
            let bound = Bound { seen: Revision::default(), since: state.next_turn(), is_settled: false };
            state.insert(owner.clone(), bound, self.max_owners);
        }
        Turn(state.turn)
    }

    /// Notes the revision that a read of the primary has returned.
    ///
    /// An owner without a revision may have been erased. A replica that does not know that shows a revision that may be
    /// greater than all that this process has seen, so the owner is not settled before there is a new revision, which is
    /// greater than all former ones.
    pub(super) fn settle(&self, owner: &UserId, began: Turn, revision: Revision) {
        let mut state = self.state();
        let turn = state.next_turn();
        let Some(bound) = state.bound(owner, self.max_owners) else { return };
        if revision == Revision::default() {
            bound.since = turn;
            bound.is_settled = false;
        } else {
            bound.seen = bound.seen.max(revision);
            bound.is_settled |= bound.since <= began.0;
        }
    }

    /// Lets the next read of this owner go to the primary: after a write, whose revision is not known.
    pub(super) fn unsettle(&self, owner: &UserId) {
        let mut state = self.state();
        let turn = state.next_turn();
        if let Some(bound) = state.bound(owner, self.max_owners) {
            bound.since = turn;
            bound.is_settled = false;
        }
    }

    /// The number of owners of whom something is known.
    #[cfg(test)]
    fn len(&self) -> usize {
        let state = self.state();
        state.young.len() + state.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize) -> UserId {
        UserId::new(format!("user {number}")).expect("a user")
    }

    fn read_primary(bounds: &Bounds, owner: &UserId, revision: i64) {
        let began = bounds.begin(owner);
        bounds.settle(owner, began, Revision::new(revision));
    }

    #[test]
    fn a_replica_must_show_what_was_seen() {
        let (bounds, ann) = (Bounds::new(10), user(1));
        assert!(!bounds.is_settled(&ann));
        assert!(!bounds.accept(&ann, Revision::new(9)), "nothing is known of this owner");
        read_primary(&bounds, &ann, 5);
        assert!(bounds.is_settled(&ann));
        assert!(!bounds.accept(&ann, Revision::new(4)));
        assert!(bounds.accept(&ann, Revision::new(5)) && bounds.accept(&ann, Revision::new(8)));
        assert!(!bounds.accept(&ann, Revision::new(7)), "another replica has shown more");
        read_primary(&bounds, &ann, 6);
        assert!(!bounds.accept(&ann, Revision::new(7)), "the primary has lost changes");
    }

    #[test]
    fn after_a_write_a_read_that_began_before_settles_nothing() {
        let (bounds, ann) = (Bounds::new(10), user(1));
        read_primary(&bounds, &ann, 5);
        let began = bounds.begin(&ann);
        bounds.unsettle(&ann);
        bounds.settle(&ann, began, Revision::new(6));
        assert!(!bounds.accept(&ann, Revision::new(9)));
        read_primary(&bounds, &ann, 7);
        assert!(!bounds.accept(&ann, Revision::new(6)));
        assert!(bounds.accept(&ann, Revision::new(7)));
    }

    #[test]
    fn an_owner_without_a_revision_is_never_settled() {
        let (bounds, ann) = (Bounds::new(10), user(1));
        read_primary(&bounds, &ann, 5);
        // An erasure by another server, seen by one read while another was under way.
        let began = bounds.begin(&ann);
        read_primary(&bounds, &ann, 0);
        bounds.settle(&ann, began, Revision::new(8));
        assert!(!bounds.accept(&ann, Revision::new(9)));
        read_primary(&bounds, &ann, 10);
        assert!(!bounds.accept(&ann, Revision::new(9)) && bounds.accept(&ann, Revision::new(10)));
    }

    #[test]
    fn an_owner_who_was_forgotten_is_not_settled_by_a_read_that_began_before() {
        let (bounds, ann) = (Bounds::new(4), user(0));
        let began = bounds.begin(&ann);
        for number in 1..10 {
            read_primary(&bounds, &user(number), 1);
        }
        // A write of an owner of whom nothing is known.
        bounds.unsettle(&ann);
        bounds.settle(&ann, began, Revision::new(5));
        assert!(!bounds.is_settled(&ann));
        let later = bounds.begin(&ann);
        bounds.settle(&ann, began, Revision::new(5));
        assert!(!bounds.is_settled(&ann));
        bounds.settle(&ann, later, Revision::new(6));
        assert!(bounds.accept(&ann, Revision::new(6)));
    }

    #[test]
    fn the_owners_who_were_used_last_are_known() {
        let bounds = Bounds::new(100);
        for number in 0..10_000 {
            read_primary(&bounds, &user(number), 1);
            assert!(bounds.accept(&user(number.saturating_sub(15)), Revision::new(1)), "{number}");
            assert!(bounds.accept(&user(0), Revision::new(1)), "{number}");
            assert!(bounds.len() <= 100, "{}", bounds.len());
        }
    }
}
