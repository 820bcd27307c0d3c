//! Subordinate ids: whose they are, whether nobody else has them, which are free. Does no I/O.
//!
//! subuid(5) and subgid(5) have lines `OWNER:FIRST:COUNT`, where the owner is a name or a uid.
//! newuidmap(1) passes over a line that it cannot read, and so does this.

use std::fmt;

/// Subordinate ids of users (subuid(5)).
pub const SUBUID: &str = "/etc/subuid";
/// Subordinate ids of groups (subgid(5)).
pub const SUBGID: &str = "/etc/subgid";

/// Ids that one build needs: what an image may use as users and groups.
pub const COUNT: u32 = 65_536;
/// Where free ranges are looked for: `SUB_UID_MIN` and `SUB_UID_MAX` of login.defs(5).
const LOWEST: u64 = 100_000;
const HIGHEST: u64 = 600_100_000;

/// Ids that follow each other; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: u32,
    count: u32,
}

impl Range {
    /// `count` ids from `first` on; none when that is no id at all or goes beyond what ids there are.
    pub fn new(first: u32, count: u32) -> Option<Self> {
        let fits = u64::from(first) + u64::from(count) <= u64::from(u32::MAX);
        (count > 0 && fits).then_some(Self { first, count })
    }

    /// The first one.
    pub fn first(self) -> u32 {
        self.first
    }

    /// How many they are.
    pub fn count(self) -> u32 {
        self.count
    }

    fn last(self) -> u32 {
        self.first + (self.count - 1)
    }

    /// Whether an id is one of them.
    pub fn contains(self, id: u32) -> bool {
        (self.first..=self.last()).contains(&id)
    }

    /// Whether there are enough for a build.
    fn suffices(self) -> bool {
        self.count >= COUNT
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last() && other.first <= self.last()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last())
    }
}

/// As whom lines may name a user: its name, or its uid.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its uid; none of a user that is still to be made.
    pub uid: Option<u32>,
}

impl Owner<'_> {
    fn is(&self, word: &str) -> bool {
        word == self.name || self.uid.is_some_and(|uid| word.parse() == Ok(uid))
    }
}

/// `/etc/subuid` beside `/etc/passwd`, or `/etc/subgid` beside `/etc/group`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Path of the file with the subordinate ids, for faults.
    file: &'static str,
    ranges: Vec<(String, Range)>,
    /// The accounts or groups themselves.
    accounts: Vec<(String, Range)>,
}

impl Table {
    /// Reads both files.
    pub fn parse(file: &'static str, subordinate: &str, accounts: &str) -> Self {
        Self {
            file,
            ranges: subordinate.lines().filter_map(subordinate_line).collect(),
            accounts: accounts.lines().filter_map(account_line).collect(),
        }
    }

    /// The ranges of a user, in the order of the file.
    pub fn of(&self, owner: Owner<'_>) -> Vec<Range> {
        let own = self.ranges.iter().filter(|(word, _)| owner.is(word));
        own.map(|(_, range)| *range).collect()
    }

    /// Those of a user's ranges that somebody else has, too, and who.
    pub fn shared(&self, owner: Owner<'_>) -> Vec<(Range, String)> {
        let other = |range: Range| {
            let account = || {
                self.account_in(range)
                    .map(|name| format!("the account {name}"))
            };
            self.holder(owner, range)
                .or_else(account)
                .map(|who| (range, who))
        };
        self.of(owner).into_iter().filter_map(other).collect()
    }

    /// Whoever else has some of these ids as subordinate ones.
    fn holder(&self, owner: Owner<'_>, range: Range) -> Option<String> {
        let mut others = self.ranges.iter().filter(|(word, _)| !owner.is(word));
        others
            .find(|(_, other)| other.overlaps(range))
            .map(|(word, _)| word.clone())
    }

    fn account_in(&self, range: Range) -> Option<&str> {
        let mut accounts = self.accounts.iter();
        accounts
            .find(|(_, id)| id.overlaps(range))
            .map(|(name, _)| name.as_str())
    }

    /// The accounts with this id.
    pub fn accounts_with(&self, id: u32) -> impl Iterator<Item = &str> {
        let with = move |(_, range): &&(String, Range)| range.contains(id);
        self.accounts
            .iter()
            .filter(with)
            .map(|(name, _)| name.as_str())
    }

    /// What keeps a user's builds from having ids of their own; `id` is its own uid or gid.
    pub fn faults(&self, owner: Owner<'_>, id: Option<u32>) -> Vec<String> {
        let (name, file) = (owner.name, self.file);
        let shared = self.shared(owner).into_iter().map(|(range, other)| {
            format!("{name} has the ids {range} in {file}, and so has {other}")
        });
        let mut faults: Vec<String> = shared.collect();
        if let Some(range) = id.and_then(|id| Range::new(id, 1))
            && let Some(other) = self.holder(owner, range)
        {
            faults.push(format!(
                "{other} has the id {} of {name} itself in {file}",
                range.first
            ));
        }
        faults.extend(self.lack(owner));
        faults
    }

    /// Says that a user has no range that is large enough, when that is so.
    pub fn lack(&self, owner: Owner<'_>) -> Option<String> {
        let enough = self.of(owner).iter().any(|range| range.suffices());
        let text = || {
            format!(
                "{} has no range of {COUNT} ids in {}",
                owner.name, self.file
            )
        };
        (!enough).then(text)
    }

    /// Gives a user a range.
    pub fn add(&mut self, name: &str, range: Range) {
        self.ranges.push((name.to_owned(), range));
    }

    /// Takes a range from a user.
    pub fn remove(&mut self, owner: Owner<'_>, range: Range) {
        self.ranges
            .retain(|(word, one)| !(owner.is(word) && *one == range));
    }

    fn all(&self) -> impl Iterator<Item = Range> {
        self.ranges
            .iter()
            .chain(&self.accounts)
            .map(|(_, range)| *range)
    }
}

/// The first range that is free in all tables; none when there is no room.
pub fn first_free(tables: &[&Table]) -> Option<Range> {
    let mut taken: Vec<Range> = tables.iter().flat_map(|table| table.all()).collect();
    taken.sort_unstable_by_key(|range| range.first);
    let mut first = LOWEST;
    for range in taken {
        if first + u64::from(COUNT) <= u64::from(range.first) {
            break;
        }
        first = first.max(u64::from(range.last()) + 1);
    }
    let range = Range::new(u32::try_from(first).ok()?, COUNT)?;
    (u64::from(range.last()) <= HIGHEST).then_some(range)
}

fn subordinate_line(line: &str) -> Option<(String, Range)> {
    let mut fields = line.trim().split(':');
    let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
    let range = Range::new(first.parse().ok()?, count.parse().ok()?)?;
    (fields.next().is_none() && !owner.is_empty()).then(|| (owner.to_owned(), range))
}

/// passwd(5) and group(5) both have the name first and the id third.
fn account_line(line: &str) -> Option<(String, Range)> {
    let mut fields = line.split(':');
    let (name, id) = (fields.next()?, fields.nth(1)?);
    let range = Range::new(id.parse().ok()?, 1)?;
    Some((name.to_owned(), range))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = "/etc/subuid";

    fn owner(name: &str, uid: u32) -> Owner<'_> {
        Owner {
            name,
            uid: Some(uid),
        }
    }

    fn range(first: u32, count: u32) -> Range {
        Range::new(first, count).unwrap()
    }

    fn table(subordinate: &str) -> Table {
        Table::parse(FILE, subordinate, "root:x:0:0::/root:/bin/sh\n")
    }

    #[test]
    fn lines_that_cannot_be_read_give_nothing_to_anybody() {
        for line in [
            "",
            "# a comment",
            "a",
            "a:100000",
            "a:100000:",
            "a::65536",
            "a:x:65536",
            "a:-1:65536",
            "a:100000:0",
            "a:100000:65536:7",
            ":100000:65536",
            "a:4294967295:2",
            "a:99999999999:1",
        ] {
            assert_eq!(table(line), table(""), "{line:?}");
        }
        let found = table("x\n  a:100000:65536  \n#\na:4294967294:1\n");
        assert_eq!(
            found.of(owner("a", 7)),
            [range(100_000, 65_536), range(4_294_967_294, 1)]
        );
    }

    #[test]
    fn a_user_owns_what_is_under_its_name_and_its_uid() {
        let table = table("a:100000:1\n7:200000:2\nab:300000:3\n70:400000:4\n");
        assert_eq!(
            table.of(owner("a", 7)),
            [range(100_000, 1), range(200_000, 2)]
        );
        let unmade = Owner {
            name: "a",
            uid: None,
        };
        assert_eq!(table.of(unmade), [range(100_000, 1)]);
    }

    #[test]
    fn every_fault_is_named() {
        let text = "a:100000:65536\nb:165535:65536\nc:300000:65535\nd:400000:65536\nd:450000:9\n";
        let accounts = "root:x:0:0::/:/bin/sh\ne:x:465535:1::/:/bin/sh\n";
        let table = Table::parse(FILE, text, accounts);
        assert_eq!(
            table.faults(owner("a", 1), Some(1)),
            ["a has the ids 100000-165535 in /etc/subuid, and so has b"]
        );
        assert_eq!(
            table.faults(owner("b", 2), Some(2)),
            ["b has the ids 165535-231070 in /etc/subuid, and so has a"]
        );
        assert_eq!(
            table.faults(owner("c", 3), Some(3)),
            ["c has no range of 65536 ids in /etc/subuid"]
        );
        // Its own ranges may overlap; the account of another within them may not.
        assert_eq!(
            table.faults(owner("d", 4), Some(4)),
            ["d has the ids 400000-465535 in /etc/subuid, and so has the account e"]
        );
        assert_eq!(
            table.faults(owner("nobody", 5), Some(5)),
            ["nobody has no range of 65536 ids in /etc/subuid"]
        );
        assert_eq!(
            table.faults(owner("d", 4), Some(165_540)),
            [
                "d has the ids 400000-465535 in /etc/subuid, and so has the account e",
                "b has the id 165540 of d itself in /etc/subuid"
            ]
        );
        assert!(
            Table::parse(FILE, text, "")
                .faults(owner("d", 4), Some(4))
                .is_empty()
        );
    }

    #[test]
    fn the_first_free_range_is_behind_or_between_the_others() {
        let free = |text: &str| first_free(&[&table(text)]).map(|range| range.first);
        assert_eq!(free(""), Some(100_000));
        assert_eq!(free("a:100000:65536\n"), Some(165_536));
        assert_eq!(free("a:165536:65536\n"), Some(100_000));
        assert_eq!(free("a:165535:65536\n"), Some(231_071));
        assert_eq!(
            free("b:300000:65536\na:100000:65536\n"),
            Some(165_536),
            "between"
        );
        assert_eq!(free("a:90000:10001\n"), Some(100_001));
        assert_eq!(free("a:100000:599934465\n"), Some(600_034_465), "the last");
        assert_eq!(free("a:100000:599934466\n"), None, "no room");
        assert_eq!(free("a:0:4294967295\n"), None);
        let accounts = Table::parse(FILE, "", "x:x:120000:1::/:/\n");
        assert_eq!(
            first_free(&[&accounts, &table("a:120001:65536\n")]).map(|range| range.first),
            Some(185_537)
        );
    }

    proptest! {
        #[test]
        fn whoever_gets_the_first_free_range_shares_it_with_nobody(
            lines in prop::collection::vec((0u32..900_000, 1u32..200_000), 0..12),
            ids in prop::collection::vec(0u32..900_000, 0..12),
        ) {
            let text: String = (lines.iter().enumerate())
                .map(|(n, (first, count))| format!("u{n}:{first}:{count}\n"))
                .collect();
            let accounts: String = ids.iter().map(|id| format!("x:x:{id}:1::/:/\n")).collect();
            let mut table = Table::parse(FILE, &text, &accounts);
            for n in 0..4 {
                let name = format!("new{n}");
                let free = first_free(&[&table]).unwrap();
                prop_assert!(free.first >= 100_000 && free.suffices());
                table.add(&name, free);
                prop_assert_eq!(table.faults(Owner { name: &name, uid: None }, None), Vec::<String>::new());
            }
        }
    }
}
