//! The data directory: its lock and its identity.
//!
//! A directory is minted once, for one member of one cluster, with a random `node_id`: the Raft identity lives and dies
//! with the directory (D14). The identity is never guessed: if the file is damaged, or missing while there is data, the
//! directory is refused. Starting counts: `start_counter` rises durably at every open, so that whoever saw a later start
//! knows an earlier one for stale.
//!
//! A volume without a free byte must not keep a member from starting, so the identity is overwritten where it is (see
//! `slots`), and what a crash left half made is removed first.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use coterie_env::{Disk, Env, Lock};
use serde::{Deserialize, Serialize};

use crate::sealed;

mod slots;

/// The version of the identity that this program writes. Version 1 was a file of one frame, replaced as a whole.
const VERSION: u32 = 2;

/// An open, locked data directory.
pub struct Directory {
    path: PathBuf,
    disk: std::sync::Arc<dyn Disk>,
    identity: Mutex<Identity>,
    _lock: Box<dyn Lock>,
}

/// Who a data directory is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The version in which it was written.
    pub version: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster itself, once it is known: two clusters may have one name.
    pub cluster_id: Option<u128>,
    /// The member's name.
    pub member: String,
    /// The Raft identity of this directory: random, never 0, never used again by another.
    pub node_id: u64,
    /// How often the directory was opened, this time included.
    pub start_counter: u64,
    /// The list from which the management group is to be formed, as it was proposed to this member.
    pub formation: Option<Formation>,
    /// Whether this directory has ever seen the management group; it stays so for ever.
    pub formed: bool,
    /// What this member has seen of the others' directories, by their names.
    pub peers: BTreeMap<String, KnownPeer>,
}

/// A proposal of the management group's first members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formation {
    /// The cluster that is to be.
    pub cluster_id: u128,
    /// Its first members.
    pub seats: Vec<Seat>,
}

/// One first member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Its name.
    pub member: String,
    /// The identity of its directory.
    pub node_id: u64,
    /// `host:port` of its peer server.
    pub address: String,
}

/// What was last seen of another member's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPeer {
    /// The identity of its directory.
    pub node_id: u64,
    /// How often it was opened.
    pub start_counter: u64,
    /// The run of its process.
    pub run: u64,
}

/// Why a directory was not opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder could not be made.
    #[error("make the data directory {path}")]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process runs on it.
    #[error(
        "the data directory {path} is in use by another process; stop that one, or give this one a directory of its own"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The lock could not be taken for another reason.
    #[error("lock the data directory {path}")]
    Lock {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory could not be read.
    #[error("read the data directory {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was made for another member or another cluster.
    #[error(
        "the data directory {path} belongs to {found}, not to {expected}; name the right directory, or an empty one"
    )]
    BelongsTo {
        /// The directory.
        path: PathBuf,
        /// `member … of cluster …`, as configured.
        expected: String,
        /// The same, as the directory says.
        found: String,
    },
    /// There is data, and nothing says whose.
    #[error(
        "the data directory {path} holds data but no identity file; restore the file from a copy, or empty the \
         directory: the member then comes back as a new one and is replaced"
    )]
    IdentityMissing {
        /// The directory.
        path: PathBuf,
    },
    /// The identity is not readable.
    #[error(
        "the identity file {path} is damaged: {source}; restore it from a copy, or empty the data directory: the member \
         then comes back as a new one and is replaced"
    )]
    Damaged {
        /// The identity file.
        path: PathBuf,
        /// What is wrong with it.
        source: Damage,
    },
    /// The identity could not be written; what the file holds is the state before or after.
    #[error("write the identity file {path}")]
    Write {
        /// The identity file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is wrong with an identity file.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// Its frame.
    #[error(transparent)]
    Frame(#[from] sealed::Error),
    /// It is none of the sizes that it can have.
    #[error("it has {0} bytes, which are no two slots")]
    Slots(u64),
    /// Its content, although the checksum matches.
    #[error("its content is not an identity: {0}")]
    Content(postcard::Error),
    /// There is no Raft identity 0.
    #[error("its node id is 0")]
    NoNode,
}

impl Directory {
    /// Makes the folder if it is missing, locks it, and reads its identity, or mints one if it is empty. The start
    /// counter has risen durably when this returns.
    ///
    /// Blocks. The lock lasts as long as the value. Fails as [`Error`] says, and has then changed nothing.
    pub fn open(env: &Env, path: &Path, cluster: &str, member: &str) -> Result<Directory, Error> {
        let disk = env.disk.clone();
        disk.create_dir_all(path).map_err(|source| Error::Create { path: path.to_owned(), source })?;
        let lock = disk.lock(&path.join("LOCK")).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => Error::Locked { path: path.to_owned() },
            _ => Error::Lock { path: path.to_owned(), source },
        })?;
        let mut identity = match Self::read(disk.as_ref(), path)? {
            Some(found) => {
                check_owner(path, &found, cluster, member)?;
                remove_half_made(disk.as_ref(), path)?;
                found
            }
            None => mint(env, cluster, member),
        };
        identity.start_counter += 1;
        identity.version = VERSION;
        write(disk.as_ref(), path, &identity)?;
        Ok(Directory { path: path.to_owned(), disk, identity: Mutex::new(identity), _lock: lock })
    }

    /// The identity of a directory that is not open, without locking or changing it: for inspection. `None` if the
    /// directory is empty.
    pub fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Identity>, Error> {
        let file = path.join("identity");
        let bytes = match disk.read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match holds_data(disk, path)? {
                    true => Err(Error::IdentityMissing { path: path.to_owned() }),
                    false => Ok(None),
                };
            }
            Err(source) => return Err(Error::Read { path: file, source }),
        };
        slots::read(&bytes).map(Some).map_err(|source| Error::Damaged { path: file, source })
    }

    /// The identity as it is now.
    pub fn identity(&self) -> Identity {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the identity; the change is durable when this returns. Blocks. On an error the value in memory is
    /// unchanged, and the file holds the old or the new one.
    ///
    /// # Panics
    /// If the change touches what a directory is minted with: cluster name, member name or node id.
    pub fn update(&self, change: impl FnOnce(&mut Identity)) -> Result<(), Error> {
        let mut held = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = held.clone();
        change(&mut changed);
        assert!(
            changed.node_id == held.node_id && changed.cluster == held.cluster && changed.member == held.member,
            "a directory keeps the identity that it was minted with"
        );
        write(self.disk.as_ref(), &self.path, &changed)?;
        *held = changed;
        Ok(())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn check_owner(path: &Path, found: &Identity, cluster: &str, member: &str) -> Result<(), Error> {
    if found.cluster == cluster && found.member == member {
        return Ok(());
    }
    Err(Error::BelongsTo {
        path: path.to_owned(),
        expected: format!("member {member} of cluster {cluster}"),
        found: format!("member {} of cluster {}", found.member, found.cluster),
    })
}

fn mint(env: &Env, cluster: &str, member: &str) -> Identity {
    let node_id = loop {
        match env.random.next_u64() {
            0 => {}
            number => break number,
        }
    };
    Identity {
        version: VERSION,
        cluster: cluster.to_owned(),
        cluster_id: None,
        member: member.to_owned(),
        node_id,
        start_counter: 0,
        formation: None,
        formed: false,
        peers: BTreeMap::new(),
    }
}

fn holds_data(disk: &dyn Disk, path: &Path) -> Result<bool, Error> {
    for folder in ["wal", "snap"] {
        let folder = path.join(folder);
        match disk.list(&folder) {
            Ok(entries) if entries.is_empty() => {}
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Read { path: folder, source }),
        }
    }
    Ok(false)
}

/// Removes what a crash left half made, before anything is written: on a full volume it may be all the room there is.
fn remove_half_made(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    for folder in [path.to_owned(), path.join("wal"), path.join("snap")] {
        let remove = || {
            for file in disk.list(&folder)? {
                if file.extension().is_some_and(|extension| extension == "tmp") {
                    disk.remove(&file)?;
                }
            }
            Ok::<(), io::Error>(())
        };
        match remove() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Read { path: folder, source: error });
            }
            _ => {}
        }
    }
    Ok(())
}

fn write(disk: &dyn Disk, path: &Path, identity: &Identity) -> Result<(), Error> {
    let file = path.join("identity");
    slots::write(disk, &file, identity).map_err(|source| Error::Write { path: file, source })
}
