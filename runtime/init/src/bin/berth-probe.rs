//! What the tests do inside a berth that no program of its image can do. Static, copied in by the tests, never installed.
//!
//! `berth-probe exhaust inotify|keys|locked-memory` takes what it can get of one thing, prints `{"got":N,"error":"…"}`, and keeps it
//! until its input ends. `berth-probe router-advertisement LINK` sends one to all nodes on a link. `berth-probe udp FROM TO` sends one
//! datagram from an address and port to another. Exit codes: 0 done, 1 failed (the reason on standard error), 2 usage.

#![forbid(unsafe_code)]

use std::{
    ffi::CString,
    io::{self, Read, Write},
    net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    process::ExitCode,
};

use nix::sys::inotify::{InitFlags, Inotify};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, netdevice::name_to_index, sendto, socket_with, sockopt};

/// More of anything than a limit should let through.
const ENOUGH: usize = 100_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["exhaust", "inotify"] => exhaust(|_| Ok(Inotify::init(InitFlags::IN_CLOEXEC)?)),
        ["exhaust", "keys"] => exhaust(|n| {
            let name = CString::new(format!("berth-probe-{n}"))?;
            berth_sys::keyring::add_user_key(&name, b"x")
        }),
        ["exhaust", "locked-memory"] => exhaust(|_| berth_sys::shared_memory::lock_new(64 << 10)),
        ["router-advertisement", link] => router_advertisement(link),
        ["udp", from, to] => udp(from, to),
        _ => {
            eprintln!("usage: berth-probe exhaust inotify|keys|locked-memory | router-advertisement LINK | udp FROM TO");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-probe {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn exhaust<T>(mut take: impl FnMut(usize) -> io::Result<T>) -> io::Result<()> {
    let mut held = Vec::new();
    let error = loop {
        match take(held.len()) {
            Ok(thing) => held.push(thing),
            Err(error) => break error.to_string(),
        }
        if held.len() == ENOUGH {
            break "no limit".to_owned();
        }
    };
    println!("{}", serde_json::json!({ "got": held.len(), "error": error }));
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(held);
    Ok(())
}

/// An advertisement of a default router that lives for half an hour, RFC 4861 4.2; the kernel puts the checksum in.
fn router_advertisement(link: &str) -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET6, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::ICMPV6))?;
    let index = name_to_index(&socket, link)?;
    // Receivers drop one that may have come through a router.
    sockopt::set_ipv6_multicast_hops(&socket, 255)?;
    let advertisement = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let all_nodes = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, index);
    sendto(&socket, &advertisement, SendFlags::empty(), &all_nodes)?;
    Ok(())
}

fn udp(from: &str, to: &str) -> io::Result<()> {
    let address = |text: &str| text.parse::<SocketAddr>().map_err(|_| io::Error::other(format!("{text} is no address and port")));
    UdpSocket::bind(address(from)?)?.send_to(b"from the probe", address(to)?)?;
    Ok(())
}
