//! Docker in Docker in Docker.
#![forbid(unsafe_code)]

use std::{fs, time::Duration};

use berth_tests::Host;

/// Below each engine the next, with the berth's own programs; at the bottom a container. Argument: how many engines are still to come.
const DEEPER: &str = r#"set -e
docker info --format 'driver {{.Driver}}'
if [ "$1" = 0 ]; then
    docker import /usr/share/busybox.tar busybox >/dev/null
    exec docker run --rm -m 32m busybox echo deepest
fi
docker import /usr/share/thin.tar thin >/dev/null
docker run -d --name lower --privileged -v /usr:/usr:ro -v /etc/alternatives:/etc/alternatives:ro -v data:/var/lib/docker thin dockerd >/dev/null
i=0
until docker exec lower docker info >/dev/null 2>&1; do
    i=$((i + 1))
    if [ $i -ge 120 ]; then docker logs lower >&2; exit 1; fi
    sleep 0.5
done
docker exec lower sh /usr/share/deeper $(($1 - 1))
"#;
/// An image that is nothing without the `/usr` that is bound into it.
const THIN: &str = "d=$(mktemp -d) && cd $d && mkdir -p etc run tmp var/lib/docker proc sys dev usr root && \
    for l in bin sbin lib lib64; do ln -s usr/$l $l; done && echo root:x:0:0:root:/root:/bin/sh > etc/passwd && echo root:x:0: > etc/group && \
    tar -cf /usr/share/thin.tar .";

#[test]
fn d03_a_third_dockerd_inside_a_second_runs_a_container() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.sh(THIN).ok();
    a.exec_input(&["sh", "-c", "cat > /usr/share/deeper"], DEEPER).ok();
    let busybox = fs::read(host.cache.as_ref().expect("images").busybox()).expect("read busybox.tar");
    a.exec_input(&["sh", "-c", "cat > /usr/share/busybox.tar"], busybox).ok();
    let told = a.exec(&["sh", "/usr/share/deeper", "2"]).limit(Duration::from_secs(240)).output();
    assert!(told.success(), "{told:?}");
    assert_eq!(told.stdout.lines().collect::<Vec<_>>(), ["driver overlay2", "driver overlay2", "driver overlay2", "deepest"], "{told:?}");
}
