//! CORS around the API in warp.

// recipe
use todo_core::api::TodoApi;
use warp::{Filter as _, Reply, filters::BoxedFilter};

/// The API at `/api/v1`, for scripts of `https://app.example.com`.
pub fn app(todo: TodoApi) -> BoxedFilter<(impl Reply,)> {
    let cors = warp::cors()
        .allow_origin("https://app.example.com")
        .allow_methods(["GET", "POST", "PUT", "PATCH", "DELETE"])
        .allow_headers(["authorization", "content-type"])
        .expose_headers(["link", "location", "retry-after", "www-authenticate", "ratelimit", "ratelimit-policy"])
        .max_age(3600);
    // `with` wraps the filter before it; add your own routes with `or` before `with`.
    warp::path!("api" / "v1" / ..).and(todo_warp::filter(todo)).with(cors).boxed()
}
// end
