//! The documentation (feature `openapi`).

use super::{App, client::anonymous};

/// The served document is the one from [`openapi::document`](crate::api::openapi::document).
pub async fn the_document_requires_no_credential(app: &dyn App) {
    let reply = anonymous(app).request("GET", "/openapi.json", &[], b"").await;
    assert_eq!(reply.ok(200)["openapi"], "3.1.0");
    assert_eq!(reply.body, crate::api::openapi::document("/api/v1"));
    assert_eq!(reply.header("cache-control"), "no-cache");
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    let head = anonymous(app).request("HEAD", "/openapi.json", &[], b"").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), reply.header("content-length"));
    // The document is not below the mount.
    assert_eq!(anonymous(app).request("GET", "/api/v1/openapi.json", &[], b"").await.status, 404);
}

/// The page refers to its files by relative URLs, and the content security policy allows no other origin.
pub async fn the_page_loads_only_its_own_files(app: &dyn App) {
    let page = anonymous(app).request("GET", "/docs", &[], b"").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy: Vec<_> = page.header("content-security-policy").split("; ").collect();
    assert!(policy.contains(&"default-src 'none'") && policy.contains(&"frame-ancestors 'none'"), "{policy:?}");
    for directive in &policy {
        let sources = directive.split(' ').skip(1);
        let known = |source: &str| {
            matches!(source, "'none'" | "'self'") || (source, *directive) == ("data:", "img-src 'self' data:")
        };
        assert!(sources.clone().count() > 0 && sources.clone().all(known), "{directive}");
    }
    let html = std::str::from_utf8(&page.body).unwrap();
    let targets = html.split(['"']).skip(1).step_by(2).filter(|value| value.contains('.') && !value.contains(' '));
    let targets: Vec<_> = targets.collect();
    assert_eq!(targets, ["docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js", "openapi.json"]);
    for (target, content_type) in targets.into_iter().zip([
        "text/css; charset=utf-8",
        "text/javascript; charset=utf-8",
        "text/javascript; charset=utf-8",
        "application/json",
    ]) {
        let file = anonymous(app).request("GET", &format!("/{target}"), &[], b"").await;
        assert_eq!((file.status.as_u16(), file.header("content-type")), (200, content_type), "{target}");
        assert_eq!(file.header("content-length"), file.body.len().to_string());
        assert_eq!(file.headers.contains_key("content-encoding"), file.body.starts_with(&[0x1f, 0x8b]), "{target}");
        assert_eq!(file.header("content-security-policy"), page.header("content-security-policy"));
    }
}

/// RFC 9110, section 13.1.2.
pub async fn a_matching_entity_tag_is_not_modified(app: &dyn App) {
    for path in ["/openapi.json", "/docs", "/docs/swagger-ui-bundle.js"] {
        let first = anonymous(app).request("GET", path, &[], b"").await;
        let tag = first.header("etag");
        for known in [tag.to_owned(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let again = anonymous(app).request("GET", path, &[("if-none-match", &known)], b"").await;
            assert_eq!(
                (again.status.as_u16(), again.body.len(), again.header("etag")),
                (304, 0, tag),
                "{path} {known}"
            );
            assert!(!again.headers.contains_key("content-type"), "{path}");
        }
        let other = anonymous(app).request("GET", path, &[("if-none-match", "\"x\"")], b"").await;
        assert_eq!((other.status, &other.body), (first.status, &first.body));
    }
}

/// Other methods, and paths that almost match, are rejected.
pub async fn documents_are_read_only(app: &dyn App) {
    for resource in crate::api::DOCS {
        for method in ["POST", "PUT", "DELETE"] {
            let reply = anonymous(app).request(method, resource.path, &[], b"").await;
            assert_eq!(
                (reply.status.as_u16(), reply.header("allow")),
                (405, "GET, HEAD, OPTIONS"),
                "{}",
                resource.path
            );
        }
        assert_eq!(anonymous(app).request("OPTIONS", resource.path, &[], b"").await.status, 204);
        anonymous(app).request("GET", &format!("{}/", resource.path), &[], b"").await.trailing_slash();
    }
}
