//! What runs in the berth and what it publishes, asked of the inner Docker.
//!
//! A look (`GET /containers/json`) is the truth; events only say when to look again, and are counted, not read. The inner Docker is the
//! tenant's: what it claims changes his own berth's sleep and ports, nothing else, and everything it sends is bounded. These calls are no
//! use of the berth, and none is made while it rests.

mod http;
pub(crate) mod inside;

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    inner::Inner,
    sleep::{Rest, Sleeper},
    state::{Engine, State},
};
use http::{Answer, Bad};

/// Subscribed before the first look, so that nothing happens unseen between the two.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%2C%22event%22%3A%5B%22start%22%2C%22die%22%2C\
    %22destroy%22%2C%22pause%22%2C%22unpause%22%2C%22rename%22%2C%22update%22%2C%22connect%22%2C%22disconnect%22%5D%7D";
/// Running, paused, or between two restarts.
const LIST: &str = "/containers/json?all=1&filters=%7B%22status%22%3A%5B%22running%22%2C%22paused%22%2C%22restarting%22%5D%7D";

/// Longest list of containers in bytes; of more containers than fit nothing is known.
const MOST_LIST: usize = 4 << 20;
/// Longest name of a container that is passed on, in characters.
const MOST_NAME: usize = 64;
/// Least time between two looks.
const PACE: Duration = Duration::from_millis(200);
/// How long a head, and a whole list, may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// First and longest pause before the next attempt after a failed one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How long what was known last is believed while nobody answers.
const BELIEVED: Duration = Duration::from_secs(10);

/// Where inside the berth a published port is reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// At the berth's own address.
    Berth,
    /// At its 127.0.0.1 only.
    Loopback,
}

/// A port that some container publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) reach: Reach,
    pub(crate) container: String,
    pub(crate) container_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Protocol::Tcp, Protocol::Udp].into_iter().find(|p| p.name() == name)
    }
}

/// Follows the inner Docker for ever. Fills `state.containers.running`, tells it, and hands on what is published after each look.
pub(crate) struct Follower {
    pub(crate) inner: Arc<Inner>,
    pub(crate) state: Arc<State>,
    pub(crate) sleeper: Arc<Sleeper>,
    /// The berth's own address.
    pub(crate) address: Ipv4Addr,
    /// Sent after every look, also when nothing changed.
    pub(crate) published: watch::Sender<Vec<Published>>,
}

impl Follower {
    pub(crate) async fn follow(self) {
        let (mut engine, mut rest) = (self.state.watch_engine(), self.sleeper.watch());
        let mut stop = self.state.watch_stop();
        let mut pause = PAUSES.0;
        let mut known = Instant::now();
        let mut told = None;
        loop {
            if engine.wait_for(|engine| *engine == Engine::Ready).await.is_err()
                || rest.wait_for(|rest| *rest == Rest::Awake).await.is_err()
            {
                return;
            }
            let began = Instant::now();
            let Err(error) = tokio::select! {
                biased;
                // A dockerd that stops waits five seconds for connections that somebody holds open.
                _ = stop.wait_for(Option::is_some) => return,
                ended = self.session(&mut known) => ended,
            };
            if self.sleeper.asleep() {
                continue;
            }
            if known > began {
                pause = PAUSES.0;
            }
            let why = berth_runtime::error::chain(&error);
            if told.as_ref() != Some(&why) {
                // Once for each reason in a row: the tenant's Docker is not to fill the log.
                tracing::info!(error = why, "the inner Docker's containers are not known for now");
                told = Some(why);
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
            if known.elapsed() > BELIEVED && !self.sleeper.asleep() {
                self.note(None);
            }
        }
    }

    /// Looks now and after each event, until something fails.
    async fn session(&self, known: &mut Instant) -> Result<std::convert::Infallible, Failed> {
        let mut events = self.ask(EVENTS).await?;
        loop {
            let next = Instant::now() + PACE;
            let published = {
                // A look under way is let finish before the berth is frozen.
                let _look = self.sleeper.look();
                self.look().await?
            };
            *known = Instant::now();
            self.note(Some(published.0));
            self.published.send_replace(published.1);
            sleep_until(next).await;
            loop {
                match events.lines().await? {
                    Some(0) => {}
                    Some(_) => break,
                    None => return Err(Failed::Ended),
                }
            }
        }
    }

    async fn look(&self) -> Result<(u32, Vec<Published>), Failed> {
        let body = timeout(PATIENCE, async { Ok::<_, Failed>(self.ask(LIST).await?.body(MOST_LIST).await?) }).await;
        let listed: Vec<Listed> = serde_json::from_slice(&body.map_err(|_| Failed::Slow)??).map_err(|_| Failed::NoList)?;
        let running = u32::try_from(listed.len()).unwrap_or(u32::MAX);
        Ok((running, published(&listed, self.address)))
    }

    async fn ask(&self, path: &str) -> Result<Answer, Failed> {
        let asked = async {
            let stream = self.inner.connect().await?;
            Ok(http::get(stream, path).await?)
        };
        timeout(PATIENCE, asked).await.map_err(|_| Failed::Slow)?
    }

    fn note(&self, running: Option<u32>) {
        let changed = self.state.containers.send_if_modified(|known| std::mem::replace(&mut known.running, running) != running);
        if let (true, Some(running)) = (changed, running) {
            self.state.tell(crate::link::Event::Containers { running });
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Unreachable(#[from] super::inner::Unreachable),
    #[error(transparent)]
    Bad(#[from] Bad),
    #[error("the inner Docker did not answer within {} s", PATIENCE.as_secs())]
    Slow,
    #[error("the inner Docker's list of containers is none")]
    NoList,
    #[error("the inner Docker ended its events")]
    Ended,
}

/// Of `GET /containers/json`.
#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(rename = "Names")]
    names: Option<Vec<String>>,
    #[serde(rename = "Ports")]
    ports: Option<Vec<ListedPort>>,
}

#[derive(Debug, Deserialize)]
struct ListedPort {
    #[serde(rename = "IP", default)]
    ip: String,
    #[serde(rename = "PrivatePort")]
    private: u16,
    #[serde(rename = "PublicPort")]
    public: Option<u16>,
    #[serde(rename = "Type", default)]
    protocol: String,
}

/// What is published over IPv4, by protocol and port; at the berth's address counts more than at its loopback.
fn published(listed: &[Listed], address: Ipv4Addr) -> Vec<Published> {
    let mut all = Vec::new();
    for container in listed {
        // Further names are links of other containers: `/other/alias`.
        let names = container.names.iter().flatten();
        let name = names.map(|n| n.trim_start_matches('/')).find(|n| !n.contains('/')).unwrap_or_default();
        for port in container.ports.iter().flatten() {
            let reach = match port.ip.parse::<Ipv4Addr>() {
                Ok(ip) if ip.is_unspecified() || ip == address => Reach::Berth,
                Ok(ip) if ip == Ipv4Addr::LOCALHOST => Reach::Loopback,
                _ => continue,
            };
            let (Some(protocol), Some(public @ 1..)) = (Protocol::parse(&port.protocol), port.public) else { continue };
            all.push(Published { protocol, port: public, reach, container: printable(name), container_port: port.private });
        }
    }
    all.sort_by_key(|p| (p.protocol, p.port, p.reach));
    all.dedup_by_key(|p| (p.protocol, p.port));
    all
}

fn printable(name: &str) -> String {
    name.chars().take(MOST_NAME).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests;
