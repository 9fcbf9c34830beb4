//! Serves the documentation: the OpenAPI document and a page that shows it. The page loads nothing from other servers;
//! its files are part of this crate.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
        REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    },
};

use super::{error::ApiError, openapi, routes::Resource};
use crate::auth::Credentials;

/// The page loads from its own server only, connects to its own server only, and cannot be framed. `data:` allows the
/// images in the style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A static file of the page.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    /// Whether the content is compressed. Only browsers load these files, and all browsers accept gzip.
    is_gzip: bool,
    content: &'static [u8],
    tag: OnceLock<HeaderValue>,
}

impl Asset {
    const fn new(path: &'static str, content_type: &'static str, is_gzip: bool, content: &'static [u8]) -> Self {
        Self { path, content_type, is_gzip, content, tag: OnceLock::new() }
    }
}

static ASSETS: [Asset; 4] = [
    Asset::new("/docs", "text/html; charset=utf-8", false, include_bytes!("docs/index.html")),
    Asset::new("/docs/start.js", "text/javascript; charset=utf-8", false, include_bytes!("docs/start.js")),
    Asset::new(
        "/docs/swagger-ui-bundle.js",
        "text/javascript; charset=utf-8",
        true,
        include_bytes!("docs/swagger-ui-bundle.js.gz"),
    ),
    Asset::new("/docs/swagger-ui.css", "text/css; charset=utf-8", true, include_bytes!("docs/swagger-ui.css.gz")),
];

/// The documentation of an API mounted at a path. The document is made at the first request for it.
pub(super) struct Docs {
    mount: String,
    credentials: Arc<Credentials>,
    document: OnceLock<(Bytes, HeaderValue)>,
}

impl Docs {
    pub(super) fn new(mount: &str, credentials: Arc<Credentials>) -> Self {
        Self { mount: mount.to_owned(), credentials, document: OnceLock::new() }
    }

    /// Responds with the file at the path of this resource.
    pub(super) fn response(&self, resource: &Resource, headers: &HeaderMap) -> Result<Response<Bytes>, ApiError> {
        if let Some(asset) = ASSETS.iter().find(|asset| asset.path == resource.path) {
            let tag = asset.tag.get_or_init(|| tag(asset.content));
            let mut response = file(Bytes::from_static(asset.content), asset.content_type, tag, headers);
            if asset.is_gzip && response.status() == StatusCode::OK {
                response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            return Ok(response);
        }
        if resource.path == "/openapi.json" {
            let (document, tag) = self.document.get_or_init(|| {
                let document = Bytes::from(openapi::document_for(&self.mount, &self.credentials));
                let tag = tag(&document);
                (document, tag)
            });
            return Ok(file(document.clone(), "application/json", tag, headers));
        }
        Err(ApiError::Internal("a path of the documentation has no file"))
    }
}

impl fmt::Debug for Docs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Docs").field("mount", &self.mount).finish_non_exhaustive()
    }
}

/// A strong entity tag (RFC 9110, section 8.8.3): the first 16 bytes of the SHA-256 of the content.
fn tag(content: &[u8]) -> HeaderValue {
    let hash = digest(&SHA256, content);
    let tag = URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]);
    HeaderValue::try_from(format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// A response with the content, or 304 if the client has it already.
fn file(content: Bytes, content_type: &'static str, tag: &HeaderValue, headers: &HeaderMap) -> Response<Bytes> {
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let known = known.flat_map(|tags| tags.split(',')).map(|known| known.trim().trim_start_matches("W/"));
    let is_known = known.into_iter().any(|known| known == "*" || known.as_bytes() == tag.as_bytes());
    let mut response = Response::new(Bytes::new());
    let headers_of_all: [(HeaderName, &'static str); 4] = [
        // Caches may store the file but must revalidate it, because a newer server has newer files.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in headers_of_all {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().insert(ETAG, tag.clone());
    // A response to HEAD has the length of the body of GET (RFC 9110, section 8.6). Without this header, axum sends 0.
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        *response.body_mut() = content;
    }
    response
}
