//! Members of groups: they join by a stream or a lease, lead, release, have others released, and go with a word or without.

use std::time::Duration;

use coterie_proto::v1;
use coterie_proto::v1::group_event::Kind as Event;
use coterie_proto::v1::groups_client::GroupsClient;
use coterie_proto::v1::join_stream_response::Kind;
use tonic::transport::Channel;

use crate::call::{answer, pause, request};
use crate::chance::Chance;
use crate::checkers::happened::Happened;
use crate::checkers::leaders::Claim;
use crate::side::Side;

/// The groups.
pub const GROUPS: [&str; 2] = ["crew", "watch"];
const CLIENTS: usize = 2;
const TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long a leader has that is asked to release.
const RELEASE_TIMEOUTS_MS: [u64; 3] = [50, 500, 5_000];
const POLL: Duration = Duration::from_millis(100);
/// Why a member left whose session was not kept alive.
pub const SESSION_EXPIRED: &str = "session_expired";

/// Starts the members beside a sidecar.
pub fn start(side: &Side) {
    for number in 1..=CLIENTS {
        let (name, chance) = side.client(&format!("member-{number}"));
        let groups = GroupsClient::new(side.channel());
        tokio::spawn(Client { name, chance, side: side.clone(), groups }.run());
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
    side: Side,
    groups: GroupsClient<Channel>,
}

impl Client {
    fn now_ms(&self) -> u64 {
        self.side.clock.monotonic_ms()
    }

    async fn run(mut self) {
        while !self.side.history.seen().is_over {
            pause(self.chance.ms(5, 300)).await;
            let group = self.chance.one_of(&GROUPS);
            let stay = self.chance.ms(200, 6_000);
            if self.chance.below(16) == 0 {
                self.configure(group).await;
            }
            match self.chance.below(3) {
                0 => self.by_lease(group, stay).await,
                _ => self.by_stream(group, stay).await,
            }
        }
    }

    async fn configure(&mut self, group: &str) {
        let release_timeout_ms = Some(self.chance.one_of(&RELEASE_TIMEOUTS_MS));
        let config = Some(v1::GroupConfig { release_timeout_ms, max_members: None });
        let asked = v1::ConfigureGroupRequest { group: group.to_owned(), config, ..Default::default() };
        let call = self.groups.configure(request(asked, TIMEOUT));
        if answer(&self.side.history, &self.name, &format!("configure {group}"), TIMEOUT, call).await.is_some() {
            self.side.history.note(&self.name, &format!("configured {group} {release_timeout_ms:?}"));
        }
    }

    /// Joins by a stream, and does what it is told, or not.
    async fn by_stream(&mut self, group: &str, stay: Duration) {
        let asked = v1::JoinRequest { group: group.to_owned(), ..Default::default() };
        let call = self.groups.join_stream(request(asked, TIMEOUT));
        let Some(mut stream) = answer(&self.side.history, &self.name, &format!("join {group}"), TIMEOUT, call).await
        else {
            return;
        };
        let end = tokio::time::Instant::now() + stay;
        let (mut member, mut given_up, is_obedient) = (0, 0, self.chance.below(3) > 0);
        while let Ok(Ok(Some(message))) = tokio::time::timeout_at(end, stream.message()).await {
            match message.kind {
                Some(Kind::Joined(joined)) => {
                    member = joined.member.unwrap_or_default().id;
                    self.side.history.note(&self.name, &format!("joined {group} member={member}"));
                }
                Some(Kind::Self_(state)) => {
                    // What was pushed may have waited in a process that stood still: it asks.
                    if !state.leads {
                        self.acts_no_more(group, member);
                    } else if state.term > given_up {
                        self.ask(group, member, given_up).await;
                    }
                    if state.releasing && is_obedient && state.term > given_up {
                        given_up = state.term;
                        self.release(group, member, state.term);
                    } else if state.leads && self.chance.below(8) == 0 {
                        self.step_down(group, state.term);
                    }
                }
                // As above, what was pushed may have waited; but a session that was lost does not come back.
                Some(Kind::Session(state)) if state == i32::from(v1::SessionState::Lost) => {
                    self.side.history.note(&self.name, &format!("lost its session {group} member={member}"));
                    let now_ms = self.now_ms();
                    self.side.history.seen().sessions.said(group, member, v1::SessionState::Lost, now_ms);
                }
                Some(Kind::Event(_) | Kind::Session(_)) | None => {}
            }
        }
        // Nobody who has closed its connection acts on what it was told.
        self.acts_no_more(group, member);
        self.side.history.note(&self.name, &format!("leaves {group} member={member}"));
        if self.chance.below(2) == 0 {
            self.leave(group, member).await;
        }
    }

    /// Joins by a lease, asks what it is, and renews for as long as it stays.
    async fn by_lease(&mut self, group: &str, stay: Duration) {
        let ttl_ms = 1_000 + self.chance.below(4_000);
        let asked = v1::JoinRequest { group: group.to_owned(), ttl_ms, ..Default::default() };
        let call = self.groups.join(request(asked, TIMEOUT));
        let Some(joined) = answer(&self.side.history, &self.name, &format!("join {group}"), TIMEOUT, call).await else {
            return;
        };
        let member = joined.member.unwrap_or_default().id;
        self.side.history.note(&self.name, &format!("joined {group} member={member} for {ttl_ms} ms"));
        let end = tokio::time::Instant::now() + stay;
        while tokio::time::Instant::now() < end {
            pause(POLL).await;
            self.ask(group, member, 0).await;
            if self.chance.below(3) == 0 {
                let asked = v1::RenewRequest { group: group.to_owned(), member, ..Default::default() };
                let call = self.groups.renew(request(asked, TIMEOUT));
                if answer(&self.side.history, &self.name, &format!("renew {member}"), TIMEOUT, call).await.is_none() {
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

    /// Asks what a member is that has given up all terms up to this one. What it is told counts from before it asked, and
    /// it knows that from now on.
    async fn ask(&mut self, group: &str, member: u64, given_up: u64) {
        let asked_ms = self.now_ms();
        let asked = v1::SelfRequest { group: group.to_owned(), ..Default::default() };
        let call = self.groups.self_(request(asked, TIMEOUT));
        let Some(now) = answer(&self.side.history, &self.name, "self", TIMEOUT, call).await else { return };
        let Some(state) = now.members.iter().find(|state| state.member == member) else { return };
        self.side.history.seen().sessions.said(group, member, state.session(), asked_ms);
        let v1::SelfState { leads, term, valid_ms, .. } = *state;
        if !leads || term <= given_up {
            return self.acts_no_more(group, member);
        }
        let (from_ms, until_ms) = (self.now_ms(), asked_ms + valid_ms);
        let claim = Claim { group: group.to_owned(), member, term, from_ms, until_ms };
        self.side.history.note(&self.name, &format!("leads {group} member={member} term={term} for {valid_ms} ms"));
        self.side.history.seen().claims.push(claim);
    }

    /// A member that knows that it leads no more, or gives the lead away.
    fn acts_no_more(&self, group: &str, member: u64) {
        let now_ms = self.now_ms();
        for claim in &mut self.side.history.seen().claims {
            if claim.group == group && claim.member == member {
                claim.until_ms = claim.until_ms.min(now_ms);
            }
        }
    }

    fn release(&self, group: &str, member: u64, term: u64) {
        self.acts_no_more(group, member);
        let asked = v1::ReleaseRequest { group: group.to_owned(), term, ..Default::default() };
        let (mut groups, history, name) = (self.groups.clone(), self.side.history.clone(), self.name.clone());
        tokio::spawn(async move {
            let what = format!("release {} term={term}", asked.group);
            answer(&history, &name, &what, TIMEOUT, groups.release(request(asked, TIMEOUT))).await;
        });
    }

    fn step_down(&self, group: &str, if_term: u64) {
        let asked = v1::StepDownRequest { group: group.to_owned(), if_term, ..Default::default() };
        let (mut groups, history, name) = (self.groups.clone(), self.side.history.clone(), self.name.clone());
        tokio::spawn(async move {
            let what = format!("step down {} term={if_term}", asked.group);
            answer(&history, &name, &what, TIMEOUT, groups.step_down(request(asked, TIMEOUT))).await;
        });
    }

    async fn leave(&mut self, group: &str, member: u64) {
        let asked = v1::LeaveRequest { group: group.to_owned(), member, ..Default::default() };
        let call = self.groups.leave(request(asked, TIMEOUT));
        answer(&self.side.history, &self.name, &format!("leave {group} member={member}"), TIMEOUT, call).await;
    }
}
