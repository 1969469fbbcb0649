//! Short texts of requests, files and specs: ids of events, addresses, quantities, names, headers.
//!
//! ```text
//! which u8 | text
//! ```
#![no_main]

use axum::http::{HeaderMap, HeaderValue};
use coterie_core::Primitive;
use coterie_core::config::Address;
use coterie_core::limits::DEADLINE_MS_MAX;
use coterie_fuzz::Input;
use coterie_operator_core::{names, quantity};
use coterie_sidecar::api::call::{CLIENT_ID, Call, GRPC_TIMEOUT, REQUEST_ID, TIMEOUT_MS};
use coterie_sidecar::lineage;

libfuzzer_sys::fuzz_target!(init: coterie_fuzz::seeds(seeds), |bytes: &[u8]| {
    let mut input = Input(bytes);
    let which = input.byte();
    if which % 6 == 5 {
        return headers(input.0);
    }
    let Ok(text) = std::str::from_utf8(input.0) else { return };
    match which % 6 {
        0 => {
            let Ok((event, lineage)) = lineage::parse("after", text) else { return };
            let written = lineage.map_or_else(|| event.to_string(), |lineage| lineage.id(event));
            assert_eq!(lineage::parse("after", &written), Ok((event, lineage)));
        }
        1 => {
            let Ok(address) = text.parse::<Address>() else { return };
            assert_eq!(address.to_string().parse(), Ok(address));
        }
        2 => {
            let _ = quantity::thousandths(text);
        }
        3 => {
            let Some(of) = Primitive::parse(text) else { return };
            assert_eq!(of.to_string(), text);
        }
        _ => {
            let Some(index) = names::index("orders", text) else { return };
            assert_eq!(names::pod("orders", index), text);
        }
    }
});

/// Four headers, a line each; an empty one is not sent.
fn headers(bytes: &[u8]) {
    let names = [TIMEOUT_MS, GRPC_TIMEOUT, CLIENT_ID, REQUEST_ID];
    let values = bytes.split(|byte| *byte == b'\n').map(|line| HeaderValue::from_bytes(line).ok());
    let given = names
        .into_iter()
        .zip(values)
        .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    if let Ok(call) = Call::from_headers(&given.collect::<HeaderMap>()) {
        assert!((1..=DEADLINE_MS_MAX).contains(&call.timeout_ms));
        assert!(call.request.is_none_or(|request| request.client != 0));
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let uuids = "01930000-0000-7000-8000-000000000002\n01930000-0000-7000-8000-000000000001";
    let texts = [
        (0, "17.3.9f3ac07e".to_owned()),
        (0, "17.3".to_owned()),
        (1, "localhost:5001".to_owned()),
        (1, "[::1]:5001".to_owned()),
        (2, "1.5Gi".to_owned()),
        (2, "12e3".to_owned()),
        (3, "group/workers".to_owned()),
        (4, "orders-12".to_owned()),
        (5, format!("250\n2S\n{uuids}")),
        (5, "\n1500000u".to_owned()),
    ];
    texts.into_iter().map(|(which, text)| [&[which], text.as_bytes()].concat()).collect()
}
