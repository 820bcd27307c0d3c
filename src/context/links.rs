//! Where a symbolic link of a context leads. Pure: links are asked from a closure.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many links as Linux follows in one path.
const MAX_LINKS: usize = 40;

/// Where a path ends up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// Below the root, whether something is there or not.
    Inside {
        path: PathBuf,
        /// The links on the way.
        through: Vec<PathBuf>,
    },
    /// Outside, by way of this link.
    Outside { link: PathBuf, target: PathBuf },
    /// The links run in a circle, so nothing can be opened there.
    Endless,
}

/// Follows `path`, relative to the root, through the links that `target_of` knows.
pub(super) fn follow(
    path: &Path,
    mut target_of: impl FnMut(&Path) -> Option<PathBuf>,
) -> Destination {
    let mut ahead: VecDeque<OsString> = names(path).collect();
    let mut here = PathBuf::new();
    let mut through: Vec<PathBuf> = Vec::new();
    let mut last = (path.to_owned(), path.to_owned());
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            if !here.pop() {
                let (link, target) = last;
                return Destination::Outside { link, target };
            }
            continue;
        }
        here.push(&name);
        let Some(target) = target_of(&here) else {
            continue;
        };
        if target.is_absolute() {
            return Destination::Outside { link: here, target };
        }
        if through.len() == MAX_LINKS {
            return Destination::Endless;
        }
        for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
            ahead.push_front(name);
        }
        through.push(here.clone());
        last = (here.clone(), target);
        here.pop();
    }
    Destination::Inside {
        path: here,
        through,
    }
}

/// Whether `target`, read from the link at `link`, leaves the root by its text alone.
pub(crate) fn leaves_by_text(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count().saturating_sub(1);
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    false
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components()
        .filter(|component| *component != Component::CurDir)
        .map(|component| component.as_os_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn to(path: &str, links: &[(&str, &str)]) -> Destination {
        let links: BTreeMap<PathBuf, PathBuf> =
            links.iter().map(|(l, t)| (l.into(), t.into())).collect();
        follow(Path::new(path), |path| links.get(path).cloned())
    }

    fn inside(path: &str, through: &[&str]) -> Destination {
        Destination::Inside {
            path: path.into(),
            through: through.iter().map(Into::into).collect(),
        }
    }

    #[test]
    fn links_are_followed_as_the_kernel_does() {
        assert_eq!(to("a/b", &[]), inside("a/b", &[]));
        assert_eq!(to("a/l", &[("a/l", "../c/./d")]), inside("c/d", &["a/l"]));
        let chain = [("d", "x/y"), ("x/y/l", "../../z")];
        assert_eq!(to("d/l", &chain), inside("z", &["d", "x/y/l"]));
        assert_eq!(to("l", &[("l", "m"), ("m", "l")]), Destination::Endless);
        let outside = |link: &str, target: &str| Destination::Outside {
            link: link.into(),
            target: target.into(),
        };
        assert_eq!(to("l", &[("l", "/etc")]), outside("l", "/etc"));
        assert_eq!(to("a/l", &[("a/l", "../../x")]), outside("a/l", "../../x"));
        // Inside by its text, outside in truth: `up` is not where it seems.
        let hidden = [("a/b/up", "../.."), ("l", "a/b/up/../x")];
        assert_eq!(to("l", &hidden), outside("a/b/up", "../.."));
    }

    #[test]
    fn text_alone() {
        for (link, target, leaves) in [
            ("l", "a/../b", false),
            ("a/l", "../b", false),
            ("a/l", "../../b", true),
            ("l", "..", true),
            ("l", "/a", true),
            ("l", "a/../../b", true),
        ] {
            let found = leaves_by_text(Path::new(link), Path::new(target));
            assert_eq!(found, leaves, "{link} {target}");
        }
    }
}
