//! Coterie: three processes as `coterie up` starts them, driven through the stream of operations.

mod connection;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use coterie_cli::local::{Home, LocalCluster, PARTITION_GROUP, Plan, standard_groups};
use coterie_core::config::builder::Security;
use coterie_proto::v1::StatusRequest;
use coterie_proto::v1::cluster_info_client::ClusterInfoClient;
use tonic::transport::Channel;

use super::{Cluster, Connection, LANES, PATIENCE, Setup};
use crate::load::{MEMBERS, TIMEOUT};
use crate::machine;

const INTERVAL: Duration = Duration::from_millis(20);

/// Three members: a management group and three Raft partitions.
pub struct Members {
    cluster: LocalCluster,
    names: Vec<String>,
}

impl Members {
    /// Starts them with fresh directories; every partition takes writes when this returns.
    pub async fn start(setup: &Setup) -> Result<Self> {
        let mut plan = Plan::new(MEMBERS);
        let (names, peer_tls, timing) = (plan.members.clone(), setup.peer_tls, setup.timing);
        plan.home = Home::At(setup.directory.clone());
        plan.sidecar = Some(setup.program.clone());
        let members = names.clone();
        let plan = plan.configure(move |_, builder| {
            let builder = standard_groups(&members, builder).timing(timing);
            if peer_tls { builder } else { builder.security(Security::PlaintextOnLoopback) }
        });
        let cluster = LocalCluster::prepare(&plan).context("prepare three members")?;
        for place in 0..MEMBERS {
            cluster.spawn(place).context("start a member")?;
        }
        let members = Self { cluster, names };
        members.wait_ready().await?;
        Ok(members)
    }

    async fn wait_ready(&self) -> Result<()> {
        self.cluster.wait_ready(PATIENCE).await.context("wait for the members")?;
        let connection = self.connect(0).await?;
        let begun = Instant::now();
        for lane in 0..LANES {
            while let Err(why) = connection.write_lane(lane, TIMEOUT).await {
                if begun.elapsed() > PATIENCE {
                    bail!("lane {lane} cannot be written: {why}");
                }
                // waits for a condition
                tokio::time::sleep(INTERVAL).await;
            }
        }
        Ok(())
    }
}

/// A connection to a member's application API.
pub async fn connect(endpoint: String) -> Result<Arc<dyn Connection>> {
    Ok(Arc::new(connection::Stream::open(channel(endpoint).await?).await?))
}

async fn channel(endpoint: String) -> Result<Channel> {
    let endpoint = Channel::from_shared(endpoint).context("read an endpoint")?;
    Ok(endpoint.tcp_nodelay(true).connect_timeout(TIMEOUT).connect().await?)
}

#[async_trait]
impl Cluster for Members {
    fn processes(&self) -> Result<Vec<u32>> {
        self.cluster.seats().iter().map(|seat| machine::process_with(&seat.config_file())).collect()
    }

    async fn leader(&self) -> Result<usize> {
        let mut client = ClusterInfoClient::new(channel(self.cluster.endpoint(0)).await?);
        let status = client.status(StatusRequest {}).await?.into_inner();
        let group = status.partition_groups.into_iter().find(|group| group.name == PARTITION_GROUP);
        let partitions = group.context("there is no partition group")?.partitions;
        let led = |name: &String| partitions.iter().filter(|partition| partition.leader == *name).count();
        let most = (0..MEMBERS).max_by_key(|place| led(&self.names[*place]));
        most.context("there is no member")
    }

    async fn kill(&self, place: usize) -> Result<()> {
        self.cluster.kill(place).context("kill a member")
    }

    async fn stop(&self, place: usize) -> Result<()> {
        self.cluster.stop(place).await.context("stop a member").map(|_| ())
    }

    async fn restart(&self, place: usize) -> Result<()> {
        self.cluster.spawn(place).context("start a member")?;
        self.wait_ready().await
    }

    async fn connect(&self, place: usize) -> Result<Arc<dyn Connection>> {
        connect(self.cluster.endpoint(place)).await
    }
}
