//! Files that chance wrote, or damaged: they are refused, or hold what some moment of their past left. Nothing panics.

use std::path::{Path, PathBuf};

use coterie_env::Disk;
use coterie_env::mem::MemDisk;
use coterie_store::log::Inspected;
use coterie_store::snapshots::{Piece, Place};
use coterie_store::{Directory, Log, Snapshots};
use proptest::prelude::*;
use proptest::sample::Index;

use super::support::*;

/// What became of a file.
#[derive(Clone, Debug)]
enum Damage {
    /// One byte is another one.
    Byte(Index, u8),
    /// It ends here.
    Cut(Index),
    /// It goes on.
    Grown(Vec<u8>),
    /// A sector was never written, or is that of another place.
    Sector(Index, Option<Index>),
}

const SECTOR: usize = 512;

impl Damage {
    /// The file after it; `None` if it is as before.
    fn of(&self, file: &[u8]) -> Option<Vec<u8>> {
        let mut damaged = file.to_vec();
        match self {
            Damage::Byte(at, change) => damaged[at.index(file.len())] ^= change,
            Damage::Cut(at) => damaged.truncate(at.index(file.len())),
            Damage::Grown(more) => damaged.extend(more),
            Damage::Sector(to, from) => {
                let sectors = file.len().div_ceil(SECTOR);
                let range = |at: usize| at * SECTOR..file.len().min((at + 1) * SECTOR);
                let to = range(to.index(sectors));
                let source = from.map_or(vec![0; to.len()], |from| file[range(from.index(sectors))].to_vec());
                let len = to.len().min(source.len());
                damaged[to.start..to.start + len].copy_from_slice(&source[..len]);
            }
        }
        (damaged != file).then_some(damaged)
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<Index>(), 1_u8..).prop_map(|(at, change)| Damage::Byte(at, change)),
        2 => any::<Index>().prop_map(Damage::Cut),
        1 => proptest::collection::vec(any::<u8>(), 1..600).prop_map(Damage::Grown),
        2 => (any::<Index>(), proptest::option::of(any::<Index>())).prop_map(|(to, from)| Damage::Sector(to, from)),
    ]
}

/// This disk, with another file in the place of one.
fn with(disk: &MemDisk, path: &Path, content: &[u8]) -> MemDisk {
    let other = disk.fork();
    other.create_dir_all(path.parent().unwrap()).unwrap();
    let file = other.open(path).unwrap();
    file.set_len(0).unwrap();
    file.write_at(0, content).unwrap();
    file.sync_data().unwrap();
    other.sync_dir(path.parent().unwrap()).unwrap();
    other
}

/// A log that has several segments, and what it held after each step.
fn history(steps: &[(usize, u8)]) -> (MemDisk, Vec<Vec<Inspected>>) {
    let disk = disk();
    let mut past = vec![Vec::new()];
    live(async {
        let log = open(&disk).unwrap();
        for (number, (len, kind)) in (1_u64..).zip(steps) {
            let partition = log.partition(["a", "b"][usize::from(kind % 3 == 0)]);
            let last = partition.state().last.unwrap_or(partition.state().purged.map_or(0, |(index, _)| index));
            match kind % 8 {
                0 => partition.save_vote(bytes(format!("vote {number}"))).await.unwrap(),
                1 => partition.truncate_after(Some(last.saturating_sub(1))).await.unwrap(),
                2 => partition.purge(last.saturating_sub(3), bytes("id")).await.unwrap(),
                _ => append_now(&partition, vec![(last + 1, bytes(vec![*kind; *len]))]).await.unwrap().unwrap(),
            }
            past.push(Log::inspect(&env(&disk, 1), Path::new(DIR)).unwrap());
        }
        log.close().await;
    });
    past.push(Log::inspect(&env(&disk, 1), Path::new(DIR)).unwrap());
    (disk, past)
}

/// What a start makes of it: refused, or what it holds, which it then holds for good.
fn started(disk: &MemDisk) -> Option<Vec<Inspected>> {
    let found = Log::inspect(&env(disk, 1), Path::new(DIR)).ok();
    live(async {
        let opened = open(disk).ok();
        assert_eq!(opened.is_some(), found.is_some(), "inspection and a start agree");
        let Some(log) = opened else { return };
        for Inspected { partition, state } in found.iter().flatten() {
            let partition = log.partition(partition);
            assert_eq!(&partition.state(), state);
            let entries = partition.read(.., usize::MAX).unwrap();
            assert_eq!(entries.first().map(|(index, _)| *index), state.first);
            assert_eq!(entries.last().map(|(index, _)| *index), state.last);
        }
    });
    disk.crash();
    assert_eq!(Log::inspect(&env(disk, 1), Path::new(DIR)).ok(), found, "nothing was lost by the start");
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_log_is_refused_or_is_what_it_was_at_some_moment(
        steps in proptest::collection::vec((0_usize..900, any::<u8>()), 1..30),
        damages in proptest::collection::vec((any::<Index>(), damage()), 1..20),
    ) {
        let (disk, past) = history(&steps);
        for (which, damage) in damages {
            let segments = segments(&disk);
            let segment = &segments[which.index(segments.len())];
            let Some(damaged) = damage.of(&disk.read(segment).unwrap()) else { continue };
            if let Some(found) = started(&with(&disk, segment, &damaged)) {
                prop_assert!(past.contains(&found), "{damage:?} of {}: {found:?}", segment.display());
            }
        }
    }

    #[test]
    fn no_bytes_make_a_log_panic(content in proptest::collection::vec(any::<u8>(), 0..2000), cut in any::<Index>()) {
        let (original, _) = history(&[(100, 3), (700, 5), (10, 0)]);
        let segment = segments(&original).pop().unwrap();
        let whole = original.read(&segment).unwrap();
        let at = cut.index(whole.len());
        for content in [content.clone(), [&whole[..at], &content].concat()] {
            started(&with(&original, &segment, &content));
        }
    }

    #[test]
    fn a_damaged_snapshot_is_refused(
        meta in proptest::collection::vec(any::<u8>(), 0..40),
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..700), 0..4),
        damages in proptest::collection::vec(damage(), 1..40),
    ) {
        let disk = disk();
        let snapshots = Snapshots::new(&env(&disk, 1), Path::new(DIR)).unwrap();
        let mut draft = snapshots.begin("p", &meta).unwrap();
        for (number, piece) in (0..).zip(&pieces) {
            draft.push(&Piece::new(number, piece.clone())).unwrap();
        }
        draft.finish().unwrap().publish().unwrap();
        let file = Path::new(DIR).join("snap/p.snap");
        prop_assert_eq!(content(&disk), Some((meta, pieces)));
        for damage in damages {
            let Some(damaged) = damage.of(&disk.read(&file).unwrap()) else { continue };
            prop_assert_eq!(content(&with(&disk, &file, &damaged)), None, "{:?}", damage);
        }
    }

    #[test]
    fn no_bytes_make_a_snapshot_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(content(&with(&disk(), &Path::new(DIR).join("snap/p.snap"), &bytes)), None);
    }

    #[test]
    fn an_identity_of_which_one_copy_is_damaged_is_the_newest_or_the_one_before(
        damages in proptest::collection::vec((0_usize..400, 1_u8.., any::<bool>()), 1..60),
    ) {
        let disk = disk();
        for _ in 0..2 {
            Directory::open(&env(&disk, 1), Path::new(DIR), "default", "member-1").unwrap();
        }
        let identity = Directory::read(&disk, Path::new(DIR)).unwrap();
        let file = identity_file();
        let whole = disk.read(&file).unwrap();
        for (at, change, second) in damages {
            let mut damaged = whole.clone();
            damaged[at + if second { whole.len() / 2 } else { 0 }] ^= change;
            prop_assert_eq!(&Directory::read(&with(&disk, &file, &damaged), Path::new(DIR)).unwrap(), &identity);
        }
    }

    #[test]
    fn no_bytes_are_an_identity_but_those_that_were_written(
        content in proptest::collection::vec(any::<u8>(), 0..100), zeros in 0_u32..17,
    ) {
        let mut file = content.clone();
        file.resize(file.len().max(1 << zeros), 0);
        for file in [content.clone(), file.clone(), file.repeat(2)] {
            let read = Directory::read(&with(&disk(), &identity_file(), &file), Path::new(DIR));
            prop_assert!(read.is_err());
        }
    }
}

fn identity_file() -> PathBuf {
    Path::new(DIR).join("identity")
}

/// Meta data and pieces; `None` if it is refused.
fn content(disk: &MemDisk) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let snapshots = Snapshots::new(&env(disk, 1), Path::new(DIR)).unwrap();
    let stored = snapshots.open("p").ok()??;
    let pieces: Result<Vec<Piece>, _> = stored.pieces(Place::default()).collect();
    Some((stored.label().meta.clone(), pieces.ok()?.into_iter().map(|piece| piece.bytes.to_vec()).collect()))
}
