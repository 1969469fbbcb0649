//! An API server in memory, as far as the operator's shell uses one: names, versions, preconditions. Apply replaces the
//! whole object, and nothing is validated.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Bytes;
use axum::http::{Method, StatusCode, Uri};
use axum::{Json, Router};
use coterie_operator_core::cluster::Defaults;
use kube::Client;
use kube::runtime::events::Recorder;
use serde_json::{Value, json};

use crate::context::Context;

/// What a test meddles with.
#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<String, Value>,
    /// Put at the path as soon as somebody else was answered what is there.
    next: BTreeMap<String, Value>,
}

impl Server {
    /// The surroundings of a reconciliation on this server.
    pub(crate) fn context(&self) -> Context {
        let server = self.clone();
        let answer = |method, uri, body| async move { server.answer(&method, &uri, &body) };
        let client = Client::new(Router::new().fallback(answer), "default");
        let defaults = Defaults { sidecar_image: "coterie:test".to_owned() };
        Context { recorder: Recorder::new(client.clone(), "test".into()), client, defaults }
    }

    /// Puts an object there, as somebody else would.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state().put(path, object);
    }

    /// Puts an object there right after it was read for the next time.
    pub(crate) fn put_after_read(&self, path: &str, object: Value) {
        self.state().next.insert(path.to_owned(), object);
    }

    /// Takes an object away.
    pub(crate) fn delete(&self, path: &str) {
        self.state().objects.remove(path);
    }

    /// What is there.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    /// The paths of what is there, without events.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.state().objects.keys().filter(|path| !path.contains("/events/")).cloned().collect()
    }

    /// The reasons of the events that were published.
    pub(crate) fn events(&self) -> Vec<String> {
        let state = self.state();
        let events = state.objects.iter().filter(|(path, _)| path.contains("/events/"));
        events.map(|(_, event)| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panicked in here")
    }

    fn answer(&self, method: &Method, uri: &Uri, body: &Bytes) -> (StatusCode, Json<Value>) {
        let body = serde_json::from_slice(body).unwrap_or(Value::Null);
        let answered = self.state().answer(method, uri.path(), body);
        let failed = |code: StatusCode| {
            let reason = if code == StatusCode::NOT_FOUND { "NotFound" } else { "Conflict" };
            json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure",
                "code": code.as_u16(), "message": "no", "reason": reason,
            })
        };
        answered.map_or_else(|code| (code, Json(failed(code))), |object| (StatusCode::OK, Json(object)))
    }
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        // As in etcd, the first is 2.
        let version = self.version + 1;
        if object["metadata"]["uid"].is_null() {
            let old = self.objects.get(path).map(|old| old["metadata"]["uid"].clone());
            object["metadata"]["uid"] = old.unwrap_or_else(|| json!(format!("o-{version}")));
        }
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, body: Value) -> Result<Value, StatusCode> {
        let there = self.objects.get(path).cloned();
        let differs = |wanted: &Value, field: &str| {
            !wanted.is_null() && there.as_ref().is_some_and(|there| there["metadata"][field] != *wanted)
        };
        match method.as_str() {
            "GET" if path.split('/').count() % 2 == usize::from(path.starts_with("/apis/")) => {
                let within = format!("{path}/");
                let items = self.objects.iter().filter(|(other, _)| other.starts_with(&within));
                let items: Vec<_> = items.map(|(_, object)| object.clone()).collect();
                Ok(json!({"metadata": {}, "items": items}))
            }
            "GET" => {
                if let Some(next) = self.next.remove(path) {
                    self.put(path, next);
                }
                there.ok_or(StatusCode::NOT_FOUND)
            }
            "POST" => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
                if self.objects.contains_key(&path) { Err(StatusCode::CONFLICT) } else { Ok(self.put(&path, body)) }
            }
            "PATCH" if differs(&body["metadata"]["resourceVersion"], "resourceVersion") => Err(StatusCode::CONFLICT),
            "PATCH" if path.ends_with("/status") => {
                let path = path.trim_end_matches("/status");
                let mut object = self.objects.get(path).cloned().ok_or(StatusCode::NOT_FOUND)?;
                object["status"] = body["status"].clone();
                Ok(self.put(path, object))
            }
            "PATCH" => {
                let mut body = body;
                if let Some(there) = there {
                    // As of an object with a status of its own: an apply leaves that, and counts changes of the spec.
                    let generation = there["metadata"]["generation"].as_i64().unwrap_or(1);
                    let is_changed = there["spec"] != body["spec"];
                    body["metadata"]["generation"] = json!(generation + i64::from(is_changed));
                    if !there["status"].is_null() {
                        body["status"] = there["status"].clone();
                    }
                }
                Ok(self.put(path, body))
            }
            "DELETE" if differs(&body["preconditions"]["uid"], "uid") => Err(StatusCode::CONFLICT),
            "DELETE" => self.objects.remove(path).ok_or(StatusCode::NOT_FOUND),
            _ => Err(StatusCode::METHOD_NOT_ALLOWED),
        }
    }
}
