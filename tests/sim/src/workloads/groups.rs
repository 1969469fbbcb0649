//! Members of groups: they join by a stream or a lease, lead, release, have others released, and go with a word or without.

use std::time::Duration;

use coterie_proto::v1;
use coterie_proto::v1::group_event::Kind as Event;
use coterie_proto::v1::groups_client::GroupsClient;
use coterie_proto::v1::join_stream_response::Kind;
use tonic::transport::Channel;

use super::call::{answer, request};
use crate::application;
use crate::checkers::leadership::{Claim, Happened};
use crate::cluster::Life;
use crate::history::History;
use crate::world::{self, Chance};

/// The groups.
pub const GROUPS: [&str; 2] = ["crew", "watch"];
const CLIENTS: usize = 2;
const TIMEOUT: Duration = Duration::from_millis(1_500);
const POLL: Duration = Duration::from_millis(100);

/// Starts the members of one life.
pub fn start(life: &Life) {
    for number in 1..=CLIENTS {
        let name = format!("{}.member-{number}", life.host);
        let chance = Chance::of(life.seed, &format!("{name}-{}", life.number));
        let groups = GroupsClient::new(application::channel());
        tokio::spawn(Client { name, chance, history: life.history.clone(), groups }.run());
    }
}

/// An event of a group, as the history has it. `None` of what is of no matter there.
pub fn describe(event: &Event) -> Option<String> {
    Some(match event {
        Event::Joined(member) => format!("joined {}", member.id),
        Event::Left(left) => format!("left {} {}", left.member, left.reason),
        Event::Elected(elected) => format!("elected {} {}", elected.leader, elected.term),
        Event::Vacated(vacated) => format!("vacated {} {}", vacated.leader, vacated.term),
        Event::Term(term) => format!("term {term}"),
        Event::Releasing(releasing) => format!("releasing {} {}", releasing.leader, releasing.term),
        Event::Config(config) => format!("config {}", config.config_revision),
        Event::Updated(member) => format!("updated {}", member.id),
        Event::Deleted(_) => "deleted".to_owned(),
        Event::Snapshot(_) | Event::Resync(_) | Event::Connection(_) => return None,
    })
}

/// Reads what [`describe`] wrote of what concerns leadership.
pub fn read(what: &str) -> Option<Happened> {
    let mut words = what.split(' ');
    let kind = words.next()?;
    let mut number = || words.next()?.parse::<u64>().ok();
    match kind {
        "joined" => Some(Happened::Joined(number()?)),
        "left" => Some(Happened::Left(number()?)),
        "elected" => Some(Happened::Elected { leader: number()?, term: number()? }),
        "vacated" => Some(Happened::Vacated(number()?)),
        "deleted" => Some(Happened::Deleted),
        _ => None,
    }
}

struct Client {
    name: String,
    chance: Chance,
    history: History,
    groups: GroupsClient<Channel>,
}

impl Client {
    async fn run(mut self) {
        while !self.history.seen().is_over {
            tokio::time::sleep(self.chance.ms(5, 300)).await;
            let group = self.chance.one_of(&GROUPS);
            let stay = self.chance.ms(200, 6_000);
            match self.chance.below(3) {
                0 => self.by_lease(group, stay).await,
                _ => self.by_stream(group, stay).await,
            }
        }
    }

    /// Joins by a stream, and does what it is told, or not.
    async fn by_stream(&mut self, group: &str, stay: Duration) {
        let asked = v1::JoinRequest { group: group.to_owned(), ..Default::default() };
        let call = self.groups.join_stream(request(asked, TIMEOUT));
        let Some(mut stream) = answer(&self.history, &self.name, &format!("join {group}"), TIMEOUT, call).await else {
            return;
        };
        let end = tokio::time::Instant::now() + stay;
        let (mut member, mut given_up, is_obedient) = (0, 0, self.chance.below(3) > 0);
        while let Ok(Ok(Some(message))) = tokio::time::timeout_at(end, stream.message()).await {
            match message.kind {
                Some(Kind::Joined(joined)) => {
                    member = joined.member.unwrap_or_default().id;
                    self.history.note(&self.name, &format!("joined {group} member={member}"));
                }
                Some(Kind::Self_(state)) => {
                    if !state.leads || state.term > given_up {
                        self.told(group, &state, world::now_ms());
                    }
                    // Meanwhile the stream is read: what waits in it would be believed for too long.
                    if state.releasing && is_obedient && state.term > given_up {
                        given_up = state.term;
                        self.release(group, member, state.term);
                    } else if state.leads && self.chance.below(8) == 0 {
                        self.step_down(group, state.term);
                    }
                }
                Some(Kind::Event(_) | Kind::Session(_)) | None => {}
            }
        }
        // Nobody who has closed its connection acts on what it was told.
        self.acts_no_more(group, member);
        self.history.note(&self.name, &format!("leaves {group} member={member}"));
        if self.chance.below(2) == 0 {
            self.leave(group, member).await;
        }
    }

    /// Joins by a lease, asks what it is, and renews for as long as it stays.
    async fn by_lease(&mut self, group: &str, stay: Duration) {
        let ttl_ms = 1_000 + self.chance.below(4_000);
        let asked = v1::JoinRequest { group: group.to_owned(), ttl_ms, ..Default::default() };
        let call = self.groups.join(request(asked, TIMEOUT));
        let Some(joined) = answer(&self.history, &self.name, &format!("join {group}"), TIMEOUT, call).await else {
            return;
        };
        let member = joined.member.unwrap_or_default().id;
        self.history.note(&self.name, &format!("joined {group} member={member} for {ttl_ms} ms"));
        let end = tokio::time::Instant::now() + stay;
        while tokio::time::Instant::now() < end {
            tokio::time::sleep(POLL).await;
            let asked_ms = world::now_ms();
            let asked = v1::SelfRequest { group: group.to_owned(), ..Default::default() };
            let call = self.groups.self_(request(asked, TIMEOUT));
            let Some(now) = answer(&self.history, &self.name, "self", TIMEOUT, call).await else { continue };
            if let Some(state) = now.members.iter().find(|state| state.member == member) {
                self.told(group, state, asked_ms);
            }
            if self.chance.below(3) == 0 {
                let asked = v1::RenewRequest { group: group.to_owned(), member, ..Default::default() };
                let call = self.groups.renew(request(asked, TIMEOUT));
                if answer(&self.history, &self.name, &format!("renew {member}"), TIMEOUT, call).await.is_none() {
                    return;
                }
            }
        }
        // Else it goes without a word, and what it was told stays true until its time has passed.
        if self.chance.below(2) == 0 {
            self.acts_no_more(group, member);
            self.leave(group, member).await;
        }
    }

    /// Takes note of what a member was told of itself, then or later.
    fn told(&self, group: &str, state: &v1::SelfState, from_ms: u64) {
        let v1::SelfState { member, leads, term, valid_ms, .. } = *state;
        if !leads {
            return self.acts_no_more(group, member);
        }
        let claim = Claim { group: group.to_owned(), member, term, from_ms, until_ms: from_ms + valid_ms };
        self.history.note(&self.name, &format!("leads {group} member={member} term={term} for {valid_ms} ms"));
        self.history.seen().claims.push(claim);
    }

    /// A member that knows that it leads no more, or gives the lead away.
    fn acts_no_more(&self, group: &str, member: u64) {
        let now_ms = world::now_ms();
        for claim in &mut self.history.seen().claims {
            if claim.group == group && claim.member == member {
                claim.until_ms = claim.until_ms.min(now_ms);
            }
        }
    }

    fn release(&self, group: &str, member: u64, term: u64) {
        self.acts_no_more(group, member);
        let asked = v1::ReleaseRequest { group: group.to_owned(), term, ..Default::default() };
        let (mut groups, history, name) = (self.groups.clone(), self.history.clone(), self.name.clone());
        tokio::spawn(async move {
            let what = format!("release {} term={term}", asked.group);
            answer(&history, &name, &what, TIMEOUT, groups.release(request(asked, TIMEOUT))).await;
        });
    }

    fn step_down(&self, group: &str, if_term: u64) {
        let asked = v1::StepDownRequest { group: group.to_owned(), if_term, ..Default::default() };
        let (mut groups, history, name) = (self.groups.clone(), self.history.clone(), self.name.clone());
        tokio::spawn(async move {
            let what = format!("step down {} term={if_term}", asked.group);
            answer(&history, &name, &what, TIMEOUT, groups.step_down(request(asked, TIMEOUT))).await;
        });
    }

    async fn leave(&mut self, group: &str, member: u64) {
        let asked = v1::LeaveRequest { group: group.to_owned(), member, ..Default::default() };
        let call = self.groups.leave(request(asked, TIMEOUT));
        answer(&self.history, &self.name, &format!("leave {group} member={member}"), TIMEOUT, call).await;
    }
}
