use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

/// An operation of the API. Its [`name`](Self::name) is a field of the tracing span of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Lists a page of the caller's tasks.
    ListTasks,
    /// Creates a task, or several.
    CreateTask,
    /// Changes some fields of all tasks that a filter means.
    PatchTasks,
    /// Deletes all tasks that a filter means.
    DeleteTasks,
    /// Counts the caller's tasks.
    CountTasks,
    /// Counts the tasks in each list and with each tag.
    SummarizeTasks,
    /// Lists what has changed among the caller's tasks since a token.
    ListChanges,
    /// Streams what has changed among the caller's tasks since a token, and then what changes.
    StreamEvents,
    /// Moves all tasks of another user to the caller. The body contains a token of that user.
    TransferTasks,
    /// Reads a task.
    GetTask,
    /// Replaces the content of a task.
    ReplaceTask,
    /// Changes some fields of a task.
    PatchTask,
    /// Deletes a task.
    DeleteTask,
    /// Completes or reopens a task.
    CompleteTask,
    /// Moves a task to another place in the manual order.
    MoveTask,
    /// Reads the caller's identity, as their credential describes it.
    GetSession,
    /// Liveness probe: whether the process runs.
    Health,
    /// Readiness probe: whether the store and the keys work.
    Ready,
    /// Reads a file of the documentation.
    #[cfg(feature = "openapi")]
    GetDocument,
}

impl Operation {
    /// Returns its name in logs and in the OpenAPI document, such as `list_tasks`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ListTasks => "list_tasks",
            Self::CreateTask => "create_task",
            Self::PatchTasks => "patch_tasks",
            Self::DeleteTasks => "delete_tasks",
            Self::CountTasks => "count_tasks",
            Self::SummarizeTasks => "summarize_tasks",
            Self::ListChanges => "list_changes",
            Self::StreamEvents => "stream_events",
            Self::MoveTask => "move_task",
            Self::TransferTasks => "transfer_tasks",
            Self::GetTask => "get_task",
            Self::ReplaceTask => "replace_task",
            Self::PatchTask => "patch_task",
            Self::DeleteTask => "delete_task",
            Self::CompleteTask => "complete_task",
            Self::GetSession => "get_session",
            Self::Health => "health",
            Self::Ready => "ready",
            #[cfg(feature = "openapi")]
            Self::GetDocument => "get_document",
        }
    }
}

/// A path of the API and the operations of its methods.
///
/// An adapter registers each [`path`](Self::path) with its framework for all methods, and passes the requests that
/// match to [`TodoApi::respond`](super::TodoApi::respond), which rejects unknown methods.
#[derive(Debug)]
#[non_exhaustive]
pub struct Resource {
    /// The path below the mount. A segment in braces, such as `{id}`, is a parameter.
    pub path: &'static str,
    /// The operation of each method. A resource with GET also has HEAD, and every resource has OPTIONS.
    pub operations: &'static [(Method, Operation)],
    /// The value of the header `Allow` for this path.
    pub allow: &'static str,
}

const TASKS: &[(Method, Operation)] = &[
    (Method::GET, Operation::ListTasks),
    (Method::POST, Operation::CreateTask),
    (Method::PATCH, Operation::PatchTasks),
    (Method::DELETE, Operation::DeleteTasks),
];
const TASKS_ALLOW: &str = "GET, HEAD, POST, PATCH, DELETE, OPTIONS";

const COUNT: &[(Method, Operation)] = &[(Method::GET, Operation::CountTasks)];
const SUMMARY: &[(Method, Operation)] = &[(Method::GET, Operation::SummarizeTasks)];
const CHANGES: &[(Method, Operation)] = &[(Method::GET, Operation::ListChanges)];
const EVENTS: &[(Method, Operation)] = &[(Method::GET, Operation::StreamEvents)];

const TRANSFER: &[(Method, Operation)] = &[(Method::POST, Operation::TransferTasks)];
const TRANSFER_ALLOW: &str = "POST, OPTIONS";

const TASK: &[(Method, Operation)] = &[
    (Method::GET, Operation::GetTask),
    (Method::PUT, Operation::ReplaceTask),
    (Method::PATCH, Operation::PatchTask),
    (Method::DELETE, Operation::DeleteTask),
];
const TASK_ALLOW: &str = "GET, HEAD, PUT, PATCH, DELETE, OPTIONS";

const COMPLETE: &[(Method, Operation)] = &[(Method::PATCH, Operation::CompleteTask)];
const COMPLETE_ALLOW: &str = "PATCH, OPTIONS";

const MOVE: &[(Method, Operation)] = &[(Method::POST, Operation::MoveTask)];
const MOVE_ALLOW: &str = "POST, OPTIONS";

const GET_ALLOW: &str = "GET, HEAD, OPTIONS";

/// The paths of the API, relative to where it is mounted. A path comes before those whose parameter it also matches.
pub const RESOURCES: &[Resource] = &[
    Resource { path: "/tasks", operations: TASKS, allow: TASKS_ALLOW },
    Resource { path: "/tasks/count", operations: COUNT, allow: GET_ALLOW },
    Resource { path: "/tasks/summary", operations: SUMMARY, allow: GET_ALLOW },
    Resource { path: "/tasks/changes", operations: CHANGES, allow: GET_ALLOW },
    Resource { path: "/tasks/events", operations: EVENTS, allow: GET_ALLOW },
    Resource { path: "/tasks/transfer", operations: TRANSFER, allow: TRANSFER_ALLOW },
    Resource { path: "/tasks/{id}", operations: TASK, allow: TASK_ALLOW },
    Resource { path: "/tasks/{id}/complete", operations: COMPLETE, allow: COMPLETE_ALLOW },
    Resource { path: "/tasks/{id}/move", operations: MOVE, allow: MOVE_ALLOW },
    Resource { path: "/{user_id}/tasks", operations: TASKS, allow: TASKS_ALLOW },
    Resource { path: "/{user_id}/tasks/count", operations: COUNT, allow: GET_ALLOW },
    Resource { path: "/{user_id}/tasks/summary", operations: SUMMARY, allow: GET_ALLOW },
    Resource { path: "/{user_id}/tasks/changes", operations: CHANGES, allow: GET_ALLOW },
    Resource { path: "/{user_id}/tasks/events", operations: EVENTS, allow: GET_ALLOW },
    Resource { path: "/{user_id}/tasks/transfer", operations: TRANSFER, allow: TRANSFER_ALLOW },
    Resource { path: "/{user_id}/tasks/{id}", operations: TASK, allow: TASK_ALLOW },
    Resource { path: "/{user_id}/tasks/{id}/complete", operations: COMPLETE, allow: COMPLETE_ALLOW },
    Resource { path: "/{user_id}/tasks/{id}/move", operations: MOVE, allow: MOVE_ALLOW },
    Resource { path: "/auth/session", operations: &[(Method::GET, Operation::GetSession)], allow: GET_ALLOW },
];

/// The paths of the health probes, for the root of a server. They require no credential.
pub const PROBES: &[Resource] = &[
    Resource { path: "/health", operations: &[(Method::GET, Operation::Health)], allow: GET_ALLOW },
    Resource { path: "/health/ready", operations: &[(Method::GET, Operation::Ready)], allow: GET_ALLOW },
];

/// The paths of the documentation, for the root of a server: the OpenAPI document and a page that shows it. They
/// require no credential.
#[cfg(feature = "openapi")]
pub const DOCS: &[Resource] = &[
    Resource { path: "/openapi.json", operations: DOCUMENT, allow: GET_ALLOW },
    Resource { path: "/docs", operations: DOCUMENT, allow: GET_ALLOW },
    Resource { path: "/docs/start.js", operations: DOCUMENT, allow: GET_ALLOW },
    Resource { path: "/docs/swagger-ui-bundle.js", operations: DOCUMENT, allow: GET_ALLOW },
    Resource { path: "/docs/swagger-ui.css", operations: DOCUMENT, allow: GET_ALLOW },
];

#[cfg(feature = "openapi")]
const DOCUMENT: &[(Method, Operation)] = &[(Method::GET, Operation::GetDocument)];

/// User ids that equal a literal segment of a path. In every framework a literal segment takes precedence over a
/// parameter, so these users cannot use the paths that begin with a user id.
pub(super) const SHADOWED_USERS: [&str; 2] = ["tasks", "auth"];

/// The user that a path names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum PathUser<'a> {
    /// The path names no user, so it is about the caller.
    #[default]
    Caller,
    /// The path names this user.
    Named(Cow<'a, str>),
    /// The segment is not UTF-8, so it cannot be the id of a user.
    Unreadable,
}

impl PathUser<'_> {
    pub(super) fn is(&self, user: &crate::UserId) -> bool {
        match self {
            Self::Caller => true,
            Self::Named(name) => name == user.as_str(),
            Self::Unreadable => false,
        }
    }
}

/// The parameters in the path of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters<'a> {
    pub(super) user: PathUser<'a>,
    pub(super) id: Option<Cow<'a, str>>,
}

impl Resource {
    /// Returns the operation of a method.
    #[must_use]
    pub fn operation(&self, method: &Method) -> Option<Operation> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.operations.iter().find(|(own, _)| own == method).map(|(_, operation)| *operation)
    }

    /// Whether the end of a path matches the template of this resource exactly.
    ///
    /// Some frameworks also match a trailing slash, or an empty segment for a parameter. An adapter can call this to
    /// leave such paths to its host.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.parameters(path).is_some()
    }

    /// Returns the templates of paths that almost match: those with a trailing slash or an empty parameter.
    ///
    /// An adapter whose framework matches exactly registers them beside [`path`](Self::path), so that they get the
    /// API's 404 in every framework. No template is returned by two resources.
    pub fn near_misses(&self) -> impl Iterator<Item = String> {
        let mut paths = vec![String::new()];
        for segment in self.path[1..].split('/') {
            let emptied = segment.starts_with('{').then_some("");
            paths = [Some(segment), emptied]
                .into_iter()
                .flatten()
                .flat_map(|segment| paths.iter().map(move |path| format!("{path}/{segment}")))
                .collect();
        }
        let with_slash = paths.iter().map(|path| format!("{path}/")).collect::<Vec<_>>();
        // An empty parameter at the end is the same as a trailing slash of a shorter path.
        let without = paths.into_iter().filter(|path| *path != self.path && !path.ends_with('/'));
        with_slash.into_iter().chain(without)
    }

    /// The names of the parameters, in the order of the path.
    #[cfg(feature = "openapi")]
    pub(super) fn parameter_names(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }

    /// Whether the path names a user.
    #[cfg(feature = "openapi")]
    pub(super) fn names_a_user(&self) -> bool {
        self.parameter_names().any(|name| name == "user_id")
    }

    /// Whether the path names a task.
    #[cfg(feature = "openapi")]
    pub(super) fn names_a_task(&self) -> bool {
        self.parameter_names().any(|name| name == "id")
    }

    /// Reads the parameters of a path, or returns `None` if the path does not match exactly.
    ///
    /// The path is read from its right end, so the result does not depend on where the API is mounted or on whether the
    /// framework has removed the prefix.
    pub(super) fn parameters<'a>(&self, path: &'a str) -> Option<Parameters<'a>> {
        let mut parameters = Parameters::default();
        let mut segments = path.rsplit('/');
        for template in self.path[1..].rsplit('/') {
            let segment = segments.next()?;
            match template {
                "{user_id}" => {
                    parameters.user = match decoded(segment) {
                        Ok(user) if user.is_empty() || SHADOWED_USERS.contains(&&*user) => return None,
                        Ok(user) => PathUser::Named(user),
                        Err(_) => PathUser::Unreadable,
                    };
                }
                "{id}" => {
                    if segment.is_empty() {
                        return None;
                    }
                    // A segment that is not UTF-8 is read as empty, which is no UUID either.
                    parameters.id = Some(decoded(segment).unwrap_or(Cow::Borrowed("")));
                }
                text if text == segment => {}
                _ => return None,
            }
        }
        // The rest is the mount's prefix, which a slash separates from the template.
        segments.next().map(|_| parameters)
    }
}

/// Decodes a percent-encoded segment, without a copy if it has no `%`.
fn decoded(segment: &str) -> Result<Cow<'_, str>, std::str::Utf8Error> {
    if segment.contains('%') { percent_decode_str(segment).decode_utf8() } else { Ok(Cow::Borrowed(segment)) }
}

/// Finds the resource of a path below the mount, for the adapters of frameworks that do not route by templates.
///
/// It also finds paths that [almost match](Resource::near_misses), so that they get the API's 404 in every framework.
/// All other paths belong to the host.
///
/// ```
/// use todo_core::api::{RESOURCES, find_resource};
///
/// assert_eq!(find_resource(RESOURCES, "/tasks/7").map(|resource| resource.path), Some("/tasks/{id}"));
/// assert_eq!(find_resource(RESOURCES, "/tasks/").map(|resource| resource.path), Some("/tasks"));
/// assert!(find_resource(RESOURCES, "/elsewhere").is_none());
/// ```
#[must_use]
pub fn find_resource(resources: &'static [Resource], path: &str) -> Option<&'static Resource> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let same = |(template, segment): (&str, &str)| template == segment || template.starts_with('{');
    resources.iter().find(|resource| {
        resource.path.matches('/').count() == path.matches('/').count()
            && resource.path.split('/').zip(path.split('/')).all(same)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static Resource> {
        let resources = RESOURCES.iter().chain(PROBES);
        #[cfg(feature = "openapi")]
        let resources = resources.chain(DOCS);
        resources
    }

    /// The order of the methods in every `Allow`.
    const METHODS_IN_ORDER: [Method; 7] =
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

    #[test]
    fn allow_lists_the_methods_of_the_path_in_a_fixed_order() {
        for resource in all() {
            let methods = METHODS_IN_ORDER
                .iter()
                .filter(|method| **method == Method::OPTIONS || resource.operation(method).is_some())
                .map(Method::as_str)
                .collect::<Vec<_>>();
            assert_eq!(resource.allow, methods.join(", "), "{}", resource.path);
        }
    }

    #[test]
    fn paths_are_read_from_their_right_end() {
        let resource = RESOURCES.iter().find(|resource| resource.path == "/{user_id}/tasks/{id}").expect("a resource");
        for prefix in ["", "/api", "/api/v1", "//", "/tasks"] {
            let path = format!("{prefix}/auth0%7C1/tasks/7");
            let parameters = resource.parameters(&path).expect(&path);
            assert_eq!(parameters.user, PathUser::Named("auth0|1".into()));
            assert_eq!(parameters.id, Some("7".into()));
        }
    }

    #[test]
    fn paths_that_almost_match_do_not_match() {
        let at = |template: &str| RESOURCES.iter().find(|resource| resource.path == template).expect("a resource");
        for (template, path) in [
            ("/tasks", "/tasks/"),
            ("/tasks", "/tasks//"),
            ("/tasks", "tasks"),
            ("/tasks", "/Tasks"),
            ("/tasks", "/t%61sks"),
            ("/tasks/{id}", "/tasks/"),
            ("/tasks/{id}", "/tasks/7/"),
            ("/tasks/{id}/complete", "/tasks//complete"),
            ("/{user_id}/tasks", "//tasks"),
            ("/{user_id}/tasks", "/auth/tasks"),
            ("/{user_id}/tasks", "/%61uth/tasks"),
            ("/{user_id}/tasks", "/tasks/tasks"),
        ] {
            assert!(!at(template).matches(path), "{path} as {template}");
        }
    }

    #[test]
    fn near_misses_are_unique_and_never_match() {
        let mut seen = std::collections::BTreeSet::new();
        for resource in all() {
            for path in resource.near_misses() {
                assert!(!resource.matches(&path.replace("{user_id}", "ann").replace("{id}", "7")), "{path}");
                assert!(seen.insert(path.clone()), "{path} twice");
            }
        }
        for path in
            ["/tasks/", "/tasks//", "/tasks/{id}/", "//tasks", "/{user_id}/tasks//complete", "//tasks//complete/"]
        {
            assert!(seen.contains(path), "{path}");
        }
    }

    #[test]
    fn resources_are_found_by_their_paths_and_near_misses() {
        for resource in all() {
            for path in resource.near_misses().chain([resource.path.to_owned()]) {
                let path = path.replace("{user_id}", "ann").replace("{id}", "7");
                let found = find_resource(RESOURCES, &path).or_else(|| find_resource(PROBES, &path));
                #[cfg(feature = "openapi")]
                let found = found.or_else(|| find_resource(DOCS, &path));
                assert_eq!(found.map(|found| found.path), Some(resource.path), "{path}");
            }
        }
        for path in
            ["", "/", "//", "/task", "/tasks/7/done", "/a/b/tasks", "/auth", "/auth/session/x", "/tasks///", "tasks"]
        {
            assert_eq!(find_resource(RESOURCES, path).map(|found| found.path), None, "{path}");
        }
    }

    #[test]
    fn an_encoded_slash_is_part_of_the_user_id() {
        let resource = RESOURCES.iter().find(|resource| resource.path == "/{user_id}/tasks").expect("a resource");
        assert_eq!(resource.parameters("/a%2Fb/tasks").expect("a match").user, PathUser::Named("a/b".into()));
        assert_eq!(resource.parameters("/%FF/tasks").expect("a match").user, PathUser::Unreadable);
    }
}
