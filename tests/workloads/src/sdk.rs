//! Members of groups that use the Rust SDK, and ask its guard all the time.

use std::time::Duration;

use anyhow::Result;
use coterie_client::{Client, JoinOptions, Member, Term};

use crate::call::pause;
use crate::chance::Chance;
use crate::checkers::leaders::Claim;
use crate::groups::GROUPS;
use crate::side::Side;

/// Between two questions to the guard.
const POLL: Duration = Duration::from_millis(3);

/// Starts one member beside a sidecar.
pub(crate) fn start(side: &Side, endpoint: &str) -> Result<()> {
    let (name, chance) = side.client("sdk");
    tokio::spawn(Sdk { name, chance, side: side.clone(), client: Client::connect(endpoint)? }.run());
    Ok(())
}

struct Sdk {
    name: String,
    chance: Chance,
    side: Side,
    client: Client,
}

impl Sdk {
    async fn run(self) {
        while !self.side.history.seen().is_over {
            pause(self.chance.ms(5, 300)).await;
            let (group, stay) = (self.chance.one_of(&GROUPS), self.chance.ms(200, 6_000));
            let options = match self.chance.below(3) {
                0 => JoinOptions::default().lease(self.chance.ms(1_000, 5_000)),
                _ => JoinOptions::default(),
            };
            match self.client.group(group).join(options).await {
                Ok(member) => self.be(group, member, stay).await,
                Err(error) => self.side.history.note(&self.name, &format!("join {group}: {error}")),
            }
        }
    }

    /// Is a member for a while, longer if it leads then, and acts as the leader whenever the guard says yes.
    async fn be(&self, group: &str, member: Member, stay: Duration) {
        let id = member.id().0;
        self.side.history.note(&self.name, &format!("joined {group} member={id}"));
        let end_ms = self.now_ms() + u64::try_from(stay.as_millis()).expect("short");
        let mut led: Option<(Term, usize)> = None;
        while self.now_ms() < end_ms {
            // It says yes after it was asked and before this is known: what counts is between.
            let asked_ms = self.now_ms();
            if let Some(term) = member.guard() {
                match led {
                    Some((in_term, claim)) if in_term == term => {
                        self.side.history.seen().claims[claim].until_ms = asked_ms
                    }
                    _ => led = Some((term, self.leads(group, id, term))),
                }
            }
            if let Some((term, _)) = led.filter(|_| member.leadership().borrow().releasing) {
                let given = member.release(term).await;
                self.side.history.note(&self.name, &format!("released {group} term={} {given:?}", term.0));
            }
            pause(POLL).await;
        }
        self.side.history.note(&self.name, &format!("leaves {group} member={id}"));
        if self.chance.below(2) == 0 {
            let left = member.leave().await;
            self.side.history.note(&self.name, &format!("left {group} member={id} {left:?}"));
        }
    }

    /// The guard says yes for the first time; where that is in the history.
    fn leads(&self, group: &str, member: u64, term: Term) -> usize {
        self.side.history.note(&self.name, &format!("leads {group} member={member} term={}", term.0));
        let (from_ms, group) = (self.now_ms(), group.to_owned());
        let mut seen = self.side.history.seen();
        seen.claims.push(Claim { group, member, term: term.0, from_ms, until_ms: from_ms });
        seen.claims.len() - 1
    }

    fn now_ms(&self) -> u64 {
        self.side.clock.monotonic_ms()
    }
}
