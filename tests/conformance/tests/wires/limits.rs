//! Bad input: a code, a sentence, and a process that goes on.

use std::collections::{BTreeMap, BTreeSet};

use coterie_conformance::harness::{PATIENCE, clients, shared};
use coterie_conformance::wire::Joining;
use coterie_conformance::{Grpc, Http, Wire, both_wires, name, run};
use coterie_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Still there, as the same process.
async fn lives<W: Wire>(wire: &W) {
    let status = wire.status().await.expect("it still answers");
    assert_eq!(status.start_counter, 1, "it was never started again");
}

both_wires! {
    async fn metadata_above_its_limit_is_refused_with_the_limit<W: Wire>() {
        let [a, ..] = clients::<W>().await;
        let joining = Joining { metadata: BTreeMap::from([("x".to_owned(), "x".repeat(17 << 10))]), ..Joining::default() };
        let failure = a.join(&name("metadata"), joining).await.expect_err("16 KiB at most");
        assert!(matches!(failure.code.as_str(), "too_large" | "invalid_argument"), "{failure}");
        assert!(failure.message.contains("16") && failure.message.contains("metadata"), "{failure}");
    }

    async fn an_unknown_group_is_named<W: Wire>() {
        let [a, ..] = clients::<W>().await;
        let group = name("nobody");
        let failures = [
            a.get(&group).await.expect_err("get").to_owned(),
            a.leave(&group, 7).await.expect_err("leave"),
            a.delete(&group).await.expect_err("delete"),
            a.step_down(&group, 0).await.expect_err("step down"),
            match a.watch(&group, "").await {
                Err(failure) => failure,
                Ok(mut watch) => watch.end().await.expect("the watch fails"),
            },
        ];
        for failure in failures {
            assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("group_unknown", "never"), "{failure}");
            assert!(failure.message.contains(&group), "{failure}");
        }
    }

    async fn a_name_of_10_kb_is_refused_with_what_would_be_right<W: Wire>() {
        let [a, ..] = clients::<W>().await;
        let long = "n".repeat(10_000);
        for failure in [a.create(&long, None).await.expect_err("create"), a.get(&long).await.expect_err("get")] {
            assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("invalid_argument", "never"), "{failure}");
            assert!(failure.message.contains("253"), "it says the limit: {failure}");
            assert!(failure.message.len() < 1_000, "it does not repeat the name: {failure}");
        }
        lives(&a).await;
    }

    async fn values_out_of_range_are_refused_with_the_range<W: Wire>() {
        let [a, ..] = clients::<W>().await;
        let group = name("range");
        let config = v1::GroupConfig { release_timeout_ms: Some(3_600_001), max_members: None };
        let failures = [
            a.join(&group, Joining::lease(1)).await.expect_err("a lease of a millisecond"),
            a.join(&group, Joining::lease(u64::MAX)).await.expect_err("a lease for ever"),
            a.create(&group, Some(config)).await.expect_err("more than an hour"),
            a.create(&group, Some(v1::GroupConfig { release_timeout_ms: None, max_members: Some(10_001) }))
                .await
                .expect_err("more members than there may be"),
        ];
        for failure in failures {
            assert_eq!(failure.code, "invalid_argument", "{failure}");
            assert!(!failure.message.is_empty());
        }
        let failure = a.get(&group).await.expect_err("nothing was made");
        assert_eq!(failure.code, "group_unknown", "{failure}");
    }

    async fn odd_names_are_kept_as_they_are_and_what_is_no_name_is_refused<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        for odd in ["a.b_c-d~", "two words", "Größe", "%2F"] {
            let odd = name(odd);
            assert_eq!(a.create(&odd, None).await.expect("create").name, odd);
            assert_eq!(b.get(&odd).await.expect("get").name, odd);
        }
        for wrong in ["", "a/b", "a\nb"] {
            let failure = a.create(wrong, None).await.expect_err("no name");
            // Over HTTP an empty name is another path.
            assert!(matches!(failure.code.as_str(), "invalid_argument" | "not_found"), "{wrong:?}: {failure}");
        }
    }
}

/// Above the limit, and far above it.
const TOO_LARGE: [usize; 2] = [2 << 20, 100_000_000];

#[test]
fn grpc_a_request_of_2_or_100_mb_is_refused_and_the_process_survives() {
    run(async {
        let [a, ..] = clients::<Grpc>().await;
        for bytes in TOO_LARGE {
            let metadata = BTreeMap::from([("x".to_owned(), "x".repeat(bytes))]);
            // The sidecar reads the length and refuses; what is still to be sent is reset after that answer.
            let joining = Joining { metadata, ..Joining::default() };
            let failure = a.join(&name("large"), joining).await.expect_err("too large");
            assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("too_large", "never"), "{failure}");
            assert_eq!(failure.status, "OutOfRange", "{failure}");
            assert!(failure.message.contains("limit"), "{failure}");
            lives(&a).await;
        }
    });
}

#[test]
fn http_a_request_of_2_or_100_mb_is_refused_before_its_body_and_the_process_survives() {
    run(async {
        let [a, ..] = clients::<Http>().await;
        for bytes in TOO_LARGE {
            let (head, problem) = announced(bytes).await;
            assert!(head.starts_with("http/1.1 413 "), "{head}");
            assert!(head.contains("content-type: application/problem+json"), "{head}");
            assert!(head.contains("connection: close"), "{head}");
            let words = (problem["code"].as_str(), problem["retry"].as_str());
            assert_eq!(words, (Some("too_large"), Some("never")), "{problem}");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{problem}");
            lives(&a).await;
        }
    });
}

/// The answer to a request that announces a body of so many bytes and sends the first few kB of it: its head, in lower
/// case, and its body. A sender of the whole may see a broken connection instead of the answer.
async fn announced(bytes: usize) -> (String, serde_json::Value) {
    let endpoint = shared().await.endpoint(0);
    let mut stream = TcpStream::connect(endpoint.trim_start_matches("http://")).await.expect("connect");
    let begun = format!(
        "POST /v1/groups/x/members HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {bytes}\r\n\r\n{{\"metadata\":{{\"x\":\"{}",
        "x".repeat(4_000)
    );
    stream.write_all(begun.as_bytes()).await.expect("send");
    let mut answer = String::new();
    let read = async {
        let mut bytes = [0; 4096];
        loop {
            let count = stream.read(&mut bytes).await.expect("an answer");
            answer.push_str(str::from_utf8(&bytes[..count]).expect("text"));
            let whole = answer.split_once("\r\n\r\n").map(|(head, body)| (head, serde_json::from_str(body)));
            if let Some((head, Ok(problem))) = whole {
                return (head.to_ascii_lowercase(), problem);
            }
            assert!(count > 0, "the connection ended after {answer:?}");
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("it does not wait for the body")
}

/// A request that is made by hand, and its answer: status, content type, body.
async fn raw(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, serde_json::Value) {
    let endpoint = shared().await.endpoint(0);
    let method = method.parse().expect("a method");
    let mut request = reqwest::Client::new().request(method, format!("{endpoint}{path}")).body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let kind =
        response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let text = response.text().await.expect("a body");
    (status, kind, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}")))
}

#[test]
fn http_bad_input_gets_a_problem_with_a_code_and_a_sentence() {
    const JSON: (&str, &str) = ("content-type", "application/json");
    type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str, u16, &'static str);
    // Method, path, headers, body; status and code.
    let cases: [Case; 9] = [
        ("PUT", "/v1/groups/http-bad", &[JSON], "{", 400, "invalid_argument"),
        ("PUT", "/v1/groups/http-bad", &[JSON], "[1,2]", 400, "invalid_argument"),
        ("PUT", "/v1/groups/http-bad", &[JSON], r#"{"confog":{}}"#, 400, "invalid_argument"),
        ("POST", "/v1/groups/http-bad/members", &[JSON], r#"{"ttl_ms":"soon"}"#, 400, "invalid_argument"),
        ("DELETE", "/v1/groups/http-bad/members/seven", &[], "", 400, "invalid_argument"),
        ("GET", "/v1/groups/http-bad?consistency=maybe", &[], "", 400, "invalid_argument"),
        ("GET", "/v1/groups/http-bad", &[("coterie-client-id", "me")], "", 400, "invalid_argument"),
        ("GET", "/v1/nothing", &[], "", 404, "not_found"),
        ("GET", "/v1/groups/no-such-group", &[], "", 404, "group_unknown"),
    ];
    run(async {
        for (method, path, headers, body, status, code) in cases {
            let (got, kind, problem) = raw(method, path, headers, body).await;
            let shown = format!("{method} {path} {body}: {got} {problem}");
            assert_eq!((got, kind.as_str()), (status, "application/problem+json"), "{shown}");
            assert_eq!(problem["code"], code, "{shown}");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{shown}");
        }
    });
}

/// Every path of the application's API over HTTP, as the tests of both wires use it.
const PATHS: [&str; 21] = [
    "/openapi.json",
    "/v1/groups",
    "/v1/groups/{group}",
    "/v1/groups/{group}/members",
    "/v1/groups/{group}/members/{member}",
    "/v1/groups/{group}/members/{member}/metadata",
    "/v1/groups/{group}/members/{member}/renew",
    "/v1/groups/{group}/release",
    "/v1/groups/{group}/self",
    "/v1/groups/{group}/step-down",
    "/v1/groups/{group}/watch",
    "/v1/locks/{lock}",
    "/v1/locks/{lock}/acquire",
    "/v1/locks/{lock}/release",
    "/v1/locks/{lock}/renew",
    "/v1/maps/{map}",
    "/v1/maps/{map}/entries",
    "/v1/maps/{map}/entries/{key}",
    "/v1/maps/{map}/watch",
    "/v1/sidecar/drain",
    "/v1/status",
];

#[test]
fn http_describes_itself_as_openapi() {
    run(async {
        let (status, _, document) = raw("GET", "/openapi.json", &[], "").await;
        assert_eq!(status, 200);
        assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with('3')), "{document}");
        let known: BTreeSet<&str> = document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
        assert_eq!(known, BTreeSet::from(PATHS));
        // Each is served: a method that none has is what is wrong, not the path.
        for path in PATHS {
            let names = [("{group}", "g"), ("{member}", "7"), ("{map}", "m"), ("{key}", "k"), ("{lock}", "l")];
            let path = names.iter().fold(path.to_owned(), |path, (name, of)| path.replace(name, of));
            let (status, _, problem) = raw("OPTIONS", &path, &[], "").await;
            assert_eq!(status, 405, "{path}: {problem}");
        }
    });
}
