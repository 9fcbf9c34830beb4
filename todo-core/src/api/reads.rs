//! Reads of many tasks that cost little if nothing has changed: for the client, which sends the entity tag of what it
//! has, and for this process, which keeps what it has rendered.
//!
//! Nothing that is kept is served without asking the store: the store is told the revision that is known, and returns
//! the tasks only if the user has another one. So the cache is never stale, with several servers and after the SQL of a
//! host, too.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, LINK},
};
use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

use super::{
    conditions::{Known, ReadTags, tagged},
    error::ApiError,
    response::{empty, with_bytes},
    routes::Operation,
};
use crate::{UserId, store::Revision};

/// What is kept besides the bodies, in bytes, approximately.
const OVERHEAD: usize = 200;
/// The maximum number of responses that are kept for a user.
const MAX_RESPONSES: usize = 16;
/// A user may have this part of the cache at most, so that no user takes it from the others.
const USERS: usize = 64;

/// What the cache of a [`TodoApi`](super::TodoApi) has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStatus {
    /// The reads whose response was in the cache, and still current.
    pub hits: u64,
    /// The reads whose response was rendered.
    pub misses: u64,
    /// The size of the cache, in bytes.
    pub bytes: u64,
}

/// Keeps rendered lists, counts and summaries, within a number of bytes.
#[derive(Debug)]
pub(super) struct ReadCache {
    users: Cache<UserId, Arc<OfUser>, Weight>,
    max_of_user: usize,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What was rendered for a user at one revision. Earlier revisions never come back.
#[derive(Debug)]
struct OfUser {
    owner: UserId,
    revision: Revision,
    responses: Vec<Rendered>,
}

#[derive(Clone, Debug)]
struct Rendered {
    operation: Operation,
    query: Box<str>,
    body: Bytes,
    link: Option<HeaderValue>,
}

impl Rendered {
    fn size(&self) -> usize {
        OVERHEAD + self.query.len() + self.body.len() + self.link.as_ref().map_or(0, HeaderValue::len)
    }

    fn is_of(&self, operation: Operation, query: &str) -> bool {
        self.operation == operation && *self.query == *query
    }

    fn response(&self) -> Response<Bytes> {
        let mut response = with_bytes(StatusCode::OK, "application/json", self.body.clone());
        if let Some(link) = &self.link {
            response.headers_mut().insert(LINK, link.clone());
        }
        response
    }
}

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<UserId, Arc<OfUser>> for Weight {
    fn weight(&self, owner: &UserId, of_user: &Arc<OfUser>) -> u64 {
        let responses: usize = of_user.responses.iter().map(Rendered::size).sum();
        (OVERHEAD + 2 * owner.as_str().len() + responses) as u64
    }
}

impl ReadCache {
    /// The size by default, in bytes.
    pub(super) const DEFAULT: usize = 16 * 1024 * 1024;

    /// Creates a cache of this many bytes, or none.
    pub(super) fn new(bytes: usize) -> Option<Arc<Self>> {
        let options = OptionsBuilder::new()
            .weight_capacity(bytes as u64)
            // About that of a page of 20 tasks.
            .estimated_items_capacity((bytes / 8192).max(1))
            // Each has room for the largest part of a user, many times.
            .shards(4)
            .build();
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        let cache = Cache::with_options(options.ok()?, Weight, hasher, lifecycle);
        let counts = (AtomicU64::new(0), AtomicU64::new(0));
        let cache = Self { users: cache, max_of_user: bytes / USERS, hits: counts.0, misses: counts.1 };
        (bytes > 0).then(|| Arc::new(cache))
    }

    pub(super) fn status(&self) -> CacheStatus {
        CacheStatus { hits: self.hits.load(Relaxed), misses: self.misses.load(Relaxed), bytes: self.users.weight() }
    }

    /// Returns what was rendered for this read.
    fn get(&self, owner: &UserId, operation: Operation, query: &str) -> Option<Held> {
        let of_user = self.users.get(owner)?;
        // The key says so already. No fault of the cache may show anybody the tasks of another user.
        if of_user.owner != *owner {
            return None;
        }
        let place = of_user.responses.iter().position(|rendered| rendered.is_of(operation, query))?;
        Some(Held { of_user, place })
    }

    /// Keeps what was rendered. If two calls do so at the same time, one may be lost.
    fn insert(&self, owner: &UserId, revision: Revision, rendered: Rendered) {
        let mut size = rendered.size();
        if size > self.max_of_user {
            return;
        }
        let mut responses = vec![rendered];
        let known = self.users.peek(owner).filter(|known| known.owner == *owner && known.revision == revision);
        for other in known.iter().flat_map(|known| &known.responses) {
            size += other.size();
            let is_same = other.is_of(responses[0].operation, &responses[0].query);
            if !is_same && size <= self.max_of_user && responses.len() < MAX_RESPONSES {
                responses.push(other.clone());
            }
        }
        self.users.insert(owner.clone(), Arc::new(OfUser { owner: owner.clone(), revision, responses }));
    }
}

/// A response in the cache.
struct Held {
    of_user: Arc<OfUser>,
    place: usize,
}

/// A read whose answer the client or the cache may have.
pub(super) struct CachedRead<'a> {
    cache: Option<&'a ReadCache>,
    owner: &'a UserId,
    operation: Operation,
    query: &'a str,
    tags: ReadTags,
    /// What the client has.
    by_client: Known,
    /// What the cache has.
    held: Option<Held>,
}

impl<'a> CachedRead<'a> {
    pub(super) fn new(
        cache: Option<&'a ReadCache>,
        owner: &'a UserId,
        operation: Operation,
        query: &'a str,
        headers: &HeaderMap,
    ) -> Self {
        let tags = ReadTags::new(owner, operation, query);
        let by_client = tags.known(headers);
        let held = cache.and_then(|cache| cache.get(owner, operation, query));
        // The client may have more, from another server. The store must not be asked about less: it may have replicas.
        let held = held.filter(|held| by_client.newest().is_none_or(|newest| newest <= held.of_user.revision));
        Self { cache, owner, operation, query, tags, by_client, held }
    }

    /// The revision to ask the store about.
    pub(super) fn known(&self) -> Option<Revision> {
        self.held.as_ref().map(|held| held.of_user.revision).or_else(|| self.by_client.newest())
    }

    /// The response if the user still has the revision that is known.
    pub(super) fn unchanged(self) -> Result<Response<Bytes>, ApiError> {
        let revision = self.known().ok_or(ApiError::Internal("the store knows what nobody has asked"))?;
        if let (Some(cache), Some(_)) = (self.cache, &self.held) {
            cache.hits.fetch_add(1, Relaxed);
        }
        let response = match self.held {
            _ if self.by_client.contains(revision) => not_modified(),
            Some(held) => held.of_user.responses[held.place].response(),
            None => return Err(ApiError::Internal("a revision is known without its response")),
        };
        Ok(with_tag(response, self.tags.at(revision)))
    }

    /// The response if the user has another revision. `render` makes the body and the link to the next page.
    pub(super) fn changed(
        self,
        revision: Revision,
        render: impl FnOnce() -> (Vec<u8>, Option<HeaderValue>),
    ) -> Response<Bytes> {
        let tag = self.tags.at(revision);
        if self.by_client.contains(revision) {
            return with_tag(not_modified(), tag);
        }
        let (mut body, link) = render();
        // The estimate of the size may have been too large, and the cache counts what is used.
        body.shrink_to_fit();
        let rendered = Rendered { operation: self.operation, query: self.query.into(), body: body.into(), link };
        let response = rendered.response();
        if let Some(cache) = self.cache {
            cache.misses.fetch_add(1, Relaxed);
            cache.insert(self.owner, revision, rendered);
        }
        with_tag(response, tag)
    }
}

fn with_tag(mut response: Response<Bytes>, tag: Option<HeaderValue>) -> Response<Bytes> {
    tagged(response.headers_mut(), tag);
    response
}

/// A response that says that the client has the answer already.
pub(super) fn not_modified() -> Response<Bytes> {
    let mut response = empty(StatusCode::NOT_MODIFIED);
    response.headers_mut().remove(CONTENT_TYPE);
    response.headers_mut().remove(CONTENT_LENGTH);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).expect("an id")
    }

    fn rendered(query: &str, body: &[u8]) -> Rendered {
        Rendered {
            operation: Operation::ListTasks,
            query: query.into(),
            body: Bytes::copy_from_slice(body),
            link: None,
        }
    }

    fn body(cache: &ReadCache, owner: &UserId, query: &str) -> Option<Bytes> {
        let held = cache.get(owner, Operation::ListTasks, query)?;
        Some(held.of_user.responses[held.place].body.clone())
    }

    fn cache(bytes: usize) -> Arc<ReadCache> {
        ReadCache::new(bytes).expect("a cache")
    }

    #[test]
    fn nobody_gets_what_was_rendered_for_another_user() {
        let cache = cache(ReadCache::DEFAULT);
        let (ann, bob) = (user("ann"), user("bob"));
        cache.insert(&ann, Revision::new(1), rendered("", b"of Ann"));
        assert_eq!(body(&cache, &ann, "").as_deref(), Some(&b"of Ann"[..]));
        assert_eq!(body(&cache, &bob, ""), None);
        // As if the keys were mixed up.
        let of_ann = cache.users.get(&ann).expect("kept");
        cache.users.insert(bob.clone(), of_ann);
        assert_eq!(body(&cache, &bob, ""), None);
        cache.insert(&bob, Revision::new(1), rendered("limit=1", b"of Bob"));
        assert_eq!(body(&cache, &bob, ""), None, "nor is it added to");
        assert_eq!(body(&cache, &bob, "limit=1").as_deref(), Some(&b"of Bob"[..]));
    }

    #[test]
    fn only_one_revision_is_kept() {
        let cache = cache(ReadCache::DEFAULT);
        let ann = user("ann");
        cache.insert(&ann, Revision::new(1), rendered("a", b"1"));
        cache.insert(&ann, Revision::new(1), rendered("b", b"1"));
        assert!(body(&cache, &ann, "a").is_some() && body(&cache, &ann, "b").is_some());
        cache.insert(&ann, Revision::new(2), rendered("a", b"2"));
        assert_eq!(body(&cache, &ann, "a").as_deref(), Some(&b"2"[..]));
        assert_eq!(body(&cache, &ann, "b"), None);
        // After the restore of a backup, the user may have an earlier one.
        cache.insert(&ann, Revision::new(1), rendered("a", b"1"));
        assert_eq!(body(&cache, &ann, "a").as_deref(), Some(&b"1"[..]));
        assert!(cache.get(&ann, Operation::CountTasks, "a").is_none());
    }

    #[test]
    fn a_user_has_a_part_of_the_bytes_and_all_together_no_more_than_there_are() {
        let bytes = 1024 * 1024;
        let cache = cache(bytes);
        let others: Vec<_> = (0..50).map(|number| user(&format!("user {number}"))).collect();
        for other in &others {
            cache.insert(other, Revision::new(1), rendered("", &[0; 1000]));
        }
        // One user reads a thousand different pages.
        for number in 0..1000 {
            cache.insert(&user("ann"), Revision::new(1), rendered(&number.to_string(), &[0; 9000]));
        }
        let of_ann = cache.users.get(&user("ann")).expect("kept");
        assert!(Weight.weight(&user("ann"), &of_ann) <= (bytes / USERS + 2 * OVERHEAD) as u64);
        assert!(others.iter().all(|other| body(&cache, other, "").is_some()), "the others keep theirs");
        cache.insert(&user("ann"), Revision::new(1), rendered("large", &vec![0; bytes / USERS]));
        assert_eq!(body(&cache, &user("ann"), "large"), None);
        for number in 0..10_000 {
            cache.insert(&user(&number.to_string()), Revision::new(1), rendered("", &[0; 5000]));
        }
        assert!(cache.status().bytes <= bytes as u64, "{:?}", cache.status());
        assert!(cache.status().bytes > bytes as u64 / 2, "{:?}", cache.status());
    }

    #[test]
    fn without_bytes_there_is_no_cache() {
        assert!(ReadCache::new(0).is_none());
    }
}
