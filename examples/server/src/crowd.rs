//! How many connections there are, and how many there may be.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All open connections. Clones are the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Crowd(Arc<Connections>);

#[derive(Debug)]
struct Connections {
    limit: usize,
    open: AtomicUsize,
    places: Arc<Semaphore>,
}

impl Crowd {
    pub(crate) fn of_at_most(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Connections { limit, open: AtomicUsize::new(0), places: Arc::new(Semaphore::new(limit)) }))
    }

    /// A place for another connection, as soon as there is one.
    pub(crate) async fn place(&self) -> Place {
        match Arc::clone(&self.0.places).acquire_owned().await {
            Ok(place) => Place(place),
            Err(_) => unreachable!("nobody closes it"),
        }
    }

    /// A place for another connection, if there is one now.
    pub(crate) fn place_now(&self) -> Option<Place> {
        Arc::clone(&self.0.places).try_acquire_owned().ok().map(Place)
    }

    pub(crate) fn limit(&self) -> usize {
        self.0.limit
    }

    pub(crate) fn open(&self) -> usize {
        self.0.open.load(Relaxed)
    }

    /// Whether so few places are left that whoever only rests should go.
    pub(crate) fn is_tight(&self) -> bool {
        self.open() >= self.0.limit - self.0.limit / 10
    }
}

/// A place that nobody has taken yet.
#[derive(Debug)]
pub(crate) struct Place(OwnedSemaphorePermit);

impl Place {
    /// A connection takes it, until the returned value is dropped.
    pub(crate) fn taken_in(self, crowd: &Crowd) -> Taken {
        crowd.0.open.fetch_add(1, Relaxed);
        Taken { crowd: crowd.clone(), _place: self.0 }
    }
}

/// A place with a connection in it.
#[derive(Debug)]
pub(crate) struct Taken {
    crowd: Crowd,
    _place: OwnedSemaphorePermit,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.crowd.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nine_of_ten_are_a_crowd_and_ten_are_all() {
        let crowd = Crowd::of_at_most(10);
        let mut taken = Vec::new();
        for count in 0..10 {
            assert_eq!((crowd.open(), crowd.is_tight()), (count, count >= 9));
            taken.push(crowd.place().await.taken_in(&crowd));
        }
        assert!(crowd.place_now().is_none());
        let mut next = std::pin::pin!(crowd.place());
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), &mut next).await.is_err());
        taken.pop();
        drop(next.await);
        assert_eq!(crowd.open(), 9);
        let alone = Crowd::of_at_most(1);
        assert!(!alone.is_tight());
        let _only = alone.place().await.taken_in(&alone);
        assert!(alone.is_tight());
    }
}
