//! The tools, and what they do.

use std::{error::Error as _, sync::Arc};

use axum::http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, Implementation, JsonObject, ListToolsResult,
        PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
    },
    service::RequestContext,
};
use serde_json::{Value, json};
use todo_core::{
    Error, TodoService, UserId, UserTasks,
    api::{ApiError, Arguments, Operation, openapi::arguments_schema, problem},
};

const INSTRUCTIONS: &str = "The todo list of the user. Ask for the tasks before you change one, and send the `version` that \
you have read: then nobody's change is overwritten. Delete tasks only if the user asks for it; a task that is done is completed.";

/// The name of each tool, the operation of the API with the same arguments, and the description.
const TOOLS: [(&str, Operation, &str); 8] = [
    ("list_tasks", Operation::ListTasks, "Lists tasks, by default the newest first; `next` is the next `cursor`."),
    (SEARCH, Operation::ListTasks, "Finds tasks whose title or description contains `q`; filters as in list_tasks."),
    ("add_task", Operation::CreateTask, "Adds a task and returns it with its `id`. Each call adds one."),
    ("change_task", Operation::PatchTask, "Changes the given fields; null removes a value, `tags` replaces all tags."),
    ("complete_task", Operation::CompleteTask, "Marks a task as done, or as open again with `completed`: false."),
    ("move_task", Operation::MoveTask, "Moves a task in the manual order: give one of before, after, first and last."),
    ("delete_task", Operation::DeleteTask, "Deletes a task for good."),
    ("summarize_tasks", Operation::SummarizeTasks, "Counts tasks and open tasks: in all, by list and by tag."),
];
const SEARCH: &str = "search_tasks";

/// Describes a tool, with the schema of the library.
fn tool((name, operation, description): (&'static str, Operation, &'static str)) -> Tool {
    let schema = arguments_schema(operation).unwrap_or_default();
    let mut schema: JsonObject = serde_json::from_str(&schema).unwrap_or_default();
    if name == SEARCH {
        schema.insert("required".to_owned(), json!(["q"]));
    }
    // Without a value, the API toggles a task, which an assistant could do twice.
    if let (Operation::CompleteTask, Some(properties)) = (operation, schema.get_mut("properties")) {
        properties["completed"] = json!({"type": "boolean", "default": true});
    }
    let annotations = ToolAnnotations::new()
        .read_only(matches!(operation, Operation::ListTasks | Operation::SummarizeTasks))
        .destructive(matches!(operation, Operation::PatchTask | Operation::DeleteTask))
        .idempotent(operation != Operation::CreateTask)
        .open_world(false);
    Tool::new(name, description, schema).annotate(annotations)
}

/// Reads the arguments, performs the operation, and returns the result.
async fn perform(operation: Operation, tasks: UserTasks<'_>, arguments: &[u8]) -> Result<Value, ApiError> {
    let mut arguments = Arguments::parse(arguments)?;
    match operation {
        Operation::ListTasks => {
            let query = arguments.task_query();
            let page = tasks.list(&arguments.finish(Some(query))?).await?;
            return Ok(json!({"tasks": page.tasks, "next": page.next.map(|cursor| cursor.to_string())}));
        }
        Operation::SummarizeTasks => {
            arguments.finish(Some(()))?;
            return Ok(json!(tasks.summary().await?));
        }
        Operation::CreateTask => {
            let new = arguments.new_task();
            return Ok(json!({"task": tasks.create(arguments.finish(new)?).await?}));
        }
        _ => {}
    }
    // The others change one task, if it still has the version that the assistant has read.
    let (id, tasks) = (arguments.id(), tasks.only_if(arguments.precondition()));
    let task = match operation {
        Operation::PatchTask => {
            let patch = arguments.patch();
            tasks.patch(arguments.finish(id)?, patch).await?
        }
        Operation::CompleteTask => {
            let completed = arguments.completed().unwrap_or(true);
            tasks.set_completed(arguments.finish(id)?, completed).await?
        }
        Operation::MoveTask => {
            let place = arguments.place();
            let (id, place) = arguments.finish(id.zip(place))?;
            tasks.move_to(id, place).await?
        }
        Operation::DeleteTask => {
            let id = arguments.finish(id)?;
            tasks.delete(id).await?;
            return Ok(json!({"deleted": id}));
        }
        _ => return Err(ApiError::Internal("a tool has no implementation")),
    };
    Ok(json!({"task": task}))
}

/// Offers the tools to clients.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    service: TodoService,
    tools: Arc<[Tool]>,
}

impl Tools {
    pub(crate) fn new(service: TodoService) -> Self {
        Self { service, tools: TOOLS.into_iter().map(tool).collect() }
    }
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("todo", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.to_vec()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let (_, operation, _) = TOOLS
            .into_iter()
            .find(|(name, ..)| *name == request.name)
            .ok_or_else(|| ErrorData::invalid_params("there is no tool of this name", None))?;
        // The user of the token of this request: `authenticate` lets no request pass without one.
        let head = context.extensions.get::<Parts>();
        let owner = head.and_then(|head| head.extensions.get::<UserId>()).cloned();
        let owner = owner.ok_or_else(|| ErrorData::internal_error("the request has no user", None))?;
        let arguments = serde_json::to_vec(&request.arguments).unwrap_or_default();
        let result = match perform(operation, self.service.for_user(owner), &arguments).await {
            Ok(result) => CallToolResult::structured(result),
            Err(error) => failure(error),
        };
        Ok(result.into())
    }
}

/// What an assistant gets to know about an error: the problem details of the API, which contain no internals.
fn failure(error: ApiError) -> CallToolResult {
    let error = match error {
        // The only condition is the version.
        ApiError::Service(Error::PreconditionFailed { current }) => ApiError::VersionConflict { current },
        error => error,
    };
    if error.is_failure() {
        tracing::error!(%error, cause = error.source(), "a tool failed");
    }
    let retry_after = error.retry_after();
    let mut shown: Value = serde_json::from_slice(problem(error).body()).unwrap_or_default();
    if let Some(after) = retry_after {
        shown["retry_after_seconds"] = after.as_secs().max(1).into();
    }
    CallToolResult::structured_error(shown)
}
