//! The file that every sidecar of a Cluster is started with. It is the same for all of them: which member one is comes
//! from its pod's name. It goes through the one typed builder that files and local clusters go through.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use coterie_core::config::CONSENSUS_GROUP;
use coterie_core::config::builder::{Builder, Group, Member, Profile, Security, Timing};

use super::Validated;
use crate::names;

/// What the sidecars of this Cluster are told. Only the voters are declared: a pod that is not among them is an ephemeral
/// member, a client, and the list does not change when clients come and go.
pub fn builder(cluster: &Validated) -> Builder {
    // For IPv4 as well: the sidecar listens on both, and on IPv4 alone where there is no IPv6.
    let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let voters = cluster.voter_pods();
    let mut builder = Builder::new()
        .cluster(&cluster.name)
        .data_directory(names::DATA_DIRECTORY)
        .api_port(names::API_PORT)
        .api_socket(names::SOCKET)
        .health_address(any)
        .health_port(names::HEALTH_PORT)
        .peer_bind(SocketAddr::new(any, names::PEER_PORT))
        .security(Security::Certificates {
            ca: format!("{}/ca.crt", names::CERTIFICATES_DIRECTORY),
            certificate: format!("{}/tls.crt", names::CERTIFICATES_DIRECTORY),
            key: format!("{}/tls.key", names::CERTIFICATES_DIRECTORY),
        });
    // What holds anyway is not said: a file that changes replaces pods.
    if cluster.timing != Timing::default() {
        builder = builder.timing(cluster.timing);
    }
    for pod in &voters {
        builder = builder.member(Member::persistent(pod, names::address(&cluster.name, &cluster.namespace, pod)));
    }
    if cluster.consensus {
        builder.profile(Profile::Consensus).default_partition_group(CONSENSUS_GROUP)
    } else {
        builder.management_group(Group::raft(voters))
    }
}

/// The file.
pub fn file(cluster: &Validated) -> String {
    let header =
        "# Written by coterie-operator. The member list is read when the cluster is formed, and never again.\n";
    format!("{header}{}", builder(cluster).to_yaml())
}

/// A short hash of a file: pods that were started with another one are replaced. FNV-1a (Fowler, Noll, Vo), 64 bits.
pub fn hash(file: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", file.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}
