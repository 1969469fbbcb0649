//! Whoever is told that it leads a group for a while is alone in that, also in its term, and whoever leads later has a larger
//! one (S22, S25, S27, S32).

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// A member was told that it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The group's name.
    pub group: String,
    /// The member.
    pub member: u64,
    /// Its term.
    pub term: u64,
    /// When it was told, in simulated milliseconds.
    pub from_ms: u64,
    /// Up to when it may act on that.
    pub until_ms: u64,
}

/// Checks what members were told of themselves.
///
/// # Errors
/// Two that led at one time, or one term with two leaders.
pub fn check(claims: &[Claim]) -> Result<()> {
    let mut groups: BTreeMap<&str, Vec<&Claim>> = BTreeMap::new();
    for claim in claims.iter().filter(|claim| claim.from_ms < claim.until_ms) {
        groups.entry(&claim.group).or_default().push(claim);
    }
    for (group, mut claims) in groups {
        claims.sort_by_key(|claim| (claim.from_ms, claim.term));
        let mut leaders: BTreeMap<u64, u64> = BTreeMap::new();
        let mut latest: Option<&Claim> = None;
        for claim in claims {
            let leader = *leaders.entry(claim.term).or_insert(claim.member);
            if leader != claim.member {
                bail!("group {group}: members {leader} and {} both led in term {}", claim.member, claim.term);
            }
            if let Some(before) = latest.filter(|before| before.member != claim.member) {
                if claim.from_ms < before.until_ms {
                    bail!("group {group}: two led at one time\n{before:?}\n{claim:?}");
                }
                if claim.term <= before.term {
                    bail!("group {group}: a later leader has no larger term\n{before:?}\n{claim:?}");
                }
            }
            if latest.is_none_or(|before| before.until_ms <= claim.until_ms) {
                latest = Some(claim);
            }
        }
    }
    Ok(())
}

/// The least time between the end of what one leader of a group was told and the moment at which the next one knew that it
/// leads, in milliseconds. `None` if no group had two.
pub fn closest_ms(claims: &[Claim]) -> Option<u64> {
    let mut groups: BTreeMap<&str, BTreeMap<u64, (u64, u64)>> = BTreeMap::new();
    for claim in claims {
        let term = groups.entry(&claim.group).or_default().entry(claim.term).or_insert((u64::MAX, 0));
        *term = (term.0.min(claim.from_ms), term.1.max(claim.until_ms));
    }
    let between = |terms: BTreeMap<u64, (u64, u64)>| {
        let terms: Vec<_> = terms.into_values().collect();
        terms.windows(2).map(|two| two[1].0.saturating_sub(two[0].1)).min()
    };
    groups.into_values().filter_map(between).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(member: u64, term: u64, from_ms: u64, until_ms: u64) -> Claim {
        Claim { group: "g".into(), member, term, from_ms, until_ms }
    }

    #[test]
    fn one_leader_after_the_other_is_right() {
        check(&[claim(1, 1, 0, 50), claim(1, 1, 40, 90), claim(2, 2, 90, 120)]).expect("right");
    }

    #[test]
    fn the_closest_succession_is_found() {
        let other = Claim { group: "h".into(), ..claim(9, 1, 0, 85) };
        let claims = [claim(1, 1, 0, 50), claim(2, 3, 90, 120), claim(1, 1, 40, 70), claim(3, 4, 127, 130), other];
        assert_eq!(closest_ms(&claims), Some(7));
        assert_eq!(closest_ms(&claims[..1]), None);
    }

    #[test]
    fn two_leaders_at_a_time_and_terms_that_do_not_rise_are_found() {
        for (wrong, what) in [
            ([claim(1, 1, 0, 50), claim(2, 2, 49, 90)], "two led at one time"),
            ([claim(1, 1, 0, 50), claim(2, 1, 60, 90)], "both led in term 1"),
            ([claim(1, 2, 0, 50), claim(2, 1, 60, 90)], "no larger term"),
        ] {
            let error = check(&wrong).expect_err("wrong").to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
