//! CORS around the API in poem.

// recipe
use poem::{Endpoint, EndpointExt as _, Route, middleware::Cors};
use todo_core::api::TodoApi;

/// The API at `/api/v1`, for scripts of `https://app.example.com`.
pub fn app(todo: TodoApi) -> impl Endpoint {
    let cors = Cors::new()
        .allow_origin("https://app.example.com")
        .allow_methods(["GET", "POST", "PUT", "PATCH", "DELETE"])
        .allow_headers(["authorization", "content-type"])
        .expose_headers(["link", "location", "retry-after", "www-authenticate", "ratelimit", "ratelimit-policy"])
        .allow_credentials(false) // poem allows cookies unless told otherwise
        .max_age(3600);
    // `with` wraps the whole route.
    todo_poem::mount(Route::new(), "/api/v1", todo).with(cors)
}
// end
