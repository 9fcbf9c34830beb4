//! The cases for adapters: what goes over the wire, to the letter.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::{
    Page, Task, TaskId, TaskQuery, TodoService, UserId,
    api::TodoApi,
    auth::{Gate, GateError, Identity, JwtVerifier, KeySource, Quota, Verdict},
    clock::{Clock as _, SystemClock, Timestamp},
    store::{StoreError, TaskChange, TaskStore},
};

/// One test for each case. The argument is a function `async fn(case: impl AsyncFnOnce(&dyn App))`, which makes an
/// [`App`] of [`api`] over an empty store and calls the case with it.
#[macro_export]
macro_rules! api_conformance {
    ($with_app:path) => {
        $crate::api_conformance! { @ $with_app;
            a_task_lives_its_life
            every_path_exists_in_both_shapes
            a_new_task_has_defaults
            a_replacement_leaves_completion_alone_unless_it_names_it
            a_merge_patch_tells_absent_from_null
            completion_is_toggled_or_set
            a_list_is_an_array_newest_first
            pages_are_linked
            links_and_locations_lead_on_from_where_they_were_found
            a_filter_stays_in_the_link
            the_session_says_who_is_asking
            probes_need_no_credential
            other_users_tasks_are_as_if_they_were_not_there
            another_users_path_is_forbidden_whatever_else_is_wrong
            a_path_with_the_callers_own_id_is_the_callers
            user_ids_in_paths_are_percent_encoded
            user_ids_that_are_segments_of_ours_are_shadowed
            no_credential_is_unauthenticated
            two_credentials_are_none
            the_scheme_is_bearer_in_any_case
            a_bad_token_is_invalid
            an_old_token_is_expired
            a_revoked_token_is_revoked
            a_hasty_user_is_rate_limited
            who_has_a_quota_is_told_what_is_left
            who_has_no_quota_left_is_rate_limited
            no_credential_comes_before_all_but_path_and_method
            unknown_methods_are_told_the_known
            options_need_no_credential
            head_is_get_without_its_body
            near_misses_are_not_found
            an_id_that_is_no_uuid_is_named
            a_task_that_is_not_there_is_not_found
            a_body_that_is_not_json_is_malformed
            a_body_that_is_no_object_is_named
            other_content_types_are_unsupported
            content_types_of_json_are_supported
            an_empty_body_is_not_judged_by_its_type
            a_body_over_the_limit_is_too_large
            a_body_at_the_limit_is_read
            every_wrong_field_is_named_at_once
            wrong_values_of_each_field_are_named
            a_field_given_twice_is_named
            fields_of_the_server_are_refused
            query_parameters_are_checked
            nul_is_a_wrong_value_and_no_fault
            texts_are_kept_as_they_are
            limits_are_counted_in_characters
            bodies_of_get_and_delete_mean_nothing
            a_refused_write_writes_nothing
            a_store_that_is_away_is_unavailable
            a_store_that_is_slow_times_out
            a_store_that_fails_says_nothing_of_why
            responses_are_for_no_cache
        }
    };
    (@ $with_app:path; $($case:ident)+) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $with_app(async |app| $crate::conformance::api::$case(app).await).await;
        }
    )+ };
}

/// One test for each case of the documentation (feature `openapi`), as [`api_conformance!`](crate::api_conformance).
#[cfg(feature = "openapi")]
#[macro_export]
macro_rules! docs_conformance {
    ($with_app:path) => {
        $crate::api_conformance! { @ $with_app;
            the_document_is_there_for_everybody
            the_page_needs_nothing_from_elsewhere
            a_file_that_is_known_is_not_sent_again
            documents_are_only_read
        }
    };
}

/// A [`TodoApi`] served by a framework: mounted under `/api/v1`, with the probes at the root, and the documentation where
/// [`docs_conformance!`](crate::docs_conformance) is run.
///
/// An implementation hands requests over as they are and repairs nothing in the answers.
#[async_trait]
pub trait App: Sync {
    /// Answers a request whose target is a path, byte for byte, and perhaps a query.
    async fn call(&self, request: Request<Bytes>) -> http::Response<Bytes>;
}

const SECRET: &str = "the shared secret of the suite for adapters";

/// What the suite tests: the API over this store, with the users, tokens and faults that the cases know.
pub fn api(store: impl TaskStore + 'static) -> TodoApi {
    let verifier = JwtVerifier::builder().source(KeySource::secrets([SECRET]).unwrap()).build().unwrap();
    TodoApi::new(TodoService::new(Faulty(store)), verifier).with_gate(Doorkeeper)
}

/// A token for this user, good for an hour.
#[must_use]
pub fn token(user: &str) -> String {
    sign(&json!({"sub": user, "iat": now(), "exp": now() + 3600}))
}

fn now() -> i64 {
    SystemClock.now().unix_seconds()
}

fn sign(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

/// Users whom the gate does not let in.
#[derive(Debug)]
struct Doorkeeper;

#[async_trait]
impl Gate for Doorkeeper {
    async fn judge(&self, identity: &Identity) -> Result<Verdict, GateError> {
        Ok(match identity.user_id.as_str() {
            "disabled" => Verdict::Deny,
            "signed-out" if identity.issued_before(Timestamp::from_unix_seconds(now() + 60)) => Verdict::Deny,
            "hasty" => Verdict::RateLimited { retry_after: Duration::from_millis(2500) },
            "metered" => Verdict::Quota(quota(7)),
            "spent" => Verdict::Quota(quota(0).refused(Duration::from_millis(1200))),
            _ => Verdict::Allow,
        })
    }
}

/// Of ten requests in a minute so many are left.
fn quota(remaining: u32) -> Quota {
    let spent = Duration::from_secs(6) * (10 - remaining);
    Quota::new(10, Duration::from_mins(1)).remaining(remaining, spent.saturating_sub(Duration::from_millis(1)))
}

/// A store with users for whom it does not work.
#[derive(Debug)]
struct Faulty<S>(S);

impl<S> Faulty<S> {
    fn fault(owner: &UserId) -> Result<(), StoreError> {
        let cause = || "the secret cause of the fault".into();
        match owner.as_str() {
            "store-away" => Err(StoreError::Unavailable(cause())),
            "store-slow" => Err(StoreError::Timeout(cause())),
            "store-broken" => Err(StoreError::Backend(cause())),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl<S: TaskStore> TaskStore for Faulty<S> {
    async fn insert(&self, owner: &UserId, task: &Task) -> Result<bool, StoreError> {
        Self::fault(owner)?;
        self.0.insert(owner, task).await
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        Self::fault(owner)?;
        self.0.get(owner, id).await
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError> {
        Self::fault(owner)?;
        self.0.list(owner, query).await
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        Self::fault(owner)?;
        self.0.update(owner, id, change, now).await
    }

    async fn delete(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError> {
        Self::fault(owner)?;
        self.0.delete(owner, id).await
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        Self::fault(owner)?;
        self.0.erase(owner).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.ping().await
    }
}

/// What came back.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    #[track_caller]
    fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().unwrap_or_else(|| panic!("no {name} in {:?}", self.headers));
        assert!(values.next().is_none(), "{name} twice");
        value.to_str().unwrap()
    }

    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.header("content-length"), self.body.len().to_string());
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// The JSON body of a success.
    #[track_caller]
    fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{:?}", self.body);
        assert_eq!(self.header("content-type"), "application/json");
        self.json()
    }

    /// Checks a problem to the letter.
    #[track_caller]
    fn problem(&self, status: u16, title: &str, code: &str, detail: &str) {
        let body = format!(
            r#"{{"type":"about:blank","title":"{title}","status":{status},"detail":"{detail}","code":"{code}"}}"#
        );
        assert_eq!(self.status, status, "{:?}", self.body);
        assert_eq!(self.body, body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.header("content-length"), body.len().to_string());
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(self.headers.contains_key("www-authenticate"), status == 401);
        assert_eq!(self.headers.contains_key("allow"), status == 405);
        assert_eq!(self.headers.contains_key("retry-after"), status == 429 || status == 503);
    }

    #[track_caller]
    fn unauthenticated(&self) {
        self.problem(401, "Unauthorized", "unauthenticated", "Send one bearer token in the Authorization header.");
        assert_eq!(self.header("www-authenticate"), "Bearer");
    }

    #[track_caller]
    fn token_invalid(&self) {
        self.problem(401, "Unauthorized", "token_invalid", "The token is not valid.");
        assert_eq!(
            self.header("www-authenticate"),
            r#"Bearer error="invalid_token", error_description="The token is not valid.""#
        );
    }

    #[track_caller]
    fn forbidden(&self) {
        self.problem(403, "Forbidden", "forbidden", "The path names another user than the token.");
    }

    #[track_caller]
    fn task_not_found(&self) {
        self.problem(404, "Not Found", "task_not_found", "There is no such task.");
    }

    #[track_caller]
    fn not_found(&self) {
        self.problem(404, "Not Found", "not_found", "There is nothing at this path.");
    }

    #[track_caller]
    fn malformed_json(&self) {
        self.problem(400, "Bad Request", "malformed_json", "The body is not JSON.");
    }

    #[track_caller]
    fn unsupported_media_type(&self) {
        assert_eq!((self.status.as_u16(), &self.json()["code"]), (415, &json!("unsupported_media_type")));
    }

    /// Checks a refusal of fields to the letter.
    #[track_caller]
    fn validation_failed(&self, field_errors: &[(&str, &[&str])]) {
        let sentence: Vec<_> = field_errors
            .iter()
            .flat_map(|(field, messages)| messages.iter().map(move |message| format!("{field} {message}")))
            .collect();
        let fields: serde_json::Map<_, _> =
            field_errors.iter().map(|(field, messages)| ((*field).to_owned(), json!(messages))).collect();
        let body = format!(
            r#"{{"type":"about:blank","title":"Unprocessable Entity","status":422,"detail":{},"code":"validation_failed","field_errors":{}}}"#,
            json!(format!("{}.", sentence.join("; "))),
            Value::from(fields)
        );
        assert_eq!(self.status, 422, "{:?}", self.body);
        assert_eq!(self.body, body);
        assert_eq!(self.header("content-type"), "application/problem+json");
    }
}

/// One user's view of the app.
struct Client<'a> {
    app: &'a dyn App,
    authorization: Option<String>,
}

fn client<'a>(app: &'a dyn App, user: &str) -> Client<'a> {
    Client { app, authorization: Some(format!("Bearer {}", token(user))) }
}

impl Client<'_> {
    async fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = Request::builder().method(method).uri(target);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.app.call(request.body(Bytes::copy_from_slice(body)).unwrap()).await;
        let (head, body) = response.into_parts();
        Reply { status: head.status, headers: head.headers, body }
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.send_text(method, path, &body.to_string()).await
    }

    async fn send_text(&self, method: &str, path: &str, body: &str) -> Reply {
        let headers = [("content-type", "application/json")];
        self.request(method, &format!("/api/v1{path}"), &headers, body.as_bytes()).await
    }

    async fn bare(&self, method: &str, path: &str) -> Reply {
        self.request(method, &format!("/api/v1{path}"), &[], b"").await
    }

    async fn get(&self, path: &str) -> Reply {
        self.bare("GET", path).await
    }

    /// A task with this title; its JSON.
    async fn create(&self, title: &str) -> Value {
        self.send("POST", "/tasks", &json!({"title": title})).await.ok(201)
    }
}

fn path(task: &Value) -> String {
    format!("/tasks/{}", task["id"].as_str().unwrap())
}

/// An id that no task has.
const NOBODYS: &str = "019aa3f0-5c00-7000-8000-000000000000";

/// The requests that need a task's id, with a body that is good.
const ON_A_TASK: [(&str, &str, &str); 5] = [
    ("GET", "", ""),
    ("PUT", "", r#"{"title":"Replaced"}"#),
    ("PATCH", "", r#"{"title":"Patched"}"#),
    ("PATCH", "/complete", ""),
    ("DELETE", "", ""),
];

/// Created, listed, read, replaced, patched, completed, deleted.
pub async fn a_task_lives_its_life(app: &dyn App) {
    let ann = client(app, "ann");
    let created = ann.send("POST", "/tasks", &json!({"title": " Buy milk ", "description": "Two bottles"})).await;
    let task = created.ok(201);
    assert_eq!(created.header("location"), format!("tasks/{}", task["id"].as_str().unwrap()));
    assert_eq!(
        (&task["title"], &task["description"], &task["user_id"], &task["completed"], &task["version"]),
        (&json!("Buy milk"), &json!("Two bottles"), &json!("ann"), &json!(false), &json!(1))
    );
    let path = path(&task);
    assert_eq!(ann.get(&path).await.ok(200), task);
    assert_eq!(ann.get("/tasks").await.ok(200), json!([task]));

    let replaced = ann.send("PUT", &path, &json!({"title": "Buy bread"})).await.ok(200);
    assert_eq!((&replaced["title"], &replaced["description"]), (&json!("Buy bread"), &Value::Null));
    assert_eq!((&replaced["version"], &replaced["created_at"]), (&json!(2), &task["created_at"]));
    let patched = ann.send("PATCH", &path, &json!({"description": "Rye"})).await.ok(200);
    assert_eq!((&patched["title"], &patched["description"]), (&json!("Buy bread"), &json!("Rye")));
    assert_eq!(ann.bare("PATCH", &format!("{path}/complete")).await.ok(200)["completed"], true);
    assert_eq!(ann.get(&path).await.ok(200)["version"], 4);

    let deleted = ann.bare("DELETE", &path).await;
    assert_eq!((deleted.status.as_u16(), &*deleted.body), (204, &b""[..]));
    assert!(!deleted.headers.contains_key("content-length") && !deleted.headers.contains_key("content-type"));
    ann.get(&path).await.task_not_found();
    assert_eq!(ann.get("/tasks").await.ok(200), json!([]));
}

/// With the user's id before it, each path does the same to the same tasks.
pub async fn every_path_exists_in_both_shapes(app: &dyn App) {
    let ann = client(app, "ann");
    for (here, there) in [("", "/ann"), ("/ann", "")] {
        let task = ann.send("POST", &format!("{here}/tasks"), &json!({"title": "Both"})).await.ok(201);
        let path = path(&task);
        assert_eq!(ann.get(&format!("{there}/tasks")).await.ok(200), json!([task]));
        assert_eq!(ann.get(&format!("{there}{path}")).await.ok(200), task);
        let put = ann.send("PUT", &format!("{here}{path}"), &json!({"title": "Put"})).await.ok(200);
        assert_eq!(ann.get(&format!("{there}{path}")).await.ok(200), put);
        let patched = ann.send("PATCH", &format!("{here}{path}"), &json!({"title": "Patched"})).await.ok(200);
        assert_eq!(ann.get(&format!("{there}{path}")).await.ok(200), patched);
        let done = ann.bare("PATCH", &format!("{here}{path}/complete")).await.ok(200);
        assert_eq!(
            (&done["completed"], ann.get(&format!("{there}{path}")).await.ok(200)),
            (&json!(true), done.clone())
        );
        assert_eq!(ann.bare("DELETE", &format!("{here}{path}")).await.status, 204);
        ann.get(&format!("{there}{path}")).await.task_not_found();
    }
}

/// Only a title is needed; the names and forms of the fields are these, in this order.
pub async fn a_new_task_has_defaults(app: &dyn App) {
    let ann = client(app, "ann");
    let reply = ann.send("POST", "/tasks", &json!({"title": "Only a title"})).await;
    let task = reply.ok(201);
    let (id, created_at) = (task["id"].as_str().unwrap(), task["created_at"].as_str().unwrap());
    let body = format!(
        r#"{{"id":"{id}","user_id":"ann","title":"Only a title","description":null,"completed":false,"created_at":"{created_at}","updated_at":"{created_at}","version":1}}"#
    );
    assert_eq!(reply.body, body);
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
    assert!(created_at.ends_with('Z') && created_at.parse::<Timestamp>().is_ok(), "{created_at}");
    let done = ann.send("POST", "/tasks", &json!({"title": "Done", "completed": true, "description": null})).await;
    assert_eq!(done.ok(201)["completed"], true);
}

/// PUT without `completed` does not reopen a task; without `description` it removes one.
pub async fn a_replacement_leaves_completion_alone_unless_it_names_it(app: &dyn App) {
    let ann = client(app, "ann");
    let task = ann.send("POST", "/tasks", &json!({"title": "A", "description": "B", "completed": true})).await.ok(201);
    let path = path(&task);
    let replaced = ann.send("PUT", &path, &json!({"title": "C"})).await.ok(200);
    assert_eq!((&replaced["completed"], &replaced["description"]), (&json!(true), &Value::Null));
    let replaced = ann.send("PUT", &path, &json!({"title": "C", "completed": false, "description": ""})).await.ok(200);
    assert_eq!((&replaced["completed"], &replaced["description"]), (&json!(false), &json!("")));
    let again = ann.send("PUT", &path, &json!({"title": "C", "description": ""})).await.ok(200);
    assert_eq!(again, replaced, "what changes nothing is no change");
    ann.send("PUT", &path, &json!({"description": "no title"})).await.validation_failed(&[("title", &["is required"])]);
}

/// PATCH: what is absent stays, null clears, a value is set (RFC 7396).
pub async fn a_merge_patch_tells_absent_from_null(app: &dyn App) {
    let ann = client(app, "ann");
    let task = ann.send("POST", "/tasks", &json!({"title": "A", "description": "B"})).await.ok(201);
    let path = path(&task);
    assert_eq!(ann.send("PATCH", &path, &json!({})).await.ok(200), task);
    let patched = ann.send("PATCH", &path, &json!({"title": "C"})).await.ok(200);
    assert_eq!((&patched["title"], &patched["description"]), (&json!("C"), &json!("B")));
    assert_eq!(ann.send("PATCH", &path, &json!({"description": null})).await.ok(200)["description"], Value::Null);
    assert_eq!(ann.send("PATCH", &path, &json!({"description": ""})).await.ok(200)["description"], "");
    assert_eq!(ann.send("PATCH", &path, &json!({"completed": true})).await.ok(200)["completed"], true);
    let nulls = ann.send("PATCH", &path, &json!({"title": null, "completed": null})).await;
    nulls.validation_failed(&[("completed", &["must be true or false"]), ("title", &["must be a string"])]);
}

/// Without a body, or with an empty object, it toggles; with a value it sets, and to set twice is to set once.
pub async fn completion_is_toggled_or_set(app: &dyn App) {
    let ann = client(app, "ann");
    let path = format!("{}/complete", path(&ann.create("Complete me").await));
    assert_eq!(ann.bare("PATCH", &path).await.ok(200)["completed"], true);
    assert_eq!(ann.send("PATCH", &path, &json!({})).await.ok(200)["completed"], false);
    for completed in [true, true, false, false] {
        assert_eq!(ann.send("PATCH", &path, &json!({"completed": completed})).await.ok(200)["completed"], completed);
    }
    assert_eq!(ann.bare("PATCH", &path).await.ok(200)["version"], 6, "two of them changed nothing");
    for wrong in [json!(null), json!(1), json!("true")] {
        let reply = ann.send("PATCH", &path, &json!({"completed": wrong})).await;
        reply.validation_failed(&[("completed", &["must be true or false"])]);
    }
    ann.send("PATCH", &path, &json!({"title": "x"})).await.validation_failed(&[("title", &["is unknown"])]);
}

/// A bare array, without an envelope.
pub async fn a_list_is_an_array_newest_first(app: &dyn App) {
    let ann = client(app, "ann");
    let reply = ann.get("/tasks").await;
    assert_eq!((reply.ok(200), &*reply.body), (json!([]), &b"[]"[..]));
    let mut tasks = Vec::new();
    for number in 0..5 {
        tasks.push(ann.create(&format!("Task {number}")).await);
    }
    tasks.reverse();
    let reply = ann.get("/tasks").await;
    assert_eq!(reply.ok(200), Value::from(tasks));
    assert!(!reply.headers.contains_key("link"), "there is no more");
}

fn next(reply: &Reply) -> Option<String> {
    reply.headers.contains_key("link").then(|| {
        let link = reply.header("link");
        link.strip_prefix('<').and_then(|link| link.strip_suffix(r#">; rel="next""#)).expect(link).to_owned()
    })
}

/// As long as there is more, `Link` says where.
pub async fn pages_are_linked(app: &dyn App) {
    let ann = client(app, "ann");
    for number in 0..7 {
        ann.create(&format!("Task {number}")).await;
    }
    let mut query = "?limit=3".to_owned();
    let mut titles = Vec::new();
    for length in [3, 3, 1] {
        let reply = ann.get(&format!("/tasks{query}")).await;
        let page = reply.ok(200);
        let page = page.as_array().unwrap();
        assert_eq!(page.len(), length);
        titles.extend(page.iter().map(|task| task["title"].as_str().unwrap().to_owned()));
        match next(&reply) {
            Some(link) => query = link,
            None => query.clear(),
        }
    }
    assert_eq!(query, "");
    assert_eq!(titles, (0..7).rev().map(|number| format!("Task {number}")).collect::<Vec<_>>());
    // Exactly full is not more.
    assert_eq!(next(&ann.get("/tasks?limit=7").await), None);
}

/// They are relative references, to be resolved against the URL that was asked for (RFC 3986, section 5).
pub async fn links_and_locations_lead_on_from_where_they_were_found(app: &dyn App) {
    let ann = client(app, "ann");
    for shape in ["", "/ann"] {
        let reply = ann.send("POST", &format!("{shape}/tasks"), &json!({"title": "Find me"})).await;
        let location = reply.header("location");
        assert!(location.starts_with("tasks/"), "{location}");
        // Resolved against `{shape}/tasks`, whose last segment it replaces.
        assert_eq!(ann.get(&format!("{shape}/{location}")).await.ok(200), reply.ok(201));
    }
    let reply = ann.get("/ann/tasks?limit=1").await;
    let link = next(&reply).expect("a second page");
    assert!(link.starts_with("?cursor=") && link.ends_with("&limit=1"), "{link}");
    assert_eq!(ann.get(&format!("/ann/tasks{link}")).await.ok(200).as_array().unwrap().len(), 1);
}

/// The next page is one of the same list.
pub async fn a_filter_stays_in_the_link(app: &dyn App) {
    let ann = client(app, "ann");
    for number in 0..6 {
        let task = json!({"title": format!("Task {number}"), "completed": number % 2 == 0});
        ann.send("POST", "/tasks", &task).await.ok(201);
    }
    let reply = ann.get("/tasks?completed=true&limit=2").await;
    assert_eq!(reply.ok(200).as_array().unwrap().len(), 2);
    let link = next(&reply).expect("a second page");
    assert!(link.ends_with("&limit=2&completed=true"), "{link}");
    let reply = ann.get(&format!("/tasks{link}")).await;
    let page = reply.ok(200);
    assert_eq!((&page[0]["completed"], page.as_array().unwrap().len(), next(&reply)), (&json!(true), 1, None));
}

/// What the token says, and nothing that it does not.
pub async fn the_session_says_who_is_asking(app: &dyn App) {
    let exp = now() + 600;
    let ann = Client {
        app,
        authorization: Some(format!(
            "Bearer {}",
            sign(&json!({"sub": "ann", "exp": exp, "email": "ann@example.com", "name": "Ann", "role": "admin"}))
        )),
    };
    let reply = ann.get("/auth/session").await;
    reply.ok(200);
    let expires_at = Timestamp::from_unix_seconds(exp);
    let body =
        format!(r#"{{"user":{{"id":"ann","email":"ann@example.com","name":"Ann"}},"expires_at":"{expires_at}"}}"#);
    assert_eq!(reply.body, body);
    let bob = client(app, "bob").get("/auth/session").await.ok(200);
    assert_eq!(bob["user"], json!({"id": "bob"}));
}

/// For load balancers, at the root.
pub async fn probes_need_no_credential(app: &dyn App) {
    let nobody = Client { app, authorization: None };
    for (path, body) in
        [("/health", r#"{"status":"ok"}"#), ("/health/ready", r#"{"status":"ready","store":"ok","keys":"ok"}"#)]
    {
        let reply = nobody.request("GET", path, &[], b"").await;
        reply.ok(200);
        assert_eq!(reply.body, body);
        assert_eq!(nobody.request("HEAD", path, &[], b"").await.status, 200);
        assert_eq!(nobody.request("POST", path, &[], b"").await.header("allow"), "GET, HEAD, OPTIONS");
    }
}

/// Every operation on another user's task is answered as on one that nobody has, in both shapes, and does nothing.
pub async fn other_users_tasks_are_as_if_they_were_not_there(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    let task = ann.create("Ann's").await;
    let id = task["id"].as_str().unwrap();
    for shape in ["", "/bob"] {
        for (method, end, body) in ON_A_TASK {
            let (theirs, nobodys) = (format!("{shape}/tasks/{id}{end}"), format!("{shape}/tasks/{NOBODYS}{end}"));
            let theirs = bob.send_text(method, &theirs, body).await;
            theirs.task_not_found();
            let nobodys = bob.send_text(method, &nobodys, body).await;
            let without_date = |mut headers: HeaderMap| {
                headers.remove("date");
                headers
            };
            assert_eq!(theirs.body, nobodys.body);
            assert_eq!(without_date(theirs.headers), without_date(nobodys.headers), "not to be told apart");
        }
        assert_eq!(bob.get(&format!("{shape}/tasks")).await.ok(200), json!([]));
    }
    assert_eq!(ann.get(&path(&task)).await.ok(200), task);
}

/// 403 comes right after the credential: not what is asked, nor whether it exists, makes a difference.
pub async fn another_users_path_is_forbidden_whatever_else_is_wrong(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    let task = ann.create("Ann's").await;
    let id = task["id"].as_str().unwrap();
    bob.get("/ann/tasks").await.forbidden();
    bob.get("/ann/tasks?limit=0&what=ever").await.forbidden();
    bob.send("POST", "/ann/tasks", &json!({"title": "For Ann"})).await.forbidden();
    bob.request("POST", "/api/v1/ann/tasks", &[("content-type", "text/plain")], &vec![b'x'; 70_000]).await.forbidden();
    for (method, end, body) in ON_A_TASK {
        for id in [id, NOBODYS, "no-uuid"] {
            bob.send_text(method, &format!("/ann/tasks/{id}{end}"), body).await.forbidden();
            bob.send_text(method, &format!("/Bob/tasks/{id}{end}"), body).await.forbidden();
        }
    }
    bob.get("/%FF/tasks").await.forbidden();
    bob.get("/bob%00/tasks").await.forbidden();
    bob.get("/bob%20/tasks").await.forbidden();
    assert_eq!(ann.get("/tasks").await.ok(200), json!([task]));
}

/// The other side of the coin.
pub async fn a_path_with_the_callers_own_id_is_the_callers(app: &dyn App) {
    let ann = client(app, "ann");
    let task = ann.create("Mine").await;
    assert_eq!(ann.get("/ann/tasks").await.ok(200), json!([task]));
    // `%6E` is `n`: the same id, written differently (RFC 3986, section 6.2.2.2).
    assert_eq!(ann.get("/a%6E%6e/tasks").await.ok(200), json!([task]));
}

/// Any character may be part of an id.
pub async fn user_ids_in_paths_are_percent_encoded(app: &dyn App) {
    let users = [
        ("auth0|5f7c", "auth0%7C5f7c"),
        ("a/b", "a%2Fb"),
        ("a/tasks", "a%2Ftasks"),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("a b+c", "a%20b+c"),
        ("a?b#c", "a%3Fb%23c"),
        ("ünï", "%C3%BCn%C3%AF"),
        ("..", "%2E%2E"),
        ("{user_id}", "%7Buser_id%7D"),
        (":id", ":id"),
        ("a;b=c", "a;b=c"),
        ("1", "1"),
    ];
    for (user, encoded) in users {
        let client = client(app, user);
        let task = client.send("POST", &format!("/{encoded}/tasks"), &json!({"title": user})).await.ok(201);
        assert_eq!(task["user_id"], user);
        assert_eq!(client.get(&format!("/{encoded}{}", path(&task))).await.ok(200), task, "{user}");
        assert_eq!(client.get("/tasks").await.ok(200), json!([task]), "{user}");
    }
}

/// Text wins over a parameter, in every framework: these users have the flat paths only.
pub async fn user_ids_that_are_segments_of_ours_are_shadowed(app: &dyn App) {
    for user in ["tasks", "auth"] {
        let client = client(app, user);
        let task = client.create("Reachable").await;
        assert_eq!(client.get(&path(&task)).await.ok(200), task);
    }
    let tasks = client(app, "tasks");
    tasks.get("/tasks/tasks").await.validation_failed(&[("id", &["must be a UUID"])]);
    tasks.get("/%74asks/tasks").await.not_found();
    let auth = client(app, "auth");
    auth.get("/auth/tasks").await.not_found();
    auth.get(&format!("/auth/tasks/{NOBODYS}")).await.not_found();
    auth.bare("PATCH", &format!("/auth/tasks/{NOBODYS}/complete")).await.not_found();
}

/// No header, another scheme, or a scheme without a token. RFC 6750, section 3.1: no error is named.
pub async fn no_credential_is_unauthenticated(app: &dyn App) {
    for authorization in [None, Some("Basic YW5uOmFubg=="), Some("Bearer"), Some("Bearer "), Some("Bearerx"), Some("")]
    {
        let nobody = Client { app, authorization: authorization.map(str::to_owned) };
        nobody.get("/tasks").await.unauthenticated();
        nobody.get("/auth/session").await.unauthenticated();
        nobody.get("/ann/tasks").await.unauthenticated();
    }
    // Not a source of credentials (RFC 6750, section 2.3, discourages it).
    let nobody = Client { app, authorization: None };
    nobody.get(&format!("/tasks?access_token={}", token("ann"))).await.unauthenticated();
}

/// Which of them would count is nobody's guess, even if they are equal.
pub async fn two_credentials_are_none(app: &dyn App) {
    let ann = client(app, "ann");
    for other in ["ann", "bob"] {
        let other = format!("Bearer {}", token(other));
        ann.request("GET", "/api/v1/tasks", &[("authorization", &other)], b"").await.unauthenticated();
    }
}

/// RFC 9110, section 11.1.
pub async fn the_scheme_is_bearer_in_any_case(app: &dyn App) {
    for scheme in ["bearer", "BEARER", "Bearer ", "bEaReR"] {
        let ann = Client { app, authorization: Some(format!("{scheme} {}", token("ann"))) };
        ann.get("/tasks").await.ok(200);
    }
}

/// Broken, of another key, without a user: the answer is the same.
pub async fn a_bad_token_is_invalid(app: &dyn App) {
    let good = token("ann");
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let other_key = jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &json!({"sub": "ann", "exp": now() + 60}),
        &jsonwebtoken::EncodingKey::from_secret(b"another secret of thirty-two bytes"),
    );
    let bad = [
        "nonsense".to_owned(),
        signed.to_owned(),
        format!("{signed}."),
        format!("{good}.x"),
        format!("{good} x"),
        format!("{header}.{claims}A.{signature}"),
        format!("eyJhbGciOiJub25lIn0.{claims}."),
        format!("{header}.{claims}.{}", signature.to_lowercase()),
        other_key.unwrap(),
        sign(&json!({"exp": now() + 60})),
        sign(&json!({"sub": "", "exp": now() + 60})),
        sign(&json!({"sub": 1, "exp": now() + 60})),
        sign(&json!({"sub": "a\u{0}", "exp": now() + 60})),
        sign(&json!({"sub": "ann"})),
        sign(&json!({"sub": "ann", "exp": "tomorrow"})),
        sign(&json!({"sub": "ann", "exp": now() + 60, "nbf": now() + 50})),
        sign(&json!({"sub": "ann", "exp": now() + 60, "padding": "x".repeat(13_000)})),
    ];
    for token in bad {
        let ann = Client { app, authorization: Some(format!("Bearer {token}")) };
        ann.get("/tasks").await.token_invalid();
    }
}

/// Told apart from an invalid one, so that a client knows to fetch another.
pub async fn an_old_token_is_expired(app: &dyn App) {
    let ann =
        Client { app, authorization: Some(format!("Bearer {}", sign(&json!({"sub": "ann", "exp": now() - 60})))) };
    let reply = ann.get("/tasks").await;
    reply.problem(401, "Unauthorized", "token_expired", "The token has expired.");
    assert_eq!(
        reply.header("www-authenticate"),
        r#"Bearer error="invalid_token", error_description="The token has expired.""#
    );
    // Clocks differ by a little.
    let ann = Client {
        app,
        authorization: Some(format!("Bearer {}", sign(&json!({"sub": "ann", "exp": now() - 5, "nbf": now() + 5})))),
    };
    ann.get("/tasks").await.ok(200);
}

/// The gate has the last word: of a user, or of tokens from before a moment.
pub async fn a_revoked_token_is_revoked(app: &dyn App) {
    for user in ["disabled", "signed-out"] {
        let reply = client(app, user).get("/tasks").await;
        reply.problem(401, "Unauthorized", "token_revoked", "The token has been revoked.");
        assert_eq!(
            reply.header("www-authenticate"),
            r#"Bearer error="invalid_token", error_description="The token has been revoked.""#
        );
    }
    let bearer = |claims| Client { app, authorization: Some(format!("Bearer {}", sign(&claims))) };
    bearer(json!({"sub": "signed-out", "exp": now() + 600, "iat": now() + 120})).get("/tasks").await.ok(200);
    // Without `iat` nobody knows, so it is denied.
    let reply = bearer(json!({"sub": "signed-out", "exp": now() + 600})).get("/tasks").await;
    assert_eq!(reply.json()["code"], "token_revoked");
}

/// The time is rounded up to whole seconds.
pub async fn a_hasty_user_is_rate_limited(app: &dyn App) {
    let reply = client(app, "hasty").get("/tasks").await;
    reply.problem(429, "Too Many Requests", "rate_limited", "Too many requests; try again later.");
    assert_eq!(reply.header("retry-after"), "3");
}

/// Whatever the answer is, but not before it is known who asks.
pub async fn who_has_a_quota_is_told_what_is_left(app: &dyn App) {
    let metered = client(app, "metered");
    let task = metered.create("Metered").await;
    let nobodys = format!("/tasks/{NOBODYS}");
    for (method, path, status) in [
        ("GET", "/tasks", 200),
        ("HEAD", "/tasks", 200),
        ("GET", "/auth/session", 200),
        ("PATCH", &*format!("{}/complete", path(&task)), 200),
        ("DELETE", &*path(&task), 204),
        ("GET", &*nobodys, 404),
        ("GET", "/tasks?limit=0", 422),
        ("GET", "/ann/tasks", 403),
        ("POST", "/tasks", 415),
    ] {
        let body: &[u8] = if method == "POST" { b"title" } else { b"" };
        let reply = metered.request(method, &format!("/api/v1{path}"), &[], body).await;
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(reply.header("ratelimit-policy"), r#""user";q=10;w=60"#, "{method} {path}");
        assert_eq!(reply.header("ratelimit"), r#""user";r=7;t=18"#, "{method} {path}");
    }
    for (method, path) in [("BREW", "/tasks"), ("OPTIONS", "/tasks"), ("GET", "/tasks/")] {
        let reply = metered.bare(method, path).await;
        assert!(!reply.headers.contains_key("ratelimit"), "{method} {path}");
    }
    assert!(!client(app, "ann").get("/tasks").await.headers.contains_key("ratelimit"));
}

/// Reads and writes alike.
pub async fn who_has_no_quota_left_is_rate_limited(app: &dyn App) {
    let spent = client(app, "spent");
    for (method, path) in [("GET", "/tasks"), ("POST", "/tasks"), ("GET", "/ann/tasks"), ("GET", "/auth/session")] {
        let reply = spent.bare(method, path).await;
        reply.problem(429, "Too Many Requests", "rate_limited", "Too many requests; try again later.");
        assert_eq!(reply.header("retry-after"), "2", "rounded up");
        assert_eq!(reply.header("ratelimit-policy"), r#""user";q=10;w=60"#);
        assert_eq!(reply.header("ratelimit"), r#""user";r=0;t=60"#);
    }
}

/// Whoever is not known learns neither whether a task exists nor whether a body is good.
pub async fn no_credential_comes_before_all_but_path_and_method(app: &dyn App) {
    let task = client(app, "ann").create("Ann's").await;
    let nobody = Client { app, authorization: None };
    for shape in ["", "/ann"] {
        for (method, end, body) in ON_A_TASK {
            for id in [task["id"].as_str().unwrap(), NOBODYS, "no-uuid"] {
                nobody.send_text(method, &format!("{shape}/tasks/{id}{end}"), body).await.unauthenticated();
            }
        }
        nobody.get(&format!("{shape}/tasks?limit=0")).await.unauthenticated();
        nobody.send_text("POST", &format!("{shape}/tasks"), "{").await.unauthenticated();
    }
    assert_eq!(nobody.bare("DELETE", "/tasks").await.status, 405);
    nobody.get("/tasks/").await.not_found();
}

/// In one fixed order, with HEAD and OPTIONS.
pub async fn unknown_methods_are_told_the_known(app: &dyn App) {
    let ann = client(app, "ann");
    let task = format!("/tasks/{NOBODYS}");
    let known = [
        ("/tasks".to_owned(), "GET, HEAD, POST, OPTIONS"),
        (task.clone(), "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"),
        (format!("{task}/complete"), "PATCH, OPTIONS"),
        ("/auth/session".to_owned(), "GET, HEAD, OPTIONS"),
        ("/ann/tasks".to_owned(), "GET, HEAD, POST, OPTIONS"),
        (format!("/ann{task}"), "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"),
        (format!("/ann{task}/complete"), "PATCH, OPTIONS"),
    ];
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY", "get"];
    for (path, allow) in known {
        for method in methods.into_iter().filter(|method| !allow.split(", ").any(|known| known == *method)) {
            let reply = ann.bare(method, &path).await;
            let detail = format!("This path answers to {allow}.");
            reply.problem(405, "Method Not Allowed", "method_not_allowed", &detail);
            assert_eq!(reply.header("allow"), allow, "{method} {path}");
        }
    }
    // HEAD where there is no GET.
    let reply = ann.bare("HEAD", &format!("{task}/complete")).await;
    assert_eq!((reply.status.as_u16(), reply.header("allow"), reply.body.len()), (405, "PATCH, OPTIONS", 0));
}

/// OPTIONS that is no preflight.
pub async fn options_need_no_credential(app: &dyn App) {
    let nobody = Client { app, authorization: None };
    for (path, allow) in [
        ("/tasks", "GET, HEAD, POST, OPTIONS"),
        ("/ann/tasks/no-uuid", "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"),
        ("/tasks/no-uuid/complete", "PATCH, OPTIONS"),
        ("/auth/session", "GET, HEAD, OPTIONS"),
    ] {
        let reply = nobody.bare("OPTIONS", path).await;
        assert_eq!((reply.status.as_u16(), reply.header("allow"), reply.body.len()), (204, allow, 0), "{path}");
        assert!(!reply.headers.contains_key("content-length"));
    }
}

/// The same status and headers, the length of the body included.
pub async fn head_is_get_without_its_body(app: &dyn App) {
    let ann = client(app, "ann");
    let task = ann.create("Head").await;
    ann.create("Another").await;
    let paths = ["/tasks", "/tasks?limit=1", "/ann/tasks", &path(&task), "/auth/session", "/tasks?limit=0", "/tasks/x"];
    for path in paths {
        let (get, head) = (ann.get(path).await, ann.bare("HEAD", path).await);
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        for name in ["content-type", "content-length", "cache-control", "link"] {
            assert_eq!(head.headers.get(name), get.headers.get(name), "{name} of {path}");
        }
    }
    let nobody = Client { app, authorization: None };
    let reply = nobody.bare("HEAD", "/tasks").await;
    assert_eq!((reply.status.as_u16(), reply.header("www-authenticate"), reply.body.len()), (401, "Bearer", 0));
}

/// A slash too many, or nothing where a parameter should be.
pub async fn near_misses_are_not_found(app: &dyn App) {
    let ann = client(app, "ann");
    let task = path(&ann.create("Near").await);
    let paths = [
        "/tasks/".to_owned(),
        "/tasks//".to_owned(),
        "//tasks".to_owned(),
        "//tasks/".to_owned(),
        "/ann/tasks/".to_owned(),
        "/ann/tasks//".to_owned(),
        format!("{task}/"),
        format!("{task}/complete/"),
        format!("/{task}"),
        format!("/ann{task}/"),
        "/tasks//complete".to_owned(),
        "/ann/tasks//complete".to_owned(),
        "//tasks//complete".to_owned(),
        "/auth/session/".to_owned(),
    ];
    for path in paths {
        for method in ["GET", "POST", "PATCH", "DELETE", "OPTIONS"] {
            ann.bare(method, &path).await.not_found();
        }
    }
}

/// 422 with the field `id`, in both shapes, for each operation.
pub async fn an_id_that_is_no_uuid_is_named(app: &dyn App) {
    let ann = client(app, "ann");
    let ids = [
        "1",
        "no-uuid",
        "019aa3f05c0070008000000000000000",
        "%7B019aa3f0-5c00-7000-8000-000000000000%7D",
        "%00",
        "%FF",
    ];
    for shape in ["", "/ann"] {
        for id in ids {
            for (method, end, body) in ON_A_TASK {
                let reply = ann.send_text(method, &format!("{shape}/tasks/{id}{end}"), body).await;
                reply.validation_failed(&[("id", &["must be a UUID"])]);
            }
        }
    }
    // Case does not matter (RFC 9562, section 4).
    let task = ann.create("Upper").await;
    assert_eq!(ann.get(&path(&task).to_uppercase().replace("TASKS", "tasks")).await.ok(200), task);
}

/// 404 for each operation, and after a deletion too.
pub async fn a_task_that_is_not_there_is_not_found(app: &dyn App) {
    let ann = client(app, "ann");
    for (method, end, body) in ON_A_TASK {
        ann.send_text(method, &format!("/tasks/{NOBODYS}{end}"), body).await.task_not_found();
    }
    let path = path(&ann.create("Short-lived").await);
    assert_eq!(ann.bare("DELETE", &path).await.status, 204);
    ann.bare("DELETE", &path).await.task_not_found();
}

/// Whatever the parser cannot read, for each operation with a body.
pub async fn a_body_that_is_not_json_is_malformed(app: &dyn App) {
    let ann = client(app, "ann");
    let path = path(&ann.create("Body").await);
    let complete = format!("{path}/complete");
    let deep = "[".repeat(10_000);
    let bodies = [
        "{",
        "{'title':'x'}",
        r#"{"title":"x",}"#,
        r#"{"title":"\ud800"}"#,
        "x",
        r#"{"title":"x"} {}"#,
        "\u{feff}{}",
        " ",
        &deep,
    ];
    for (method, path) in [("POST", "/tasks"), ("PUT", &path), ("PATCH", &path), ("PATCH", &complete)] {
        for body in bodies {
            ann.send_text(method, path, body).await.malformed_json();
        }
        let headers = [("content-type", "application/json")];
        let latin1 = b"{\"title\":\"\xfc\"}";
        ann.request(method, &format!("/api/v1{path}"), &headers, latin1).await.malformed_json();
    }
    for (method, path) in [("POST", "/tasks"), ("PUT", &path), ("PATCH", &path)] {
        ann.send_text(method, path, "").await.malformed_json();
        ann.bare(method, path).await.malformed_json();
    }
}

/// JSON, but no fields in it.
pub async fn a_body_that_is_no_object_is_named(app: &dyn App) {
    let ann = client(app, "ann");
    for body in ["[]", "null", "1", r#""title""#, r#"[{"title":"x"}]"#] {
        let reply = ann.send_text("POST", "/tasks", body).await;
        reply.problem(422, "Unprocessable Entity", "validation_failed", "The body must be a JSON object.");
    }
}

/// Not JSON, not in UTF-8, compressed, not said, or said twice.
pub async fn other_content_types_are_unsupported(app: &dyn App) {
    let ann = client(app, "ann");
    let path = format!("/api/v1{}", path(&ann.create("Typed").await));
    let complete = format!("{path}/complete");
    let types: [&[(&str, &str)]; 9] = [
        &[],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "application/jsonp")],
        &[("content-type", "application/json; charset=latin1")],
        &[("content-type", "application/json, text/plain")],
        &[("content-type", "application/json"), ("content-type", "application/json")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
        &[("content-type", "")],
    ];
    for (method, path) in [("POST", "/api/v1/tasks"), ("PUT", &path), ("PATCH", &path), ("PATCH", &complete)] {
        for headers in types {
            let reply = ann.request(method, path, headers, br#"{"title":"x"}"#).await;
            let detail = match method {
                "PATCH" => "Send the body as application/json or application/merge-patch+json.",
                _ => "Send the body as application/json.",
            };
            reply.problem(415, "Unsupported Media Type", "unsupported_media_type", detail);
        }
    }
    let merge_patch = [("content-type", "application/merge-patch+json")];
    ann.request("POST", "/api/v1/tasks", &merge_patch, br#"{"title":"x"}"#).await.unsupported_media_type();
    // The type comes before the size, and before what is in the body.
    ann.request("POST", "/api/v1/tasks", &types[1][..1], &vec![b'x'; 70_000]).await.unsupported_media_type();
}

/// In any case, with parameters that change nothing; for PATCH as a merge patch too.
pub async fn content_types_of_json_are_supported(app: &dyn App) {
    let ann = client(app, "ann");
    let path = format!("/api/v1{}", path(&ann.create("Typed").await));
    for content_type in [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        "application/json; charset=\"UTF-8\"",
        "application/json ; version=1",
    ] {
        let headers = [("content-type", content_type), ("content-encoding", "identity")];
        ann.request("POST", "/api/v1/tasks", &headers, br#"{"title":"x"}"#).await.ok(201);
    }
    let headers = [("content-type", "application/merge-patch+json")];
    ann.request("PATCH", &path, &headers, br#"{"title":"y"}"#).await.ok(200);
    ann.request("PATCH", &format!("{path}/complete"), &headers, br#"{"completed":true}"#).await.ok(200);
}

/// Some clients send the header with everything.
pub async fn an_empty_body_is_not_judged_by_its_type(app: &dyn App) {
    let ann = client(app, "ann");
    let path = format!("/api/v1{}", path(&ann.create("Empty").await));
    for headers in [&[("content-type", "text/plain")][..], &[("content-encoding", "br")], &[]] {
        ann.request("PATCH", &format!("{path}/complete"), headers, b"").await.ok(200);
        ann.request("GET", &path, headers, b"").await.ok(200);
        ann.request("POST", "/api/v1/tasks", headers, b"").await.malformed_json();
    }
    assert_eq!(ann.request("DELETE", &path, &[("content-type", "text/plain")], b"").await.status, 204);
}

/// 64 KiB, whatever is in it.
pub async fn a_body_over_the_limit_is_too_large(app: &dyn App) {
    let ann = client(app, "ann");
    let body = format!(r#"{{"title":"x"{}}}"#, " ".repeat(64 * 1024));
    let path = path(&ann.create("Large").await);
    let complete = format!("{path}/complete");
    for (method, path) in [("POST", "/tasks"), ("PUT", &path), ("PATCH", &path), ("PATCH", &complete)] {
        let reply = ann.send_text(method, path, &body).await;
        reply.problem(413, "Payload Too Large", "payload_too_large", "The body may have at most 65536 bytes.");
    }
    assert_eq!(ann.get("/tasks").await.ok(200).as_array().unwrap().len(), 1);
}

/// The last byte that is allowed is allowed.
pub async fn a_body_at_the_limit_is_read(app: &dyn App) {
    let ann = client(app, "ann");
    let body = r#"{"title":"x"}"#;
    let body = format!("{body}{}", " ".repeat(64 * 1024 - body.len()));
    ann.send_text("POST", "/tasks", &body).await.ok(201);
}

/// Path, query and body together, in the order of the fields' names.
pub async fn every_wrong_field_is_named_at_once(app: &dyn App) {
    let ann = client(app, "ann");
    let body = json!({"title": " ", "description": 5, "completed": "yes", "colour": "red", "user_id": "bob"});
    let reply = ann.send("PUT", "/tasks/no-uuid?dry=run", &body).await;
    reply.validation_failed(&[
        ("colour", &["is unknown"]),
        ("completed", &["must be true or false"]),
        ("description", &["must be a string or null"]),
        ("dry", &["is unknown"]),
        ("id", &["must be a UUID"]),
        ("title", &["must not be blank"]),
        ("user_id", &["comes from the token"]),
    ]);
    let reply = ann.get("/tasks?limit=0&cursor=x&completed=1&page=2").await;
    reply.validation_failed(&[
        ("completed", &["must be true or false"]),
        ("cursor", &["must be a cursor from the Link header of an earlier page"]),
        ("limit", &["must be between 1 and 200"]),
        ("page", &["is unknown"]),
    ]);
}

/// Each field by itself.
pub async fn wrong_values_of_each_field_are_named(app: &dyn App) {
    let ann = client(app, "ann");
    let wrong = [
        (json!({}), "title", "is required"),
        (json!({"title": null}), "title", "must be a string"),
        (json!({"title": 1}), "title", "must be a string"),
        (json!({"title": ["x"]}), "title", "must be a string"),
        (json!({"title": ""}), "title", "must not be blank"),
        (json!({"title": "\u{3000}\t\n"}), "title", "must not be blank"),
        (json!({"title": "x".repeat(201)}), "title", "must have at most 200 characters"),
        (json!({"title": "x", "description": "x".repeat(1001)}), "description", "must have at most 1000 characters"),
        (json!({"title": "x", "description": {}}), "description", "must be a string or null"),
        (json!({"title": "x", "completed": null}), "completed", "must be true or false"),
        (json!({"title": "x", "completed": 0}), "completed", "must be true or false"),
        (json!({"title": "x", "Title": "y"}), "Title", "is unknown"),
        (json!({"title": "x", "": "y"}), "", "is unknown"),
    ];
    for (body, field, message) in wrong {
        ann.send("POST", "/tasks", &body).await.validation_failed(&[(field, &[message])]);
    }
}

/// Which of them would count is nobody's guess.
pub async fn a_field_given_twice_is_named(app: &dyn App) {
    let ann = client(app, "ann");
    let reply = ann.send_text("POST", "/tasks", r#"{"title":"x","title":"y"}"#).await;
    reply.validation_failed(&[("title", &["must be given only once"])]);
    let reply = ann.send_text("POST", "/tasks", r#"{"title":"x","completed":true,"complete\u0064":false}"#).await;
    reply.validation_failed(&[("completed", &["must be given only once"])]);
    ann.get("/tasks?limit=1&limit=1").await.validation_failed(&[("limit", &["must be given only once"])]);
}

/// A client that sends a whole task back is told so.
pub async fn fields_of_the_server_are_refused(app: &dyn App) {
    let ann = client(app, "ann");
    let task = ann.create("Whole").await;
    for method in ["PUT", "PATCH"] {
        ann.send(method, &path(&task), &task).await.validation_failed(&[
            ("created_at", &["is set by the server"]),
            ("id", &["is set by the server"]),
            ("updated_at", &["is set by the server"]),
            ("user_id", &["comes from the token"]),
            ("version", &["is set by the server"]),
        ]);
    }
    assert_eq!(ann.get(&path(&task)).await.ok(200), task);
}

/// Their values, and that there are no others.
pub async fn query_parameters_are_checked(app: &dyn App) {
    let ann = client(app, "ann");
    let task = path(&ann.create("Query").await);
    for limit in ["0", "201", "-1", "1.5", "", "ten", "99999999999999999999", "%31%00"] {
        let reply = ann.get(&format!("/tasks?limit={limit}")).await;
        reply.validation_failed(&[("limit", &["must be between 1 and 200"])]);
    }
    for cursor in ["", "x", "%00", NOBODYS, "AZqj8FwAcACAAAAAAAAAAQ=="] {
        let reply = ann.get(&format!("/tasks?cursor={cursor}")).await;
        reply.validation_failed(&[("cursor", &["must be a cursor from the Link header of an earlier page"])]);
    }
    for completed in ["", "1", "True", "null"] {
        let reply = ann.get(&format!("/tasks?completed={completed}")).await;
        reply.validation_failed(&[("completed", &["must be true or false"])]);
    }
    for (method, end, body) in ON_A_TASK.into_iter().take(4) {
        let reply = ann.send_text(method, &format!("{task}{end}?limit=1"), body).await;
        reply.validation_failed(&[("limit", &["is unknown"])]);
    }
    ann.get("/auth/session?x").await.validation_failed(&[("x", &["is unknown"])]);
    // Nothing is asked for, or it is written another way.
    for query in ["?", "?limit=200", "?limit=%31", "?completed=false&limit=1", "?&"] {
        ann.get(&format!("/tasks{query}")).await.ok(200);
    }
}

/// PostgreSQL cannot store it, and must not be asked to.
pub async fn nul_is_a_wrong_value_and_no_fault(app: &dyn App) {
    let ann = client(app, "ann");
    let body = json!({"title": "a\u{0}b", "description": "\u{0}", "\u{0}": 1});
    ann.send("POST", "/tasks", &body).await.validation_failed(&[
        ("\u{0}", &["is unknown"]),
        ("description", &["must not contain the NUL character"]),
        ("title", &["must not contain the NUL character"]),
    ]);
    ann.get("/tasks?%00=%00").await.validation_failed(&[("\u{0}", &["is unknown"])]);
    ann.get("/tasks/%00").await.validation_failed(&[("id", &["must be a UUID"])]);
}

/// What was sent is what is answered, but for the white space around a title.
pub async fn texts_are_kept_as_they_are(app: &dyn App) {
    let ann = client(app, "ann");
    let texts =
        ["<script>alert(1)</script>", "'; drop table tasks; --", "日本語 🦀 e\u{301}", "\\ \" / \u{7f}", "a\tb\nc"];
    for text in texts {
        let body = json!({"title": text, "description": format!(" {text}\n")});
        let task = ann.send("POST", "/tasks", &body).await.ok(201);
        assert_eq!((&task["title"], &task["description"]), (&body["title"], &body["description"]));
        assert_eq!(ann.get(&path(&task)).await.ok(200), task);
    }
}

/// Not in bytes, nor in UTF-16.
pub async fn limits_are_counted_in_characters(app: &dyn App) {
    let ann = client(app, "ann");
    let body = json!({"title": format!("  {} ", "🦀".repeat(200)), "description": "🦀".repeat(1000)});
    ann.send("POST", "/tasks", &body).await.ok(201);
    let body = json!({"title": "🦀".repeat(201), "description": "🦀".repeat(1001)});
    ann.send("POST", "/tasks", &body).await.validation_failed(&[
        ("description", &["must have at most 1000 characters"]),
        ("title", &["must have at most 200 characters"]),
    ]);
}

/// RFC 9110, section 9.3: neither read nor judged.
pub async fn bodies_of_get_and_delete_mean_nothing(app: &dyn App) {
    let ann = client(app, "ann");
    let path = path(&ann.create("Bodied").await);
    ann.send_text("GET", &path, "{").await.ok(200);
    ann.send_text("GET", "/tasks", "{").await.ok(200);
    assert_eq!(ann.send_text("DELETE", &path, "{").await.status, 204);
}

/// One wrong field, and the good ones are not written either.
pub async fn a_refused_write_writes_nothing(app: &dyn App) {
    let ann = client(app, "ann");
    let task = ann.create("As it was").await;
    ann.send("POST", "/tasks", &json!({"title": "x", "colour": "red"}))
        .await
        .validation_failed(&[("colour", &["is unknown"])]);
    let wrong = json!({"title": "Changed", "completed": 1});
    for method in ["PUT", "PATCH"] {
        ann.send(method, &path(&task), &wrong).await.validation_failed(&[("completed", &["must be true or false"])]);
    }
    let query = format!("{}/complete?x=1", path(&task));
    ann.bare("PATCH", &query).await.validation_failed(&[("x", &["is unknown"])]);
    assert_eq!(ann.get("/tasks").await.ok(200), json!([task]));
}

/// Each operation on a store that does not work, and what it answers.
async fn with_a_faulty_store(app: &dyn App, user: &str, check: impl Fn(&Reply)) {
    let client = client(app, user);
    check(&client.get("/tasks").await);
    check(&client.send("POST", "/tasks", &json!({"title": "x"})).await);
    for (method, end, body) in ON_A_TASK {
        check(&client.send_text(method, &format!("/tasks/{NOBODYS}{end}"), body).await);
    }
    // What is wrong with the request is said first, and needs no store.
    assert_eq!(client.get("/tasks?limit=0").await.status, 422);
    client.get("/auth/session").await.ok(200);
}

/// 503, and when to come back.
pub async fn a_store_that_is_away_is_unavailable(app: &dyn App) {
    with_a_faulty_store(app, "store-away", |reply| {
        let detail = "The service is unavailable; try again later.";
        reply.problem(503, "Service Unavailable", "unavailable", detail);
        assert_eq!(reply.header("retry-after"), "1");
    })
    .await;
}

/// 503 with another code.
pub async fn a_store_that_is_slow_times_out(app: &dyn App) {
    with_a_faulty_store(app, "store-slow", |reply| {
        reply.problem(503, "Service Unavailable", "timeout", "The answer took too long; try again later.");
        assert_eq!(reply.header("retry-after"), "1");
    })
    .await;
}

/// 500, and not a word of the cause.
pub async fn a_store_that_fails_says_nothing_of_why(app: &dyn App) {
    with_a_faulty_store(app, "store-broken", |reply| {
        reply.problem(500, "Internal Server Error", "internal", "Something went wrong on our side.");
    })
    .await;
}

/// What one user sees is stored for no other.
pub async fn responses_are_for_no_cache(app: &dyn App) {
    let ann = client(app, "ann");
    let path = path(&ann.create("Private").await);
    for (method, path) in
        [(Method::GET, "/tasks"), (Method::GET, &path), (Method::GET, "/auth/session"), (Method::DELETE, &path)]
    {
        assert_eq!(ann.bare(method.as_str(), path).await.header("cache-control"), "no-store", "{method} {path}");
    }
}

#[cfg(feature = "openapi")]
fn nobody(app: &dyn App) -> Client<'_> {
    Client { app, authorization: None }
}

/// The same bytes as from [`openapi::document`](crate::api::openapi::document), without a credential.
#[cfg(feature = "openapi")]
pub async fn the_document_is_there_for_everybody(app: &dyn App) {
    let reply = nobody(app).request("GET", "/openapi.json", &[], b"").await;
    assert_eq!(reply.ok(200)["openapi"], "3.1.0");
    assert_eq!(reply.body, crate::api::openapi::document("/api/v1"));
    assert_eq!(reply.header("cache-control"), "no-cache");
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    let head = nobody(app).request("HEAD", "/openapi.json", &[], b"").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), reply.header("content-length"));
    // Not below the mount.
    assert_eq!(nobody(app).request("GET", "/api/v1/openapi.json", &[], b"").await.status, 404);
}

/// What it loads is ours, named relatively, and there; and the policy lets nothing else through.
#[cfg(feature = "openapi")]
pub async fn the_page_needs_nothing_from_elsewhere(app: &dyn App) {
    let page = nobody(app).request("GET", "/docs", &[], b"").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy: Vec<_> = page.header("content-security-policy").split("; ").collect();
    assert!(policy.contains(&"default-src 'none'") && policy.contains(&"frame-ancestors 'none'"), "{policy:?}");
    for directive in &policy {
        let sources = directive.split(' ').skip(1);
        let known = |source: &str| {
            matches!(source, "'none'" | "'self'") || (source, *directive) == ("data:", "img-src 'self' data:")
        };
        assert!(sources.clone().count() > 0 && sources.clone().all(known), "{directive}");
    }
    let html = std::str::from_utf8(&page.body).unwrap();
    let targets = html.split(['"']).skip(1).step_by(2).filter(|value| value.contains('.') && !value.contains(' '));
    let targets: Vec<_> = targets.collect();
    assert_eq!(targets, ["docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js", "openapi.json"]);
    for (target, content_type) in targets.into_iter().zip([
        "text/css; charset=utf-8",
        "text/javascript; charset=utf-8",
        "text/javascript; charset=utf-8",
        "application/json",
    ]) {
        let file = nobody(app).request("GET", &format!("/{target}"), &[], b"").await;
        assert_eq!((file.status.as_u16(), file.header("content-type")), (200, content_type), "{target}");
        assert_eq!(file.header("content-length"), file.body.len().to_string());
        assert_eq!(file.headers.contains_key("content-encoding"), file.body.starts_with(&[0x1f, 0x8b]), "{target}");
        assert_eq!(file.header("content-security-policy"), page.header("content-security-policy"));
    }
}

/// RFC 9110, section 13.1.2.
#[cfg(feature = "openapi")]
pub async fn a_file_that_is_known_is_not_sent_again(app: &dyn App) {
    for path in ["/openapi.json", "/docs", "/docs/swagger-ui-bundle.js"] {
        let first = nobody(app).request("GET", path, &[], b"").await;
        let tag = first.header("etag");
        for known in [tag.to_owned(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let again = nobody(app).request("GET", path, &[("if-none-match", &known)], b"").await;
            assert_eq!(
                (again.status.as_u16(), again.body.len(), again.header("etag")),
                (304, 0, tag),
                "{path} {known}"
            );
            assert!(!again.headers.contains_key("content-type"), "{path}");
        }
        let other = nobody(app).request("GET", path, &[("if-none-match", "\"x\"")], b"").await;
        assert_eq!((other.status, &other.body), (first.status, &first.body));
    }
}

/// Other methods, and paths that are nearly theirs.
#[cfg(feature = "openapi")]
pub async fn documents_are_only_read(app: &dyn App) {
    for resource in crate::api::DOCS {
        for method in ["POST", "PUT", "DELETE"] {
            let reply = nobody(app).request(method, resource.path, &[], b"").await;
            assert_eq!(
                (reply.status.as_u16(), reply.header("allow")),
                (405, "GET, HEAD, OPTIONS"),
                "{}",
                resource.path
            );
        }
        assert_eq!(nobody(app).request("OPTIONS", resource.path, &[], b"").await.status, 204);
        nobody(app).request("GET", &format!("{}/", resource.path), &[], b"").await.not_found();
    }
}
