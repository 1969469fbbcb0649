//! Clients of a map, each key of which is a register: they put, change under a condition, delete and read, and all that
//! they see goes into the history.

use std::time::Duration;

use coterie_proto::v1::maps_client::MapsClient;
use coterie_proto::v1::{self, Consistency};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::application;
use crate::checkers::linearizability::{Answer, Call, Only};
use crate::cluster::Life;
use crate::history::History;
use crate::world::{self, Chance, Skew};

/// The map.
pub const MAP: &str = "registers";
/// Clients on each host.
const CLIENTS: usize = 2;
/// Keys in use at one time.
const KEYS: u64 = 3;
/// After this time other keys are used: what is not known of an operation is a burden to its key alone.
const KEYS_CHANGE_MS: u64 = 4_000;
/// How long a client waits for an answer.
const TIMEOUT: Duration = Duration::from_millis(1_500);
/// How often a request is sent, always under the same id.
const TRIES: u32 = 3;

/// Starts the clients of one life, and the one that reads all keys in the end.
pub fn start(life: &Life) {
    for number in 1..=CLIENTS {
        tokio::spawn(Client::of(life, &number.to_string()).run());
    }
    tokio::spawn(Client::of(life, "end").read_unread());
}

fn maps() -> MapsClient<Channel> {
    MapsClient::new(application::channel())
}

struct Client {
    name: String,
    chance: Chance,
    history: History,
    skew: Skew,
    maps: MapsClient<Channel>,
}

/// What a try came to.
enum Tried {
    Answered(Answer),
    /// The sidecar said that nothing was applied.
    NotApplied(String),
    /// It may have been applied, or may be yet.
    Unknown(String),
}

impl Client {
    fn of(life: &Life, name: &str) -> Self {
        let name = format!("{}.{name}", life.host);
        let chance = Chance::of(life.seed, &format!("{name}-{}", life.number));
        Self { name, chance, history: life.history.clone(), skew: life.skew.clone(), maps: maps() }
    }

    /// Reads each of the keys that are to be read once more, until it is answered.
    async fn read_unread(mut self) {
        loop {
            tokio::time::sleep(self.chance.ms(5, 20)).await;
            let Some(key) = self.history.seen().unread.pop_first() else { continue };
            if self.operate(&key, Call::Read).await.is_none() {
                self.history.seen().unread.insert(key);
            } else {
                self.history.seen().read_again += 1;
            }
        }
    }

    async fn run(mut self) {
        // What was last seen of the keys: the revision that a condition may name.
        let mut last_seen = 0;
        loop {
            tokio::time::sleep(self.chance.ms(1, 60)).await;
            if self.history.seen().is_over {
                return;
            }
            let key = format!("{}-{}", world::now_ms() / KEYS_CHANGE_MS, self.chance.below(KEYS));
            let only = match self.chance.below(4) {
                0 => Only::IfAbsent,
                1 if last_seen > 0 => Only::IfRevision(last_seen),
                _ => Only::Always,
            };
            let call = match self.chance.below(10) {
                0..4 => Call::Read,
                4..9 => Call::Write(self.history.next(), only),
                _ => Call::Delete(if only == Only::IfAbsent { Only::Always } else { only }),
            };
            match self.operate(&key, call).await {
                Some(Answer::Holds(Some((_, revision))) | Answer::Changed { revision, .. }) => last_seen = revision,
                Some(Answer::Holds(None) | Answer::Refused) | None => {}
            }
        }
    }

    /// One operation, with all its tries; what is known of it.
    async fn operate(&mut self, key: &str, call: Call) -> Option<Answer> {
        let number = self.history.called(&self.name, key, call);
        let ids = self.ids();
        let mut may_be_applied = false;
        for _ in 0..TRIES {
            let why = match self.one_try(key, call, &ids).await {
                Tried::Answered(answer) => {
                    self.history.answered(number, answer);
                    return Some(answer);
                }
                Tried::NotApplied(why) => why,
                Tried::Unknown(why) => {
                    may_be_applied = true;
                    why
                }
            };
            self.history.note(&self.name, &format!("{key} {call:?}: {why}"));
            tokio::time::sleep(self.chance.ms(20, 300)).await;
        }
        if !may_be_applied {
            self.history.not_applied(number);
        }
        None
    }

    async fn one_try(&mut self, key: &str, call: Call, ids: &[(&'static str, String); 2]) -> Tried {
        let (map, key, partition_group) = (MAP.to_owned(), key.to_owned(), String::new());
        let condition = |only| match only {
            Only::Always => (0, false),
            Only::IfAbsent => (0, true),
            Only::IfRevision(revision) => (revision, false),
        };
        let mut maps = self.maps.clone();
        let ask = async {
            match call {
                Call::Read => {
                    let consistency = Consistency::Linearizable.into();
                    let asked = v1::GetEntryRequest { map, partition_group, key, consistency };
                    let entry = maps.get(request(asked, &[])).await?.into_inner().entry;
                    let held = entry.map(|entry| (number(&entry.value), entry.revision));
                    Ok(Answer::Holds(held))
                }
                Call::Write(value, only) => {
                    let (if_revision, if_absent) = condition(only);
                    let value = value.to_be_bytes().to_vec().into();
                    let asked = v1::PutRequest { map, partition_group, key, value, if_revision, if_absent };
                    let v1::PutResponse { revision, previous_revision } =
                        maps.put(request(asked, ids)).await?.into_inner();
                    Ok(Answer::Changed { revision, previous: previous_revision })
                }
                Call::Delete(only) => {
                    let (if_revision, _) = condition(only);
                    let asked = v1::DeleteEntryRequest { map, partition_group, key, if_revision };
                    let deleted = maps.delete(request(asked, ids)).await?.into_inner();
                    Ok(Answer::Changed { revision: deleted.revision, previous: deleted.previous_revision })
                }
            }
        };
        match tokio::time::timeout(TIMEOUT + TIMEOUT / 2, ask).await {
            Ok(Ok(answer)) => Tried::Answered(answer),
            Ok(Err(status)) => tried(&status),
            Err(_) => Tried::Unknown("no answer".to_owned()),
        }
    }

    /// Who asks, and for what: two UUIDs.
    fn ids(&self) -> [(&'static str, String); 2] {
        let request = self.chance.uuid_v7(world::wall_ms(&self.skew));
        let client = u128::from(self.chance.number() | 1) << 64;
        [("coterie-client-id", client), ("coterie-request-id", request)].map(|(name, id)| (name, format!("{id:032x}")))
    }
}

fn request<T>(asked: T, ids: &[(&'static str, String)]) -> Request<T> {
    let mut request = Request::new(asked);
    let timeout = TIMEOUT.as_millis().to_string();
    request.metadata_mut().insert("coterie-timeout-ms", timeout.parse().expect("digits"));
    for (name, value) in ids {
        request.metadata_mut().insert(*name, value.parse().expect("a UUID"));
    }
    request
}

fn tried(status: &Status) -> Tried {
    let code = status.metadata().get("coterie-code").and_then(|code| code.to_str().ok());
    let why = format!("{} {}", code.unwrap_or("-"), status.message());
    match code {
        Some("revision_mismatch" | "entry_unknown") => Tried::Answered(Answer::Refused),
        // Without a code it is of the connection, not of the sidecar.
        Some("unknown" | "expired") | None => Tried::Unknown(why),
        Some(_) => Tried::NotApplied(why),
    }
}

fn number(value: &[u8]) -> u64 {
    value.try_into().map(u64::from_be_bytes).expect("values are eight bytes")
}
