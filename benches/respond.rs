//! The cost of [`TodoApi::respond`] without a socket, a framework or a database: the token (in the cache), the checks,
//! the memory store, and JSON.

mod calls;
mod settings;
mod tasks;

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use todo_core::{
    ListName, Patch, TaskPatch,
    api::{RESOURCES, Resource, TodoApi, find_resource},
};

use calls::{Calls, MOUNT};
use tasks::{USER, runtime, user};

/// The number of tasks that are created before they are removed again.
const CREATED: u64 = 1000;

/// Makes a request for the measurement.
type Make<'a> = &'a dyn Fn() -> Request<Full<Bytes>>;

fn resource(request: &Request<Full<Bytes>>) -> &'static Resource {
    let path = request.uri().path().strip_prefix(MOUNT).expect("a path below the mount");
    find_resource(RESOURCES, path).expect("a path of the API")
}

async fn answer(api: &TodoApi, request: Request<Full<Bytes>>, resource: &'static Resource, expected: StatusCode) {
    let response = api.respond(resource, request).await;
    assert_eq!(response.status(), expected);
}

/// Puts every second task in a list, and makes it due on a day of its own.
async fn plan_half(calls: &Calls) {
    let tasks = calls.api.service().for_user(user(USER));
    for (day, id) in (1..).zip(calls.ids.iter().step_by(2)) {
        let patch = TaskPatch {
            due: Patch::Set(format!("2026-12-{day:02}").parse().expect("a day")),
            list: Patch::Set(ListName::new("Groceries").expect("a name")),
            ..TaskPatch::default()
        };
        tasks.patch(*id, patch).await.expect("the task exists");
    }
}

fn respond(criterion: &mut Criterion) {
    let runtime = runtime();
    let calls = runtime.block_on(Calls::prepare());
    let task = format!("/tasks/{}", calls.ids[7]);
    let other = "/tasks/019aa3f0-5c00-7000-8000-000000000001";
    let json = |body: &'static str| {
        let request = calls.request(Method::POST, "/tasks").header("content-type", "application/json");
        request.header("content-length", body.len()).body(Full::from(body)).expect("a request")
    };
    let create = || {
        json(
            r#"{"title":"Buy milk and bread","description":"Two bottles, and the bread from the baker on the corner"}"#,
        )
    };
    let create_full = || {
        json(
            r#"{"title":"Buy milk and bread","description":"Two bottles, and the bread from the baker on the corner",
            "due":"2026-12-01T17:00[Europe/Berlin]","priority":"high","list":"Groceries","tags":["home","today"],"position":"a0V",
            "metadata":{"color":"green","estimate":{"minutes":20}}}"#,
        )
    };
    let toggle = || {
        let request = calls.request(Method::PATCH, &format!("{task}/complete"));
        request.body(Full::default()).expect("a request")
    };
    let stranger = || {
        let mut request = calls.get("/tasks");
        request.headers_mut().remove("authorization");
        request
    };

    let mut group = criterion.benchmark_group("respond");
    let cases: [(&str, StatusCode, Make<'_>); 6] = [
        ("list 20", StatusCode::OK, &|| calls.get("/tasks")),
        ("get", StatusCode::OK, &|| calls.get(&task)),
        ("toggle", StatusCode::OK, &toggle),
        ("401, no token", StatusCode::UNAUTHORIZED, &stranger),
        ("404, no such task", StatusCode::NOT_FOUND, &|| calls.get(other)),
        ("422, three fields", StatusCode::UNPROCESSABLE_ENTITY, &|| json(r#"{"title":" ","done":true,"user_id":"x"}"#)),
    ];
    let measure = |group: &mut BenchmarkGroup<'_, WallTime>, cases: &[(&str, StatusCode, Make<'_>)]| {
        for (name, status, request) in cases {
            let resource = resource(&request());
            group.bench_function(*name, |bencher| {
                bencher.to_async(&runtime).iter_batched(
                    request,
                    |request| answer(&calls.api, request, resource, *status),
                    BatchSize::SmallInput,
                );
            });
        }
    };
    measure(&mut group, &cases);
    // Separately, since they remove the tasks again.
    for (name, create) in [("create", &create as Make<'_>), ("create, all fields", &create_full)] {
        let resource = resource(&create());
        group.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter_custom(async |iterations| {
                let mut spent = Duration::ZERO;
                let mut left = iterations;
                while left > 0 {
                    let requests: Vec<_> = (0..left.min(CREATED)).map(|_| create()).collect();
                    left -= requests.len() as u64;
                    let created = Instant::now();
                    let mut ids = Vec::with_capacity(requests.len());
                    for request in requests {
                        let response = calls.api.respond(resource, request).await;
                        assert_eq!(response.status(), StatusCode::CREATED);
                        ids.push(response.headers()["location"].clone());
                    }
                    spent += created.elapsed();
                    for id in ids {
                        let id =
                            id.to_str().ok().and_then(|path| path.strip_prefix("tasks/")?.parse().ok()).expect("an id");
                        calls.api.service().for_user(user(USER)).delete(id).await.expect("the task exists");
                    }
                }
                spent
            });
        });
    }
    // At the end, since it changes the tasks: ten of them are in a list, and due.
    runtime.block_on(plan_half(&calls));
    measure(
        &mut group,
        &[
            ("list 10 of 20, by list", StatusCode::OK, &|| calls.get("/tasks?list=Groceries")),
            ("list 20, by text", StatusCode::OK, &|| calls.get("/tasks?q=BREAD")),
            ("list 20, in the order of due", StatusCode::OK, &|| calls.get("/tasks?sort=due")),
        ],
    );
    group.finish();
}

criterion_group!(name = benches; config = settings::short(); targets = respond);
criterion_main!(benches);
