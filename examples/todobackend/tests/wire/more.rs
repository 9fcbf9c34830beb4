//! Behaviour that the specification leaves open.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::site::{Site, shown, url};

#[track_caller]
fn assert_problem(response: &Response<Bytes>, status: StatusCode, code: &str) -> Value {
    assert_eq!(response.status(), status, "{response:?}");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(problem["code"], code);
    problem
}

pub(crate) async fn parallel_posts_are_all_kept(site: Site) {
    let site = std::sync::Arc::new(site);
    let posting: Vec<_> = (0..60)
        .map(|number| {
            let site = site.clone();
            tokio::spawn(async move { site.post(json!({ "title": format!("No. {number}"), "order": number })).await })
        })
        .collect();
    let mut posted = Vec::new();
    for posting in posting {
        posted.push(posting.await.unwrap());
    }
    // Both are in the order of the numbers.
    assert_eq!(site.list().await, posted);
}

pub(crate) async fn the_list_is_sorted_by_order(site: Site) {
    for (title, order) in [("d", json!(null)), ("b", json!(7)), ("e", json!(null)), ("a", json!(-1)), ("c", json!(7))] {
        site.post(json!({ "title": title, "order": order })).await;
    }
    // More todos than a page of the service.
    for _ in 0..120 {
        site.post(json!({ "title": "f" })).await;
    }
    let list = site.list().await;
    let titles: String = list.iter().map(|todo| todo["title"].as_str().unwrap()).collect();
    assert_eq!(titles, "abcde".to_owned() + &"f".repeat(120));
}

pub(crate) async fn a_patch_does_not_change_absent_members(site: Site) {
    let mut todo = site.post(json!({ "title": "Buy milk", "completed": true, "order": 3 })).await;
    assert_eq!(site.patch(&todo, json!({})).await, todo);
    for (member, value) in [("title", json!("Buy oats")), ("completed", json!(false)), ("order", json!(4))] {
        todo[member] = value.clone();
        assert_eq!(site.patch(&todo, json!({ member: value })).await, todo);
        assert_eq!(site.get(&todo).await, todo);
    }
}

pub(crate) async fn an_order_can_be_removed(site: Site) {
    let other = site.post(json!({ "title": "Buy oats", "order": 2 })).await;
    let todo = site.post(json!({ "title": "Buy milk", "order": 3 })).await;
    assert_eq!(site.patch(&todo, json!({ "order": null })).await["order"], Value::Null);
    assert_eq!(site.get(&todo).await["order"], Value::Null);
    assert_eq!(site.get(&other).await, other);
    assert_eq!(site.positions().await, 1);
}

pub(crate) async fn a_received_todo_can_be_sent_back(site: Site) {
    let mut todo = site.post(json!({ "title": "Buy milk", "order": i64::MAX })).await;
    todo["completed"] = json!(true);
    assert_eq!(site.patch(&todo, todo.clone()).await, todo);
}

pub(crate) async fn a_failed_position_rolls_back_the_task(site: Site) {
    let todo = site.post(json!({ "title": "Buy milk", "order": 1 })).await;
    site.run(if site.database.starts_with("sqlite:") {
        "create trigger unlucky before insert on todobackend_order when new.position = 13
         begin select raise(abort, 'unlucky'); end"
    } else {
        "alter table todobackend_order add check (position <> 13)"
    })
    .await;
    let rejected = site.request("POST", "", json!({ "title": "Buy oats", "order": 13 })).await;
    assert_problem(&rejected, StatusCode::INTERNAL_SERVER_ERROR, "internal");
    let rejected = site.request("PATCH", url(&todo), json!({ "title": "Buy oats", "order": 13 })).await;
    assert_problem(&rejected, StatusCode::INTERNAL_SERVER_ERROR, "internal");
    assert_eq!(site.list().await, [todo]);
    // The service still works.
    site.post(json!({ "title": "Buy oats", "order": 14 })).await;
}

pub(crate) async fn a_failed_task_rolls_back_the_position(site: Site) {
    site.run(if site.database.starts_with("sqlite:") {
        "create trigger unlucky before insert on todo_tasks when new.title = 'Unlucky'
         begin select raise(abort, 'unlucky'); end"
    } else {
        "alter table todo.tasks add check (title <> 'Unlucky')"
    })
    .await;
    let rejected = site.request("POST", "", json!({ "title": "Unlucky", "order": 1 })).await;
    assert_problem(&rejected, StatusCode::INTERNAL_SERVER_ERROR, "internal");
    assert_eq!((site.list().await.len(), site.positions().await), (0, 0));
    site.post(json!({ "title": "Lucky", "order": 1 })).await;
    assert_eq!(site.positions().await, 1);
}

pub(crate) async fn a_missing_todo_gets_no_position(site: Site) {
    let todo = site.post(json!({ "title": "Buy milk" })).await;
    site.request("DELETE", url(&todo), Value::Null).await;
    let missing = site.request("PATCH", url(&todo), json!({ "order": 1 })).await;
    assert_problem(&missing, StatusCode::NOT_FOUND, "task_not_found");
    assert_eq!(site.positions().await, 0);
}

pub(crate) async fn positions_are_deleted_with_their_tasks(site: Site) {
    let [one, other, _] = [
        site.post(json!({ "title": "One", "order": 1 })).await,
        site.post(json!({ "title": "Other", "order": 2 })).await,
        site.post(json!({ "title": "Third", "order": 3 })).await,
    ];
    site.request("DELETE", url(&one), Value::Null).await;
    assert_eq!(site.positions().await, 2);
    assert_eq!(site.get(&other).await, other);
    site.request("DELETE", "", Value::Null).await;
    assert_eq!((site.list().await.len(), site.positions().await), (0, 0));
}

pub(crate) async fn invalid_input_is_rejected(site: Site) {
    let todo = site.post(json!({ "title": "Buy milk" })).await;
    let path = url(&todo).replace(&format!("http://{}", site.address()), "");
    for (method, path) in [("POST", "/"), ("PATCH", &*path)] {
        let send = |content_type: &'static str, body: Vec<u8>| {
            let request = Request::builder().method(method).uri(path).header("content-type", content_type);
            site.send(request.body(body.into()).unwrap())
        };
        let rejected = send("text/plain", b"{}".to_vec()).await;
        assert_problem(&rejected, StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
        let rejected = send("application/json", b"{".to_vec()).await;
        assert_problem(&rejected, StatusCode::BAD_REQUEST, "malformed_json");
        let rejected = send("application/json; charset=utf-8", vec![b' '; 64 * 1024 + 1]).await;
        assert_problem(&rejected, StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
        let rejected = send("application/json", b"[]".to_vec()).await;
        assert_problem(&rejected, StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        let wrong = json!({ "title": " ", "completed": "yes", "order": 1.5, "colour": "red", "url": 7 });
        let rejected = send("application/json", wrong.to_string().into()).await;
        let problem = assert_problem(&rejected, StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        let expected = json!({
            "title": ["must not be blank"],
            "completed": ["must be true or false"],
            "order": ["must be a 64-bit integer or null"],
            "colour": ["is unknown"],
        });
        assert_eq!(problem["field_errors"], expected);
        let wrong = json!({ "title": null, "completed": null, "order": "1" });
        let rejected = send("application/json", wrong.to_string().into()).await;
        let problem = assert_problem(&rejected, StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        assert_eq!(problem["field_errors"].as_object().unwrap().len(), 3);
    }
    let rejected = site.request("POST", "", json!({})).await;
    let problem = assert_problem(&rejected, StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(problem["field_errors"], json!({ "title": ["is required"] }));
    assert_eq!(site.list().await, [todo]);
}

pub(crate) async fn unknown_paths_are_not_found(site: Site) {
    let root = format!("http://{}", site.address());
    for path in ["/nothing", "/019aa3f0-5c00-7000-8000-000000000001", "/%FF"] {
        let missing = site.request("GET", &format!("{root}{path}"), Value::Null).await;
        assert_problem(&missing, StatusCode::NOT_FOUND, "task_not_found");
    }
    let missing = site.request("GET", &format!("{root}/todos/7"), Value::Null).await;
    assert_problem(&missing, StatusCode::NOT_FOUND, "not_found");
    for (path, allow) in [("/", "GET, HEAD, POST, DELETE, OPTIONS"), ("/x", "GET, HEAD, PATCH, DELETE, OPTIONS")] {
        let rejected = site.request("PUT", &format!("{root}{path}"), json!({ "title": "Put" })).await;
        assert_problem(&rejected, StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
        assert_eq!(rejected.headers().get_all("allow").iter().collect::<Vec<_>>(), [allow]);
    }
}

pub(crate) async fn all_origins_are_allowed(site: Site) {
    // Also if a token is required, because a browser sends no token with a preflight.
    for site in [&site, &site.with_tokens().await] {
        for (path, method) in [("/", "POST"), ("/", "DELETE"), ("/any", "PATCH"), ("/any", "DELETE")] {
            let preflight = Request::options(path)
                .header("origin", "https://todobackend.com")
                .header("access-control-request-method", method)
                .header("access-control-request-headers", "authorization,content-type,x-whatever");
            let response = site.send(preflight.body(Bytes::new()).unwrap()).await;
            let header = |name: &str| response.headers()[name].to_str().unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(header("access-control-allow-origin"), "*");
            assert!(header("access-control-allow-methods").split(',').any(|own| own == method));
            assert_eq!(header("access-control-allow-headers"), "authorization,content-type,x-whatever");
        }
    }
    let posted = site.request("POST", "", json!({ "title": "Buy milk" })).await;
    assert_eq!(posted.headers()["location"], url(&shown(&posted)));
    assert!(posted.headers()["access-control-expose-headers"].to_str().unwrap().contains("location"));
    // So that a page can read the error.
    let rejected = site.request("POST", "", json!({})).await;
    assert_eq!(rejected.headers()["access-control-allow-origin"], "*");
}

pub(crate) async fn urls_contain_the_host_of_the_request(site: Site) {
    let post = async |hosts: &[&str]| {
        let mut request = Request::post("/").header("content-type", "application/json");
        for host in hosts {
            request = request.header("host", *host);
        }
        request = request.header("x-forwarded-proto", "https").header("x-forwarded-host", "evil.example");
        site.send(request.body(r#"{"title":"Buy milk"}"#.into()).unwrap()).await
    };
    for host in ["todo.example", "todo.example:8443", "[::1]:8000"] {
        let todo = shown(&post(&[host]).await);
        assert!(url(&todo).starts_with(&format!("http://{host}/")), "{todo}");
    }
    for hosts in [&["todo.example", "other.example"][..], &["user@todo.example"], &["todo.example/x"], &[""]] {
        assert_eq!(post(hosts).await.status(), StatusCode::BAD_REQUEST, "{hosts:?}");
    }
    let without_host = testkit::http::raw(site.address().parse().unwrap(), b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(without_host.starts_with(b"HTTP/1.0 400"), "{}", String::from_utf8_lossy(&without_host));
}

pub(crate) async fn urls_start_with_the_base_url(site: Site) {
    for base in ["https://todo.example/todos", "https://todo.example/todos/"] {
        let site = site.with_base_url(base).await;
        let posted = site.request("POST", "", json!({ "title": "Buy milk" })).await;
        let todo = shown(&posted);
        assert!(url(&todo).starts_with("https://todo.example/todos/0"), "{todo}");
        assert_eq!(posted.headers()["location"], url(&todo));
        let without_host = testkit::http::raw(site.address().parse().unwrap(), b"GET / HTTP/1.0\r\n\r\n").await;
        assert!(without_host.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&without_host));
    }
}

pub(crate) async fn users_with_tokens_are_separated(site: Site) {
    let site = site.with_tokens().await;
    for (method, body) in [("GET", Value::Null), ("POST", json!({ "title": "Mine" })), ("DELETE", Value::Null)] {
        let rejected = site.request(method, "", body).await;
        assert_problem(&rejected, StatusCode::UNAUTHORIZED, "unauthenticated");
        assert_eq!(rejected.headers()["www-authenticate"], "Bearer");
        assert_eq!(rejected.headers()["access-control-allow-origin"], "*");
    }
    let of_ann = shown(&site.request_of("ann", "POST", "", json!({ "title": "Ann's", "order": 1 })).await);
    let of_bob = shown(&site.request_of("bob", "POST", "", json!({ "title": "Bob's", "order": 2 })).await);
    for (user, own, foreign) in [("ann", &of_ann, &of_bob), ("bob", &of_bob, &of_ann)] {
        assert_eq!(shown(&site.request_of(user, "GET", "", Value::Null).await), json!([own]));
        assert_eq!(&shown(&site.request_of(user, "GET", url(own), Value::Null).await), own);
        for (method, body) in [("GET", Value::Null), ("PATCH", json!({ "order": 9 })), ("DELETE", Value::Null)] {
            let missing = site.request_of(user, method, url(foreign), body).await;
            assert_problem(&missing, StatusCode::NOT_FOUND, "task_not_found");
        }
    }
    site.request_of("ann", "DELETE", "", Value::Null).await;
    assert_eq!(shown(&site.request_of("ann", "GET", "", Value::Null).await), json!([]));
    assert_eq!(shown(&site.request_of("bob", "GET", "", Value::Null).await), json!([of_bob]));
    assert_eq!(site.positions().await, 1);
}
