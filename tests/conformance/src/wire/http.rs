//! Over HTTP/JSON with server-sent events.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use coterie_proto::v1;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use super::sse::Parser;
use super::{Answer, Events, Failure, Held, If, Joining, Wire, json as form};

/// HTTP.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    endpoint: String,
    identity: Option<(Uuid, Uuid)>,
    deadline: Duration,
    partition_group: String,
}

/// What a caller waits beyond the deadline that it gave the sidecar.
const SLACK: Duration = Duration::from_secs(2);

impl Http {
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let separator = if path.contains('?') { '&' } else { '?' };
        let place = match self.partition_group.as_str() {
            "" => String::new(),
            name => format!("{separator}partition-group={name}"),
        };
        let mut request = self.client.request(method, format!("{}/v1/{path}{place}", self.endpoint));
        if let Some((client, id)) = self.identity {
            request =
                request.header("coterie-client-id", client.to_string()).header("coterie-request-id", id.to_string());
        }
        request
    }

    pub(super) async fn call(&self, request: RequestBuilder) -> Answer<Value> {
        let request = request.header("coterie-timeout-ms", self.deadline.as_millis().to_string());
        let response = checked(request.timeout(self.deadline + SLACK).send().await).await?;
        let text = response.text().await.map_err(broken)?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}")))
    }

    /// The body as it is, and its revision.
    pub(super) async fn bytes(&self, request: RequestBuilder) -> Answer<(u64, Bytes)> {
        let request = request.header("coterie-timeout-ms", self.deadline.as_millis().to_string());
        let response = checked(request.timeout(self.deadline + SLACK).send().await).await?;
        let revision = response.headers().get("coterie-revision").and_then(|value| value.to_str().ok());
        let revision = revision.and_then(|text| text.parse().ok()).expect("a value comes with its revision");
        Ok((revision, response.bytes().await.map_err(broken)?))
    }

    pub(super) async fn stream(&self, request: RequestBuilder) -> Answer<Events<(String, String, Value)>> {
        let request = request.header("accept", "text/event-stream");
        let mut response = checked(request.send().await).await?;
        let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(kind.starts_with("text/event-stream"), "a stream has the type text/event-stream, not {kind:?}");
        Ok(Events::start(|sender| async move {
            let mut parser = Parser::default();
            // A broken connection and an end are the same to a reader of events: it connects again.
            while let Ok(Some(bytes)) = response.chunk().await {
                parser.feed(&bytes);
                while let Some(event) = parser.next() {
                    let data = serde_json::from_str(&event.data);
                    let data = data.unwrap_or_else(|error| panic!("{error} in {:?}", event.data));
                    if sender.send(Ok((event.name, event.id, data))).is_err() {
                        return;
                    }
                }
            }
        }))
    }
}

async fn checked(response: reqwest::Result<Response>) -> Answer<Response> {
    let response = response.map_err(broken)?;
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let kind =
        response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let text = response.text().await.map_err(broken)?;
    assert_eq!(kind, "application/problem+json", "{status}: {text}");
    let problem: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    let word = |key: &str| problem[key].as_str().unwrap_or_else(|| panic!("no {key:?} in {text}")).to_owned();
    assert_eq!(problem["status"].as_u64(), Some(status.as_u16().into()), "{text}");
    assert!(!word("type").is_empty() && !word("title").is_empty(), "{text}");
    Err(Failure {
        code: word("code"),
        message: word("detail"),
        retry: word("retry"),
        status: status.as_u16().to_string(),
    })
}

fn broken(error: reqwest::Error) -> Failure {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Failure { code: String::new(), message, retry: String::new(), status: "no answer".to_owned() }
}

/// Items of `events` in another form.
pub(super) fn map<R: std::fmt::Debug + Send + 'static>(
    events: Events<(String, String, Value)>,
    mut take: impl FnMut(&str, &str, &Value) -> R + Send + 'static,
) -> Events<R> {
    Events::start(|sender| async move {
        // The whole of it: the task that fills it ends with it.
        let mut events = events;
        while let Some(item) = events.items.recv().await {
            if sender.send(item.map(|(name, id, data)| take(&name, &id, &data))).is_err() {
                return;
            }
        }
    })
}

impl Wire for Http {
    fn connect(endpoint: &str) -> Self {
        let client = reqwest::Client::builder().build().expect("a client without TLS needs nothing");
        let (identity, deadline, partition_group) = (None, Duration::from_secs(10), String::new());
        Self { client, endpoint: endpoint.to_owned(), identity, deadline, partition_group }
    }

    fn identified(&self, client: Uuid, request: Uuid) -> Self {
        Self { identity: Some((client, request)), ..self.clone() }
    }

    fn within(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    fn in_partition_group(&self, name: &str) -> Self {
        Self { partition_group: name.to_owned(), ..self.clone() }
    }

    async fn create(&self, group: &str, config: Option<v1::GroupConfig>) -> Answer<v1::Group> {
        let body = config.map_or(json!({}), |config| json!({ "config": form::from_config(&config) }));
        let request = self.request(Method::PUT, &format!("groups/{}", segment(group))).json(&body);
        Ok(form::group(&self.call(request).await?))
    }

    async fn read(&self, group: &str, consistency: v1::Consistency) -> Answer<v1::Group> {
        let word = form::consistency_word(consistency);
        let request = self.request(Method::GET, &format!("groups/{}?consistency={word}", segment(group)));
        Ok(form::group(&self.call(request).await?))
    }

    async fn list(&self) -> Answer<Vec<v1::Group>> {
        Ok(form::groups(&self.call(self.request(Method::GET, "groups")).await?))
    }

    async fn configure(&self, group: &str, config: v1::GroupConfig, only_if: If) -> Answer<v1::Group> {
        let mut body = json!({ "config": form::from_config(&config) });
        if only_if.config_revision != 0 {
            body["if_config_revision"] = json!(only_if.config_revision.to_string());
        }
        if only_if.term != 0 {
            body["if_term"] = json!(only_if.term.to_string());
        }
        let request = self.request(Method::PATCH, &format!("groups/{}", segment(group))).json(&body);
        Ok(form::group(&self.call(request).await?))
    }

    async fn delete(&self, group: &str) -> Answer<()> {
        self.call(self.request(Method::DELETE, &format!("groups/{}", segment(group)))).await.map(|_| ())
    }

    async fn join(&self, group: &str, joining: Joining) -> Answer<v1::JoinResponse> {
        let request = self.request(Method::POST, &format!("groups/{}/members", segment(group))).json(&body(&joining));
        Ok(form::joined(&self.call(request).await?))
    }

    async fn hold(&self, group: &str, joining: Joining) -> Answer<Held> {
        let path = format!("groups/{}/members?presence=stream", segment(group));
        let request = self.request(Method::POST, &path).json(&body(&joining));
        let mut events = self.stream(request).await?;
        let (name, _, data) = events.next().await.expect("a stream of presence says who joined");
        assert_eq!(name, "joined", "a stream of presence begins with joined");
        Ok(Held { joined: form::joined(&data), said: map(events, form::said) })
    }

    async fn renew(&self, group: &str, member: u64) -> Answer<v1::RenewResponse> {
        let request = self.request(Method::POST, &format!("groups/{}/members/{member}/renew", segment(group)));
        Ok(form::renewed(&self.call(request).await?))
    }

    async fn leave(&self, group: &str, member: u64) -> Answer<()> {
        self.call(self.request(Method::DELETE, &format!("groups/{}/members/{member}", segment(group))))
            .await
            .map(|_| ())
    }

    async fn set_metadata(
        &self,
        group: &str,
        member: u64,
        metadata: BTreeMap<String, String>,
        if_term: u64,
    ) -> Answer<v1::Member> {
        let mut body = json!({ "metadata": metadata });
        if if_term != 0 {
            body["if_term"] = json!(if_term.to_string());
        }
        let request =
            self.request(Method::PUT, &format!("groups/{}/members/{member}/metadata", segment(group))).json(&body);
        Ok(form::member(&self.call(request).await?))
    }

    async fn step_down(&self, group: &str, if_term: u64) -> Answer<v1::Group> {
        let body = if if_term == 0 { json!({}) } else { json!({ "if_term": if_term.to_string() }) };
        let request = self.request(Method::POST, &format!("groups/{}/step-down", segment(group))).json(&body);
        Ok(form::group(&self.call(request).await?))
    }

    async fn release(&self, group: &str, term: u64) -> Answer<v1::Group> {
        let body = json!({ "term": term.to_string() });
        let request = self.request(Method::POST, &format!("groups/{}/release", segment(group))).json(&body);
        Ok(form::group(&self.call(request).await?))
    }

    async fn watch(&self, group: &str, after: &str) -> Answer<Events<v1::GroupEvent>> {
        let mut request = self.request(Method::GET, &format!("groups/{}/watch", segment(group)));
        if !after.is_empty() {
            request = request.header("last-event-id", after);
        }
        Ok(map(self.stream(request).await?, form::event))
    }

    async fn itself(&self, group: &str) -> Answer<v1::SelfResponse> {
        Ok(form::itself(&self.call(self.request(Method::GET, &format!("groups/{}/self", segment(group)))).await?))
    }

    async fn status(&self) -> Answer<v1::StatusResponse> {
        Ok(form::status(&self.call(self.request(Method::GET, "status")).await?))
    }
}

/// A name as one segment of a path (RFC 3986, section 2.1).
pub(super) fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn body(Joining { metadata, zone, ttl_ms }: &Joining) -> Value {
    let mut body = json!({ "metadata": metadata });
    if !zone.is_empty() {
        body["zone"] = json!(zone);
    }
    if *ttl_ms != 0 {
        body["ttl_ms"] = json!(ttl_ms.to_string());
    }
    body
}
