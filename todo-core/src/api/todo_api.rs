use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::ALLOW, request::Parts};
use http_body::Body;
use tracing::Instrument as _;

#[cfg(feature = "openapi")]
use super::docs::Docs;
use super::{
    body::{BoxError, read_body},
    error::{ApiError, SERVER},
    events,
    input::Query,
    log::{method_name, report, report_other_user},
    operations::Call,
    problem::problem_for,
    reads::{CacheStatus, ReadCache},
    ready,
    response::{empty, ok},
    response_body::ResponseBody,
    routes::{Operation, Parameters, Resource},
    running::Running,
};
use crate::{
    TodoService,
    auth::{AuthError, Authenticator, Credentials, Gate, Identity, Quota, RejectionLog},
};

/// The todo API over HTTP: a [`TodoService`] with authentication, limits and error responses.
///
/// Cloning is cheap, and clones share the service and the settings. [`respond`](Self::respond) must be polled in a
/// tokio runtime whose timer is enabled.
#[derive(Clone, Debug)]
pub struct TodoApi {
    running: Running,
    credentials: Arc<Credentials>,
    body_limit: usize,
    cache: Option<Arc<ReadCache>>,
    requires_preconditions: bool,
    #[cfg(feature = "openapi")]
    docs: Arc<Docs>,
}

impl TodoApi {
    /// Creates an API over this service, for the callers that this authenticator accepts.
    pub fn new(service: TodoService, authenticator: impl Authenticator + 'static) -> Self {
        let credentials = Arc::new(authenticator.credentials());
        Self {
            running: Running::new(service, Arc::new(authenticator)),
            #[cfg(feature = "openapi")]
            docs: Arc::new(Docs::new("/api/v1", credentials.clone())),
            credentials,
            body_limit: 64 * 1024,
            cache: ReadCache::new(ReadCache::DEFAULT),
            requires_preconditions: false,
        }
    }

    /// Adds a gate, which accepts or rejects each request of an authenticated caller.
    ///
    /// Several gates are called in the order in which they were added. The first that rejects a request ends it.
    #[must_use]
    pub fn with_gate(mut self, gate: impl Gate + 'static) -> Self {
        self.running.gates = self.running.gates.with(gate);
        self
    }

    /// Sets the log of rejections (default [`RejectionLog::shared`]). The API itself logs requests whose path names
    /// another user, and the reasons of the host's own authenticator ([`Refusal::Other`](crate::auth::Refusal::Other)).
    #[must_use]
    pub fn with_rejection_log(mut self, log: RejectionLog) -> Self {
        self.running.rejections = log;
        self
    }

    /// Sets the maximum body size in bytes (default 64 KiB). Larger bodies are rejected with 413.
    ///
    /// A lower limit of the host, such as a middleware, also leads to 413 if its error is
    /// [`http_body_util::LengthLimitError`].
    #[must_use]
    pub fn with_body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// Sets how long a request may take, from its head to its response (default 10 s). Slower requests are rejected
    /// with 503 `timeout`.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.running.timeout = timeout;
        self
    }

    /// Makes changes of single tasks need a precondition: `If-Match`, `If-None-Match`, `If-Unmodified-Since`, or the
    /// version in the body. Those without are rejected with 428 `precondition_required`, so that no client overwrites
    /// what others have changed without knowing. By default they are made.
    #[must_use]
    pub fn require_preconditions(mut self) -> Self {
        self.requires_preconditions = true;
        self
    }

    /// Sets how many bytes of rendered lists, counts and summaries are kept (default 16 MiB); 0 keeps none. One user
    /// has at most a 64th of it.
    ///
    /// Nothing is served from the cache before the store has said that the user's revision is still the same, so that it
    /// is never stale, whoever changes the tasks. Clones made before share the former cache.
    #[must_use]
    pub fn with_cache(mut self, bytes: usize) -> Self {
        self.cache = ReadCache::new(bytes);
        self
    }

    /// Returns what the cache has done.
    #[must_use]
    pub fn cache_status(&self) -> CacheStatus {
        self.cache.as_ref().map(|cache| cache.status()).unwrap_or_default()
    }

    /// Sets the path under which the API is mounted, for its OpenAPI document (default `/api/v1`). See
    /// [`openapi::document`](super::openapi::document).
    #[cfg(feature = "openapi")]
    #[must_use]
    pub fn with_mount(mut self, mount: &str) -> Self {
        self.docs = Arc::new(Docs::new(mount, self.credentials.clone()));
        self
    }

    /// Makes the readiness probe fail from now on, with `server` among the parts that fail, and ends the streams of
    /// events, which clients then open at another server. Everything else goes on.
    ///
    /// A host calls it when it is about to stop, so that proxies send no further requests to it, and stops some seconds
    /// later. Clones share this.
    pub fn begin_stop(&self) {
        self.running.begin_stop();
    }

    /// Returns the number of open streams of events, of all APIs over the same service.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.running.service.listeners().open()
    }

    /// Returns the service behind the API.
    #[must_use]
    pub fn service(&self) -> &TodoService {
        &self.running.service
    }

    /// Authenticates the caller of a request, for a host's own handlers.
    ///
    /// It calls the authenticator and then the gates, as each request to the API does. The adapters have an extractor
    /// or a filter that calls it.
    ///
    /// # Errors
    ///
    /// The error of the authenticator or of a gate. [`problem`](Self::problem) makes the API's response of it.
    pub async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError> {
        Ok(self.running.admit(head).await?.0)
    }

    /// Makes the response to a failed request, as [`problem`](super::problem) does, with the texts and the challenge of
    /// the authenticator's [`credentials`](Authenticator::credentials) in a 401.
    #[must_use]
    pub fn problem(&self, error: impl Into<ApiError>) -> Response<Bytes> {
        problem_for(error.into(), &self.credentials)
    }

    /// Responds to a request that the framework has matched to a resource.
    ///
    /// The path may still begin with the prefix under which the API is mounted. A path that does not match the resource
    /// exactly (a trailing slash, an empty segment) gets 404 `not_found`. The response to a failed request carries its
    /// [`ApiError`] in the extensions, as `Arc<ApiError>`.
    pub async fn respond<B>(&self, resource: &'static Resource, request: Request<B>) -> Response<ResponseBody>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let span = tracing::info_span!(
            target: "todo_core::api",
            "todo",
            path = resource.path,
            method = method_name(request.method()),
            operation = resource.operation(request.method()).map(Operation::name),
        );
        async move {
            let head_only = request.method() == Method::HEAD;
            let mut progress = Progress::default();
            let mut response = match self.result(resource, request, &mut progress).await {
                Ok(response) => response,
                Err(error) => {
                    report(&error);
                    self.problem(error).map(ResponseBody::from)
                }
            };
            if let Some(quota) = progress.quota {
                quota.tell(response.headers_mut());
            }
            if head_only {
                response.body_mut().leave_out();
            }
            if response.status() == StatusCode::NOT_MODIFIED {
                *response.body_mut() = ResponseBody::absent();
            }
            response
        }
        .instrument(span)
        .await
    }

    async fn result<B>(
        &self,
        resource: &'static Resource,
        request: Request<B>,
        progress: &mut Progress,
    ) -> Result<Response<ResponseBody>, ApiError>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let parameters = resource.parameters(path).ok_or_else(|| {
            let has_slash = path.strip_suffix('/').is_some_and(|path| resource.matches(path));
            if has_slash { ApiError::TrailingSlash } else { ApiError::NotFound }
        })?;
        if head.method == Method::OPTIONS {
            let mut response = empty(StatusCode::NO_CONTENT);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(resource.allow));
            return Ok(response.map(ResponseBody::from));
        }
        let Some(operation) = resource.operation(&head.method) else {
            return Err(ApiError::MethodNotAllowed { allow: resource.allow, method: head.method });
        };
        match tokio::time::timeout(
            self.running.timeout,
            self.perform(resource, operation, &head, parameters, body, progress),
        )
        .await
        {
            Ok(result) => result,
            Err(_) if progress.reads_body => Err(ApiError::SlowBody { limit: self.running.timeout }),
            Err(_) => Err(ApiError::Timeout { limit: self.running.timeout }),
        }
    }

    async fn perform<B>(
        &self,
        #[cfg_attr(not(feature = "openapi"), expect(unused_variables, reason = "only documents differ by their path"))]
        resource: &'static Resource,
        operation: Operation,
        head: &Parts,
        parameters: Parameters<'_>,
        body: B,
        progress: &mut Progress,
    ) -> Result<Response<ResponseBody>, ApiError>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        match operation {
            Operation::Health => return Ok(ok(&ready::Status::OK).map(ResponseBody::from)),
            Operation::Ready => {
                if self.running.is_stopping() {
                    return Err(ApiError::NotReady { failed: vec![SERVER] });
                }
                ready::check(&self.running.service, &*self.running.authenticator, self.running.timeout).await?;
                let readiness = ready::Readiness::ready(self.running.service.writes_are_failing());
                return Ok(ok(&readiness).map(ResponseBody::from));
            }
            #[cfg(feature = "openapi")]
            Operation::GetDocument => {
                return Ok(self.docs.response(resource, &head.headers)?.map(ResponseBody::from));
            }
            _ => {}
        }
        let identity;
        (identity, progress.quota) = self.running.admit(head).await?;
        if !parameters.user.is(&identity.user_id) {
            report_other_user(&self.running.rejections);
            return Err(ApiError::Forbidden);
        }
        if operation == Operation::StreamEvents {
            // On the heap, so that other requests need no memory for it.
            return Box::pin(events::open(&self.running, head, identity)).await;
        }
        let body = match operation {
            Operation::CreateTask
            | Operation::PatchTasks
            | Operation::TransferTasks
            | Operation::ReplaceTask
            | Operation::PatchTask
            | Operation::CompleteTask
            | Operation::MoveTask => {
                let merge_patch = head.method == Method::PATCH;
                progress.reads_body = true;
                let body = read_body(&head.headers, body, self.body_limit, merge_patch).await;
                progress.reads_body = false;
                body?
            }
            // A body of GET or DELETE has no meaning (RFC 9110, section 9.3), so it is not read.
            _ => Vec::new(),
        };
        let mut call = Call {
            tasks: self.running.service.for_user(identity.user_id.clone()),
            id: parameters.id.as_deref(),
            query: Query::parse(head.uri.query()),
            headers: &head.headers,
            cache: self.cache.as_deref(),
            requires_preconditions: self.requires_preconditions,
        };
        let response = match operation {
            Operation::ListTasks => call.list().await,
            Operation::CreateTask => call.create(&body).await,
            Operation::PatchTasks => call.patch_many(&body).await,
            Operation::DeleteTasks => call.delete_many().await,
            Operation::CountTasks => call.count().await,
            Operation::SummarizeTasks => call.summary().await,
            Operation::ListChanges => call.changes().await,
            Operation::MoveTask => call.move_to(&body).await,
            Operation::TransferTasks => {
                let token = call.token_in(&body)?;
                call.transfer(&self.running.service, self.running.admit_token(head, &token).await).await
            }
            Operation::GetTask => call.get().await,
            Operation::ReplaceTask => call.replace(&body).await,
            Operation::PatchTask => call.patch(&body).await,
            Operation::DeleteTask => call.delete().await,
            Operation::CompleteTask => call.complete(&body).await,
            Operation::GetSession => call.session(&identity),
            Operation::StreamEvents => Err(ApiError::Internal("a stream reached the service")),
            Operation::Health | Operation::Ready => Err(ApiError::Internal("a probe reached the service")),
            #[cfg(feature = "openapi")]
            Operation::GetDocument => Err(ApiError::Internal("a document reached the service")),
        };
        response.map(|response| response.map(ResponseBody::from))
    }
}

/// What is known of a request that ends before its result.
#[derive(Default)]
struct Progress {
    /// The caller's quota, if a gate has one.
    quota: Option<Quota>,
    /// Whether the body is being read.
    reads_body: bool,
}
