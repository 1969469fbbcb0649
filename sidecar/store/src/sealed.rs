//! A small file's frame: what it is, in which version, and a checksum over all of it.
//!
//! ```text
//! magic 8 | version u32 | length u64 | crc32c u32 (of all that comes before and after it) | body
//! ```

/// Bytes before the body.
pub(crate) const HEADER_BYTES: usize = 24;

/// Frames a body.
pub(crate) fn seal(magic: [u8; 8], version: u32, body: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(HEADER_BYTES + body.len());
    sealed.extend_from_slice(&magic);
    sealed.extend_from_slice(&version.to_le_bytes());
    sealed.extend_from_slice(&(body.len() as u64).to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&sealed), body);
    sealed.extend_from_slice(&checksum.to_le_bytes());
    sealed.extend_from_slice(body);
    sealed
}

/// Why a frame was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not begin as this kind of file does.
    #[error("it is not a file of this kind")]
    Magic,
    /// A newer program wrote it.
    #[error("it has version {found}, and this program reads up to {supported}")]
    Version {
        /// In the file.
        found: u32,
        /// By this program.
        supported: u32,
    },
    /// It is shorter or longer than it says.
    #[error("it is cut: {found} bytes of {expected}")]
    Length {
        /// In the file.
        found: u64,
        /// As its header says.
        expected: u64,
    },
    /// The bytes are not those that were written.
    #[error("its checksum does not match")]
    Checksum,
}

/// How long a body is, as the first bytes of its frame say; 0 if there are fewer. Nothing is checked.
pub(crate) fn body_bytes(frame: &[u8]) -> u64 {
    frame.get(12..20).map_or(0, |length| u64::from_le_bytes(length.try_into().expect("eight bytes")))
}

/// As [`open`], of a frame that something else may follow.
pub(crate) fn open_first(magic: [u8; 8], supported: u32, bytes: &[u8]) -> Result<(u32, &[u8]), Error> {
    let end = usize::try_from(body_bytes(bytes)).ok().and_then(|length| length.checked_add(HEADER_BYTES));
    open(magic, supported, end.and_then(|end| bytes.get(..end)).unwrap_or(bytes))
}

/// The version and the body of a frame, checked.
pub(crate) fn open(magic: [u8; 8], supported: u32, sealed: &[u8]) -> Result<(u32, &[u8]), Error> {
    let Some((header, body)) = sealed.split_at_checked(HEADER_BYTES) else {
        return Err(Error::Length { found: sealed.len() as u64, expected: HEADER_BYTES as u64 });
    };
    if header[..8] != magic {
        return Err(Error::Magic);
    }
    let version = u32::from_le_bytes(header[8..12].try_into().expect("four bytes"));
    let length = u64::from_le_bytes(header[12..20].try_into().expect("eight bytes"));
    let checksum = u32::from_le_bytes(header[20..24].try_into().expect("four bytes"));
    if version > supported {
        return Err(Error::Version { found: version, supported });
    }
    if body.len() as u64 != length {
        return Err(Error::Length { found: body.len() as u64, expected: length });
    }
    if crc32c::crc32c_append(crc32c::crc32c(&header[..20]), body) != checksum {
        return Err(Error::Checksum);
    }
    Ok((version, body))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_any_changed_or_missing_byte_is_noticed() {
        let sealed = seal(*b"coteriet", 2, b"body");
        assert_eq!(open(*b"coteriet", 3, &sealed).unwrap(), (2, b"body".as_slice()));
        assert!(matches!(open(*b"coteriet", 1, &sealed), Err(Error::Version { found: 2, supported: 1 })));
        for position in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[position] ^= 1;
            assert!(open(*b"coteriet", 3, &damaged).is_err(), "byte {position}");
            assert!(open(*b"coteriet", 3, &sealed[..position]).is_err(), "cut at {position}");
        }
    }

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    proptest! {
        #[test]
        fn no_bytes_open_but_those_that_were_sealed(
            body in vec(any::<u8>(), 0..200), foreign in vec(any::<u8>(), 0..60), at in any::<Index>(), change in 1_u8..,
        ) {
            let sealed = seal(*b"coteriet", 2, &body);
            prop_assert_eq!(open(*b"coteriet", 2, &sealed).unwrap(), (2, &body[..]));
            let grown = [&sealed[..], &foreign].concat();
            prop_assert_eq!(open_first(*b"coteriet", 2, &grown).unwrap(), (2, &body[..]));
            prop_assert_eq!(open(*b"coteriet", 2, &grown).is_ok(), foreign.is_empty());
            let mut damaged = sealed.clone();
            damaged[at.index(sealed.len())] ^= change;
            for bytes in [damaged, foreign.clone(), [&b"coteriet\x01\0\0\0"[..], &foreign].concat()] {
                prop_assert!(open(*b"coteriet", 2, &bytes).is_err() && open_first(*b"coteriet", 2, &bytes).is_err());
            }
        }
    }
}
