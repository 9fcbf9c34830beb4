//! How callers authenticate.

use serde_json::{Map, Value, json};

use crate::auth::{Credentials, Scheme};

fn name(scheme: &Scheme) -> &'static str {
    match scheme {
        Scheme::Bearer => "bearer",
        Scheme::Basic => "basic",
        Scheme::Cookie(_) => "cookie",
        Scheme::Header(_) => "header",
    }
}

/// The security schemes of the document.
pub(super) fn schemes(credentials: &Credentials) -> Value {
    let described = credentials.schemes().iter().map(|scheme| {
        let object = match scheme {
            Scheme::Bearer => json!({
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "A JSON Web Token of the identity provider, such as the one from Better Auth's \
                    `/api/auth/token`. It identifies the caller.",
            }),
            Scheme::Basic => json!({"type": "http", "scheme": "basic"}),
            Scheme::Cookie(name) => json!({
                "type": "apiKey",
                "in": "cookie",
                "name": name,
                "description": "The session of a signed-in user. Writes are accepted only with the `Origin` of the site.",
            }),
            Scheme::Header(name) => json!({"type": "apiKey", "in": "header", "name": name.as_str()}),
        };
        (name(scheme).to_owned(), object)
    });
    described.collect::<Map<_, _>>().into()
}

/// The security requirement of an operation: any one of the schemes.
pub(super) fn requirements(credentials: &Credentials) -> Value {
    credentials.schemes().iter().map(|scheme| json!({name(scheme): []})).collect()
}
