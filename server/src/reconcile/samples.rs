//! Berths and statuses for the tests of this room.

use uuid::Uuid;

use crate::domain::{Berth, BerthId, HostPolicy, Limits, Own, ProfileId, State, Status, UserId, Wanted};

pub(super) fn berth(wanted: Wanted) -> Berth {
    Berth {
        id: BerthId(Uuid::from_u128(1)),
        user_id: UserId(Uuid::from_u128(2)),
        user: "alice".parse().unwrap(),
        uid: 1000,
        profile_id: ProfileId(Uuid::from_u128(3)),
        profile: "default".to_owned(),
        image: "sha256:00".to_owned(),
        image_name: "default".to_owned(),
        own: Own::default(),
        base: Limits::LEAST,
        grants: Vec::new(),
        limits: Limits::LEAST,
        policy: HostPolicy::default(),
        suspension: None,
        until: None,
        ended: false,
        profile_named: true,
        allow_system: false,
        wanted,
        restart_after: None,
        rebuild_at: None,
        rebuild_wipe: None,
        generation: 2,
        applied: 1,
        status: None,
        problem: None,
        observed_at: None,
        created_at: 0,
        updated_at: 0,
    }
}

pub(super) fn status(berth: &Berth, state: State) -> Status {
    Status {
        user: berth.user.to_string(),
        id: berth.id,
        state,
        docker_ready: state == State::Running,
        conditions: Vec::new(),
        image: berth.image.clone(),
        limits: berth.limits,
        uid: berth.uid,
        id_base: 2_000_224_256,
        id_count: 65_536,
        address: "10.213.0.2".to_owned(),
        socket: "/run/berth/users/1000/docker.sock".to_owned(),
        pid: None,
        started_at: None,
        usage: None,
        suspended: None,
        sleep: None,
        last_used_at: None,
        running_containers: None,
        ports: Vec::new(),
        source_ports: None,
    }
}
