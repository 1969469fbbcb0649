//! What replicas send each other and what their log holds: `coterie_replication`.
//!
//! ```text
//! which u8 | bytes
//! ```
#![no_main]

use bytes::Bytes;
use coterie_fuzz::Input;
use coterie_replication::fuzz;

libfuzzer_sys::fuzz_target!(init: coterie_fuzz::seeds(fuzz::seeds), |bytes: &[u8]| {
    let mut input = Input(bytes);
    fuzz::take(input.byte(), &Bytes::copy_from_slice(input.0));
});
