//! Segments of the log, as files: `coterie_store::Log`.
//!
//! ```text
//! flags u8 | segment, framed | segment, framed | …        flags: 1 mends all checksums
//! ```
#![no_main]

use std::path::Path;

use coterie_env::Disk as _;
use coterie_env::mem::MemDisk;
use coterie_fuzz::{DIR, Input, disk_of, framed, live, mend, still};
use coterie_store::Log;
use coterie_store::log::Options;

/// More show nothing more.
const SEGMENTS_MAX: usize = 12;

/// The smallest: so that nothing is slow.
fn options() -> Options {
    Options { segment_bytes: 0, cache_bytes: 0, ..Options::default() }
}

libfuzzer_sys::fuzz_target!(init: coterie_fuzz::seeds(seeds), |bytes: &[u8]| {
    let mut input = Input(bytes);
    let mended = input.byte() & 1 == 1;
    let mut segments = Vec::new();
    while let Some(part) = input.part().filter(|_| segments.len() < SEGMENTS_MAX) {
        let mut segment = part.to_vec();
        if mended {
            mend::segment(&mut segment);
        }
        segments.push((format!("wal/{:016x}.seg", segments.len() + 1), segment));
    }
    let files: Vec<(&str, &[u8])> = segments.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    check(&disk_of(&files));
});

fn check(disk: &MemDisk) {
    let (env, dir) = (still(disk), Path::new(DIR));
    let found = Log::inspect(&env, dir);
    let opened = Log::open(&env, dir, options());
    let (found, log) = match (found, opened) {
        (Ok(found), Ok(log)) => (found, log),
        (Err(_), Err(_)) => return,
        (found, opened) => panic!("inspected as {found:?}, and opened: {}", opened.is_ok()),
    };
    for part in &found {
        let log = log.partition(&part.partition);
        assert_eq!(log.state(), part.state, "as it was inspected");
        // What is damaged in the middle of a batch whose checksum is right is found when it is read, and ends the log.
        if let Ok(entries) = log.read(.., usize::MAX) {
            let indexes: Vec<u64> = entries.iter().map(|(index, _)| *index).collect();
            assert_eq!((indexes.first(), indexes.last()), (part.state.first.as_ref(), part.state.last.as_ref()));
            assert!(indexes.windows(2).all(|pair| pair[0] + 1 == pair[1]), "entries without a gap: {indexes:?}");
        }
    }
    drop(log);
    disk.crash();
    assert_eq!(Log::inspect(&env, dir).expect("it was opened"), found, "a start changes nothing that counts");
}

fn seeds() -> Vec<Vec<u8>> {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new(DIR)).expect("make a folder in memory");
    live(async {
        let env = coterie_env::Env { spawn: coterie_env::real().spawn, ..still(&disk) };
        let log = Log::open(&env, Path::new(DIR), options()).expect("open an empty log");
        let (a, b) = (log.partition("a"), log.partition("b"));
        b.save_vote("vote".into()).await.expect("write in memory");
        for index in 1..=12_u64 {
            let content = vec![7; 300 * usize::from(index % 3 == 0)];
            let (done, flushed) = tokio::sync::oneshot::channel();
            a.append(vec![(index, content.into())], Box::new(move |result| drop(done.send(result))));
            flushed.await.expect("it is answered").expect("write in memory");
        }
        a.save_committed("c".into());
        a.truncate_after(Some(10)).await.expect("write in memory");
        a.purge(3, "id".into()).await.expect("write in memory");
        log.remove_partition("b").await.expect("write in memory");
        log.close().await;
    });
    let files = disk.list(&Path::new(DIR).join("wal")).expect("it is there");
    let segments = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "seg"));
    let segments: Vec<u8> = segments.flat_map(|path| framed(&disk.read(path).expect("it is there"))).collect();
    vec![[&[0], &segments[..]].concat(), [&[1], &segments[..]].concat()]
}
