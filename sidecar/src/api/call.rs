//! What every request carries besides its fields: who asks, which request it is, and by when. The same keys on both
//! wires, as gRPC metadata and as HTTP headers.

use axum::http::{HeaderMap, HeaderName};
use coterie_core::limits::{DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX};
use coterie_core::{ErrorCode, Rejection, RequestId};
use uuid::Uuid;

/// The client instance, a UUID (D11).
pub const CLIENT_ID: HeaderName = HeaderName::from_static("coterie-client-id");
/// The request, a version 7 UUID (D11).
pub const REQUEST_ID: HeaderName = HeaderName::from_static("coterie-request-id");
/// How long the caller waits, in milliseconds.
pub const TIMEOUT_MS: HeaderName = HeaderName::from_static("coterie-timeout-ms");
/// The same as gRPC says it.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What the headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// `None`: this sidecar mints one.
    pub request: Option<RequestId>,
    /// From 1 to [`DEADLINE_MS_MAX`].
    pub timeout_ms: u64,
}

/// `invalid_argument` about one field.
pub fn invalid(field: &str, problem: impl std::fmt::Display) -> Rejection {
    Rejection::new(ErrorCode::InvalidArgument, format!("{field}: {problem}"))
}

impl Call {
    /// Reads the headers.
    ///
    /// # Errors
    /// `invalid_argument`, naming the header.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, Rejection> {
        Ok(Self { request: request(headers)?, timeout_ms: timeout_ms(headers)? })
    }

    /// Reads the fields of an operation of a stream.
    ///
    /// # Errors
    /// `invalid_argument`, naming the field.
    pub fn from_fields(client: &[u8], request: &[u8], timeout_ms: u64) -> Result<Self, Rejection> {
        let timeout_ms = if timeout_ms == 0 { DEADLINE_MS_DEFAULT } else { timeout_ms.min(DEADLINE_MS_MAX) };
        if client.is_empty() && request.is_empty() {
            return Ok(Self { request: None, timeout_ms });
        }
        let uuid = |field: &str, bytes: &[u8]| {
            let length = bytes.len();
            Uuid::from_slice(bytes).map_err(|_| invalid(field, format_args!("has {length} bytes; a UUID has 16")))
        };
        let (client, request) = (uuid("client_id", client)?, uuid("request_id", request)?);
        Ok(Self { request: Some(identity(["client_id", "request_id"], client, request)?), timeout_ms })
    }
}

fn request(headers: &HeaderMap) -> Result<Option<RequestId>, Rejection> {
    match (uuid(headers, &CLIENT_ID)?, uuid(headers, &REQUEST_ID)?) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(invalid(REQUEST_ID.as_str(), "is missing; send it together with coterie-client-id")),
        (None, Some(_)) => Err(invalid(CLIENT_ID.as_str(), "is missing; send it together with coterie-request-id")),
        (Some(client), Some(request)) => identity([CLIENT_ID.as_str(), REQUEST_ID.as_str()], client, request).map(Some),
    }
}

/// Who asks and which request it is, from the fields of these names.
fn identity([client_id, request_id]: [&str; 2], client: Uuid, request: Uuid) -> Result<RequestId, Rejection> {
    if client.is_nil() {
        return Err(invalid(client_id, "is the nil UUID; mint one"));
    }
    if request.get_version_num() != 7 {
        let version = request.get_version_num();
        return Err(invalid(request_id, format_args!("is a UUID of version {version}; mint one of version 7")));
    }
    Ok(RequestId { client: client.as_u128(), request: request.as_u128() })
}

fn uuid(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Uuid>, Rejection> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    Uuid::try_parse(text).map(Some).map_err(|_| invalid(name.as_str(), format_args!("`{text}` is not a UUID")))
}

/// Longer waits than [`DEADLINE_MS_MAX`] are cut to it: a caller may always be answered earlier.
fn timeout_ms(headers: &HeaderMap) -> Result<u64, Rejection> {
    let own = match text(headers, &TIMEOUT_MS)? {
        Some(text) => Some(milliseconds(text).ok_or_else(|| {
            invalid(TIMEOUT_MS.as_str(), format_args!("`{text}` is not a number of milliseconds from 1"))
        })?),
        None => None,
    };
    let grpc = match text(headers, &GRPC_TIMEOUT)? {
        Some(text) => Some(
            grpc_timeout_ms(text)
                .ok_or_else(|| invalid(GRPC_TIMEOUT.as_str(), format_args!("`{text}` is not a gRPC time-out")))?,
        ),
        None => None,
    };
    let asked = own.into_iter().chain(grpc).min();
    Ok(asked.unwrap_or(DEADLINE_MS_DEFAULT).clamp(1, DEADLINE_MS_MAX))
}

fn milliseconds(text: &str) -> Option<u64> {
    text.parse().ok().filter(|ms| *ms > 0)
}

/// As in "gRPC over HTTP2": up to eight digits and a unit. Rounded up to milliseconds.
fn grpc_timeout_ms(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(number * 3_600_000),
        "M" => Some(number * 60_000),
        "S" => Some(number * 1_000),
        "m" => Some(number),
        "u" => Some(number.div_ceil(1_000)),
        "n" => Some(number.div_ceil(1_000_000)),
        _ => None,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Rejection> {
    match headers.get(name) {
        Some(value) => value.to_str().map(Some).map_err(|_| invalid(name.as_str(), "is not ASCII text")),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V7: &str = "01930000-0000-7000-8000-000000000001";
    const V4: &str = "2f1b1a2e-8f0a-4d3c-9a63-52a5d7a0c1aa";

    fn read(pairs: &[(&'static str, &str)]) -> Result<Call, Rejection> {
        let headers = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        Call::from_headers(&headers.collect())
    }

    fn refusal(pairs: &[(&'static str, &str)]) -> String {
        let rejection = read(pairs).unwrap_err();
        assert_eq!(rejection.code, ErrorCode::InvalidArgument);
        rejection.message
    }

    #[test]
    fn a_request_without_headers_gets_the_default_deadline_and_no_id() {
        assert_eq!(read(&[]), Ok(Call { request: None, timeout_ms: DEADLINE_MS_DEFAULT }));
    }

    #[test]
    fn d11_client_and_request_id_come_together_or_not_at_all() {
        let call = read(&[("coterie-client-id", V4), ("coterie-request-id", V7)]).unwrap();
        assert_eq!(call.request.unwrap().request, Uuid::parse_str(V7).unwrap().as_u128());
        assert!(refusal(&[("coterie-client-id", V4)]).starts_with("coterie-request-id: is missing"));
        assert!(refusal(&[("coterie-request-id", V7)]).starts_with("coterie-client-id: is missing"));
    }

    #[test]
    fn d11_a_request_id_that_is_not_version_7_is_refused_by_name() {
        let message = refusal(&[("coterie-client-id", V4), ("coterie-request-id", V4)]);
        assert_eq!(message, "coterie-request-id: is a UUID of version 4; mint one of version 7");
        assert!(refusal(&[("coterie-client-id", "me"), ("coterie-request-id", V7)]).contains("`me` is not a UUID"));
    }

    #[test]
    fn d12_the_shorter_of_the_two_timeouts_counts_and_long_ones_are_cut() {
        let timeout = |pairs| read(pairs).unwrap().timeout_ms;
        assert_eq!(timeout(&[("coterie-timeout-ms", "250")]), 250);
        assert_eq!(timeout(&[("grpc-timeout", "2S")]), 2_000);
        assert_eq!(timeout(&[("grpc-timeout", "1500000u")]), 1_500);
        assert_eq!(timeout(&[("grpc-timeout", "1n")]), 1);
        assert_eq!(timeout(&[("grpc-timeout", "2S"), ("coterie-timeout-ms", "300")]), 300);
        assert_eq!(timeout(&[("grpc-timeout", "8H")]), DEADLINE_MS_MAX);
        assert!(refusal(&[("coterie-timeout-ms", "0")]).starts_with("coterie-timeout-ms:"));
        assert!(refusal(&[("grpc-timeout", "123456789S")]).starts_with("grpc-timeout:"));
        assert!(refusal(&[("grpc-timeout", "S")]).starts_with("grpc-timeout:"));
        assert!(refusal(&[("grpc-timeout", "+2S")]).starts_with("grpc-timeout:"));
    }

    use axum::http::HeaderValue;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    /// A header's value: nearly right, or anything.
    fn value() -> impl Strategy<Value = Option<HeaderValue>> {
        let near = "[0-9]{0,22}[HMSmun]?|[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
            .prop_map(String::into_bytes);
        option::of(prop_oneof![near, vec(any::<u8>(), 0..40)])
            .prop_map(|value| value.and_then(|value| HeaderValue::from_bytes(&value).ok()))
    }

    proptest! {
        #[test]
        fn headers_of_any_kind_are_refused_or_give_a_deadline_within_bounds(values in [value(), value(), value(), value()]) {
            let names = [CLIENT_ID, REQUEST_ID, TIMEOUT_MS, GRPC_TIMEOUT];
            let headers: HeaderMap = names.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect();
            match Call::from_headers(&headers) {
                Err(rejection) => prop_assert_eq!(rejection.code, ErrorCode::InvalidArgument),
                Ok(call) => {
                    prop_assert!((1..=DEADLINE_MS_MAX).contains(&call.timeout_ms));
                    prop_assert_eq!(call.request.is_some(), headers.contains_key(REQUEST_ID));
                }
            }
        }

        #[test]
        fn fields_of_any_kind_are_refused_or_give_a_deadline_within_bounds(
            client in vec(any::<u8>(), 0..20), request in vec(any::<u8>(), 0..20), timeout_ms in any::<u64>(),
        ) {
            for request in [request, vec![0x71; 16]] {
                if let Ok(call) = Call::from_fields(&client, &request, timeout_ms) {
                    prop_assert!((1..=DEADLINE_MS_MAX).contains(&call.timeout_ms));
                    prop_assert!(call.request.is_none_or(|request| request.client != 0));
                }
            }
        }
    }
}
