//! An application that joins a group and works while it leads.
//!
//! It prints one line for each change of its state and, if told a port, answers `GET /healthz` and `GET /leader`. It finds
//! its sidecar through `COTERIE_SOCKET` or `COTERIE_ENDPOINT`. What it shows:
//!
//! - it works only while [`Member::guard`] says yes, and hands the term on as a fencing token;
//! - when it is asked to release, it stops working first and then says so (D16);
//! - when its session is lost it stops, and joins again as a new member;
//! - on SIGTERM it gives its leadership back and leaves.

mod http;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use coterie_client::{Client, Error, JoinOptions, Member, Retry, SessionState};
use tokio::signal::unix::{Signal, SignalKind, signal};

use http::Shown;

/// Joins a group and works while it leads.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// The group.
    #[arg(long, env = "GROUP", default_value = "workers")]
    group: String,
    /// What this worker calls itself. Default: the host's name.
    #[arg(long, env = "WORKER_NAME")]
    name: Option<String>,
    /// A port for GET /healthz and GET /leader, on every address.
    #[arg(long, env = "HTTP_PORT")]
    http_port: Option<u16>,
}

/// How long to wait before joining again.
const AGAIN: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let name = args.name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "worker".to_owned());
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let shown = Arc::new(Shown::default());
    if let Some(port) = args.http_port {
        http::serve(port, shown.clone()).await?;
    }
    let group = Client::from_env()?.group(args.group);
    let options = JoinOptions::default().metadata("name", &name);
    loop {
        let joined = tokio::select! {
            joined = group.join(options.clone()) => joined,
            _ = terminate.recv() => return Ok(()),
        };
        match joined {
            Ok(member) => {
                if work(&name, &member, &shown, &mut terminate).await? == Next::Leave {
                    return leave(&name, member).await;
                }
            }
            Err(error) if is_final(&error) => return Err(error).context("join"),
            Err(error) => say(&name, &format!("cannot join yet: {error}")),
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            _ = terminate.recv() => return Ok(()),
        }
    }
}

/// Whether waiting does not help. A partition group may well be made after the application was started.
fn is_final(error: &Error) -> bool {
    let awaited = matches!(error, Error::Refused(refusal) if refusal.code == "partition_group_unknown");
    error.retry() == Retry::Never && !awaited
}

/// What to do after a membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The process is to end.
    Leave,
    /// The membership was lost.
    JoinAgain,
}

async fn work(name: &str, member: &Member, shown: &Shown, terminate: &mut Signal) -> anyhow::Result<Next> {
    say(name, &format!("is member {} of {} on {}", member.id(), member.group().name(), member.info().sidecar));
    let mut leadership = member.leadership();
    let mut session = member.session();
    let mut working = None;
    loop {
        let now = *leadership.borrow_and_update();
        let leads = if now.releasing { None } else { member.guard() };
        shown.set(leads.is_some(), now.term.0);
        if working != leads {
            match leads {
                Some(term) => say(name, &format!("leads in term {term}")),
                None => say(name, &format!("follows in term {}", now.term)),
            }
            working = leads;
        }
        if now.releasing {
            // Nothing is at work any more: `working` is none.
            say(name, &format!("releases term {}", now.term));
            release(name, member).await;
        }
        let state = *session.borrow_and_update();
        if state == SessionState::Lost {
            say(name, "lost its session");
            return Ok(Next::JoinAgain);
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return Ok(Next::JoinAgain) },
            changed = session.changed() => if changed.is_ok() { say(name, &format!("session {:?}", *session.borrow())) },
            _ = terminate.recv() => {
                shown.set(false, now.term.0);
                return Ok(Next::Leave);
            }
        }
    }
}

/// Gives a leadership back; if that fails, its release time-out passes instead.
async fn release(name: &str, member: &Member) {
    let term = member.leadership().borrow().term;
    if let Err(error) = member.release(term).await {
        say(name, &format!("release: {error}"));
    }
}

async fn leave(name: &str, member: Member) -> anyhow::Result<()> {
    if let Some(term) = member.guard() {
        say(name, &format!("releases term {term}"));
        release(name, &member).await;
    }
    member.leave().await.context("leave")?;
    say(name, "left");
    Ok(())
}

fn say(name: &str, what: &str) {
    println!("worker {name}: {what}");
}
