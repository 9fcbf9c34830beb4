//! Fields of the host in the metadata of tasks.

// recipe
use std::error::Error;

use serde::{Deserialize, Serialize};
use todo_core::{Metadata, MetadataPatch, NewTask, Patch, Task, TaskId, TaskPatch, Title, UserTasks};

/// The members of the metadata that this service uses. There may be others, of clients.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// How long the task takes.
    pub minutes: u32,
    /// Where the task was imported from.
    pub source: Option<String>,
}

/// Returns a new task with a plan.
pub fn planned(title: Title, plan: &Plan) -> Result<NewTask, Box<dyn Error>> {
    Ok(NewTask { metadata: Metadata::from_value(plan)?, ..NewTask::new(title) })
}

/// Returns the plan of a task. Clients write metadata, too: what has another form is no plan.
pub fn plan(task: &Task) -> Option<Plan> {
    task.metadata.get().ok()
}

/// Sets the plan of a task, and changes no other members.
pub async fn set_plan(tasks: &UserTasks<'_>, id: TaskId, plan: &Plan) -> Result<Task, Box<dyn Error>> {
    let merge = MetadataPatch::new(&serde_json::to_string(plan)?)?;
    let patch = TaskPatch { metadata: Patch::Set(merge), ..TaskPatch::default() };
    Ok(tasks.patch(id, patch).await?)
}
// end
