//! The response headers.

use std::collections::BTreeSet;

use http::{
    HeaderMap, HeaderName,
    header::{ACCEPT_ENCODING, ALLOW, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::{Map, Value, json};

use super::{
    super::routes::{DOCS, PROBES, RESOURCES},
    examples::example_quota,
};
use crate::auth::Credentials;

/// The usual spelling of a header name, such as `WWW-Authenticate` for `www-authenticate`.
pub(super) fn header_name(name: &HeaderName) -> String {
    for special in ["WWW-Authenticate", "RateLimit", "RateLimit-Policy"] {
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

pub(super) fn no_store() -> Value {
    json!({
        "description": "Caches must not store the response, because it depends on the user.",
        "required": true,
        "schema": {"type": "string", "const": "no-store"},
    })
}

/// A header of the response to a failed request, for callers who present these credentials.
pub(super) fn failure_header(name: &HeaderName, credentials: &Credentials) -> Value {
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
