//! All tasks of a user, page by page.

// recipe
use todo_core::{Error, Task, TaskQuery, TodoService, UserId};

/// Calls `remind` for every open task of a user, newest first. A page has 100 tasks.
pub async fn remind(service: &TodoService, user: UserId, mut remind: impl FnMut(&Task)) -> Result<(), Error> {
    let tasks = service.for_user(user);
    let mut query = TaskQuery::new().completed(false);
    loop {
        let page = tasks.list(&query).await?;
        page.tasks.iter().for_each(&mut remind);
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(()),
        }
    }
}
// end
