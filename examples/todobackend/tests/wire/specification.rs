//! The sixteen behaviours of the public specification, in its order.

use http::StatusCode;
use serde_json::{Value, json};

use crate::site::{Site, shown, url};

// The root.

pub(crate) async fn the_root_responds(site: Site) {
    let response = site.request("GET", "", Value::Null).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
}

pub(crate) async fn a_post_returns_the_todo(site: Site) {
    assert_eq!(shown(&site.request("POST", "", json!({ "title": "Buy milk" })).await)["title"], "Buy milk");
}

pub(crate) async fn the_root_can_be_deleted(site: Site) {
    let response = site.request("DELETE", "", Value::Null).await;
    assert_eq!((response.status(), response.body().len()), (StatusCode::NO_CONTENT, 0));
}

pub(crate) async fn deleting_the_root_empties_the_list(site: Site) {
    site.post(json!({ "title": "Buy milk", "order": 1 })).await;
    site.post(json!({ "title": "Drink it" })).await;
    assert_eq!(site.list().await.len(), 2);
    site.request("DELETE", "", Value::Null).await;
    let response = site.request("GET", "", Value::Null).await;
    assert_eq!(response.body(), "[]");
}

// New todos, posted to the root.

pub(crate) async fn a_posted_todo_is_in_the_list(site: Site) {
    site.post(json!({ "title": "Buy milk" })).await;
    let list = site.list().await;
    assert_eq!(list.len(), 1);
    assert_eq!(list[0]["title"], "Buy milk");
}

pub(crate) async fn a_new_todo_is_not_completed(site: Site) {
    assert_eq!(site.post(json!({ "title": "Buy milk" })).await["completed"], false);
    assert_eq!(site.list().await[0]["completed"], false);
}

pub(crate) async fn a_new_todo_has_a_url(site: Site) {
    let todo = site.post(json!({ "title": "Buy milk" })).await;
    assert!(url(&todo).starts_with(&format!("http://{}/", site.address())), "{todo}");
    assert_eq!(site.list().await[0]["url"], todo["url"]);
}

pub(crate) async fn the_url_returns_the_todo(site: Site) {
    let todo = site.post(json!({ "title": "Buy milk" })).await;
    assert_eq!(site.get(&todo).await, todo);
}

// An existing todo.

pub(crate) async fn the_urls_in_the_list_return_the_todos(site: Site) {
    tokio::join!(site.post(json!({ "title": "One" })), site.post(json!({ "title": "Another" })));
    let list = site.list().await;
    assert_eq!(list.len(), 2);
    for todo in &list {
        assert_eq!(&site.get(todo).await, todo);
    }
}

pub(crate) async fn a_patch_changes_the_title(site: Site) {
    let todo = site.post(json!({ "title": "Buy milk" })).await;
    assert_eq!(site.patch(&todo, json!({ "title": "Buy oats" })).await["title"], "Buy oats");
}

pub(crate) async fn a_patch_changes_the_completion(site: Site) {
    let todo = site.post(json!({ "title": "Buy milk" })).await;
    assert_eq!(site.patch(&todo, json!({ "completed": true })).await["completed"], true);
    assert_eq!(site.patch(&todo, json!({ "completed": false })).await["completed"], false);
}

pub(crate) async fn changes_are_stored(site: Site) {
    let todo = site.post(json!({ "title": "Buy milk" })).await;
    let patched = site.patch(&todo, json!({ "title": "Buy oats", "completed": true })).await;
    let expected = json!({ "title": "Buy oats", "completed": true, "order": null, "url": todo["url"] });
    assert_eq!(patched, expected);
    assert_eq!(site.get(&patched).await, expected);
    assert_eq!(site.list().await, [expected]);
}

pub(crate) async fn a_todo_can_be_deleted_at_its_url(site: Site) {
    let [kept, gone] = [site.post(json!({ "title": "Keep" })).await, site.post(json!({ "title": "Drop" })).await];
    let response = site.request("DELETE", url(&gone), Value::Null).await;
    assert_eq!((response.status(), response.body().len()), (StatusCode::NO_CONTENT, 0));
    assert_eq!(site.list().await, [kept]);
    for method in ["GET", "DELETE"] {
        assert_eq!(site.request(method, url(&gone), Value::Null).await.status(), StatusCode::NOT_FOUND);
    }
}

// The order.

pub(crate) async fn a_todo_can_be_posted_with_an_order(site: Site) {
    let todo = site.post(json!({ "title": "Buy milk", "order": 523 })).await;
    assert_eq!(todo["order"], 523);
    assert_eq!(site.get(&todo).await["order"], 523);
}

pub(crate) async fn a_patch_changes_the_order(site: Site) {
    let todo = site.post(json!({ "title": "Buy milk", "order": 10 })).await;
    assert_eq!(site.patch(&todo, json!({ "order": 95 })).await["order"], 95);
}

pub(crate) async fn a_changed_order_is_stored(site: Site) {
    let todo = site.post(json!({ "title": "Buy milk", "order": 10 })).await;
    let patched = site.patch(&todo, json!({ "order": 95 })).await;
    assert_eq!(site.get(&patched).await["order"], 95);
    assert_eq!(site.list().await[0]["order"], 95);
}
