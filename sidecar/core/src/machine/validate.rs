//! What a command may carry. The edge checks the same before it proposes, so that nobody waits for a quorum to be told;
//! the machine checks again, because an entry of another program version must not break a bound.
//!
//! Every refusal names the field, what is wrong with it and what would be right.

use std::collections::BTreeMap;

use crate::code::{ErrorCode, Rejection};
use crate::command::GroupConfig;
use crate::limits::{
    GROUP_MEMBERS_MAX, KEY_BYTES_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX, PAGE_ENTRIES_MAX, RELEASE_TIMEOUT_MS_MAX,
    SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN, VALUE_BYTES_MAX,
};

/// `invalid_argument` about one field.
pub(super) fn invalid(field: &str, problem: impl std::fmt::Display) -> Rejection {
    Rejection::new(ErrorCode::InvalidArgument, format!("{field}: {problem}"))
}

/// A name of a group, a partition group, a member or a primitive: 1 to [`NAME_BYTES_MAX`] bytes, no control character,
/// no `/`, no space at either end, neither `.` nor `..`.
///
/// # Errors
/// `invalid_argument`, naming `field`.
pub fn name(field: &str, text: &str) -> Result<(), Rejection> {
    if text.is_empty() {
        return Err(invalid(field, format_args!("is empty; give a name of 1 to {NAME_BYTES_MAX} bytes")));
    }
    if text.contains('/') {
        return Err(invalid(field, "contains `/`, which separates names; use another character, for example `.`"));
    }
    if text == "." || text == ".." {
        return Err(invalid(field, "is `.` or `..`, which clients take for a step in a path; use another name"));
    }
    if text.trim() != text {
        return Err(invalid(field, "begins or ends with a space; remove it"));
    }
    label(field, text)
}

/// A short text that may be empty (a zone, an address, a reason): up to [`NAME_BYTES_MAX`] bytes, no control character.
///
/// # Errors
/// `invalid_argument`, naming `field`.
pub fn label(field: &str, text: &str) -> Result<(), Rejection> {
    if text.len() > NAME_BYTES_MAX {
        let bytes = text.len();
        return Err(invalid(field, format_args!("has {bytes} bytes; shorten it to {NAME_BYTES_MAX} or fewer")));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(field, "contains a control character; remove it"));
    }
    Ok(())
}

/// A session's or lease's time-out: [`SESSION_TTL_MS_MIN`] to [`SESSION_TTL_MS_MAX`] milliseconds.
///
/// # Errors
/// `invalid_argument`, naming `ttl_ms`.
pub fn ttl_ms(ttl_ms: u64) -> Result<(), Rejection> {
    if (SESSION_TTL_MS_MIN..=SESSION_TTL_MS_MAX).contains(&ttl_ms) {
        return Ok(());
    }
    Err(invalid(
        "ttl_ms",
        format_args!("is {ttl_ms}; choose {SESSION_TTL_MS_MIN} to {SESSION_TTL_MS_MAX} milliseconds"),
    ))
}

/// A member's metadata: keys and values together up to [`METADATA_BYTES_MAX`] bytes.
///
/// # Errors
/// `too_large`, naming `metadata`.
pub fn metadata(metadata: &BTreeMap<String, String>) -> Result<(), Rejection> {
    let bytes: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes <= METADATA_BYTES_MAX {
        return Ok(());
    }
    Err(Rejection::new(
        ErrorCode::TooLarge,
        format!("metadata: has {bytes} bytes; keep keys and values together within {METADATA_BYTES_MAX} bytes"),
    ))
}

/// A key of a map: 1 to [`KEY_BYTES_MAX`] bytes, no control character.
///
/// # Errors
/// `invalid_argument`, naming `field`.
pub fn key(field: &str, text: &str) -> Result<(), Rejection> {
    if text.is_empty() {
        return Err(invalid(field, format_args!("is empty; give a key of 1 to {KEY_BYTES_MAX} bytes")));
    }
    prefix(field, text)
}

/// The beginning of keys of a map, or a key to go on after: up to [`KEY_BYTES_MAX`] bytes, no control character.
///
/// # Errors
/// `invalid_argument`, naming `field`.
pub fn prefix(field: &str, text: &str) -> Result<(), Rejection> {
    if text.len() > KEY_BYTES_MAX {
        let bytes = text.len();
        return Err(invalid(field, format_args!("has {bytes} bytes; shorten it to {KEY_BYTES_MAX} or fewer")));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(field, "contains a control character; remove it"));
    }
    Ok(())
}

/// A value of a map: up to [`VALUE_BYTES_MAX`] bytes.
///
/// # Errors
/// `too_large`, naming `value`.
pub fn value(bytes: usize) -> Result<(), Rejection> {
    if bytes <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let message = format!("value: has {bytes} bytes; keep it within {VALUE_BYTES_MAX} bytes");
    Err(Rejection::new(ErrorCode::TooLarge, message))
}

/// How many entries a page may have: 1 to [`PAGE_ENTRIES_MAX`].
///
/// # Errors
/// `invalid_argument`, naming `limit`.
pub fn page(limit: u32) -> Result<(), Rejection> {
    if (1..=PAGE_ENTRIES_MAX).contains(&limit) {
        return Ok(());
    }
    Err(invalid("limit", format_args!("is {limit}; choose 1 to {PAGE_ENTRIES_MAX}")))
}

/// A group's configuration (S20).
///
/// # Errors
/// `invalid_argument`, naming the field.
pub fn config(config: &GroupConfig) -> Result<(), Rejection> {
    let GroupConfig { release_timeout_ms, max_members } = config;
    if *release_timeout_ms > RELEASE_TIMEOUT_MS_MAX {
        return Err(invalid(
            "config.release_timeout_ms",
            format_args!("is {release_timeout_ms}; choose 0 to {RELEASE_TIMEOUT_MS_MAX} milliseconds"),
        ));
    }
    if !(1..=GROUP_MEMBERS_MAX).contains(max_members) {
        return Err(invalid("config.max_members", format_args!("is {max_members}; choose 1 to {GROUP_MEMBERS_MAX}")));
    }
    Ok(())
}
