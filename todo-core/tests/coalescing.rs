//! Tests [`CoalescingStore`] with a store that records every statement and runs it when the test allows it.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use todo_core::{
    Limit, NewTask, Page, Position, Summary, Task, TaskFilter, TaskId, TaskQuery, Title, TodoService, UserId,
    clock::Timestamp,
    conformance::store::PlainCalls as _,
    store::{
        BatchError, BatchStore, BulkResult, Changes, CoalescingOptions, CoalescingStore, Completion, Creation,
        Insertion, MemoryStore, Outcome, Precondition, Read, Revision, StoreError, SyncPoint, TaskChange, TaskStore,
        Transfer,
    },
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};

mod one_statement_at_a_time {
    use super::*;

    async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
        case(Arc::new(CoalescingStore::with_options(RecordingStore::open(), &narrow()))).await;
    }

    todo_core::store_conformance!(with_store);
}

/// The smallest limits: one read and one write at a time.
fn narrow() -> CoalescingOptions {
    CoalescingOptions::default().concurrent_reads(1).concurrent_writes(1)
}

/// How a batch fails.
enum Fault {
    /// Nothing was applied, and the database says so.
    RolledBack,
    /// The batch was applied, but the result is lost.
    ResultLost,
    /// Each call gets the result of the next call.
    MixedUp,
    /// One result is missing.
    Short,
    Panic,
}

/// Records its statements. Each statement needs a permit before it runs on a [`MemoryStore`].
#[derive(Clone, Debug)]
struct RecordingStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: MemoryStore,
    permits: Semaphore,
    sent: Mutex<Vec<(&'static str, Vec<UserId>)>>,
    faults: Mutex<VecDeque<Fault>>,
    batching: AtomicBool,
    /// Owners whose tasks another transaction has locked.
    locked: watch::Sender<HashSet<UserId>>,
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fault")
    }
}

impl RecordingStore {
    /// Runs every statement at once.
    fn open() -> Self {
        Self::with_permits(Semaphore::MAX_PERMITS)
    }

    /// Runs no statement before [`let_through`](Self::let_through).
    fn closed() -> Self {
        Self::with_permits(0)
    }

    fn with_permits(permits: usize) -> Self {
        Self(Arc::new(Inner {
            memory: MemoryStore::new(),
            permits: Semaphore::new(permits),
            sent: Mutex::default(),
            faults: Mutex::default(),
            batching: AtomicBool::new(true),
            locked: watch::Sender::default(),
        }))
    }

    fn let_through(&self, statements: usize) {
        self.0.permits.add_permits(statements);
    }

    fn fault(&self, fault: Fault) {
        self.0.faults.lock().unwrap().push_back(fault);
    }

    fn lock(&self, name: &str) {
        self.0.locked.send_modify(|locked| assert!(locked.insert(user(name))));
    }

    fn unlock(&self, name: &str) {
        self.0.locked.send_modify(|locked| assert!(locked.remove(&user(name))));
    }

    fn is_locked(&self, owner: &UserId) -> bool {
        self.0.locked.borrow().contains(owner)
    }

    async fn wait_for_lock(&self, owner: &UserId) {
        self.0.locked.subscribe().wait_for(|locked| !locked.contains(owner)).await.unwrap();
    }

    /// The statements so far, each with its owners.
    fn sent(&self) -> Vec<(&'static str, Vec<String>)> {
        let sent = self.0.sent.lock().unwrap();
        sent.iter().map(|(what, owners)| (*what, owners.iter().map(ToString::to_string).collect())).collect()
    }

    fn last(&self) -> (&'static str, Vec<String>) {
        self.sent().pop().unwrap()
    }

    async fn statement(&self, what: &'static str, owners: Vec<&UserId>) {
        self.0.sent.lock().unwrap().push((what, owners.into_iter().cloned().collect()));
        self.0.permits.acquire().await.unwrap().forget();
    }

    async fn batch<T>(
        &self,
        what: &'static str,
        owners: Vec<&UserId>,
        results: impl Future<Output = Vec<T>>,
    ) -> Result<Vec<T>, BatchError> {
        self.statement(what, owners).await;
        let fault = self.0.faults.lock().unwrap().pop_front();
        match fault {
            None => Ok(results.await),
            Some(Fault::RolledBack) => Err(BatchError::RolledBack(StoreError::Backend("a check was violated".into()))),
            Some(Fault::ResultLost) => {
                results.await;
                Err(StoreError::Unavailable("the connection broke".into()).into())
            }
            Some(Fault::MixedUp) => {
                let mut results = results.await;
                results.rotate_left(1);
                Ok(results)
            }
            Some(Fault::Short) => Ok(results.await.split_off(1)),
            Some(Fault::Panic) => panic!("injected"),
        }
    }
}

#[async_trait]
impl TaskStore for RecordingStore {
    async fn insert(&self, owner: &UserId, tasks: &[Task], creation: &Creation) -> Result<Insertion, StoreError> {
        self.statement("insert", vec![owner]).await;
        self.wait_for_lock(owner).await;
        self.0.memory.insert(owner, tasks, creation).await
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.statement("get", vec![owner]).await;
        self.0.memory.get(owner, id).await
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery, known: Option<Revision>) -> Result<Read<Page>, StoreError> {
        self.statement("list", vec![owner]).await;
        self.0.memory.list(owner, query, known).await
    }

    async fn count(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        known: Option<Revision>,
    ) -> Result<Read<u64>, StoreError> {
        self.statement("count", vec![owner]).await;
        self.0.memory.count(owner, filter, known).await
    }

    async fn summary(&self, owner: &UserId, known: Option<Revision>) -> Result<Read<Summary>, StoreError> {
        self.statement("summary", vec![owner]).await;
        self.0.memory.summary(owner, known).await
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<Outcome<Task>, StoreError> {
        self.statement("update", vec![owner]).await;
        self.wait_for_lock(owner).await;
        self.0.memory.update(owner, id, change, precondition, now).await
    }

    async fn update_matching(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<BulkResult, StoreError> {
        self.statement("update_matching", vec![owner]).await;
        self.0.memory.update_matching(owner, filter, change, now).await
    }

    async fn reposition(
        &self,
        owner: &UserId,
        positions: &[(TaskId, Position)],
        moved: (TaskId, i64),
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        self.statement("reposition", vec![owner]).await;
        self.0.memory.reposition(owner, positions, moved, now).await
    }

    async fn delete(&self, owner: &UserId, id: TaskId, precondition: &Precondition) -> Result<Outcome<()>, StoreError> {
        self.statement("delete", vec![owner]).await;
        self.0.memory.delete(owner, id, precondition).await
    }

    async fn delete_matching(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
        self.statement("delete_matching", vec![owner]).await;
        self.0.memory.delete_matching(owner, filter).await
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        self.0.memory.erase(owner).await
    }

    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
        self.0.memory.transfer(owner, to).await
    }

    async fn changes(
        &self,
        owner: &UserId,
        since: Option<SyncPoint>,
        limit: Limit,
    ) -> Result<Option<Changes>, StoreError> {
        self.0.memory.changes(owner, since, limit).await
    }

    async fn revisions(&self, owners: &[UserId]) -> Result<Vec<Revision>, StoreError> {
        self.0.memory.revisions(owners).await
    }

    async fn purge(&self, owner: &UserId, before: Timestamp, limit: Limit) -> Result<u64, StoreError> {
        self.0.memory.purge(owner, before, limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.memory.ping().await
    }
}

/// Runs each call of a batch on the memory store.
macro_rules! each {
    ($self:ident, $what:literal, $calls:ident, $call:pat => $result:expr) => {{
        let owners = $calls.iter().map(|call| call.0).collect();
        let results = async {
            let mut results = Vec::new();
            for $call in $calls {
                results.push($result.await.unwrap());
            }
            results
        };
        $self.batch($what, owners, results).await
    }};
}

#[async_trait]
impl BatchStore for RecordingStore {
    fn is_batching(&self) -> bool {
        self.0.batching.load(Ordering::SeqCst)
    }

    async fn get_many(&self, calls: &[(&UserId, TaskId)]) -> Result<Vec<Option<Task>>, BatchError> {
        each!(self, "get many", calls, (owner, id) => self.0.memory.get(owner, *id))
    }

    async fn list_many(
        &self,
        calls: &[(&UserId, &TaskQuery, Option<Revision>)],
    ) -> Result<Vec<Read<Page>>, BatchError> {
        each!(self, "list many", calls, (owner, query, known) => self.0.memory.list(owner, query, *known))
    }

    async fn insert_many(&self, calls: &[(&UserId, &Task, Option<u64>)]) -> Result<Vec<bool>, BatchError> {
        assert!(calls.is_sorted_by_key(|(owner, task, _)| (*owner, task.id)));
        each!(self, "insert many", calls, (owner, task, max_tasks) => async {
            let creation = Creation { max_tasks: *max_tasks, ..Creation::default() };
            let tasks = std::slice::from_ref(*task);
            let inserted = self.0.memory.insert(owner, tasks, &creation);
            if self.is_locked(owner) { Ok(false) } else { inserted.await.map(|inserted| inserted == Insertion::Done) }
        })
    }

    async fn update_many(
        &self,
        calls: &[(&UserId, TaskId, &TaskChange, Timestamp)],
    ) -> Result<Vec<Option<Task>>, BatchError> {
        assert!(calls.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)), "sorted, without duplicates");
        each!(self, "update many", calls, (owner, id, change, now) => async {
            if self.is_locked(owner) { Ok(None) } else { self.0.memory.change(owner, *id, change, *now).await }
        })
    }

    async fn delete_many(&self, calls: &[(&UserId, TaskId)]) -> Result<Vec<bool>, BatchError> {
        assert!(calls.is_sorted_by(|a, b| a < b), "sorted, without duplicates");
        each!(self, "delete many", calls, (owner, id) => self.0.memory.remove(owner, *id))
    }
}

type Coalescing = CoalescingStore<RecordingStore>;

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A store that runs no statement yet, with one task for each user. All tasks have the same id.
async fn with_tasks(users: &[&str]) -> (Coalescing, TaskId) {
    with_tasks_and_options(users, &narrow()).await
}

async fn with_tasks_and_options(users: &[&str], options: &CoalescingOptions) -> (Coalescing, TaskId) {
    let store = CoalescingStore::with_options(RecordingStore::closed(), options);
    let id = TaskId::from(uuid::Uuid::from_u128(7));
    for name in users {
        let now = Timestamp::from_unix_seconds(1);
        let title = Title::new(format!("Of {name}")).unwrap();
        let task = NewTask::new(title).into_task(user(name), id, now);
        assert!(store.inner().0.memory.add(&user(name), &task).await.unwrap());
    }
    (store, id)
}

fn get(store: &Coalescing, name: &str, id: TaskId) -> JoinHandle<Result<Option<Task>, StoreError>> {
    let (store, owner) = (store.clone(), user(name));
    tokio::spawn(async move { store.get(&owner, id).await })
}

fn toggle(store: &Coalescing, name: &str, id: TaskId) -> JoinHandle<Result<Option<Task>, StoreError>> {
    let (store, owner) = (store.clone(), user(name));
    let change = TaskChange::completion(Completion::Toggle);
    tokio::spawn(async move { store.change(&owner, id, &change, Timestamp::from_unix_seconds(2)).await })
}

fn list(store: &Coalescing, name: &str, limit: u16) -> JoinHandle<Result<Page, StoreError>> {
    let (store, owner) = (store.clone(), user(name));
    let query = TaskQuery::new().limit(Limit::new(limit).unwrap());
    tokio::spawn(async move { store.page(&owner, &query).await })
}

/// Lets the other tasks run until the condition is true.
async fn until(condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the condition did not become true");
}

async fn until_waiting(store: &Coalescing, calls: usize) {
    until(|| store.status().waiting == calls).await;
}

async fn until_sent(store: &Coalescing, statements: usize) {
    until(|| store.inner().sent().len() == statements).await;
}

fn title_of(result: Result<Option<Task>, StoreError>) -> String {
    result.unwrap().unwrap().title.to_string()
}

#[tokio::test]
async fn only_waiting_calls_are_batched() {
    let users = ["ann", "bob", "cleo", "dan"];
    let (store, id) = with_tasks(&users).await;
    let first = get(&store, "ann", id);
    until_sent(&store, 1).await;
    let mut others = Vec::new();
    for (number, name) in users[1..].iter().enumerate() {
        others.push(get(&store, name, id));
        until_waiting(&store, number + 1).await;
    }
    store.inner().let_through(2);
    assert_eq!(title_of(first.await.unwrap()), "Of ann");
    for (other, name) in others.into_iter().zip(&users[1..]) {
        assert_eq!(title_of(other.await.unwrap()), format!("Of {name}"));
    }
    let expected = [("get", vec!["ann"]), ("get many", vec!["bob", "cleo", "dan"])];
    assert_eq!(
        store.inner().sent(),
        expected.map(|(what, whose)| (what, whose.into_iter().map(str::to_owned).collect()))
    );

    // No other call is waiting, so this one is sent alone.
    store.inner().let_through(1);
    get(&store, "dan", id).await.unwrap().unwrap();
    assert_eq!(store.inner().last().0, "get");
    let status = store.status();
    assert_eq!((status.alone, status.joined, status.batches, status.waiting), (2, 3, 1, 0));
}

#[tokio::test]
async fn reads_do_not_wait_for_writes() {
    let (store, id) = with_tasks(&["ann"]).await;
    let writing = toggle(&store, "ann", id);
    until_sent(&store, 1).await;
    let reading = get(&store, "ann", id);
    until_sent(&store, 2).await;
    store.inner().let_through(2);
    writing.await.unwrap().unwrap();
    reading.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dropped_call_is_not_part_of_the_batch() {
    let (store, id) = with_tasks(&["ann", "bob", "cleo", "dan"]).await;
    let first = get(&store, "ann", id);
    until_sent(&store, 1).await;
    let (bob, cleo) = (get(&store, "bob", id), get(&store, "cleo", id));
    until_waiting(&store, 2).await;
    let dan = get(&store, "dan", id);
    until_waiting(&store, 3).await;
    cleo.abort();
    assert!(cleo.await.unwrap_err().is_cancelled());
    store.inner().let_through(2);
    first.await.unwrap().unwrap();
    assert_eq!(title_of(bob.await.unwrap()), "Of bob");
    assert_eq!(title_of(dan.await.unwrap()), "Of dan");
    assert_eq!(store.inner().last(), ("get many", vec!["bob".to_owned(), "dan".to_owned()]));
    assert_eq!(store.status().waiting, 0);
}

#[tokio::test]
async fn if_the_first_waiting_call_is_dropped_another_one_leads() {
    let (store, id) = with_tasks(&["ann", "bob", "cleo"]).await;
    let first = get(&store, "ann", id);
    until_sent(&store, 1).await;
    let bob = get(&store, "bob", id);
    until_waiting(&store, 1).await;
    let cleo = get(&store, "cleo", id);
    until_waiting(&store, 2).await;
    bob.abort();
    let _ = bob.await;
    store.inner().let_through(2);
    first.await.unwrap().unwrap();
    assert_eq!(title_of(cleo.await.unwrap()), "Of cleo");
}

#[tokio::test]
async fn if_the_driver_of_a_batch_is_dropped_another_member_takes_over() {
    let (store, id) = with_tasks(&["ann", "bob", "cleo", "dan"]).await;
    let first = toggle(&store, "ann", id);
    until_sent(&store, 1).await;
    let bob = toggle(&store, "bob", id);
    until_waiting(&store, 1).await;
    let (cleo, dan) = (toggle(&store, "cleo", id), toggle(&store, "dan", id));
    until_waiting(&store, 3).await;
    store.inner().let_through(1);
    first.await.unwrap().unwrap();
    until_sent(&store, 2).await;
    // The call of bob is the first, so it drives the batch. Then cleo's call takes over, then dan's.
    for leader in [bob, cleo] {
        leader.abort();
        let _ = leader.await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    store.inner().let_through(1);
    let dan = dan.await.unwrap().unwrap().unwrap();
    assert!(dan.completed && dan.version == 2);
    assert_eq!(store.inner().sent().len(), 2, "the batch is sent once");
    for name in ["bob", "cleo"] {
        assert_eq!(store.inner().0.memory.get(&user(name), id).await.unwrap().unwrap().version, 2);
    }
}

#[tokio::test]
async fn a_batch_without_callers_frees_its_slot() {
    let (store, id) = with_tasks(&["ann", "bob", "cleo", "dan"]).await;
    let first = get(&store, "ann", id);
    until_sent(&store, 1).await;
    let gone = [get(&store, "bob", id), get(&store, "cleo", id)];
    until_waiting(&store, 2).await;
    store.inner().let_through(1);
    first.await.unwrap().unwrap();
    until_sent(&store, 2).await;
    let dan = get(&store, "dan", id);
    until_waiting(&store, 1).await;
    for task in gone {
        task.abort();
        let _ = task.await;
    }
    store.inner().let_through(1);
    assert_eq!(title_of(dan.await.unwrap()), "Of dan");
}

#[tokio::test]
async fn two_writes_to_one_task_are_never_in_one_batch() {
    let (store, id) = with_tasks(&["ann", "bob"]).await;
    let first = toggle(&store, "bob", id);
    until_sent(&store, 1).await;
    let toggles =
        [toggle(&store, "ann", id), toggle(&store, "ann", id), toggle(&store, "bob", id), toggle(&store, "ann", id)];
    until_waiting(&store, 4).await;
    store.inner().let_through(100);
    first.await.unwrap().unwrap();
    for toggle in toggles {
        toggle.await.unwrap().unwrap();
    }
    let task = store.inner().0.memory.get(&user("ann"), id).await.unwrap().unwrap();
    assert_eq!((task.version, task.completed), (4, true), "every toggle counts");
    let many: Vec<_> = store.inner().sent().into_iter().filter(|(what, _)| *what == "update many").collect();
    assert_eq!(many, [("update many", vec!["ann".to_owned(), "bob".to_owned()])]);
}

#[tokio::test]
async fn a_read_only_joins_statements_that_are_sent_after_it() {
    let (store, id) = with_tasks(&["ann", "bob"]).await;
    let reads = [get(&store, "ann", id), get(&store, "ann", id), get(&store, "bob", id)];
    until_waiting(&store, 2).await;
    store.inner().let_through(1);
    until_sent(&store, 2).await;
    // The batch has been sent. It does not contain this write, and later reads must return it.
    store
        .inner()
        .0
        .memory
        .change(&user("ann"), id, &TaskChange::completion(Completion::Toggle), Timestamp::from_unix_seconds(3))
        .await
        .unwrap();
    let late = get(&store, "ann", id);
    until_waiting(&store, 1).await;
    store.inner().let_through(2);
    assert!(late.await.unwrap().unwrap().unwrap().completed);
    assert_eq!(store.inner().sent().len(), 3);
    for read in reads {
        read.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_calls_of_a_rolled_back_batch_are_retried_alone() {
    let (store, id) = with_tasks(&["ann", "bob", "cleo"]).await;
    let first = toggle(&store, "ann", id);
    until_sent(&store, 1).await;
    let others = [toggle(&store, "bob", id), toggle(&store, "cleo", id)];
    until_waiting(&store, 2).await;
    store.inner().fault(Fault::RolledBack);
    store.inner().let_through(100);
    first.await.unwrap().unwrap();
    for other in others {
        assert_eq!(other.await.unwrap().unwrap().unwrap().version, 2);
    }
    let sent = store.inner().sent();
    assert_eq!(sent.iter().map(|(what, _)| *what).collect::<Vec<_>>(), ["update", "update many", "update", "update"]);
}

#[tokio::test]
async fn a_batch_whose_result_is_lost_is_not_retried() {
    let (store, id) = with_tasks(&["ann", "bob", "cleo"]).await;
    let first = toggle(&store, "ann", id);
    until_sent(&store, 1).await;
    let others = [toggle(&store, "bob", id), toggle(&store, "cleo", id)];
    until_waiting(&store, 2).await;
    store.inner().fault(Fault::ResultLost);
    store.inner().let_through(100);
    first.await.unwrap().unwrap();
    for other in others {
        assert!(matches!(other.await.unwrap(), Err(StoreError::Unavailable(_))));
    }
    assert_eq!(store.inner().sent().len(), 2);
    assert_eq!(store.inner().0.memory.get(&user("bob"), id).await.unwrap().unwrap().version, 2);
}

#[tokio::test]
async fn a_result_of_another_owner_is_never_returned() {
    let users = ["ann", "bob", "cleo"];
    for fault in [|| Fault::MixedUp, || Fault::Short] {
        let (store, id) = with_tasks(&users).await;
        let first = (get(&store, "ann", id), toggle(&store, "ann", id));
        until_sent(&store, 2).await;
        let gets = users.map(|name| get(&store, name, id));
        until_waiting(&store, 3).await;
        let toggles = users.map(|name| toggle(&store, name, id));
        until_waiting(&store, 6).await;
        store.inner().fault(fault());
        store.inner().fault(fault());
        store.inner().let_through(100);
        first.0.await.unwrap().unwrap();
        first.1.await.unwrap().unwrap();
        for result in gets.into_iter().chain(toggles) {
            assert!(matches!(result.await.unwrap(), Err(StoreError::Backend(_))));
        }

        let (store, _) = with_tasks(&users).await;
        let first = list(&store, "ann", 20);
        until_sent(&store, 1).await;
        let lists = users.map(|name| list(&store, name, 20));
        until_waiting(&store, 3).await;
        store.inner().fault(fault());
        store.inner().let_through(100);
        first.await.unwrap().unwrap();
        for result in lists {
            assert!(matches!(result.await.unwrap(), Err(StoreError::Backend(_))));
        }
    }
}

#[tokio::test]
async fn a_batch_that_panics_fails_only_its_own_calls() {
    let (store, id) = with_tasks(&["ann", "bob", "cleo"]).await;
    let first = get(&store, "ann", id);
    until_sent(&store, 1).await;
    let others = [get(&store, "bob", id), get(&store, "cleo", id)];
    until_waiting(&store, 2).await;
    store.inner().fault(Fault::Panic);
    store.inner().let_through(100);
    first.await.unwrap().unwrap();
    let [bob, cleo] = others;
    assert!(bob.await.unwrap_err().is_panic());
    assert!(matches!(cleo.await.unwrap(), Err(StoreError::Backend(_))));
    assert_eq!(title_of(get(&store, "cleo", id).await.unwrap()), "Of cleo");
}

#[tokio::test]
async fn the_writes_of_a_batch_that_panics_may_have_happened() {
    let (store, id) = with_tasks(&["ann", "bob", "cleo"]).await;
    let first = toggle(&store, "ann", id);
    until_sent(&store, 1).await;
    let others = [toggle(&store, "bob", id), toggle(&store, "cleo", id)];
    until_waiting(&store, 2).await;
    store.inner().fault(Fault::Panic);
    store.inner().let_through(100);
    first.await.unwrap().unwrap();
    let [bob, cleo] = others;
    assert!(bob.await.unwrap_err().is_panic());
    let error = cleo.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Interrupted(_)), "{error:?}");
    assert_eq!(toggle(&store, "cleo", id).await.unwrap().unwrap().unwrap().version, 2);
}

#[tokio::test]
async fn long_lists_do_not_delay_other_reads() {
    let (store, id) = with_tasks(&["ann"]).await;
    let first = list(&store, "ann", 200);
    until_sent(&store, 1).await;
    let long: Vec<_> = (0..100).map(|_| list(&store, "ann", 200)).collect();
    until_waiting(&store, 100).await;
    let (short, one) = (list(&store, "ann", 20), get(&store, "ann", id));
    until_waiting(&store, 102).await;
    // Long lists get every other statement, so these two calls are among the next four statements.
    store.inner().let_through(5);
    short.await.unwrap().unwrap();
    one.await.unwrap().unwrap();
    store.inner().let_through(100);
    for list in long {
        list.await.unwrap().unwrap();
    }
    first.await.unwrap().unwrap();
    let longest = store.inner().sent().iter().map(|(_, owners)| owners.len()).max();
    assert_eq!(longest, Some(10), "a batch returns at most 2048 rows");
}

#[tokio::test]
async fn a_batch_has_a_maximum_size() {
    let (store, id) = with_tasks(&["ann"]).await;
    let first = get(&store, "ann", id);
    until_sent(&store, 1).await;
    let others: Vec<_> = (0..150).map(|_| get(&store, "ann", id)).collect();
    until_waiting(&store, 150).await;
    store.inner().let_through(100);
    first.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    let sizes: Vec<_> = store.inner().sent().iter().map(|(_, owners)| owners.len()).collect();
    assert_eq!(sizes, [1, 64, 64, 22]);
}

#[tokio::test]
async fn a_call_is_rejected_when_the_queue_is_full() {
    let options = narrow().max_waiting(2);
    let store = CoalescingStore::with_options(RecordingStore::closed(), &options);
    let id = TaskId::from(uuid::Uuid::nil());
    let waiting = [get(&store, "ann", id), get(&store, "ann", id), get(&store, "ann", id)];
    until_waiting(&store, 2).await;
    assert!(matches!(store.get(&user("ann"), id).await, Err(StoreError::Unavailable(_))));
    assert_eq!(store.status().refused, 1);
    store.inner().let_through(100);
    for call in waiting {
        call.await.unwrap().unwrap();
    }
    store.get(&user("ann"), id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_times_out_in_the_queue_is_never_sent() {
    let (store, id) = with_tasks(&["ann", "bob", "cay"]).await;
    let under_way = get(&store, "ann", id);
    until_sent(&store, 1).await;
    for late in [get(&store, "bob", id), get(&store, "cay", id)] {
        assert!(matches!(late.await.unwrap(), Err(StoreError::Unavailable(_))));
    }
    assert!(!under_way.is_finished(), "a statement that was sent has no time limit here");
    store.inner().let_through(100);
    assert_eq!(title_of(under_way.await.unwrap()), "Of ann");
    assert_eq!(title_of(get(&store, "cay", id).await.unwrap()), "Of cay");
    assert_eq!(store.inner().sent(), [("get", vec!["ann".to_owned()]), ("get", vec!["cay".to_owned()])]);
    assert_eq!(store.status().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn calls_that_timed_out_no_longer_count_as_waiting() {
    let options = narrow().max_waiting(2);
    let store = CoalescingStore::with_options(RecordingStore::closed(), &options);
    let id = TaskId::from(uuid::Uuid::nil());
    let stalled = get(&store, "ann", id);
    until_sent(&store, 1).await;
    for _ in 0..3 {
        let calls = [get(&store, "bob", id), get(&store, "cay", id)];
        until_waiting(&store, 2).await;
        for call in calls {
            assert!(matches!(call.await.unwrap(), Err(StoreError::Unavailable(_))));
        }
        let status = store.status();
        assert_eq!((status.waiting, status.refused), (0, 0));
    }
    assert!(!stalled.is_finished());
}

#[tokio::test]
async fn calls_that_were_dropped_no_longer_count_as_waiting() {
    let options = narrow().max_waiting(2);
    let store = CoalescingStore::with_options(RecordingStore::closed(), &options);
    let id = TaskId::from(uuid::Uuid::nil());
    let stalled = get(&store, "ann", id);
    until_sent(&store, 1).await;
    for _ in 0..3 {
        let calls = [get(&store, "bob", id), get(&store, "cay", id)];
        until_waiting(&store, 2).await;
        for call in calls {
            call.abort();
            assert!(call.await.unwrap_err().is_cancelled());
        }
        let status = store.status();
        assert_eq!((status.waiting, status.refused), (0, 0));
    }
    assert!(!stalled.is_finished());
}

#[tokio::test]
async fn writes_that_wait_for_a_locked_task_are_counted_and_limited() {
    let options = narrow().max_waiting(2).max_blocked_writes(1);
    let (store, id) = with_tasks_and_options(&["ann", "bob", "cay"], &options).await;
    store.inner().lock("ann");
    let mut blocked = Vec::new();
    // Ann's first call gets the only slot and sends its statement. Two calls wait for the slot. The fourth is rejected.
    let mut sent = 0;
    for (waiting, statements) in [(0, 3), (1, 2), (2, 2), (2, 2)] {
        // Bob's statement runs, so the calls of Ann and Cay wait and form a batch. The batch skips Ann's locked task.
        let before = store.status().waiting;
        let running = toggle(&store, "bob", id);
        until_sent(&store, sent + 1).await;
        blocked.push(toggle(&store, "ann", id));
        let other = toggle(&store, "cay", id);
        until_waiting(&store, before + 2).await;
        store.inner().let_through(statements);
        running.await.unwrap().unwrap();
        other.await.unwrap().unwrap();
        sent += statements;
        until_sent(&store, sent).await;
        until_waiting(&store, waiting).await;
    }
    let rejected = blocked.pop().unwrap();
    assert!(matches!(rejected.await.unwrap(), Err(StoreError::Unavailable(_))));
    assert_eq!(store.status().refused, 1);
    store.inner().unlock("ann");
    store.inner().let_through(10);
    for call in blocked {
        call.await.unwrap().unwrap();
    }
    assert_eq!(store.status().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn writes_to_locked_tasks_that_are_sent_alone_leave_the_lane_to_others() {
    let locked = ["ann", "bob", "cay", "dan", "eve", "fay"];
    let (store, id) = with_tasks_and_options(&[&locked[..], &["zoe"]].concat(), &CoalescingOptions::default()).await;
    store.inner().let_through(1000);
    let mut blocked = Vec::new();
    for name in locked {
        store.inner().lock(name);
        blocked.push(toggle(&store, name, id));
        // Longer than such a write stays in the lane: the next one is sent alone, too.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Four of them hold a connection, and the other two wait without one.
    let sent = store.inner().sent();
    assert_eq!(
        sent.iter().map(|(what, _)| *what).collect::<Vec<_>>(),
        [["update"; 4].as_slice(), &["update many"; 2]].concat()
    );
    assert_eq!(store.status().waiting, 2);
    for version in 2..5 {
        let toggled = tokio::time::timeout(Duration::from_millis(100), toggle(&store, "zoe", id));
        assert_eq!(toggled.await.expect("the lane is free").unwrap().unwrap().unwrap().version, version);
    }
    for name in locked {
        store.inner().unlock(name);
    }
    for call in blocked {
        assert_eq!(call.await.unwrap().unwrap().unwrap().version, 2);
    }
    assert_eq!(store.status().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_in_a_sent_batch_has_no_time_limit() {
    let (store, id) = with_tasks(&["ann", "bob", "cay"]).await;
    let calls = [get(&store, "ann", id), get(&store, "bob", id), get(&store, "cay", id)];
    until_waiting(&store, 2).await;
    store.inner().let_through(1);
    until_sent(&store, 2).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    store.inner().let_through(1);
    for (call, title) in calls.into_iter().zip(["Of ann", "Of bob", "Of cay"]) {
        assert_eq!(title_of(call.await.unwrap()), title);
    }
}

#[tokio::test]
async fn a_store_without_batching_gets_every_call_unchanged() {
    let store = CoalescingStore::with_options(RecordingStore::closed(), &narrow());
    store.inner().0.batching.store(false, Ordering::SeqCst);
    let id = TaskId::from(uuid::Uuid::nil());
    let calls: Vec<_> = (0..10).map(|_| get(&store, "ann", id)).collect();
    until_sent(&store, 10).await;
    store.inner().let_through(10);
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

/// Callers of many owners call at the same time, drop some of their calls, and check every result.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_every_owner_gets_only_own_tasks() {
    let store = CoalescingStore::with_options(RecordingStore::open(), &narrow());
    let service = TodoService::new(store.clone());
    let users: Vec<_> = (0..50).map(|number| user(&format!("user {number}"))).collect();
    let callers = users.iter().map(|owner| {
        let (service, owner) = (service.clone(), owner.clone());
        tokio::spawn(async move {
            let tasks = service.for_user(owner.clone());
            let mut count = 0;
            for round in 0..200_u32 {
                let task = tasks.create(NewTask::new(Title::new(format!("{owner} {round}")).unwrap())).await.unwrap();
                count += 1;
                let is_own =
                    |task: &Task| task.user_id == owner && task.title.as_str().starts_with(&format!("{owner} "));
                assert_eq!(tasks.get(task.id).await.unwrap(), task);
                // A caller that does not wait for the result.
                let _ = tokio::time::timeout(Duration::ZERO, tasks.toggle(task.id)).await;
                let page = tasks.list(&TaskQuery::default()).await.unwrap();
                assert!(page.tasks.iter().all(is_own) && page.tasks[0].id == task.id);
                if round % 3 == 0 {
                    tasks.delete(task.id).await.unwrap();
                    count -= 1;
                }
            }
            assert_eq!(tasks.erase().await.unwrap(), count);
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let status = store.status();
    assert!(status.joined > 0 && status.waiting == 0, "{status:?}");
}
