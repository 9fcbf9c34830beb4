//! The response headers.

use std::collections::BTreeSet;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, ETAG, RETRY_AFTER, VARY, WWW_AUTHENTICATE},
};
use serde_json::{Map, Value, json};

use super::{
    super::routes::{DOCS, PROBES, RESOURCES},
    examples::example_quota,
};
use crate::auth::Credentials;

/// The usual spelling of a header name, such as `WWW-Authenticate` for `www-authenticate`.
pub(super) fn header_name(name: &HeaderName) -> String {
    for special in ["WWW-Authenticate", "RateLimit", "RateLimit-Policy", "ETag"] {
        if name == special {
            return special.to_owned();
        }
    }
    let words = name.as_str().split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        format!("{}{rest}", first.to_uppercase())
    });
    words.collect::<Vec<_>>().join("-")
}

/// The headers with the caller's quota.
pub(super) fn quota_headers() -> Map<String, Value> {
    let mut headers = HeaderMap::new();
    example_quota().tell(&mut headers);
    let described = headers.iter().map(|(name, value)| {
        let (description, pattern) = if name == "ratelimit" {
            (
                "The requests that are left (`r`), and the seconds until the full quota is available again (`t`).",
                "r=[0-9]+;t",
            )
        } else {
            ("The quota: the requests that are allowed (`q`) in a number of seconds (`w`).", "q=[0-9]+;w")
        };
        let header = json!({
            "description": format!("{description} Absent if the server does not limit request rates."),
            "schema": {"type": "string", "pattern": format!("^\"user\";{pattern}=[0-9]+$")},
            "example": value.to_str().unwrap_or_default(),
        });
        (header_name(name), header)
    });
    described.collect()
}

/// References to the headers with the caller's quota.
pub(super) fn quota_references() -> Map<String, Value> {
    let names = quota_headers().into_iter().map(|(name, _)| name);
    names.map(|name| (name.clone(), json!({"$ref": format!("#/components/headers/{name}")}))).collect()
}

/// The headers of a response with an entity tag: the tag, who may keep the response, and for whom it is. `always` says
/// whether each response has one.
pub(super) fn tag_headers(pattern: &str, example: &str, always: bool) -> Map<String, Value> {
    let tag = json!({
        "description": "The entity tag, for `If-None-Match` of a later read and `If-Match` of a change.",
        "required": always,
        "schema": {"type": "string", "pattern": pattern},
        "example": example,
    });
    let kept = if always { json!({"const": KEPT_BY_CLIENT}) } else { json!({"enum": [KEPT_BY_CLIENT, "no-store"]}) };
    let mut kept_type = kept;
    kept_type["type"] = "string".into();
    let cache_control = json!({
        "description": "The client alone may keep the response, and has to ask each time whether it is current.",
        "required": true,
        "schema": kept_type,
    });
    let mut vary = vary();
    vary["required"] = always.into();
    Map::from_iter([
        (header_name(&ETAG), tag),
        (header_name(&CACHE_CONTROL), cache_control),
        (header_name(&VARY), vary),
    ])
}

/// The `Cache-Control` of a response with an entity tag.
const KEPT_BY_CLIENT: &str = "private, no-cache";

/// The entity tag of a task, and of a read of many tasks.
pub(super) const TASK_TAG: (&str, &str) = ("^\"[0-9]+\"$", "\"3\"");
pub(super) const READ_TAG: (&str, &str) =
    ("^W/\"[0-9a-f]{16}-[0-9]+-[0-9a-f]{16}\"$", "W/\"5d41402abc4b2a76-1763712000000001-b9719d911017c592\"");

fn vary() -> Value {
    json!({
        "description": "The response is for the user whose credential the request has.",
        "required": true,
        "schema": {"type": "string"},
    })
}

pub(super) fn no_store() -> Value {
    json!({
        "description": "Caches must not store the response, because it depends on the user.",
        "required": true,
        "schema": {"type": "string", "const": "no-store"},
    })
}

/// A header of the response to a failed request, for callers who present these credentials.
pub(super) fn failure_header(name: &HeaderName, value: &HeaderValue, credentials: &Credentials) -> Value {
    if name == ETAG || name == VARY || (name == CACHE_CONTROL && value == KEPT_BY_CLIENT) {
        let mut headers = tag_headers(TASK_TAG.0, TASK_TAG.1, true);
        return headers.remove(&header_name(name)).unwrap_or_default();
    }
    let (description, schema) = if name == WWW_AUTHENTICATE && *credentials != Credentials::bearer() {
        ("How to authenticate.", json!({"type": "string"}))
    } else if name == WWW_AUTHENTICATE {
        (
            "Why the token was rejected (RFC 6750).",
            json!({
                "type": "string",
                "pattern": "^Bearer( error=\"(invalid_token|insufficient_scope)\", error_description=\"[^\"]+\"\
                    (, scope=\"[^\"]+\")?)?$",
            }),
        )
    } else if name == RETRY_AFTER {
        ("The seconds to wait before a retry.", json!({"type": "integer", "minimum": 1}))
    } else if name == ALLOW {
        let known: BTreeSet<_> = RESOURCES.iter().chain(PROBES).chain(DOCS).map(|resource| resource.allow).collect();
        ("The methods of the path.", json!({"type": "string", "enum": known}))
    } else if name == ACCEPT_ENCODING {
        let description = "The content coding to use, if the body was compressed.";
        return json!({"description": description, "schema": {"type": "string", "const": "identity"}});
    } else {
        return no_store();
    };
    json!({"description": description, "required": true, "schema": schema})
}
