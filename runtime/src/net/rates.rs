//! How fast a berth's network is, each way; all of it at the host's end of the link, where nothing inside reaches.
//!
//! To the berth: a token bucket on the host end, which sends there. From the berth the host end only receives, and a queue cannot be put
//! on receiving: what comes in is handed to a link of its own (`ifb`) that sends it on to where it was going, through a bucket. Both
//! follow a change at once and keep what is queued. A rate once set is never taken off but made out of reach, because a queue that goes
//! drops its packets. The host end takes its bucket along when it goes; the other link is removed with it ([`super::link::delete`]).

use futures_util::StreamExt;
use rtnetlink::{
    Handle, LinkIfb, LinkUnspec,
    packet_core::{DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::LinkAttribute,
        tc::{TcAttribute, TcHandle, TcMessage, TcOption},
    },
};
use serde::{Deserialize, Serialize};

use super::{
    link::{GROUP, forbid_ipv6},
    netlink::{failed, index_of, is, netlink},
};
use crate::error::{Refused, Result, chain};

/// Bits per second, packet heads included; `None`: as fast as the host is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    pub from_berth: Option<u64>,
    pub to_berth: Option<u64>,
}

/// A terabit per second: what a rate that was taken off becomes.
const OUT_OF_REACH: u64 = 1_000_000_000_000;
/// All protocols, as linux/if_ether.h has it, in network order.
const ETH_P_ALL: u16 = 3_u16.to_be();

/// Name of the link that what a berth sends goes through while it has a rate.
pub(super) fn detour(link: &str) -> String {
    format!("{link}i")
}

/// Makes the rates of a link that exists `new`, at once. What the kernel does not take leaves the `old` ones, and is [`Refused`].
pub fn change(link: &str, old: Rates, new: Rates) -> Result<()> {
    let Err(error) = apply(link, new) else { return Ok(()) };
    let left = apply(link, old).err().map(|error| chain(&error)).into_iter().collect();
    let (field, wanted) = match new.from_berth.filter(|_| new.from_berth != old.from_berth) {
        Some(wanted) => ("network_egress_bits", wanted),
        None => ("network_ingress_bits", new.to_berth.unwrap_or(OUT_OF_REACH)),
    };
    Err(Refused { field, wanted, used: None, left, source: Box::new(error) }.into())
}

/// The same after nobody knows what; when it fails, either rate may be the old one or the new one.
pub fn apply(link: &str, rates: Rates) -> Result<()> {
    netlink(|handle| async move { set(&handle, link, rates).await })
}

pub(super) async fn set(handle: &Handle, link: &str, rates: Rates) -> Result<()> {
    let index = index_of(handle, link).await?;
    match rates.to_berth {
        Some(rate) => bucket(handle, index, rate, NLM_F_CREATE | NLM_F_REPLACE).await.map_err(failed(format!("limit link {link}")))?,
        None => lift(handle, index, link).await?,
    }
    let detour = detour(link);
    match (rates.from_berth, index_of(handle, &detour).await) {
        (Some(rate), Ok(by)) => {
            bucket(handle, by, rate, NLM_F_CREATE | NLM_F_REPLACE).await.map_err(failed(format!("limit link {detour}")))?
        }
        (Some(rate), Err(_)) => make_detour(handle, &detour, rate).await?,
        (None, Ok(by)) => lift(handle, by, &detour).await?,
        (None, Err(_)) => return Ok(()),
    }
    // The last step of the first time, and nothing to do from then on.
    redirect(handle, index, index_of(handle, &detour).await?).await.map_err(failed(format!("lead link {link} through {detour}")))
}

async fn make_detour(handle: &Handle, name: &str, rate: u64) -> Result<()> {
    let link = LinkIfb::new(name).append_extra_attribute(LinkAttribute::Group(GROUP)).build();
    handle.link().add(link).execute().await.map_err(failed(format!("make link {name}")))?;
    forbid_ipv6(name);
    let index = index_of(handle, name).await?;
    let done = async {
        bucket(handle, index, rate, NLM_F_CREATE | NLM_F_REPLACE).await?;
        handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await
    };
    done.await.map_err(failed(format!("limit link {name}")))
}

/// Whatever arrives at `index` goes through `by`, which gives it back where it came in.
async fn redirect(handle: &Handle, index: u32, by: u32) -> Result<(), rtnetlink::Error> {
    let index = as_signed(index);
    match handle.qdisc().add(index).ingress().execute().await {
        Err(error) if !is(&error, nix::libc::EEXIST) => return Err(error),
        _ => {}
    }
    let mut filters = handle.traffic_filter(index);
    let there = filters.get().ingress().execute().any(|found| std::future::ready(found.is_ok())).await;
    if there { Ok(()) } else { filters.add().ingress().priority(1).protocol(ETH_P_ALL).redirect(by)?.execute().await }
}

/// A bucket that is there becomes one that holds nothing back; none there is success.
async fn lift(handle: &Handle, index: u32, link: &str) -> Result<()> {
    match bucket(handle, index, OUT_OF_REACH, 0).await {
        Err(error) if is(&error, nix::libc::ENOENT) || is(&error, nix::libc::EINVAL) => Ok(()),
        done => done.map_err(failed(format!("lift the limit of link {link}"))),
    }
}

async fn bucket(handle: &Handle, index: u32, bits: u64, flags: u16) -> Result<(), rtnetlink::Error> {
    let mut message = TcMessage::with_index(as_signed(index));
    message.header.parent = TcHandle::ROOT;
    let options = Bucket::new(bits).attributes().into_iter().map(|(kind, value)| TcOption::Other(DefaultNla::new(kind, value)));
    message.attributes = vec![TcAttribute::Kind("tbf".to_owned()), TcAttribute::Options(options.collect())];
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut answers = handle.clone().request(request)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload {
            return Err(rtnetlink::Error::NetlinkError(error));
        }
    }
    Ok(())
}

fn as_signed(index: u32) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

/// What tc-tbf(8) takes; bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    /// Per second.
    rate: u64,
    /// What may go at once after a pause: 20 ms of the rate, and never less than the largest packet (64 KiB in one piece, with the heads
    /// that it will have): one that waits while the rate is lowered would wait for ever.
    burst: u32,
    /// What may wait: 100 ms of the rate.
    limit: u32,
}

impl Bucket {
    fn new(bits: u64) -> Self {
        let rate = (bits / 8).max(1);
        let part = |of_second: u64, least: u64, most: u64| u32::try_from((rate / of_second).clamp(least, most)).unwrap_or(u32::MAX);
        Self { rate, burst: part(50, 80 << 10, 64 << 20), limit: part(10, 128 << 10, 256 << 20) }
    }

    /// linux/pkt_sched.h: `struct tc_tbf_qopt`, then the rate in 64 bits and the burst in bytes, which go before what it says.
    fn attributes(self) -> [(u16, Vec<u8>); 3] {
        const PARMS: u16 = 1;
        const RATE64: u16 = 4;
        const BURST: u16 = 6;
        const LINKLAYER_ETHERNET: u8 = 1;
        let mut options = Vec::with_capacity(36);
        // struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate.
        options.extend([0, LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0]);
        options.extend(u32::try_from(self.rate).unwrap_or(u32::MAX).to_ne_bytes());
        // No peak rate.
        options.extend([0; 12]);
        for number in [self.limit, 0, 0] {
            options.extend(number.to_ne_bytes());
        }
        [(PARMS, options), (RATE64, self.rate.to_ne_bytes().to_vec()), (BURST, self.burst.to_ne_bytes().to_vec())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q04_a_bucket_holds_a_fiftieth_of_a_second_and_always_the_largest_packet() {
        assert_eq!(Bucket::new(100_000_000), Bucket { rate: 12_500_000, burst: 250_000, limit: 1_250_000 });
        assert_eq!(Bucket::new(64_000), Bucket { rate: 8_000, burst: 80 << 10, limit: 128 << 10 });
        let [(_, options), (_, rate), _] = Bucket::new(40_000_000_000).attributes();
        assert_eq!(options.len(), 36);
        assert_eq!(rate, 5_000_000_000_u64.to_ne_bytes());
        assert_eq!(options[8..12], u32::MAX.to_ne_bytes());
    }
}
