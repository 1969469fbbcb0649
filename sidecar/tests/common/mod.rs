//! A running cluster of one.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used)] // helpers of tests

pub mod crowd;

use std::net::TcpListener;
use std::path::PathBuf;

use coterie_core::config::{Config, Overrides};
use coterie_env::Env;
use coterie_proto::v1::groups_client::GroupsClient;
use coterie_sidecar::node::{Node, Options};
use coterie_sidecar::state::State;
use tonic::transport::Channel;

pub struct Sidecar {
    pub node: Node,
    pub port: u16,
    folder: tempfile::TempDir,
}

impl Sidecar {
    /// A running cluster of one.
    pub async fn start() -> Self {
        Self::start_with(coterie_env::real()).await
    }

    /// The same in a world of its own.
    pub async fn start_with(env: Env) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (node, port) = begin(env, folder.path().join("data")).await;
        node.state().wait_for(|state| *state == State::Running).await.unwrap();
        Self { node, port, folder }
    }

    pub fn data_directory(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://127.0.0.1:{}", self.port)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// A client with a connection of its own.
    pub async fn groups(&self) -> GroupsClient<Channel> {
        GroupsClient::new(self.channel().await)
    }
}

/// Starts a sidecar, alone in its cluster; its port for applications.
pub async fn begin(env: Env, data_directory: PathBuf) -> (Node, u16) {
    let free: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = free.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    drop(free);
    let text = format!(
        "cluster:\n  local-member: {{name: one}}\n  members:\n    one: {{type: persistent, address: \"localhost:{}\"}}\n\
         profiles: [consensus]\napi: {{port: {}}}\nhealth: {{port: {}}}\n",
        ports[0], ports[1], ports[2],
    );
    let config = Config::from_yaml(&text, &Overrides::default()).unwrap();
    (Node::start(Options { env, config, data_directory, api_socket: None }).await.unwrap(), ports[1])
}
