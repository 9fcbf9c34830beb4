//! Lists, pages and query parameters.

use serde_json::{Value, json};

use super::{
    App,
    client::{ON_A_TASK, Reply, UNKNOWN_ID, client, path},
};

/// A list is a JSON array without an envelope.
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
    assert!(!reply.headers.contains_key("link"), "there is one page");
}

fn next(reply: &Reply) -> Option<String> {
    reply.headers.contains_key("link").then(|| {
        let link = reply.header("link");
        link.strip_prefix('<').and_then(|link| link.strip_suffix(r#">; rel="next""#)).expect(link).to_owned()
    })
}

/// `Link` points to the next page, and is absent on the last page.
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
    // A full last page has no link.
    assert_eq!(next(&ann.get("/tasks?limit=7").await), None);
}

/// `Link` and `Location` are relative to the URL of the request (RFC 3986, section 5).
pub async fn links_and_locations_are_relative_references(app: &dyn App) {
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

/// The next page has the same filter.
pub async fn the_link_keeps_the_filter(app: &dyn App) {
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

/// Invalid and unknown query parameters are rejected.
pub async fn query_parameters_are_validated(app: &dyn App) {
    let ann = client(app, "ann");
    let task = path(&ann.create("Query").await);
    for limit in ["0", "201", "-1", "1.5", "", "ten", "99999999999999999999", "%31%00"] {
        let reply = ann.get(&format!("/tasks?limit={limit}")).await;
        reply.validation_failed(&[("limit", &["must be between 1 and 200"])]);
    }
    for cursor in ["", "x", "%00", UNKNOWN_ID, "AZqj8FwAcACAAAAAAAAAAQ=="] {
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
    // Without parameters, and with encoded ones.
    for query in ["?", "?limit=200", "?limit=%31", "?completed=false&limit=1", "?&"] {
        ann.get(&format!("/tasks{query}")).await.ok(200);
    }
}
