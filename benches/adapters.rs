//! The cost of each framework around [`TodoApi::respond`]: the same request through its router, without a socket. The
//! first bench of each group is `respond` alone.

mod calls;
mod settings;
mod tasks;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::StatusCode;
use poem::Endpoint as _;
use todo_core::api::{RESOURCES, find_resource};
use tower::Service as _;
use warp::Filter as _;

use calls::{Calls, MOUNT};
use tasks::runtime;

fn adapters(criterion: &mut Criterion) {
    let runtime = runtime();
    let calls = runtime.block_on(Calls::prepare());
    let axum = axum::Router::<()>::new().nest(MOUNT, todo_axum::router(calls.api.clone()));
    let warp = warp::service(warp::path!("api" / "v1" / ..).and(todo_warp::filter(calls.api.clone())));
    let poem = todo_poem::mount(poem::Route::new(), MOUNT, calls.api.clone());

    for (name, path) in [("list 20", "/tasks".to_owned()), ("get", format!("/tasks/{}", calls.ids[7]))] {
        let resource = find_resource(RESOURCES, &path).expect("a path of the API");
        let mut group = criterion.benchmark_group(format!("adapters/{name}"));
        group.bench_function("respond alone", |bencher| {
            bencher.to_async(&runtime).iter_batched(
                || calls.get(&path),
                async |request| assert_eq!(calls.api.respond(resource, request).await.status(), StatusCode::OK),
                BatchSize::SmallInput,
            );
        });
        group.bench_function("axum", |bencher| {
            bencher.to_async(&runtime).iter_batched(
                || (axum.clone(), calls.get(&path)),
                async |(mut axum, request)| {
                    let Ok(response) = axum.call(request).await;
                    assert_eq!(response.status(), StatusCode::OK);
                },
                BatchSize::SmallInput,
            );
        });
        group.bench_function("warp", |bencher| {
            bencher.to_async(&runtime).iter_batched(
                || (warp.clone(), calls.get(&path)),
                async |(mut warp, request)| {
                    let Ok(response) = warp.call(request).await;
                    assert_eq!(response.status(), StatusCode::OK);
                },
                BatchSize::SmallInput,
            );
        });
        group.bench_function("poem", |bencher| {
            bencher.to_async(&runtime).iter_batched(
                || {
                    let (head, _) = calls.get(&path).into_parts();
                    let mut request = poem::Request::builder().uri(head.uri).finish();
                    *request.headers_mut() = head.headers;
                    request
                },
                async |request| {
                    let response = poem.call(request).await.expect("a response");
                    assert_eq!(response.status(), StatusCode::OK);
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(name = benches; config = settings::short(); targets = adapters);
criterion_main!(benches);
