//! What is looked at in the replicas of a machine while it runs.

use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

use coterie_replication::Partition;

use crate::cluster::Life;
use crate::history::{Digest, Shut};
use crate::members;

/// Between two looks at a machine's state.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// Every so many looks are at what replicas hold, which is all of their state and the end of their logs.
const DEEP: u64 = 5;
/// Entries of a log that are looked at.
const ENTRIES: u64 = 64;

/// Tells the history who leads on this machine, what is in its logs and states, and, once clients have ended, all that its
/// replicas hold; hands over what it leads when that is wanted.
pub(crate) async fn look(life: Life) {
    for number in 1.. {
        tokio::time::sleep(LOOK).await;
        let is_over = life.history.clients.seen().is_over;
        let hands_over = life.history.seen().hand_over.remove(life.host);
        shut_one(&life).await;
        for (id, partition) in life.node.partitions().all() {
            let now = partition.leadership().borrow().clone();
            // It has committed in its term; two may be elected in one, and the first of them never does.
            if now.leading {
                life.history.leads(life.host, &id.to_string(), now.term);
                members::see_to(&life, &id.to_string(), &partition);
            }
            if hands_over && now.leading {
                let partition = partition.clone();
                tokio::spawn(async move { partition.transfer_away().await });
            }
            if is_over {
                let digest = partition.with_machine(|machine| Digest {
                    revision: machine.revision().0,
                    state: machine.image().pieces().flatten().collect(),
                });
                life.history.seen().digests.insert((life.host, id.to_string()), digest);
            }
            if number % DEEP == 0
                && let Err(violation) = look_into(&life, &id.to_string(), &partition)
            {
                life.history.clients.violated(life.host, violation);
            }
        }
    }
}

fn look_into(life: &Life, id: &str, partition: &Partition) -> Result<(), String> {
    let (revision, state) = partition.with_machine(|machine| {
        let mut hasher = DefaultHasher::new();
        machine.image().pieces().for_each(|piece| hasher.write(&piece));
        (machine.revision().0, hasher.finish())
    });
    life.history.seen().states.see(life.host, id, revision, state)?;
    // A log that cannot be read has failed, and its process ends.
    let entries = partition.last_entries(ENTRIES).unwrap_or_default();
    let digest = |bytes: &[u8]| {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        hasher.finish()
    };
    let entries: Vec<_> = entries.iter().map(|it| ((it.index, it.leader), digest(&it.record))).collect();
    life.history.seen().logs.see(life.host, id, &entries)
}

/// Shuts a replica that leads, if one is to be shut; its process does not know.
async fn shut_one(life: &Life) {
    if life.history.seen().shut != Shut::Wanted {
        return;
    }
    let mut replicas = life.node.partitions().all().into_iter();
    if let Some((id, partition)) = replicas.find(|(_, partition)| partition.leadership().borrow().leading) {
        life.history.note(life.host, &format!("SHUTS {id}"));
        life.history.seen().shut = Shut::Done(life.host);
        partition.shutdown().await;
    }
}
