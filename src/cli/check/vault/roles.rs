//! Roles and their policies as lines: who can take them, and what they read then. Does no I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::super::lines::{Line, State, flaw, lack, line};
use super::lines::untold;
use super::policy::{self, Rule};
use super::reach::{RENEWS, excess, read_by};
use super::role::Role;
use super::{Facts, Fault, Plan, Taker};

/// The roles with what follows from them.
pub struct Roles<'a> {
    facts: &'a Facts,
    plan: &'a Plan,
    takers: &'a [Taker],
    /// What mends roles and policies.
    setup: &'a str,
    /// Rules of each policy whose text is known, or why it is not understood.
    rules: BTreeMap<&'a str, Result<Vec<Rule>, String>>,
}

impl<'a> Roles<'a> {
    /// See [`Roles`].
    pub fn new(facts: &'a Facts, plan: &'a Plan, takers: &'a [Taker], setup: &'a str) -> Self {
        let texts = facts.policies.iter();
        let rules = texts
            .filter_map(|(name, text)| Some((name.as_str(), policy::parse(text.as_ref().ok()?))))
            .collect();
        Self {
            facts,
            plan,
            takers,
            setup,
            rules,
        }
    }

    /// One line or more each.
    pub fn lines(&self, lines: &mut Vec<Line>) {
        for taker in self.takers {
            self.role(taker, lines);
            self.policies(taker, lines);
        }
        self.shared(lines);
        for (name, role) in &self.facts.roles {
            if let Ok(role) = role
                && self.takers.iter().all(|taker| taker.role != *name)
            {
                self.other(name, role, lines);
            }
        }
    }

    fn wrong(&self, what: impl Into<String>) -> State {
        flaw(what, self.setup)
    }

    fn lacking(&self, what: impl Into<String>) -> State {
        lack(what, self.setup)
    }

    fn role(&self, taker: &Taker, lines: &mut Vec<Line>) {
        let item = format!("role {}", taker.role);
        let who = told(taker);
        let mut states = Vec::new();
        match self.facts.roles.get(&taker.role) {
            Some(Ok(role)) => {
                states.extend(self.binding(role, taker));
                states.extend(self.audience(role));
                states.extend(self.own_policies(role, taker));
                if states.is_empty() {
                    states.push(Ok(format!("{who} can take it, and nobody else")));
                }
            }
            Some(Err(Fault::Missing)) | None => {
                states.push(self.lacking(format!("not there, so {who} gets no secrets")));
            }
            Some(Err(fault)) => lines.extend(untold(&item, fault)),
        }
        lines.extend(states.into_iter().map(|state| line(&item, state)));
    }

    fn binding(&self, role: &Role, taker: &Taker) -> Vec<State> {
        let mut found = Vec::new();
        let kind = &role.role_type;
        if kind != "jwt" {
            found.push(self.wrong(format!(
                "it is of the type {kind} instead of jwt, so no job can take it"
            )));
        }
        let (takers, who) = (role.takers(), told(taker));
        let phrase = takers.phrase();
        let wide = takers.too_wide(&taker.task);
        if !takers.admit(&taker.task) {
            found.push(self.wrong(format!("{who} cannot take it: it is for {phrase}")));
        } else if !wide.is_empty() {
            found.push(self.wrong(format!("it can be taken by {phrase}: {}", wide.join(", "))));
        }
        found
    }

    fn audience(&self, role: &Role) -> Option<State> {
        let wanted = &self.plan.places.audience;
        let bound = &role.bound_audiences;
        let others: Vec<&str> = bound
            .iter()
            .map(String::as_str)
            .filter(|one| *one != wanted.as_str())
            .collect();
        let shown = others.join(", ");
        let wrong = if bound.is_empty() {
            "no audience is bound: identities that were made for others than Vault are as good"
                .to_owned()
        } else if !bound.contains(wanted) {
            format!("it is for the audience {shown}, and Nomad's identities are for {wanted}")
        } else if !others.is_empty() {
            format!("identities that were made for {shown} are as good as those for {wanted}")
        } else {
            return None;
        };
        Some(self.wrong(wrong))
    }

    fn own_policies(&self, role: &Role, taker: &Taker) -> Vec<State> {
        let named = role.token_policies.iter().map(String::as_str);
        let own: Vec<&str> = named.filter(|name| *name != "default").collect();
        if own.contains(&"root") {
            return vec![self.wrong("whoever takes it may do anything: it has the policy root")];
        }
        let mut found = Vec::new();
        match own.as_slice() {
            [] => return vec![self.lacking("it has no policy, so its task reads no secrets")],
            [_] => {}
            many => found.push(self.wrong(format!(
                "it has {} policies where one is enough: {}",
                many.len(),
                many.join(", ")
            ))),
        }
        let (renewal, update) = RENEWS;
        if let Some(rules) = self.all_rules(role) {
            let allows = |path: &str, word| policy::capabilities(&rules, path).contains(word);
            if !allows(&taker.path, "read") {
                found.push(self.lacking(format!("no policy of it reads {}", taker.path)));
            } else if !allows(renewal, update) {
                found.push(self.lacking(format!(
                    "no policy of it has {update} of {renewal}, and Nomad starts no task whose token it cannot renew"
                )));
            }
        }
        found
    }

    /// All that the role's tokens may, where all of it is known.
    fn all_rules(&self, role: &Role) -> Option<Vec<Rule>> {
        let mut all = Vec::new();
        for name in role.policies() {
            match (self.rules.get(name), self.facts.policies.get(name)) {
                (Some(Ok(rules)), _) => all.extend(rules.iter().cloned()),
                (_, Some(Err(Fault::Missing))) => {}
                _ => return None,
            }
        }
        Some(all)
    }

    fn policies(&self, taker: &Taker, lines: &mut Vec<Line>) {
        let Some(Ok(role)) = self.facts.roles.get(&taker.role) else {
            return;
        };
        for name in role.policies().into_iter().filter(|name| *name != "root") {
            let item = format!("policy {name}");
            let default = name == "default";
            let mut states = Vec::new();
            match (self.rules.get(name), self.facts.policies.get(name)) {
                (Some(Ok(rules)), _) => {
                    let mount = &self.plan.places.mount;
                    let excess = excess(rules, taker, self.takers, mount, default);
                    if excess.is_empty() && !default {
                        states.push(Ok(format!("reads {} and nothing else", taker.path)));
                    }
                    states.extend(excess.into_iter().map(|what| self.wrong(what)));
                }
                (Some(Err(why)), _) => {
                    states.push(self.wrong(format!("it is not understood, so look at it: {why}")));
                }
                (None, Some(Err(Fault::Missing))) if !default => {
                    states.push(
                        self.lacking(format!("not there, and the role {} has it", taker.role)),
                    );
                }
                (None, Some(Err(fault))) => lines.extend(untold(&item, fault)),
                (None, _) => {}
            }
            lines.extend(states.into_iter().map(|state| line(&item, state)));
        }
    }

    fn shared(&self, lines: &mut Vec<Line>) {
        let mut roles: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for taker in self.takers {
            if let Some(Ok(role)) = self.facts.roles.get(&taker.role) {
                for name in role.token_policies.iter().filter(|name| *name != "default") {
                    roles.entry(name).or_default().insert(&taker.role);
                }
            }
        }
        for (name, roles) in roles.into_iter().filter(|(_, roles)| roles.len() > 1) {
            let roles: Vec<&str> = roles.into_iter().collect();
            let wrong = format!(
                "several roles have it, so what one reads all read: {}",
                roles.join(", ")
            );
            lines.push(line(&format!("policy {name}"), self.wrong(wrong)));
        }
    }

    /// A role that is no task's of nomad-build, and may lead to its secrets all the same.
    fn other(&self, name: &str, role: &Role, lines: &mut Vec<Line>) {
        // Those of the type oidc are for people.
        if role.role_type != "jwt" {
            return;
        }
        let takers = role.takers();
        let policies = role.policies();
        let rules = || policies.iter().filter_map(|policy| self.rules.get(policy));
        let known: Vec<Rule> = rules().flatten().flatten().cloned().collect();
        let read = if policies.contains(&"root") {
            self.takers.iter().collect()
        } else {
            read_by(&known, self.takers)
        };
        let read = read
            .into_iter()
            .filter(|taker| !takers.admit_only(&taker.task));
        let read: Vec<&str> = read.map(|taker| taker.secrets.as_str()).collect();
        let why = if !read.is_empty() {
            format!("reads the secrets of {}", read.join(", "))
        } else if self.takers.iter().any(|taker| takers.admit(&taker.task))
            && let Some(Err(why)) = rules().find(|rules| rules.is_err())
        {
            format!("has a policy that is not understood: {why}")
        } else {
            return;
        };
        let wrong = format!("it can be taken by {}, and {why}", takers.phrase());
        let mend = format!(
            "vault delete auth/{}/role/{name}, or give it policies without these paths",
            self.plan.places.auth
        );
        lines.push(line(&format!("role {name}"), flaw(wrong, mend)));
    }
}

fn told(taker: &Taker) -> String {
    let task = &taker.task;
    format!(
        "task {} of job {} of the namespace {}",
        task.name, task.job, task.namespace
    )
}
