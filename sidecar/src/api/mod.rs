//! What applications call: gRPC and HTTP/JSON on one loopback port, and on a Unix socket.
//!
//! ```text
//!   connection ── serve ── router ─┬─ grpc ─┐
//!   (h1, h2c, socket)              └─ http ─┴─ ops ── router, presences ── partition
//! ```
//!
//! [`ops`] holds every operation once; [`grpc`] and [`http`] carry typed requests to it and typed replies back, so that
//! nothing is decided twice. [`call`] reads what every request carries (who, which, by when), [`convert`] maps the core's
//! values to the wire, [`json`] gives them their JSON shape, [`error`] turns a refusal into a status or a problem
//! document, [`feed`] and [`map_feed`] make the streams, and [`sse`] frames them over HTTP. [`stream`] carries many
//! operations over one stream.
//!
//! **Reading.** Unary requests take one of a bounded number of permits and have a deadline. Streams take a permit of
//! another kind for as long as they last; a stream ends when the group is deleted, its membership ended, its reader is
//! gone, or the process stops.
//!
//! **Presence.** A join by stream puts the membership into the stream: when the connection is closed, the server drops the
//! stream, and with it the membership. A connection that is merely silent is not closed by this side: no keep-alive
//! pings, no idle time-out.

use std::io;
use std::path::PathBuf;

use coterie_env::Listener;

use crate::node::Node;

pub mod call;
pub mod convert;
pub mod counters;
pub mod error;
pub mod feed;
pub mod grpc;
pub mod http;
pub mod json;
pub mod map_feed;
pub mod openapi;
pub mod ops;
pub mod serve;
pub mod sse;
pub mod stream;

use counters::Counters;
use ops::Ops;

/// Serves the application API on bound listeners and, if there is a path, on a Unix socket, until the process stops. It
/// answers in every state of the node. Gives the counters of its requests.
///
/// # Errors
/// The socket cannot be made, or another process serves it.
pub fn serve(node: Node, listeners: Vec<Box<dyn Listener>>, socket: Option<PathBuf>) -> io::Result<Counters> {
    let counters = Counters::default();
    let (env, ending) = (node.env().clone(), node.ending());
    let ops = Ops::new(node, counters.clone());
    let routes = grpc::add(http::router(ops.clone()), &ops).layer(axum::middleware::map_response(error::complete));
    serve::tcp(&env, listeners, &routes, &ending);
    if let Some(path) = socket {
        serve::socket(&env, &path, &routes, &ending)?;
    }
    Ok(counters)
}
