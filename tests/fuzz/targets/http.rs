//! Requests of applications, to all routes of the sidecar's API over HTTP and gRPC: `coterie_sidecar::api`. The sidecar waits for
//! its cluster, so a request that is right is refused once it is read.
//!
//! ```text
//! method u8 | path and query, framed | headers (name: value, a line each), framed | body
//! ```
#![no_main]

use std::cell::OnceCell;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request};
use coterie_core::config::{Config, Overrides};
use coterie_env::mem::MemDisk;
use coterie_fuzz::{DIR, Input, framed, still};
use coterie_sidecar::api::counters::Counters;
use coterie_sidecar::api::http::ROUTES;
use coterie_sidecar::api::ops::Ops;
use coterie_sidecar::api::{error, grpc, http};
use coterie_sidecar::node::{Node, Options};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

const METHODS: [Method; 6] = [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH, Method::HEAD];

thread_local! {
    static WORLD: OnceCell<(Runtime, Router)> = const { OnceCell::new() };
}

libfuzzer_sys::fuzz_target!(init: coterie_fuzz::seeds(seeds), |bytes: &[u8]| {
    let Some(request) = request(bytes) else { return };
    WORLD.with(|world| {
        let (runtime, routes) = world.get_or_init(world_of_one);
        runtime.block_on(async {
            let answer = routes.clone().oneshot(request).await.expect("it always answers");
            let (status, grpc) = (answer.status(), answer.headers().get("grpc-status").is_some());
            assert!(status.as_u16() != 500 || grpc, "an internal error: {answer:?}");
        });
    });
});

fn request(bytes: &[u8]) -> Option<Request<Body>> {
    let mut input = Input(bytes);
    let method = METHODS[usize::from(input.byte()) % METHODS.len()].clone();
    let uri = input.part()?;
    let headers = input.part()?;
    let mut request = Request::builder().method(method).uri(uri);
    for line in headers.split(|byte| *byte == b'\n') {
        let at = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (HeaderName::from_bytes(&line[..at]).ok()?, HeaderValue::from_bytes(&line[at + 1..]).ok()?);
        request = request.header(name, value);
    }
    request.body(Body::from(input.0.to_vec())).ok()
}

/// A sidecar whose cluster is not there, and its routes.
fn world_of_one() -> (Runtime, Router) {
    let runtime = Builder::new_current_thread().enable_time().build().expect("build a runtime");
    let text = "cluster: {local-member: {name: a}, members: {b: {type: persistent, address: 'localhost:1'}}}\n\
                profiles: [client]\n";
    let config = Config::from_yaml(text, &Overrides::default()).expect("it is right");
    let options = Options { env: still(&MemDisk::new()), config, data_directory: DIR.into(), api_socket: None };
    let routes = runtime.block_on(async {
        let node = Node::start(options).await.expect("start in memory");
        let ops = Ops::new(node, Counters::default());
        grpc::add(http::router(ops.clone()), &ops).layer(axum::middleware::map_response(error::complete))
    });
    (runtime, routes)
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut add = |method: &Method, uri: &str, headers: &str, body: &[u8]| {
        let method = METHODS.iter().position(|known| known == method).expect("it is one of them");
        let method = u8::try_from(method).expect("there are few");
        seeds.push([vec![method], framed(uri.as_bytes()), framed(headers.as_bytes()), body.to_vec()].concat());
    };
    let headers = "coterie-client-id:01930000-0000-7000-8000-000000000002\ncoterie-request-id:01930000-0000-7000-8000-\
                   000000000001\ncoterie-timeout-ms:250";
    for (path, methods) in ROUTES {
        let path = path.replace("{member}", "17").replace(['{', '}'], "");
        for method in *methods {
            let method = Method::from_bytes(method.as_bytes()).expect("it is one");
            add(&method, &format!("{path}?partition-group=data&consistency=stale&after=17.0.9f3ac07e"), headers, b"{}");
        }
    }
    let bodies = [
        ("/v1/groups/g/members", r#"{"metadata": {"a": "b"}, "zone": "z", "ttl_ms": "5000"}"#),
        ("/v1/groups/g/release", r#"{"term": 7}"#),
        ("/v1/locks/l/acquire", r#"{"wait_ms": "7", "ttl_ms": 8}"#),
    ];
    for (path, body) in bodies {
        add(&Method::POST, path, headers, body.as_bytes());
    }
    add(&Method::PATCH, "/v1/groups/g", headers, br#"{"config": {"max_members": 3}, "if_term": "7"}"#);
    // One gRPC message: no compression, its length, and a field of text.
    let message = [&[0, 0, 0, 0, 3, 0x0a, 1, b'g'][..]].concat();
    for method in
        ["Groups/Create", "Groups/Watch", "Maps/Put", "Locks/Acquire", "Operations/Stream", "ClusterInfo/Status"]
    {
        let headers = format!("content-type:application/grpc\nte:trailers\ngrpc-timeout:2S\n{headers}");
        add(&Method::POST, &format!("/coterie.v1.{method}"), &headers, &message);
    }
    seeds
}
