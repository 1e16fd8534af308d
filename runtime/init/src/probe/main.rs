//! What a tenant can see and do, told as JSON: the program that tests run inside a berth.
//!
//! `berth-probe SUBCOMMAND …` prints one JSON object per line. An attempt that the kernel decides on is
//! `{"ok": true, …}` or `{"ok": false, "errno": "EPERM", …}`, and the exit status is 0 both times: a refusal is an answer. Exit 2: usage.
//! Exit 1: the probe itself could not do its work.
//!
//! | subcommand | tells |
//! |---|---|
//! | `caps` | ids, the five capability sets as hexadecimal text, `no_new_privs`, `seccomp` |
//! | `nsids` | link text of every namespace, by name |
//! | `maps` | lines of `uid_map` and `gid_map` as `[inside, outside, count]` |
//! | `fds [PID]` | open descriptors: number → target |
//! | `exe [PID]` | `/proc/PID/{exe,cwd,root}` and whether exe opens for reading and writing; lines of mountinfo |
//! | `kill PID [SIGNAL]` | kill(2), SIGKILL unless said |
//! | `mknod PATH b\|c MAJOR MINOR` | mknod(2), then `open` |
//! | `devices` | nodes of `/dev`: kind, numbers, owner, mode |
//! | `stat PATH`, `read PATH`, `write PATH TEXT` | files, sysctls, limits |
//! | `mount TYPE SOURCE TARGET [OPTIONS]` | mount(2); options as in fstab, `bind` and `rbind` among them |
//! | `umount PATH [detach]` | umount2(2) |
//! | `remount PATH FLAGS` | mount(2) with MS_REMOUNT\|MS_BIND, the mount's own flags replaced by `ro,nosuid,…` (`rw` for none) |
//! | `setattr PATH FLAGS` | mount_setattr(2) that takes flags off |
//! | `bind-remount SOURCE TARGET FLAGS` | a bind mount of a copy, then `remount` of it |
//! | `pivot DIR` | a tmpfs at DIR becomes the root of a new mount namespace |
//! | `unshare LIST SUBCOMMAND …` | unshare(2) of `mnt,user,pid,net,…`, then another subcommand |
//! | `unshare-mount SUBCOMMAND …` | the same for a mount namespace alone |
//! | `chroot DIR SUBCOMMAND …` | chroot(2), then another subcommand |
//! | `inotify-fill`, `mqueue-fill [DIR]`, `keys-fill`, `timers-fill`, `lock-fill` | as many as the kernel gives: `count` and the `errno` of the refusal; held until standard input ends |
//! | `hog BYTES` | a line per 64 MiB touched |
//! | `forkbomb COUNT` | children at once, at most COUNT: `count`, `errno`; all end before it does |
//! | `project DIR ID` | puts a directory into a project of quotas (ioctl_xfs_fssetxattr(2)): `before` and `after` |
//! | `fsync PATH COUNT` | COUNT times 4 KiB written and synced to PATH: `nanoseconds` of each |
//! | `fsync-busy PATH` | one line when begun, then 1 MiB written and synced over and over until standard input ends: `synced` |
//! | `disk-fill PATH BYTES` | writes until full or BYTES: `written`, `errno`; the file stays |
//! | `send-arp LINK SENDER TARGET [HARDWARE]` | a forged ARP reply: SENDER is at HARDWARE (the link's own unless said) |
//! | `send-raw LINK SOURCE DESTINATION PORT` | a UDP packet from a forged address, to the gateway's hardware address |
//! | `send-ra LINK` | a router advertisement |
//! | `listen tcp\|udp ADDRESS [TEXT]` | one line when bound, then one per peer; answers TEXT; until standard input ends |
//! | `connect-from tcp\|udp PORT ADDRESS [TEXT]` | the same from a source port |
//! | `flood ADDRESS ADDRESSES PORTS` | a datagram to each of PORTS ports, from 1 on, of each of ADDRESSES addresses, from ADDRESS on: `sent`, `refused`; held until standard input ends |
//! | `echo SOCKET` | takes the place of SOCKET and does there what clients say ([`echo`]); one line when bound; until standard input ends |
//! | `connect tcp\|udp\|unix ADDRESS [TEXT]` | connects, sends TEXT, `answer` within 2 s |
#![forbid(unsafe_code)]

mod echo;
mod exhaust;
mod files;
mod identity;
mod link;
mod load;
mod mounts;
mod report;
mod sockets;

use std::{env, process::ExitCode};

use report::Failure;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match run(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage) => {
            eprintln!(
                "berth-probe: unknown or incomplete subcommand {words:?}; the subcommands are at the head of runtime/init/src/probe/main.rs"
            );
            ExitCode::from(2)
        }
        Err(Failure::Broken(reason)) => {
            eprintln!("berth-probe: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one subcommand; also what follows `unshare` and `chroot`.
fn run(words: &[&str]) -> report::Done {
    match words {
        ["caps"] => identity::caps(),
        ["nsids"] => identity::namespaces(),
        ["maps"] => identity::maps(),
        ["fds"] => identity::descriptors("self"),
        ["fds", pid] => identity::descriptors(pid),
        ["exe"] => identity::executable("1"),
        ["exe", pid] => identity::executable(pid),
        ["kill", pid] => identity::kill(pid, "KILL"),
        ["kill", pid, signal] => identity::kill(pid, signal),
        ["mknod", path, kind, major, minor] => files::mknod(path, kind, major, minor),
        ["devices"] => files::devices(),
        ["stat", path] => files::stat(path),
        ["read", path] => files::read(path),
        ["write", path, text] => files::write(path, text),
        ["mount", kind, source, target] => mounts::mount(kind, source, target, ""),
        ["mount", kind, source, target, options] => mounts::mount(kind, source, target, options),
        ["umount", path] => mounts::unmount(path, false),
        ["umount", path, "detach"] => mounts::unmount(path, true),
        ["remount", path, flags] => mounts::remount(path, flags),
        ["setattr", path, flags] => mounts::clear_attributes(path, flags),
        ["bind-remount", source, target, flags] => mounts::bind_remount(source, target, flags),
        ["pivot", dir] => mounts::pivot(dir),
        ["unshare", list, rest @ ..] if !rest.is_empty() => mounts::unshare(list, rest),
        ["unshare-mount", rest @ ..] if !rest.is_empty() => mounts::unshare("mnt", rest),
        ["chroot", dir, rest @ ..] if !rest.is_empty() => mounts::chroot(dir, rest),
        ["inotify-fill"] => exhaust::inotify(),
        ["mqueue-fill"] => exhaust::queues("/dev/mqueue"),
        ["mqueue-fill", dir] => exhaust::queues(dir),
        ["keys-fill"] => exhaust::keys(),
        ["timers-fill"] => exhaust::timers(),
        ["lock-fill"] => exhaust::locked_memory(),
        ["hog", bytes] => load::hog(bytes),
        ["forkbomb", count] => load::fork_bomb(count),
        ["hold"] => load::hold(),
        ["project", path, id] => files::project(path, id),
        ["fsync", path, count] => load::fsync(path, count),
        ["fsync-busy", path] => load::fsync_busy(path),
        ["disk-fill", path, bytes] => load::disk_fill(path, bytes),
        ["send-arp", link, sender, target] => link::arp(link, sender, target, None),
        ["send-arp", link, sender, target, hardware] => link::arp(link, sender, target, Some(hardware)),
        ["send-raw", link, source, destination, port] => link::udp(link, source, destination, port),
        ["send-ra", link] => link::router_advertisement(link),
        ["listen", kind, address] => sockets::listen(kind, address, ""),
        ["listen", kind, address, text] => sockets::listen(kind, address, text),
        ["echo", path] => echo::serve(path),
        ["connect-from", kind, port, address] => sockets::connect_from(kind, port, address, ""),
        ["connect-from", kind, port, address, text] => sockets::connect_from(kind, port, address, text),
        ["flood", address, addresses, ports] => sockets::flood(address, addresses, ports),
        ["connect", kind, address] => sockets::connect(kind, address, ""),
        ["connect", kind, address, text] => sockets::connect(kind, address, text),
        _ => Err(Failure::Usage),
    }
}
