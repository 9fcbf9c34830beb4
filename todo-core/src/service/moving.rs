use tracing::Instrument as _;

use super::user_tasks::{ATTEMPTS, UserTasks, changes_all_the_time, value};
use crate::{
    Error, InvalidValue, Limit, Position, Sort, Task, TaskId, TaskQuery, store::StoreError, user_limits::Access,
};

/// Where to move a task in the manual order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Right before this task.
    Before(TaskId),
    /// Right after this task.
    After(TaskId),
    /// Before all other tasks.
    First,
    /// After all other tasks.
    Last,
}

/// Positions longer than this are avoided, so that the limit of [`Position::MAX_CHARS`] is never reached.
const LONG_POSITION: usize = 80;

/// The positions to set so that a task comes between `before` and `after`, which are both in the order of their
/// distance. Neighbours are spaced anew only if there is no room between the closest. `None` if there is none in what
/// is known; `known` is the number of neighbours that was asked for on each side.
fn spaced(task: &Task, before: &[Task], after: &[Task], known: usize) -> Option<Vec<(TaskId, Position)>> {
    let is_in_place = |low: Option<&Task>, high: Option<&Task>| {
        let key = |task: &Task| (task.position.clone(), task.id);
        low.is_none_or(|low| key(low) < key(task)) && high.is_none_or(|high| key(task) < key(high))
    };
    if is_in_place(before.first(), after.first()) {
        return Some(Vec::new());
    }
    for moved in 0..=before.len() + after.len() {
        for back in moved.saturating_sub(after.len())..=moved.min(before.len()) {
            let forth = moved - back;
            // The end of the list, or of what is known of it.
            let is_unknown = |side: &[Task], count: usize| count == side.len() && side.len() + 1 >= known && count > 0;
            if is_unknown(before, back) || is_unknown(after, forth) {
                continue;
            }
            let (low, high) = (before.get(back), after.get(forth));
            let positions =
                Position::many_between(low.map(|task| &task.position), high.map(|task| &task.position), moved + 1);
            let Some(positions) = positions else { continue };
            if positions.iter().any(|position| position.as_str().len() > LONG_POSITION) {
                continue;
            }
            let ids = before[..back].iter().rev().map(|task| task.id);
            let ids = ids.chain([task.id]).chain(after[..forth].iter().map(|task| task.id));
            return Some(ids.zip(positions).collect());
        }
    }
    None
}

impl UserTasks<'_> {
    /// Moves a task to another place in the manual order ([`Sort::Position`]).
    ///
    /// The task gets a position between those of its new neighbours. Where there is no room between them, the fewest
    /// neighbours get new positions too, each as a change of its own.
    ///
    /// # Errors
    ///
    /// [`Error::TaskNotFound`]; [`Error::InvalidField`] `before` or `after`: this user has no such task, or it is the
    /// task itself.
    pub async fn move_to(&self, id: TaskId, place: Place) -> Result<Task, Error> {
        let _slot = self.slot(Access::Write(id)).await?;
        for _ in 0..ATTEMPTS {
            if let Some(task) = self.try_to_move(id, place).await? {
                return Ok(task);
            }
        }
        Err(changes_all_the_time())
    }

    /// Moves a task. `None` if another call has changed it meanwhile.
    async fn try_to_move(&self, id: TaskId, place: Place) -> Result<Option<Task>, Error> {
        let store = self.service.store();
        let task = self.current(id).await?;
        let neighbours = async |sort: Sort, after: Option<&Task>, count: usize| {
            let limit = u16::try_from(count).unwrap_or(Limit::MAX).min(Limit::MAX);
            let mut query = TaskQuery::new().sort(sort).limit(Limit::new(limit).unwrap_or_default());
            query.cursor = after.map(|task| query.cursor_after(task));
            let mut found = Vec::new();
            loop {
                let page = value(traced!("list", store.list(&self.owner, &query, None))?);
                found.extend(page.tasks.into_iter().filter(|task| task.id != id));
                query.cursor = page.next;
                if query.cursor.is_none() || found.len() >= count {
                    return Ok::<_, Error>(found);
                }
            }
        };
        let anchor = async |field: &'static str, anchor: TaskId| {
            let wrong = Error::InvalidField { field, reason: InvalidValue::NotOtherTask };
            if anchor == id {
                return Err(wrong);
            }
            traced!("get", store.get(&self.owner, anchor))?.ok_or(wrong)
        };
        // One more than is needed, since the task itself may be among them.
        let mut window = 2;
        loop {
            let (before, after) = match place {
                Place::First => (Vec::new(), neighbours(Sort::Position, None, window).await?),
                Place::Last => (neighbours(Sort::PositionDescending, None, window).await?, Vec::new()),
                Place::Before(other) => {
                    let other = anchor("before", other).await?;
                    let before = neighbours(Sort::PositionDescending, Some(&other), window).await?;
                    let mut after = vec![other];
                    after.extend(neighbours(Sort::Position, after.first(), window).await?);
                    (before, after)
                }
                Place::After(other) => {
                    let other = anchor("after", other).await?;
                    let after = neighbours(Sort::Position, Some(&other), window).await?;
                    let mut before = vec![other];
                    before.extend(neighbours(Sort::PositionDescending, before.first(), window).await?);
                    (before, after)
                }
            };
            let Some(positions) = spaced(&task, &before, &after, window) else {
                // With all tasks of the user there is always room, unless others change them all the time.
                if before.len().max(after.len()) + 1 < window {
                    return Err(StoreError::Unavailable("there is no room for the task at this place".into()).into());
                }
                window *= 4;
                continue;
            };
            if positions.is_empty() {
                return Ok(Some(task));
            }
            let now = self.service.clock.now();
            let condition = (id, task.version);
            let _changing = self.service.listeners.after_change(&self.owner);
            let moved = traced!("reposition", store.reposition(&self.owner, &positions, condition, now));
            let moved = self.service.writes.note(moved, |moved| !moved.is_empty())?;
            for moved in &moved {
                self.report_change(moved, false, now);
            }
            return Ok(moved.into_iter().find(|moved| moved.id == id));
        }
    }
}
