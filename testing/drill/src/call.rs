//! The requests of the load, and the check of their responses.

use http::{HeaderMap, Method, StatusCode, header};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    client::Response,
    model::{Content, Filter, Finding, Model, Moment, Page, Place, Shown, Violation},
};

/// A request, and what is needed to check its response.
#[derive(Debug)]
pub(crate) enum Call {
    List {
        page: Page,
        query: String,
        sent: Moment,
    },
    Get {
        id: String,
        sent: Moment,
    },
    /// A task of another user.
    GetForeign {
        id: String,
    },
    Create {
        content: Content,
    },
    Change {
        id: String,
        method: Method,
        path: String,
        body: Option<Value>,
    },
    Move {
        id: String,
        place: Place,
    },
    /// Renames a list.
    ChangeAll {
        ids: Vec<String>,
        list: String,
        body: Value,
    },
    Count {
        filter: Filter,
        sent: Moment,
    },
    Summary {
        sent: Moment,
    },
    Delete {
        id: String,
    },
}

/// What a response that the API may give says of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    /// 503: whether a write happened is unknown.
    Unavailable,
}

/// The query of the next page.
pub(crate) fn next_page(headers: &HeaderMap) -> Option<&str> {
    Some(headers.get(header::LINK)?.to_str().ok()?.strip_prefix('<')?.split_once(">; rel=\"next\"")?.0)
}

fn malformed(response: &Response, why: &str) -> Vec<Finding> {
    let start = String::from_utf8_lossy(&response.body[..response.body.len().min(200)]);
    vec![(Violation::Malformed, format!("{}, {why}: {start}", response.status))]
}

/// How many tasks a change has found and changed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    matched: usize,
    changed: usize,
}

/// The number of tasks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    count: usize,
}

fn read<T: DeserializeOwned>(response: &Response) -> Result<T, Vec<Finding>> {
    serde_json::from_slice(&response.body).map_err(|error| malformed(response, &error.to_string()))
}

/// Checks a response against the model, and records it there. Sets the request for the next page, if there is one.
pub(crate) fn check(
    model: &mut Model,
    next: &mut Option<(String, Page)>,
    call: &Call,
    response: &Response,
) -> Result<Verdict, Vec<Finding>> {
    let (expected, task) = match call {
        Call::List { .. } | Call::ChangeAll { .. } | Call::Count { .. } | Call::Summary { .. } => {
            (StatusCode::OK, None)
        }
        Call::GetForeign { id } => (StatusCode::NOT_FOUND, Some(id)),
        Call::Create { .. } => (StatusCode::CREATED, None),
        Call::Get { id, .. } | Call::Change { id, .. } | Call::Move { id, .. } => (StatusCode::OK, Some(id)),
        Call::Delete { id } => (StatusCode::NO_CONTENT, Some(id)),
    };
    if response.status.is_client_error() || response.status.is_server_error() {
        check_problem(response)?;
    }
    if response.status == StatusCode::SERVICE_UNAVAILABLE {
        return Ok(Verdict::Unavailable);
    }
    if response.status == StatusCode::NOT_FOUND
        && let Some(id) = task
    {
        return match call {
            Call::GetForeign { .. } => Ok(Verdict::Right),
            Call::Get { id, .. } => model.absent(id).map(|()| Verdict::Right).map_err(|finding| vec![finding]),
            _ => Err(vec![model.not_found(id)]),
        };
    }
    if response.status != expected {
        let violation = if matches!(call, Call::GetForeign { .. }) { Violation::Foreign } else { Violation::Malformed };
        return Err(vec![(violation, malformed(response, "another status").remove(0).1)]);
    }
    let shown = || read::<Shown>(response);
    let one = |finding| vec![finding];
    match call {
        Call::List { page, sent, .. } => {
            let tasks: Vec<Shown> = read(response)?;
            let link = next_page(&response.headers).map(str::to_owned);
            if response.headers.contains_key(header::LINK) && link.is_none() {
                return Err(malformed(response, "a malformed Link"));
            }
            model.listed(page, *sent, &tasks, link.is_none())?;
            let after = tasks.last().map(|task| task.id.clone());
            *next = link.map(|query| (query, Page { after, ..page.clone() }));
        }
        Call::Get { id, sent } => model.got(id, *sent, &shown()?).map_err(one)?,
        Call::GetForeign { .. } => {}
        Call::Create { content } => model.created(&content.title, &shown()?).map_err(one)?,
        Call::Change { id, .. } => model.changed(id, &shown()?).map_err(one)?,
        Call::Move { id, place } => model.moved(id, place, &shown()?).map_err(one)?,
        Call::ChangeAll { ids, .. } => {
            let Changes { matched, changed } = read(response)?;
            model.changed_all(ids, matched, changed).map_err(one)?;
        }
        Call::Count { filter, sent } => {
            let Count { count } = read(response)?;
            model.counted(filter, *sent, count).map_err(one)?;
        }
        Call::Summary { sent } => model.summarized(*sent, &read(response)?)?,
        Call::Delete { id } => model.deleted(id),
    }
    Ok(Verdict::Right)
}

/// Whether an error has the form and one of the codes in the README.
fn check_problem(response: &Response) -> Result<(), Vec<Finding>> {
    let is_problem = response.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json");
    let problem: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let code = problem["code"].as_str().unwrap_or_default();
    let is_expected = match response.status.as_u16() {
        404 => code == "task_not_found",
        503 => matches!(code, "unavailable" | "timeout") && response.headers.contains_key(header::RETRY_AFTER),
        // docs/api.md lists more, but this load causes none of them.
        _ => false,
    };
    if is_problem && is_expected { Ok(()) } else { Err(malformed(response, "an unexpected error")) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const ID: &str = "019abcde-0000-7000-8000-000000000001";

    /// A user who has one task.
    fn model() -> Model {
        let mut model = Model::new("ann");
        let content = Content { title: "Buy milk".to_owned(), ..Content::default() };
        model.creating(&content);
        model.created("Buy milk", &serde_json::from_str(&task("ann", "Buy milk", 1)).unwrap()).unwrap();
        model
    }

    fn task(user: &str, title: &str, version: usize) -> String {
        format!(
            r#"{{"id":"{ID}","user_id":"{user}","title":"{title}","description":null,"completed":false,
            "completed_at":null,"due":null,"priority":null,"list":null,"tags":[],"position":"a0","metadata":{{}},
            "created_at":"2026-01-01T00:00:00.000000Z","updated_at":"2026-01-01T00:00:0{version}.000000Z","version":{version}}}"#
        )
    }

    fn response(status: u16, headers: &[(&'static str, &'static str)], body: impl Into<Bytes>) -> Response {
        let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: pairs.collect::<HeaderMap>(),
            body: body.into(),
        }
    }

    fn problem(status: u16, code: &str, retry: bool) -> Response {
        let mut headers = vec![("content-type", "application/problem+json")];
        headers.extend(retry.then_some(("retry-after", "1")));
        response(status, &headers, format!(r#"{{"status":{status},"code":"{code}"}}"#))
    }

    fn get(model: &Model) -> Call {
        Call::Get { id: ID.to_owned(), sent: model.now() }
    }

    fn judge(model: &mut Model, call: &Call, response: &Response) -> Result<Verdict, Vec<Finding>> {
        check(model, &mut None, call, response)
    }

    fn violations(checked: Result<Verdict, Vec<Finding>>) -> Vec<Violation> {
        checked.err().unwrap_or_default().into_iter().map(|(violation, _)| violation).collect()
    }

    #[test]
    fn an_error_with_an_unexpected_status_code_or_header_is_noticed() {
        let mut model = model();
        let call = get(&model);
        for code in ["unavailable", "timeout"] {
            assert_eq!(judge(&mut model, &call, &problem(503, code, true)), Ok(Verdict::Unavailable));
            assert_eq!(violations(judge(&mut model, &call, &problem(503, code, false))), [Violation::Malformed]);
        }
        for (status, code) in
            [(500, "internal"), (429, "rate_limited"), (401, "token_expired"), (404, "not_found"), (503, "internal")]
        {
            assert_eq!(
                violations(judge(&mut model, &call, &problem(status, code, true))),
                [Violation::Malformed],
                "{status}"
            );
        }
        for wrong in [
            response(503, &[("retry-after", "1")], "busy"),
            response(502, &[], ""),
            response(201, &[], task("ann", "Buy milk", 1)),
        ] {
            assert_eq!(violations(judge(&mut model, &call, &wrong)), [Violation::Malformed], "{wrong:?}");
        }
    }

    #[test]
    fn a_404_is_right_only_for_a_task_that_does_not_exist() {
        let mut model = model();
        let (absent, call) = (problem(404, "task_not_found", false), get(&model));
        assert_eq!(violations(judge(&mut model, &call, &absent)), [Violation::Missing]);
        let foreign = Call::GetForeign { id: ID.to_owned() };
        assert_eq!(judge(&mut model, &foreign, &absent), Ok(Verdict::Right));
        assert_eq!(
            violations(judge(&mut model, &foreign, &response(200, &[], task("bob", "x", 1)))),
            [Violation::Foreign]
        );
        model.deleting(ID);
        let deletion = Call::Delete { id: ID.to_owned() };
        assert_eq!(
            violations(judge(&mut model, &deletion, &absent)),
            [Violation::Missing],
            "it existed when it was deleted"
        );
    }

    #[test]
    fn bodies_are_compared_with_the_model() {
        let mut model = model();
        let call = get(&model);
        assert_eq!(judge(&mut model, &call, &response(200, &[], task("ann", "Buy milk", 1))), Ok(Verdict::Right));
        assert_eq!(
            violations(judge(&mut model, &call, &response(200, &[], task("bob", "Buy milk", 1)))),
            [Violation::Foreign]
        );
        assert_eq!(
            violations(judge(&mut model, &call, &response(200, &[], task("ann", "Sell milk", 1)))),
            [Violation::Unexpected]
        );
        assert_eq!(violations(judge(&mut model, &call, &response(200, &[], "{}"))), [Violation::Malformed]);
        let sent = model.now();
        let list = |limit| Call::List { page: Page { limit, ..Page::default() }, query: String::new(), sent };
        assert_eq!(violations(judge(&mut model, &list(5), &response(200, &[], "[]"))), [Violation::Missing]);
        let full = response(
            200,
            &[("link", r#"<?limit=1&cursor=x>; rel="next""#)],
            format!("[{}]", task("ann", "Buy milk", 1)),
        );
        let mut next = None;
        assert_eq!(check(&mut model, &mut next, &list(1), &full), Ok(Verdict::Right));
        let (query, page) = next.unwrap();
        assert_eq!((query.as_str(), page.after.as_deref()), ("?limit=1&cursor=x", Some(ID)));
    }
}
