//! Tables of iptables, by the program that made them.

use std::{
    fs,
    process::{Command, Stdio},
};

use super::{
    Firewalls,
    chain::{self, Chain, Chains, Need, Rule},
    nftables::Table,
};
use crate::error::{Error, Result, Step};

const CHAIN: &str = "FORWARD";
/// How long the lock of iptables is waited for, in seconds.
const PATIENCE: &str = "5";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Iptables {
    Nft,
    Legacy,
}

/// The program that a table of the nft rule set belongs to; `None`: it is nft's own.
pub(super) fn nft_owner(table: &Table, chain: &str) -> Option<Iptables> {
    let named = table.family == "ip" && ["filter", "mangle", "security"].contains(&table.name.as_str()) && chain == CHAIN;
    named.then(Iptables::nft).flatten()
}

impl Iptables {
    pub(super) fn nft() -> Option<Self> {
        Some(Self::Nft).filter(|program| program.installed())
    }

    /// Asking the program would make the table where there is none, so the kernel is asked whether it has one.
    pub(super) fn legacy() -> Option<Self> {
        Some(Self::Legacy).filter(|program| has("filter") && program.installed())
    }

    pub(super) fn legacy_translates() -> Option<Self> {
        Some(Self::Legacy).filter(|program| has("nat") && program.installed())
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nft => "iptables-nft",
            Self::Legacy => "iptables-legacy",
        }
    }

    fn installed(self) -> bool {
        ["/usr/sbin", "/sbin", "/usr/local/sbin"].iter().any(|dir| std::path::Path::new(dir).join(self.name()).exists())
    }

    /// Those that our rule may be in.
    pub(super) fn tables(self) -> Vec<String> {
        let named = ["filter", "mangle", "security"].map(str::to_owned);
        match self {
            Self::Nft => {
                named.into_iter().filter(|t| super::nft::listed(&["list", "chain", "ip", t, CHAIN]).is_ok_and(|l| l.is_some())).collect()
            }
            Self::Legacy => named.into_iter().filter(|t| t == "filter" && has(t)).collect(),
        }
    }

    pub(super) fn rules(self, table: &str) -> Result<String> {
        self.run(&["-t", table, "-S"])
    }

    /// What the chain needs; `None`: it drops nothing.
    pub(super) fn need(self, table: &str, mark: &str) -> Result<Option<Need>> {
        Ok(chain::need(&parse(&self.rules(table)?), CHAIN, |rule| is_marked(rule, mark)))
    }

    pub(super) fn open(self, table: &str, need: Need, ours: &Firewalls) -> Result<()> {
        if need == Need::Front {
            self.close(table, ours)?;
        }
        let rule = rule(ours);
        let arguments: Vec<&str> = ["-t", table, "-I", CHAIN, "1"].into_iter().chain(rule.iter().map(String::as_str)).collect();
        self.run(&arguments).map(drop)
    }

    /// Takes every rule of ours out.
    pub(super) fn close(self, table: &str, ours: &Firewalls) -> Result<()> {
        let chains = parse(&self.rules(table)?);
        let rules = chains.get(CHAIN).map(|chain| chain.rules.as_slice()).unwrap_or_default();
        // From the last, so that the numbers of those before it stay.
        for (index, _) in rules.iter().enumerate().filter(|(_, rule)| is_marked(rule, &ours.mark)).collect::<Vec<_>>().into_iter().rev() {
            self.run(&["-t", table, "-D", CHAIN, &(index + 1).to_string()])?;
        }
        Ok(())
    }

    fn run(self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(self.name())
            .args(["-w", PATIENCE])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .step("run", format!("{} (package iptables)", self.name()))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => {
                let stderr = String::from_utf8_lossy(&output.stderr).trim().chars().take(2000).collect();
                Err(Error::Program { program: self.name(), status: output.status.to_string(), stderr })
            }
        }
    }
}

/// True when the kernel has this table of iptables-legacy, in the caller's network namespace.
fn has(table: &str) -> bool {
    fs::read_to_string("/proc/thread-self/net/ip_tables_names").is_ok_and(|names| names.lines().any(|name| name == table))
}

fn rule(ours: &Firewalls) -> Vec<String> {
    let words = ["-m", "conntrack", "--ctorigsrc", &ours.pool, "-m", "comment", "--comment", &ours.mark, "-j", "ACCEPT"];
    words.map(str::to_owned).to_vec()
}

fn is_marked(rule: &Rule, mark: &str) -> bool {
    let comment = rule.text.contains(&format!("--comment {mark} ")) || rule.text.contains(&format!("--comment \"{mark}\" "));
    comment && rule.text.contains("--ctorigsrc ") && rule.text.ends_with("-j ACCEPT")
}

/// The output of `-S`: `-P FORWARD DROP`, `-N NAME`, `-A NAME …`.
fn parse(text: &str) -> Chains {
    let mut chains = Chains::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(kind), Some(name)) = (words.next(), words.next()) else { continue };
        let chain: &mut Chain = chains.entry(name.to_owned()).or_default();
        match kind {
            "-P" => chain.policy_drops = words.next() == Some("DROP"),
            "-A" => chain.rules.push(Rule { handle: None, text: line.to_owned() }),
            _ => {}
        }
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n04_the_rules_of_iptables_are_read() {
        let docker = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N DOCKER\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n\
                      -A FORWARD -o docker0 -j DOCKER\n-A DOCKER-USER -j RETURN\n";
        let of = |text: &str| chain::need(&parse(text), CHAIN, |rule| is_marked(rule, "berth"));
        assert_eq!(of(docker), Some(Need::Rule));
        let ours = "-A FORWARD -m conntrack --ctorigsrc 10.213.0.0/16 -m comment --comment berth -j ACCEPT\n";
        assert_eq!(of(&docker.replace("-A FORWARD -j", &format!("{ours}-A FORWARD -j"))), Some(Need::Nothing));
        assert_eq!(of(&format!("-P FORWARD ACCEPT\n-A FORWARD -j REJECT\n{ours}")), Some(Need::Front));
        assert_eq!(of(&format!("{docker}-A FORWARD -m comment --comment berthing -j ACCEPT\n")), Some(Need::Rule));
        assert_eq!(of("-P FORWARD ACCEPT\n-A FORWARD -o docker0 -j ACCEPT\n"), None);
    }
}
