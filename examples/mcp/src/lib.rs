//! Todo tools for assistants: a Model Context Protocol server (Streamable HTTP) over
//! [`TodoService`](todo_core::TodoService), without the HTTP API. README.md says how to run it and how to add it to a client.
//!
//! - **Users.** Each request needs a token, and the owner of the tasks is the user of this token. There are no sessions: the
//!   server sends no `Mcp-Session-Id` and ignores one that it gets. So there is nothing to steal, and any number of servers
//!   can share one database.
//! - **Tools.** Their schemas come from the library ([`arguments_schema`](todo_core::api::openapi::arguments_schema)), and
//!   so does what reads their arguments ([`Arguments`](todo_core::api::Arguments)).
//! - **Errors.** A tool that fails returns the problem details of the HTTP API: a code, a sentence, and the invalid fields or
//!   the current task. An assistant can act on them. The causes of failures are only in the log.

mod tools;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Uri, header::WWW_AUTHENTICATE},
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::get,
};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
};
use serde_json::json;
use todo_core::api::TodoApi;
use tower_http::timeout::TimeoutLayer;

use tools::Tools;

/// The maximum size of a request body in bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// How long a request may take, its body included. A server that stops waits as long.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The addresses that clients need.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The public URL of the endpoint: `https://todo.example/mcp`.
    pub endpoint: Uri,
    /// The issuer of the tokens, from which clients get them (OAuth). Without it, users configure a token.
    pub authorization_server: Option<String>,
}

/// Returns the server. Of `todo`, it uses the service, the authenticator and the gates, such as a rate limit.
pub fn app(todo: TodoApi, addresses: &Addresses) -> Router {
    let (endpoint, path) = (&addresses.endpoint, addresses.endpoint.path());
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(BODY_LIMIT)
        // Against DNS rebinding: only these names of the server, and no requests of web pages.
        .with_allowed_hosts(endpoint.host().into_iter().chain(["localhost", "127.0.0.1", "::1"]))
        .enforce_origin_validation();
    let tools = Tools::new(todo.service().clone());
    let service = StreamableHttpService::new(move || Ok(tools.clone()), Arc::<NeverSessionManager>::default(), config);

    let well_known = format!("/.well-known/oauth-protected-resource{}", path.trim_end_matches('/'));
    let metadata_url = Uri::builder()
        .scheme(endpoint.scheme_str().unwrap_or("https"))
        .authority(endpoint.authority().map_or("localhost", |authority| authority.as_str()))
        .path_and_query(&well_known)
        .build();
    let has_metadata = addresses.authorization_server.is_some();
    let guard = Guard { todo, metadata_url: metadata_url.ok().filter(|_| has_metadata) };
    let mut app = Router::new().route_service(path, service).layer(from_fn_with_state(guard, authenticate));
    if let Some(issuer) = &addresses.authorization_server {
        // RFC 9728.
        let metadata = json!({
            "resource": endpoint.to_string(),
            "authorization_servers": [issuer],
            "bearer_methods_supported": ["header"],
            "resource_name": "Todo",
        });
        app = app.route(&well_known, get(async move || Json(metadata)));
    }
    app.layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, TIMEOUT))
}

#[derive(Clone)]
struct Guard {
    todo: TodoApi,
    metadata_url: Option<Uri>,
}

/// Passes a request on with its user in the extensions, or responds with what is wrong with its token.
async fn authenticate(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    match guard.todo.authenticate(&head).await {
        Ok(identity) => {
            head.extensions.insert(identity.user_id);
            next.run(Request::from_parts(head, body)).await
        }
        Err(error) => {
            let mut response = guard.todo.problem(error).map(Body::from);
            if let (Some(url), Some(challenge)) = (guard.metadata_url, response.headers_mut().get_mut(WWW_AUTHENTICATE))
            {
                let separator = if *challenge == "Bearer" { " " } else { ", " };
                let mut text = challenge.as_bytes().to_vec();
                text.extend_from_slice(format!("{separator}resource_metadata=\"{url}\"").as_bytes());
                if let Ok(text) = HeaderValue::from_bytes(&text) {
                    *challenge = text;
                }
            }
            response
        }
    }
}
