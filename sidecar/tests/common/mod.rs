//! A running cluster of one.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used)] // helpers of tests

pub mod crowd;

use std::net::TcpListener;
use std::path::{Path, PathBuf};

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
    let ports = free_ports(3);
    let config = config(&["one"], &ports[..1], 0, &ports[1..]);
    (Node::start(Options { env, config, data_directory, api_socket: None }).await.unwrap(), ports[1])
}

/// Starts three sidecars of one cluster in this process, and waits until they run.
pub async fn begin_three(folder: &Path) -> Vec<Node> {
    let (names, ports) = (["one", "two", "three"], free_ports(9));
    let mut nodes = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let config = config(&names, &ports[..3], place, &ports[3 + 2 * place..]);
        let (env, data_directory) = (coterie_env::real(), folder.join(name));
        nodes.push(Node::start(Options { env, config, data_directory, api_socket: None }).await.unwrap());
    }
    for node in &nodes {
        node.state().wait_for(|state| *state == State::Running).await.unwrap();
    }
    nodes
}

fn free_ports(count: usize) -> Vec<u16> {
    let free: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    free.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// The configuration of the member at `place`, whose first two `own` ports are for applications and for health.
fn config(names: &[&str], peers: &[u16], place: usize, own: &[u16]) -> Config {
    let member = |(name, port)| format!("    {name}: {{type: persistent, address: \"localhost:{port}\"}}\n");
    let members: String = names.iter().zip(peers).map(member).collect();
    let text = format!(
        "cluster:\n  local-member: {{name: {}}}\n  members:\n{members}profiles: [consensus]\napi: {{port: {}}}\n\
         health: {{port: {}}}\n",
        names[place], own[0], own[1],
    );
    Config::from_yaml(&text, &Overrides::default()).unwrap()
}
