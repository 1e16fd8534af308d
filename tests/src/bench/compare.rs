//! One thing measured at several sides in turns: A B A B, a table with median, spread, and ratios of the same round.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    figures::Samples,
    table::{Row, Table, Target, Unit},
};

/// One round at one side: times in nanoseconds, or whatever the table counts.
pub(super) type Measure<'m> = Box<dyn FnMut() -> Vec<u64> + 'm>;

/// What the project wants of a ratio to a peer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// It is shown.
    None,
}

/// Something that Berth is held against.
pub(super) struct Peer<'m> {
    pub(super) name: &'static str,
    /// Heading of the ratios to it.
    pub(super) ratio: &'static str,
    /// Or why it is not here.
    pub(super) measure: Result<Measure<'m>, String>,
}

impl<'m> Peer<'m> {
    /// A peer that is one, if `made` is.
    pub(super) fn new<T>(
        name: &'static str,
        ratio: &'static str,
        made: &'m Result<T, String>,
        mut round: impl FnMut(&'m T) -> Vec<u64> + 'm,
    ) -> Self {
        let measure = made.as_ref().map_err(String::clone).map(|made| Box::new(move || round(made)) as Measure<'m>);
        Self { name, ratio, measure }
    }
}

/// A row of Berth's own.
pub(super) struct Own<'m> {
    pub(super) name: &'static str,
    /// For each peer, in their order.
    pub(super) limits: Vec<Limit>,
    pub(super) measure: Measure<'m>,
}

/// What `make` makes, or the first line of why it cannot.
pub(super) fn had<T>(make: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(make)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let text = text.unwrap_or_else(|| "it failed".to_owned());
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let (first, last) = (lines.next().unwrap_or_default(), lines.next_back());
        let short = |line: &str| line.chars().take(160).collect::<String>();
        [Some(short(first)), last.map(short)].into_iter().flatten().collect::<Vec<_>>().join(" … ")
    })
}

/// Measures `rounds` times at all sides in turns. One round comes before, for what a first one makes: a peer that fails in it is not here.
#[track_caller]
pub(super) fn run(title: &str, unit: Unit, rounds: usize, mut peers: Vec<Peer<'_>>, mut own: Vec<Own<'_>>) -> Table {
    for peer in &mut peers {
        if let Ok(measure) = &mut peer.measure
            && let Err(reason) = had(|| drop(measure()))
        {
            peer.measure = Err(reason);
        }
    }
    own.iter_mut().for_each(|own| drop((own.measure)()));
    let mut theirs = vec![Samples::default(); peers.len()];
    let mut ours = vec![Samples::default(); own.len()];
    for _ in 0..rounds {
        for (peer, samples) in peers.iter_mut().zip(&mut theirs) {
            if let Ok(measure) = &mut peer.measure {
                samples.push(measure());
            }
        }
        for (own, samples) in own.iter_mut().zip(&mut ours) {
            samples.push((own.measure)());
        }
    }
    let theirs: Vec<Found<'_>> =
        peers.iter().zip(&theirs).map(|(peer, samples)| peer.measure.as_ref().map(|_| samples).map_err(String::as_str)).collect();
    let names: Vec<_> = peers.iter().map(|peer| (peer.name, peer.ratio)).collect();
    let ours: Vec<_> = own.iter().zip(&ours).map(|(own, samples)| (own.name, samples, &own.limits[..])).collect();
    table(title, unit, &names, &theirs, &ours)
}

/// A peer's samples, or why there are none.
type Found<'s> = Result<&'s Samples, &'s str>;

/// `peers`: name and heading of the ratio.
fn table(
    title: &str,
    unit: Unit,
    peers: &[(&'static str, &'static str)],
    theirs: &[Found<'_>],
    ours: &[(&str, &Samples, &[Limit])],
) -> Table {
    let mut columns = vec![("median", unit), ("spread", unit), ("n", Unit::Count)];
    columns.extend(peers.iter().map(|&(_, ratio)| (ratio, Unit::Ratio)));
    let figures = |samples: &Samples| vec![Some(samples.p50()), Some(samples.spread()), Some(samples.count() as f64)];
    let mut rows: Vec<Row> = Vec::new();
    for (&(name, _), found) in peers.iter().zip(theirs) {
        rows.push(match found {
            Ok(samples) => Row::new(name, figures(samples), vec![]),
            Err(reason) => Row::absent(name, *reason),
        });
    }
    for (name, samples, limits) in ours {
        let (mut row, mut targets) = (figures(samples), Vec::new());
        for ((found, limit), (_, peer)) in theirs.iter().zip(*limits).zip(peers) {
            let ratio = found.ok().map(|theirs| samples.ratio_to(theirs));
            row.push(ratio);
            match (ratio, limit) {
                (Some(ratio), Limit::AtMost(most)) => targets.push(Target::at_most("median", ratio, *most, &format!("{most:?} {peer}"))),
                (Some(ratio), Limit::AtLeast(least)) => {
                    targets.push(Target::at_least("median", ratio, *least, &format!("{least:?} {peer}")))
                }
                _ => {}
            }
        }
        rows.push(Row::new(*name, row, targets));
    }
    Table { title: title.into(), columns, rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant<'m>(value: u64) -> Measure<'m> {
        Box::new(move || vec![value])
    }

    fn peer<'m>(name: &'static str, measure: Result<Measure<'m>, String>) -> Peer<'m> {
        Peer { name, ratio: "× peer", measure }
    }

    #[test]
    fn every_limit_can_be_missed() {
        let met = |value: u64, limit: Limit| {
            let own = Own { name: "Berth", limits: vec![limit], measure: constant(value) };
            let table = run("t", Unit::Millis, 3, vec![peer("LXC", Ok(constant(100)))], vec![own]);
            table.rows[1].targets.iter().map(|target| target.met).collect::<Vec<_>>()
        };
        assert_eq!(met(100, Limit::AtMost(1.0)), [true]);
        assert_eq!(met(101, Limit::AtMost(1.0)), [false]);
        assert_eq!(met(90, Limit::AtLeast(0.9)), [true]);
        assert_eq!(met(89, Limit::AtLeast(0.9)), [false]);
        assert!(met(1000, Limit::None).is_empty());
    }

    #[test]
    fn a_peer_that_fails_at_first_is_not_here_and_the_rest_runs() {
        let fails: Measure<'_> = Box::new(|| panic!("lxcfs: no fuse\nmore\nlast"));
        let peers = vec![peer("a", Ok(fails)), peer("b", Err("not installed".into())), peer("c", Ok(constant(50)))];
        let own = Own { name: "Berth", limits: vec![Limit::AtMost(1.0); 3], measure: constant(40) };
        let table = run("t", Unit::Millis, 2, peers, vec![own]);
        let text = table.to_string();
        assert!(text.contains("not here: lxcfs: no fuse … last") && text.contains("not here: not installed"), "{text}");
        let berth = &table.rows[3];
        assert_eq!(berth.targets.len(), 1, "only what was measured has a target");
        assert_eq!(berth.figures[3..], [None, None, Some(0.8)]);
    }

    #[test]
    fn what_is_made_can_be_had() {
        assert_eq!(had(|| 3), Ok(3));
        assert_eq!(had(|| -> u32 { panic!("no") }), Err("no".to_owned()));
    }
}
