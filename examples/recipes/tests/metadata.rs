//! The recipe of typed metadata.

use recipes::metadata::{Plan, plan, planned, set_plan};
use todo_core::{MetadataPatch, NewTask, Patch, TaskPatch, Title, TodoService, UserId, store::MemoryStore};

#[tokio::test]
async fn a_plan_is_kept_beside_the_members_of_clients() {
    let service = TodoService::new(MemoryStore::new());
    let tasks = service.for_user(UserId::new("ann").unwrap());
    let short = Plan { minutes: 5, source: None };
    let task = tasks.create(planned(Title::new("Buy milk").unwrap(), &short).unwrap()).await.unwrap();
    assert_eq!(plan(&tasks.get(task.id).await.unwrap()), Some(short));

    let client = async |json: &str| {
        let metadata = Patch::Set(MetadataPatch::new(json).unwrap());
        tasks.patch(task.id, TaskPatch { metadata, ..TaskPatch::default() }).await.unwrap()
    };
    client(r#"{"color":"green"}"#).await;
    let long = Plan { minutes: 90, source: Some("mail".to_owned()) };
    let changed = set_plan(&tasks, task.id, &long).await.unwrap();
    assert_eq!(changed.metadata.as_str(), r#"{"color":"green","minutes":90,"source":"mail"}"#);
    assert_eq!(plan(&changed), Some(long));
    // A plan without a source removes it.
    let changed = set_plan(&tasks, task.id, &Plan { minutes: 1, source: None }).await.unwrap();
    assert_eq!(changed.metadata.as_str(), r#"{"color":"green","minutes":1}"#);

    assert_eq!(plan(&client(r#"{"minutes":"many"}"#).await), None);
    assert_eq!(plan(&tasks.create(NewTask::new(Title::new("x").unwrap())).await.unwrap()), None);
}
