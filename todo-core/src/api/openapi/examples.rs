//! The values in the examples of the document.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::sync_token::SyncToken;
use crate::{
    Position, TaskId, UserId,
    auth::Quota,
    clock::Timestamp,
    store::{Revision, SyncPoint},
};

pub(super) const EXAMPLE_USER: &str = "Zk3vQ8sXw1LrTn5YbH7cJd2MgA9fPe4U";

pub(super) fn example_id() -> TaskId {
    Uuid::from_u128(0x019a_a562_d400_7000_8000_0000_0000_0001).into()
}

pub(super) fn example_time() -> Timestamp {
    Timestamp::from_unix_seconds(1_763_712_000)
}

pub(super) fn example_token() -> String {
    let point = SyncPoint { revision: Revision::new(example_time().unix_micros()), ..SyncPoint::default() };
    UserId::new(EXAMPLE_USER).map(|user| SyncToken::new(&user, point).text()).unwrap_or_default()
}

pub(super) fn example_quota() -> Quota {
    Quota::new(100, Duration::from_secs(10)).remaining(99, Duration::from_secs(1))
}

pub(super) fn example_task() -> Value {
    json!({
        "id": example_id(),
        "user_id": EXAMPLE_USER,
        "title": "Buy milk",
        "description": "Two bottles",
        "completed": false,
        "completed_at": null,
        "due": "2026-12-01",
        "priority": "high",
        "list": "Groceries",
        "tags": ["home"],
        "position": Position::at(example_time()),
        "metadata": {},
        "created_at": example_time(),
        "updated_at": example_time(),
        "version": 1,
    })
}
