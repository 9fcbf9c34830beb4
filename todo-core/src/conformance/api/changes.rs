//! The changes since a token.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    App,
    client::{Client, Reply, client, path},
};

/// The token after which the next changes are asked for.
fn next(page: &Value) -> &str {
    page["next"].as_str().unwrap()
}

async fn since(client: &Client<'_>, token: &str) -> Value {
    client.get(&format!("/tasks/changes?since={token}")).await.ok(200)
}

fn expired(reply: &Reply) {
    reply.problem(
        410,
        "Gone",
        "sync_token_expired",
        "The token cannot be continued. Read all tasks again, without a token.",
    );
}

/// A client that follows the changes has the tasks of the server. Each change comes once, with the task as it is now.
pub async fn changes_are_listed_since_a_token(app: &dyn App) {
    let ann = client(app, "ann");
    let reply = ann.get("/tasks/changes").await;
    let page = reply.ok(200);
    assert_eq!(page, json!({"changes": [], "next": next(&page), "more": false}));
    let members = format!(r#"{{"changes":[],"next":"{}","more":false}}"#, next(&page));
    assert_eq!((reply.header("cache-control"), &*reply.body), ("no-store", members.as_bytes()));

    // Also the first task of a user.
    let milk = ann.create("Milk").await;
    let page = since(&ann, next(&page)).await;
    assert_eq!(page["changes"], json!([{"task": milk}]));
    let first = next(&page).to_owned();
    assert_eq!(since(&ann, &first).await, json!({"changes": [], "next": first, "more": false}));

    let bread = ann.create("Bread").await;
    let milk = ann.send("PATCH", &path(&milk), &json!({"title": "Oat milk"})).await.ok(200);
    // A change that changes nothing is none.
    ann.send("PATCH", &path(&milk), &json!({"title": "Oat milk"})).await.ok(200);
    let page = since(&ann, &first).await;
    assert_eq!(page["changes"], json!([{"task": bread}, {"task": milk}]));
    let second = next(&page).to_owned();

    assert_eq!(ann.bare("DELETE", &path(&bread)).await.status, 204);
    let page = since(&ann, &second).await;
    assert_eq!((&page["changes"], &page["more"]), (&json!([{"deleted": bread["id"]}]), &json!(false)));
    // An earlier client, and one that begins with nothing.
    assert_eq!(since(&ann, &first).await["changes"], json!([{"task": milk}, {"deleted": bread["id"]}]));
    assert_eq!(ann.get("/tasks/changes").await.ok(200)["changes"], json!([{"task": milk}]));
    // The changes of others are not among them.
    client(app, "bob").create("Of Bob").await;
    assert_eq!(since(&ann, next(&page)).await["changes"], json!([]));
    assert_eq!(ann.get(&format!("/ann/tasks/changes?since={second}")).await.ok(200), page);
}

/// Pages together have each task once, also if tasks change between the pages.
pub async fn changes_are_listed_in_pages(app: &dyn App) {
    let ann = client(app, "ann");
    let several = (0..7).map(|number| json!({"title": format!("Task {number}")})).collect::<Value>();
    let tasks = ann.send("POST", "/tasks", &several).await.ok(201);
    let mut query = "?limit=3".to_owned();
    let mut seen = Vec::new();
    for (length, more) in [(3, true), (3, true), (1, false)] {
        let page = ann.get(&format!("/tasks/changes{query}")).await.ok(200);
        let changes = page["changes"].as_array().unwrap();
        assert_eq!((changes.len(), &page["more"]), (length, &json!(more)));
        seen.extend(changes.iter().map(|change| change["task"].clone()));
        query = format!("?limit=3&since={}", next(&page));
    }
    assert_eq!(Value::from(seen), tasks);

    // A task that changes while the pages are read comes again; one that is deleted before its page does not come.
    let page = ann.get("/tasks/changes?limit=3").await.ok(200);
    let changed = ann.send("PATCH", &path(&tasks[0]), &json!({"completed": true})).await.ok(200);
    assert_eq!(ann.bare("DELETE", &path(&tasks[4])).await.status, 204);
    let rest = since(&ann, next(&page)).await;
    let expected = json!([{"task": tasks[3]}, {"task": tasks[5]}, {"task": tasks[6]}, {"task": changed}, {"deleted": tasks[4]["id"]}]);
    assert_eq!((&rest["changes"], &rest["more"]), (&expected, &json!(false)));
}

/// Malformed tokens are invalid. Those of another user, from the future and of an erased user are gone.
pub async fn tokens_that_cannot_be_continued_are_rejected(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    bob.create("Of Bob").await;
    ann.create("Of Ann").await;
    let token = next(&ann.get("/tasks/changes").await.ok(200)).to_owned();
    // So that the token lies among the revisions of the other user, and only its user is wrong.
    tokio::time::sleep(Duration::from_millis(20)).await;
    bob.create("Of Bob, later").await;
    let malformed = [String::new(), "x".to_owned(), token.clone() + "=", token[1..].to_owned(), "%C3%A4".to_owned()];
    for text in malformed {
        let reply = ann.get(&format!("/tasks/changes?since={text}")).await;
        reply.validation_failed(&[("since", &["must be a token from an earlier response"])]);
    }
    let reply = ann.get(&format!("/tasks/changes?since={token}&since={token}&limit=0&dry=run")).await;
    reply.validation_failed(&[
        ("dry", &["is unknown"]),
        ("limit", &["must be between 1 and 200"]),
        ("since", &["must be given only once"]),
    ]);

    expired(&bob.get(&format!("/tasks/changes?since={token}")).await);
    let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
    // The revision after the version and the digest of the user.
    bytes[9] = 0x7f;
    expired(&ann.get(&format!("/tasks/changes?since={}", URL_SAFE_NO_PAD.encode(bytes))).await);
    // What an erased user had is forgotten.
    ann.bare("DELETE", "/tasks?all=true").await.ok(200);
    expired(&ann.get(&format!("/tasks/changes?since={token}")).await);
    ann.create("New").await;
    expired(&ann.get(&format!("/tasks/changes?since={token}")).await);
}
