//! What [`CoalescingStore`] does with calls that wait, seen from a store that notes what it is sent and answers when it is
//! told to.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use todo_core::{
    Limit, NewTask, Page, Task, TaskId, TaskQuery, Title, TodoService, UserId,
    clock::Timestamp,
    store::{
        BatchError, BatchStore, CoalescingOptions, CoalescingStore, Completion, MemoryStore, StoreError, TaskChange,
        TaskStore,
    },
};
use tokio::{sync::Semaphore, task::JoinHandle};

mod one_statement_at_a_time {
    use super::*;

    async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
        case(Arc::new(CoalescingStore::with_options(Noting::open(), &narrow()))).await;
    }

    todo_core::store_conformance!(with_store);
}

/// Two statements at once are as few as there can be: one that reads, one that writes.
fn narrow() -> CoalescingOptions {
    let mut options = CoalescingOptions::default();
    (options.reads, options.writes) = (1, 1);
    options
}

/// What a batch is to come to, instead of what it asks for.
enum Fault {
    /// Nothing happens, and that is known.
    RolledBack,
    /// It happens, but the answer is lost.
    AnswerLost,
    /// Everybody gets what belongs to the next.
    MixedUp,
    /// One answer too few.
    Short,
    Panic,
}

/// Keeps tasks in memory, one pass of the gate for each statement.
#[derive(Clone, Debug)]
struct Noting(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: MemoryStore,
    gate: Semaphore,
    sent: Mutex<Vec<(&'static str, Vec<UserId>)>>,
    faults: Mutex<VecDeque<Fault>>,
    batching: AtomicBool,
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fault")
    }
}

impl Noting {
    /// One that answers at once.
    fn open() -> Self {
        Self::with_gate(Semaphore::MAX_PERMITS)
    }

    /// One that answers nothing until it is let.
    fn closed() -> Self {
        Self::with_gate(0)
    }

    fn with_gate(passes: usize) -> Self {
        Self(Arc::new(Inner {
            memory: MemoryStore::new(),
            gate: Semaphore::new(passes),
            sent: Mutex::default(),
            faults: Mutex::default(),
            batching: AtomicBool::new(true),
        }))
    }

    fn let_through(&self, statements: usize) {
        self.0.gate.add_permits(statements);
    }

    fn fault(&self, fault: Fault) {
        self.0.faults.lock().unwrap().push_back(fault);
    }

    /// The statements so far: what they do, and for whom.
    fn sent(&self) -> Vec<(&'static str, Vec<String>)> {
        let sent = self.0.sent.lock().unwrap();
        sent.iter().map(|(what, owners)| (*what, owners.iter().map(ToString::to_string).collect())).collect()
    }

    fn last(&self) -> (&'static str, Vec<String>) {
        self.sent().pop().unwrap()
    }

    async fn statement(&self, what: &'static str, owners: Vec<&UserId>) {
        self.0.sent.lock().unwrap().push((what, owners.into_iter().cloned().collect()));
        self.0.gate.acquire().await.unwrap().forget();
    }

    async fn batch<T>(
        &self,
        what: &'static str,
        owners: Vec<&UserId>,
        answers: impl Future<Output = Vec<T>>,
    ) -> Result<Vec<T>, BatchError> {
        self.statement(what, owners).await;
        let fault = self.0.faults.lock().unwrap().pop_front();
        match fault {
            None => Ok(answers.await),
            Some(Fault::RolledBack) => Err(BatchError::RolledBack(StoreError::Backend("a check was violated".into()))),
            Some(Fault::AnswerLost) => {
                answers.await;
                Err(StoreError::Unavailable("the connection broke".into()).into())
            }
            Some(Fault::MixedUp) => {
                let mut answers = answers.await;
                answers.rotate_left(1);
                Ok(answers)
            }
            Some(Fault::Short) => Ok(answers.await.split_off(1)),
            Some(Fault::Panic) => panic!("as told"),
        }
    }
}

#[async_trait]
impl TaskStore for Noting {
    async fn insert(&self, owner: &UserId, task: &Task) -> Result<bool, StoreError> {
        self.statement("insert", vec![owner]).await;
        self.0.memory.insert(owner, task).await
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.statement("get", vec![owner]).await;
        self.0.memory.get(owner, id).await
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError> {
        self.statement("list", vec![owner]).await;
        self.0.memory.list(owner, query).await
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        self.statement("update", vec![owner]).await;
        self.0.memory.update(owner, id, change, now).await
    }

    async fn delete(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError> {
        self.statement("delete", vec![owner]).await;
        self.0.memory.delete(owner, id).await
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        self.0.memory.erase(owner).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.memory.ping().await
    }
}

/// The same call on the memory, for each.
macro_rules! each {
    ($self:ident, $what:literal, $calls:ident, $call:pat => $answer:expr) => {{
        let owners = $calls.iter().map(|call| call.0).collect();
        let answers = async {
            let mut answers = Vec::new();
            for $call in $calls {
                answers.push($answer.await.unwrap());
            }
            answers
        };
        $self.batch($what, owners, answers).await
    }};
}

#[async_trait]
impl BatchStore for Noting {
    fn is_batching(&self) -> bool {
        self.0.batching.load(Ordering::SeqCst)
    }

    async fn get_many(&self, calls: &[(&UserId, TaskId)]) -> Result<Vec<Option<Task>>, BatchError> {
        each!(self, "get many", calls, (owner, id) => self.0.memory.get(owner, *id))
    }

    async fn list_many(&self, calls: &[(&UserId, &TaskQuery)]) -> Result<Vec<Page>, BatchError> {
        each!(self, "list many", calls, (owner, query) => self.0.memory.list(owner, query))
    }

    async fn insert_many(&self, calls: &[(&UserId, &Task)]) -> Result<Vec<bool>, BatchError> {
        assert!(calls.is_sorted_by_key(|(owner, task)| (*owner, task.id)));
        each!(self, "insert many", calls, (owner, task) => self.0.memory.insert(owner, task))
    }

    async fn update_many(
        &self,
        calls: &[(&UserId, TaskId, &TaskChange, Timestamp)],
    ) -> Result<Vec<Option<Task>>, BatchError> {
        assert!(calls.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)), "sorted, and no task twice");
        each!(self, "update many", calls, (owner, id, change, now) => self.0.memory.update(owner, *id, change, *now))
    }

    async fn delete_many(&self, calls: &[(&UserId, TaskId)]) -> Result<Vec<bool>, BatchError> {
        assert!(calls.is_sorted_by(|a, b| a < b), "sorted, and no task twice");
        each!(self, "delete many", calls, (owner, id) => self.0.memory.delete(owner, *id))
    }
}

type Coalescing = CoalescingStore<Noting>;

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A store that is let through so far, with one task of each of these users, all of one id.
async fn with_tasks(users: &[&str]) -> (Coalescing, TaskId) {
    let store = CoalescingStore::with_options(Noting::closed(), &narrow());
    let id = TaskId::from(uuid::Uuid::from_u128(7));
    for name in users {
        let now = Timestamp::from_unix_seconds(1);
        let (created_at, updated_at) = (now, now);
        let title = Title::new(format!("Of {name}")).unwrap();
        let task = Task {
            id,
            user_id: user(name),
            title,
            description: None,
            completed: false,
            created_at,
            updated_at,
            version: 1,
        };
        assert!(store.inner().0.memory.insert(&user(name), &task).await.unwrap());
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
    tokio::spawn(async move { store.update(&owner, id, &change, Timestamp::from_unix_seconds(2)).await })
}

fn list(store: &Coalescing, name: &str, limit: u16) -> JoinHandle<Result<Page, StoreError>> {
    let (store, owner) = (store.clone(), user(name));
    let query = TaskQuery { limit: Limit::new(limit).unwrap(), ..TaskQuery::default() };
    tokio::spawn(async move { store.list(&owner, &query).await })
}

/// Lets the other tasks run until this is so.
async fn until(condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never came to that");
}

async fn until_waiting(store: &Coalescing, calls: usize) {
    until(|| store.status().waiting == calls).await;
}

async fn until_sent(store: &Coalescing, statements: usize) {
    until(|| store.inner().sent().len() == statements).await;
}

fn title_of(answer: Result<Option<Task>, StoreError>) -> String {
    answer.unwrap().unwrap().title.to_string()
}

#[tokio::test]
async fn calls_that_wait_share_a_statement_and_others_do_not() {
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

    // Nobody waits any more: again by itself.
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
async fn who_goes_away_before_the_batch_is_sent_is_not_in_it() {
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
async fn if_the_first_to_wait_has_gone_another_leads() {
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
async fn a_leader_that_goes_away_in_the_middle_costs_the_others_nothing() {
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
    // Bob came first, so it is his task that drives the batch; after him cleo's, then dan's.
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
    assert_eq!(store.inner().sent().len(), 2, "and nothing is sent twice");
    for name in ["bob", "cleo"] {
        assert_eq!(store.inner().0.memory.get(&user(name), id).await.unwrap().unwrap().version, 2);
    }
}

#[tokio::test]
async fn a_batch_that_nobody_waits_for_ends_and_the_next_begins() {
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
async fn a_read_joins_only_what_is_sent_after_it_was_asked() {
    let (store, id) = with_tasks(&["ann", "bob"]).await;
    let reads = [get(&store, "ann", id), get(&store, "ann", id), get(&store, "bob", id)];
    until_waiting(&store, 2).await;
    store.inner().let_through(1);
    until_sent(&store, 2).await;
    // The batch is on its way. What is written now is not in it, and who asks now reads it.
    store
        .inner()
        .0
        .memory
        .update(&user("ann"), id, &TaskChange::completion(Completion::Toggle), Timestamp::from_unix_seconds(3))
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
async fn a_batch_that_was_rolled_back_is_done_one_by_one() {
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
async fn a_batch_whose_fate_is_unknown_is_not_repeated() {
    let (store, id) = with_tasks(&["ann", "bob", "cleo"]).await;
    let first = toggle(&store, "ann", id);
    until_sent(&store, 1).await;
    let others = [toggle(&store, "bob", id), toggle(&store, "cleo", id)];
    until_waiting(&store, 2).await;
    store.inner().fault(Fault::AnswerLost);
    store.inner().let_through(100);
    first.await.unwrap().unwrap();
    for other in others {
        assert!(matches!(other.await.unwrap(), Err(StoreError::Unavailable(_))));
    }
    assert_eq!(store.inner().sent().len(), 2);
    assert_eq!(store.inner().0.memory.get(&user("bob"), id).await.unwrap().unwrap().version, 2);
}

#[tokio::test]
async fn what_belongs_to_another_never_leaves_the_store() {
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
        for answer in gets.into_iter().chain(toggles) {
            assert!(matches!(answer.await.unwrap(), Err(StoreError::Backend(_))));
        }

        let (store, _) = with_tasks(&users).await;
        let first = list(&store, "ann", 20);
        until_sent(&store, 1).await;
        let lists = users.map(|name| list(&store, name, 20));
        until_waiting(&store, 3).await;
        store.inner().fault(fault());
        store.inner().let_through(100);
        first.await.unwrap().unwrap();
        for answer in lists {
            assert!(matches!(answer.await.unwrap(), Err(StoreError::Backend(_))));
        }
    }
}

#[tokio::test]
async fn a_batch_that_panics_fails_its_calls_and_no_others() {
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
async fn many_long_lists_keep_no_other_call_waiting() {
    let (store, id) = with_tasks(&["ann"]).await;
    let first = list(&store, "ann", 200);
    until_sent(&store, 1).await;
    let long: Vec<_> = (0..100).map(|_| list(&store, "ann", 200)).collect();
    until_waiting(&store, 100).await;
    let (short, one) = (list(&store, "ann", 20), get(&store, "ann", id));
    until_waiting(&store, 102).await;
    // The long lists have every other turn, so these two are among the next four statements.
    store.inner().let_through(5);
    short.await.unwrap().unwrap();
    one.await.unwrap().unwrap();
    store.inner().let_through(100);
    for list in long {
        list.await.unwrap().unwrap();
    }
    first.await.unwrap().unwrap();
    let longest = store.inner().sent().iter().map(|(_, owners)| owners.len()).max();
    assert_eq!(longest, Some(10), "a batch answers 2048 rows at most");
}

#[tokio::test]
async fn a_batch_has_an_upper_limit() {
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
async fn when_too_many_wait_the_next_is_told_at_once() {
    let mut options = narrow();
    options.max_waiting = 2;
    let store = CoalescingStore::with_options(Noting::closed(), &options);
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
async fn who_waits_for_too_long_is_told_so_and_nothing_is_sent_for_it() {
    let (store, id) = with_tasks(&["ann", "bob", "cay"]).await;
    let under_way = get(&store, "ann", id);
    until_sent(&store, 1).await;
    for late in [get(&store, "bob", id), get(&store, "cay", id)] {
        assert!(matches!(late.await.unwrap(), Err(StoreError::Unavailable(_))));
    }
    assert!(!under_way.is_finished(), "what is under way is the store's to end");
    store.inner().let_through(100);
    assert_eq!(title_of(under_way.await.unwrap()), "Of ann");
    assert_eq!(title_of(get(&store, "cay", id).await.unwrap()), "Of cay");
    assert_eq!(store.inner().sent(), [("get", vec!["ann".to_owned()]), ("get", vec!["cay".to_owned()])]);
    assert_eq!(store.status().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_part_of_a_statement_waits_for_its_end() {
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
async fn a_store_that_does_not_batch_gets_every_call_by_itself() {
    let store = CoalescingStore::with_options(Noting::closed(), &narrow());
    store.inner().0.batching.store(false, Ordering::SeqCst);
    let id = TaskId::from(uuid::Uuid::nil());
    let calls: Vec<_> = (0..10).map(|_| get(&store, "ann", id)).collect();
    until_sent(&store, 10).await;
    store.inner().let_through(10);
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

/// Callers of many owners who share their ids, come, go away in the middle, and check all they get.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_storm_everybody_gets_what_is_theirs() {
    let store = CoalescingStore::with_options(Noting::open(), &narrow());
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
                // Somebody who does not wait for the answer.
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
