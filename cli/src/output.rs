//! Lines on standard output, whose reader may go away (`coterie group g --watch | head`).

use std::io::{self, Write as _};

/// Prints one line at once.
pub(crate) fn line(text: impl std::fmt::Display) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{text}")?;
    output.flush()
}
