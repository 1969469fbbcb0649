//! HTTP/JSON: reads paths, queries and bodies into the same requests as gRPC brings, and writes the answers as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody as _, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts as _, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, MethodRouter};
use coterie_core::limits::REQUEST_BYTES_MAX;
use coterie_core::{ErrorCode, Rejection};
use coterie_proto::v1;
use serde_json::{Value, json};

use super::call::{Call, invalid};
use super::ops::{Admitted, Ops};
use super::{error, json as shape, openapi, sse};

mod locks;
mod maps;

use locks::{acquire, get_lock, release_lock, renew_lock};
use maps::{delete_entry, drop_map, get_entry, list_entries, put_entry, watch_map};

macro_rules! routes {
    ($($path:literal => { $($method:ident $handler:ident),+ })+) => {
        /// Every path with its methods, as in the OpenAPI document.
        pub const ROUTES: &[(&str, &[&str])] = &[$(($path, &[$(stringify!($method)),+])),+];

        fn table() -> Router<Ops> {
            Router::new()$(.route($path, MethodRouter::new()$(.on(MethodFilter::$method, $handler))+))+
        }
    };
}

routes! {
    "/v1/groups" => { GET list }
    "/v1/groups/{group}" => { PUT create, GET get, PATCH configure, DELETE delete }
    "/v1/groups/{group}/members" => { POST join, GET join_events }
    "/v1/groups/{group}/members/{member}" => { DELETE leave }
    "/v1/groups/{group}/members/{member}/renew" => { POST renew }
    "/v1/groups/{group}/members/{member}/metadata" => { PUT set_metadata }
    "/v1/groups/{group}/step-down" => { POST step_down }
    "/v1/groups/{group}/release" => { POST release }
    "/v1/groups/{group}/watch" => { GET watch }
    "/v1/groups/{group}/self" => { GET own }
    "/v1/maps/{map}" => { DELETE drop_map }
    "/v1/maps/{map}/entries" => { GET list_entries }
    "/v1/maps/{map}/entries/{key}" => { PUT put_entry, GET get_entry, DELETE delete_entry }
    "/v1/maps/{map}/watch" => { GET watch_map }
    "/v1/locks/{lock}" => { GET get_lock }
    "/v1/locks/{lock}/acquire" => { POST acquire }
    "/v1/locks/{lock}/renew" => { POST renew_lock }
    "/v1/locks/{lock}/release" => { POST release_lock }
    "/v1/status" => { GET status }
    "/v1/sidecar/drain" => { POST drain }
    "/openapi.json" => { GET openapi_document }
}

/// The routes, with answers for paths and methods that are not among them.
pub fn router(ops: Ops) -> Router {
    table().method_not_allowed_fallback(wrong_method).fallback(unknown_path).with_state(ops)
}

/// A request, read whole.
struct Asked {
    headers: HeaderMap,
    path: BTreeMap<String, String>,
    query: BTreeMap<String, String>,
    body: Bytes,
    /// Of a request with a body: its place among those that are served, taken before the body was read.
    admitted: Option<Arc<Admitted>>,
}

impl FromRequest<Ops> for Asked {
    type Rejection = Response;

    async fn from_request(request: Request, ops: &Ops) -> Result<Self, Response> {
        Self::read(request, |timeout_ms| ops.begin(timeout_ms)).await.map_err(|rejection| {
            ops.refused(&rejection);
            error::problem(&rejection)
        })
    }
}

impl Asked {
    async fn read(
        request: Request,
        begin: impl FnOnce(u64) -> Result<Arc<Admitted>, Rejection>,
    ) -> Result<Self, Rejection> {
        let (mut parts, body) = request.into_parts();
        let path = match Path::from_request_parts(&mut parts, &()).await {
            Ok(Path(path)) => path,
            Err(PathRejection::MissingPathParams(_)) => BTreeMap::new(),
            Err(wrong) => return Err(invalid("path", wrong)),
        };
        let pairs: Query<Vec<(String, String)>> =
            Query::try_from_uri(&parts.uri).map_err(|wrong| invalid("query", wrong))?;
        let mut query = BTreeMap::new();
        for (name, value) in pairs.0 {
            if query.insert(name.clone(), value).is_some() {
                return Err(invalid(&name, "is given twice"));
            }
        }
        if body.is_end_stream() {
            return Ok(Self { headers: parts.headers, path, query, body: Bytes::new(), admitted: None });
        }
        let timeout_ms = Call::from_headers(&parts.headers)?.timeout_ms;
        let admitted = Some(begin(timeout_ms)?);
        let body = read_body(&parts.headers, body, timeout_ms).await?;
        Ok(Self { headers: parts.headers, path, query, body, admitted })
    }

    /// The operations, for this request.
    fn ops(&self, ops: &Ops) -> Ops {
        ops.of(self.admitted.clone())
    }

    /// Refuses query parameters besides these.
    fn only(&self, known: &[&str]) -> Result<(), Rejection> {
        let unknown = self.query.keys().find(|name| !known.contains(&name.as_str()));
        match unknown {
            Some(name) if known.is_empty() => Err(invalid(name, "is unknown; this request takes no query")),
            Some(name) => Err(invalid(name, format_args!("is unknown; this request takes: {}", known.join(", ")))),
            None => Ok(()),
        }
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    fn partition_group(&self) -> String {
        self.query(PARTITION_GROUP).unwrap_or_default().to_owned()
    }

    fn group(&self) -> String {
        self.named("group")
    }

    /// A part of the path.
    fn named(&self, name: &str) -> String {
        self.path.get(name).cloned().unwrap_or_default()
    }

    fn consistency(&self) -> Result<i32, Rejection> {
        let consistency = match self.query("consistency") {
            None | Some("linearizable") => v1::Consistency::Linearizable,
            Some("leased") => v1::Consistency::Leased,
            Some("stale") => v1::Consistency::Stale,
            Some(other) => {
                return Err(invalid("consistency", format_args!("is `{other}`; choose linearizable, leased or stale")));
            }
        };
        Ok(consistency.into())
    }

    /// A number in the query; 0 if there is none.
    fn number<T: std::str::FromStr + Default>(&self, name: &str) -> Result<T, Rejection> {
        let Some(text) = self.query(name) else { return Ok(T::default()) };
        text.parse().map_err(|_| invalid(name, format_args!("`{text}` is not a number")))
    }

    fn member(&self) -> Result<u64, Rejection> {
        let text = self.path.get("member").map(String::as_str).unwrap_or_default();
        text.parse().map_err(|_| invalid("member", format_args!("`{text}` is not the id of a member, such as `17`")))
    }

    fn body<T: for<'a> serde::Deserialize<'a>>(&self) -> Result<T, Rejection> {
        shape::parse(&self.body)
    }
}

const PARTITION_GROUP: &str = "partition-group";

/// Reads a body within the request's time: a caller that sends none of it, or slowly, holds its place no longer.
async fn read_body(headers: &HeaderMap, body: Body, timeout_ms: u64) -> Result<Bytes, Rejection> {
    let too_large = || {
        let message = format!("the body has more than {REQUEST_BYTES_MAX} bytes, which is the limit of one request");
        Rejection::new(ErrorCode::TooLarge, message)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|text| text.parse::<usize>().ok()).is_some_and(|bytes| bytes > REQUEST_BYTES_MAX) {
        return Err(too_large());
    }
    match tokio::time::timeout(Duration::from_millis(timeout_ms), to_bytes(body, REQUEST_BYTES_MAX)).await {
        Ok(read) => read.map_err(|_| too_large()),
        Err(_) => {
            let message = format!("the body did not arrive within {timeout_ms} ms; nothing was applied");
            Err(Rejection::new(ErrorCode::DeadlineExceeded, message))
        }
    }
}

/// Reads a request, or counts and answers its refusal.
#[allow(clippy::result_large_err)] // the refusal is the answer itself, and is moved once
fn read<T>(ops: &Ops, read: impl FnOnce() -> Result<T, Rejection>) -> Result<T, Response> {
    read().map_err(|rejection| {
        ops.refused(&rejection);
        error::problem(&rejection)
    })
}

fn answer<T>(result: Result<T, Rejection>, status: StatusCode, shape: impl FnOnce(&T) -> Value) -> Response {
    match result {
        Ok(reply) => (status, axum::Json(shape(&reply))).into_response(),
        Err(rejection) => error::problem(&rejection),
    }
}

fn ok<T>(result: Result<T, Rejection>, shape: impl FnOnce(&T) -> Value) -> Response {
    answer(result, StatusCode::OK, shape)
}

async fn list(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP])?;
        Ok(v1::ListGroupsRequest { partition_group: asked.partition_group() })
    })?;
    Ok(ok(asked.ops(&ops).list(&asked.headers, request).await, shape::groups))
}

async fn create(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP])?;
        let shape::Create { config } = asked.body()?;
        let config = config.map(Into::into);
        Ok(v1::CreateGroupRequest { group: asked.group(), partition_group: asked.partition_group(), config })
    })?;
    Ok(ok(asked.ops(&ops).create(&asked.headers, request).await, shape::group))
}

async fn get(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP, "consistency"])?;
        let (group, partition_group, consistency) = (asked.group(), asked.partition_group(), asked.consistency()?);
        Ok(v1::GetGroupRequest { group, partition_group, consistency })
    })?;
    Ok(ok(asked.ops(&ops).get(&asked.headers, request).await, shape::group))
}

async fn configure(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP])?;
        let shape::Configure { config, if_config_revision, if_term } = asked.body()?;
        Ok(v1::ConfigureGroupRequest {
            group: asked.group(),
            partition_group: asked.partition_group(),
            config: config.map(Into::into),
            if_config_revision,
            if_term,
        })
    })?;
    Ok(ok(asked.ops(&ops).configure(&asked.headers, request).await, shape::group))
}

async fn delete(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP])?;
        let shape::Nothing {} = asked.body()?;
        Ok(v1::DeleteGroupRequest { group: asked.group(), partition_group: asked.partition_group() })
    })?;
    Ok(ok(asked.ops(&ops).delete(&asked.headers, request).await, |reply| shape::revision(reply.revision)))
}

/// A lease, or with `?presence=stream` a stream.
async fn join(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let (request, stream) = read(&ops, || {
        asked.only(&[PARTITION_GROUP, "presence"])?;
        let stream = match asked.query("presence") {
            None => sse::is_wanted(&asked.headers),
            Some("lease") => false,
            Some("stream") => true,
            Some(other) => return Err(invalid("presence", format_args!("is `{other}`; choose lease or stream"))),
        };
        let shape::Join { metadata, zone, ttl_ms } = asked.body()?;
        let (group, partition_group) = (asked.group(), asked.partition_group());
        Ok((v1::JoinRequest { group, partition_group, metadata, zone, ttl_ms }, stream))
    })?;
    if stream {
        return Ok(join_sse(&asked.ops(&ops), &asked.headers, request).await);
    }
    Ok(answer(asked.ops(&ops).join(&asked.headers, request).await, StatusCode::CREATED, shape::joined))
}

/// The same for clients that can only GET, such as a browser's `EventSource`.
async fn join_events(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP, "presence", "zone", "metadata"])?;
        let wanted = match asked.query("presence") {
            None => sse::is_wanted(&asked.headers),
            Some(presence) => presence == "stream",
        };
        if !wanted {
            let advice = "must be `stream` to join with GET; members are listed by GET /v1/groups/{group}";
            return Err(invalid("presence", advice));
        }
        let metadata = match asked.query("metadata") {
            Some(text) => serde_json::from_str(text).map_err(|wrong| invalid("metadata", wrong))?,
            None => std::collections::HashMap::new(),
        };
        let zone = asked.query("zone").unwrap_or_default().to_owned();
        let (group, partition_group) = (asked.group(), asked.partition_group());
        Ok(v1::JoinRequest { group, partition_group, metadata, zone, ttl_ms: 0 })
    })?;
    Ok(join_sse(&asked.ops(&ops), &asked.headers, request).await)
}

async fn join_sse(ops: &Ops, headers: &HeaderMap, request: v1::JoinRequest) -> Response {
    match ops.join_stream(headers, request).await {
        Ok(messages) => sse::respond(messages),
        Err(rejection) => error::problem(&rejection),
    }
}

async fn leave(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP])?;
        let shape::Nothing {} = asked.body()?;
        let member = asked.member()?;
        Ok(v1::LeaveRequest { group: asked.group(), partition_group: asked.partition_group(), member })
    })?;
    Ok(ok(asked.ops(&ops).leave(&asked.headers, request).await, |reply| shape::revision(reply.revision)))
}

async fn renew(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP])?;
        let shape::Nothing {} = asked.body()?;
        let member = asked.member()?;
        Ok(v1::RenewRequest { group: asked.group(), partition_group: asked.partition_group(), member })
    })?;
    Ok(ok(asked.ops(&ops).renew(&asked.headers, request).await, shape::renewed))
}

async fn set_metadata(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP])?;
        let shape::SetMetadata { metadata, if_term } = asked.body()?;
        let (group, partition_group, member) = (asked.group(), asked.partition_group(), asked.member()?);
        Ok(v1::SetMetadataRequest { group, partition_group, member, metadata, if_term })
    })?;
    Ok(ok(asked.ops(&ops).set_metadata(&asked.headers, request).await, shape::member))
}

async fn step_down(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP])?;
        let shape::StepDown { if_term } = asked.body()?;
        Ok(v1::StepDownRequest { group: asked.group(), partition_group: asked.partition_group(), if_term })
    })?;
    Ok(ok(asked.ops(&ops).step_down(&asked.headers, request).await, shape::group))
}

async fn release(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP])?;
        let shape::Release { term } = asked.body()?;
        Ok(v1::ReleaseRequest { group: asked.group(), partition_group: asked.partition_group(), term })
    })?;
    Ok(ok(asked.ops(&ops).release(&asked.headers, request).await, shape::group))
}

async fn watch(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP, "after"])?;
        let after = sse::resume_after(&asked.headers, asked.query("after"))?;
        Ok(v1::WatchRequest { group: asked.group(), partition_group: asked.partition_group(), after })
    })?;
    match asked.ops(&ops).watch(&asked.headers, request).await {
        Ok(events) => Ok(sse::respond(events)),
        Err(rejection) => Err(error::problem(&rejection)),
    }
}

async fn own(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP])?;
        Ok(v1::SelfRequest { group: asked.group(), partition_group: asked.partition_group() })
    })?;
    Ok(ok(asked.ops(&ops).own(&asked.headers, request).await, shape::own))
}

async fn status(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    read(&ops, || asked.only(&[]))?;
    Ok(ok(Ok(ops.status()), shape::status))
}

async fn drain(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    read(&ops, || {
        asked.only(&[])?;
        asked.body::<shape::Nothing>()
    })?;
    Ok(ok(ops.drain().await, |()| json!({})))
}

async fn openapi_document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::DOCUMENT).into_response()
}

async fn unknown_path(State(ops): State<Ops>, uri: Uri, headers: HeaderMap) -> Response {
    let nearest = nearest(uri.path()).join(", ");
    let message = format!("there is no `{}`; nearest: {nearest}; all: /openapi.json", uri.path());
    let rejection = Rejection::new(ErrorCode::NotFound, message);
    ops.refused(&rejection);
    if error::is_grpc(&headers) { error::grpc_unknown(&rejection) } else { error::problem(&rejection) }
}

async fn wrong_method(State(ops): State<Ops>, method: Method, uri: Uri) -> Response {
    let methods = methods_of(uri.path()).join(", ");
    let message = format!("`{}` takes {methods}, not {method}", uri.path());
    let rejection = Rejection::new(ErrorCode::NotFound, message);
    ops.refused(&rejection);
    let mut response = error::problem_with_status(&rejection, StatusCode::METHOD_NOT_ALLOWED.as_u16());
    if let Ok(methods) = HeaderValue::from_str(&methods) {
        response.headers_mut().insert(header::ALLOW, methods);
    }
    response
}

fn methods_of(path: &str) -> &'static [&'static str] {
    let route = ROUTES.iter().find(|(pattern, _)| {
        pattern.split('/').count() == path.split('/').count()
            && pattern.split('/').zip(path.split('/')).all(|(part, given)| part.starts_with('{') || part == given)
    });
    route.map_or(&[], |(_, methods)| methods)
}

/// How many paths an unknown one is compared to in the answer.
const NEAREST: usize = 3;

/// The paths that are nearest to an unknown one, also if it lacks the version in front, best first.
fn nearest(path: &str) -> Vec<&'static str> {
    let given: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let versioned: Vec<&str> = ["v1"].into_iter().chain(given.iter().copied()).collect();
    let rank = |pattern| distance(pattern, &given).min(distance(pattern, &versioned) + 1);
    let mut ranked: Vec<(usize, &str)> = ROUTES.iter().map(|(pattern, _)| (rank(pattern), *pattern)).collect();
    ranked.sort_by_key(|(distance, _)| *distance);
    ranked.into_iter().take(NEAREST).map(|(_, pattern)| pattern).collect()
}

/// How many characters of segments must change; a parameter agrees with everything.
fn distance(pattern: &str, given: &[&str]) -> usize {
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    let segment = |index: usize| match (parts.get(index), given.get(index)) {
        (Some(part), Some(_)) if part.starts_with('{') => 0,
        (Some(part), Some(given)) => edits(part, given),
        (Some(part), None) => part.len(),
        (None, Some(given)) => given.len(),
        (None, None) => 0,
    };
    (0..parts.len().max(given.len())).map(segment).sum()
}

/// Levenshtein's distance. The segments of an unknown path are cut: only near ones matter.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let kept = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = kept.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_path_is_told_the_nearest() {
        assert_eq!(nearest("/v1/group")[0], "/v1/groups");
        assert_eq!(nearest("/v1/groups/workers/wach")[0], "/v1/groups/{group}/watch");
        assert_eq!(nearest("/status")[0], "/v1/status");
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        assert_eq!(methods_of("/v1/groups/workers"), ["PUT", "GET", "PATCH", "DELETE"]);
        assert_eq!(methods_of("/v1/groups/workers/members/7/renew"), ["POST"]);
        assert!(methods_of("/nowhere").is_empty());
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_too_large() {
        let body = Body::from(vec![b' '; REQUEST_BYTES_MAX + 1]);
        let rejection = read_body(&HeaderMap::new(), body, 5_000).await.unwrap_err();
        assert_eq!(rejection.code, ErrorCode::TooLarge);
        let announced = HeaderMap::from_iter([(header::CONTENT_LENGTH, HeaderValue::from(REQUEST_BYTES_MAX + 1))]);
        assert_eq!(read_body(&announced, Body::empty(), 5_000).await.unwrap_err().code, ErrorCode::TooLarge);
    }

    fn not_asked(_: u64) -> Result<Arc<Admitted>, Rejection> {
        panic!("a request without a body takes its place later")
    }

    #[tokio::test]
    async fn d12_a_body_that_does_not_arrive_is_waited_for_until_the_requests_deadline() {
        let never = || Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let rejection = read_body(&HeaderMap::new(), never(), 1).await.unwrap_err();
        assert_eq!(rejection.code, ErrorCode::DeadlineExceeded);
        let request = Request::builder().uri("/v1/groups").header("coterie-timeout-ms", "7").body(never()).unwrap();
        let full = |timeout_ms| Err(Rejection::new(ErrorCode::Overloaded, format!("{timeout_ms}")));
        let rejection = Asked::read(request, full).await.err().unwrap();
        assert_eq!((rejection.code, rejection.message.as_str()), (ErrorCode::Overloaded, "7"));
    }

    #[tokio::test]
    async fn an_unknown_query_parameter_is_refused_by_name() {
        let request = Request::builder().uri("/v1/groups?partition_group=a").body(Body::empty()).unwrap();
        let asked = Asked::read(request, not_asked).await.unwrap();
        let message = asked.only(&[PARTITION_GROUP]).unwrap_err().message;
        assert_eq!(message, "partition_group: is unknown; this request takes: partition-group");
    }

    #[tokio::test]
    async fn a_query_parameter_that_is_given_twice_is_refused() {
        let request = Request::builder().uri("/v1/groups?after=1.0&after=2.0").body(Body::empty()).unwrap();
        assert_eq!(Asked::read(request, not_asked).await.err().unwrap().message, "after: is given twice");
    }

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_request_line_of_any_kind_is_read_or_refused_and_told_what_is_near(
            path in "(/[a-zA-Z0-9%._{}~:-]{0,12}){0,6}", query in "([a-z%-]{0,6}=?[a-z0-9%+.]{0,9}&?){0,4}",
        ) {
            let Ok(uri) = format!("/{path}?{query}").parse::<Uri>() else { return Ok(()) };
            prop_assert_eq!(nearest(uri.path()).len(), NEAREST);
            methods_of(uri.path());
            let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
            let read = futures_util::FutureExt::now_or_never(Asked::read(request, not_asked)).expect("nothing is waited for");
            if let Err(rejection) = read {
                prop_assert_eq!(rejection.code, ErrorCode::InvalidArgument);
            }
        }
    }
}
