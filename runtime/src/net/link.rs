//! The veth pair of one berth, over netlink.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
};

use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute},
        neighbour::NeighbourState,
        route::{RouteMessage, RouteScope},
    },
};

use super::{
    DNS_ADDRESS, GATEWAY, HOST_MAC, INNER_MAC, Link,
    netlink::{failed, index_of, names, netlink, remove},
    rates,
};
use crate::error::{Result, Step};

/// Name of the link inside.
const INNER: &str = "eth0";
/// Device group of every host end, whatever the instance: one instance's table must not drop what another's berths send.
pub(super) const GROUP: u32 = 0x6265_7274;

/// Makes the pair, the far end at once in the network namespace of process `pid`, and routes the berth's address to it.
///
/// Neighbours are permanent and the host end does no ARP: nothing inside can fill the host's neighbour table or pose as another (N02, N07).
pub fn create(link: &Link, pid: u32) -> Result<()> {
    let peer = LinkMessageBuilder::<LinkUnspec>::new().name(INNER).address(INNER_MAC.to_vec()).setns_by_pid(pid).build();
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .name(&link.name)
        .address(HOST_MAC.to_vec())
        .append_extra_attribute(LinkAttribute::Group(GROUP))
        .arp(false)
        .multicast(false);
    netlink(|handle| async move {
        handle.link().add(pair.build()).execute().await.map_err(failed(format!("make link {}", link.name)))?;
        // Before it is up: no IPv6 address of the host end, no router advertisement taken from a tenant.
        forbid_ipv6(&link.name);
        if link.rates != rates::Rates::default() {
            rates::set(&handle, &link.name, link.rates).await?;
        }
        let index = index_of(&handle, &link.name).await?;
        let up = LinkUnspec::new_with_index(index).up().build();
        handle.link().set(up).execute().await.map_err(failed(format!("bring up link {}", link.name)))?;
        neighbour(&handle, index, link.address, INNER_MAC).await?;
        let route = host_route(link.address, index);
        handle.route().add(route).execute().await.map_err(failed(format!("route {}", link.address)))
    })
}

/// Removes the pair, and what its rate went through; gone already is success.
pub fn delete(name: &str) -> Result<()> {
    netlink(|handle| async move {
        let (link, detour) = (remove(&handle, name).await, remove(&handle, &rates::detour(name)).await);
        link.and(detour)
    })
}

/// Names of the links that begin with `prefix`.
pub fn with_prefix(prefix: &str) -> Result<Vec<String>> {
    Ok(names()?.into_iter().filter(|name| name.starts_with(prefix)).collect())
}

/// The link whose rate goes through the link `name`, where that is what `name` stands for.
pub fn detour_of(name: &str) -> Option<&str> {
    name.strip_suffix('i')
}

/// Nothing of IPv6 begins at a link, whatever it is told.
pub(super) fn forbid_ipv6(name: &str) {
    // A kernel without IPv6 has no such file.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
}

/// Configures the inner end and loopback; the caller is in the container's network namespace.
pub(crate) fn configure_inner(address: Ipv4Addr) -> Result<()> {
    netlink(|handle| async move {
        let lo = index_of(&handle, "lo").await?;
        let eth = index_of(&handle, INNER).await?;
        for (index, address) in [(lo, DNS_ADDRESS), (eth, address)] {
            handle.address().add(index, IpAddr::V4(address), 32).execute().await.map_err(failed(format!("set address {address}")))?;
        }
        for index in [lo, eth] {
            let up = LinkUnspec::new_with_index(index).up().build();
            handle.link().set(up).execute().await.map_err(failed("bring up the inner links".into()))?;
        }
        neighbour(&handle, eth, GATEWAY, HOST_MAC).await?;
        let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).output_interface(eth).onlink().build();
        for route in [host_route(GATEWAY, eth), default] {
            handle.route().add(route).execute().await.map_err(failed("add the inner routes".into()))?;
        }
        Ok(())
    })?;
    let (first, last) = ephemeral_ports(address);
    let file = "/proc/sys/net/ipv4/ip_local_port_range";
    fs::write(file, format!("{first} {last}")).step("write", file)
}

/// Where Docker takes the host ports of `-P`, from the first one on: another place in each of two hundred berths, so that what they publish
/// meets seldom on the host's 127.0.0.1. The kernel's own range is 32768–60999.
fn ephemeral_ports(address: Ipv4Addr) -> (u16, u16) {
    let place = u16::try_from(u32::from(address) % 200).unwrap_or_default();
    (32_768 + place * 100, 60_999)
}

fn host_route(address: Ipv4Addr, index: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, 32).output_interface(index).scope(RouteScope::Link).build()
}

async fn neighbour(handle: &Handle, index: u32, address: Ipv4Addr, mac: [u8; 6]) -> Result<()> {
    let request = handle.neighbours().add(index, IpAddr::V4(address)).link_layer_address(&mac).state(NeighbourState::Permanent);
    request.replace().execute().await.map_err(failed(format!("set neighbour {address}")))
}
