//! What applications do in the simulation: each joins the group `workers` through its own sidecar, over gRPC, and makes
//! groups of its own as fast as they are acknowledged.

use std::time::Duration;

use anyhow::{Context as _, Result};
use coterie_proto::v1::groups_client::GroupsClient;
use coterie_proto::v1::{self, group_event, join_stream_response};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::cluster::Life;
use crate::history::{History, Listed};

/// The application API of every simulated sidecar.
pub const API_PORT: u16 = 7300;
/// The group that all join.
pub const WORKERS: &str = "workers";
/// Between two creations by one application.
const PACE: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_millis(100);

/// A connection to the sidecar of the same host.
pub fn channel() -> Channel {
    let connect = tower::service_fn(|_: Uri| async {
        turmoil::net::TcpStream::connect(("127.0.0.1", API_PORT)).await.map(TokioIo::new)
    });
    Endpoint::from_static("http://sidecar").connect_with_connector_lazy(connect)
}

fn sidecar() -> GroupsClient<Channel> {
    GroupsClient::new(channel())
}

/// Starts those of one life.
pub fn start(life: Life) {
    let Life { host, number, history, .. } = life;
    tokio::spawn(join(host.to_owned(), history.clone()));
    tokio::spawn(list(history.clone()));
    tokio::spawn(write(host.to_owned(), number, history));
}

/// Joins, again and again, until the host ends.
async fn join(host: String, history: History) {
    loop {
        if let Err(error) = membership(&host, &history).await {
            history.note(&host, &format!("no membership: {error:#}"));
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn membership(host: &str, history: &History) -> Result<()> {
    let request = v1::JoinRequest { group: WORKERS.into(), ..Default::default() };
    let mut stream = sidecar().join_stream(request).await.context("join")?.into_inner();
    while let Some(message) = stream.message().await.context("follow the membership")? {
        match message.kind {
            Some(join_stream_response::Kind::Joined(joined)) => {
                let member = joined.member.context("a member")?.id;
                let group = joined.group.context("a group")?;
                history.note(host, &format!("joined member={member}"));
                history.seen().hosts.insert(member, host.to_owned());
                if group.leader != 0 {
                    history.elected(host, group.term, group.leader);
                }
            }
            Some(join_stream_response::Kind::Event(event)) => {
                if let Some(group_event::Kind::Elected(elected)) = event.kind {
                    history.elected(host, elected.term, elected.leader);
                }
            }
            Some(join_stream_response::Kind::Session(state)) => history.note(host, &format!("session {state}")),
            Some(join_stream_response::Kind::Self_(_)) | None => {}
        }
    }
    anyhow::bail!("the stream ended")
}

/// Makes groups, again and again, until the host ends; notes what was acknowledged.
async fn write(host: String, life: u32, history: History) {
    let mut client = sidecar();
    for number in 0_u64.. {
        let group = format!("{host}-{life}-{number}");
        let request = v1::CreateGroupRequest { group: group.clone(), ..Default::default() };
        match client.create(request).await {
            Ok(_) => {
                history.note(&host, &format!("acknowledged {group}"));
                history.seen().acknowledged.insert(group);
            }
            Err(status) => {
                history.note(&host, &format!("not acknowledged {group}: {:?}", status.code()));
                tokio::time::sleep(RETRY).await;
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Lists all groups whenever that is wanted.
async fn list(history: History) {
    loop {
        tokio::time::sleep(RETRY).await;
        if !matches!(history.seen().listed, Listed::Wanted) {
            continue;
        }
        if let Ok(listed) = sidecar().list(v1::ListGroupsRequest::default()).await {
            let names = listed.into_inner().groups.into_iter().map(|group| group.name).collect();
            history.seen().listed = Listed::Found(names);
        }
    }
}
