//! Server-sent events (HTML Living Standard, section 9.2): the streams over HTTP.
//!
//! An event of a group or a map is named by its kind, its `id` is the event's and resumes a watch (`Last-Event-ID`), its data is the
//! event as JSON on one line. A comment every 15 s shows that the connection is open.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use coterie_core::Rejection;
use coterie_proto::v1;
use futures_util::stream::{BoxStream, StreamExt as _};
use serde_json::Value;

use super::call::invalid;
use super::json;

/// The media type.
pub const EVENT_STREAM: &str = "text/event-stream";
/// How often a comment is sent.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// One event before it is framed.
#[derive(Clone, Debug, PartialEq)]
pub struct Framed {
    /// Its name.
    pub name: &'static str,
    /// Empty: none.
    pub id: String,
    /// Its data.
    pub data: Value,
}

impl From<&v1::GroupEvent> for Framed {
    fn from(event: &v1::GroupEvent) -> Self {
        let (name, data) = json::event(event);
        Self { name, id: event.id.clone(), data }
    }
}

impl From<&v1::MapEvent> for Framed {
    fn from(event: &v1::MapEvent) -> Self {
        let (name, data) = json::map_event(event);
        Self { name, id: event.id.clone(), data }
    }
}

impl From<&v1::JoinStreamResponse> for Framed {
    fn from(message: &v1::JoinStreamResponse) -> Self {
        use v1::join_stream_response::Kind;
        let (name, data) = match &message.kind {
            Some(Kind::Joined(joined)) => ("joined", json::joined(joined)),
            Some(Kind::Event(event)) => return event.into(),
            Some(Kind::Session(state)) => {
                let state = v1::SessionState::try_from(*state).unwrap_or_default();
                ("session", json::session(state))
            }
            Some(Kind::Self_(state)) => ("self", json::self_state(state)),
            None => ("unknown", Value::Null),
        };
        Self { name, id: String::new(), data }
    }
}

impl From<Framed> for Event {
    fn from(Framed { name, id, data }: Framed) -> Self {
        let event = Self::default().event(name).data(data.to_string());
        if id.is_empty() { event } else { event.id(id) }
    }
}

/// Answers with a stream of messages.
pub fn respond<T>(messages: BoxStream<'static, T>) -> Response
where
    T: Send + 'static,
    for<'a> Framed: From<&'a T>,
{
    let events = messages.map(|message| Ok::<_, Infallible>(Event::from(Framed::from(&message))));
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
}

/// Where a watch goes on: `Last-Event-ID`, which a browser sends by itself, before `?after=`.
///
/// # Errors
/// `invalid_argument` if the header is not text.
pub fn resume_after(headers: &HeaderMap, after: Option<&str>) -> Result<String, Rejection> {
    match headers.get(LAST_EVENT_ID) {
        Some(value) => {
            let text = value.to_str().map_err(|_| invalid(LAST_EVENT_ID.as_str(), "is not ASCII text"))?;
            Ok(text.to_owned())
        }
        None => Ok(after.unwrap_or_default().to_owned()),
    }
}

/// Whether the caller asks for events.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get(axum::http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|range| range.split(';').next().is_some_and(|range| range.trim() == EVENT_STREAM))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    async fn body(events: Vec<v1::GroupEvent>) -> String {
        let response = respond(futures_util::stream::iter(events).boxed());
        assert_eq!(response.headers()["content-type"], EVENT_STREAM);
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_event_has_name_id_and_data_on_one_line() {
        let kind = v1::group_event::Kind::Left(v1::MemberLeft { member: 4, reason: "two\nlines".to_owned() });
        let text = body(vec![v1::GroupEvent { id: "7.1".to_owned(), revision: 7, kind: Some(kind) }]).await;
        assert!(text.starts_with("event: left\n"), "{text}");
        assert!(text.contains("\nid: 7.1\n"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("data: ")).count(), 1, "{text}");
        assert!(text.ends_with("\n\n"), "{text}");
    }

    #[tokio::test]
    async fn s18_a_connection_event_has_no_id() {
        let state = v1::SessionState::Suspended.into();
        let kind = v1::group_event::Kind::Connection(v1::Connection { state });
        let text = body(vec![v1::GroupEvent { id: String::new(), revision: 0, kind: Some(kind) }]).await;
        assert!(text.starts_with("event: connection\n") && !text.contains("id: "), "{text}");
    }

    #[test]
    fn the_first_message_of_a_join_is_named_joined() {
        use v1::join_stream_response::Kind;
        let message = |kind| v1::JoinStreamResponse { kind: Some(kind) };
        let joined = Framed::from(&message(Kind::Joined(v1::JoinResponse { member: None, group: None, ttl_ms: 5 })));
        assert_eq!((joined.name, &joined.data["ttl_ms"]), ("joined", &Value::from("5")));
        let lost = Framed::from(&message(Kind::Session(v1::SessionState::Lost.into())));
        assert_eq!((lost.name, &lost.data["state"]), ("session", &Value::from("lost")));
    }

    #[test]
    fn the_header_comes_before_the_query() {
        let mut headers = HeaderMap::new();
        assert_eq!(resume_after(&headers, None).unwrap(), "");
        assert_eq!(resume_after(&headers, Some("3.0")).unwrap(), "3.0");
        headers.insert(LAST_EVENT_ID, "7.1".parse().unwrap());
        assert_eq!(resume_after(&headers, Some("3.0")).unwrap(), "7.1");
    }

    #[test]
    fn events_are_wanted_when_the_caller_accepts_them_by_name() {
        let wanted =
            |accept: &str| is_wanted(&HeaderMap::from_iter([(axum::http::header::ACCEPT, accept.parse().unwrap())]));
        assert!(wanted("text/event-stream"));
        assert!(wanted("application/json, text/event-stream;q=0.9"));
        assert!(!wanted("*/*"));
        assert!(!is_wanted(&HeaderMap::new()));
    }
}
