//! Clients of a map, each key of which is a register: they put, change under a condition, delete and read, and all that
//! they see goes into the history.

use std::collections::BTreeMap;
use std::time::Duration;

use coterie_proto::v1::maps_client::MapsClient;
use coterie_proto::v1::{self, Consistency};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::call::{self, pause};
use crate::chance::Chance;
use crate::checkers::exactly_once::Repeated;
use crate::checkers::linearizability::{Answer, Call, Only};
use crate::side::Side;

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
/// The same of one that reads by the lease of a leader, which asks nobody.
const READER_TIMEOUT: Duration = Duration::from_millis(60);
/// How often a request is sent at once at most, always under the same id.
const TRIES: u64 = 3;
/// What gRPC says where nobody listens.
const NOT_CONNECTED: &str = "tcp connect error";
/// What a sidecar says of a request whose id was made by a clock that is ahead.
const AHEAD: &str = "ahead of the partition's time";

/// Starts the clients beside a sidecar, and the one that reads all keys in the end.
pub fn start(side: &Side) {
    for number in 1..=CLIENTS {
        tokio::spawn(Client::of(side, &number.to_string()).run());
    }
    tokio::spawn(Client { timeout: READER_TIMEOUT, ..Client::of(side, "reader") }.read_often());
    tokio::spawn(Client::of(side, "end").read_unread());
}

struct Client {
    name: String,
    chance: Chance,
    side: Side,
    maps: MapsClient<Channel>,
    /// How long it waits for an answer.
    timeout: Duration,
    /// Under which its changes are remembered (D11), for all its life.
    id: u128,
    /// The last request id that it minted: they rise, whatever its clock does.
    minted: u128,
    /// The revision of what it saw last of each key, which a condition may name.
    seen: BTreeMap<String, u64>,
    /// A change whose outcome it does not know yet.
    open: Option<Asked>,
    /// A change that was answered, and how.
    done: Option<(Asked, Answer)>,
}

/// An operation as it was asked for. Whoever sends it again asks for the same one.
#[derive(Clone)]
struct Asked {
    key: String,
    call: Call,
    client: u128,
    request: u128,
    /// In the history.
    number: usize,
}

/// What is known of an operation after some tries.
enum Known {
    Answer(Answer),
    NotApplied,
    Nothing,
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
    fn of(side: &Side, name: &str) -> Self {
        let (name, chance) = side.client(name);
        Self {
            name,
            id: client_id(&chance),
            chance,
            side: side.clone(),
            maps: MapsClient::new(side.channel()),
            timeout: TIMEOUT,
            minted: 0,
            seen: BTreeMap::new(),
            open: None,
            done: None,
        }
    }

    /// Reads each of the keys that are to be read once more, until it is answered.
    async fn read_unread(mut self) {
        loop {
            pause(self.chance.ms(5, 20)).await;
            let Some(key) = self.side.history.seen().unread.pop_first() else { continue };
            if self.operate(&key, Call::Read).await.is_none() {
                self.side.history.seen().unread.insert(key);
            } else {
                self.side.history.seen().read_again += 1;
            }
        }
    }

    /// Reads by the lease of a leader, and waits for nothing else: a leader that is deposed and does not know has its lease
    /// for a part of a second.
    async fn read_often(mut self) {
        loop {
            pause(self.chance.ms(10, 40)).await;
            if self.side.history.seen().is_over {
                return;
            }
            let (key, call) = (self.key(), Call::Read);
            let number = self.side.history.called(&self.name, &key, call);
            let asked = Asked { key, call, client: self.id, request: self.mint(), number };
            match self.one_try(&asked, Consistency::Leased).await {
                Tried::Answered(answer) => self.side.history.answered(number, answer),
                // A read that is not answered says nothing.
                Tried::NotApplied(_) | Tried::Unknown(_) => self.side.history.not_applied(number),
            }
        }
    }

    /// One of those in use.
    fn key(&self) -> String {
        format!("{}-{}", self.side.clock.monotonic_ms() / KEYS_CHANGE_MS, self.chance.below(KEYS))
    }

    async fn run(mut self) {
        loop {
            pause(self.chance.ms(1, 60)).await;
            if self.side.history.seen().is_over {
                return;
            }
            match self.chance.below(8) {
                0 if self.open.is_some() => self.settle().await,
                1 if self.done.is_some() => self.repeat().await,
                _ => self.ask().await,
            }
        }
    }

    /// Something new.
    async fn ask(&mut self) {
        let key = self.key();
        let only = match (self.chance.below(4), self.seen.get(&key)) {
            (0, _) => Only::IfAbsent,
            (1 | 2, Some(revision)) => Only::IfRevision(*revision),
            _ => Only::Always,
        };
        let call = match self.chance.below(10) {
            0..4 => Call::Read,
            4..9 => Call::Write(self.side.history.next(), only),
            _ => Call::Delete(if only == Only::IfAbsent { Only::Always } else { only }),
        };
        match self.operate(&key, call).await {
            Some(Answer::Holds(Some((_, revision)))) => drop(self.seen.insert(key, revision)),
            // What a deletion leaves has no revision: the next condition on this one must be refused.
            Some(Answer::Changed { revision, .. }) => drop(self.seen.insert(key, revision)),
            Some(Answer::Holds(None)) => drop(self.seen.remove(&key)),
            Some(Answer::Refused) | None => {}
        }
    }

    /// Asks once more for what it does not know the outcome of, after others that it asked for since.
    async fn settle(&mut self) {
        let Some(asked) = self.open.take() else { return };
        self.side.history.note(&self.name, &format!("{} {:?} AGAIN", asked.key, asked.call));
        match self.tries(&asked).await {
            Known::Answer(answer) => self.side.history.answered(asked.number, answer),
            // Of this try; an earlier one may have been.
            Known::NotApplied | Known::Nothing => self.open = Some(asked),
        }
    }

    /// Asks once more for what was answered: it must be answered the same, if at all (D11).
    async fn repeat(&mut self) {
        let Some((asked, answer)) = self.done.take() else { return };
        let Asked { key, call, .. } = &asked;
        if let Known::Answer(again) = self.tries(&asked).await {
            self.side.history.note(&self.name, &format!("{key} {call:?} REPEATED {again:?}"));
            let (client, key) = (self.name.clone(), key.clone());
            self.side.history.seen().repeated.push(Repeated { client, key, call: *call, first: answer, again });
        }
    }

    /// One operation; its answer, if there is one.
    async fn operate(&mut self, key: &str, call: Call) -> Option<Answer> {
        let number = self.side.history.called(&self.name, key, call);
        let asked = Asked { key: key.to_owned(), call, client: self.id, request: self.mint(), number };
        let is_change = call != Call::Read;
        match self.tries(&asked).await {
            Known::Answer(answer) => {
                self.side.history.answered(number, answer);
                if is_change {
                    self.done = Some((asked, answer));
                }
                Some(answer)
            }
            Known::NotApplied => {
                self.side.history.not_applied(number);
                None
            }
            Known::Nothing => {
                if is_change {
                    self.open = Some(asked);
                }
                None
            }
        }
    }

    /// Some tries, until one is answered.
    async fn tries(&mut self, asked: &Asked) -> Known {
        let mut known = Known::NotApplied;
        for _ in 0..=self.chance.below(TRIES) {
            // No clock of a simulated machine runs at another rate, so both promise the same.
            let consistency = self.chance.one_of(&[Consistency::Linearizable, Consistency::Leased]);
            let why = match self.one_try(asked, consistency).await {
                Tried::Answered(answer) => return Known::Answer(answer),
                Tried::NotApplied(why) => why,
                Tried::Unknown(why) => {
                    known = Known::Nothing;
                    why
                }
            };
            self.side.history.note(&self.name, &format!("{} {:?}: {why}", asked.key, asked.call));
            if why.contains(AHEAD) && issued_ms(self.minted) > self.side.clock.wall_ms() {
                // Its ids are ahead for as long as its clock was. Who has put the clock right starts it anew.
                self.id = client_id(&self.chance);
                self.minted = 0;
            }
            pause(self.chance.ms(20, 300)).await;
        }
        known
    }

    async fn one_try(&mut self, asked: &Asked, consistency: Consistency) -> Tried {
        let Asked { key, call, client, request: id, .. } = asked;
        let (map, key, partition_group) = (MAP.to_owned(), key.clone(), String::new());
        let ids = &[("coterie-client-id", *client), ("coterie-request-id", *id)];
        let condition = |only| match only {
            Only::Always => (0, false),
            Only::IfAbsent => (0, true),
            Only::IfRevision(revision) => (revision, false),
        };
        let mut maps = self.maps.clone();
        let timeout = self.timeout;
        let ask = async {
            match *call {
                Call::Read => {
                    let consistency = consistency.into();
                    let asked = v1::GetEntryRequest { map, partition_group, key, consistency };
                    let entry = maps.get(call::request(asked, timeout)).await?.into_inner().entry;
                    let held = entry.map(|entry| (number(&entry.value), entry.revision));
                    Ok(Answer::Holds(held))
                }
                Call::Write(value, only) => {
                    let (if_revision, if_absent) = condition(only);
                    let value = value.to_be_bytes().to_vec().into();
                    let asked = v1::PutRequest { map, partition_group, key, value, if_revision, if_absent };
                    let v1::PutResponse { revision, previous_revision } =
                        maps.put(with_ids(call::request(asked, timeout), ids)).await?.into_inner();
                    Ok(Answer::Changed { revision, previous: previous_revision })
                }
                Call::Delete(only) => {
                    let (if_revision, _) = condition(only);
                    let asked = v1::DeleteEntryRequest { map, partition_group, key, if_revision };
                    let deleted = maps.delete(with_ids(call::request(asked, timeout), ids)).await?.into_inner();
                    Ok(Answer::Changed { revision: deleted.revision, previous: deleted.previous_revision })
                }
            }
        };
        match tokio::time::timeout(timeout + timeout / 2, ask).await {
            Ok(Ok(answer)) => Tried::Answered(answer),
            Ok(Err(status)) => tried(&status),
            Err(_) => Tried::Unknown("no answer".to_owned()),
        }
    }

    /// A request id: a UUID that is larger than all before.
    fn mint(&mut self) -> u128 {
        self.minted = self.chance.uuid_v7(self.side.clock.wall_ms()).max(self.minted + 1);
        self.minted
    }
}

/// A client id: any but the nil UUID.
fn client_id(chance: &Chance) -> u128 {
    u128::from(chance.number() | 1) << 64
}

/// When a request id was minted, by the clock of who did.
fn issued_ms(request: u128) -> u64 {
    (request >> 80) as u64
}

fn with_ids<T>(mut request: Request<T>, ids: &[(&'static str, u128)]) -> Request<T> {
    for (name, id) in ids {
        request.metadata_mut().insert(*name, format!("{id:032x}").parse().expect("a UUID"));
    }
    request
}

fn tried(status: &Status) -> Tried {
    let code = status.metadata().get("coterie-code").and_then(|code| code.to_str().ok());
    let why = format!("{} {}", code.unwrap_or("-"), status.message());
    match code {
        Some("revision_mismatch" | "entry_unknown") => Tried::Answered(Answer::Refused),
        // Without a code it is of the connection, not of the sidecar. Where there is none, nothing was sent.
        None if status.message() == NOT_CONNECTED => Tried::NotApplied(why),
        Some("unknown" | "expired") | None => Tried::Unknown(why),
        Some(_) => Tried::NotApplied(why),
    }
}

fn number(value: &[u8]) -> u64 {
    value.try_into().map(u64::from_be_bytes).expect("values are eight bytes")
}
