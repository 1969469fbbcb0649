//! Refusals on the wire: a gRPC status or `application/problem+json` (RFC 9457), with the same code, sentence and advice.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use coterie_core::code::Retry;
use coterie_core::{ErrorCode, Rejection};
use serde_json::{Value, json};

/// The metadata key and header of the stable word.
pub const CODE: HeaderName = HeaderName::from_static("coterie-code");
/// The metadata key and header of the advice: `later` or `never`.
pub const RETRY: HeaderName = HeaderName::from_static("coterie-retry");
/// The media type of refusals over HTTP.
pub const PROBLEM_JSON: &str = "application/problem+json";

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The advice as a word.
pub fn advice(code: ErrorCode) -> &'static str {
    match code.retry() {
        Retry::Later => "later",
        Retry::Never => "never",
    }
}

fn annotate(headers: &mut HeaderMap, code: ErrorCode) {
    headers.insert(CODE, HeaderValue::from_static(code.label()));
    headers.insert(RETRY, HeaderValue::from_static(advice(code)));
}

/// A refusal over gRPC.
pub fn to_status(rejection: Rejection) -> tonic::Status {
    let mut headers = HeaderMap::new();
    annotate(&mut headers, rejection.code);
    let metadata = tonic::metadata::MetadataMap::from_headers(headers);
    tonic::Status::with_metadata(tonic::Code::from_i32(rejection.code.grpc()), rejection.message, metadata)
}

/// A refusal as JSON.
pub fn problem_json(rejection: &Rejection) -> Value {
    let label = rejection.code.label();
    json!({
        "type": format!("https://coterie.dev/errors/{label}"),
        "title": label.replace('_', " "),
        "status": rejection.code.http(),
        "detail": rejection.message,
        "code": label,
        "retry": advice(rejection.code),
    })
}

/// A refusal over HTTP.
pub fn problem(rejection: &Rejection) -> Response {
    problem_with_status(rejection, rejection.code.http())
}

/// A refusal over HTTP with a status of its own, such as 405.
pub fn problem_with_status(rejection: &Rejection, status: u16) -> Response {
    let status = StatusCode::from_u16(status).expect("codes map to valid statuses");
    let mut body = problem_json(rejection);
    body["status"] = json!(status.as_u16());
    let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body.to_string()).into_response();
    annotate(response.headers_mut(), rejection.code);
    if rejection.code == ErrorCode::TooLarge {
        // What is left of the body is not read (RFC 9110, 15.5.14).
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether a request or an answer is gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The answer to a gRPC request for a service that is not here.
pub fn grpc_unknown(rejection: &Rejection) -> Response {
    let mut response = (StatusCode::OK, [(header::CONTENT_TYPE, "application/grpc")]).into_response();
    let unimplemented = HeaderValue::from_static("12");
    response.headers_mut().insert(GRPC_STATUS, unimplemented);
    if let Ok(message) = HeaderValue::from_str(&rejection.message) {
        response.headers_mut().insert(GRPC_MESSAGE, message);
    }
    annotate(response.headers_mut(), rejection.code);
    response
}

/// Adds code and advice to failures that the gRPC library answers by itself: an unreadable or too large message, an
/// unknown method.
pub async fn complete(mut response: Response) -> Response {
    let headers = response.headers_mut();
    if headers.contains_key(CODE) {
        return response;
    }
    let status = headers.get(GRPC_STATUS).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    if let Some(code) = status.and_then(code_of_library_status) {
        annotate(headers, code);
    }
    response
}

/// The code of a gRPC status that the library made. `None` for success.
fn code_of_library_status(status: i32) -> Option<ErrorCode> {
    match tonic::Code::from_i32(status) {
        tonic::Code::Ok => None,
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => Some(ErrorCode::TooLarge),
        tonic::Code::Unimplemented | tonic::Code::NotFound => Some(ErrorCode::NotFound),
        tonic::Code::InvalidArgument => Some(ErrorCode::InvalidArgument),
        tonic::Code::Cancelled | tonic::Code::DeadlineExceeded => Some(ErrorCode::DeadlineExceeded),
        tonic::Code::Unknown
        | tonic::Code::AlreadyExists
        | tonic::Code::PermissionDenied
        | tonic::Code::FailedPrecondition
        | tonic::Code::Aborted
        | tonic::Code::Internal
        | tonic::Code::Unavailable
        | tonic::Code::DataLoss
        | tonic::Code::Unauthenticated => Some(ErrorCode::Internal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_grpc_status_with_word_and_advice() {
        for code in ErrorCode::ALL {
            let status = to_status(Rejection::new(*code, "because"));
            assert_eq!(i32::from(status.code()), code.grpc());
            assert_eq!(status.message(), "because");
            assert_eq!(status.metadata().get("coterie-code").unwrap(), code.label());
            assert_eq!(status.metadata().get("coterie-retry").unwrap(), advice(*code));
        }
    }

    #[test]
    fn every_code_has_a_problem_document() {
        for code in ErrorCode::ALL {
            let response = problem(&Rejection::new(*code, "because"));
            assert_eq!(response.status().as_u16(), code.http());
            assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
            let body = problem_json(&Rejection::new(*code, "because"));
            assert_eq!(body["code"], code.label());
            assert_eq!(body["status"], code.http());
            assert_eq!(body["detail"], "because");
        }
    }

    #[tokio::test]
    async fn a_message_that_the_grpc_library_found_too_large_says_too_large() {
        let mut response = Response::new(axum::body::Body::empty());
        response.headers_mut().insert(GRPC_STATUS, HeaderValue::from_static("11"));
        let response = complete(response).await;
        assert_eq!(response.headers()[CODE], "too_large");
        assert_eq!(response.headers()[RETRY], "never");
    }

    #[tokio::test]
    async fn an_answer_that_has_a_code_keeps_it() {
        let mut response = Response::new(axum::body::Body::empty());
        response.headers_mut().insert(GRPC_STATUS, HeaderValue::from_static("5"));
        response.headers_mut().insert(CODE, HeaderValue::from_static("group_unknown"));
        assert_eq!(complete(response).await.headers()[CODE], "group_unknown");
    }
}
