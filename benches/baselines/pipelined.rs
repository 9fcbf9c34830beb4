//! The same program as `baseline-sqlx`, with the fastest handwritten access to PostgreSQL: tokio-postgres, which
//! pipelines statements on a connection.
//!
//! - Four connections, used by the requests in turn: the best number in measurements (`PIPELINES` sets another).
//! - Statements are prepared once for each connection, at the start.
//! - The rest is as in `baseline-sqlx`: keys and rules are made once, the user's id is not copied, one thread per core,
//!   `TCP_NODELAY`, no access log.
//!
//! The price: a slow statement delays all later statements on its connection, and a broken connection is not reopened.

use std::{
    env,
    error::Error,
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{FromRequestParts, Path, Query, State},
    http::{
        StatusCode,
        header::{AUTHORIZATION, LINK, LOCATION, WWW_AUTHENTICATE},
        request::Parts,
    },
    response::{IntoResponse, Response},
    routing::{get, patch},
    serve::ListenerExt as _,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_postgres::{Client, NoTls, Row, Statement};
use uuid::Uuid;

const LIST: &str = "select id, title, description, completed, completed_at, due, priority, list, tags, position, \
    metadata, created_at, updated_at, version from todo.tasks where user_id = $1 and id <= $2 order by id desc limit $3";

const LIST_COMPLETED: &str = "select id, title, description, completed, completed_at, due, priority, list, tags, position, \
    metadata, created_at, updated_at, version \
    from todo.tasks where user_id = $1 and completed = $4 and id <= $2 order by id desc limit $3";

const GET: &str = "select id, title, description, completed, completed_at, due, priority, list, tags, position, \
    metadata, created_at, updated_at, version from todo.tasks where user_id = $1 and id = $2";

const INSERT: &str = "insert into todo.tasks \
    (user_id, id, title, description, completed, completed_at, position, created_at, updated_at, version) \
    values ($1, $2, $3, $4, $5, case when $5 then $6::timestamptz end, $7, $6, $6, 1)";

// $3 title or null; $4 whether the description changes; $5 the new description; $6 toggle; $7 completed or null; $8
// now.
const UPDATE: &str = "update todo.tasks set \
    title = coalesce($3, title), \
    description = case when $4 then $5 else description end, \
    completed = case when $6 then not completed else coalesce($7, completed) end, \
    completed_at = case when not (case when $6 then not completed else coalesce($7, completed) end) then null \
        when completed then completed_at else greatest(updated_at, $8) end, \
    updated_at = case when coalesce($3, title) <> title or ($4 and $5 is distinct from description) or $6 \
        or coalesce($7, completed) <> completed then greatest(updated_at, $8) else updated_at end, \
    version = case when coalesce($3, title) <> title or ($4 and $5 is distinct from description) or $6 \
        or coalesce($7, completed) <> completed then version + 1 else version end \
    where user_id = $1 and id = $2 \
    returning id, title, description, completed, completed_at, due, priority, list, tags, position, metadata, \
    created_at, updated_at, version";

const DELETE: &str = "delete from todo.tasks where user_id = $1 and id = $2";

// As in todo-server.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Runtime::new()?.block_on(serve())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let count = env::var("PIPELINES").map_or(Ok(4), |count| count.parse())?;
    let mut pipelines = Vec::new();
    for _ in 0..count {
        pipelines.push(Pipeline::open(&env::var("DATABASE_URL")?).await?);
    }
    let app = Router::new()
        .route("/api/tasks", get(list).post(create))
        .route("/api/tasks/{id}", get(read).put(replace).patch(change).delete(remove))
        .route("/api/tasks/{id}/complete", patch(complete))
        .route("/health", get(async || "alive"))
        .with_state(Arc::new(App { pipelines, next: AtomicUsize::new(0), keys: Keys::from_environment()? }));
    let address = format!("{}:{}", env::var("HOST")?, env::var("PORT")?);
    let listener = TcpListener::bind(address).await?.tap_io(|stream| {
        // Without this option the socket only has a higher latency.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, app).await?)
}

struct App {
    pipelines: Vec<Pipeline>,
    next: AtomicUsize,
    keys: Keys,
}

impl App {
    /// Used in turn.
    fn pipeline(&self) -> &Pipeline {
        &self.pipelines[self.next.fetch_add(1, Ordering::Relaxed) % self.pipelines.len()]
    }
}

/// A connection and its prepared statements.
struct Pipeline {
    client: Client,
    list: Statement,
    list_completed: Statement,
    get: Statement,
    insert: Statement,
    update: Statement,
    delete: Statement,
}

impl Pipeline {
    async fn open(url: &str) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        Ok(Self {
            list: client.prepare(LIST).await?,
            list_completed: client.prepare(LIST_COMPLETED).await?,
            get: client.prepare(GET).await?,
            insert: client.prepare(INSERT).await?,
            update: client.prepare(UPDATE).await?,
            delete: client.prepare(DELETE).await?,
            client,
        })
    }
}

/// Verifies tokens.
struct Keys {
    key: DecodingKey,
    rules: Validation,
}

impl Keys {
    fn from_environment() -> Result<Self, Box<dyn Error>> {
        let (key, mut rules) = match env::var("JWKS_FILE") {
            Ok(file) => {
                let set: JwkSet = serde_json::from_slice(&fs::read(file)?)?;
                let key = DecodingKey::from_jwk(set.keys.first().ok_or("the key set is empty")?)?;
                let mut rules = Validation::new(Algorithm::EdDSA);
                rules.set_issuer(&[env::var("JWT_ISSUER")?]);
                rules.set_audience(&[env::var("JWT_AUDIENCE")?]);
                rules.set_required_spec_claims(&["exp", "sub", "iss", "aud"]);
                (key, rules)
            }
            Err(_) => {
                let mut rules = Validation::new(Algorithm::HS256);
                rules.set_required_spec_claims(&["exp", "sub"]);
                (DecodingKey::from_secret(env::var("BETTER_AUTH_SECRET")?.as_bytes()), rules)
            }
        };
        rules.validate_nbf = true;
        rules.leeway = 30;
        Ok(Self { key, rules })
    }
}

/// The user of the token.
struct Caller(String);

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Claims {
            sub: String,
        }
        let header = parts.headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        let token = header.and_then(|header| header.strip_prefix("Bearer ")).ok_or(Failure::Unauthenticated)?;
        let token = jsonwebtoken::decode::<Claims>(token, &app.keys.key, &app.keys.rules);
        Ok(Self(token.map_err(|_| Failure::Unauthenticated)?.claims.sub))
    }
}

#[derive(Serialize)]
struct Task<'a> {
    id: Uuid,
    user_id: &'a str,
    title: String,
    description: Option<String>,
    completed: bool,
    #[serde(with = "time::serde::rfc3339::option")]
    completed_at: Option<OffsetDateTime>,
    due: Option<String>,
    priority: Option<&'static str>,
    list: Option<String>,
    tags: Vec<String>,
    position: String,
    metadata: Map<String, Value>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    version: i64,
}

/// The name of a priority.
fn priority(number: i16) -> &'static str {
    ["low", "medium", "high"].get(usize::try_from(number - 1).unwrap_or(3)).copied().unwrap_or("urgent")
}

/// The last place in the manual order: `i` and nine digits of the time in microseconds.
fn last_place(now: OffsetDateTime) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = usize::try_from(now.unix_timestamp_nanos() / 1000).unwrap_or_default();
    let mut key = *b"i000000000";
    for place in key[1..].iter_mut().rev() {
        *place = DIGITS[rest % 62];
        rest /= 62;
    }
    key.iter().copied().map(char::from).collect()
}

impl<'a> Task<'a> {
    fn of(user_id: &'a str, row: &Row) -> Result<Self, tokio_postgres::Error> {
        let metadata: Option<&str> = row.try_get(10)?;
        Ok(Self {
            id: row.try_get(0)?,
            user_id,
            title: row.try_get(1)?,
            description: row.try_get(2)?,
            completed: row.try_get(3)?,
            completed_at: row.try_get(4)?,
            due: row.try_get(5)?,
            priority: row.try_get::<_, Option<i16>>(6)?.map(priority),
            list: row.try_get(7)?,
            tags: row.try_get::<_, Option<Vec<String>>>(8)?.unwrap_or_default(),
            position: row.try_get(9)?,
            metadata: metadata.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default(),
            created_at: row.try_get(11)?,
            updated_at: row.try_get(12)?,
            version: row.try_get(13)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<u16>,
    cursor: Option<Uuid>,
    completed: Option<bool>,
}

async fn list(
    State(app): State<Arc<App>>,
    Caller(user): Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, Failure> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=200).contains(&limit) {
        return Err(Failure::Invalid("limit must be between 1 and 200"));
    }
    let newest = query.cursor.map_or(Uuid::max(), |cursor| Uuid::from_u128(cursor.as_u128().saturating_sub(1)));
    let (pipeline, fetched) = (app.pipeline(), i64::from(limit) + 1);
    let rows = match query.completed {
        None => pipeline.client.query(&pipeline.list, &[&user, &newest, &fetched]).await?,
        Some(completed) => {
            pipeline.client.query(&pipeline.list_completed, &[&user, &newest, &fetched, &completed]).await?
        }
    };
    let more = rows.len() > usize::from(limit);
    let tasks = rows.iter().take(usize::from(limit)).map(|row| Task::of(&user, row)).collect::<Result<Vec<_>, _>>()?;
    let next = tasks.last().filter(|_| more).map(|task| format!("<?cursor={}&limit={limit}>; rel=\"next\"", task.id));
    Ok(match next {
        Some(next) => ([(LINK, next)], Json(tasks)).into_response(),
        None => Json(tasks).into_response(),
    })
}

async fn read(State(app): State<Arc<App>>, Caller(user): Caller, Path(id): Path<Uuid>) -> Result<Response, Failure> {
    let pipeline = app.pipeline();
    let row = pipeline.client.query_opt(&pipeline.get, &[&user, &id]).await?;
    Ok(Json(Task::of(&user, &row.ok_or(Failure::NotFound)?)?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTask {
    title: String,
    description: Option<String>,
    completed: Option<bool>,
}

async fn create(
    State(app): State<Arc<App>>,
    Caller(user): Caller,
    Json(new): Json<NewTask>,
) -> Result<Response, Failure> {
    let title = checked_title(&new.title)?;
    let description = checked_description(new.description)?;
    #[expect(clippy::disallowed_methods, reason = "the lint is for the library")]
    let (id, now) = (Uuid::now_v7(), now());
    let (completed, position) = (new.completed.unwrap_or_default(), last_place(now));
    let pipeline = app.pipeline();
    pipeline.client.execute(&pipeline.insert, &[&user, &id, &title, &description, &completed, &now, &position]).await?;
    let task = Task {
        id,
        user_id: &user,
        title,
        description,
        completed,
        completed_at: completed.then_some(now),
        due: None,
        priority: None,
        list: None,
        tags: Vec::new(),
        position,
        metadata: Map::new(),
        created_at: now,
        updated_at: now,
        version: 1,
    };
    Ok((StatusCode::CREATED, [(LOCATION, format!("tasks/{id}"))], Json(task)).into_response())
}

async fn replace(
    State(app): State<Arc<App>>,
    Caller(user): Caller,
    Path(id): Path<Uuid>,
    Json(new): Json<NewTask>,
) -> Result<Response, Failure> {
    let change = Change {
        title: Some(checked_title(&new.title)?),
        describe: true,
        description: checked_description(new.description)?,
        completed: new.completed,
        ..Change::default()
    };
    update(&app, &user, id, &change).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskPatch {
    title: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[expect(clippy::option_option, reason = "absent, null and a text are three cases")]
    description: Option<Option<String>>,
    completed: Option<bool>,
}

/// Distinguishes `null` from an absent field.
#[expect(clippy::option_option, reason = "absent, null and a text are three cases")]
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

async fn change(
    State(app): State<Arc<App>>,
    Caller(user): Caller,
    Path(id): Path<Uuid>,
    Json(patch): Json<TaskPatch>,
) -> Result<Response, Failure> {
    let change = Change {
        title: patch.title.as_deref().map(checked_title).transpose()?,
        describe: patch.description.is_some(),
        description: checked_description(patch.description.flatten())?,
        completed: patch.completed,
        ..Change::default()
    };
    update(&app, &user, id, &change).await
}

async fn complete(
    State(app): State<Arc<App>>,
    Caller(user): Caller,
    Path(id): Path<Uuid>,
    body: Bytes,
) -> Result<Response, Failure> {
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Completion {
        completed: Option<bool>,
    }
    let Completion { completed } = match &*body {
        [] => Completion::default(),
        body => serde_json::from_slice(body).map_err(|_| Failure::Invalid("the body is not valid"))?,
    };
    update(&app, &user, id, &Change { toggle: completed.is_none(), completed, ..Change::default() }).await
}

async fn remove(
    State(app): State<Arc<App>>,
    Caller(user): Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Failure> {
    let pipeline = app.pipeline();
    let removed = pipeline.client.execute(&pipeline.delete, &[&user, &id]).await?;
    if removed == 1 { Ok(StatusCode::NO_CONTENT) } else { Err(Failure::NotFound) }
}

#[derive(Default)]
struct Change {
    title: Option<String>,
    describe: bool,
    description: Option<String>,
    toggle: bool,
    completed: Option<bool>,
}

async fn update(app: &App, user: &str, id: Uuid, change: &Change) -> Result<Response, Failure> {
    let pipeline = app.pipeline();
    let row = pipeline
        .client
        .query_opt(
            &pipeline.update,
            &[
                &user,
                &id,
                &change.title,
                &change.describe,
                &change.description,
                &change.toggle,
                &change.completed,
                &now(),
            ],
        )
        .await?;
    Ok(Json(Task::of(user, &row.ok_or(Failure::NotFound)?)?).into_response())
}

/// The current time in microseconds, the precision of PostgreSQL.
fn now() -> OffsetDateTime {
    #[expect(clippy::disallowed_methods, reason = "the lint is for the library")]
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}

fn checked_title(title: &str) -> Result<String, Failure> {
    let title = title.trim();
    if title.is_empty() || title.chars().count() > 200 || title.contains('\0') {
        return Err(Failure::Invalid("title must have 1 to 200 characters, and no NUL"));
    }
    Ok(title.to_owned())
}

fn checked_description(description: Option<String>) -> Result<Option<String>, Failure> {
    if description.as_ref().is_some_and(|text| text.chars().count() > 1000 || text.contains('\0')) {
        return Err(Failure::Invalid("description must have at most 1000 characters, and no NUL"));
    }
    Ok(description)
}

enum Failure {
    Unauthenticated,
    NotFound,
    Invalid(&'static str),
    Database,
}

impl From<tokio_postgres::Error> for Failure {
    fn from(_: tokio_postgres::Error) -> Self {
        Self::Database
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "authentication is required"),
            Self::NotFound => (StatusCode::NOT_FOUND, "task not found"),
            Self::Invalid(detail) => (StatusCode::UNPROCESSABLE_ENTITY, detail),
            Self::Database => (StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
        };
        let body = Json(serde_json::json!({ "detail": detail }));
        if status == StatusCode::UNAUTHORIZED {
            return (status, [(WWW_AUTHENTICATE, "Bearer")], body).into_response();
        }
        (status, body).into_response()
    }
}
