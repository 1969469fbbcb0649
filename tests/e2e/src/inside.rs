//! The sidecar's API as an application in the pod reaches it: on the pod's own loopback, which is there also when its node is
//! cut off. Only where nodes are network namespaces of this machine.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::api::API_PORT;
use crate::context::Context;
use crate::environment;
use crate::kube::Kubectl;
use crate::world::application_container;

/// After which a pod that was not there is looked for again: kubectl takes its share of a processor.
const AGAIN: Duration = Duration::from_millis(500);

/// A port of this machine that is the API of one pod, whichever pod of the name is there.
pub(crate) struct Inside {
    pod: String,
    port: u16,
}

impl Inside {
    /// That of a pod.
    ///
    /// # Errors
    /// When pods cannot be reached here in this way.
    pub(crate) fn of(context: &Context<'_>, pod: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listen")?;
        let port = listener.local_addr().context("listen")?.port();
        let way =
            Arc::new(Way { kube: context.kube.clone(), pod: pod.to_owned(), network: Mutex::new(Known::Nothing) });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let way = way.clone();
                // What fails is closed: the client sees that there is nobody.
                std::thread::spawn(move || way.join(&stream));
            }
        });
        Ok(Self { pod: pod.to_owned(), port })
    }

    /// The pod's name.
    pub(crate) fn pod(&self) -> &str {
        &self.pod
    }

    /// Where its API is.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// How one pod is reached.
struct Way {
    kube: Kubectl,
    pod: String,
    network: Mutex<Known>,
}

/// What is known of the pod's network.
enum Known {
    Nothing,
    /// That of the pod which was there last.
    At(Arc<File>),
    /// There was none: look again then.
    NoneUntil(Instant),
}

impl Way {
    /// Joins a connection to one in the pod, until either ends.
    fn join(&self, outside: &TcpStream) -> io::Result<()> {
        let inside = self.connect()?;
        inside.set_nodelay(true)?;
        outside.set_nodelay(true)?;
        std::thread::scope(|scope| {
            scope.spawn(|| carry(outside, &inside));
            carry(&inside, outside);
        });
        Ok(())
    }

    /// Connects in the pod's network. This thread is there from then on.
    fn connect(&self) -> io::Result<TcpStream> {
        let network = self.network()?;
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        let connected = TcpStream::connect(("127.0.0.1", API_PORT));
        let mut known = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        if connected.is_err() && matches!(&*known, Known::At(at) if Arc::ptr_eq(at, &network)) {
            // Another pod may be there soon.
            *known = Known::NoneUntil(Instant::now() + AGAIN);
        }
        connected
    }

    fn network(&self) -> io::Result<Arc<File>> {
        let mut known = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Known::At(network) => return Ok(network.clone()),
            Known::NoneUntil(then) if Instant::now() < *then => return Err(ErrorKind::NotFound.into()),
            Known::Nothing | Known::NoneUntil(_) => {}
        }
        let found = application_container(&self.kube, &self.pod).and_then(|container| environment::network(&container));
        let Ok(network) = found.map(Arc::new) else {
            *known = Known::NoneUntil(Instant::now() + AGAIN);
            return Err(ErrorKind::NotFound.into());
        };
        *known = Known::At(network.clone());
        Ok(network)
    }
}

fn carry(mut from: &TcpStream, mut to: &TcpStream) {
    // However it ends, it ends for both.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
