//! What an application sees: the sidecar's API on localhost, reached from outside through `kubectl port-forward`.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::http::{Connection, Event, Response};
use crate::kube::Kubectl;
use crate::poll;

/// The application's API in every pod.
pub(crate) const API_PORT: u16 = 7300;
/// One request may take so long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two reads of a [`Reader`].
const READ_PAUSE: Duration = Duration::from_millis(10);
/// Before a [`Readers`]' reader looks for the next pod: kubectl takes its share of a processor.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);
/// A stream of events may be silent so long (it has a heartbeat every 15 s).
const STREAM_TIMEOUT: Duration = Duration::from_secs(60);

/// The API of one pod's sidecar.
pub(crate) struct Api {
    pod: String,
    forward: Child,
    port: u16,
}

/// A group as a sidecar tells it.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Its term; 0 before the first leader.
    pub(crate) term: u64,
    /// The pod whose application leads.
    pub(crate) leader: Option<String>,
    /// The pods whose applications are members, in the order of joining.
    pub(crate) members: Vec<String>,
    /// Everything.
    pub(crate) raw: Value,
}

impl Api {
    /// Connects to a pod's sidecar.
    ///
    /// # Errors
    /// When the pod does not run.
    pub(crate) fn open(kube: &Kubectl, pod: &str) -> Result<Self> {
        let mut command = kube.command(&["port-forward", &format!("pod/{pod}"), &format!(":{API_PORT}")]);
        let mut forward = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start kubectl port-forward")?;
        let mut line = String::new();
        let output = forward.stdout.take().ok_or_else(|| anyhow!("kubectl has no output"))?;
        // The pipe's end must stay open, or kubectl ends at its next line.
        let mut output = BufReader::new(output);
        output.read_line(&mut line).context("read what kubectl port-forward says")?;
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let port = line
            .split(" -> ")
            .next()
            .and_then(|left| left.rsplit(':').next())
            .and_then(|port| port.trim().parse().ok());
        let Some(port) = port else {
            let _ = forward.kill();
            let _ = forward.wait();
            bail!("kubectl port-forward pod/{pod} gave no port: {line:?}");
        };
        Ok(Self { pod: pod.to_owned(), forward, port })
    }

    /// One request on a connection of its own.
    ///
    /// # Errors
    /// When there is no answer; an answer with an error's status is one.
    pub(crate) fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Response> {
        Connection::open(self.port, REQUEST_TIMEOUT)?
            .request(method, path, body)
            .with_context(|| format!("{method} {path} at {}", self.pod))
    }

    /// A linearizable read of a group.
    ///
    /// # Errors
    /// When the sidecar cannot answer, or not that.
    pub(crate) fn group(&self, group: &str) -> Result<View> {
        View::read(self.request("GET", &format!("/v1/groups/{group}"), None)?.ok()?)
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    /// When the sidecar does not answer.
    pub(crate) fn status(&self) -> Result<Value> {
        self.request("GET", "/v1/status", None)?.ok()
    }

    /// The member that leads a partition (from 1) of a partition group, as this sidecar knows it.
    ///
    /// # Errors
    /// When it knows of none.
    pub(crate) fn partition_leader(&self, partition_group: &str, partition: u64) -> Result<String> {
        let status = self.status()?;
        let groups = status["partition_groups"].as_array().cloned().unwrap_or_default();
        let group = groups.iter().find(|g| g["name"] == partition_group);
        let partitions = group.and_then(|g| g["partitions"].as_array().cloned()).unwrap_or_default();
        let found = partitions.iter().find(|p| number(&p["partition"]) == Some(partition));
        match found.and_then(|p| p["leader"].as_str()).filter(|leader| !leader.is_empty()) {
            Some(leader) => Ok(leader.to_owned()),
            None => {
                bail!("{} knows no leader of {partition_group}/{partition}: {}", self.pod, status["partition_groups"])
            }
        }
    }

    /// Watches a group until dropped.
    ///
    /// # Errors
    /// When the watch cannot begin.
    pub(crate) fn watch(&self, group: &str) -> Result<Watch> {
        let mut events = Connection::open(self.port, STREAM_TIMEOUT)?.events(&format!("/v1/groups/{group}/watch"))?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        std::thread::spawn(move || {
            while let Ok(event) = events.next() {
                let mut seen = sink.lock().unwrap_or_else(PoisonError::into_inner);
                seen.push((Instant::now(), event));
            }
        });
        Ok(Watch { pod: self.pod.clone(), seen })
    }

    /// Reads a group, linearizably, over and over until it is stopped.
    pub(crate) fn reader(&self, group: &str) -> Reader {
        let stop = Arc::new(AtomicBool::new(false));
        let (port, path, stopped) = (self.port, format!("/v1/groups/{group}"), Arc::clone(&stop));
        Reader { stop, thread: std::thread::spawn(move || read_over_and_over(port, &path, &stopped)) }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.forward.kill();
        let _ = self.forward.wait();
    }
}

impl View {
    fn read(raw: Value) -> Result<Self> {
        let term = number(&raw["term"]).ok_or_else(|| anyhow!("no term in {raw}"))?;
        let leader = number(&raw["leader"]).filter(|id| *id != 0);
        let listed = raw["members"].as_array().cloned().unwrap_or_default();
        let pod = |member: &Value| member["sidecar"].as_str().unwrap_or_default().to_owned();
        let leader = listed.iter().find(|m| leader.is_some() && number(&m["id"]) == leader).map(pod);
        Ok(Self { term, leader, members: listed.iter().map(pod).collect(), raw })
    }

    /// The member id of the leader.
    pub(crate) fn leader_id(&self) -> Option<u64> {
        number(&self.raw["leader"]).filter(|id| *id != 0)
    }
}

/// A number, as JSON has it here: u64 are decimal strings.
pub(crate) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// A running watch.
pub(crate) struct Watch {
    pod: String,
    seen: Arc<Mutex<Vec<(Instant, Event)>>>,
}

impl Watch {
    fn seen(&self) -> MutexGuard<'_, Vec<(Instant, Event)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events since `from`, as text, for messages.
    pub(crate) fn story(&self, from: Instant) -> String {
        let seen = self.seen();
        let lines = seen.iter().filter(|(at, _)| *at >= from);
        lines
            .map(|(at, e)| format!("\n    {:+7.0} ms {} {}", (*at - from).as_secs_f64() * 1000.0, e.kind, e.data))
            .collect()
    }

    /// Waits for an event after `from` and gives when it came, and the event.
    ///
    /// # Errors
    /// When it does not come in time: the events that came.
    pub(crate) fn wait(
        &self,
        what: &str,
        from: Instant,
        timeout: Duration,
        is_it: impl Fn(&Event) -> bool,
    ) -> Result<(Instant, Event)> {
        poll::until(&format!("{what}, told by {}", self.pod), timeout, || {
            let found = self.seen().iter().find(|(at, event)| *at >= from && is_it(event)).cloned();
            found.ok_or_else(|| anyhow!("events since then:{}", self.story(from)))
        })
    }

    /// Waits for a leader with a term above `term`, elected after `from`.
    ///
    /// # Errors
    /// When there is none in time.
    pub(crate) fn wait_elected(&self, above: u64, from: Instant, timeout: Duration) -> Result<(Instant, Elected)> {
        let term_of = |event: &Event| field(event, "elected", "term");
        let is_it = |event: &Event| event.kind == "elected" && term_of(event).is_some_and(|term| term > above);
        let (at, event) = self.wait(&format!("a leader with a term above {above}"), from, timeout, is_it)?;
        let term = term_of(&event).unwrap_or_default();
        let leader = field(&event, "elected", "leader").unwrap_or_default();
        Ok((at, Elected { term, leader }))
    }

    /// Waits until the leader of `term` has given up its place.
    ///
    /// # Errors
    /// When it does not in time.
    pub(crate) fn wait_vacated(&self, term: u64, from: Instant, timeout: Duration) -> Result<Instant> {
        let is_it = |event: &Event| event.kind == "vacated" && field(event, "vacated", "term") == Some(term);
        Ok(self.wait(&format!("the release of term {term}"), from, timeout, is_it)?.0)
    }
}

/// A field of an event's data.
fn field(event: &Event, kind: &str, name: &str) -> Option<u64> {
    number(&event.data[name]).or_else(|| number(&event.data[kind][name]))
}

/// Who was elected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elected {
    /// The term.
    pub(crate) term: u64,
    /// The member's id.
    pub(crate) leader: u64,
}

/// A running reader.
pub(crate) struct Reader {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Reads>,
}

/// What a [`Reader`] met.
#[derive(Debug)]
pub(crate) struct Reads {
    /// How many reads succeeded.
    pub(crate) succeeded: u64,
    /// How many failed.
    pub(crate) failed: u64,
    /// The longest time between two successes.
    pub(crate) longest_gap: Duration,
    /// The last reason of a failure.
    pub(crate) last_failure: String,
}

impl Reader {
    /// Stops it.
    ///
    /// # Errors
    /// When its thread panicked, or when it never succeeded.
    pub(crate) fn stop(self) -> Result<Reads> {
        self.stop.store(true, Ordering::Relaxed);
        let reads = self.thread.join().map_err(|_| anyhow!("the reader panicked"))?;
        if reads.succeeded == 0 {
            bail!("no read succeeded: {}", reads.last_failure);
        }
        Ok(reads)
    }
}

/// Readers in several pods at once, each at its pace. A pod that goes fails its reader, which follows the next pod of the
/// name; what counts is how long none of them succeeded, as for a client that knows all pods.
pub(crate) struct Readers {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

/// What they met so far.
struct Seen {
    reads: Reads,
    last_success: Instant,
    pods: BTreeSet<String>,
}

impl Readers {
    /// Starts one in each pod.
    pub(crate) fn start(kube: &Kubectl, pods: &[String], group: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Seen { reads: Reads::none(), last_success: Instant::now(), pods: BTreeSet::new() };
        let seen = Arc::new(Mutex::new(seen));
        let path = format!("/v1/groups/{group}");
        let start = |pod: &String| {
            let (kube, pod, path) = (kube.clone(), pod.clone(), path.clone());
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            std::thread::spawn(move || follow(&kube, &pod, &path, &stop, &seen))
        };
        let threads = pods.iter().map(start).collect();
        Self { stop, seen, threads }
    }

    /// Waits until each has succeeded; what counts begins then.
    ///
    /// # Errors
    /// When one does not in time.
    pub(crate) fn wait_each(&self, timeout: Duration) -> Result<()> {
        poll::until("a read through every pod", timeout, || {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.pods.len() < self.threads.len() {
                bail!("reads succeeded in {:?}; the last failure: {}", seen.pods, seen.reads.last_failure);
            }
            seen.reads = Reads::none();
            Ok(())
        })
    }

    /// Stops them.
    ///
    /// # Errors
    /// When one of their threads panicked.
    pub(crate) fn stop(self) -> Result<Reads> {
        // Readers that end in failures have an open gap.
        let open = self.seen.lock().unwrap_or_else(PoisonError::into_inner).last_success.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a reader panicked"))?;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.reads.longest_gap = seen.reads.longest_gap.max(open);
        Ok(std::mem::replace(&mut seen.reads, Reads::none()))
    }
}

impl Reads {
    fn none() -> Self {
        Self { succeeded: 0, failed: 0, longest_gap: Duration::ZERO, last_failure: String::new() }
    }
}

fn follow(kube: &Kubectl, pod: &str, path: &str, stop: &AtomicBool, seen: &Mutex<Seen>) {
    let mut api = None;
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let opened = match api.take() {
            Some(api) => Ok(api),
            None => Api::open(kube, pod),
        };
        let answer = opened.and_then(|opened| {
            let answer = read_once(&mut connection, opened.port, path);
            // Of a pod that went, the forwarding is of no more use.
            api = answer.is_ok().then_some(opened);
            answer
        });
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(_) => {
                seen.reads.succeeded += 1;
                seen.reads.longest_gap = seen.reads.longest_gap.max(seen.last_success.elapsed());
                seen.last_success = Instant::now();
                seen.pods.insert(pod.to_owned());
            }
            Err(reason) => {
                seen.reads.failed += 1;
                seen.reads.last_failure = format!("{pod}: {reason:#}");
                connection = None;
            }
        }
        drop(seen);
        std::thread::sleep(if api.is_some() { READ_PAUSE } else { REOPEN_PAUSE }); // plays a reader at its pace
    }
}

fn read_over_and_over(port: u16, path: &str, stop: &AtomicBool) -> Reads {
    let mut reads = Reads::none();
    let mut connection = None;
    let mut last_success = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let answer = read_once(&mut connection, port, path);
        match answer {
            Ok(_) => {
                reads.succeeded += 1;
                reads.longest_gap = reads.longest_gap.max(last_success.elapsed());
                last_success = Instant::now();
            }
            Err(reason) => {
                reads.failed += 1;
                reads.last_failure = format!("{reason:#}");
                connection = None;
            }
        }
        std::thread::sleep(READ_PAUSE); // plays a reader at its pace
    }
    // A reader that ends in failures has an open gap.
    reads.longest_gap = reads.longest_gap.max(last_success.elapsed());
    reads
}

fn read_once(kept: &mut Option<Connection>, port: u16, path: &str) -> Result<Value> {
    let connection = match kept {
        Some(connection) => connection,
        None => kept.insert(Connection::open(port, REQUEST_TIMEOUT)?),
    };
    connection.request("GET", path, None)?.ok()
}
