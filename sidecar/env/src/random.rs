//! Chance, drawn.

/// A source of random numbers, good enough to mint identities that must never collide.
pub trait Random: Send + Sync + 'static {
    /// A uniform number.
    fn next_u64(&self) -> u64;
}

/// A random version 7 UUID for `wall_ms` (RFC 9562, section 5.7): ordered by time, then by chance.
pub fn uuid_v7(random: &dyn Random, wall_ms: u64) -> u128 {
    let chance = (u128::from(random.next_u64()) << 64) | u128::from(random.next_u64());
    let time = u128::from(wall_ms & 0xffff_ffff_ffff) << 80;
    let version = 0x7_u128 << 76;
    let variant = 0x2_u128 << 62;
    time | version | (((chance >> 64) & 0xfff) << 64) | variant | (chance & 0x3fff_ffff_ffff_ffff)
}
