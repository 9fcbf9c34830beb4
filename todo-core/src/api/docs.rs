//! The documentation over HTTP: the document, and a page that shows it. All that the page needs is in this crate, and
//! it asks nobody else.

use std::{fmt, sync::OnceLock};

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

use super::{ApiError, Resource, openapi};

/// The page loads from its own server, sends to its own server, and is shown in no other page. `data:` are the pictures
/// within the style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file that is the same for all.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    /// Compressed already. Only browsers read these, and all of them take gzip.
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

/// The documentation of an API that is mounted somewhere. The document is made when it is first asked for.
pub(super) struct Docs {
    mount: String,
    document: OnceLock<(Bytes, HeaderValue)>,
}

impl Docs {
    pub(super) fn new(mount: &str) -> Self {
        Self { mount: mount.to_owned(), document: OnceLock::new() }
    }

    /// The file at this path.
    pub(super) fn answer(&self, resource: &Resource, headers: &HeaderMap) -> Result<Response<Bytes>, ApiError> {
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
                let document = Bytes::from(openapi::document(&self.mount));
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

/// A strong validator (RFC 9110, section 8.8.3): the beginning of the content's SHA-256.
fn tag(content: &[u8]) -> HeaderValue {
    let hash = digest(&SHA256, content);
    let tag = URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]);
    HeaderValue::try_from(format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// The content, unless the caller has it already.
fn file(content: Bytes, content_type: &'static str, tag: &HeaderValue, headers: &HeaderMap) -> Response<Bytes> {
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let known = known.flat_map(|tags| tags.split(',')).map(|known| known.trim().trim_start_matches("W/"));
    let is_known = known.into_iter().any(|known| known == "*" || known.as_bytes() == tag.as_bytes());
    let mut response = Response::new(Bytes::new());
    let always: [(HeaderName, &'static str); 4] = [
        // It may be kept, but a newer server has newer files.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in always {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().insert(ETAG, tag.clone());
    // Without a body it is the length that there would be (RFC 9110, section 8.6): axum would say 0 to HEAD.
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        *response.body_mut() = content;
    }
    response
}
