//! `host:port`, and what a name may be.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::limits::NAME_BYTES_MAX;

/// Where something listens: a DNS name or an IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// In lower case; an IPv6 address without its brackets.
    pub host: String,
    /// From 1.
    pub port: u16,
}

impl Address {
    /// Whether the host is `localhost` or a loopback IP address. Other names are not resolved, so they are not.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    /// What is wrong.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("`{text}` has no port"))?;
        let port = port
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| port.parse().ok().filter(|port| *port != 0))
            .flatten()
            .ok_or_else(|| format!("`{port}` is not a port"))?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(ip) => ip
                .parse::<std::net::Ipv6Addr>()
                .map(|ip| ip.to_string())
                .map_err(|_| format!("`{ip}` is not an IPv6 address"))?,
            None if host.contains(':') => return Err(format!("the IPv6 address `{host}` has no brackets")),
            None => host.to_ascii_lowercase(),
        };
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
        if host.is_empty() || host.len() > NAME_BYTES_MAX || !host.bytes().all(known) {
            return Err(format!("`{host}` is not a host"));
        }
        Ok(Self { host, port })
    }
}

/// What [`check_name`] accepts, for people.
pub(super) const NAME_RULE: &str =
    "a name has 1 to 253 letters, digits, `-`, `_` and `.`, and begins and ends with a letter or digit";

/// Checks the name of a cluster, member, partition group or group: it appears in paths, URLs, labels and log lines.
///
/// # Errors
/// What is wrong, as a sentence without its subject.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.is_empty() {
        Err("is empty")
    } else if name.len() > NAME_BYTES_MAX {
        Err("is too long")
    } else if !name.bytes().all(inner) {
        Err("has a character that a name must not have")
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !name.ends_with(|c: char| c.is_ascii_alphanumeric())
    {
        Err("does not begin and end with a letter or digit")
    } else {
        Ok(())
    }
}
