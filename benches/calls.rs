//! An API on the memory store, and requests for it.

use bytes::Bytes;
use http::{Method, Request, request::Builder};
use http_body_util::Full;
use serde_json::json;
use testkit::tokens::{SigningKey, now};
use todo_core::{
    TaskId, TodoService,
    api::TodoApi,
    auth::{JwkSet, JwtVerifier, KeySource},
    store::MemoryStore,
};

use crate::tasks::{USER, fill};

/// Where the API is mounted.
pub(crate) const MOUNT: &str = "/api/v1";

/// A user with 20 tasks, whose token is in the cache of the verifier.
pub(crate) struct Calls {
    pub(crate) api: TodoApi,
    pub(crate) ids: Vec<TaskId>,
    pub(crate) token: String,
}

impl Calls {
    pub(crate) async fn prepare() -> Self {
        let app = "https://app.example.com";
        let key = SigningKey::ed25519();
        // The claims of Better Auth.
        let claims = json!({
            "iat": now(), "exp": now() + 60 * 60, "sub": USER, "id": USER, "iss": app, "aud": app,
            "name": "Ann Example", "email": "ann@example.com", "emailVerified": true,
            "createdAt": "2025-11-21T08:00:00.000Z", "updatedAt": "2025-11-21T08:00:00.000Z",
        });
        let token = key.token("1", &claims);
        let keys = JwkSet::from_json(&json!({ "keys": [key.jwk("1")] }).to_string()).expect("a key set");
        let source = KeySource::jwks(keys).issuers([app]).audiences([app]);
        let verifier = JwtVerifier::builder().source(source).build().expect("a valid source");
        verifier.verify(&token).await.expect("a valid token");
        let service = TodoService::new(MemoryStore::new());
        let ids = fill(&service, USER, 20).await;
        Self { api: TodoApi::new(service, verifier), ids, token }
    }

    /// A request with the headers of a browser, for a path below the mount.
    pub(crate) fn request(&self, method: Method, path: &str) -> Builder {
        Request::builder()
            .method(method)
            .uri(format!("{MOUNT}{path}"))
            .header("host", "api.example.com")
            .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0")
            .header("accept", "application/json")
            .header("accept-encoding", "gzip, deflate, br")
            .header("authorization", format!("Bearer {}", self.token))
    }

    pub(crate) fn get(&self, path: &str) -> Request<Full<Bytes>> {
        self.request(Method::GET, path).body(Full::default()).expect("a request")
    }
}
