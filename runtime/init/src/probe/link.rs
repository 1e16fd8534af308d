//! Frames that no honest host sends.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
};

use berth_sys::packet;
use rustix::net::{SendFlags, send};
use serde_json::json;

use crate::{
    Failure,
    report::{Done, need, outcome, parse},
};

type Hardware = [u8; 6];

const BROADCAST: Hardware = [0xff; 6];
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const PAYLOAD: &[u8] = b"berth-probe";

/// `sender` is said to be at `hardware`, to everyone on the link.
pub(crate) fn arp(link: &str, sender: &str, target: &str, hardware: Option<&str>) -> Done {
    let own = own_address(link)?;
    let claimed = match hardware {
        Some(text) => parse_hardware(text).ok_or(Failure::Usage)?,
        None => own,
    };
    let (sender, target): (Ipv4Addr, Ipv4Addr) = (parse(sender)?, parse(target)?);
    // Ethernet, IPv4, address lengths, operation 2 (reply).
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 2];
    body.extend(claimed.into_iter().chain(sender.octets()).chain(BROADCAST).chain(target.octets()));
    transmit(link, &frame(BROADCAST, claimed, ARP, &body))
}

/// The packet goes to the link's gateway, as a forwarded one must.
pub(crate) fn udp(link: &str, source: &str, destination: &str, port: &str) -> Done {
    let body = udp_packet(parse(source)?, parse(destination)?, parse(port)?);
    transmit(link, &frame(gateway(link).unwrap_or(BROADCAST), own_address(link)?, IPV4, &body))
}

pub(crate) fn router_advertisement(link: &str) -> Done {
    let own = own_address(link)?;
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    transmit(link, &frame([0x33, 0x33, 0, 0, 0, 1], own, IPV6, &advertisement(source, all_nodes)))
}

fn transmit(link: &str, frame: &[u8]) -> Done {
    let index: u32 = parse(need(link, fs::read_to_string(format!("/sys/class/net/{link}/ifindex")))?.trim())?;
    match packet::bind(index) {
        Err(error) => outcome(Err::<(), _>(error), json!({ "step": "socket" })),
        Ok(socket) => outcome(send(&socket, frame, SendFlags::empty()), json!({ "step": "send", "bytes": frame.len() })),
    }
}

fn frame(to: Hardware, from: Hardware, kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&to[..], &from[..], &kind.to_be_bytes()[..], body].concat();
    // The least that Ethernet carries.
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

fn udp_packet(source: Ipv4Addr, destination: Ipv4Addr, port: u16) -> Vec<u8> {
    let length = (20 + 8 + PAYLOAD.len()) as u16;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    // Identification, no fragments, 64 hops, UDP, checksum.
    header.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    header.extend(source.octets().into_iter().chain(destination.octets()));
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    // Source port, then the port in question; a UDP checksum of zero means none.
    header.extend(40_000_u16.to_be_bytes().into_iter().chain(port.to_be_bytes()));
    header.extend((8 + PAYLOAD.len() as u16).to_be_bytes().into_iter().chain([0, 0]));
    header.extend(PAYLOAD);
    header
}

/// Type 134, RFC 4861: a router for half an hour, no prefixes.
fn advertisement(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend(1800_u16.to_be_bytes().into_iter().chain([0; 8]));
    let mut pseudo = [source.octets(), destination.octets()].concat();
    pseudo.extend((message.len() as u32).to_be_bytes().into_iter().chain([0, 0, 0, 58]).chain(message.iter().copied()));
    let sum = checksum(&pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    // Next header ICMPv6; 255 hops, or it is not from this link.
    packet.extend((message.len() as u16).to_be_bytes().into_iter().chain([58, 255]));
    packet.extend(source.octets().into_iter().chain(destination.octets()).chain(message));
    packet
}

/// RFC 1071
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum();
    !(((sum & 0xffff) + (sum >> 16)) as u16).wrapping_add((((sum & 0xffff) + (sum >> 16)) >> 16) as u16)
}

fn own_address(link: &str) -> Result<Hardware, Failure> {
    let text = need(link, fs::read_to_string(format!("/sys/class/net/{link}/address")))?;
    parse_hardware(text.trim()).ok_or_else(|| Failure::Broken(format!("{link} has no Ethernet address")))
}

/// Any neighbour that the kernel knows on this link: on a point-to-point link there is one.
fn gateway(link: &str) -> Option<Hardware> {
    let table = fs::read_to_string("/proc/net/arp").ok()?;
    table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|row| row.last() == Some(&link))
        .and_then(|row| parse_hardware(row.get(3)?))
}

fn parse_hardware(text: &str) -> Option<Hardware> {
    let bytes: Vec<u8> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_with_its_checksum_sums_to_zero() {
        let packet = udp_packet(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(192, 168, 255, 254), 53);
        assert_eq!(checksum(&packet[..20]), 0);
        assert_eq!(packet.len(), usize::from(u16::from_be_bytes([packet[2], packet[3]])));
        // RFC 1071's own example.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn hardware_addresses_are_six_bytes() {
        assert_eq!(parse_hardware("02:00:5e:10:00:ff"), Some([2, 0, 0x5e, 0x10, 0, 0xff]));
        assert_eq!(parse_hardware("02:00:5e"), None);
    }
}
