//! The errors of a store: what they say about the call, and how the API responds.

use std::error::Error as _;

use todo_core::{
    Error,
    api::ApiError,
    store::{SetupError, StoreError},
};

fn all() -> [(StoreError, bool, u16, &'static str); 6] {
    [
        (SetupError::new("the bucket does not exist; create it").into(), false, 500, "internal"),
        (StoreError::Unavailable("full".into()), false, 503, "unavailable"),
        (StoreError::NotWritable("full".into()), false, 503, "unavailable"),
        (StoreError::Interrupted("lost".into()), true, 503, "unavailable"),
        (StoreError::Timeout("cancelled".into()), false, 503, "timeout"),
        (StoreError::Backend("odd".into()), true, 500, "internal"),
    ]
}

#[test]
fn an_error_says_whether_the_call_may_have_happened() {
    for (error, may_have_happened, ..) in all() {
        assert_eq!(error.may_have_happened(), may_have_happened, "{error:?}");
    }
}

#[test]
fn each_error_has_its_status_and_code() {
    for (error, _, status, code) in all() {
        let text = format!("{error:?}");
        let error = ApiError::from(Error::from(error));
        assert_eq!((error.status().as_u16(), error.code()), (status, code), "{text}");
        assert_eq!(error.retry_after().is_some(), status == 503, "{text}");
    }
}

#[test]
fn a_setup_mistake_says_what_to_change_and_keeps_its_source() {
    let source = std::io::Error::other("no such bucket");
    let error = StoreError::from(SetupError::new("the bucket does not exist; create it").with_source(source));
    assert_eq!(error.to_string(), "the bucket does not exist; create it");
    assert_eq!(error.source().unwrap().to_string(), "no such bucket");
}
