//! What a request asks for, as a number: so that an id that is used again for something else is noticed (D11).
//!
//! A retry may reach the partition by another sidecar, and at another time, and differ in what that one adds. So it is not
//! the bytes of a command that count, but what its caller said; and no encoding takes part, so that a newer program
//! finds the same number.
//!
//! | of | counts | and not |
//! |---|---|---|
//! | everything | the operation and the primitive | |
//! | a join | the metadata | session, zone (the sidecar's own if the caller names none), presence |
//! | a change of configuration | the term that it is for | the configuration and its revision: what is not given is filled in from what there is |
//! | an acquisition | | session, whether to wait: a retry has less time left |
//! | a put | key, value and condition | |
//! | what a member, a token or a term names | the number | the reason |
//! | a session, and what is in the directory | whose | what is recorded: a sidecar says it, not an application |

use crate::command::{Command, Condition, DirectoryOp, GroupOp, LockOp, MapOp, PrimitiveAddress};
use crate::ids::Term;

/// FNV-1a with 64 bits, of words instead of bytes: a value of 1 MiB takes a fraction of a millisecond.
struct Hash(u64);

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

impl Hash {
    fn word(&mut self, word: u64) {
        // What an FNV of words lacks is a way for high bits to get to low ones.
        let mixed = (self.0 ^ word).wrapping_mul(FNV_PRIME);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        for chunk in bytes.chunks(size_of::<u64>()) {
            let mut word = [0; size_of::<u64>()];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn term(&mut self, term: Option<Term>) {
        self.word(term.map_or(0, |term| term.0));
    }

    fn address(&mut self, address: &PrimitiveAddress) {
        let PrimitiveAddress { partition_group, kind, name } = address;
        self.text(partition_group.as_str());
        self.text(kind);
        self.text(name);
    }

    fn condition(&mut self, only: Condition) {
        match only {
            Condition::Always => self.word(1),
            Condition::Absent => self.word(2),
            Condition::At(revision) => {
                self.word(3);
                self.word(revision.0);
            }
        }
    }
}

/// What this command asks for. The same for ever, on all replicas; never 0.
pub(super) fn asked(command: &Command) -> u64 {
    let mut hash = Hash(FNV_OFFSET);
    match command {
        Command::OpenSession { member, incarnation, ttl_ms: _ } => {
            hash.word(1);
            hash.text(member.as_str());
            hash.word(*incarnation);
        }
        Command::CloseSession(session) => {
            hash.word(2);
            hash.word(session.0);
        }
        Command::ExpireSessions(_) => hash.word(3),
        Command::Group { name, op } => {
            hash.word(4);
            hash.text(name.as_str());
            group(&mut hash, op);
        }
        Command::Directory(op) => {
            hash.word(5);
            directory(&mut hash, op);
        }
        Command::Map { name, op } => {
            hash.word(6);
            hash.text(name.as_str());
            map(&mut hash, op);
        }
        Command::Lock { name, op } => {
            hash.word(7);
            hash.text(name.as_str());
            match op {
                LockOp::Acquire { session: _, wait: _ } => hash.word(1),
                LockOp::Release(token) => {
                    hash.word(2);
                    hash.word(token.0);
                }
            }
        }
    }
    hash.0.max(1)
}

fn group(hash: &mut Hash, op: &GroupOp) {
    match op {
        GroupOp::Create { config } => {
            hash.word(1);
            if let Some(config) = config {
                hash.word(config.release_timeout_ms);
                hash.word(config.max_members.into());
            }
        }
        GroupOp::Configure { config: _, if_config_revision: _, if_term } => {
            hash.word(2);
            hash.term(*if_term);
        }
        GroupOp::Delete => hash.word(3),
        GroupOp::Join { session: _, metadata, zone: _, presence: _ } => {
            hash.word(4);
            for text in metadata.iter().flat_map(|(key, value)| [key, value]) {
                hash.text(text);
            }
        }
        GroupOp::Leave(member) => {
            hash.word(5);
            hash.word(member.0);
        }
        GroupOp::SetMetadata { member, metadata, if_term } => {
            hash.word(6);
            hash.word(member.0);
            hash.term(*if_term);
            for text in metadata.iter().flat_map(|(key, value)| [key, value]) {
                hash.text(text);
            }
        }
        GroupOp::StepDown { if_term, reason: _ } => {
            hash.word(7);
            hash.term(*if_term);
        }
        GroupOp::Release(term) => {
            hash.word(8);
            hash.word(term.0);
        }
        GroupOp::ReleaseTimedOut(term) => {
            hash.word(9);
            hash.word(term.0);
        }
    }
}

fn map(hash: &mut Hash, op: &MapOp) {
    match op {
        MapOp::Put { key, value, only } => {
            hash.word(1);
            hash.text(key);
            hash.bytes(value);
            hash.condition(*only);
        }
        MapOp::Delete { key, only } => {
            hash.word(2);
            hash.text(key);
            hash.condition(*only);
        }
        MapOp::Drop => hash.word(3),
    }
}

fn directory(hash: &mut Hash, op: &DirectoryOp) {
    match op {
        DirectoryOp::RegisterMember(record) => {
            hash.word(1);
            hash.text(record.name.as_str());
        }
        DirectoryOp::ForgetMember(name) => {
            hash.word(2);
            hash.text(name.as_str());
        }
        DirectoryOp::CreatePartitionGroup(record) => {
            hash.word(3);
            hash.text(record.name.as_str());
        }
        DirectoryOp::DeletePartitionGroup { name, force } => {
            hash.word(4);
            hash.text(name.as_str());
            hash.word((*force).into());
        }
        DirectoryOp::RecordPrimitive(address) => {
            hash.word(5);
            hash.address(address);
        }
        DirectoryOp::ForgetPrimitive(address) => {
            hash.word(6);
            hash.address(address);
        }
    }
}
