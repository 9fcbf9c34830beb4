//! The recipe of paging.

use recipes::paging::remind;
use todo_core::{NewTask, Title, TodoService, UserId, store::MemoryStore};

#[tokio::test]
async fn every_open_task_of_the_user_is_read_once() {
    let service = TodoService::new(MemoryStore::new());
    let [ann, bob] = ["ann", "bob"].map(|name| UserId::new(name).unwrap());
    for number in 0..250 {
        let new = NewTask::new(Title::new(format!("{number}")).unwrap());
        let task = service.for_user(ann.clone()).create(new.clone()).await.unwrap();
        if number % 10 == 0 {
            service.for_user(ann.clone()).toggle(task.id).await.unwrap();
        }
        service.for_user(bob.clone()).create(new).await.unwrap();
    }
    let mut titles = Vec::new();
    remind(&service, ann, |task| titles.push(task.title.to_string())).await.unwrap();
    let expected: Vec<_> = (0..250).rev().filter(|number| number % 10 != 0).map(|number| number.to_string()).collect();
    assert_eq!(titles, expected);
}
