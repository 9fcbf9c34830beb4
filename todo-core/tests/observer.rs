//! Tests what a service reports to its observer.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use todo_core::{
    Description, Error, Limit, NewTask, Page, Patch, Position, Summary, Task, TaskEvent, TaskFilter, TaskId, TaskPatch,
    TaskQuery, TaskReplacement, Title, TodoService, UserId,
    clock::{Clock as _, FixedClock, Timestamp},
    store::{
        BulkResult, Changes, Creation, Insertion, MemoryStore, Outcome, Precondition, Read, Revision, SqliteStore,
        StoreError, SyncPoint, TaskChange, TaskStore, Transfer,
    },
};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn title(text: &str) -> Title {
    Title::new(text).unwrap()
}

/// A service whose clock goes on by a second with each call of [`Observed::tick`], and what it reports.
struct Observed {
    service: TodoService,
    events: Receiver<TaskEvent>,
    clock: Arc<FixedClock>,
}

impl Observed {
    fn new(store: impl TaskStore + 'static) -> Self {
        let clock = Arc::new(FixedClock::at(Timestamp::from_unix_seconds(1_750_000_000)));
        let (sender, events) = channel();
        let service = TodoService::new(store).with_clock(clock.clone());
        let service = service.with_observer(move |event| sender.send(event).unwrap());
        Self { service, events, clock }
    }

    fn tick(&self) {
        self.clock.set(self.clock.now().plus(Duration::from_secs(1)));
    }

    /// What was reported since the last call, as short texts: the kind and the owner.
    fn reported(&self) -> Vec<String> {
        let kind = |event: &TaskEvent| match event {
            TaskEvent::Created { tasks, .. } => format!("created {}", tasks.len()),
            TaskEvent::Changed { task, .. } => format!("changed to version {}", task.version),
            TaskEvent::Completed { task, .. } => format!("completed in version {}", task.version),
            TaskEvent::Deleted { .. } => "deleted".to_owned(),
            TaskEvent::Erased { count, .. } => format!("erased {count}"),
            TaskEvent::Transferred { to, count, .. } => format!("transferred {count} to {to}"),
            other => format!("{other:?}"),
        };
        self.events.try_iter().map(|event| format!("{}: {}", event.owner(), kind(&event))).collect()
    }
}

#[tokio::test]
async fn each_change_is_reported_once_with_its_owner_and_task() {
    let observed = Observed::new(MemoryStore::new());
    let tasks = observed.service.for_user(user("ann"));
    let created = tasks.create(NewTask::new(title("Buy milk"))).await.unwrap();
    let Ok(TaskEvent::Created { owner, tasks: reported, .. }) = observed.events.try_recv() else {
        panic!("not created")
    };
    assert_eq!((owner.as_str(), reported), ("ann", vec![created.clone()]));

    observed.tick();
    let patch = TaskPatch { title: Some(title("Buy bread")), ..TaskPatch::default() };
    let changed = tasks.patch(created.id, patch).await.unwrap();
    let Ok(TaskEvent::Changed { owner, task, .. }) = observed.events.try_recv() else { panic!("not changed") };
    assert_eq!((owner.as_str(), task), ("ann", changed));

    observed.tick();
    let done = tasks.toggle(created.id).await.unwrap();
    let Ok(TaskEvent::Completed { task, .. }) = observed.events.try_recv() else { panic!("not completed") };
    assert_eq!(task, done);

    tasks.delete(created.id).await.unwrap();
    let Ok(TaskEvent::Deleted { owner, id, .. }) = observed.events.try_recv() else { panic!("not deleted") };
    assert_eq!((owner.as_str(), id), ("ann", created.id));

    // Reads are not reported.
    tasks.list(&TaskQuery::default()).await.unwrap();
    assert!(tasks.get(created.id).await.is_err());
    assert_eq!(observed.reported(), [""; 0]);
}

#[tokio::test]
async fn completions_are_told_from_other_changes() {
    let observed = Observed::new(MemoryStore::new());
    let tasks = observed.service.for_user(user("ann"));
    let id = tasks.create(NewTask::new(title("Buy milk"))).await.unwrap().id;
    let put = |text: &str, completed| TaskReplacement { completed, ..TaskReplacement::new(title(text)) };
    let patch = |text: Option<&str>, completed| TaskPatch { title: text.map(title), completed, ..TaskPatch::default() };
    observed.reported();

    observed.tick();
    tasks.set_completed(id, true).await.unwrap();
    observed.tick();
    tasks.replace(id, put("Buy bread", Some(true))).await.unwrap();
    observed.tick();
    tasks.patch(id, patch(Some("Buy rye"), Some(true))).await.unwrap();
    observed.tick();
    tasks.toggle(id).await.unwrap();
    observed.tick();
    tasks.patch(id, patch(Some("Buy milk"), Some(true))).await.unwrap();
    observed.tick();
    tasks.replace(id, put("Buy milk", Some(false))).await.unwrap();
    observed.tick();
    tasks.replace(id, put("Buy milk", Some(true))).await.unwrap();
    observed.tick();
    tasks.patch(id, patch(Some("Buy oats"), None)).await.unwrap();
    assert_eq!(
        observed.reported(),
        [
            "ann: completed in version 2",
            "ann: changed to version 3",
            "ann: changed to version 4",
            "ann: changed to version 5",
            "ann: completed in version 6",
            "ann: changed to version 7",
            "ann: completed in version 8",
            "ann: changed to version 9",
        ]
    );
}

#[tokio::test]
async fn a_call_that_changes_nothing_is_not_reported() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = SqliteStore::open_lazy(directory.path().join("tasks.db"));
    sqlite.migrate().await.unwrap();
    for observed in [Observed::new(MemoryStore::new()), Observed::new(sqlite)] {
        let (ann, bob) = (observed.service.for_user(user("ann")), observed.service.for_user(user("bob")));
        let id = ann.create(NewTask { completed: true, ..NewTask::new(title("Buy milk")) }).await.unwrap().id;
        assert_eq!(observed.reported(), ["ann: created 1"]);
        observed.tick();
        ann.set_completed(id, true).await.unwrap();
        let same = TaskReplacement { completed: Some(true), ..TaskReplacement::new(title("Buy milk")) };
        ann.replace(id, same).await.unwrap();
        ann.patch(id, TaskPatch::default()).await.unwrap();
        ann.patch(id, TaskPatch { description: Patch::Clear, ..TaskPatch::default() }).await.unwrap();
        assert!(matches!(bob.toggle(id).await, Err(Error::TaskNotFound)));
        assert!(matches!(bob.delete(id).await, Err(Error::TaskNotFound)));
        assert_eq!(bob.erase().await.unwrap(), 0);
        bob.transfer_to(&user("ann")).await.unwrap();
        ann.transfer_to(&user("ann")).await.unwrap();
        assert_eq!(observed.reported(), [""; 0]);
        // And a change is reported.
        let text = Patch::Set(Description::new("Two bottles").unwrap());
        ann.patch(id, TaskPatch { description: text, ..TaskPatch::default() }).await.unwrap();
        assert_eq!(observed.reported(), ["ann: changed to version 2"]);
    }
}

#[tokio::test]
async fn a_change_of_many_tasks_is_one_event() {
    let observed = Observed::new(MemoryStore::new());
    let guest = observed.service.for_user(user("guest"));
    for _ in 0..3 {
        guest.create(NewTask::new(title("Buy milk"))).await.unwrap();
    }
    observed.reported();
    guest.transfer_to(&user("ann")).await.unwrap();
    observed.service.for_user(user("ann")).erase().await.unwrap();
    assert_eq!(observed.reported(), ["guest: transferred 3 to ann", "ann: erased 3"]);
}

#[tokio::test]
async fn changes_in_a_transaction_are_reported_when_the_host_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::open_lazy(&path);
    store.migrate().await.unwrap();
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let observed = Observed::new(store.clone());
    for commits in [false, true] {
        let transaction = pool.begin_with("begin immediate").await.unwrap();
        let joined = store.in_transaction(transaction).await.unwrap();
        let (sender, events) = channel();
        let tasks = observed.service.with_store(joined.clone());
        tasks.for_user(user("ann")).create(NewTask::new(title("Unobserved"))).await.unwrap();
        let tasks = tasks.with_observer(move |event| sender.send(event).unwrap());
        tasks.for_user(user("ann")).create(NewTask::new(title("Buy milk"))).await.unwrap();
        assert_eq!(observed.reported(), [""; 0], "nothing is reported before the commit");
        let transaction = joined.take().await.unwrap();
        if commits {
            transaction.commit().await.unwrap();
            for event in events.try_iter() {
                observed.service.observe(event);
            }
        } else {
            transaction.rollback().await.unwrap();
        }
        assert_eq!(observed.reported(), ["ann: created 1"][..usize::from(commits)]);
    }
    // Without an observer, nothing happens.
    TodoService::new(store).observe(created());
}

fn created() -> TaskEvent {
    let observed = Observed::new(MemoryStore::new());
    let create = async { observed.service.for_user(user("ann")).create(NewTask::new(title("Buy milk"))).await };
    create.now_or_never().unwrap().unwrap();
    observed.events.recv().unwrap()
}

#[tokio::test]
async fn a_panic_of_the_observer_is_the_callers_and_ends_no_other_call() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let service = TodoService::new(MemoryStore::new()).with_observer(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        panic!("the observer's own");
    });
    let tasks = service.for_user(user("ann"));
    // More often than a user may have calls at once, so that a slot that stays in use would be noticed.
    for number in 1..=10 {
        let create = AssertUnwindSafe(tasks.create(NewTask::new(title("Buy milk"))));
        assert!(create.catch_unwind().await.is_err());
        assert_eq!(calls.load(Ordering::Relaxed), number);
        assert_eq!(tasks.list(&TaskQuery::default()).await.unwrap().tasks.len(), number, "the task was created");
    }
}

/// A call about many tasks is one event.
#[tokio::test]
async fn a_call_about_many_tasks_is_one_event() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let events = seen.clone();
    let service = TodoService::new(MemoryStore::new()).with_observer(move |event| events.lock().unwrap().push(event));
    let ann = service.for_user(user("ann"));
    let new = |text: &str| NewTask::new(title(text));
    let tasks = ann.create_all(vec![new("One"), new("Two"), new("Three")]).await.unwrap();
    assert!(ann.create_all(Vec::new()).await.unwrap().is_empty());
    let (all, done) = (TaskFilter::new(), TaskPatch { completed: Some(true), ..TaskPatch::default() });
    assert_eq!(ann.patch_matching(&all, done.clone()).await.unwrap().changed, 3);
    assert_eq!(ann.patch_matching(&all, done).await.unwrap().changed, 0);
    ann.move_to(tasks[2].id, todo_core::Place::First).await.unwrap();
    assert_eq!(ann.delete_matching(&all).await.unwrap(), 3);
    assert_eq!(ann.delete_matching(&all).await.unwrap(), 0);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let [
        TaskEvent::Created { tasks: created, .. },
        TaskEvent::ManyChanged { count: 3, .. },
        TaskEvent::Changed { task: moved, .. },
        TaskEvent::ManyDeleted { count: 3, .. },
    ] = &*seen
    else {
        panic!("{seen:?}");
    };
    assert_eq!((created, moved.id), (&tasks, tasks[2].id));
    assert!(seen.iter().all(|event| *event.owner() == user("ann")));
}

/// A store whose writes fail, some of them after they were made.
#[derive(Debug)]
struct Interrupted(MemoryStore);

#[async_trait]
impl TaskStore for Interrupted {
    async fn insert(&self, owner: &UserId, tasks: &[Task], creation: &Creation) -> Result<Insertion, StoreError> {
        if tasks.len() > 1 {
            return Err(StoreError::Backend("broken".into()));
        }
        self.0.insert(owner, tasks, creation).await?;
        Err(StoreError::Interrupted("the connection was lost".into()))
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.0.get(owner, id).await
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery, known: Option<Revision>) -> Result<Read<Page>, StoreError> {
        self.0.list(owner, query, known).await
    }

    async fn count(&self, _: &UserId, _: &TaskFilter, _: Option<Revision>) -> Result<Read<u64>, StoreError> {
        Err(StoreError::Backend("broken".into()))
    }

    async fn summary(&self, _: &UserId, _: Option<Revision>) -> Result<Read<Summary>, StoreError> {
        Err(StoreError::Backend("broken".into()))
    }

    async fn update(
        &self,
        _: &UserId,
        _: TaskId,
        _: &TaskChange,
        _: &Precondition,
        _: Timestamp,
    ) -> Result<Outcome<Task>, StoreError> {
        Err(StoreError::Unavailable("no connection".into()))
    }

    async fn update_matching(
        &self,
        _: &UserId,
        _: &TaskFilter,
        _: &TaskChange,
        _: Timestamp,
    ) -> Result<BulkResult, StoreError> {
        Err(StoreError::Backend("broken".into()))
    }

    async fn reposition(
        &self,
        _: &UserId,
        _: &[(TaskId, Position)],
        _: (TaskId, i64),
        _: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        Err(StoreError::Backend("broken".into()))
    }

    async fn delete(&self, _: &UserId, _: TaskId, _: &Precondition) -> Result<Outcome<()>, StoreError> {
        Err(StoreError::Timeout("too slow".into()))
    }

    async fn delete_matching(&self, _: &UserId, _: &TaskFilter) -> Result<u64, StoreError> {
        Err(StoreError::Backend("broken".into()))
    }

    async fn erase(&self, _: &UserId) -> Result<u64, StoreError> {
        Err(StoreError::Backend("broken".into()))
    }

    async fn transfer(&self, _: &UserId, _: &UserId) -> Result<Transfer, StoreError> {
        Err(StoreError::Backend("broken".into()))
    }

    async fn changes(&self, _: &UserId, _: Option<SyncPoint>, _: Limit) -> Result<Option<Changes>, StoreError> {
        Err(StoreError::Backend("broken".into()))
    }

    async fn revisions(&self, _: &[UserId]) -> Result<Vec<Revision>, StoreError> {
        Err(StoreError::Backend("broken".into()))
    }

    async fn purge(&self, _: &UserId, _: Timestamp, _: Limit) -> Result<u64, StoreError> {
        Err(StoreError::Backend("broken".into()))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.ping().await
    }
}

#[tokio::test]
async fn a_call_that_fails_is_not_reported() {
    let observed = Observed::new(Interrupted(MemoryStore::new()));
    let ann = observed.service.for_user(user("ann"));
    assert!(ann.create(NewTask::new(title("Buy milk"))).await.is_err());
    let id = ann.list(&TaskQuery::default()).await.unwrap().tasks[0].id;
    assert!(ann.toggle(id).await.is_err());
    assert!(ann.delete(id).await.is_err());
    assert!(ann.erase().await.is_err());
    assert!(ann.create_all(vec![NewTask::new(title("Buy milk"))]).await.is_err());
    let all = TaskFilter::new();
    assert!(ann.patch_matching(&all, TaskPatch { completed: Some(true), ..TaskPatch::default() }).await.is_err());
    assert!(ann.delete_matching(&all).await.is_err());
    assert!(ann.transfer_to(&user("bob")).await.is_err());
    assert_eq!(observed.reported(), [""; 0]);
}
