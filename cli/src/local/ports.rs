//! Ports that nobody uses.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use super::Error;

/// Below the range that operating systems take for outgoing connections, so that a member that starts again finds its port
/// still free.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// A port on which nobody listens, and which this process has not given out before.
pub(super) fn free() -> Result<u16, Error> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes that run at the same time begin in different places.
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + start.wrapping_add(step) % COUNT).map_err(|_| Error::NoPort)?;
        if is_free(port) {
            return Ok(port);
        }
    }
    Err(Error::NoPort)
}

/// This port, if nobody listens on it.
pub(super) fn check(port: u16) -> Result<u16, Error> {
    if is_free(port) { Ok(port) } else { Err(Error::Port { port }) }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_not_given_out_twice_and_a_taken_one_is_named() {
        let (one, two) = (free().expect("there are some"), free().expect("there are some"));
        assert_ne!(one, two);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, one)).expect("it is free");
        assert!(check(one).expect_err("it is taken").to_string().contains(&one.to_string()));
    }
}
