//! CORS around the API in axum.

// recipe
use std::time::Duration;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
};
use todo_core::api::TodoApi;
use tower_http::cors::CorsLayer;

/// The API at `/api/v1`, for scripts of `https://app.example.com`.
pub fn app(todo: TodoApi) -> Router {
    let cors = CorsLayer::new()
        .allow_origin([HeaderValue::from_static("https://app.example.com")])
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .expose_headers(EXPOSED.map(HeaderName::from_static))
        .max_age(Duration::from_hours(1));
    // `layer` wraps the routes added before it.
    Router::new().nest("/api/v1", todo_axum::router(todo)).layer(cors)
}

const EXPOSED: [&str; 6] = ["link", "location", "retry-after", "www-authenticate", "ratelimit", "ratelimit-policy"];
// end
